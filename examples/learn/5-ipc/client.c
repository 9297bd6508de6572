/* Five things that happen to a server, each tried from outside: client [SECONDS] PORT, 1 s of patience. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static unsigned port;
static double patience = 1;

/* A connected socket whose calls wait for as long as our patience lasts; -1: nobody is there. */
static int connect_once(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct timeval limit = { (time_t)patience, (suseconds_t)((patience - (double)(time_t)patience) * 1e6) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_port = htons((unsigned short)port);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0) return fd;
    close(fd);
    return -1;
}

/* How many bytes come back, right ones, for SIZE bytes of DATA; closes FD. */
static size_t echo(int fd, const char *data, size_t size)
{
    char back[4096];
    size_t have = 0;
    ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
    while (n > 0 && have < size) {
        n = recv(fd, back + have, sizeof(back) - have, 0);
        if (n > 0) have += (size_t)n;
    }
    close(fd);
    return memcmp(back, data, have) == 0 ? have : 0;
}

static void check(const char *what, int fd, const char *data, size_t size)
{
    size_t back = echo(fd, data, size);
    if (back == size) printf("%-22s right\n", what);
    else printf("%-22s WRONG: %zu of %zu bytes came back\n", what, back, size);
}

static void who_can_connect(void)
{
    char line[512];
    unsigned address, local, state;
    FILE *file = fopen("/proc/net/tcp", "r");
    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, " %*u: %8x:%4x %*8x:%*4x %2x", &address, &local, &state) == 3 && local == port && state == 10)
            printf("%-22s %s\n", "who can connect",
                   address == 0 ? "WRONG: everybody, from all addresses" : "this machine alone");
    if (file) fclose(file);
}

int main(int argc, char **argv)
{
    static char large[2000];
    if (argc < 2) return 2;
    port = (unsigned)atoi(argv[argc - 1]);
    if (argc > 2) patience = atof(argv[1]);
    memset(large, 'x', sizeof(large));
    check("a NUL byte", connect_once(), "a\0b", 3);
    check("2,000 bytes", connect_once(), large, sizeof(large));
    int idle = connect_once(); /* it is the first to be accepted, and says nothing */
    check("a second client", connect_once(), "hello", 5);
    close(idle);
    int gone = connect_once(); /* as if its machine had lost power: no word, no end */
    check("a client that vanished", connect_once(), "hello", 5);
    close(gone);
    who_can_connect();
    return 0;
}
