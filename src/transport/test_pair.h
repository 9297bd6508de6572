/* What the tests of transports share: two ends in one process, frames put together by hand. */
#ifndef PL_TRANSPORT_TEST_PAIR_H
#define PL_TRANSPORT_TEST_PAIR_H

#include "base/error.h"
#include "base/fd.h"
#include "harness/test.h"
#include "shm/channel.h"
#include "shm/doorbell.h"
#include "transport/transport.h"
#include <plait/plait.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

__attribute__((unused)) static void socket_pair(int fds[2])
{
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
}

/* Both ends of a shared memory connection, mapped twice, as two processes have it. */
struct shm_pair {
    struct pl_transport *client, *server;
};

__attribute__((unused)) static void shm_pair_open(struct shm_pair *pair)
{
    struct pl_channel channel, again;
    int sockets[2], memory, bells[2];
    socket_pair(sockets);
    CHECK_INT(pl_channel_create(&channel, PL_RING_CAPACITY, &memory), 0);
    CHECK_INT(pl_channel_attach(&again, memory, PL_RING_CAPACITY), 0);
    close(memory);
    for (int i = 0; i < 2; i++) CHECK_INT(pl_doorbell_create(&bells[i]), 0);
    int a = fcntl(bells[0], F_DUPFD_CLOEXEC, 0), b = fcntl(bells[1], F_DUPFD_CLOEXEC, 0);
    CHECK_INT(pl_transport_shm_new(&pair->server, sockets[0], &channel, bells[0], bells[1], PL_SIDE_SERVER), 0);
    CHECK_INT(pl_transport_shm_new(&pair->client, sockets[1], &again, b, a, PL_SIDE_CLIENT), 0);
    pair->client->max_message = pair->server->max_message = PLAIT_MESSAGE_MAX;
}

__attribute__((unused)) static void shm_pair_close(struct shm_pair *pair)
{
    if (pair->client) pair->client->ops->close(pair->client);
    if (pair->server) pair->server->ops->close(pair->server);
}

__attribute__((unused)) static struct pl_frame frame_of(enum pl_frame_kind kind, uint64_t call, size_t size)
{
    return (struct pl_frame){ .kind = (uint8_t)kind, .call = call, .size = (uint32_t)size };
}

__attribute__((unused)) static uint8_t *pattern(size_t size, unsigned seed)
{
    uint8_t *bytes = malloc(size + 1);
    CHECK(bytes != NULL);
    for (size_t i = 0; i < size; i++) bytes[i] = (uint8_t)(seed + i * 31 + (i >> 8));
    return bytes;
}

__attribute__((unused)) static bool readable(int fd, int timeout_ms)
{
    struct pollfd poller = { .fd = fd, .events = POLLIN };
    return poll(&poller, 1, timeout_ms) == 1;
}

/* Receives one message, waiting on the socket as an epoll loop would; FROM's other end may have to be pushed. */
__attribute__((unused)) static int receive_pushing(struct pl_transport *transport, struct pl_transport *from,
                                                   struct pl_message *message)
{
    for (int i = 0; i < 100000; i++) {
        int r = transport->ops->receive(transport, message);
        if (r != PL_TRANSPORT_EMPTY) return r;
        if (from) (void)from->ops->flush(from);
        (void)readable(transport->socket, from ? 0 : 1000);
        transport->ops->readable(transport);
    }
    return PL_TRANSPORT_EMPTY;
}

__attribute__((unused)) static void check_message(struct pl_message *message, uint64_t call, size_t size, unsigned seed)
{
    uint8_t *expected = pattern(size, seed);
    CHECK_INT(message->frame.call, call);
    CHECK_INT(message->size, size);
    if (size) CHECK_MEM(message->body, expected, size);
    free(expected);
}

__attribute__((unused)) static void send_pattern(struct pl_transport *transport, uint64_t call, size_t size,
                                                 unsigned seed)
{
    struct pl_frame frame = frame_of(PL_FRAME_CALL, call, size);
    uint8_t *body = pattern(size, seed);
    CHECK_INT(transport->ops->send(transport, &frame, body, false), PL_TRANSPORT_OK);
    CHECK(transport->ops->flush(transport) >= 0);
    free(body);
}

#endif
