/* segment: see segment.h.
 *
 * Sender: a slot keeps its id and generations for the life of the connection; the memory behind it may
 * be replaced. What the table says about a slot is either what it said before or the generation that
 * the slot is lent with; anything else is a lie. Pages are populated up to the largest payload so far,
 * so that reuse costs the copy alone.
 *
 * Receiver: the map lives until its owner has closed it and the last view is released. One mutex
 * orders close and release, so that no store reaches the table after close.
 */
#include "shm/segment.h"

#include "base/error.h"
#include "base/fd.h"
#include "base/fork.h"
#include "shm/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

enum { CLASS_MIN = 14, CLASS_MAX = 30 }; /* 16 KiB to 1 GiB */
enum { POPULATE_STEP = 1 << 16 };
enum { SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };
enum { WASTE = 3 }; /* an idle segment of 2^3 times the size is too good for it */

struct slot {
    struct pl_segment segment; /* first: handed out and taken back as this */
    size_t populated;
    uint64_t used;     /* when it was taken last, by the pool's count */
    uint32_t returned; /* what the table said last */
    bool lent;
};

struct pl_segment_pool {
    _Atomic uint32_t *returned;
    uint64_t uses;
    uint32_t classes; /* bit n: a payload of class n came before */
    uint32_t count;
    struct slot *slots[PL_SEGMENTS_MAX];
};

int pl_segment_pool_new(struct pl_segment_pool **ret_pool, _Atomic uint32_t *returned)
{
    struct pl_segment_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL) return pl_error(-ENOMEM, "segments: out of memory");
    pool->returned = returned;
    *ret_pool = pool;
    return 0;
}

static void drop_memory(struct slot *slot)
{
    struct pl_segment *segment = &slot->segment;
    if (segment->data != NULL) munmap(segment->data, segment->capacity);
    segment->data = NULL;
    segment->capacity = slot->populated = 0;
    pl_close(&segment->fd);
}

void pl_segment_pool_free(struct pl_segment_pool *pool)
{
    if (pool == NULL) return;
    for (uint32_t i = 0; i < pool->count; i++) {
        drop_memory(pool->slots[i]);
        free(pool->slots[i]);
    }
    free(pool);
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

static uint32_t class_of(size_t size)
{
    return size <= 1UL << CLASS_MIN ? CLASS_MIN : 64 - (uint32_t)__builtin_clzll(size - 1);
}

/* Memory of 2^CLASS bytes for SLOT. Mapped first and sealed then: FUTURE_WRITE spares only mappings that
 * exist. A kernel before 5.1 doesn't know that seal; the receiver could write then, to its own harm. */
static int make_memory(struct slot *slot, uint32_t class)
{
    size_t size = (size_t)1 << class;
    PL_AUTO_CLOSE int fd = -1;
    int r = pl_memfd_create("plait-segment", size, &fd);
    if (r < 0) return r;
    uint8_t *data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) return pl_error(-errno, "segment: mapping %zu bytes: %s", size, pl_error_word(errno));
    r = pl_memfd_seal(fd, SEALS | F_SEAL_FUTURE_WRITE);
    if (r == -EINVAL) r = pl_memfd_seal(fd, SEALS);
    if (r == 0 && fchmod(fd, 0400) != 0) r = pl_error(-errno, "segment: chmod: %s", pl_error_word(errno));
    if (r < 0) {
        munmap(data, size);
        return r;
    }
    drop_memory(slot);
    slot->segment.data = data;
    slot->segment.capacity = size;
    slot->segment.fd = fd;
    fd = -1;
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
        if (slot->lent || capacity < size || (capacity > most && pool->count < PL_SEGMENTS_MAX)) continue;
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
        if (slot->lent) continue;
        if (slot->segment.data == NULL) return slot;
        if (oldest == NULL || slot->used < oldest->used) oldest = slot;
    }
    if (pool->count == PL_SEGMENTS_MAX) return oldest;
    struct slot *slot = calloc(1, sizeof *slot);
    if (slot == NULL) return NULL;
    slot->segment.id = pool->count;
    slot->segment.fd = -1;
    pool->slots[pool->count++] = slot;
    return slot;
}

static int populate(struct slot *slot, size_t size)
{
    if (size <= slot->populated) return 0;
    size_t end = (size + POPULATE_STEP - 1) & ~(size_t)(POPULATE_STEP - 1);
    if (end > slot->segment.capacity) end = slot->segment.capacity;
    int r = pl_memory_populate(slot->segment.data + slot->populated, end - slot->populated, 1);
    if (r < 0) return r;
    slot->populated = end;
    return 0;
}

