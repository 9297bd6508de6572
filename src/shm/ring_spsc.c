/* ring_spsc: the rare halves. Page bookkeeping counts in offsets of the double mapping, [0, 2 *
 * capacity): `extent` is how much of it is populated, a power of two; the last doubling brings in the
 * mirror, which only records that straddle the lap's end use.
 */
#include "shm/ring_spsc.h"

#include "base/error.h"
#include "shm/memory.h"

#include <errno.h>

void pl_ring_producer_init(struct pl_ring_producer *ring, struct pl_ring_shared *shared, uint8_t *data,
                           uint32_t capacity)
{
    *ring = (struct pl_ring_producer){
        .shared = shared, .data = data, .capacity = capacity, .extent = PL_RING_LIGHT, .light = true
    };
}

void pl_ring_consumer_init(struct pl_ring_consumer *ring, struct pl_ring_shared *shared, const uint8_t *data,
                           uint32_t capacity)
{
    *ring = (struct pl_ring_consumer){ .shared = shared, .data = data, .capacity = capacity, .extent = PL_RING_LIGHT };
}

/* Populates so that offsets below END may be used. */
static int extend(const uint8_t *data, uint32_t *extent, uint64_t end, int write)
{
    uint32_t wanted = *extent;
    while (wanted < end) wanted *= 2;
    size_t page = pl_page_size();
    size_t from = (*extent + page - 1) / page * page;
    if (wanted > from) {
        int r = pl_memory_populate((void *)(uintptr_t)(data + from), wanted - from, write);
        if (r < 0) return pl_error_in(r, "ring");
    }
    *extent = wanted;
    return 0;
}

/* Takes over the consumer's position: it may only go forward, to at most what was published. */
static int see_head(struct pl_ring_producer *ring, uint64_t head)
{
    if (head - ring->head > ring->published - ring->head || head % PL_RING_ALIGN != 0)
        return pl_error(-EPROTO, "ring: the peer claims to have read up to %llu where %llu to %llu are possible",
                        (unsigned long long)head, (unsigned long long)ring->head, (unsigned long long)ring->published);
    ring->head = head;
    return 0;
}

/* Where the page ends that the byte before OFFSET lies in. */
static uint64_t page_end(uint64_t offset)
{
    return (offset + PL_RING_LIGHT - 1) & ~(uint64_t)(PL_RING_LIGHT - 1);
}

/* The ring is empty: goes on at the next lap. That leaves room for OFFSET bytes until the consumer has
 * followed; twice running, because a burst that begins here would meet a full ring early. */
static void skip_lap(struct pl_ring_producer *ring, uint64_t offset)
{
    /* Relaxed: the next tail that is published carries it (RR1). */
    atomic_store_explicit(&ring->shared->skip, ring->tail, memory_order_relaxed);
    ring->tail += ring->capacity - offset;
}

int pl_ring_make_room(struct pl_ring_producer *ring, size_t size)
{
    if (size > ring->capacity)
        return pl_error(-EMSGSIZE, "ring: a record of %zu bytes in a ring of %u", size, ring->capacity);
    uint64_t need = pl_ring_round(size), offset = ring->tail & (ring->capacity - 1);
    bool leaves = offset != 0 && page_end(offset) != page_end(offset + need);
    if (leaves || ring->tail - ring->head + need > ring->capacity) {
        /* AR2: pairs with RR2 in pl_ring_consume, RR3 in pl_ring_give_back, RR4 in pl_ring_look. */
        int r = see_head(ring, atomic_load_explicit(&ring->shared->head, memory_order_acquire));
        if (r < 0) return r;
        if (ring->tail - ring->head + need > ring->capacity) return PL_RING_FULL;
    }
    if (leaves) {
        bool empty = ring->tail == ring->head, light = ring->light;
        ring->light = empty;
        if (empty && light && need <= offset) {
            skip_lap(ring, offset);
            offset = 0;
        }
    }
    if (offset + need > ring->extent) {
        int r = extend(ring->data, &ring->extent, offset + need, 1);
        if (r < 0) return r;
    }
    uint64_t room = ring->head + ring->capacity - ring->tail, page = page_end(offset + need) - offset;
    ring->limit = ring->tail + (room < page ? room : page);
    return 0;
}

