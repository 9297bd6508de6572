/* bench_raw_datagram: UDP on loopback as bare as it can be: a blocking sendto() and a blocking recvfrom() per side.
 */
#include "bench.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct state {
    int server, client;
    struct sockaddr_in address;
    unsigned char buffer[65536];
};

static int bind_loopback(struct sockaddr_in *address)
{
    socklen_t size = sizeof(*address);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    *address = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    if (fd < 0) return -errno;
    if (bind(fd, (struct sockaddr *)address, size) == 0 && getsockname(fd, (struct sockaddr *)address, &size) == 0)
        return fd;
    close(fd);
    return -errno;
}

static int prepare(struct bench_link *link)
{
    struct state *state = calloc(1, sizeof(*state));

    if (!state) return bench_fail(link, -ENOMEM, "out of memory");
    link->state = state;
    state->server = bind_loopback(&state->address);
    return state->server < 0 ? bench_fail(link, state->server, "bind: %s", strerror(-state->server)) : 0;
}

static int serve(struct bench_link *link)
{
    struct state *state = link->state;
    int r = bench_ready(link);

    while (r == 0) {
        struct sockaddr_in from;
        socklen_t size = sizeof(from);
        ssize_t n = recvfrom(state->server, state->buffer, sizeof(state->buffer), 0, (struct sockaddr *)&from, &size);
        if (n < 0) return bench_fail(link, -errno, "recvfrom: %s", strerror(errno));
        if (sendto(state->server, state->buffer, (size_t)n, 0, (struct sockaddr *)&from, size) != n)
            return bench_fail(link, -errno, "sendto: %s", strerror(errno));
    }
    return r;
}

static int open_socket(struct bench_link *link)
{
    struct state *state = link->state;
    struct sockaddr_in own;

    state->client = bind_loopback(&own);
    return state->client < 0 ? bench_fail(link, state->client, "bind: %s", strerror(-state->client)) : 0;
}

static int call(struct bench_link *link, const void *body, size_t size, const void **ret_reply)
{
    struct state *state = link->state;
    struct sockaddr_in from;
    socklen_t from_size = sizeof(from);
    ssize_t n;

    if (sendto(state->client, body, size, 0, (struct sockaddr *)&state->address, sizeof(state->address)) < 0)
        return bench_fail(link, -errno, "sendto: %s", strerror(errno));
    n = recvfrom(state->client, state->buffer, sizeof(state->buffer), 0, (struct sockaddr *)&from, &from_size);
    if (n != (ssize_t)size) return bench_fail(link, -EBADMSG, "datagram: %zd bytes of %zu came back", n, size);
    *ret_reply = state->buffer;
    return 0;
}

static void close_socket(struct bench_link *link)
{
    close(((struct state *)link->state)->client);
}

const struct bench_ops bench_raw_udp = {
    .prepare = prepare,
    .serve = serve,
    .open = open_socket,
    .call = call,
    .close = close_socket,
};
