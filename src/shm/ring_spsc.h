/* ring_spsc: one producer, one consumer, in any two processes.
 *
 * Positions run free and are masked on use; only unsigned differences are compared. The producer
 * owns `tail`, the consumer owns `head`; each side keeps its own position in private memory and only
 * publishes it. The peer's position is copied once and checked against our own capacity: a lie is
 * -EPROTO. Records are PL_RING_ALIGN-aligned runs of bytes; what is in them is the caller's affair.
 *
 * Waking: the consumer announces (sleeping = 1), seq_cst fence, looks again, sleeps; the producer
 * commits, seq_cst fence, rings only if announced. Likewise `starved` for a producer without room.
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
    uint32_t capacity;
};

struct pl_ring_consumer {
    struct pl_ring_shared *shared;
    uint8_t *data;
    uint64_t head;      /* ours */
    uint64_t published;
    uint64_t tail;      /* the producer's, as last seen and checked */
    uint32_t capacity;
};

void pl_ring_producer_init(struct pl_ring_producer *ring, struct pl_ring_shared *shared, uint8_t *data, uint32_t capacity);
void pl_ring_consumer_init(struct pl_ring_consumer *ring, struct pl_ring_shared *shared, uint8_t *data, uint32_t capacity);

/* SIZE contiguous bytes (rounded up to PL_RING_ALIGN; at most half the capacity) to fill in place:
 * 0 and *ret_data; PL_RING_FULL; -EPROTO. No user code between this and commit. */
int pl_ring_reserve(struct pl_ring_producer *ring, size_t size, void **ret_data);

/* Adds the reserved SIZE to the private tail; the consumer sees it after publish. */
void pl_ring_commit(struct pl_ring_producer *ring, size_t size);

/* R1: publishes every commit so far; fence; true if the consumer announced its sleep: ring. */
bool pl_ring_publish(struct pl_ring_producer *ring);

/* How many bytes a padding record must take so that light traffic stays in the first PL_RING_LIGHT
 * bytes: nonzero when the ring is empty and its tail lies beyond them. The caller writes its own pad
 * record of that length (it is a multiple of PL_RING_ALIGN) and commits it. */
size_t pl_ring_lap_pad(struct pl_ring_producer *ring);

/* The announcement before a producer sleeps for room: true: still no room for SIZE, sleep. */
bool pl_ring_starve(struct pl_ring_producer *ring, size_t size);
void pl_ring_fed(struct pl_ring_producer *ring);

/* The committed bytes, contiguous: 0 with *ret_data and *ret_size; PL_RING_EMPTY; -EPROTO. A1: pairs with R1. */
int pl_ring_peek(struct pl_ring_consumer *ring, const uint8_t **ret_data, size_t *ret_size);

/* Consumes SIZE bytes (rounded up to PL_RING_ALIGN; -EPROTO beyond what peek gave). The position is
 * published when the ring is drained, a quarter is consumed, or by pl_ring_give_back. */
int pl_ring_consume(struct pl_ring_consumer *ring, size_t size);

/* R2: publishes the head if it moved; true if the producer announced that it starves: ring. */
bool pl_ring_give_back(struct pl_ring_consumer *ring);

/* Announces sleep and looks again: true: nothing came, sleep; false: there is something (and the
 * announcement is taken back). pl_ring_awake takes it back after a sleep. */
bool pl_ring_sleep(struct pl_ring_consumer *ring);
void pl_ring_awake(struct pl_ring_consumer *ring);

#endif
