/* bench_raw_memory: the bare primitives of shared memory that `plait bench` compares with.
 *
 * One anonymous shared mapping, made before the fork. A request is 64 bytes at most: a number
 * that says "there is one" and a body on the next cache line (none for the bare cache-line
 * ping-pong, which is its number). No error handling, no second client, no liveness: what a
 * library adds is to be compared with as little as can be written.
 */
#include "bench.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    BODY_MAX = 4096,
    RING_SLOTS = 4096, /* of 64 bytes */
};

struct lane {
    _Alignas(64) _Atomic uint64_t number; /* counts messages; the futex word is its low half */
    _Alignas(64) unsigned char body[BODY_MAX];
};

struct slot {
    uint64_t sequence;
    unsigned char body[56];
};

struct ring {
    _Alignas(64) _Atomic uint64_t tail; /* messages written: the producer's */
    _Alignas(64) _Atomic uint64_t head; /* messages taken: the consumer's */
    _Alignas(64) struct slot slots[RING_SLOTS];
};

struct shared {
    struct lane request, reply;
    struct ring rings[2];
    int events[2]; /* request, reply: descriptor numbers, inherited by fork */
};

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int prepare(struct bench_link *link)
{
    struct shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (shared == MAP_FAILED) return bench_fail(link, -errno, "mmap: %s", strerror(errno));
    for (int i = 0; i < 2; i++) {
        shared->events[i] = eventfd(0, EFD_CLOEXEC);
        if (shared->events[i] < 0) return bench_fail(link, -errno, "eventfd: %s", strerror(errno));
    }
    link->state = shared;
    return 0;
}

static int open_nothing(struct bench_link *link)
{
    (void)link;
    return 0;
}

/* ---- two cache lines ---------------------------------------------------------------------- */

static uint64_t spin_until_more_than(_Atomic uint64_t *number, uint64_t seen)
{
    uint64_t now;

    /* BA1: pairs with BR1: the body is there when its number is */
    while ((now = atomic_load_explicit(number, memory_order_acquire)) == seen) relax();
    return now;
}

static void publish(_Atomic uint64_t *number, uint64_t value)
{
    /* BR1: pairs with BA1 and BA2 */
    atomic_store_explicit(number, value, memory_order_release);
}

static int lines_serve(struct bench_link *link)
{
    struct shared *shared = link->state;
    uint64_t seen = 0;
    int r = bench_ready(link);

    while (r == 0) {
        seen = spin_until_more_than(&shared->request.number, seen);
        publish(&shared->reply.number, seen);
    }
    return r;
}

static int lines_call(struct bench_link *link, const void *body, size_t size, const void **ret_reply)
{
    struct shared *shared = link->state;
    /* relaxed: only this process writes it */
    uint64_t number = atomic_load_explicit(&shared->request.number, memory_order_relaxed) + 1;

    (void)size;
    publish(&shared->request.number, number);
    if (spin_until_more_than(&shared->reply.number, number - 1) != number)
        return bench_fail(link, -EBADMSG, "the cache lines lost count");
    *ret_reply = body; /* the number was the message */
    return 0;
}

const struct bench_ops bench_raw_lines = {
    .prepare = prepare,
    .serve = lines_serve,
    .open = open_nothing,
    .call = lines_call,
};

/* ---- memory that is there when a cache line says so ---------------------------------------- */

static int handed_serve(struct bench_link *link)
{
    struct shared *shared = link->state;
    uint64_t seen = 0;
    int r = bench_ready(link);

    while (r == 0) {
        uint64_t started, now;
        seen = spin_until_more_than(&shared->request.number, seen);
        now = bench_now();
        memcpy(&started, shared->request.body, sizeof(started));
        now -= started;
        memcpy(shared->reply.body, &now, sizeof(now));
        publish(&shared->reply.number, seen);
    }
    return r;
}

/* Nothing is copied, so what its size is makes no difference. */
static int handed_over(struct bench_link *link, size_t size, uint64_t sequence, struct bench_hand_over *ret_times)
{
    struct shared *shared = link->state;
    uint64_t start = bench_now();

    (void)size;
    memcpy(shared->request.body, &start, sizeof(start));
    publish(&shared->request.number, sequence);
    (void)spin_until_more_than(&shared->reply.number, sequence - 1);
    ret_times->call = bench_now() - start;
    memcpy(&ret_times->entry, shared->reply.body, sizeof(ret_times->entry));
    return 0;
}