bool pl_ring_starve(struct pl_ring_producer *ring, size_t size)
{
    /* Relaxed, as is the load: the fence is between them. */
    atomic_store_explicit(&ring->shared->starved, 1, memory_order_relaxed);
    /* FR4: pairs with FR3 in pl_ring_give_back: the consumer sees the announcement or we its head. */
    atomic_thread_fence(memory_order_seq_cst);
    uint64_t head = atomic_load_explicit(&ring->shared->head, memory_order_relaxed);
    /* A lie ends the sleep, too; the next reserve tells of it. */
    if (head - ring->head <= ring->published - ring->head && ring->tail - head + pl_ring_round(size) > ring->capacity)
        return true;
    pl_ring_fed(ring);
    return false;
}

void pl_ring_fed(struct pl_ring_producer *ring)
{
    /* Relaxed: a late announcement costs a needless ring of the doorbell. */
    atomic_store_explicit(&ring->shared->starved, 0, memory_order_relaxed);
}

int pl_ring_look(struct pl_ring_consumer *ring, uint64_t tail)
{
    uint64_t offset = ring->head & (ring->capacity - 1);
#ifdef PLAIT_PLANT_BUG /* what fuzz_ring must find: a position is compared with the wrong limit */
    if (tail - ring->head > 4 * ring->capacity || tail % PL_RING_ALIGN != 0)
#else
    if (tail - ring->head > ring->capacity || tail % PL_RING_ALIGN != 0)
#endif
        return pl_error(-EPROTO, "ring: the peer claims to have written up to %llu where %llu to %llu are possible",
                        (unsigned long long)tail, (unsigned long long)ring->head,
                        (unsigned long long)(ring->head + ring->capacity));
    uint64_t end = offset + (tail - ring->head);
    if (end > ring->extent || end >= ring->capacity) {
        /* A skip reaches at least to the lap's end. Relaxed: it came with the tail (AR1). At offset 0 there
         * is nothing to skip, and a fresh ring says 0. */
        uint64_t skip = atomic_load_explicit(&ring->shared->skip, memory_order_relaxed);
        if (skip == ring->head && offset != 0) {
            uint64_t lap = ring->head + (ring->capacity - offset);
            if (tail - ring->head < lap - ring->head)
                return pl_error(-EPROTO, "ring: the peer skips to %llu but wrote up to %llu", (unsigned long long)lap,
                                (unsigned long long)tail);
            ring->head = ring->published = ring->tail = lap;
            /* At once, because the producer has little room until then. RR4: nothing was read there, pairs
             * with AR2 in pl_ring_make_room. */
            atomic_store_explicit(&ring->shared->head, lap, memory_order_release);
            if (tail == lap) return PL_RING_EMPTY;
            end = tail - lap;
        }
        int r = extend(ring->data, &ring->extent, end, 0);
        if (r < 0) return r;
    }
    ring->tail = tail;
    return 0;
}

bool pl_ring_ahead(const struct pl_ring_consumer *ring, size_t size, const uint8_t **ret_data, size_t *ret_size)
{
    uint64_t from = ring->head + pl_ring_round(size), offset = from & (ring->capacity - 1);
    /* AR1: as in pl_ring_peek. */
    uint64_t tail = atomic_load_explicit(&ring->shared->tail, memory_order_acquire);
    if (size > ring->capacity || tail - ring->head > ring->capacity || tail % PL_RING_ALIGN != 0) return false;
    if (tail - ring->head <= from - ring->head) return false;
    /* Relaxed: it came with the tail (AR1). */
    if (offset != 0 && atomic_load_explicit(&ring->shared->skip, memory_order_relaxed) == from) {
        uint64_t lap = from + (ring->capacity - offset);
        if (tail - ring->head <= lap - ring->head) return false;
        from = lap;
    }
    *ret_data = ring->data + (from & (ring->capacity - 1));
    *ret_size = (size_t)(tail - from);
    return true;
}

int pl_ring_overconsumed(const struct pl_ring_consumer *ring, size_t size)
{
    return pl_error(-EPROTO, "ring: the peer's record claims %zu bytes where %llu are there", size,
                    (unsigned long long)(ring->tail - ring->head));
}

bool pl_ring_sleep(struct pl_ring_consumer *ring)
{
    /* Relaxed, as is the load: the fence is between them. */
    atomic_store_explicit(&ring->shared->sleeping, 1, memory_order_relaxed);
    /* FR2: pairs with FR1 in pl_ring_publish: the producer sees the announcement or we its tail. */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&ring->shared->tail, memory_order_relaxed) == ring->head) return true;
    pl_ring_awake(ring);
    return false;
}

void pl_ring_awake(struct pl_ring_consumer *ring)
{
    /* Relaxed: a late announcement costs a needless ring of the doorbell. */
    atomic_store_explicit(&ring->shared->sleeping, 0, memory_order_relaxed);
}
