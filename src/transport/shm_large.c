/* shm_large: bodies that don't fit a ring.
 *
 * Such a body lies in a segment, or, where a segment wouldn't pay yet (first use of its size) or can't be had, it
 * follows on the Unix socket; the ring's frame says which, so the order of messages is the order in the ring.
 * Announcements of segments carry a running number, and a frame names the number of the announcement that it
 * builds on: the receiver reads the socket until it has seen that one. Before it sleeps it also reads what is there,
 * so that memory which its sender gave up is free on both sides.
 *
 * A loan is a segment that is held before it is sent. It is found again by its address when its body is sent with
 * PL_BODY_LOANED; then nothing is copied. Idle segments are given up when the peer is woken after a pause: an
 * idle process has no timer for it.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "transport/transport_shm.h"

#include <errno.h>
#include <plait/loan.h>
#include <stdlib.h>
#include <string.h>

static_assert(PLAIT_SEGMENTS_MAX == PL_SEGMENTS_MAX, "the limit's public name");

/* ---- sending ---- */

/* Sends an announcement about SEGMENT: its memory, or, without a descriptor, that it has none any more. 0, FULL,
 * -errno. */
static int tell(struct shm_transport *t, const struct pl_segment *segment, bool gone)
{
    uint8_t bytes[PL_FRAME_HEAD + PL_FRAME_SEGMENT_SIZE];
    struct pl_frame frame = { .kind = PL_FRAME_SEGMENT, .size = PL_FRAME_SEGMENT_SIZE };
    struct pl_frame_segment where = { .id = segment->id,
                                      .generation = t->announced + 1,
                                      .size = gone ? 0 : segment->capacity };
    pl_frame_encode(bytes, &frame);
    pl_frame_segment_encode(bytes + PL_FRAME_HEAD, &where);
    int r = pl_stream_write_fds(&t->control, bytes, sizeof(bytes), &segment->fd, gone ? 0 : 1);
    if (r < 0) return r;
    if (r == PL_STREAM_FULL) return PL_TRANSPORT_FULL;
    t->announcement_of[segment->id] = ++t->announced;
    return PL_TRANSPORT_OK;
}

static int announce(struct shm_transport *t, struct pl_segment *segment)
{
    int r = tell(t, segment, false);
    if (r == PL_TRANSPORT_OK) pl_segment_announced(t->pool, segment);
    return r;
}

static int open_pool(struct shm_transport *t)
{
    int direction = t->side == PL_SIDE_CLIENT ? PL_RING_REQUESTS : PL_RING_REPLIES;
    if (t->pool != NULL) return 0;
    if (t->announcement_of == NULL) t->announcement_of = calloc(PL_SEGMENTS_MAX, sizeof(uint32_t));
    if (t->announcement_of == NULL) return pl_error(-ENOMEM, "segments: out of memory");
    int r = pl_segment_pool_new(&t->pool, t->channel.control->returned[direction]);
    if (r == 0) pl_segment_pool_wake(t->pool, &t->channel.control->wanted[direction], t->base.bell);
    return r;
}

/* Puts BODY into a segment, where a loan is already: 0 and *ret_where; PL_SEGMENT_NONE: not possible or not worth it;
 * -errno. */
static int put_in_segment(struct shm_transport *t, const void *body, size_t size, unsigned how,
                          struct pl_frame_segment *ret_where)
{
    struct pl_segment *segment, *loan;
    if (open_pool(t) < 0) return PL_SEGMENT_NONE;
    loan = segment = how & PL_BODY_LOANED ? pl_segment_held_at(t->pool, body) : NULL;
    if (segment == NULL) {
        int r = pl_segment_take(t->pool, size, &segment);
        if (r != 0) return r;
    }
    if (segment->fd >= 0) {
        int r = announce(t, segment);
        if (r != PL_TRANSPORT_OK) {
            if (!loan) pl_segment_abort(t->pool, segment);
            return r < 0 ? r : PL_SEGMENT_NONE;
        }
    }
    if (loan) pl_segment_send(t->pool, segment);
    else memcpy(segment->data, body, size);
    *ret_where = (struct pl_frame_segment){ .id = segment->id,
                                            .generation = segment->generation,
                                            .size = size | (uint64_t)t->announcement_of[segment->id] << 32 };
    return 0;
}

static int send_on_socket(struct shm_transport *t, struct pl_frame frame, const void *body, void *record, unsigned how)
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
    pl_shm_publish(t); /* the reader starts while we still write */
    int r = pl_stream_write(&t->control, iov, 2, how & PL_BODY_BORROW);
    return r < 0 ? r : PL_TRANSPORT_OK; /* never FULL: send_large saw that nothing is pending */
}

