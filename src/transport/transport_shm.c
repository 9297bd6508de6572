/* transport_shm: frames through two rings in shared memory.
 *
 * A body of up to PL_INLINE_MAX bytes lies in the ring behind its head. A larger one lies in a segment, or,
 * where a segment wouldn't pay yet (first use of its size) or can't be had, it follows on the Unix socket; the
 * ring's frame says which, so the order of messages is the order in the ring. Announcements of segments carry
 * a running number, and a frame names the number of the announcement that it builds on: the receiver reads
 * the socket until it has seen that one, and never otherwise.
 */
#include "base/error.h"
#include "base/fd.h"
#include "shm/channel.h"
#include "shm/doorbell.h"
#include "shm/ring_spsc.h"
#include "shm/segment.h"
#include "transport/stream.h"
#include "transport/transport.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

enum awaited { NOTHING, ANNOUNCEMENT, BODY_HEAD, BODY };

struct shm_transport {
    struct pl_transport base;
    struct pl_ring_producer out;
    struct pl_ring_consumer in;
    struct pl_channel channel;
    int side;
    int bell_out;
    uint32_t own_cpu; /* as last published */
    uint64_t seen;    /* the peer's tail at the last receive that gave a message */
    struct pl_stream control;

    struct pl_segment_pool *pool; /* made with the first large body sent */
    uint32_t announced;           /* announcements sent */
    uint32_t *announcement_of;    /* [PL_SEGMENTS_MAX], made with the pool: a thousand idle connections count */

    struct pl_segment_map *map; /* made with the first announcement received */
    uint32_t heard;             /* announcements received */
    enum awaited awaited;
    bool admitted;         /* the awaited body */
    struct pl_frame frame; /* whose body is awaited */
    struct pl_frame_segment where;
    uint8_t *body;
    uint64_t body_size, filled;
};

static struct shm_transport *of(struct pl_transport *transport)
{
    return (struct shm_transport *)transport;
}

/* ---- sending ---- */

static int reserve(struct shm_transport *t, size_t size, void **ret_memory)
{
    int r = pl_ring_reserve(&t->out, size, ret_memory);
    if (__builtin_expect(r == PL_RING_OK, 1)) return PL_TRANSPORT_OK;
    if (r < 0) return r;
    /* The consumer must learn of what is committed before anybody waits for it to make room. */
    if (pl_ring_publish(&t->out)) pl_doorbell_ring(t->bell_out);
    if (pl_ring_starve(&t->out, size)) return PL_TRANSPORT_FULL;
    r = pl_ring_reserve(&t->out, size, ret_memory);
    return r == PL_RING_FULL ? PL_TRANSPORT_FULL : r;
}

static void publish(struct shm_transport *t)
{
    if (pl_ring_publish(&t->out)) pl_doorbell_ring(t->bell_out);
}

/* Sends the announcement of a new segment. 0, FULL, -errno. */
static int announce(struct shm_transport *t, struct pl_segment *segment)
{
    uint8_t bytes[PL_FRAME_HEAD + PL_FRAME_SEGMENT_SIZE];
    struct pl_frame frame = { .kind = PL_FRAME_SEGMENT, .size = PL_FRAME_SEGMENT_SIZE };
    struct pl_frame_segment where = { .id = segment->id, .generation = t->announced + 1, .size = segment->capacity };
    pl_frame_encode(bytes, &frame);
    pl_frame_segment_encode(bytes + PL_FRAME_HEAD, &where);
    int r = pl_stream_write_fds(&t->control, bytes, sizeof(bytes), &segment->fd, 1);
    if (r < 0) return r;
    if (r == PL_STREAM_FULL) return PL_TRANSPORT_FULL;
    t->announcement_of[segment->id] = ++t->announced;
    pl_segment_announced(t->pool, segment);
    return PL_TRANSPORT_OK;
}

