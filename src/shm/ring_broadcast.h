/* ring_broadcast: one writer, any number of readers, in any processes; nobody waits in here.
 *
 * Positions run free, as in ring_spsc. The writer stores `intent`, the end of what it is about to overwrite,
 * then writes, then stores `tail`. A reader copies a message out and then looks at `intent`: if that has not
 * come within a capacity of the message, the copy is whole. Nothing is handed out before that look, and
 * nobody is lent a view into the ring. A reader that was overrun goes on at a mark: of each of the ring's
 * parts the writer says where its first message begins, so that what is lost is the oldest.
 *
 * Messages are numbered, so a reader knows exactly how many it missed. The memory is the writer's alone
 * (F_SEAL_FUTURE_WRITE once it has mapped it): readers cannot write, and a writer that lies can make a reader
 * see other bytes than it should, or none, or say -EPROTO, and nothing worse.
 */
#ifndef PL_SHM_RING_BROADCAST_H
#define PL_SHM_RING_BROADCAST_H

#include "shm/layout.h"
#include <stdbool.h>
#include <stddef.h>

struct pl_broadcast_writer {
    struct pl_broadcast_shared *shared;
    uint8_t *data;
    uint64_t tail;
    uint64_t number;   /* of the last message */
    uint64_t mark_due; /* a message that begins from here on gets the next mark */
    uint32_t capacity, slice;
};

struct pl_broadcast_reader {
    const struct pl_broadcast_shared *shared;
    const uint8_t *data;
    uint64_t position; /* the next message's */
    uint64_t tail;     /* the writer's, as last seen and checked */
    uint64_t number;   /* expected next; 0: whatever comes first */
    uint32_t capacity;
    uint16_t overruns; /* in a row */
    bool skipped;      /* position was moved: the next number may be larger */
};

/* ---- memory ---- */

/* Creates, maps (DATA twice in a row), populates and seals; *ret_fd (sealed, the caller's) is for readers. CAPACITY:
 * a power of two, multiple of the page size, at most PL_BROADCAST_CAPACITY_MAX. -EINVAL, -ENOMEM, -EMFILE, ... */
int pl_broadcast_create(struct pl_broadcast_writer *ret_writer, uint32_t capacity, bool reliable, int *ret_fd);
void pl_broadcast_destroy(struct pl_broadcast_writer *writer); /* unmaps; idempotent */

/* Maps the writer's FD (borrowed) for reading. -EPROTO: not tmpfs, seals missing, another size, magic, version or
 * capacity than it should be; -ENOMEM. The reader begins at position 0. */
int pl_broadcast_attach(struct pl_broadcast_reader *ret_reader, int fd);
void pl_broadcast_detach(struct pl_broadcast_reader *reader); /* idempotent */

/* One page of its own, shared by FD: made by the publisher, mapped by subscribers. */
int pl_topic_page_create(void **ret_page, int *ret_fd);
int pl_topic_page_attach(void **ret_page, int fd); /* borrows FD; -EPROTO, -ENOMEM */
void pl_topic_page_detach(void *page);             /* NULL is fine */

/* For plain memory between threads: DATA is 2 * CAPACITY bytes, of which the second half need not mirror the first. */
void pl_broadcast_writer_init(struct pl_broadcast_writer *writer, struct pl_broadcast_shared *shared, uint8_t *data,
                              uint32_t capacity);
void pl_broadcast_reader_init(struct pl_broadcast_reader *reader, const struct pl_broadcast_shared *shared,
                              const uint8_t *data, uint32_t capacity);

/* ---- writing ---- */

static inline uint64_t pl_broadcast_span(size_t size)
{
    return (sizeof(struct pl_broadcast_head) + size + (PL_BROADCAST_ALIGN - 1)) & ~(uint64_t)(PL_BROADCAST_ALIGN - 1);
}

/* Publishes HEAD (whose number is set here) and its body, head->size bytes of at most PL_BROADCAST_BODY_MAX. Then
 * look for sleepers (pl_broadcast_sleepers). */
void pl_broadcast_write(struct pl_broadcast_writer *writer, struct pl_broadcast_head *head, const void *body);

/* ---- reading ---- */

enum { PL_BROADCAST_OK = 0, PL_BROADCAST_EMPTY = 1 };

