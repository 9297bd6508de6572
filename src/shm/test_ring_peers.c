/* The ring between two: threads, processes, and what a dead peer leaves. */
#include "shm/test_ring_rig.h"

#include "shm/doorbell.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Two at work: each sleeps on its doorbell whenever it can. */

struct pair {
    struct rig rig;
    int consumer_bell, producer_bell;
    uint64_t records;
};

enum { NO_WAKE_MS = 20000 }; /* a lost wake-up shows as this */

static int watch(int bell)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = { .events = EPOLLIN | EPOLLET };
    CHECK(epoll >= 0);
    CHECK_INT(epoll_ctl(epoll, EPOLL_CTL_ADD, bell, &event), 0);
    return epoll;
}

static void wait_bell(int epoll)
{
    struct epoll_event event;
    CHECK_INT(epoll_wait(epoll, &event, 1, NO_WAKE_MS), 1);
}

static void *produce(void *context)
{
    struct pair *pair = context;
    struct pl_ring_producer *ring = &pair->rig.producer;
    unsigned seed = 4;
    int epoll = watch(pair->producer_bell);
    for (uint64_t i = 0; i < pair->records;) {
        size_t size = 16 + (size_t)rand_r(&seed) % (rand_r(&seed) % 16 == 0 ? 6000 : 150);
        int r = put(ring, i, size);
        if (r == PL_RING_FULL) {
            if (pl_ring_publish(ring)) pl_doorbell_ring(pair->consumer_bell);
            if (!pl_ring_starve(ring, size)) continue;
            wait_bell(epoll);
            pl_ring_fed(ring);
            continue;
        }
        CHECK_INT(r, 0);
        i++;
        if (rand_r(&seed) % 3 == 0 && pl_ring_publish(ring)) pl_doorbell_ring(pair->consumer_bell);
        if (rand_r(&seed) % 64 == 0) sched_yield();
    }
    if (pl_ring_publish(ring)) pl_doorbell_ring(pair->consumer_bell);
    close(epoll);
    return NULL;
}

static void *consume(void *context)
{
    struct pair *pair = context;
    struct pl_ring_consumer *ring = &pair->rig.consumer;
    int epoll = watch(pair->consumer_bell);
    for (uint64_t i = 0; i < pair->records;) {
        const uint8_t *data = NULL;
        size_t room = 0;
        int r = pl_ring_peek(ring, &data, &room);
        if (r == PL_RING_EMPTY) {
            if (pl_ring_give_back(ring)) pl_doorbell_ring(pair->producer_bell);
            if (!pl_ring_sleep(ring)) continue;
            wait_bell(epoll);
            pl_ring_awake(ring);
            continue;
        }
        CHECK_INT(r, 0);
        /* One record a peek: a run that is read on over the lap's end needs a mirror. */
        CHECK_INT(pl_ring_consume(ring, check_record(data, room, i++)), 0);
    }
    close(epoll);
    return NULL;
}

static void pair_open(struct pair *pair, uint64_t records)
{
    pair->records = records;
    CHECK_INT(pl_doorbell_create(&pair->consumer_bell), 0);
    CHECK_INT(pl_doorbell_create(&pair->producer_bell), 0);
}

static void pair_close(struct pair *pair)
{
    close(pair->consumer_bell);
    close(pair->producer_bell);
    rig_close(&pair->rig);
}

TEST(two_threads_lose_neither_records_nor_wake_ups)
{
    struct pair pair;
    rig_open_plain(&pair.rig);
    pair_open(&pair, test_sanitized() ? 100000 : 500000);
    pthread_t producer, consumer;
    CHECK_INT(pthread_create(&producer, NULL, produce, &pair), 0);
    CHECK_INT(pthread_create(&consumer, NULL, consume, &pair), 0);
    pthread_join(producer, NULL);
    pthread_join(consumer, NULL);
    pair_close(&pair);
}

TEST(two_processes_lose_neither_records_nor_wake_ups)
{
    struct pair pair;
    rig_open(&pair.rig);
    pair_open(&pair, test_sanitized() ? 100000 : 500000);
    pid_t pid = fork();
    if (pid == 0) {
        consume(&pair);
        _exit(0);
    }
    produce(&pair);
    CHECK_INT(test_wait_child(pid), 0);
    pair_close(&pair);
}

/* The two races that the fences decide, each run many times with both sides at the same point. */

struct litmus {
    struct rig rig;
    _Atomic uint32_t round, arrived;
    uint32_t rounds;
    bool starving, rung, slept;
    uint32_t lost;
};

static void meet(struct litmus *litmus, uint32_t round)
{
    if (atomic_fetch_add(&litmus->arrived, 1) % 2 == 1) atomic_store(&litmus->round, round + 1);
    for (int spins = 0; atomic_load(&litmus->round) <= round; spins++)
        if (spins > 1000) sched_yield(); /* the other may need this CPU */
}

/* One side announces and looks again... */
static void *announce(void *context)
{
    struct litmus *litmus = context;
    for (uint32_t i = 0; i < litmus->rounds; i++) {
        meet(litmus, 2 * i);
        litmus->slept =
            litmus->starving ? pl_ring_starve(&litmus->rig.producer, 1024) : pl_ring_sleep(&litmus->rig.consumer);
        meet(litmus, 2 * i + 1);
    }
    return NULL;
}