/* Puts BODY into a segment: 0 and *ret_where; PL_SEGMENT_NONE: not possible or not worth it; -errno. */
static int put_in_segment(struct shm_transport *t, const void *body, size_t size, struct pl_frame_segment *ret_where)
{
    struct pl_segment *segment;
    if (t->pool == NULL) {
        int direction = t->side == PL_SIDE_CLIENT ? PL_RING_REQUESTS : PL_RING_REPLIES;
        if (t->announcement_of == NULL) t->announcement_of = calloc(PL_SEGMENTS_MAX, sizeof(uint32_t));
        if (t->announcement_of == NULL) return PL_SEGMENT_NONE;
        if (pl_segment_pool_new(&t->pool, t->channel.control->returned[direction]) < 0) return PL_SEGMENT_NONE;
    }
    int r = pl_segment_take(t->pool, size, &segment);
    if (r != 0) return r;
    if (segment->fd >= 0) {
        r = announce(t, segment);
        if (r != PL_TRANSPORT_OK) {
            pl_segment_abort(t->pool, segment);
            return r < 0 ? r : PL_SEGMENT_NONE;
        }
    }
    memcpy(segment->data, body, size);
    *ret_where = (struct pl_frame_segment){ .id = segment->id,
                                            .generation = segment->generation,
                                            .size = size | (uint64_t)t->announcement_of[segment->id] << 32 };
    return 0;
}

static int send_on_socket(struct shm_transport *t, struct pl_frame frame, const void *body, void *record, bool borrow)
{
    uint8_t head[PL_FRAME_HEAD];
    struct pl_frame behind = frame;
    behind.kind = PL_FRAME_BODY;
    behind.flags = 0;
    pl_frame_encode(head, &behind);
    struct iovec iov[2] = { { head, sizeof(head) }, { (void *)body, frame.size } };

    uint64_t size = frame.size;
    frame.flags |= PL_FRAME_ON_SOCKET;
    frame.size = sizeof(size);
    pl_frame_encode(record, &frame);
    pl_frame_store_u64((uint8_t *)record + PL_FRAME_HEAD, size);
    pl_ring_commit(&t->out, PL_FRAME_HEAD + sizeof(size));
    publish(t); /* the reader starts while we still write */
    int r = pl_stream_write(&t->control, iov, 2, borrow);
    return r < 0 ? r : PL_TRANSPORT_OK; /* never FULL: send_large saw that nothing is pending */
}

static int send_large(struct shm_transport *t, const struct pl_frame *frame, const void *body, bool borrow)
{
    struct pl_frame_segment where;
    void *record;
    if (pl_stream_pending(&t->control) && pl_stream_flush(&t->control) == PL_STREAM_FULL) return PL_TRANSPORT_FULL;
    int r = reserve(t, PL_FRAME_HEAD + PL_FRAME_SEGMENT_SIZE, &record);
    if (r != PL_TRANSPORT_OK) return r;
    r = put_in_segment(t, body, frame->size, &where);
    if (r < 0) return r;
    if (r == PL_SEGMENT_NONE) {
        if (pl_stream_pending(&t->control)) return PL_TRANSPORT_FULL;
        return send_on_socket(t, *frame, body, record, borrow);
    }
    struct pl_frame in_ring = *frame;
    in_ring.flags |= PL_FRAME_IN_SEGMENT;
    in_ring.size = PL_FRAME_SEGMENT_SIZE;
    pl_frame_encode(record, &in_ring);
    pl_frame_segment_encode((uint8_t *)record + PL_FRAME_HEAD, &where);
    pl_ring_commit(&t->out, PL_FRAME_HEAD + PL_FRAME_SEGMENT_SIZE);
    return PL_TRANSPORT_OK;
}

static int shm_send(struct pl_transport *transport, const struct pl_frame *frame, const void *body, bool borrow)
{
    struct shm_transport *t = of(transport);
    void *record;
    if (__builtin_expect(frame->size > PL_INLINE_MAX, 0)) return send_large(t, frame, body, borrow);
    int r = reserve(t, PL_FRAME_HEAD + frame->size, &record);
    if (__builtin_expect(r != PL_TRANSPORT_OK, 0)) return r;
    pl_frame_encode(record, frame);
    if (frame->size) memcpy((uint8_t *)record + PL_FRAME_HEAD, body, frame->size);
    pl_ring_commit(&t->out, PL_FRAME_HEAD + frame->size);
    return PL_TRANSPORT_OK;
}

