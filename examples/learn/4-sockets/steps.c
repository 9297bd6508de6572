/* Each step of a TCP connection, and what the kernel shows of it: steps [PORT] */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void must(int result, const char *what)
{
    if (result >= 0) return;
    perror(what);
    exit(1);
}

static const char *state_name(unsigned state)
{
    static const char *const names[] = { "?",         "ESTABLISHED", "SYN_SENT",   "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2",
                                         "TIME_WAIT", "CLOSE",       "CLOSE_WAIT", "LAST_ACK", "LISTEN" };
    return state < sizeof(names) / sizeof(names[0]) ? names[state] : "?";
}

static int compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* The lines of /proc/net/tcp whose local port is ours: state, ports, bytes in both queues. Returns their number. */
static unsigned kernel(char shown[8][128], unsigned port, unsigned other)
{
    char line[512];
    unsigned local, remote, state, unsent, unread, count = 0;
    FILE *file = fopen("/proc/net/tcp", "r");
    while (file && fgets(line, sizeof(line), file) && count < 8)
        if (sscanf(line, " %*u: %*8x:%4x %*8x:%4x %2x %8x:%8x", &local, &remote, &state, &unsent, &unread) == 5 &&
            (local == port || local == other))
            snprintf(shown[count++], sizeof(shown[0]), "    %-8s %-11s port %u -> port %u  unsent=%u unread=%u",
                     local != port ? "client"
                     : remote      ? "server"
                                   : "listener",
                     state_name(state), local, remote, unsent, unread);
    if (file) fclose(file);
    qsort(shown, count, sizeof(shown[0]), compare);
    return count;
}

static void step(const char *what, unsigned port, unsigned other)
{
    char shown[8][128];
    unsigned count = kernel(shown, port, other);
    puts(what);
    for (unsigned i = 0; i < count; i++) puts(shown[i]);
    if (count == 0) puts("    (nothing)");
}

/* Until the other side has acknowledged our end. */
static void wait_for_acknowledgement(unsigned own)
{
    char shown[8][128];
    while (kernel(shown, own, own) == 1 && strstr(shown[0], "FIN_WAIT1")) usleep(1000);
}

static unsigned port_of(int fd)
{
    struct sockaddr_in address;
    socklen_t size = sizeof(address);
    must(getsockname(fd, (struct sockaddr *)&address, &size), "getsockname");
    return ntohs(address.sin_port);
}

static void receive(int fd)
{
    char bytes[100];
    ssize_t n = recv(fd, bytes, sizeof(bytes), 0);
    must((int)n, "recv");
    printf("recv: %zd bytes: '%.*s'\n", n, (int)n, bytes);
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof(address);
    int wanted = argc > 1 ? atoi(argv[1]) : 0; /* 0: the kernel picks a free port */
    if (wanted < 0 || wanted > 65535) {
        fprintf(stderr, "steps: port %d: ports go to 65535\n", wanted);
        return 2;
    }

    int listener = socket(AF_INET, SOCK_STREAM, 0);
    must(listener, "socket");
    address.sin_port = htons((unsigned short)wanted);
    if (bind(listener, (struct sockaddr *)&address, size) < 0) {
        fprintf(stderr, "steps: port %d: %s (leave it out, and the kernel picks a free one)\n", wanted,
                strerror(errno));
        return 1;
    }
    must(getsockname(listener, (struct sockaddr *)&address, &size), "getsockname");
    unsigned port = port_of(listener);
    step("socket, bind: we own a port, and nobody can connect", port, 0);
    must(listen(listener, 128), "listen");
    step("listen: now the kernel answers for us", port, 0);

    int client = socket(AF_INET, SOCK_STREAM, 0);
    must(connect(client, (struct sockaddr *)&address, size), "connect");
    unsigned own = port_of(client);
    step("connect: it succeeds though nobody accepted; the new one waits in the listener's queue", port, own);
    int server = accept(listener, NULL, NULL);
    must(server, "accept");
    step("accept: takes it out of the queue", port, own);

    must((int)send(client, "hello", 5, 0), "send");
    step("send: five bytes lie at the other end, unread", port, own);
    receive(server);
    step("recv: and now they don't", port, own);

    must(shutdown(client, SHUT_WR), "shutdown");
    puts("half-closed: the server reads the end, which is 0 bytes, and can still send");
    receive(server);
    wait_for_acknowledgement(own);
    step("shutdown: each side knows that one direction is over", port, own);
    must((int)send(server, "goodbye", 7, 0), "send");
    receive(client);

    close(server);
    close(client);
    close(listener);
    step("close: the kernel remembers the client's side for a minute, against stray packets", port, own);
    return 0;
}
