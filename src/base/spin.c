/* spin: a strength that successes raise by one and failures lower by two, and trials that grow
 * rarer while they fail.
 *
 * What a trial costs where spinning is poison: up to three waits of 50 µs and more, of at least
 * eight, then sixteen, ... 1024 that sleep; hence medians and 99th percentiles don't see it.
 */
#include "base/spin.h"

#include <plait/plait.h>

#define LIMIT_NS 50000
#define SHORT_SLEEP_NS 80000 /* the limit and what waking costs */
#define FAR_SLEEP_NS 600000  /* two wake-ups of halted CPUs */
#define GAP_NS 200000
#define DOUBTFUL_NS 5000 /* quicker than this no sleep is */
#define STRENGTH_TRIAL 5 /* three failures end it */
#define STRENGTH_FULL 8
#define PATIENCE_LEAST 8
#define PATIENCE_MOST 1024
#define DOUBTS_MOST 256
#define FAR_TRIAL 24 /* spins: the other side needs some to follow */
#define FAR_QUICK 3  /* of which so many quick ones in a row decide */
#define FAR_PATIENCE_LEAST 64
#define FAR_PATIENCE_MOST 4096

void pl_spin_init(struct pl_spin *spin, int64_t spin_us)
{
    *spin = (struct pl_spin){ .patience = PATIENCE_LEAST, .patience_far = FAR_PATIENCE_LEAST };
    if (spin_us < 0 || pl_cpu_online() == 1) return;
    spin->adaptive = spin_us == 0;
    spin->limit = pl_ticks_of_ns(spin_us == 0                 ? LIMIT_NS
                                 : spin_us > INT64_MAX / 1000 ? INT64_MAX
                                                              : (uint64_t)spin_us * 1000);
    spin->short_sleep = pl_ticks_of_ns(SHORT_SLEEP_NS);
    spin->far_sleep = pl_ticks_of_ns(FAR_SLEEP_NS);
    spin->gap = pl_ticks_of_ns(GAP_NS);
    spin->doubtful = pl_ticks_of_ns(DOUBTFUL_NS);
}

/* Ticks from THEN to NOW; none if the counter went back. */
static uint64_t passed(uint64_t then, uint64_t now)
{
    return (int64_t)(now - then) > 0 ? now - then : 0;
}

/* Half more than the sleeps took, since those vary. */
static uint64_t far_limit(const struct pl_spin *spin)
{
    uint64_t limit = spin->slept_far + spin->slept_far / 2;
    return limit > spin->far_sleep ? spin->far_sleep : limit;
}

uint64_t pl_spin_begin(struct pl_spin *spin, uint64_t now)
{
    spin->began = now;
    if (!spin->adaptive) return spin->limit;
    spin->rare = passed(spin->ended, now) > spin->gap;
    spin->spun = !spin->rare && spin->strength > 0;
    if (!spin->spun) return 0;
    return spin->far > 0 ? far_limit(spin) : spin->limit;
}

/* Back to sleeping, which takes the measure anew. */
static void stop(struct pl_spin *spin)
{
    spin->strength = 0;
    spin->run = spin->run_far = spin->far = 0;
    spin->slept = 0;
    spin->doubts = 0;
}

static void judge(struct pl_spin *spin, uint64_t waited, bool success)
{
    if (success) {
        if (spin->strength < STRENGTH_FULL && ++spin->strength == STRENGTH_FULL) {
            spin->patience = PATIENCE_LEAST / 2;
            spin->patience_far = FAR_PATIENCE_LEAST;
        }
        if (waited > spin->doubtful && ++spin->doubts >= DOUBTS_MOST) stop(spin);
        return;
    }
    spin->strength -= 2;
    if (spin->strength > 0) return;
    if (spin->patience < PATIENCE_MOST) spin->patience *= 2;
    stop(spin);
}

/* A spin of a far trial. */
static void judge_far(struct pl_spin *spin, uint64_t waited)
{
    spin->far--;
    spin->quick = waited <= spin->limit ? spin->quick + 1 : 0;
    if (spin->quick == FAR_QUICK) {
        spin->far = 0; /* as any trial from now on */
    } else if (spin->far == 0) {
        if (spin->patience_far < FAR_PATIENCE_MOST) spin->patience_far *= 2;
        stop(spin);
    }
}

/* A sleep too long for a spin: perhaps it was its wake-up that took so long. */
static void learn_far(struct pl_spin *spin, uint64_t waited, bool slept)
{
    spin->run = 0;
    spin->slept = 0;
    if (slept) spin->slept_far = spin->slept_far == 0 ? waited : spin->slept_far - spin->slept_far / 4 + waited / 4;
    if (spin->slept_far == 0 || ++spin->run_far < spin->patience_far) return;
    stop(spin);
    spin->strength = STRENGTH_TRIAL;
    spin->far = FAR_TRIAL;
    spin->quick = 0;
}

/* A wait that didn't spin. Where it ended before the sleep, that is a reason to try, but no measure. */
static void learn(struct pl_spin *spin, uint64_t waited, bool slept)
{
    if (waited > spin->short_sleep) {
        if (spin->strength > 0) return;
        if (waited > spin->far_sleep) stop(spin);
        else learn_far(spin, waited, slept);
        return;
    }
    if (slept) spin->slept = spin->slept == 0 ? waited : spin->slept - spin->slept / 4 + waited / 4;
    if (spin->strength > 0) return; /* a wait that declined */
    if (++spin->run >= spin->patience) spin->strength = STRENGTH_TRIAL;
}

/* What a spin must not exceed: half more than the sleeps took, since those vary. */
static uint64_t measure(const struct pl_spin *spin)
{
    return spin->slept == 0 ? spin->short_sleep : spin->slept + spin->slept / 2;
}

void pl_spin_end(struct pl_spin *spin, uint64_t now, enum pl_spin_end how)
{
    uint64_t waited = passed(spin->began, now);
    spin->ended = now;
    if (!spin->adaptive || spin->rare) return;
    if (!spin->spun) {
        if (how != PL_SPIN_OTHER) learn(spin, waited, how == PL_SPIN_SLEPT);
    } else if (spin->far > 0) {
        judge_far(spin, waited);
    } else if (how != PL_SPIN_OTHER || waited > spin->limit) {
        judge(spin, waited, how == PL_SPIN_AWAKE && waited <= measure(spin));
    }
}
