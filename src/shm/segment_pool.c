/* segment_pool: the sender's half of segment.h.
 *
 * A slot keeps its id and generations for the life of the connection; the memory behind it may be replaced. What the
 * table says about a slot is either what it said before or the generation that the slot is lent with; anything else is
 * a lie. Pages are populated up to the largest payload so far, so that reuse costs the copy alone.
 *
 * Whoever holds a segment may let go of it at any time, from any thread, and after the pool is closed. One mutex guards
 * who holds what; the pool lives until it is closed and nobody holds anything.
 */
#include "shm/segment.h"

#include "base/error.h"
#include "base/fd.h"
#include "base/clock.h"
#include "base/fork.h"
#include "shm/doorbell.h"
#include "shm/memory.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { CLASS_MIN = 14 }; /* 16 KiB; the largest class is PL_SEGMENT_CLASS_MAX */
enum { WASTE = 3 };      /* an idle segment of 2^3 times the size is too good for it */

uint64_t pl_segment_idle_ns = 10000000000;

struct slot {
    struct pl_segment segment; /* first: handed out and taken back as this */
    struct pl_segment_pool *pool;
    size_t populated;  /* while it is held: its holder's */
    uint64_t used;     /* when it was taken last, by the pool's count */
    uint64_t idle_at;  /* ticks: when it was first seen idle; 0: not since its last use */
    uint32_t returned; /* what the table said last */
    bool lent;
    bool held; /* under the lock */
};

struct pl_segment_pool {
    struct pl_fork_hook fork;
    pthread_mutex_t lock; /* for who holds, who waits, and closed */
    uint32_t holders;
    bool closed;
    bool waiting; /* for a release; then ring the bell */
    int bell;
    _Atomic uint32_t *wanted; /* NULL: nobody can be asked */
    _Atomic uint32_t *returned;
    uint64_t uses;
    uint32_t classes; /* bit n: a payload of class n came before */
    uint32_t count;
    struct slot *slots[PL_SEGMENTS_MAX];
};

/* A child holds nothing: it reads and frees its copy, and the parent's memory stays as it is. */
static void ignore_in_child(struct pl_fork_hook *hook)
{
    (void)hook;
}

int pl_segment_pool_new(struct pl_segment_pool **ret_pool, _Atomic uint32_t *returned)
{
    struct pl_segment_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL) return pl_error(-ENOMEM, "segments: out of memory");
    pool->fork.in_child = ignore_in_child;
    int r = pl_fork_add(&pool->fork);
    if (r < 0) {
        free(pool);
        return r;
    }
    pthread_mutex_init(&pool->lock, NULL);
    pool->returned = returned;
    pool->bell = -1;
    *ret_pool = pool;
    return 0;
}

void pl_segment_pool_wake(struct pl_segment_pool *pool, _Atomic uint32_t *wanted, int bell)
{
    pool->wanted = wanted;
    pool->bell = bell;
}

static void drop_memory(struct slot *slot)
{
    struct pl_segment *segment = &slot->segment;
    if (segment->data != NULL) munmap(segment->data, segment->capacity);
    segment->data = NULL;
    segment->capacity = slot->populated = 0;
    pl_close(&segment->fd);
}

