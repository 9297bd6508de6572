/* transport_shm: what its two files share. Private to this folder.
 *
 * transport_shm.c   the rings, doorbells, the operations
 * shm_large.c       bodies that don't fit a ring, loans
 */
#ifndef PL_TRANSPORT_TRANSPORT_SHM_H
#define PL_TRANSPORT_TRANSPORT_SHM_H

#include "shm/channel.h"
#include "shm/doorbell.h"
#include "shm/ring_spsc.h"
#include "shm/segment.h"
#include "transport/stream.h"
#include "transport/transport.h"

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

static inline struct shm_transport *pl_shm_of(struct pl_transport *transport)
{
    return (struct shm_transport *)transport;
}

static inline void pl_shm_publish(struct shm_transport *t)
{
    if (pl_ring_publish(&t->out)) pl_doorbell_ring(t->bell_out);
}

/* Room for a record of SIZE bytes: 0, FULL, -errno. */
static inline int pl_shm_reserve(struct shm_transport *t, size_t size, void **ret_memory)
{
    int r = pl_ring_reserve(&t->out, size, ret_memory);
    if (__builtin_expect(r == PL_RING_OK, 1)) return PL_TRANSPORT_OK;
    if (r < 0) return r;
    /* The consumer must learn of what is committed before anybody waits for it to make room. */
    pl_shm_publish(t);
    if (pl_ring_starve(&t->out, size)) return PL_TRANSPORT_FULL;
    r = pl_ring_reserve(&t->out, size, ret_memory);
    return r == PL_RING_FULL ? PL_TRANSPORT_FULL : r;
}

/* ---- shm_large.c ---- */

extern const struct pl_transport_ops pl_shm_ops;

int pl_shm_send_large(struct shm_transport *t, const struct pl_frame *frame, const void *body, unsigned how);
/* Segments that were idle for long are given up. */
void pl_shm_trim(struct shm_transport *t);

/* The frame in the ring says that its body lies elsewhere: notes it, so that it is `awaited`. 0 or -errno. */
int pl_shm_begin_large(struct shm_transport *t, const struct pl_frame *frame, const uint8_t *payload);
int pl_shm_receive_large(struct shm_transport *t, struct pl_message *ret_message); /* what is awaited */
/* What the socket tells of segments before a frame asks for it: EMPTY or -errno. */
int pl_shm_hear_early(struct shm_transport *t);

#endif