static int shm_flush(struct pl_transport *transport)
{
    struct shm_transport *t = of(transport);
    publish(t);
    if (__builtin_expect(!pl_stream_pending(&t->control), 1)) return PL_TRANSPORT_OK;
    int r = pl_stream_flush(&t->control);
    return r < 0 ? r : r == PL_STREAM_FULL ? PL_TRANSPORT_FULL : PL_TRANSPORT_OK;
}

static bool shm_pending(const struct pl_transport *transport)
{
    return pl_stream_pending(&((const struct shm_transport *)transport)->control);
}

static int shm_own(struct pl_transport *transport)
{
    return pl_stream_own(&of(transport)->control);
}

/* ---- receiving ---- */

/* The next frame on the socket if it is an announcement. 0, EMPTY, END, -errno. */
static int hear_announcement(struct shm_transport *t)
{
    const uint8_t *data;
    size_t size;
    struct pl_frame frame;
    struct pl_frame_segment where;
    int r = pl_stream_peek(&t->control, PL_FRAME_HEAD + PL_FRAME_SEGMENT_SIZE, &data, &size);
    if (r == PL_STREAM_EMPTY) return PL_TRANSPORT_EMPTY;
    if (r == PL_STREAM_END) return PL_TRANSPORT_END;
    if (r < 0) return r;
    r = pl_frame_decode(&frame, data, t->base.max_message);
    if (r < 0) return r;
    if (r == PL_FRAME_SKIP || frame.kind != PL_FRAME_SEGMENT || frame.size != PL_FRAME_SEGMENT_SIZE)
        return pl_error(-EPROTO, "the peer's socket carries a frame of kind %d where a segment was due", frame.kind);
    pl_frame_segment_decode(&where, data + PL_FRAME_HEAD);
    pl_stream_consume(&t->control, PL_FRAME_HEAD + PL_FRAME_SEGMENT_SIZE);
    int fd = pl_stream_take_fd(&t->control);
    if (fd < 0) return pl_error(-EPROTO, "the peer announced a segment without its descriptor");
    if (where.generation != t->heard + 1) {
        pl_close(&fd);
        return pl_error(-EPROTO, "the peer's segment announcement has number %u, %u was due", where.generation,
                        t->heard + 1);
    }
    if (t->map == NULL) {
        int direction = t->side == PL_SIDE_CLIENT ? PL_RING_REPLIES : PL_RING_REQUESTS;
        r = pl_segment_map_new(&t->map, t->channel.control->returned[direction]);
        if (r < 0) {
            pl_close(&fd);
            return r;
        }
    }
    r = pl_segment_map_add(t->map, fd, where.id, where.size);
    if (r < 0) return r;
    t->heard++;
    return PL_TRANSPORT_OK;
}

static int receive_in_segment(struct shm_transport *t, struct pl_message *ret_message)
{
    uint32_t announcement = (uint32_t)(t->where.size >> 32);
    uint64_t size = t->where.size & UINT32_MAX;
    while ((int32_t)(announcement - t->heard) > 0) {
        int r = hear_announcement(t);
        if (r != PL_TRANSPORT_OK) return r;
    }
    struct pl_segment_view view;
    if (t->map == NULL) return pl_error(-EPROTO, "the peer names a segment that it never announced");
    int r = pl_segment_map_view(t->map, t->where.id, t->where.generation, size, &view);
    if (r < 0) return r;
    t->awaited = NOTHING;
    *ret_message = (struct pl_message){ .frame = t->frame, .body = view.data, .size = size, .view = view };
    ret_message->frame.flags &= (uint8_t)~PL_FRAME_IN_SEGMENT;
    return PL_TRANSPORT_OK;
}

