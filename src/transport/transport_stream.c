/* transport_stream: frames on a Unix or TCP socket. A small body is handed out where it was received; a large
 * one is received straight into memory of its own, which fills only as bytes come. */
#include "base/error.h"
#include "transport/transport_socket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct stream_transport {
    struct pl_socket_transport on;
    struct pl_frame frame; /* of the large body being received */
    uint8_t *body;
    size_t filled;
    uint64_t skip; /* payload of an ignorable frame still to come */
    uint64_t seen; /* bytes that had come at the last receive that gave a small message */
};

static struct stream_transport *of(struct pl_transport *transport)
{
    return (struct stream_transport *)transport;
}

static int stream_send(struct pl_transport *transport, const struct pl_frame *frame, const void *body, unsigned how)
{
    uint8_t head[PL_FRAME_HEAD];
    pl_frame_encode(head, frame);
    struct iovec iov[2] = { { head, sizeof(head) }, { (void *)body, frame->size } };
    return pl_socket_outcome(pl_stream_write(&of(transport)->on.stream, iov, frame->size ? 2 : 1,
                                             (how & PL_BODY_BORROW) && frame->size > 0));
}

static int continue_body(struct stream_transport *t, struct pl_message *ret_message)
{
    while (t->filled < t->frame.size) {
        ssize_t n = pl_stream_read(&t->on.stream, t->body + t->filled, t->frame.size - t->filled);
        if (n == 0) {
            t->on.base.partial = true;
            return PL_TRANSPORT_EMPTY;
        }
        if (n == -EPIPE) return PL_TRANSPORT_END;
        if (n < 0) return (int)n;
        t->filled += (size_t)n;
    }
    *ret_message = (struct pl_message){ .frame = t->frame,
                                        .body = t->body,
                                        .size = t->frame.size,
                                        .owned = t->body,
                                        .fresh = true,
                                        .admitted = t->frame.size > PL_ADMIT_ABOVE ? t->frame.size : 0 };
    t->body = NULL;
    return PL_TRANSPORT_OK;
}

static int begin_body(struct stream_transport *t, const struct pl_frame *frame, struct pl_message *ret_message)
{
    if (frame->size > PL_ADMIT_ABOVE && t->on.base.admit && !t->on.base.admit(t->on.base.owner, frame->size))
        return PL_TRANSPORT_EMPTY;
#ifdef PLAIT_PLANT_BUG /* what fuzz_transport_stream must find: memory for less than the claim */
    t->body = malloc(frame->size - 1);
#else
    t->body = malloc(frame->size); /* untouched pages cost nothing: it grows with bytes that came */
#endif
    if (t->body == NULL) return pl_error(-ENOMEM, "no memory for a message of %u bytes", frame->size);
    t->frame = *frame;
    t->filled = 0;
    pl_stream_consume(&t->on.stream, PL_FRAME_HEAD);
    return continue_body(t, ret_message);
}

static int skip_payload(struct stream_transport *t)
{
    while (t->skip > 0) {
        const uint8_t *data;
        size_t size;
        int r = pl_stream_peek(&t->on.stream, 1, &data, &size);
        if (r != PL_STREAM_OK) return r;
        size_t n = size < t->skip ? size : (size_t)t->skip;
        pl_stream_consume(&t->on.stream, n);
        t->skip -= n;
    }
    return PL_STREAM_OK;
}

static int stream_receive(struct pl_transport *transport, struct pl_message *ret_message)
{
    struct stream_transport *t = of(transport);
    transport->partial = false;
    if (t->body != NULL) return continue_body(t, ret_message);
    for (;;) {
        const uint8_t *data;
        size_t size = 0;
        struct pl_frame frame;
        int r = skip_payload(t);
        if (r == PL_STREAM_OK) r = pl_stream_peek(&t->on.stream, PL_FRAME_HEAD, &data, &size);
        if (r != PL_STREAM_OK) {
            transport->partial = r == PL_STREAM_EMPTY && (size > 0 || t->skip > 0);
            return pl_socket_outcome(r);
        }
        r = pl_frame_decode(&frame, data, transport->max_message);
        if (r < 0) return r;
        if (r == PL_FRAME_SKIP) {
            pl_stream_consume(&t->on.stream, PL_FRAME_HEAD);
            t->skip = frame.size;
            continue;
        }
        if (frame.kind == PL_FRAME_PAD || frame.flags & (PL_FRAME_IN_SEGMENT | PL_FRAME_ON_SOCKET))
            return pl_error(-EPROTO, "the peer sent a frame on a socket that belongs into shared memory");
        if (frame.size > PL_INLINE_MAX) return begin_body(t, &frame, ret_message);
        r = pl_stream_peek(&t->on.stream, PL_FRAME_HEAD + frame.size, &data, &size);
        if (r != PL_STREAM_OK) {
            transport->partial = true;
            return pl_socket_outcome(r);
        }
        pl_message_lend(ret_message, &frame, data);
        ret_message->fresh = t->on.stream.came != t->seen;
        t->seen = t->on.stream.came;
        return PL_TRANSPORT_OK;
    }
}

bool pl_transport_find_cancel(const uint8_t *bytes, size_t size, size_t align, uint64_t call)
{
    while (size >= PL_FRAME_HEAD) {
        struct pl_frame frame;
        uint8_t head[PL_FRAME_HEAD];
        memcpy(head, bytes, sizeof(head));
        if (pl_frame_decode(&frame, head, PLAIT_MESSAGE_MAX) < 0) return false;
        if (frame.kind == PL_FRAME_CANCEL && frame.call == call) return true;
        size_t whole = (PL_FRAME_HEAD + (size_t)frame.size + align - 1) & ~(align - 1);
        if (whole > size) return false;
        bytes += whole;
        size -= whole;
    }
    return false;
}

static bool stream_cancelled(struct pl_transport *transport, size_t lent, uint64_t call)
{
    struct pl_stream *stream = &of(transport)->on.stream;
    const uint8_t *data;
    size_t size = 0;
    /* The message at hand lies in this buffer: only what fits behind it may be read. */
    if (pl_buffer_room(&stream->in) > 0 && !stream->eof && stream->in.memory != NULL) {
        ssize_t n = recv(stream->fd, pl_buffer_tail(&stream->in), pl_buffer_room(&stream->in), MSG_DONTWAIT);
        if (n > 0) {
            stream->in.end += (size_t)n;
            stream->came += (size_t)n;
        }
    }
    if (pl_stream_peek(stream, 0, &data, &size) != PL_STREAM_OK || size < lent) return false;
    return pl_transport_find_cancel(data + lent, size - lent, 1, call);
}

static void stream_close(struct pl_transport *transport)
{
    struct stream_transport *t = of(transport);
    pl_stream_deinit(&t->on.stream);
    free(t->body);
    free(t);
}

static int stream_greet(struct pl_transport *transport, const void *data, size_t size, const int *fds, size_t count)
{
    return pl_stream_write_fds(&of(transport)->on.stream, data, size, fds, count);
}

static const struct pl_transport_ops stream_ops = {
    .greet = stream_greet,
    .send = stream_send,
    .receive = stream_receive,
    .cancelled = stream_cancelled,
    .close = stream_close,
};

int pl_transport_stream_new(struct pl_transport **ret_transport, int socket, const char *name)
{
    void *t;
    int r = pl_socket_transport_new(&t, sizeof(struct stream_transport), socket, name, &stream_ops);
    if (r < 0) return r;
    *ret_transport = t;
    return 0;
}
