/* ring_spsc: one producer, one consumer, in any two processes.
 *
 * Positions run free and are masked on use; only unsigned differences are compared. The producer
 * owns `tail`, the consumer owns `head`; each side keeps its own position in private memory and only
 * publishes it. The peer's position is copied once and checked against our own capacity: a lie is
 * -EPROTO. Records are PL_RING_ALIGN-aligned runs of bytes; what is in them is the caller's affair.
 *
 * Waking: the consumer announces (sleeping = 1), fence, looks again, sleeps; the producer publishes its
 * tail, fence, looks whether a sleep is announced: at least one side sees the other's store. The producer
 * that sees an announcement takes it back itself, so that one sleep costs one ring of the doorbell:
 * whoever gets `true` must ring. Likewise `starved` for a producer without room.
 *
 * Light traffic stays in little memory, which spares pages and keeps cache lines warm (a round trip
 * through all of the ring costs half as much again): a producer that twice running finds the ring empty
 * at a page's end goes on at the start of the next lap (`skip` tells the consumer). Busy traffic brings in
 * more pages, doubling; both sides populate pages before they use them.
 */
#ifndef PL_SHM_RING_SPSC_H
#define PL_SHM_RING_SPSC_H

#include "shm/layout.h"
#include <stdbool.h>
#include <stddef.h>

enum { PL_RING_OK = 0, PL_RING_FULL = 1, PL_RING_EMPTY = 2 };

struct pl_ring_producer {
    struct pl_ring_shared *shared;
    uint8_t *data;
    uint64_t tail;      /* ours */
    uint64_t published; /* what the consumer can see of it */
    uint64_t head;      /* the consumer's, as last seen and checked */
    uint64_t limit;     /* may be filled up to here without a look at head or pages */
    uint32_t capacity;
    uint32_t extent; /* bytes of the two mappings that are populated */
    bool light;      /* the ring was empty at the last page's end */
};

struct pl_ring_consumer {
    struct pl_ring_shared *shared;
    const uint8_t *data;
    uint64_t head;      /* ours */
    uint64_t published; /* what the producer can see of it */
    uint64_t offered;   /* head at the last look at `starved` */
    uint64_t tail;      /* the producer's, as last seen and checked */
    uint32_t capacity;
    uint32_t extent;
};

/* DATA is 2 * CAPACITY bytes, page-aligned, of which the second half mirrors the first and the first
 * PL_RING_LIGHT are populated. (2 * CAPACITY plain bytes do between threads if the consumer
 * peeks for each record: then none is read through the other half than it was written.) */
void pl_ring_producer_init(struct pl_ring_producer *ring, struct pl_ring_shared *shared, uint8_t *data,
                           uint32_t capacity);
void pl_ring_consumer_init(struct pl_ring_consumer *ring, struct pl_ring_shared *shared, const uint8_t *data,
                           uint32_t capacity);

/* The announcement before a producer sleeps for room: true: still no room for SIZE, sleep; false: try
 * again (the announcement is taken back). pl_ring_fed takes it back after a sleep. */
bool pl_ring_starve(struct pl_ring_producer *ring, size_t size);
void pl_ring_fed(struct pl_ring_producer *ring);

/* Announces sleep and looks again: true: nothing came, sleep; false: there is something (and the
 * announcement is taken back). pl_ring_awake takes it back after a sleep. Call pl_ring_give_back before. */
bool pl_ring_sleep(struct pl_ring_consumer *ring);
void pl_ring_awake(struct pl_ring_consumer *ring);

/* What is committed behind the first SIZE bytes (of what peek gave), to look ahead; nothing is consumed.
 * False: nothing, or a lie, of which the next peek tells. */
bool pl_ring_ahead(const struct pl_ring_consumer *ring, size_t size, const uint8_t **ret_data, size_t *ret_size);

/* The rare halves of the inline functions below. */
int pl_ring_make_room(struct pl_ring_producer *ring, size_t size);
int pl_ring_look(struct pl_ring_consumer *ring, uint64_t tail);
int pl_ring_overconsumed(const struct pl_ring_consumer *ring, size_t size);

static inline uint64_t pl_ring_round(uint64_t size)
{
    return (size + (PL_RING_ALIGN - 1)) & ~(uint64_t)(PL_RING_ALIGN - 1);
}

/* SIZE contiguous bytes (rounded up to PL_RING_ALIGN) to fill in place: 0 and *ret_data; PL_RING_FULL;
 * -EPROTO; -ENOMEM (no pages: rare, another try is fine); -EMSGSIZE beyond the capacity. Records should
 * stay below half of it, so that one can be written while another is read. No user code between this
 * and commit; a reservation without commit is forgotten by the next one. */
