/* clock: monotonic time, deadlines, and the raw counter for the hot path.
 *
 * Three clock_gettime calls cost 280 ns a round trip, so spinning loops read the raw counter
 * (rdtsc, cntvct), whose rate is measured once per process against CLOCK_MONOTONIC.
 */
#ifndef PL_BASE_CLOCK_H
#define PL_BASE_CLOCK_H

#include <plait/plait.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

#define PL_NEVER UINT64_MAX

uint64_t pl_clock_ns(void);      /* CLOCK_MONOTONIC, ns */
uint64_t pl_clock_unix_ms(void); /* CLOCK_REALTIME, ms */
uint64_t pl_clock_unix_ns(void);

/* The deadline, in ns of pl_clock_ns(), that a public timeout means: 0 is FALLBACK ms,
 * PLAIT_NOW is now, PLAIT_FOREVER (and what would overflow) is PL_NEVER. */
uint64_t pl_clock_deadline(int64_t timeout_ms, int64_t fallback_ms);
uint64_t pl_clock_deadline_from(uint64_t now_ns, int64_t timeout_ms, int64_t fallback_ms);

/* Milliseconds to DEADLINE for poll and epoll_wait: rounded up, -1 for PL_NEVER, 0 if past. */
int pl_clock_poll_ms(uint64_t deadline_ns);

static inline uint64_t pl_ticks(void)
{
#if defined(__x86_64__) || defined(__i386__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t value;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(value));
    return value;
#else
    return pl_clock_ns();
#endif
}

/* Ticks in NS nanoseconds, and back; saturating. The first call in a process takes about 50 µs to
 * measure the rate. The counter may go back a little between CPUs: take a difference as 0 if it is
 * negative as int64_t. */
uint64_t pl_ticks_of_ns(uint64_t ns);
uint64_t pl_ns_of_ticks(uint64_t ticks);

static inline void pl_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* CPUs that are online: whether two processes can run at once. One that is pinned to a single CPU may well
 * spin for a peer on another. Asked once. */
int pl_cpu_online(void);
int pl_cpu_count(void); /* CPUs this process may run on; at least 1; asked once */

#endif
