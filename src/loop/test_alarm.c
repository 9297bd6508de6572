#include "base/clock.h"
#include "harness/test.h"
#include "loop/alarm.h"

#include <poll.h>

static int rings;

static void on_due(struct pl_timer *timer)
{
    (void)timer;
    rings++;
}

/* As a foreign loop does: waits for the epoll set's own descriptor alone. */
static int wait_outside(struct pl_loop *loop, int timeout_ms)
{
    struct pollfd poller = { .fd = loop->epoll_fd, .events = POLLIN };
    return poll(&poller, 1, timeout_ms);
}

TEST(a_timer_makes_the_set_readable_from_outside)
{
    struct pl_loop loop;
    struct pl_alarm alarm;
    struct pl_timer timer = { .due = on_due };
    CHECK_INT(pl_loop_init(&loop, 4), 0);
    CHECK_INT(pl_alarm_init(&alarm, &loop), 0);
    CHECK_INT(wait_outside(&loop, 0), 0);
    CHECK_INT(pl_timer_set(&loop, &timer, pl_clock_ns() + 1000000), 0);
    pl_alarm_follow(&alarm, &loop);
    CHECK_INT(wait_outside(&loop, 30000), 1);
    CHECK_INT(pl_loop_wait(&loop, 0), 1);
    pl_loop_run_ready(&loop);
    CHECK_INT(rings, 1);
    pl_alarm_follow(&alarm, &loop);
    CHECK_INT(wait_outside(&loop, 0), 0);
    pl_alarm_deinit(&alarm, &loop);
    pl_loop_deinit(&loop);
}

TEST(a_cleared_timer_disarms_the_alarm)
{
    struct pl_loop loop;
    struct pl_alarm alarm;
    struct pl_timer timer = { .due = on_due };
    CHECK_INT(pl_loop_init(&loop, 4), 0);
    CHECK_INT(pl_alarm_init(&alarm, &loop), 0);
    CHECK_INT(pl_timer_set(&loop, &timer, pl_clock_ns() + 50000000), 0);
    pl_alarm_follow(&alarm, &loop);
    pl_timer_clear(&loop, &timer);
    pl_alarm_follow(&alarm, &loop);
    CHECK_INT(wait_outside(&loop, 100), 0);
    pl_alarm_deinit(&alarm, &loop);
    pl_alarm_deinit(&alarm, &loop);
    pl_loop_deinit(&loop);
}
