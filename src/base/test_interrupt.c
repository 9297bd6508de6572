#include "base/clock.h"
#include "base/interrupt.h"
#include "harness/test.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

static int asked;

static int count_to_two(void *context)
{
    CHECK(context == &asked);
    return ++asked == 2;
}

static int never(void *context)
{
    (void)context;
    asked++;
    return 0;
}

TEST(a_poll_that_nobody_interrupts_ends_at_its_deadline)
{
    uint64_t deadline = pl_clock_deadline(20, 20);
    CHECK_INT(pl_interrupt_poll(-1, 0, deadline, 0), 0);
    CHECK(pl_clock_ns() >= deadline);
}

TEST(an_endless_poll_ends_once_the_answer_is_yes)
{
    const struct pl_interrupt interrupt = { count_to_two, &asked };
    pl_interrupt = &interrupt;
    CHECK_INT(pl_interrupt_poll(-1, 0, PL_NEVER, 0), -EINTR);
    CHECK_INT(asked, 2);
}

TEST(being_asked_does_not_shorten_a_wait)
{
    const struct pl_interrupt interrupt = { never, NULL };
    pl_interrupt = &interrupt;
    uint64_t deadline = pl_clock_deadline(3 * PL_INTERRUPT_MS, 0);
    CHECK_INT(pl_interrupt_poll(-1, 0, deadline, 0), 0);
    CHECK(pl_clock_ns() >= deadline);
    CHECK(asked >= 2);
}

TEST(what_is_ready_is_told_without_asking)
{
    const struct pl_interrupt interrupt = { count_to_two, &asked };
    int pipes[2];
    CHECK_INT(pipe(pipes), 0);
    CHECK_INT(write(pipes[1], "x", 1), 1);
    pl_interrupt = &interrupt;
    CHECK_INT(pl_interrupt_poll(pipes[0], POLLIN, PL_NEVER, 0), POLLIN);
    CHECK_INT(asked, 0);
    close(pipes[0]);
    close(pipes[1]);
}
