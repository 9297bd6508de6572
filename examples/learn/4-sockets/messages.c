/* One recv() is not one message: a stream has no borders but its end; a datagram is a message, if it comes. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int must(ssize_t result, const char *what)
{
    if (result >= 0) return (int)result;
    perror(what);
    exit(1);
}

static int bound(int type, struct sockaddr_in *address)
{
    socklen_t size = sizeof(*address);
    int fd = must(socket(AF_INET, type, 0), "socket");
    *address = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    must(bind(fd, (struct sockaddr *)address, size), "bind");
    must(getsockname(fd, (struct sockaddr *)address, &size), "getsockname");
    return fd;
}

static int connected(int type, const struct sockaddr_in *address)
{
    int fd = must(socket(AF_INET, type, 0), "socket"), one = 1;
    must(connect(fd, (const struct sockaddr *)address, sizeof(*address)), "connect");
    if (type == SOCK_STREAM) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

/* Receives at most SIZE bytes, once WAIT of them lie there, and shows them as C would write them. */
static ssize_t show(int fd, size_t size, ssize_t wait)
{
    char bytes[100];
    while (recv(fd, bytes, sizeof(bytes), MSG_PEEK) < wait) continue;
    ssize_t n = must(recv(fd, bytes, size, 0), "recv");
    putchar('"');
    for (ssize_t i = 0; i < n; i++)
        if (bytes[i] == 0) printf("\\0");
        else if (bytes[i] == '\n') printf("\\n");
        else putchar(bytes[i]);
    printf("\" ");
    return n;
}

static void send_text(int fd, const char *text)
{
    must(send(fd, text, strlen(text), MSG_NOSIGNAL), "send");
}

static void streams(void)
{
    struct sockaddr_in address;
    int listener = bound(SOCK_STREAM, &address);
    must(listen(listener, 8), "listen");
    int client = connected(SOCK_STREAM, &address);
    int server = must(accept(listener, NULL, NULL), "accept");

    send_text(client, "one");
    send_text(client, "two");
    printf("TCP, joined: two sends, one recv: ");
    show(server, 100, 6);
    send_text(client, "a long message");
    printf("\nTCP, split: one send, two recvs: ");
    show(server, 6, 14);
    show(server, 100, 8);
    must(send(client, "a\0b\n", 4, 0), "send");
    printf("\nTCP, NUL: four bytes came: ");
    printf("- strlen would count %zu of %zd", strlen("a\0b\n"), show(server, 100, 4));
    must(shutdown(client, SHUT_WR), "shutdown");
    printf("\nTCP, half-closed: recv says the end: ");
    show(server, 100, 0);
    send_text(server, "answer");
    printf("- and the other direction still works: ");
    show(client, 100, 6);
    putchar('\n');
    close(client);
    close(server);
    close(listener);
}

static void datagrams(void)
{
    static char large[65508];
    struct sockaddr_in address;
    int receiver = bound(SOCK_DGRAM, &address), sender = connected(SOCK_DGRAM, &address);

    send_text(sender, "one");
    send_text(sender, "two");
    send_text(sender, "");
    printf("UDP: each send is a message: ");
    for (int i = 0; i < 3; i++) show(receiver, 100, 0);
    send_text(sender, "a long message");
    printf("\nUDP, cut: what recv has no room for is gone: ");
    show(receiver, 6, 0);
    if (send(sender, large, sizeof(large), 0) < 0) printf("\nUDP, %zu bytes: %s", sizeof(large), strerror(errno));
    close(receiver);
    send_text(sender, "anybody?");
    if (send(sender, "hello?", 6, 0) < 0)
        printf("\nUDP, nobody there: the first send succeeds, the next one hears: %s\n", strerror(errno));
    close(sender);
}

int main(void)
{
    streams();
    datagrams();
    return 0;
}
