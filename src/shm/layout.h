/* layout: what lies where in the memory that two processes share. Data, no code with side effects.
 *
 * A channel is one memfd: a control page, then two rings of `capacity` bytes: requests (client to
 * server) and replies. Fixed width fields, no pointers. Nothing read from here is believed: own
 * positions live in private memory, the peer's are copied once and checked.
 *
 * A topic is two memfds of its publisher's and one for each subscriber: the broadcast ring (a control page and
 * `capacity` bytes, which subscribers can only read), the waiters' page (theirs together) and each
 * subscriber's own page.
 */
#ifndef PL_SHM_LAYOUT_H
#define PL_SHM_LAYOUT_H

#include <assert.h>
#include <stdatomic.h>
#include <stdint.h>

enum { PL_CHANNEL_MAGIC = 0x6c616970, PL_CHANNEL_VERSION = 1 };
/* The control page is PL_CHANNEL_PAGE bytes, or one page where pages are larger. */
enum { PL_CHANNEL_PAGE = 4096, PL_RING_CAPACITY = 65536, PL_RING_LIGHT = 4096, PL_RING_ALIGN = 32 };
enum { PL_RING_CAPACITY_MAX = 1 << 26 };
enum { PL_SEGMENTS_MAX = 64 }; /* per connection and direction */
enum { PL_SIDE_CLIENT = 0, PL_SIDE_SERVER = 1 };
enum { PL_RING_REQUESTS = 0, PL_RING_REPLIES = 1 };

struct pl_ring_shared {
    _Alignas(64) _Atomic uint64_t tail;     /* producer: bytes committed, free running */
    _Atomic uint64_t skip;                  /* producer: from here on to the lap's end lies nothing */
    _Alignas(64) _Atomic uint64_t head;     /* consumer: bytes given back, free running */
    _Alignas(64) _Atomic uint32_t sleeping; /* consumer: ring my doorbell after a commit */
    _Alignas(64) _Atomic uint32_t starved;  /* producer: ring my doorbell after giving back */
};

struct pl_channel_control {
    _Alignas(64) uint32_t magic;
    uint32_t version, capacity, reserved;
    struct pl_ring_shared ring[2];
    struct {
        _Alignas(64) _Atomic uint32_t cpu;   /* the CPU this side last ran on, + 1; 0 unknown */
        _Alignas(64) _Atomic uint64_t taken; /* server: requests that ran or run; the rest never will if it dies */
    } side[2];
    /* [direction of travel][segment id]: the generation that the receiver has given back */
    _Alignas(64) _Atomic uint32_t returned[2][PL_SEGMENTS_MAX];
    /* [direction of travel] the sender waits for a segment: ring its doorbell after giving one back */
    _Alignas(64) _Atomic uint32_t wanted[2];
};

enum { PL_BROADCAST_MAGIC = 0x74616970, PL_BROADCAST_VERSION = 1 };
enum { PL_BROADCAST_CAPACITY = 1 << 18, PL_BROADCAST_CAPACITY_MAX = 1 << 26, PL_BROADCAST_ALIGN = 32 };
enum { PL_BROADCAST_BODY_MAX = 8192 }; /* of a message in the ring; larger ones lie in segments */
enum { PL_BROADCAST_MARKS = 16 };
enum { PL_TOPIC_HAZARDS = 8 };

/* The head of a message; its body follows, and the next head at a multiple of PL_BROADCAST_ALIGN. */
struct pl_broadcast_head {
    uint32_t size; /* of the body */
    uint8_t kind, encoding, flags, reserved;
    uint64_t number; /* from 1 on, of this publisher's */
    uint64_t ticks;  /* raw counter when it was published */
    uint64_t trace;  /* 0 none */
};

/* What the publisher alone writes. */
struct pl_broadcast_shared {
    _Alignas(64) uint32_t magic;
    uint32_t version, capacity, reliable;
    _Alignas(64) _Atomic uint64_t intent; /* where the message that is being written will end: all before
                                             intent - capacity is gone */
    _Atomic uint64_t tail;                /* bytes published, free running */
    _Atomic uint32_t cpu;                 /* the publisher's, + 1; 0 unknown */
    _Atomic uint32_t closed;              /* 1: it ended in order */
    _Alignas(
        64) _Atomic uint64_t mark[PL_BROADCAST_MARKS]; /* of each part of the ring, where its first message begins */
    _Alignas(64) _Atomic uint32_t generation[PL_SEGMENTS_MAX]; /* that each segment holds now */
};

/* Writable by the publisher and all its subscribers: hints, of which a lie costs wake-ups alone. */
struct pl_waiters_page {
    _Alignas(64) _Atomic uint32_t sleepers; /* announced since the last wake-up */
};

/* Writable by one subscriber and the publisher. */
struct pl_subscriber_page {
    _Alignas(64) uint64_t start;           /* publisher, before it hands the page over: where to begin */
    uint64_t number;                       /* and what number is due there; 0 unknown */
    _Alignas(64) _Atomic uint64_t cursor;  /* subscriber: all before it has been read */
    _Alignas(64) _Atomic uint32_t waiting; /* publisher: 1 while it sleeps (futex) until cursor is at `need` */
    _Atomic uint64_t need;
    _Atomic uint32_t leaving; /* subscriber: 1: it only holds messages and reads no more */
    _Atomic uint64_t dropped; /* publisher: how often it went on without this subscriber << 32 | after how many ms */
    _Alignas(64) _Atomic uint64_t hazard[PL_TOPIC_HAZARDS]; /* subscriber: generation << 32 | segment id + 1 */
};

static_assert(sizeof(struct pl_broadcast_head) == 32, "a message's head");
static_assert(sizeof(struct pl_broadcast_shared) <= 4096 && sizeof(struct pl_subscriber_page) <= 4096, "a page each");
static_assert(sizeof(struct pl_ring_shared) == 256, "each word on a cache line of its own");
static_assert(sizeof(struct pl_channel_control) <= PL_CHANNEL_PAGE, "control fits its page");
static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "atomics work between processes");

#endif