int pl_shm_send_large(struct shm_transport *t, const struct pl_frame *frame, const void *body, unsigned how)
{
    struct pl_frame_segment where;
    void *record;
    if (pl_stream_pending(&t->control) && pl_stream_flush(&t->control) == PL_STREAM_FULL) return PL_TRANSPORT_FULL;
    int r = pl_shm_reserve(t, PL_FRAME_HEAD + PL_FRAME_SEGMENT_SIZE, &record);
    if (r != PL_TRANSPORT_OK) return r;
    r = put_in_segment(t, body, frame->size, how, &where);
    if (r < 0) return r;
    if (r == PL_SEGMENT_NONE) {
        if (pl_stream_pending(&t->control)) return PL_TRANSPORT_FULL;
        return send_on_socket(t, *frame, body, record, how);
    }
    struct pl_frame in_ring = *frame;
    in_ring.flags |= PL_FRAME_IN_SEGMENT;
    in_ring.size = PL_FRAME_SEGMENT_SIZE;
    pl_frame_encode(record, &in_ring);
    pl_frame_segment_encode((uint8_t *)record + PL_FRAME_HEAD, &where);
    pl_ring_commit(&t->out, PL_FRAME_HEAD + PL_FRAME_SEGMENT_SIZE);
    return PL_TRANSPORT_OK;
}

void pl_shm_trim(struct shm_transport *t)
{
    struct pl_segment *segment;
    uint64_t now = pl_ticks();
    while (!pl_stream_pending(&t->control) && (segment = pl_segment_idle(t->pool, now)) != NULL) {
        if (segment->fd < 0 && tell(t, segment, true) != PL_TRANSPORT_OK) return;
        pl_segment_drop(t->pool, segment);
    }
}

/* ---- loans ---- */

static void release(struct pl_loan *loan)
{
    pl_segment_release(loan->owner);
}

int pl_transport_loan(struct pl_transport *transport, size_t size, bool ask, struct pl_loan *ret_loan)
{
    struct shm_transport *t = pl_shm_of(transport);
    struct pl_segment *segment;
    if (transport->ops != &pl_shm_ops || size <= PL_INLINE_MAX) return pl_loan_plain(ret_loan, size);
    int r = open_pool(t);
    if (r == 0) r = pl_segment_hold(t->pool, size, &segment);
    if (r == PL_SEGMENT_NONE && ask && pl_segment_want(t->pool)) r = pl_segment_hold(t->pool, size, &segment);
    if (r == PL_SEGMENT_NONE) return PL_TRANSPORT_FULL;
    if (r < 0) return pl_error_in(r, "a loan of %zu bytes", size);
    *ret_loan = (struct pl_loan){ .data = segment->data, .size = size, .give_back = release, .owner = segment };
    return 0;
}

int pl_transport_loan_populate(struct pl_loan *loan)
{
    if (loan->give_back != release) return 0;
    int r = pl_segment_populate(loan->owner, loan->size);
    return r < 0 ? pl_error_in(r, "a loan of %zu bytes", loan->size) : 0;
}

bool pl_transport_lent(struct pl_transport *transport, const struct pl_loan *loan)
{
    struct shm_transport *t = pl_shm_of(transport);
    return transport->ops == &pl_shm_ops && t->pool != NULL && loan->give_back == release &&
           pl_segment_held_at(t->pool, loan->data) != NULL;
}

void pl_transport_loan_census(struct pl_transport *transport, unsigned *ret_held, unsigned *ret_lent)
{
    *ret_held = *ret_lent = 0;
    if (transport->ops == &pl_shm_ops && pl_shm_of(transport)->pool != NULL)
        pl_segment_census(pl_shm_of(transport)->pool, ret_held, ret_lent);
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
    int fd = where.size > 0 ? pl_stream_take_fd(&t->control) : -1;
    if (where.size > 0 && fd < 0) return pl_error(-EPROTO, "the peer announced a segment without its descriptor");
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
        pl_segment_map_wake(t->map, &t->channel.control->wanted[direction], t->bell_out);
    }
    r = where.size > 0 ? pl_segment_map_add(t->map, fd, where.id, where.size) : pl_segment_map_drop(t->map, where.id);
    if (r < 0) return r;
    t->heard++;
    return PL_TRANSPORT_OK;
}

/* All that lie next on the socket, which may be none: 0, END, -errno. */
static int hear_announcements(struct shm_transport *t)
{
    const uint8_t *data;
    size_t size;
    while (pl_stream_peek(&t->control, PL_FRAME_HEAD, &data, &size) == PL_STREAM_OK && data[4] == PL_FRAME_SEGMENT) {
        int r = hear_announcement(t);
        if (r != PL_TRANSPORT_OK) return r == PL_TRANSPORT_EMPTY ? 0 : r;
    }
    return 0;
}

int pl_shm_hear_early(struct shm_transport *t)
{
    int r = t->base.hung_up ? 0 : hear_announcements(t);
    return r < 0 ? r : PL_TRANSPORT_EMPTY; /* an end is told by others */
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
        int r = hear_announcements(t); /* they may precede the body, and are never awaited for themselves */
        if (r != PL_TRANSPORT_OK) return r;
        r = receive_body_head(t);
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

int pl_shm_receive_large(struct shm_transport *t, struct pl_message *ret_message)
{
    int r = t->awaited == ANNOUNCEMENT ? receive_in_segment(t, ret_message) : receive_on_socket(t, ret_message);
    t->base.partial = r == PL_TRANSPORT_EMPTY;
    if (r == PL_TRANSPORT_OK) ret_message->fresh = true;
    return r;
}

/* The frame in the ring says that its body lies elsewhere. */
int pl_shm_begin_large(struct shm_transport *t, const struct pl_frame *frame, const uint8_t *payload)
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
