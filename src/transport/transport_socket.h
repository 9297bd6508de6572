/* transport_socket: what the transports on a plain socket share: the stream, and the operations that are the same
 * whatever the bytes mean. Private to this folder.
 */
#ifndef PL_TRANSPORT_TRANSPORT_SOCKET_H
#define PL_TRANSPORT_TRANSPORT_SOCKET_H

#include "transport/stream.h"
#include "transport/transport.h"

struct pl_socket_transport {
    struct pl_transport base;
    struct pl_transport_ops ops; /* a copy, for the name: "unix" or "tcp" */
    struct pl_stream stream;
};

static inline struct pl_stream *pl_socket_stream(struct pl_transport *transport)
{
    return &((struct pl_socket_transport *)transport)->stream;
}

/* Outcomes of a stream as a transport's; negative goes through. */
int pl_socket_outcome(int stream_outcome);

/* Allocates SIZE bytes that begin with a pl_socket_transport over SOCKET (taken, closed on failure) with the
 * operations in OPS, of which those that the socket ones can serve may be NULL. */
int pl_socket_transport_new(void **ret_transport, size_t size, int socket, const char *name,
                            const struct pl_transport_ops *ops);

#endif
