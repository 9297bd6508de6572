/* clock: the arithmetic round time that must not overflow, and the rate of the raw counter.
 *
 * The rate is measured over a short span on first use and not from an anchor at start-up: a
 * suspended laptop or a restored virtual machine would make a long span wrong by orders of
 * magnitude, while 50 µs give three digits, which is all that a spin budget needs.
 */
#include "base/clock.h"

#include <limits.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)
#define MEASURE_NS 50000
#define MEASURE_TRIES 3

__extension__ typedef unsigned __int128 uint128;

static uint64_t read_clock(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t pl_clock_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t pl_clock_unix_ns(void)
{
    return read_clock(CLOCK_REALTIME);
}

uint64_t pl_clock_unix_ms(void)
{
    return pl_clock_unix_ns() / NS_PER_MS;
}

uint64_t pl_clock_deadline(int64_t timeout_ms, int64_t fallback_ms)
{
    return pl_clock_deadline_from(pl_clock_ns(), timeout_ms, fallback_ms);
}

uint64_t pl_clock_deadline_from(uint64_t now, int64_t timeout_ms, int64_t fallback_ms)
{
    int64_t span = timeout_ms == 0 ? fallback_ms : timeout_ms;
    uint64_t span_ns, deadline;
    if (span <= 0) return now; /* PLAIT_NOW */
    if (__builtin_mul_overflow((uint64_t)span, NS_PER_MS, &span_ns)) return PL_NEVER;
    if (__builtin_add_overflow(now, span_ns, &deadline)) return PL_NEVER;
    return deadline;
}

int pl_clock_poll_ms(uint64_t deadline_ns)
{
    if (deadline_ns == PL_NEVER) return -1;
    uint64_t now = pl_clock_ns();
    if (deadline_ns <= now) return 0;
    uint64_t left = (deadline_ns - now - 1) / NS_PER_MS + 1; /* rounded up without overflow */
    return left > INT_MAX ? INT_MAX : (int)left;
}

struct instant {
    uint64_t ns, ticks;
};

/* Both clocks at one instant: of a few tries the one with the least between its two readings,
 * since we may be interrupted in any of them. */
static struct instant read_both(void)
{
    struct instant best = { 0, 0 };
    uint64_t best_width = UINT64_MAX;
    for (int i = 0; i < MEASURE_TRIES; i++) {
        uint64_t before = pl_ticks();
        uint64_t ns = pl_clock_ns();
        uint64_t width = pl_ticks() - before; /* huge if the counter went back: never the best */
        if (width >= best_width) continue;
        best_width = width;
        best = (struct instant){ ns, before + width / 2 };
    }
    return best;
}

/* Ticks per ns, 32.32 fixed point; 1.0 where the counter makes no sense (it stands, goes back, or is
 * outside of 1 MHz to 100 GHz). */
static uint64_t measure_rate(void)
{
    struct instant first = read_both();
    while (pl_clock_ns() - first.ns < MEASURE_NS) pl_pause();
    struct instant last = read_both();
    uint64_t ticks = last.ticks - first.ticks, ns = last.ns - first.ns;
    if (ns == 0 || ticks > ns * 100 || ticks < ns / 1000) return UINT64_C(1) << 32;
    return (uint64_t)(((uint128)ticks << 32) / ns);
}

static uint64_t tick_rate(void)
{
    static _Atomic uint64_t rate;
    /* relaxed: the number is all there is to see; two threads may both measure, either is right */
    uint64_t known = atomic_load_explicit(&rate, memory_order_relaxed);
    if (known != 0) return known;
    known = measure_rate();
    atomic_store_explicit(&rate, known, memory_order_relaxed);
    return known;
}

uint64_t pl_ticks_of_ns(uint64_t ns)
{
    uint128 ticks = ((uint128)ns * tick_rate()) >> 32;
    return ticks > UINT64_MAX ? UINT64_MAX : (uint64_t)ticks;
}

uint64_t pl_ns_of_ticks(uint64_t ticks)
{
    uint128 ns = ((uint128)ticks << 32) / tick_rate();
    return ns > UINT64_MAX ? UINT64_MAX : (uint64_t)ns;
}

static int ask_cpu_count(void)
{
    /* 8192 CPUs: a cpu_set_t holds 1024, and the kernel refuses a set smaller than its own. getpid():
     * the process, where 0 would be this thread, which may be pinned. */
    cpu_set_t set[8];
    CPU_ZERO_S(sizeof set, set);
    if (sched_getaffinity(getpid(), sizeof set, set) == 0) return CPU_COUNT_S(sizeof set, set);
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

int pl_cpu_count(void)
{
    static _Atomic int count;
    /* relaxed: the number is all there is to see */
    int known = atomic_load_explicit(&count, memory_order_relaxed);
    if (known != 0) return known;
    known = ask_cpu_count();
    if (known < 1) known = 1;
    atomic_store_explicit(&count, known, memory_order_relaxed);
    return known;
}

int pl_cpu_online(void)
{
    static _Atomic int count;
    /* relaxed: the number is all there is to see */
    int known = atomic_load_explicit(&count, memory_order_relaxed);
    if (known != 0) return known;
    known = (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (known < 1) known = 1;
    atomic_store_explicit(&count, known, memory_order_relaxed);
    return known;
}
