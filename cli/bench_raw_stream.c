/* bench_raw_stream: a Unix or TCP stream that echoes messages, length first, written as tightly
 * as blocking sockets allow: one send and, for what fits into a socket buffer, one recv per
 * message and side; buffers stay warm while a connection lives, and are fresh with a fresh one.
 */
#include "bench.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

struct state {
    int listener, fd;
    struct sockaddr_storage address;
    socklen_t address_size;
    unsigned char *buffer; /* length and body */
    size_t room;
};

static int prepare(struct bench_link *link, int family)
{
    struct state *state = calloc(1, sizeof(*state));
    struct sockaddr_in loopback = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sockaddr unnamed = { .sa_family = AF_UNIX }; /* the kernel picks an abstract name */
    int tcp = family == AF_INET;

    if (!state) return bench_fail(link, -ENOMEM, "out of memory");
    link->state = state;
    state->address_size = sizeof(state->address);
    state->listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (state->listener < 0 ||
        bind(state->listener, tcp ? (struct sockaddr *)&loopback : &unnamed,
             tcp ? sizeof(loopback) : sizeof(sa_family_t)) < 0 ||
        listen(state->listener, 1024) < 0 ||
        getsockname(state->listener, (struct sockaddr *)&state->address, &state->address_size) < 0)
        return bench_fail(link, -errno, "listen: %s", strerror(errno));
    return 0;
}

static int prepare_unix(struct bench_link *link)
{
    return prepare(link, AF_UNIX);
}

static int prepare_tcp(struct bench_link *link)
{
    return prepare(link, AF_INET);
}

/* A Unix stream with the default send buffer is almost twice as slow from 256 KiB to 1 MiB: an
 * opponent that knows this is the one to beat. */
static int settle(const struct bench_link *link, int fd)
{
    int one = 1, half_mib = 1 << 19, r;

    if (link->subject->ops == &bench_raw_tcp) r = setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    else r = setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &half_mib, sizeof(half_mib));
    return r < 0 ? -errno : 0;
}

static int make_buffer(struct state *state, size_t size)
{
    state->room = size + sizeof(uint32_t);
    state->buffer = mmap(NULL, state->room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return state->buffer == MAP_FAILED ? -ENOMEM : 0;
}

static void drop(struct state *state)
{
    close(state->fd);
    munmap(state->buffer, state->room);
}

/* 1: a whole message lies in the buffer; 0: the connection is over. */
static int take_message(struct state *state, uint32_t *ret_size)
{
    size_t have = 0;
    uint32_t size = 0;

    while (have < sizeof(size) || have < sizeof(size) + size) {
        ssize_t n = recv(state->fd, state->buffer + have, state->room - have, 0);
        if (n <= 0) return n < 0 ? -errno : 0;
        have += (size_t)n;
        if (have < sizeof(size)) continue;
        memcpy(&size, state->buffer, sizeof(size));
        if (size > state->room - sizeof(size)) return -EBADMSG;
    }
    *ret_size = size;
    return 1;
}

static int send_all(int fd, struct iovec *parts, int count)
{
    struct msghdr message = { .msg_iov = parts, .msg_iovlen = (size_t)count };

    while (message.msg_iovlen > 0) {
        ssize_t n = sendmsg(fd, &message, MSG_NOSIGNAL);
        if (n < 0) return -errno;
        while (message.msg_iovlen > 0 && (size_t)n >= message.msg_iov->iov_len) {
            n -= (ssize_t)message.msg_iov->iov_len;
            message.msg_iov++;
            message.msg_iovlen--;
        }
        if (message.msg_iovlen > 0) {
            message.msg_iov->iov_base = (char *)message.msg_iov->iov_base + n;
            message.msg_iov->iov_len -= (size_t)n;
        }
    }
    return 0;
}

static int serve_connection(struct state *state)
{
    uint32_t size;
    int r;

    while ((r = take_message(state, &size)) > 0) {
        struct iovec all = { state->buffer, size + sizeof(size) };
        r = send_all(state->fd, &all, 1);
        if (r < 0) return r;
    }
    return r;
}

/* One connection at a time: nothing here measures more. */
static int serve(struct bench_link *link)
{
    struct state *state = link->state;
    int r = bench_ready(link);

    while (r == 0) {
        state->fd = accept(state->listener, NULL, NULL);
        if (state->fd < 0) return bench_fail(link, -errno, "accept: %s", strerror(errno));
        r = settle(link, state->fd);
        if (r == 0) r = make_buffer(state, link->load->size);
        if (r == 0) serve_connection(state);
        drop(state);
    }
    return r;
}

static int open_stream(struct bench_link *link)
{
    struct state *state = link->state;

    state->fd = socket(state->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (state->fd < 0 || connect(state->fd, (struct sockaddr *)&state->address, state->address_size) < 0 ||
        settle(link, state->fd) < 0)
        return bench_fail(link, -errno, "connect: %s", strerror(errno));
    if (make_buffer(state, link->load->size) < 0) return bench_fail(link, -ENOMEM, "out of memory");
    return 0;
}

static int call(struct bench_link *link, const void *body, size_t size, const void **ret_reply)
{
    struct state *state = link->state;
    uint32_t length = (uint32_t)size, answered = 0;
    struct iovec parts[2] = { { &length, sizeof(length) }, { (void *)(uintptr_t)body, size } };
    int r;

    r = send_all(state->fd, parts, 2);
    if (r == 0) r = take_message(state, &answered);
    if (r < 0) return bench_fail(link, r, "stream: %s", strerror(-r));
    if (r == 0 || answered != size)
        return bench_fail(link, -EBADMSG, "stream: %u bytes of %zu came back", answered, size);
    *ret_reply = state->buffer + sizeof(length);
    return 0;
}

static void close_stream(struct bench_link *link)
{
    drop(link->state);
}

const struct bench_ops bench_raw_unix = {
    .prepare = prepare_unix,
    .serve = serve,
    .open = open_stream,
    .call = call,
    .close = close_stream,
};

const struct bench_ops bench_raw_tcp = {
    .prepare = prepare_tcp,
    .serve = serve,
    .open = open_stream,
    .call = call,
    .close = close_stream,
};
