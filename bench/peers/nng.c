/* NNG: REQ/REP and PUSH/PULL over ipc. */
#include "peer.h"

#include <nng/nng.h>
#include <nng/protocol/pipeline0/pull.h>
#include <nng/protocol/pipeline0/push.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int bind_to(nng_socket socket, const char *address)
{
    char url[600];

    snprintf(url, sizeof(url), "ipc://%s", address);
    nng_socket_set_size(socket, NNG_OPT_RECVMAXSZ, 0);
    return nng_listen(socket, url, NULL, 0);
}

static int serve_echo(const char *address)
{
    nng_socket socket;
    nng_msg *message;

    if (nng_rep0_open(&socket) != 0 || bind_to(socket, address) != 0) return -1;
    for (;;)
        if (nng_recvmsg(socket, &message, 0) != 0 || nng_sendmsg(socket, message, 0) != 0) return -1;
}

static int serve_sink(const char *address, int done_fd)
{
    nng_socket socket;
    char data[64];

    if (nng_pull0_open(&socket) != 0 || bind_to(socket, address) != 0) return -1;
    do {
        size_t size = sizeof(data);
        if (nng_recv(socket, data, &size, 0) != 0) return -1;
    } while (!peer_is_last(data));
    return write(done_fd, "", 1) == 1 ? pause() : -1;
}

static void *open_client(const char *address, int one_way)
{
    nng_socket *socket = malloc(sizeof(*socket));
    char url[600];

    snprintf(url, sizeof(url), "ipc://%s", address);
    if (!socket || (one_way ? nng_push0_open(socket) : nng_req0_open(socket)) != 0) return NULL;
    nng_socket_set_size(*socket, NNG_OPT_RECVMAXSZ, 0);
    for (int tries = 0; nng_dial(*socket, url, NULL, 0) != 0; tries++) {
        if (tries == 2000) return NULL;
        usleep(1000);
    }
    return socket;
}

static int call(void *client, const void *data, size_t size, void *ret_reply)
{
    nng_socket *socket = client;
    size_t room = size;

    if (nng_send(*socket, (void *)(uintptr_t)data, size, 0) != 0) return -1;
    return nng_recv(*socket, ret_reply, &room, 0) == 0 && room == size ? 0 : -1;
}

static int send_one(void *client, const void *data, size_t size)
{
    nng_socket *socket = client;

    return nng_send(*socket, (void *)(uintptr_t)data, size, 0) != 0 ? -1 : 0;
}

const struct peer peer = { serve_echo, serve_sink, open_client, call, send_one };