static void destroy(struct pl_segment_pool *pool)
{
    for (uint32_t i = 0; i < pool->count; i++) {
        drop_memory(pool->slots[i]);
        free(pool->slots[i]);
    }
    pl_fork_remove(&pool->fork);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

void pl_segment_pool_free(struct pl_segment_pool *pool)
{
    if (pool == NULL) return;
    pthread_mutex_lock(&pool->lock);
    pool->closed = true;
    for (uint32_t i = 0; i < pool->count; i++)
        if (!pool->slots[i]->held) drop_memory(pool->slots[i]);
    bool last = pool->holders == 0;
    pthread_mutex_unlock(&pool->lock);
    if (last) destroy(pool);
}

void pl_segment_release(struct pl_segment *segment)
{
    struct slot *slot = (struct slot *)segment;
    struct pl_segment_pool *pool = slot->pool;
    if (pl_forked(&pool->fork)) return;
    pthread_mutex_lock(&pool->lock);
    slot->held = false;
    bool last = --pool->holders == 0 && pool->closed;
    if (pool->closed) drop_memory(slot);
    else if (pool->waiting) pl_doorbell_ring(pool->bell); /* under the lock: the bell goes with the pool */
    pool->waiting = false;
    pthread_mutex_unlock(&pool->lock);
    if (last) destroy(pool);
}

/* Takes back what the receiver gave back. */
static int collect(struct pl_segment_pool *pool)
{
    for (uint32_t i = 0; i < PL_SEGMENTS_MAX; i++) {
        struct slot *slot = i < pool->count ? pool->slots[i] : NULL;
        /* AS1: the receiver has read its view, pairs with RS1 in pl_segment_view_release. */
        uint32_t value = atomic_load_explicit(&pool->returned[i], memory_order_acquire);
        if (value == (slot == NULL ? 0 : slot->returned)) continue;
        if (slot == NULL || !slot->lent || value != slot->segment.generation)
            return pl_error(-EPROTO,
                            "segments: the peer gives back generation %u of segment %u, which it does not have", value,
                            i);
        slot->returned = value;
        slot->lent = false;
    }
    return 0;
}

static bool busy(const struct slot *slot)
{
    return slot->lent || slot->held;
}

static uint32_t class_of(size_t size)
{
    return size <= 1UL << CLASS_MIN ? CLASS_MIN : 64 - (uint32_t)__builtin_clzll(size - 1);
}

/* Memory of 2^CLASS bytes for SLOT. */
static int make_memory(struct slot *slot, uint32_t class)
{
    size_t size = (size_t)1 << class;
    uint8_t *data;
    int fd;
    int r = pl_memfd_create_one_writer("plait-segment", size, &data, &fd);
    if (r < 0) return r;
    drop_memory(slot);
    slot->segment.data = data;
    slot->segment.capacity = size;
    slot->segment.fd = fd;
    return 0;
}

/* The idle slot to use: the tightest that fits, of equals the one used last (it is in the cache). */
static struct slot *find_idle(const struct pl_segment_pool *pool, size_t size)
{
    size_t most = (size_t)1 << (class_of(size) + WASTE);
    struct slot *best = NULL;
    for (uint32_t i = 0; i < pool->count; i++) {
        struct slot *slot = pool->slots[i];
        size_t capacity = slot->segment.capacity;
        if (busy(slot) || slot->segment.data == NULL || capacity < size ||
            (capacity > most && pool->count < PL_SEGMENTS_MAX))
            continue;
        if (best == NULL || capacity < best->segment.capacity ||
            (capacity == best->segment.capacity && slot->used > best->used))
            best = slot;
    }
    return best;
}

/* A slot to get new memory: one without, a new one, or the idle one that was not used the longest. */
static struct slot *find_room(struct pl_segment_pool *pool)
{
    struct slot *oldest = NULL;
    for (uint32_t i = 0; i < pool->count; i++) {
        struct slot *slot = pool->slots[i];
        if (busy(slot)) continue;
        if (slot->segment.data == NULL) return slot;
        if (oldest == NULL || slot->used < oldest->used) oldest = slot;
    }
    if (pool->count == PL_SEGMENTS_MAX) return oldest;
    struct slot *slot = calloc(1, sizeof *slot);
    if (slot == NULL) return NULL;
    slot->pool = pool;
    slot->segment.id = pool->count;
    slot->segment.fd = -1;
    pool->slots[pool->count++] = slot;
    return slot;
}

int pl_segment_populate(struct pl_segment *segment, size_t size)
{
    struct slot *slot = (struct slot *)segment;
    int r = pl_memory_populate_up_to(segment->data, segment->capacity, &slot->populated, size, 1);
    /* Memory that nobody has heard of yet is worth nothing; announced memory may do for less. */
    if (r < 0 && segment->fd >= 0) drop_memory(slot);
    return r;
}

/* A slot with memory for SIZE bytes, nobody's yet. FRUGAL: not for a class that comes for the first time. */
static int find(struct pl_segment_pool *pool, size_t size, bool frugal, struct slot **ret_slot)
{
    uint32_t class = class_of(size);
    if (class > PL_SEGMENT_CLASS_MAX) return PL_SEGMENT_NONE;
    struct slot *slot = find_idle(pool, size);
    if (slot == NULL) {
        bool first = (pool->classes & 1U << class) == 0;
        pool->classes |= 1U << class;
        if (first && frugal) return PL_SEGMENT_NONE;
        slot = find_room(pool);
        if (slot == NULL) return PL_SEGMENT_NONE;
        int r = make_memory(slot, class);
        if (r < 0) return r;
    }
    slot->used = ++pool->uses;
    slot->idle_at = 0;
    *ret_slot = slot;
    return 0;
}

void pl_segment_send(struct pl_segment_pool *pool, struct pl_segment *segment)
{
    (void)pool;
    if (++segment->generation == 0) segment->generation = 1;
    ((struct slot *)segment)->lent = true;
}

int pl_segment_take(struct pl_segment_pool *pool, size_t size, struct pl_segment **ret_segment)
{
    struct slot *slot;
    int r = collect(pool);
    if (r < 0) return r;
    pthread_mutex_lock(&pool->lock);
    r = find(pool, size, true, &slot);
    pthread_mutex_unlock(&pool->lock);
    if (r != 0 || pl_segment_populate(&slot->segment, size) < 0) return PL_SEGMENT_NONE;
    pl_segment_send(pool, &slot->segment);
    *ret_segment = &slot->segment;
    return 0;
}

int pl_segment_hold(struct pl_segment_pool *pool, size_t size, struct pl_segment **ret_segment)
{
    struct slot *slot;
    int r = collect(pool);
    if (r < 0) return r;
    pthread_mutex_lock(&pool->lock);
    r = find(pool, size, false, &slot);
    if (r == 0) {
        slot->held = true;
        pool->holders++;
        *ret_segment = &slot->segment;
    }
    pthread_mutex_unlock(&pool->lock);
    return r;
}

struct pl_segment *pl_segment_held_at(struct pl_segment_pool *pool, const void *data)
{
    struct pl_segment *found = NULL;
    pthread_mutex_lock(&pool->lock);
    for (uint32_t i = 0; i < pool->count && found == NULL; i++) {
        struct slot *slot = pool->slots[i];
        if (slot->held && !slot->lent && slot->segment.data == data) found = &slot->segment;
    }
    pthread_mutex_unlock(&pool->lock);
    return found;
}

bool pl_segment_want(struct pl_segment_pool *pool)
{
    if (pool->wanted == NULL) return false;
    pthread_mutex_lock(&pool->lock);
    pool->waiting = true;
    pthread_mutex_unlock(&pool->lock);
    /* Relaxed, as are the loads: the fence is between them. */
    atomic_store_explicit(pool->wanted, 1, memory_order_relaxed);
    /* FS2: pairs with FS1 in give_back: the receiver sees the question or we what it gave back. */
    atomic_thread_fence(memory_order_seq_cst);
    unsigned held, lent;
    bool lie = collect(pool) < 0;
    pl_segment_census(pool, &held, &lent);
    return lie || held + lent < PL_SEGMENTS_MAX;
}

/* What is both held and lent counts as held: its holder may do something about it. */
void pl_segment_census(struct pl_segment_pool *pool, unsigned *ret_held, unsigned *ret_lent)
{
    unsigned held = 0, lent = 0;
    pthread_mutex_lock(&pool->lock);
    for (uint32_t i = 0; i < pool->count; i++) {
        if (pool->slots[i]->held) held++;
        else if (pool->slots[i]->lent) lent++;
    }
    pthread_mutex_unlock(&pool->lock);
    *ret_held = held;
    *ret_lent = lent;
}

struct pl_segment *pl_segment_idle(struct pl_segment_pool *pool, uint64_t now)
{
    struct pl_segment *found = NULL;
    uint64_t least = pl_ticks_of_ns(pl_segment_idle_ns);
    if (collect(pool) < 0) return NULL; /* the next use tells */
    pthread_mutex_lock(&pool->lock);
    for (uint32_t i = 0; i < pool->count && found == NULL; i++) {
        struct slot *slot = pool->slots[i];
        if (busy(slot) || slot->segment.data == NULL) continue;
        if (slot->idle_at == 0) slot->idle_at = now;
        if (now - slot->idle_at >= least) found = &slot->segment;
    }
    pthread_mutex_unlock(&pool->lock);
    return found;
}

void pl_segment_drop(struct pl_segment_pool *pool, struct pl_segment *segment)
{
    (void)pool;
    drop_memory((struct slot *)segment);
}

void pl_segment_announced(struct pl_segment_pool *pool, struct pl_segment *segment)
{
    (void)pool;
    pl_close(&segment->fd);
}

void pl_segment_abort(struct pl_segment_pool *pool, struct pl_segment *segment)
{
    (void)pool;
    ((struct slot *)segment)->lent = false;
}
