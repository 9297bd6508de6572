/* segment_map: the receiver's half of segment.h. The map lives until its owner has closed it and the last view is
 * released. One mutex orders close and release, so that no store reaches the table after close.
 */
#include "shm/segment.h"

#include "base/error.h"
#include "base/fd.h"
#include "base/fork.h"
#include "shm/doorbell.h"
#include "shm/memory.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

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
    _Atomic uint32_t *wanted;   /* NULL: nobody asks */
    int bell;
    uint32_t references; /* the owner's and one for each view */
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

void pl_segment_map_wake(struct pl_segment_map *map, _Atomic uint32_t *wanted, int bell)
{
    map->wanted = wanted;
    map->bell = bell;
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
    if (id >= PL_SEGMENTS_MAX || size == 0 || size > 1ULL << PL_SEGMENT_CLASS_MAX || size % pl_page_size() != 0)
        return pl_error(-EPROTO,
                        "segments: the peer announces segment %u of %llu bytes (ids end at %d, sizes at 1 GiB)", id,
                        (unsigned long long)size, PL_SEGMENTS_MAX - 1);
    int r = pl_memfd_check(owned, size, PL_MEMFD_SEALS);
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

int pl_segment_map_drop(struct pl_segment_map *map, uint32_t id)
{
    int r = 0;
    struct mapping *mapping = NULL;
    pthread_mutex_lock(&map->lock);
    if (map->returned == NULL) r = closed();
    else if (id >= PL_SEGMENTS_MAX || map->mappings[id] == NULL || map->mappings[id]->lent)
        r = pl_error(-EPROTO, "segments: the peer drops segment %u, which it never announced or which is in use here",
                     id);
    else {
        mapping = map->mappings[id];
        map->mappings[id] = NULL;
    }
    pthread_mutex_unlock(&map->lock);
    mapping_free(mapping);
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
    else if (size > 1ULL << PL_SEGMENT_CLASS_MAX)
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

static void ring_if_wanted(struct pl_segment_map *map)
{
    if (map->wanted == NULL) return;
    /* FS1: pairs with FS2 in pl_segment_want: the sender sees what came back or we its question. */
    atomic_thread_fence(memory_order_seq_cst);
    /* Relaxed, both: after the fence; one ring too many does no harm. */
    if (atomic_load_explicit(map->wanted, memory_order_relaxed) == 0) return;
    atomic_store_explicit(map->wanted, 0, memory_order_relaxed);
    pl_doorbell_ring(map->bell);
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
        ring_if_wanted(map);
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
    r = pl_memory_populate_up_to(mapping->data, mapping->size, &mapping->populated, size, 0);
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
