/* spin: how long to look for something by oneself before sleeping.
 *
 * Spinning pays where the other side answers sooner than a sleep and its wake-up would take, and
 * does harm where the other side needs the CPU that the spinner holds. Neither is known from
 * the outside, so it is tried: waits that sleep set the measure; when a run of them was short, the
 * next waits spin, and those that keep to the measure are a reason to go on, all others to stop. A
 * wait after a gap (the caller did something else for 200 µs) sleeps at once: it is too rare to
 * gain, and a sleeper's wake-up is the quicker the less its waker disturbs.
 *
 * Where a wake-up alone takes longer than the longest spin (a virtual machine's halted CPU: 100 to 400 µs), two
 * sides that sleep would never meet spinning, although each answers in no time. Long sleeps in a row therefore lead,
 * seldom, to a far trial: a few spins that last as long as those sleeps did. It goes on only if answers come within
 * the usual limit after all; else the next one is twice as far off.
 *
 * On one CPU with its peer a spinner yields between two looks. The kernel packs pairs that sleep
 * onto one CPU and parts them only after both were runnable for some milliseconds. Until
 * then a round trip is 2.9 µs by yielding, 4.2 by sleeping, 106 by pausing (measured).
 *
 *     uint64_t now = pl_ticks(), budget = pl_spin_begin(spin, now);
 *     for (; budget > 0 && pl_ticks() - now < budget; pl_spin_relax(peer's CPU == sched_getcpu()))
 *         if (it is there) return pl_spin_end(spin, pl_ticks(), PL_SPIN_AWAKE);
 *     ... announce, look again, sleep: pl_spin_end(spin, pl_ticks(), PL_SPIN_SLEPT)
 *
 * One pl_spin belongs to one waiting thread at a time. All times are raw ticks; they may go back.
 */
#ifndef PL_BASE_SPIN_H
#define PL_BASE_SPIN_H

#include "base/clock.h"
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

enum pl_spin_end {
    PL_SPIN_AWAKE, /* it came before we slept, spinning or not */
    PL_SPIN_SLEPT, /* it came and woke us */
    PL_SPIN_OTHER  /* the wait ended otherwise: a deadline, another source, a signal */
};

struct pl_spin {
    uint64_t limit;         /* longest spin; 0: never */
    uint64_t short_sleep;   /* a sleep of at most this makes us think of spinning */
    uint64_t far_sleep;     /* a longer one at most this: of a far trial */
    uint64_t gap;           /* so long since the last wait: rare */
    uint64_t doubtful;      /* a sleep might have been as quick as such a spin */
    uint64_t began, ended;  /* this wait; the last one */
    uint64_t slept;         /* moving average of short sleeps: the measure */
    uint64_t slept_far;     /* and of the longer ones */
    uint16_t run, patience; /* short sleeps in a row; how many make us try */
    uint16_t run_far, patience_far;
    uint16_t far;    /* spins that are left of a far trial */
    uint16_t quick;  /* of those so far, in a row, within the limit */
    uint16_t doubts; /* doubtful successes since the measure was taken */
    int8_t strength; /* above 0: spin */
    bool adaptive;
    bool rare, spun; /* this wait */
};

/* SPIN_US is PLAIT_SPIN_DEFAULT (adaptive, at most 50 µs but for far trials), PLAIT_SPIN_NEVER or a fixed number of
 * microseconds. On a machine with one CPU it is always never. */
void pl_spin_init(struct pl_spin *spin, int64_t spin_us);

/* A wait begins, since a first look found nothing. Ticks to spin; 0: sleep at once. */
uint64_t pl_spin_begin(struct pl_spin *spin, uint64_t now);

/* Between two looks. SAME_CPU: the peer was last seen on the CPU that we are on; to be asked anew each
 * time, since the kernel moves both. */
static inline void pl_spin_relax(bool same_cpu)
{
    if (same_cpu) sched_yield();
    else pl_pause();
}

/* This wait won't spin after all (nobody is there who could answer a spinner): no failure of spinning. */
static inline void pl_spin_decline(struct pl_spin *spin)
{
    spin->spun = false;
}

/* The wait is over. */
void pl_spin_end(struct pl_spin *spin, uint64_t now, enum pl_spin_end how);

#endif
