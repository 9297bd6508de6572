/* alarm: a loop's next timer as a descriptor in its own epoll set, for those who wait on that set from outside. */
#ifndef PL_LOOP_ALARM_H
#define PL_LOOP_ALARM_H

#include "loop/loop.h"

struct pl_alarm {
    struct pl_source source; /* source.fd: a timerfd */
    uint64_t set;            /* ns; PL_NEVER: disarmed */
};

int pl_alarm_init(struct pl_alarm *alarm, struct pl_loop *loop);
void pl_alarm_deinit(struct pl_alarm *alarm, struct pl_loop *loop);       /* idempotent, zeroed is fine */
void pl_alarm_follow(struct pl_alarm *alarm, const struct pl_loop *loop); /* the next timer may have changed */

#endif
