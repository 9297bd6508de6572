#include "transport/transport_socket.h"

#include "base/error.h"

#include <errno.h>
#include <stdlib.h>

int pl_socket_outcome(int stream_outcome)
{
    static const int map[] = { PL_TRANSPORT_OK, PL_TRANSPORT_EMPTY, PL_TRANSPORT_END, PL_TRANSPORT_FULL };
    return stream_outcome < 0 ? stream_outcome : map[stream_outcome];
}

static int socket_flush(struct pl_transport *transport)
{
    struct pl_stream *stream = pl_socket_stream(transport);
    return pl_stream_pending(stream) ? pl_socket_outcome(pl_stream_flush(stream)) : PL_TRANSPORT_OK;
}

static bool socket_pending(const struct pl_transport *transport)
{
    return pl_stream_pending(&((const struct pl_socket_transport *)transport)->stream);
}

static int socket_own(struct pl_transport *transport)
{
    return pl_stream_own(pl_socket_stream(transport));
}

static void socket_release(struct pl_transport *transport, size_t lent)
{
    pl_stream_consume(pl_socket_stream(transport), lent);
}

static bool socket_ready(struct pl_transport *transport)
{
    return pl_stream_look(pl_socket_stream(transport));
}

static bool socket_sleep(struct pl_transport *transport)
{
    pl_stream_trim(pl_socket_stream(transport));
    return true;
}

static void socket_awake(struct pl_transport *transport)
{
    (void)transport; /* level-triggered epoll rings for a socket; nothing was announced */
}

static void socket_readable(struct pl_transport *transport)
{
    pl_socket_stream(transport)->readable = true;
}

static enum pl_spinning socket_spinning(struct pl_transport *transport)
{
    (void)transport; /* where the peer runs is not known: it must be able to get this CPU */
    return PL_SPINNING_YIELD;
}

static bool socket_cancelled(struct pl_transport *transport, size_t lent, uint64_t call)
{
    (void)transport, (void)lent, (void)call; /* no framing without ids has a word for it */
    return false;
}

static void socket_close(struct pl_transport *transport)
{
    pl_stream_deinit(pl_socket_stream(transport));
    free(transport);
}

static void socket_forget(struct pl_transport *transport)
{
    pl_close(&pl_socket_stream(transport)->fd);
}

int pl_socket_transport_new(void **ret_transport, size_t size, int socket, const char *name,
                            const struct pl_transport_ops *ops)
{
    struct pl_socket_transport *t = calloc(1, size);
    if (t == NULL) {
        pl_close(&socket);
        return pl_error(-ENOMEM, "no memory for a connection");
    }
    t->ops = *ops;
    t->ops.name = name;
#define INHERIT(slot) t->ops.slot = ops->slot ? ops->slot : socket_##slot
    INHERIT(flush);
    INHERIT(pending);
    INHERIT(own);
    INHERIT(release);
    INHERIT(ready);
    INHERIT(sleep);
    INHERIT(awake);
    INHERIT(readable);
    INHERIT(spinning);
    INHERIT(cancelled);
    INHERIT(close);
    INHERIT(forget);
#undef INHERIT
    t->base.ops = &t->ops;
    t->base.socket = socket;
    t->base.bell = -1;
    t->base.moved = &t->stream.moved;
    pl_stream_init(&t->stream, socket);
    *ret_transport = t;
    return 0;
}
