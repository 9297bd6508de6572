/* What the tests of the server share: a server on threads of its own, and clients put together from transports. */
#ifndef PL_SERVER_TEST_SUPPORT_H
#define PL_SERVER_TEST_SUPPORT_H

#include "base/clock.h"
#include "base/fd.h"
#include "connection/handshake.h"
#include "harness/test.h"
#include "server/server.h"
#include "transport/socket.h"
#include <plait/plait.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PATIENCE_MS = 30000 };

__attribute__((unused)) static plait_server *open_server(const plait_server_options *options, const char *listen)
{
    plait_server *server = NULL;
    char url[1200];
    CHECK_INT(plait_server_open(&server, "tested", options), 0);
    if (listen) {
        snprintf(url, sizeof(url), listen, test_directory());
        CHECK_INT(plait_server_listen(server, url), 0);
    }
    return server;
}

__attribute__((unused)) static void echo(plait_request *request, void *context)
{
    plait_bytes body = plait_request_body(request);
    (void)context;
    plait_request_reply(request, body.data, body.size);
}

/* A connected nonblocking socket to the INDEXth listener. */
__attribute__((unused)) static int dial(plait_server *server, size_t index)
{
    struct pl_url url;
    struct pl_address peer;
    int fd;
    CHECK_INT(pl_url_parse(&url, plait_server_url(server, index)), 0);
    CHECK_INT(pl_socket_connect(&url, pl_clock_deadline(PATIENCE_MS, 0), &fd, &peer), 0);
    return fd;
}

__attribute__((unused)) static bool wait_for(int fd, short events)
{
    struct pollfd poller = { .fd = fd, .events = events };
    return poll(&poller, 1, PATIENCE_MS) == 1;
}

__attribute__((unused)) static void write_all(int fd, const void *data, size_t size)
{
    const char *bytes = data;
    while (size > 0) {
        ssize_t n = send(fd, bytes, size, MSG_NOSIGNAL);
        if (n < 0) {
            CHECK_INT(errno, EAGAIN);
            CHECK(wait_for(fd, POLLOUT));
            continue;
        }
        bytes += n;
        size -= (size_t)n;
    }
}

/* Exactly SIZE bytes; false: the end came first. */
__attribute__((unused)) static bool read_all(int fd, void *data, size_t size)
{
    char *bytes = data;
    while (size > 0) {
        ssize_t n = recv(fd, bytes, size, 0);
        if (n == 0 || (n < 0 && errno == ECONNRESET)) return false;
        if (n < 0) {
            CHECK_INT(errno, EAGAIN);
            CHECK(wait_for(fd, POLLIN));
            continue;
        }
        bytes += n;
        size -= (size_t)n;
    }
    return true;
}

/* A plait client that is no more than its transport. */
struct caller {
    struct pl_transport *transport;
    struct pl_accepted accepted;
};

__attribute__((unused)) static int greet_as(struct caller *caller, plait_server *server, size_t index, bool shm,
                                            const char *name)
{
    struct pl_offer offer = { .name = name, .max_reply = 64 << 20, .shm = shm, .transport = "unix" };
    return pl_handshake_connect(&caller->transport, dial(server, index), &offer, pl_clock_deadline(PATIENCE_MS, 0),
                                &caller->accepted);
}

__attribute__((unused)) static void hang_up(struct caller *caller)
{
    if (caller->transport) caller->transport->ops->close(caller->transport);
    caller->transport = NULL;
    pl_load_detach(caller->accepted.load);
    free(caller->accepted.methods);
    caller->accepted = (struct pl_accepted){ .load = NULL };
}

/* Waits until the transport may have something; pushes what is pending. */
__attribute__((unused)) static void attend(struct pl_transport *transport)
{
    struct pollfd pollers[2] = { { .fd = transport->socket, .events = POLLIN },
                                 { .fd = transport->bell, .events = POLLIN } };
    bool pending = transport->ops->flush(transport) == PL_TRANSPORT_FULL;
    if (pending) pollers[0].events |= POLLOUT;
    if (transport->ops->sleep(transport)) {
        CHECK(poll(pollers, transport->bell >= 0 ? 2 : 1, PATIENCE_MS) > 0);
        uint64_t count;
        if (pollers[1].revents & POLLIN) (void)!read(transport->bell, &count, sizeof(count));
    }
    transport->ops->awake(transport);
    transport->ops->readable(transport);
    if (pollers[0].revents & (POLLHUP | POLLERR)) transport->hung_up = true;
}

__attribute__((unused)) static int next_message(struct caller *caller, struct pl_message *message)
{
    for (;;) {
        int r = caller->transport->ops->receive(caller->transport, message);
        if (r != PL_TRANSPORT_EMPTY) return r;
        if (caller->transport->hung_up) {
            caller->transport->ops->readable(caller->transport);
            r = caller->transport->ops->receive(caller->transport, message);
            return r == PL_TRANSPORT_EMPTY ? PL_TRANSPORT_END : r;
        }
        attend(caller->transport);
    }
}

__attribute__((unused)) static void send_frame(struct caller *caller, struct pl_frame frame, const void *body)
{
    int r;
    while ((r = caller->transport->ops->send(caller->transport, &frame, body, false)) == PL_TRANSPORT_FULL)
        attend(caller->transport);
    CHECK_INT(r, PL_TRANSPORT_OK);
    CHECK(caller->transport->ops->flush(caller->transport) >= 0);
}

__attribute__((unused)) static void send_call(struct caller *caller, uint64_t id, const void *body, size_t size)
{
    send_frame(caller,
               (struct pl_frame){
                   .kind = PL_FRAME_CALL, .call = id, .method = PL_METHOD_DEFAULT, .size = (uint32_t)size },
               body);
}

__attribute__((unused)) static void check_reply(struct caller *caller, uint64_t id, uint32_t status, const void *body,
                                                size_t size)
{
    struct pl_message message;
    CHECK_INT(next_message(caller, &message), PL_TRANSPORT_OK);
    CHECK_INT(message.frame.kind, PL_FRAME_REPLY);
    CHECK_INT(message.frame.call, id);
    CHECK_INT(message.frame.method, status);
    if (body) {
        CHECK_INT(message.size, size);
        if (size) CHECK_MEM(message.body, body, size);
    }
    pl_message_release(caller->transport, &message);
}

/* ---- requests that a handler keeps, for the test to answer ---- */

enum { KEPT_MAX = 4096 };
struct kept {
    pthread_mutex_t lock;
    pthread_cond_t more;
    plait_request *requests[KEPT_MAX];
    size_t first, count;
};
#define KEPT_INIT                                                                                                      \
    {                                                                                                                  \
        .lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER                                            \
    }

__attribute__((unused)) static void keep(plait_request *request, void *context)
{
    struct kept *kept = context;
    plait_request *deferred;
    CHECK_INT(plait_request_defer(request, &deferred), 0);
    pthread_mutex_lock(&kept->lock);
    CHECK(kept->count - kept->first < KEPT_MAX);
    kept->requests[kept->count++ % KEPT_MAX] = deferred;
    pthread_cond_signal(&kept->more);
    pthread_mutex_unlock(&kept->lock);
}

__attribute__((unused)) static plait_request *kept_request(struct kept *kept)
{
    pthread_mutex_lock(&kept->lock);
    while (kept->first == kept->count) pthread_cond_wait(&kept->more, &kept->lock);
    plait_request *request = kept->requests[kept->first++ % KEPT_MAX];
    pthread_mutex_unlock(&kept->lock);
    return request;
}

#endif
