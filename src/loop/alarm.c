#include "loop/alarm.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/list.h"

#include <errno.h>
#include <sys/timerfd.h>
#include <unistd.h>

static void on_due(struct pl_source *source, uint32_t events)
{
    struct pl_alarm *alarm = pl_container_of(source, struct pl_alarm, source);
    uint64_t count;
    (void)events;
    (void)!read(source->fd, &count, sizeof(count));
    alarm->set = PL_NEVER; /* the timers themselves run after the events */
}

int pl_alarm_init(struct pl_alarm *alarm, struct pl_loop *loop)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (fd < 0) return pl_error(-errno, "no timer descriptor: %s", pl_error_word(errno));
    *alarm = (struct pl_alarm){ .source = PL_SOURCE(fd, on_due), .set = PL_NEVER };
    int r = pl_loop_add(loop, &alarm->source, EPOLLIN);
    if (r < 0) {
        pl_close(&alarm->source.fd);
        alarm->source.ready = NULL;
    }
    return r;
}

void pl_alarm_deinit(struct pl_alarm *alarm, struct pl_loop *loop)
{
    if (alarm->source.ready == NULL) return;
    pl_loop_remove(loop, &alarm->source);
    pl_close(&alarm->source.fd);
}

void pl_alarm_follow(struct pl_alarm *alarm, const struct pl_loop *loop)
{
    uint64_t due = pl_loop_next_timer(loop);
    if (alarm->source.ready == NULL || due == alarm->set) return;
    struct itimerspec when = { .it_value = { 0, 0 } };
    if (due != PL_NEVER) when.it_value = (struct timespec){ (time_t)(due / 1000000000), (long)(due % 1000000000) };
    if (timerfd_settime(alarm->source.fd, TFD_TIMER_ABSTIME, &when, NULL) == 0) alarm->set = due;
}
