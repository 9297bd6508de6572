/* transport_shm: frames through two rings in shared memory. A body of up to PL_INLINE_MAX bytes lies in the ring
 * behind its head; larger ones are the business of shm_large.c. */
#include "base/error.h"
#include "base/fd.h"
#include "shm/doorbell.h"
#include "transport/transport_shm.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* ---- sending ---- */

static int shm_send(struct pl_transport *transport, const struct pl_frame *frame, const void *body, unsigned how)
{
    struct shm_transport *t = pl_shm_of(transport);
    void *record;
    if (__builtin_expect(frame->size > PL_INLINE_MAX, 0)) return pl_shm_send_large(t, frame, body, how);
    int r = pl_shm_reserve(t, PL_FRAME_HEAD + frame->size, &record);
    if (__builtin_expect(r != PL_TRANSPORT_OK, 0)) return r;
    pl_frame_encode(record, frame);
    if (frame->size) memcpy((uint8_t *)record + PL_FRAME_HEAD, body, frame->size);
    pl_ring_commit(&t->out, PL_FRAME_HEAD + frame->size);
    return PL_TRANSPORT_OK;
}

static int shm_flush(struct pl_transport *transport)
{
    struct shm_transport *t = pl_shm_of(transport);
    if (pl_ring_publish(&t->out)) {
        pl_doorbell_ring(t->bell_out);
        if (__builtin_expect(t->pool != NULL, 0)) pl_shm_trim(t); /* a moment at which neither side is busy */
    }
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
    return pl_stream_own(&pl_shm_of(transport)->control);
}

/* ---- receiving ---- */

/* A receiver that others keep busy may not sleep for long: who waits for room here is to hear of it now. Relaxed
 * and without a fence, since we come back; the look before a sleep has one. */
static int found_empty(struct shm_transport *t)
{
    if (__builtin_expect(pl_ring_hungry(&t->in), 0) && pl_ring_give_back(&t->in)) pl_doorbell_ring(t->bell_out);
    if (__builtin_expect(t->map != NULL, 0) && t->control.readable) return pl_shm_hear_early(t);
    return PL_TRANSPORT_EMPTY;
}

static int shm_receive(struct pl_transport *transport, struct pl_message *ret_message)
{
    struct shm_transport *t = pl_shm_of(transport);
    if (__builtin_expect(t->awaited != NOTHING, 0)) return pl_shm_receive_large(t, ret_message);
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
            r = pl_shm_begin_large(t, &frame, data + PL_FRAME_HEAD);
            return r == 0 ? pl_shm_receive_large(t, ret_message) : r;
        }
        pl_message_lend(ret_message, &frame, data);
        ret_message->fresh = t->in.tail != t->seen;
        t->seen = t->in.tail;
        return PL_TRANSPORT_OK;
    }
}

static void shm_release(struct pl_transport *transport, size_t lent)
{
    struct shm_transport *t = pl_shm_of(transport);
    (void)pl_ring_consume(&t->in, lent); /* cannot fail: peek gave at least as much */
}

static bool shm_ready(struct pl_transport *transport)
{
    struct shm_transport *t = pl_shm_of(transport);
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
    struct shm_transport *t = pl_shm_of(transport);
    if (pl_ring_give_back(&t->in)) pl_doorbell_ring(t->bell_out);
    if (t->awaited != NOTHING) return !t->control.readable;
    pl_stream_trim(&t->control);
    return pl_ring_sleep(&t->in);
}

static void shm_awake(struct pl_transport *transport)
{
    pl_ring_awake(&pl_shm_of(transport)->in);
}

static void shm_readable(struct pl_transport *transport)
{
    pl_shm_of(transport)->control.readable = true;
}

static enum pl_spinning shm_spinning(struct pl_transport *transport)
{
    struct shm_transport *t = pl_shm_of(transport);
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
    return pl_ring_ahead(&pl_shm_of(transport)->in, lent, &data, &size) &&
           pl_transport_find_cancel(data, size, PL_RING_ALIGN, call);
}

static void shm_forget(struct pl_transport *transport)
{
    struct shm_transport *t = pl_shm_of(transport);
    pl_close(&t->control.fd);
    pl_close(&t->base.bell);
    pl_close(&t->bell_out);
}

static void shm_close(struct pl_transport *transport)
{
    struct shm_transport *t = pl_shm_of(transport);
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
    return pl_stream_write_fds(&pl_shm_of(transport)->control, data, size, fds, count);
}

const struct pl_transport_ops pl_shm_ops = {
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
    t->base.ops = &pl_shm_ops;
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
    if (transport->ops != &pl_shm_ops) return;
    struct pl_channel_control *control = pl_shm_of(transport)->channel.control;
    /* R_TAKEN1: pairs with A_TAKEN1 */
    atomic_store_explicit(&control->side[PL_SIDE_SERVER].taken, count, memory_order_release);
}

uint64_t pl_transport_shm_count_taken(struct pl_transport *transport)
{
    if (transport->ops != &pl_shm_ops) return UINT64_MAX;
    struct pl_channel_control *control = pl_shm_of(transport)->channel.control;
    /* A_TAKEN1: pairs with R_TAKEN1 */
    return atomic_load_explicit(&control->side[PL_SIDE_SERVER].taken, memory_order_acquire);
}
