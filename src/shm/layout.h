/* layout: what lies where in the memory that two processes share. Data, no code with side effects.
 *
 * A channel is one memfd: a control page, then two rings of `capacity` bytes: requests (client to
 * server) and replies. Fixed width fields, no pointers. Nothing read from here is believed: own
 * positions live in private memory, the peer's are copied once and checked.
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

static_assert(sizeof(struct pl_ring_shared) == 256, "each word on a cache line of its own");
static_assert(sizeof(struct pl_channel_control) <= PL_CHANNEL_PAGE, "control fits its page");
static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "atomics work between processes");

#endif
