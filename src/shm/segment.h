/* segment: a memfd that holds one large payload; created by its sender, announced once over the
 * socket, mapped once by the receiver, reused. One-writer memory: mapped whole, then sealed with
 * FUTURE_WRITE, so that the receiver cannot get write access.
 *
 * A segment has an id (its slot, 0 to 63) and a generation that its sender counts up at each use. The
 * receiver gives it back by storing the generation into the channel's table `returned`: any order,
 * no ring space needed.
 *
 * A segment is busy while its receiver has it (lent) or somebody here holds it (held: a loan that is being
 * written, a call that may have to be sent again). Both must end before it is used again.
 */
#ifndef PL_SHM_SEGMENT_H
#define PL_SHM_SEGMENT_H

#include "shm/layout.h"
#include <stdbool.h>
#include <stddef.h>

enum { PL_SEGMENT_NONE = 1 };
enum { PL_SEGMENT_CLASS_MAX = 30 }; /* a segment has at most 2^30 bytes */

struct pl_segment {
    uint32_t id, generation;
    uint8_t *data;
    size_t capacity;
    int fd; /* until it is announced; then -1 */
};

struct pl_segment_pool; /* the sender's side of one direction; not thread-safe but for pl_segment_release */

/* RETURNED is borrowed from the channel until pool_free. */
int pl_segment_pool_new(struct pl_segment_pool **ret_pool, _Atomic uint32_t *returned /* [PL_SEGMENTS_MAX] */);
/* NULL is fine. The receiver's maps stay valid, and what is held until it is released. */
void pl_segment_pool_free(struct pl_segment_pool *pool);

/* A free segment of at least SIZE bytes with its generation counted up, populated. If fd >= 0 it must
 * be announced (send the descriptor and id, generation, capacity; then pl_segment_announced).
 * PL_SEGMENT_NONE: at the cap, beyond 1 GiB, or this size class is used for the first time (a segment pays from the
 * second use on): send the payload another way. -ENOMEM, -EMFILE are also told as PL_SEGMENT_NONE,
 * since there is another way. -EPROTO: the table holds a lie. */
int pl_segment_take(struct pl_segment_pool *pool, size_t size, struct pl_segment **ret_segment);
void pl_segment_announced(struct pl_segment_pool *pool, struct pl_segment *segment); /* closes fd */
void pl_segment_abort(struct pl_segment_pool *pool, struct pl_segment *segment);     /* never sent */

/* The same for somebody who writes into it first: held, not populated, its generation as it was. PL_SEGMENT_NONE: all
 * are busy, or beyond 1 GiB. -ENOMEM, -EMFILE: with text; -EPROTO as above. */
int pl_segment_hold(struct pl_segment_pool *pool, size_t size, struct pl_segment **ret_segment);
/* Of its holder, any thread. -ENOMEM with text: then release it. */
int pl_segment_populate(struct pl_segment *segment, size_t size);
/* Any thread, any time, once; also after pool_free. In a forked child it does nothing. */
void pl_segment_release(struct pl_segment *segment);
/* The held segment, not yet sent, whose memory begins at DATA; NULL: none. */
struct pl_segment *pl_segment_held_at(struct pl_segment_pool *pool, const void *data);
void pl_segment_send(struct pl_segment_pool *pool, struct pl_segment *segment); /* lends it: a new generation */

/* Where to ask and to be told of a segment that comes back: the channel's word, and a doorbell of ours, which
 * pl_segment_release rings. Both borrowed until pool_free. */
void pl_segment_pool_wake(struct pl_segment_pool *pool, _Atomic uint32_t *wanted, int bell);
/* Asks for that, once. True: something is idle now, don't wait. -EPROTO shows with the next hold. */
bool pl_segment_want(struct pl_segment_pool *pool);
void pl_segment_census(struct pl_segment_pool *pool, unsigned *ret_held, unsigned *ret_lent);

/* One that was idle at every such look for pl_segment_idle_ns before NOW (ticks), or NULL. If fd < 0 its receiver has
 * heard of it and must hear that its memory goes; then pl_segment_drop. */
extern uint64_t pl_segment_idle_ns; /* 10 s; tests change it */
struct pl_segment *pl_segment_idle(struct pl_segment_pool *pool, uint64_t now);
void pl_segment_drop(struct pl_segment_pool *pool, struct pl_segment *segment);

struct pl_segment_map; /* the receiver's side; thread-safe, reference counted by its views */

int pl_segment_map_new(struct pl_segment_map **ret_map, _Atomic uint32_t *returned);
/* As pl_segment_pool_wake: the sender's word, and its doorbell. Borrowed until map_close. */
void pl_segment_map_wake(struct pl_segment_map *map, _Atomic uint32_t *wanted, int bell);

/* No more give-backs are stored (the channel goes); views stay readable until released. */
void pl_segment_map_close(struct pl_segment_map *map); /* NULL is fine */

/* Takes FD (closes it). Checks id < 64, tmpfs, seals, size. Announcing an id again replaces a mapping
 * without views. -EPROTO, -ENOMEM with text; -ECONNRESET after close. */
int pl_segment_map_add(struct pl_segment_map *map, int fd, uint32_t id, uint64_t size);
/* The sender has dropped ID's memory. -EPROTO: it never announced it, or a view of it still lives. */
int pl_segment_map_drop(struct pl_segment_map *map, uint32_t id);

struct pl_segment_view {
    struct pl_segment_map *map; /* NULL: empty */
    const uint8_t *data;
    size_t size;
    uint32_t id, generation;
};
/* A view of SIZE bytes of segment ID, populated. -EPROTO: unknown id, too large, or a view of it still
 * lives; -ENOMEM; -ECONNRESET after close. */
int pl_segment_map_view(struct pl_segment_map *map, uint32_t id, uint32_t generation, uint64_t size,
                        struct pl_segment_view *ret_view);
/* Gives back; idempotent; any thread. In a forked child it only frees the child's copy. */
void pl_segment_view_release(struct pl_segment_view *view);

#endif