int pl_segment_take(struct pl_segment_pool *pool, size_t size, struct pl_segment **ret_segment)
{
    int r = collect(pool);
    if (r < 0) return r;
    uint32_t class = class_of(size);
    if (class > CLASS_MAX) return PL_SEGMENT_NONE;
    struct slot *slot = find_idle(pool, size);
    if (slot == NULL) {
        bool first = (pool->classes & 1U << class) == 0;
        pool->classes |= 1U << class;
        if (first) return PL_SEGMENT_NONE;
        slot = find_room(pool);
        if (slot == NULL || make_memory(slot, class) < 0) return PL_SEGMENT_NONE;
    }
    if (populate(slot, size) < 0) {
        /* Memory that nobody has heard of yet is worth nothing; announced memory may do for less. */
        if (slot->segment.fd >= 0) drop_memory(slot);
        return PL_SEGMENT_NONE;
    }
    if (++slot->segment.generation == 0) slot->segment.generation = 1;
    slot->used = ++pool->uses;
    slot->lent = true;
    *ret_segment = &slot->segment;
    return 0;
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

struct mapping {
    uint8_t *data;
    size_t size, populated;
    bool lent;
};

struct pl_segment_map {
    struct pl_fork_hook fork;
    bool inherited; /* this is a forked child's copy */
    pthread_mutex_t lock;
    _Atomic uint32_t *returned; /* NULL: closed */
    uint32_t references;        /* the owner's and one for each view */
    struct mapping *mappings[PL_SEGMENTS_MAX];
};

/* A child may read its views and must not tell the parent's peer that they are read. */
static void forget_in_child(struct pl_fork_hook *hook)
{
    struct pl_segment_map *map = pl_container_of(hook, struct pl_segment_map, fork);
    pthread_mutex_init(&map->lock, NULL);
    map->inherited = true;
    map->returned = NULL;
}

/* In the child of a raw clone(2) no hook has run: the lock may be held for ever. */
static bool untouchable(const struct pl_segment_map *map)
{
    return !map->inherited && pl_forked(&map->fork);
}

int pl_segment_map_new(struct pl_segment_map **ret_map, _Atomic uint32_t *returned)
{
    struct pl_segment_map *map = calloc(1, sizeof *map);
    if (map == NULL) return pl_error(-ENOMEM, "segments: out of memory");
    map->fork.in_child = forget_in_child;
    int r = pl_fork_add(&map->fork);
    if (r < 0) {
        free(map);
        return r;
    }
    pthread_mutex_init(&map->lock, NULL);
    map->returned = returned;
    map->references = 1;
    *ret_map = map;
    return 0;
}

static void mapping_free(struct mapping *mapping)
{
    if (mapping == NULL) return;
    munmap(mapping->data, mapping->size);
    free(mapping);
}

/* Drops a reference; called with the lock held, which it gives up. */
static void unref_unlock(struct pl_segment_map *map)
{
    bool last = --map->references == 0;
    pthread_mutex_unlock(&map->lock);
    if (!last) return;
    pl_fork_remove(&map->fork);
    pthread_mutex_destroy(&map->lock);
    free(map);
}

static void drop_idle(struct pl_segment_map *map)
{
    for (uint32_t i = 0; i < PL_SEGMENTS_MAX; i++) {
        if (map->mappings[i] == NULL || map->mappings[i]->lent) continue;
        mapping_free(map->mappings[i]);
        map->mappings[i] = NULL;
    }
}

void pl_segment_map_close(struct pl_segment_map *map)
{
    if (map == NULL || untouchable(map)) return;
    pthread_mutex_lock(&map->lock);
    map->returned = NULL;
    drop_idle(map);
    unref_unlock(map);
}

static int closed(void)
{
    return pl_error(-ECONNRESET, "segments: the connection is closed");
}

int pl_segment_map_add(struct pl_segment_map *map, int fd, uint32_t id, uint64_t size)
{
    PL_AUTO_CLOSE int owned = fd;
    if (id >= PL_SEGMENTS_MAX || size == 0 || size > 1ULL << CLASS_MAX || size % pl_page_size() != 0)
        return pl_error(-EPROTO,
                        "segments: the peer announces segment %u of %llu bytes (ids end at %d, sizes at 1 GiB)", id,
                        (unsigned long long)size, PL_SEGMENTS_MAX - 1);
    int r = pl_memfd_check(owned, size, SEALS);
    if (r < 0) return pl_error_in(r, "segment %u", id);
    struct mapping *mapping = calloc(1, sizeof *mapping);
    if (mapping == NULL) return pl_error(-ENOMEM, "segments: out of memory");
    mapping->size = size;
    mapping->data = mmap(NULL, size, PROT_READ, MAP_SHARED, owned, 0);
    if (mapping->data == MAP_FAILED) {
        r = errno == EACCES || errno == EPERM ? -EPROTO : -errno;
        free(mapping);
        return pl_error(r, "segment %u: mapping %llu bytes: %s", id, (unsigned long long)size, pl_error_word(errno));
    }
    pthread_mutex_lock(&map->lock);
    struct mapping *surplus = mapping;
    if (map->returned == NULL) r = closed();
    else if (map->mappings[id] != NULL && map->mappings[id]->lent)
        r = pl_error(-EPROTO, "segments: the peer replaces segment %u, which is still in use here", id);
    else {
        surplus = map->mappings[id];
        map->mappings[id] = mapping;
    }
    pthread_mutex_unlock(&map->lock);
    mapping_free(surplus);
    return r;
}

/* Lends the mapping, so that nobody unmaps it, and takes a reference. */
static int lend(struct pl_segment_map *map, uint32_t id, uint64_t size, struct mapping **ret_mapping)
{
    int r = 0;
    pthread_mutex_lock(&map->lock);
    struct mapping *mapping = id < PL_SEGMENTS_MAX ? map->mappings[id] : NULL;
    if (map->returned == NULL) r = closed();
    else if (mapping == NULL) r = pl_error(-EPROTO, "segments: the peer uses segment %u, which it never announced", id);
    else if (mapping->lent) r = pl_error(-EPROTO, "segments: the peer uses segment %u, which is still in use here", id);
#ifdef PLAIT_PLANT_BUG /* what fuzz_segment must find: a claimed size is compared with the wrong limit */
    else if (size > 1ULL << CLASS_MAX)
#else
    else if (size > mapping->size)
#endif
        r = pl_error(-EPROTO, "segments: the peer claims %llu bytes in segment %u of %zu", (unsigned long long)size, id,
                     mapping->size);
    if (r == 0) {
        mapping->lent = true;
        map->references++;
        *ret_mapping = mapping;
    }
    pthread_mutex_unlock(&map->lock);
    return r;
}

static int populate_for_reading(struct mapping *mapping, uint64_t size)
{
    if (size <= mapping->populated) return 0;
    uint64_t end = (size + POPULATE_STEP - 1) & ~(uint64_t)(POPULATE_STEP - 1);
    if (end > mapping->size) end = mapping->size;
    int r = pl_memory_populate(mapping->data + mapping->populated, end - mapping->populated, 0);
    if (r < 0) return r;
    mapping->populated = end;
    return 0;
}

/* Ends a view; with a generation other than 0 the sender hears of it. */
static void give_back(struct pl_segment_map *map, uint32_t id, uint32_t generation)
{
    pthread_mutex_lock(&map->lock);
    map->mappings[id]->lent = false;
    if (map->returned == NULL) {
        mapping_free(map->mappings[id]);
        map->mappings[id] = NULL;
    } else if (generation != 0) {
        /* RS1: our reads are done, pairs with AS1 in collect. */
        atomic_store_explicit(&map->returned[id], generation, memory_order_release);
    }
    unref_unlock(map);
}

int pl_segment_map_view(struct pl_segment_map *map, uint32_t id, uint32_t generation, uint64_t size,
                        struct pl_segment_view *ret_view)
{
    struct mapping *mapping = NULL;
    int r = lend(map, id, size, &mapping);
    if (r < 0) return r;
    /* Without the lock: it can take milliseconds. The extent is the view's holder's meanwhile. */
    r = populate_for_reading(mapping, size);
    if (r < 0) {
        give_back(map, id, 0);
        return pl_error_in(r, "segment %u", id);
    }
    *ret_view =
        (struct pl_segment_view){ .map = map, .data = mapping->data, .size = size, .id = id, .generation = generation };
    return 0;
}

void pl_segment_view_release(struct pl_segment_view *view)
{
    if (view == NULL || view->map == NULL) return;
    struct pl_segment_map *map = view->map;
    uint32_t id = view->id, generation = view->generation;
    *view = (struct pl_segment_view){ 0 };
    if (!untouchable(map)) give_back(map, id, generation);
}