static inline int pl_ring_reserve(struct pl_ring_producer *ring, size_t size, void **ret_data)
{
    if (__builtin_expect(size > ring->capacity || pl_ring_round(size) > ring->limit - ring->tail, 0)) {
        int r = pl_ring_make_room(ring, size);
        if (r != 0) return r;
    }
    *ret_data = ring->data + (ring->tail & (ring->capacity - 1));
    return 0;
}

/* Adds the reserved SIZE to the private tail; the consumer sees it after publish. */
static inline void pl_ring_commit(struct pl_ring_producer *ring, size_t size)
{
    ring->tail += pl_ring_round(size);
}

/* Publishes every commit so far; true if the consumer announced its sleep: ring its doorbell. */
static inline bool pl_ring_publish(struct pl_ring_producer *ring)
{
    if (ring->tail == ring->published) return false;
    ring->published = ring->tail;
    /* RR1: the records, pairs with AR1 in pl_ring_peek. */
    atomic_store_explicit(&ring->shared->tail, ring->tail, memory_order_release);
    /* FR1: pairs with FR2 in pl_ring_sleep. */
    atomic_thread_fence(memory_order_seq_cst);
    /* Relaxed: after the fence. */
    if (atomic_load_explicit(&ring->shared->sleeping, memory_order_relaxed) == 0) return false;
    /* Relaxed: the ring of the doorbell that follows comes after it, and so does all that it wakes. */
    atomic_store_explicit(&ring->shared->sleeping, 0, memory_order_relaxed);
    return true;
}

/* The committed bytes, contiguous: 0 with *ret_data and *ret_size; PL_RING_EMPTY; -EPROTO; -ENOMEM. */
static inline int pl_ring_peek(struct pl_ring_consumer *ring, const uint8_t **ret_data, size_t *ret_size)
{
    if (ring->tail == ring->head) {
        /* AR1: pairs with RR1 in pl_ring_publish. */
        uint64_t tail = atomic_load_explicit(&ring->shared->tail, memory_order_acquire);
        if (tail == ring->head) return PL_RING_EMPTY;
        int r = pl_ring_look(ring, tail);
        if (__builtin_expect(r != 0, 0)) return r;
    }
    *ret_data = ring->data + (ring->head & (ring->capacity - 1));
    *ret_size = (size_t)(ring->tail - ring->head);
    return 0;
}

/* Consumes SIZE bytes (rounded up to PL_RING_ALIGN; -EPROTO beyond what peek gave: a record's length
 * was a lie). The producer may overwrite them from now on: the position is published when all that
 * peek gave is consumed or a quarter of the ring is, so that a producer that polls sees room; that is a
 * plain store. A producer that sleeps for room is found by pl_ring_give_back alone. */
static inline int pl_ring_consume(struct pl_ring_consumer *ring, size_t size)
{
    uint64_t step = pl_ring_round(size), known = ring->tail - ring->head;
    if (__builtin_expect(size > known || step > known, 0)) return pl_ring_overconsumed(ring, size);
    ring->head += step;
    if (step == known || ring->head - ring->published >= ring->capacity / 4) {
        ring->published = ring->head;
        /* RR2: our reads are done, pairs with AR2 in pl_ring_make_room. */
        atomic_store_explicit(&ring->shared->head, ring->head, memory_order_release);
    }
    return 0;
}

/* Whether a producer starves, as far as it shows without a fence: for a loop that serves many rings and
 * rarely sleeps. Where it is true, give back; where it is false too early, the next look shows it. */
static inline bool pl_ring_hungry(const struct pl_ring_consumer *ring)
{
    /* Relaxed: a hint; pl_ring_give_back decides. */
    return atomic_load_explicit(&ring->shared->starved, memory_order_relaxed) != 0;
}

/* Publishes the head if it moved and looks for a starving producer: true: ring its doorbell. It costs a
 * full fence (7 ns) where the head moved since the last time and nothing otherwise: call it when peek
 * found the ring empty (while you spin it is free, and off the path of a reply that was already sent), at
 * least once a quarter of a ring where runs are long, always before pl_ring_sleep; never once a record. */
static inline bool pl_ring_give_back(struct pl_ring_consumer *ring)
{
    if (ring->head == ring->offered) return false;
    ring->offered = ring->published = ring->head;
    /* RR3: our reads are done, pairs with AR2 in pl_ring_make_room. */
    atomic_store_explicit(&ring->shared->head, ring->head, memory_order_release);
    /* FR3: pairs with FR4 in pl_ring_starve. */
    atomic_thread_fence(memory_order_seq_cst);
    /* Relaxed: after the fence. */
    if (atomic_load_explicit(&ring->shared->starved, memory_order_relaxed) == 0) return false;
    /* Relaxed: as in pl_ring_publish. */
    atomic_store_explicit(&ring->shared->starved, 0, memory_order_relaxed);
    return true;
}

#endif