static int receive_body_head(struct shm_transport *t)
{
    const uint8_t *data;
    size_t size;
    struct pl_frame head;
    if (t->body_size > PL_ADMIT_ABOVE && t->base.admit && !t->admitted) {
        if (!t->base.admit(t->base.owner, t->body_size)) return PL_TRANSPORT_EMPTY;
        t->admitted = true; /* once, though we may come back for a head that isn't there yet */
    }
    int r = pl_stream_peek(&t->control, PL_FRAME_HEAD, &data, &size);
    if (r == PL_STREAM_EMPTY) return PL_TRANSPORT_EMPTY;
    if (r == PL_STREAM_END) return PL_TRANSPORT_END;
    if (r == PL_STREAM_OK) r = pl_frame_decode(&head, data, t->base.max_message);
    if (r < 0) return r;
    if (r == PL_FRAME_SKIP || head.kind != PL_FRAME_BODY || head.size != t->body_size || head.call != t->frame.call)
        return pl_error(-EPROTO, "the body on the peer's socket doesn't match its frame in the ring");
    pl_stream_consume(&t->control, PL_FRAME_HEAD);
    t->body = malloc(t->body_size); /* untouched pages cost nothing: it grows with bytes that came */
    if (t->body == NULL)
        return pl_error(-ENOMEM, "no memory for a message of %llu bytes", (unsigned long long)t->body_size);
    t->filled = 0;
    t->awaited = BODY;
    return PL_TRANSPORT_OK;
}

static int receive_on_socket(struct shm_transport *t, struct pl_message *ret_message)
{
    if (t->awaited == BODY_HEAD) {
        /* An announcement may precede the body: announcements are never awaited for themselves. */
        const uint8_t *data;
        size_t size;
        while (pl_stream_peek(&t->control, PL_FRAME_HEAD, &data, &size) == PL_STREAM_OK &&
               data[4] == PL_FRAME_SEGMENT) {
            int r = hear_announcement(t);
            if (r != PL_TRANSPORT_OK) return r;
        }
        int r = receive_body_head(t);
        if (r != PL_TRANSPORT_OK) return r;
    }
    while (t->filled < t->body_size) {
        ssize_t n = pl_stream_read(&t->control, t->body + t->filled, t->body_size - t->filled);
        if (n == 0) return PL_TRANSPORT_EMPTY;
        if (n == -EPIPE) return PL_TRANSPORT_END;
        if (n < 0) return (int)n;
        t->filled += (uint64_t)n;
    }
    t->awaited = NOTHING;
    *ret_message = (struct pl_message){ .frame = t->frame,
                                        .body = t->body,
                                        .size = t->body_size,
                                        .owned = t->body,
                                        .admitted = t->body_size > PL_ADMIT_ABOVE ? t->body_size : 0 };
    ret_message->frame.flags &= (uint8_t)~PL_FRAME_ON_SOCKET;
    t->body = NULL;
    return PL_TRANSPORT_OK;
}

static int receive_awaited(struct shm_transport *t, struct pl_message *ret_message)
{
    int r = t->awaited == ANNOUNCEMENT ? receive_in_segment(t, ret_message) : receive_on_socket(t, ret_message);
    t->base.partial = r == PL_TRANSPORT_EMPTY;
    if (r == PL_TRANSPORT_OK) ret_message->fresh = true;
    return r;
}

/* The frame in the ring says that its body lies elsewhere. */
static int begin_large(struct shm_transport *t, const struct pl_frame *frame, const uint8_t *payload)
{
    bool in_segment = frame->flags & PL_FRAME_IN_SEGMENT;
    uint64_t size;
    if (in_segment ? frame->size != PL_FRAME_SEGMENT_SIZE : frame->size != sizeof(size))
        return pl_error(-EPROTO, "the peer sent a reference of %u bytes to a body elsewhere", frame->size);
    t->frame = *frame;
    if (in_segment) {
        pl_frame_segment_decode(&t->where, payload);
        size = t->where.size & UINT32_MAX;
    } else {
        size = t->body_size = pl_frame_load_u64(payload);
    }
    if (size > t->base.max_message)
        return pl_error(-EPROTO, "the peer sent a message of %llu bytes; the limit is max_message=%llu",
                        (unsigned long long)size, (unsigned long long)t->base.max_message);
    t->frame.size = (uint32_t)size;
    t->awaited = in_segment ? ANNOUNCEMENT : BODY_HEAD;
    t->admitted = false;
    return pl_ring_consume(&t->in, PL_FRAME_HEAD + frame->size);
}