/* Copies the next message to *HEAD and BODY, which has room for PL_BROADCAST_BODY_MAX bytes, and adds to *lost how
 * many were overwritten before it could be read. 0; EMPTY: none now (after many an overrun there may be some: look
 * again); -EPROTO: the writer lies. */
int pl_broadcast_read(struct pl_broadcast_reader *reader, struct pl_broadcast_head *head, void *body, uint64_t *lost);

/* Places the reader before the last HISTORY of the messages that are there now, or as many as there are; none of
 * those before counts as lost. */
int pl_broadcast_seek(struct pl_broadcast_reader *reader, uint64_t history);

/* Places the reader where the writer says. 0, or -EPROTO: that can't be. */
int pl_broadcast_begin(struct pl_broadcast_reader *reader, uint64_t position, uint64_t number);

/* True: something is published that was not read. */
static inline bool pl_broadcast_ready(const struct pl_broadcast_reader *reader)
{
    /* Relaxed: reading looks again. */
    return reader->tail != reader->position ||
           atomic_load_explicit(&reader->shared->tail, memory_order_relaxed) != reader->position;
}

/* ---- sleeping: announce, fence, look again, sleep; publish, fence, look for announcements, wake ---- */

/* Announces a reader's sleep: true: sleep; false: something is there. An announcement that nobody answers (its
 * maker died or woke otherwise) costs one needless wake-up. */
static inline bool pl_broadcast_sleep(const struct pl_broadcast_reader *reader, struct pl_waiters_page *waiters)
{
    /* Relaxed: the fence orders it. */
    atomic_fetch_add_explicit(&waiters->sleepers, 1, memory_order_relaxed);
    /* FB2: pairs with FB1 in pl_broadcast_sleepers. */
    atomic_thread_fence(memory_order_seq_cst);
    return !pl_broadcast_ready(reader);
}

/* After a write: how many announced their sleep since the last time; whoever gets more than 0 must wake them all. */
static inline uint32_t pl_broadcast_sleepers(struct pl_waiters_page *waiters)
{
    /* FB1: the tail, pairs with FB2 in pl_broadcast_sleep. */
    atomic_thread_fence(memory_order_seq_cst);
    /* Relaxed: after the fence; the wake-up that follows comes after it. */
    if (__builtin_expect(atomic_load_explicit(&waiters->sleepers, memory_order_relaxed) == 0, 1)) return 0;
    return atomic_exchange_explicit(&waiters->sleepers, 0, memory_order_relaxed);
}

/* A reader tells how far it has read. True: the writer sleeps until then: wake it (futex on page->waiting). */
static inline bool pl_broadcast_tell_cursor(struct pl_subscriber_page *page, uint64_t cursor)
{
    /* RB2: our reads are done, pairs with AB2 in pl_broadcast_cursor. */
    atomic_store_explicit(&page->cursor, cursor, memory_order_release);
    /* FB3: pairs with FB4 in pl_broadcast_starve. */
    atomic_thread_fence(memory_order_seq_cst);
    /* Relaxed: after the fence. */
    if (__builtin_expect(atomic_load_explicit(&page->waiting, memory_order_relaxed) == 0, 1)) return false;
    if ((int64_t)(cursor - atomic_load_explicit(&page->need, memory_order_relaxed)) < 0) return false;
    return atomic_exchange_explicit(&page->waiting, 0, memory_order_relaxed) != 0;
}

/* The writer's look at it. A cursor that can't be (it is checked by the caller against the tail) is nobody's harm
 * but the subscriber's. */
static inline uint64_t pl_broadcast_cursor(const struct pl_subscriber_page *page)
{
    /* AB2: pairs with RB2 in pl_broadcast_tell_cursor. */
    return atomic_load_explicit(&page->cursor, memory_order_acquire);
}

/* The writer announces that it sleeps until the reader is at NEED: true: sleep while page->waiting is 1. */
static inline bool pl_broadcast_starve(struct pl_subscriber_page *page, uint64_t need)
{
    /* Relaxed, as is the load: the fence is between them. */
    atomic_store_explicit(&page->need, need, memory_order_relaxed);
    atomic_store_explicit(&page->waiting, 1, memory_order_relaxed);
    /* FB4: pairs with FB3 in pl_broadcast_tell_cursor: it sees the announcement or we its cursor. */
    atomic_thread_fence(memory_order_seq_cst);
    return (int64_t)(atomic_load_explicit(&page->cursor, memory_order_relaxed) - need) < 0;
}

#endif
