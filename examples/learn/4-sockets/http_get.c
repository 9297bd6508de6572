/* A web client by hand: connect, send four lines, print what comes. Arguments: HOST PORT. */
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int connect_to(const char *host, const char *port)
{
    struct addrinfo *found, hints = { .ai_socktype = SOCK_STREAM };
    int fd = -1, r = getaddrinfo(host, port, &hints, &found);
    if (r != 0) {
        fprintf(stderr, "%s: %s\n", host, gai_strerror(r));
        return -1;
    }
    for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next) { /* a name may have several addresses */
        fd = socket(a->ai_family, a->ai_socktype, 0);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) < 0) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    if (fd < 0) perror(host);
    return fd;
}

int main(int argc, char **argv)
{
    char text[4096];
    ssize_t n;
    if (argc != 3) {
        fprintf(stderr, "usage: http_get HOST PORT\n");
        return 2;
    }
    int fd = connect_to(argv[1], argv[2]);
    if (fd < 0) return 1;
    int size = snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", argv[1]);
    if (send(fd, text, (size_t)size, MSG_NOSIGNAL) != size) perror("send");
    while ((n = recv(fd, text, sizeof(text), 0)) > 0) fwrite(text, 1, (size_t)n, stdout);
    if (n < 0) perror("recv");
    close(fd);
    return n < 0;
}