const struct bench_ops bench_raw_handed = {
    .prepare = prepare,
    .serve = handed_serve,
    .open = open_nothing,
    .hand_over = handed_over,
};

/* ---- futex --------------------------------------------------------------------------------- */

static uint32_t *futex_word(struct lane *lane)
{
    return (uint32_t *)&lane->number; /* the low half on what we run on: little-endian */
}

static uint64_t futex_take(struct lane *lane, uint64_t seen)
{
    uint64_t now;

    /* BA2: pairs with BR1 */
    while ((now = atomic_load_explicit(&lane->number, memory_order_acquire)) == seen)
        syscall(SYS_futex, futex_word(lane), FUTEX_WAIT, (uint32_t)seen, NULL, NULL, 0);
    return now;
}

static void futex_put(struct lane *lane, const void *body, size_t size, uint64_t number)
{
    memcpy(lane->body, body, size);
    publish(&lane->number, number);
    syscall(SYS_futex, futex_word(lane), FUTEX_WAKE, 1, NULL, NULL, 0);
}

static int futex_serve(struct bench_link *link)
{
    struct shared *shared = link->state;
    uint64_t seen = 0;
    int r = bench_ready(link);

    while (r == 0) {
        seen = futex_take(&shared->request, seen);
        futex_put(&shared->reply, shared->request.body, link->load->size, seen);
    }
    return r;
}

static int too_large(struct bench_link *link, size_t size)
{
    return bench_fail(link, -EMSGSIZE, "%zu bytes do not fit: the bare primitive carries %d", size, BODY_MAX);
}

static int futex_call(struct bench_link *link, const void *body, size_t size, const void **ret_reply)
{
    struct shared *shared = link->state;
    /* relaxed: only this process writes it */
    uint64_t number = atomic_load_explicit(&shared->request.number, memory_order_relaxed) + 1;

    if (size > BODY_MAX) return too_large(link, size);
    futex_put(&shared->request, body, size, number);
    futex_take(&shared->reply, number - 1);
    *ret_reply = shared->reply.body;
    return 0;
}

const struct bench_ops bench_raw_futex = {
    .prepare = prepare,
    .serve = futex_serve,
    .open = open_nothing,
    .call = futex_call,
};

/* ---- eventfd: the kernel orders the bodies ----------------------------------------------------- */

static int event_put(int fd)
{
    uint64_t one = 1;

    return write(fd, &one, sizeof(one)) == (ssize_t)sizeof(one) ? 0 : -errno;
}

static int event_take(int fd, int with_poll)
{
    uint64_t count;

    if (with_poll && poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, -1) < 0) return -errno;
    return read(fd, &count, sizeof(count)) == (ssize_t)sizeof(count) ? 0 : -errno;
}

static int eventfd_serve_with(struct bench_link *link, int with_poll)
{
    struct shared *shared = link->state;
    int r = bench_ready(link);

    while (r == 0) {
        r = event_take(shared->events[0], with_poll);
        if (r < 0) return r;
        memcpy(shared->reply.body, shared->request.body, link->load->size);
        r = event_put(shared->events[1]);
    }
    return r;
}

static int eventfd_call_with(struct bench_link *link, const void *body, size_t size, const void **ret_reply,
                             int with_poll)
{
    struct shared *shared = link->state;
    int r;

    if (size > BODY_MAX) return too_large(link, size);
    memcpy(shared->request.body, body, size);
    r = event_put(shared->events[0]);
    if (r == 0) r = event_take(shared->events[1], with_poll);
    if (r < 0) return bench_fail(link, r, "eventfd: %s", strerror(-r));
    *ret_reply = shared->reply.body;
    return 0;
}

static int eventfd_serve(struct bench_link *link)
{
    return eventfd_serve_with(link, 0);
}

static int eventfd_call(struct bench_link *link, const void *body, size_t size, const void **ret_reply)
{
    return eventfd_call_with(link, body, size, ret_reply, 0);
}

static int eventfd_poll_serve(struct bench_link *link)
{
    return eventfd_serve_with(link, 1);
}

static int eventfd_poll_call(struct bench_link *link, const void *body, size_t size, const void **ret_reply)
{
    return eventfd_call_with(link, body, size, ret_reply, 1);
}

