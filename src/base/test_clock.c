/* Deadlines neither overflow nor wake early; ticks are what the clock says. */
#include "base/clock.h"

#include "harness/test.h"
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#define MS UINT64_C(1000000)

TEST(deadlines_lie_where_the_timeout_says)
{
    uint64_t before = pl_clock_ns(), deadline = pl_clock_deadline(250, 1), after = pl_clock_ns();
    CHECK(deadline >= before + 250 * MS && deadline <= after + 250 * MS);
    before = pl_clock_ns(), deadline = pl_clock_deadline(0, 5000), after = pl_clock_ns();
    CHECK(deadline >= before + 5000 * MS && deadline <= after + 5000 * MS);
    before = pl_clock_ns(), deadline = pl_clock_deadline(PLAIT_NOW, 5000), after = pl_clock_ns();
    CHECK(deadline >= before && deadline <= after);
    before = pl_clock_ns(), deadline = pl_clock_deadline(INT64_MIN, 5000), after = pl_clock_ns();
    CHECK(deadline >= before && deadline <= after);
}

TEST(what_overflows_is_never)
{
    CHECK(pl_clock_deadline(PLAIT_FOREVER, 1) == PL_NEVER);
    CHECK(pl_clock_deadline(0, PLAIT_FOREVER) == PL_NEVER);
    CHECK(pl_clock_deadline(INT64_MAX / 2, 1) == PL_NEVER);
    CHECK(pl_clock_deadline(INT64_C(1) << 58, 1) == PL_NEVER); /* times 10^6 this is 0 in 64 bits */
    int64_t limit = (int64_t)(UINT64_MAX / MS);                /* the product fits, the sum with now doesn't */
    CHECK(pl_clock_deadline(limit, 1) == PL_NEVER);
    CHECK(pl_clock_deadline(limit - 1, 1) == PL_NEVER);
    CHECK(pl_clock_deadline(limit / 2, 1) < PL_NEVER); /* 292 years are a deadline still */
}

TEST(poll_waits_at_least_to_the_deadline)
{
    CHECK_INT(pl_clock_poll_ms(PL_NEVER), -1);
    CHECK_INT(pl_clock_poll_ms(0), 0);
    CHECK_INT(pl_clock_poll_ms(pl_clock_ns()), 0);
    CHECK_INT(pl_clock_poll_ms(PL_NEVER - 1), INT_MAX);
    int ms = pl_clock_poll_ms(pl_clock_ns() + 10000 * MS);
    CHECK(ms > 9000 && ms <= 10000);
    /* Less than a millisecond to go is never "at once": that would spin. */
    for (int i = 0; i < 1000; i++) {
        uint64_t deadline = pl_clock_ns() + MS / 2;
        ms = pl_clock_poll_ms(deadline);
        CHECK(ms == 1 || pl_clock_ns() >= deadline);
    }
}

TEST(ticks_and_clock_agree)
{
    if (test_sanitized()) SKIP("a sanitizer slows the clock");
    /* Interrupted measurements are too long, so the best of a few counts. */
    uint64_t best = UINT64_MAX;
    pl_ticks_of_ns(1);
    for (int i = 0; i < 20; i++) {
        uint64_t ns = pl_clock_ns(), ticks = pl_ticks();
        while (pl_clock_ns() - ns < MS) pl_pause();
        uint64_t measured = pl_ns_of_ticks(pl_ticks() - ticks), real = pl_clock_ns() - ns;
        uint64_t error = measured > real ? measured - real : real - measured;
        if (error < best) best = error;
    }
    CHECK(best < MS / 50); /* two percent */
}

TEST(conversions_are_each_others_inverse)
{
    for (uint64_t ns = 1000; ns < UINT64_C(1) << 50; ns *= 7) {
        uint64_t back = pl_ns_of_ticks(pl_ticks_of_ns(ns));
        CHECK(back <= ns && ns - back <= 1 + ns / 1000000 + 100);
    }
    CHECK_INT(pl_ticks_of_ns(0), 0);
    CHECK_INT(pl_ns_of_ticks(0), 0);
    CHECK(pl_ticks_of_ns(UINT64_MAX) >= UINT64_MAX / 1000); /* saturates or fits, never wraps to little */
    CHECK(pl_ns_of_ticks(UINT64_MAX) >= UINT64_MAX / 1000);
}

static void *convert(void *context)
{
    *(uint64_t *)context = pl_ticks_of_ns(1000 * MS);
    return NULL;
}

TEST(threads_may_measure_at_once)
{
    pthread_t threads[4];
    uint64_t ticks[4];
    for (int i = 0; i < 4; i++) CHECK_INT(pthread_create(&threads[i], NULL, convert, &ticks[i]), 0);
    for (int i = 0; i < 4; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
    if (test_sanitized()) return;
    for (int i = 1; i < 4; i++) CHECK(ticks[i] < ticks[0] / 20 * 21 && ticks[i] > ticks[0] / 20 * 19);
}

TEST(measuring_is_short_and_happens_once)
{
    if (test_sanitized()) SKIP("a sanitizer slows it");
    uint64_t before = pl_clock_ns();
    pl_ticks_of_ns(1);
    uint64_t took = pl_clock_ns() - before;
    CHECK(took >= 50000 && took < 20 * MS); /* 50 µs, unless others hold the CPU */
    before = pl_clock_ns();
    for (int i = 0; i < 100; i++) pl_ticks_of_ns(1);
    CHECK(pl_clock_ns() - before < 20 * MS); /* once only */
}

TEST(cpus_are_those_that_we_may_use)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        cpu_set_t allowed, one;
        CHECK_INT(sched_getaffinity(0, sizeof allowed, &allowed), 0);
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
            if (!CPU_ISSET(cpu, &allowed)) continue;
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
        }
        CHECK_INT(sched_setaffinity(0, sizeof one, &one), 0);
        CHECK_INT(pl_cpu_count(), 1);
        _exit(0);
    }
    CHECK_INT(test_wait_child(child), 0);
    cpu_set_t allowed;
    CHECK_INT(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    CHECK_INT(pl_cpu_count(), CPU_COUNT(&allowed));
}

TEST(unix_time_is_of_this_century)
{
    CHECK(pl_clock_unix_ms() > UINT64_C(1700000000000));
    CHECK(pl_clock_unix_ms() < UINT64_C(4100000000000));
}