/* A receiver that others keep busy may not sleep for long: who waits for room here is to hear of it now. Relaxed
 * and without a fence, since we come back; the look before a sleep has one. */
static int found_empty(struct shm_transport *t)
{
    if (__builtin_expect(pl_ring_hungry(&t->in), 0) && pl_ring_give_back(&t->in)) pl_doorbell_ring(t->bell_out);
    return PL_TRANSPORT_EMPTY;
}

static int shm_receive(struct pl_transport *transport, struct pl_message *ret_message)
{
    struct shm_transport *t = of(transport);
    if (__builtin_expect(t->awaited != NOTHING, 0)) return receive_awaited(t, ret_message);
    for (;;) {
        const uint8_t *data = NULL;
        uint8_t head[PL_FRAME_HEAD];
        size_t size = 0;
        struct pl_frame frame;
        int r = pl_ring_peek(&t->in, &data, &size);
        if (r == PL_RING_EMPTY) return found_empty(t);
        if (r < 0) return r;
        if (size < PL_FRAME_HEAD) return pl_error(-EPROTO, "the peer committed a piece of a frame");
        memcpy(head, data, sizeof(head)); /* the peer can write there at any time: copy, check, use the copy */
        r = pl_frame_decode(&frame, head, PL_INLINE_MAX);
        if (r < 0) return r;
#ifndef PLAIT_PLANT_BUG /* what fuzz_transport_shm must find: a frame that claims more than was committed */
        if (frame.size > size - PL_FRAME_HEAD)
            return pl_error(-EPROTO, "the peer committed %zu bytes of a frame of %u", size - PL_FRAME_HEAD, frame.size);
#endif
        if (__builtin_expect(r == PL_FRAME_SKIP || frame.kind == PL_FRAME_PAD, 0)) {
            r = pl_ring_consume(&t->in, PL_FRAME_HEAD + frame.size);
            if (r < 0) return r;
            continue;
        }
        if (__builtin_expect(frame.flags & (PL_FRAME_IN_SEGMENT | PL_FRAME_ON_SOCKET), 0)) {
            r = begin_large(t, &frame, data + PL_FRAME_HEAD);
            return r == 0 ? receive_awaited(t, ret_message) : r;
        }
        pl_message_lend(ret_message, &frame, data);
        ret_message->fresh = t->in.tail != t->seen;
        t->seen = t->in.tail;
        return PL_TRANSPORT_OK;
    }
}

static void shm_release(struct pl_transport *transport, size_t lent)
{
    struct shm_transport *t = of(transport);
    (void)pl_ring_consume(&t->in, lent); /* cannot fail: peek gave at least as much */
}

static bool shm_ready(struct pl_transport *transport)
{
    struct shm_transport *t = of(transport);
    const uint8_t *data;
    size_t size;
    if (__builtin_expect(t->awaited != NOTHING, 0)) return t->control.readable;
    if (pl_ring_peek(&t->in, &data, &size) != PL_RING_EMPTY) return true;
    /* So that the record's lines travel together with the tail's, and not after it. */
    data = t->in.data + (t->in.head & (t->in.capacity - 1));
    __builtin_prefetch(data);
    __builtin_prefetch(data + 64);
    return false;
}

static bool shm_sleep(struct pl_transport *transport)
{
    struct shm_transport *t = of(transport);
    if (pl_ring_give_back(&t->in)) pl_doorbell_ring(t->bell_out);
    if (t->awaited != NOTHING) return !t->control.readable;
    pl_stream_trim(&t->control);
    return pl_ring_sleep(&t->in);
}

static void shm_awake(struct pl_transport *transport)
{
    pl_ring_awake(&of(transport)->in);
}

static void shm_readable(struct pl_transport *transport)
{
    of(transport)->control.readable = true;
}

