/* connection: a transport in an epoll set, with the peer's process: one place that turns descriptors into
 * "something may have come" and "the peer is gone".
 *
 * A HUP on the socket doesn't come while a forked child of the peer still holds it; the pidfd is immune. Either
 * one marks the transport as hung up; what the peer committed before its death is still received.
 */
#ifndef PL_CONNECTION_CONNECTION_H
#define PL_CONNECTION_CONNECTION_H

#include "loop/loop.h"
#include "transport/transport.h"
#include <sys/types.h>

struct pl_connection {
    struct pl_transport *transport;
    struct pl_source socket, bell, process;
    void (*event)(struct pl_connection *connection); /* in the loop's thread: look at the transport */
};

/* Takes TRANSPORT. PID 0: don't watch the process. Registers in LOOP. On failure the transport is closed. */
int pl_connection_open(struct pl_connection *connection, struct pl_transport *transport, pid_t pid,
                       struct pl_loop *loop, void (*event)(struct pl_connection *connection));

/* Unregisters, closes the transport. Idempotent. */
void pl_connection_close(struct pl_connection *connection, struct pl_loop *loop);

/* In a forked child: closes descriptors, touches nothing else. */
void pl_connection_forked(struct pl_connection *connection);

/* Whether epoll should tell when the socket takes more. */
int pl_connection_want_write(struct pl_connection *connection, struct pl_loop *loop, bool want);

#endif
