/* ZeroMQ: REQ/REP, PUSH/PULL and PUB/SUB over ipc. Its publisher drops what exceeds a subscriber's queue, so the queues
 * have no limit here. */
#include "peer.h"

#include <stdio.h>
#include <unistd.h>
#include <zmq.h>

static void *make_socket(const char *address, int type, int bind)
{
    char url[600];
    void *socket = zmq_socket(zmq_ctx_new(), type);

    snprintf(url, sizeof(url), "ipc://%s", address);
    return socket && (bind ? zmq_bind(socket, url) : zmq_connect(socket, url)) == 0 ? socket : NULL;
}

static int serve_echo(const char *address)
{
    void *socket = make_socket(address, ZMQ_REP, 1);
    zmq_msg_t message;

    if (!socket) return -1;
    for (;;) {
        zmq_msg_init(&message);
        if (zmq_msg_recv(&message, socket, 0) < 0 || zmq_msg_send(&message, socket, 0) < 0) return -1;
    }
}

static int serve_sink(const char *address, int done_fd)
{
    void *socket = make_socket(address, ZMQ_PULL, 1);
    char data[64];

    if (!socket) return -1;
    do {
        if (zmq_recv(socket, data, sizeof(data), 0) < 0) return -1;
    } while (!peer_is_last(data));
    return write(done_fd, "", 1) == 1 ? pause() : -1;
}

static void *open_client(const char *address, int one_way)
{
    return make_socket(address, one_way ? ZMQ_PUSH : ZMQ_REQ, 0); /* it tries until the server is there */
}

static int call(void *client, const void *data, size_t size, void *ret_reply)
{
    if (zmq_send(client, data, size, 0) < 0) return -1;
    return zmq_recv(client, ret_reply, size, 0) == (int)size ? 0 : -1;
}

static int send_one(void *client, const void *data, size_t size)
{
    return zmq_send(client, data, size, 0) < 0 ? -1 : 0;
}

static void *make_unlimited(const char *address, int type, int bind)
{
    char url[600];
    int none = 0, all = 1;
    void *socket = zmq_socket(zmq_ctx_new(), type);

    if (!socket) return NULL;
    snprintf(url, sizeof(url), "ipc://%s", address);
    zmq_setsockopt(socket, ZMQ_SNDHWM, &none, sizeof(none));
    zmq_setsockopt(socket, ZMQ_RCVHWM, &none, sizeof(none));
    if (type == ZMQ_XPUB) zmq_setsockopt(socket, ZMQ_XPUB_VERBOSE, &all, sizeof(all));
    return (bind ? zmq_bind(socket, url) : zmq_connect(socket, url)) == 0 ? socket : NULL;
}

static int subscribe(const char *address, int done_fd)
{
    void *socket = make_unlimited(address, ZMQ_SUB, 0);
    char data[64];

    if (!socket || zmq_setsockopt(socket, ZMQ_SUBSCRIBE, "", 0) < 0) return -1;
    for (uint64_t count = 0;; count++) {
        if (zmq_recv(socket, data, sizeof(data), 0) < 0 || !peer_is_due(data, count)) return -1;
        if (peer_is_last(data)) break;
    }
    return write(done_fd, "", 1) == 1 ? pause() : -1;
}

/* An XPUB is a PUB that hears who subscribes. */
static void *open_publisher(const char *address, int count)
{
    void *socket = make_unlimited(address, ZMQ_XPUB, 1);
    char news[8];

    for (int i = 0; socket && i < count; i++)
        if (zmq_recv(socket, news, sizeof(news), 0) < 0) return NULL;
    return socket;
}

const struct peer peer = { serve_echo, serve_sink, open_client, call, send_one, subscribe, open_publisher, send_one };