static enum pl_spinning shm_spinning(struct pl_transport *transport)
{
    struct shm_transport *t = of(transport);
    uint32_t own = (uint32_t)sched_getcpu() + 1;
    /* Hints, relaxed: nothing is published by them. */
    if (own != t->own_cpu) {
        t->own_cpu = own;
        atomic_store_explicit(&t->channel.control->side[t->side].cpu, own, memory_order_relaxed);
    }
    bool same = atomic_load_explicit(&t->channel.control->side[!t->side].cpu, memory_order_relaxed) == own;
    return same ? PL_SPINNING_YIELD : PL_SPINNING_PAUSE;
}

static bool shm_cancelled(struct pl_transport *transport, size_t lent, uint64_t call)
{
    const uint8_t *data;
    size_t size;
    return pl_ring_ahead(&of(transport)->in, lent, &data, &size) &&
           pl_transport_find_cancel(data, size, PL_RING_ALIGN, call);
}

static void shm_forget(struct pl_transport *transport)
{
    struct shm_transport *t = of(transport);
    pl_close(&t->control.fd);
    pl_close(&t->base.bell);
    pl_close(&t->bell_out);
}

static void shm_close(struct pl_transport *transport)
{
    struct shm_transport *t = of(transport);
    pl_segment_pool_free(t->pool);
    pl_segment_map_close(t->map);
    free(t->body);
    free(t->announcement_of);
    pl_stream_deinit(&t->control);
    pl_close(&t->base.bell);
    pl_close(&t->bell_out);
    pl_channel_detach(&t->channel);
    free(t);
}

static int shm_greet(struct pl_transport *transport, const void *data, size_t size, const int *fds, size_t count)
{
    return pl_stream_write_fds(&of(transport)->control, data, size, fds, count);
}

static const struct pl_transport_ops shm_ops = {
    .name = "shm",
    .greet = shm_greet,
    .send = shm_send,
    .flush = shm_flush,
    .pending = shm_pending,
    .own = shm_own,
    .receive = shm_receive,
    .release = shm_release,
    .ready = shm_ready,
    .sleep = shm_sleep,
    .awake = shm_awake,
    .readable = shm_readable,
    .spinning = shm_spinning,
    .cancelled = shm_cancelled,
    .close = shm_close,
    .forget = shm_forget,
};

int pl_transport_shm_new(struct pl_transport **ret_transport, int socket, struct pl_channel *channel, int bell_in,
                         int bell_out, int side)
{
    struct shm_transport *t = calloc(1, sizeof(*t));
    if (t == NULL) {
        pl_close(&socket);
        pl_close(&bell_in);
        pl_close(&bell_out);
        pl_channel_detach(channel);
        return pl_error(-ENOMEM, "no memory for a connection");
    }
    int sending = side == PL_SIDE_CLIENT ? PL_RING_REQUESTS : PL_RING_REPLIES;
    t->base.ops = &shm_ops;
    t->base.socket = socket;
    t->base.bell = bell_in;
    t->bell_out = bell_out;
    t->side = side;
    t->channel = *channel;
    pl_stream_init(&t->control, socket);
    t->control.with_fds = true;
    t->base.moved = &t->control.moved;
    pl_ring_producer_init(&t->out, &channel->control->ring[sending], channel->ring[sending], channel->capacity);
    pl_ring_consumer_init(&t->in, &channel->control->ring[!sending], channel->ring[!sending], channel->capacity);
    *ret_transport = &t->base;
    return 0;
}

void pl_transport_shm_taken(struct pl_transport *transport, uint64_t count)
{
    if (transport->ops != &shm_ops) return;
    struct pl_channel_control *control = of(transport)->channel.control;
    /* R_TAKEN1: pairs with A_TAKEN1 */
    atomic_store_explicit(&control->side[PL_SIDE_SERVER].taken, count, memory_order_release);
}

uint64_t pl_transport_shm_count_taken(struct pl_transport *transport)
{
    if (transport->ops != &shm_ops) return UINT64_MAX;
    struct pl_channel_control *control = of(transport)->channel.control;
    /* A_TAKEN1: pairs with R_TAKEN1 */
    return atomic_load_explicit(&control->side[PL_SIDE_SERVER].taken, memory_order_acquire);
}
