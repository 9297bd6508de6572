/* The echo server that everybody writes first. It works, until somebody else uses it. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = INADDR_ANY };
    socklen_t size = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    bind(listener, (struct sockaddr *)&address, sizeof(address));
    listen(listener, 100);
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("listening on port %u\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        char text[1024] = "";
        int fd = accept(listener, NULL, NULL);
        recv(fd, text, sizeof(text) - 1, 0);
        send(fd, text, strlen(text), 0);
        close(fd);
    }
}