const struct bench_ops bench_raw_eventfd = {
    .prepare = prepare,
    .serve = eventfd_serve,
    .open = open_nothing,
    .call = eventfd_call,
};

const struct bench_ops bench_raw_eventfd_poll = {
    .prepare = prepare,
    .serve = eventfd_poll_serve,
    .open = open_nothing,
    .call = eventfd_poll_call,
};

/* ---- rings: index published with each message ---------------------------------------------------- */

/* A producer's or consumer's own side; the other's index is read again only when it must be. */
struct side {
    struct ring *ring;
    uint64_t own, other;
};

static int ring_put(struct side *side, uint64_t sequence)
{
    struct slot *slot = &side->ring->slots[side->own % RING_SLOTS];

    if (side->own - side->other == RING_SLOTS) {
        /* BA3: pairs with BR3: the slot was read before it is overwritten */
        side->other = atomic_load_explicit(&side->ring->head, memory_order_acquire);
        if (side->own - side->other == RING_SLOTS) return 0;
    }
    slot->sequence = sequence;
    memset(slot->body, (int)(sequence & 0xff), sizeof(slot->body));
    /* BR2: pairs with BA4 */
    atomic_store_explicit(&side->ring->tail, ++side->own, memory_order_release);
    return 1;
}

static int ring_take(struct side *side, uint64_t *ret_sequence, uint64_t *wrong)
{
    const struct slot *slot = &side->ring->slots[side->own % RING_SLOTS];

    if (side->own == side->other) {
        /* BA4: pairs with BR2: the slot was written before it is read */
        side->other = atomic_load_explicit(&side->ring->tail, memory_order_acquire);
        if (side->own == side->other) return 0;
    }
    *wrong += slot->body[0] != (unsigned char)slot->sequence || slot->body[55] != (unsigned char)slot->sequence;
    *ret_sequence = slot->sequence;
    /* BR3: pairs with BA3 */
    atomic_store_explicit(&side->ring->head, ++side->own, memory_order_release);
    return 1;
}

static int ring_serve(struct bench_link *link)
{
    struct shared *shared = link->state;
    struct side in = { .ring = &shared->rings[0] }, out = { .ring = &shared->rings[1] };
    int echo = link->load->drive == bench_drive_pairs;
    uint64_t sequence, expected = 0;
    int r = bench_ready(link);

    while (r == 0) {
        if (!ring_take(&in, &sequence, &link->shared->wrong)) {
            relax();
            continue;
        }
        link->shared->wrong += sequence != expected++;
        while (echo && !ring_put(&out, sequence)) relax();
    }
    return r;
}

struct ring_client {
    struct side out, in;
    uint64_t next, answered;
};

static int ring_open(struct bench_link *link)
{
    struct shared *shared = link->state;
    struct ring_client *client = calloc(1, sizeof(*client));

    if (!client) return bench_fail(link, -ENOMEM, "out of memory");
    client->out.ring = &shared->rings[0];
    client->in.ring = &shared->rings[1];
    link->state = client;
    return 0;
}

static int ring_stream(struct bench_link *link, size_t size, uint64_t count)
{
    struct ring_client *client = link->state;

    (void)size; /* 64, always */
    for (uint64_t end = client->next + count; client->next < end; client->next++)
        while (!ring_put(&client->out, client->next)) relax();
    /* BA5: pairs with BR3: the consumer has seen all */
    while (atomic_load_explicit(&client->out.ring->head, memory_order_acquire) != client->next) relax();
    return 0;
}

static int ring_pairs(struct bench_link *link, size_t size, uint64_t count)
{
    struct ring_client *client = link->state;
    uint64_t end = client->next + count, sequence, wrong = 0;

    (void)size;
    while (client->answered < end) {
        if (client->next < end && ring_put(&client->out, client->next)) client->next++;
        while (ring_take(&client->in, &sequence, &wrong)) wrong += sequence != client->answered++;
    }
    return wrong ? bench_fail(link, -EBADMSG, "%llu wrong replies", (unsigned long long)wrong) : 0;
}

const struct bench_ops bench_raw_ring = {
    .prepare = prepare,
    .serve = ring_serve,
    .open = ring_open,
    .stream = ring_stream,
    .pairs = ring_pairs,
};