/* ... the other publishes and looks for an announcement; then it brings the ring back to where it was. */
static void publish_against_it(struct litmus *litmus)
{
    size_t size;
    for (uint32_t i = 0; i < litmus->rounds; i++) {
        if (litmus->starving) CHECK_INT(take(&litmus->rig.consumer, i, &size), 0);
        else CHECK_INT(put(&litmus->rig.producer, i, 64), 0);
        meet(litmus, 2 * i);
        litmus->rung =
            litmus->starving ? pl_ring_give_back(&litmus->rig.consumer) : pl_ring_publish(&litmus->rig.producer);
        meet(litmus, 2 * i + 1);
        if (litmus->slept && !litmus->rung) litmus->lost++;
        litmus->rig.shared->sleeping = litmus->rig.shared->starved = 0;
        if (litmus->starving) {
            CHECK_INT(put(&litmus->rig.producer, i + N / 1024, 1024), 0);
            pl_ring_publish(&litmus->rig.producer);
        } else {
            CHECK_INT(take(&litmus->rig.consumer, i, &size), 0);
        }
    }
}

static void run_litmus(bool starving)
{
    struct litmus litmus = { .rounds = test_sanitized() ? 20000 : 200000, .starving = starving };
    rig_open_plain(&litmus.rig);
    for (uint64_t i = 0; starving && i < N / 1024; i++) CHECK_INT(put(&litmus.rig.producer, i, 1024), 0);
    pl_ring_publish(&litmus.rig.producer);
    pthread_t thread;
    CHECK_INT(pthread_create(&thread, NULL, announce, &litmus), 0);
    publish_against_it(&litmus);
    pthread_join(thread, NULL);
    CHECK_INT(litmus.lost, 0);
    rig_close(&litmus.rig);
}

TEST(a_record_and_an_announced_sleep_never_miss_each_other)
{
    run_litmus(false);
}

TEST(room_and_an_announced_hunger_never_miss_each_other)
{
    run_litmus(true);
}

/* Death: whatever the peer was doing, what it left is valid, and nothing is lost that it had published. */

static void pause_us(unsigned us)
{
    struct timespec span = { .tv_nsec = (long)us * 1000 };
    nanosleep(&span, NULL);
}

TEST(a_killed_producer_leaves_what_it_published)
{
    unsigned seed = 5;
    for (int round = 0; round < 40; round++) {
        struct pair pair;
        rig_open(&pair.rig);
        pair_open(&pair, UINT64_MAX);
        pid_t pid = fork();
        if (pid == 0) {
            produce(&pair);
            _exit(1);
        }
        uint64_t received = 0;
        size_t size;
        unsigned quota = (unsigned)rand_r(&seed) % 3000; /* killed under load, after that many */
        while (received < quota) {
            int r = take(&pair.rig.consumer, received, &size);
            if (r == 0) received++;
            else CHECK_INT(r, PL_RING_EMPTY);
            if (pl_ring_give_back(&pair.rig.consumer)) pl_doorbell_ring(pair.producer_bell);
        }
        kill(pid, SIGKILL);
        CHECK_INT(test_wait_child(pid), 128 + SIGKILL);
        uint64_t tail = pair.rig.shared->tail;
        for (;;) {
            int r = take(&pair.rig.consumer, received, &size);
            if (r == PL_RING_EMPTY) break;
            CHECK_INT(r, 0);
            received++;
        }
        CHECK_INT(pair.rig.consumer.head, tail);
        pair_close(&pair);
    }
}

TEST(a_killed_consumer_leaves_the_producer_unharmed)
{
    unsigned seed = 6;
    for (int round = 0; round < 40; round++) {
        struct pair pair;
        rig_open(&pair.rig);
        pair_open(&pair, UINT64_MAX);
        pid_t pid = fork();
        if (pid == 0) {
            consume(&pair);
            _exit(1);
        }
        unsigned quota = 1000 + (unsigned)rand_r(&seed) % 3000;
        uint64_t sent = 0;
        while (sent < quota) {
            int r = put(&pair.rig.producer, sent, 16 + (size_t)rand_r(&seed) % 300);
            if (r == 0) sent++;
            else CHECK_INT(r, PL_RING_FULL);
            if (pl_ring_publish(&pair.rig.producer)) pl_doorbell_ring(pair.consumer_bell);
        }
        pause_us((unsigned)rand_r(&seed) % 200);
        kill(pid, SIGKILL);
        CHECK_INT(test_wait_child(pid), 128 + SIGKILL);
        for (int i = 0; i < 3000; i++) {
            int r = put(&pair.rig.producer, sent++, 64);
            CHECK(r == 0 || r == PL_RING_FULL);
            pl_ring_publish(&pair.rig.producer);
        }
        CHECK_INT(put(&pair.rig.producer, sent, N / 2), PL_RING_FULL);
        CHECK_INT(pl_ring_starve(&pair.rig.producer, N / 2), true);
        pair_close(&pair);
    }
}
