#include "base/clock.h"
#include "base/list.h"
#include "harness/test.h"
#include "loop/loop.h"
#include "loop/wake.h"
#include <plait/plait.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct bell {
    struct pl_source source;
    struct pl_loop *loop;
    struct bell *victim; /* removed when this one rings */
    int rings;
    uint32_t events;
};

static void on_bell(struct pl_source *source, uint32_t events)
{
    struct bell *bell = pl_container_of(source, struct bell, source);
    uint64_t count;
    (void)!read(source->fd, &count, sizeof(count));
    bell->rings++;
    bell->events = events;
    if (bell->victim) pl_loop_remove(bell->loop, &bell->victim->source);
}

static void make_bell(struct bell *bell, struct pl_loop *loop)
{
    *bell = (struct bell){ .source = PL_SOURCE(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), on_bell), .loop = loop };
    CHECK(bell->source.fd >= 0);
    CHECK_INT(pl_loop_add(loop, &bell->source, EPOLLIN), 0);
}

static void ring(struct bell *bell)
{
    uint64_t one = 1;
    CHECK_INT(write(bell->source.fd, &one, sizeof(one)), sizeof(one));
}

static void drop_bell(struct bell *bell)
{
    pl_loop_remove(bell->loop, &bell->source);
    close(bell->source.fd);
}

TEST(a_round_calls_back_who_is_ready_and_nobody_else)
{
    struct pl_loop loop;
    struct bell a, b;
    CHECK_INT(pl_loop_init(&loop, 8), 0);
    make_bell(&a, &loop);
    make_bell(&b, &loop);
    CHECK_INT(pl_loop_wait(&loop, 0), 0);
    ring(&b);
    CHECK_INT(pl_loop_wait(&loop, PL_NEVER), 1);
    CHECK_INT(b.rings, 0); /* no callback before run_ready */
    pl_loop_run_ready(&loop);
    CHECK_INT(a.rings, 0);
    CHECK_INT(b.rings, 1);
    CHECK(b.events & EPOLLIN);
    drop_bell(&a);
    drop_bell(&b);
    pl_loop_deinit(&loop);
}

TEST(a_source_removed_by_an_earlier_callback_is_not_called)
{
    struct pl_loop loop;
    struct bell a, b;
    CHECK_INT(pl_loop_init(&loop, 8), 0);
    make_bell(&a, &loop);
    make_bell(&b, &loop);
    a.victim = &b;
    b.victim = &a;
    ring(&a);
    ring(&b);
    CHECK_INT(pl_loop_wait(&loop, PL_NEVER), 2);
    pl_loop_run_ready(&loop);
    CHECK_INT(a.rings + b.rings, 1);
    drop_bell(&a);
    drop_bell(&b);
    pl_loop_deinit(&loop);
}

TEST(removing_twice_and_changing_to_the_same_do_nothing)
{
    struct pl_loop loop;
    struct bell a;
    CHECK_INT(pl_loop_init(&loop, 8), 0);
    make_bell(&a, &loop);
    CHECK_INT(pl_loop_change(&loop, &a.source, EPOLLIN), 0);
    CHECK_INT(pl_loop_change(&loop, &a.source, EPOLLIN | EPOLLOUT), 0);
    CHECK_INT(pl_loop_wait(&loop, 0), 1); /* an eventfd takes writes */
    pl_loop_remove(&loop, &a.source);
    pl_loop_remove(&loop, &a.source);
    CHECK_INT(pl_loop_wait(&loop, 0), 0);
    drop_bell(&a);
    pl_loop_deinit(&loop);
    pl_loop_deinit(&loop);
}

TEST(a_descriptor_that_cannot_be_watched_is_refused_with_a_text)
{
    struct pl_loop loop;
    struct pl_source source = PL_SOURCE(-1, on_bell);
    CHECK_INT(pl_loop_init(&loop, 8), 0);
    CHECK_INT(pl_loop_add(&loop, &source, EPOLLIN), -EBADF);
    CHECK_INT(source.events, 0);
    CHECK_CONTAINS(plait_error_text(), "descriptor -1");
    pl_loop_remove(&loop, &source);
    pl_loop_deinit(&loop);
}

/* ---- timers ---- */

struct alarm {
    struct pl_timer timer;
    struct pl_loop *loop;
    uint64_t number, again;
    int due;
};

static uint64_t order[512];
static size_t ordered;

static void on_due(struct pl_timer *timer)
{
    struct alarm *alarm = pl_container_of(timer, struct alarm, timer);
    alarm->due++;
    if (ordered < 512) order[ordered++] = alarm->number;
    if (alarm->again && pl_timer_set(alarm->loop, timer, alarm->again) < 0) abort();
}

TEST(timers_fire_in_the_order_of_their_deadlines)
{
    enum { COUNT = 300 };
    static struct alarm alarms[COUNT];
    struct pl_loop loop;
    uint32_t random = 12345;
    CHECK_INT(pl_loop_init(&loop, 8), 0);
    for (size_t i = 0; i < COUNT; i++) {
        random = random * 1103515245 + 12345;
        uint64_t deadline = 1 + random % 1000;
        alarms[i] = (struct alarm){ .timer.due = on_due, .loop = &loop, .number = deadline };
        CHECK_INT(pl_timer_set(&loop, &alarms[i].timer, deadline), 0);
    }
    for (size_t i = 0; i < COUNT; i += 3) pl_timer_clear(&loop, &alarms[i].timer);
    for (size_t i = 1; i < COUNT; i += 3) { /* moved, earlier and later */
        alarms[i].number = 1001 - alarms[i].number;
        CHECK_INT(pl_timer_set(&loop, &alarms[i].timer, alarms[i].number), 0);
    }
    CHECK_INT(pl_loop_wait(&loop, PL_NEVER), 0);
    pl_loop_run_ready(&loop);
    CHECK_INT(ordered, COUNT - COUNT / 3);
    for (size_t i = 1; i < ordered; i++) CHECK(order[i - 1] <= order[i]);
    for (size_t i = 0; i < COUNT; i++) CHECK_INT(alarms[i].due, i % 3 != 0);
    CHECK_INT(pl_loop_next_timer(&loop), PL_NEVER);
    pl_loop_deinit(&loop);
}

TEST(a_timer_may_set_itself_again_and_a_clear_is_idempotent)
{
    struct pl_loop loop;
    CHECK_INT(pl_loop_init(&loop, 8), 0);
    uint64_t later = pl_clock_ns() + 3600 * UINT64_C(1000000000);
    struct alarm alarm = { .timer.due = on_due, .loop = &loop, .again = later };
    CHECK_INT(pl_timer_set(&loop, &alarm.timer, 1), 0);
    pl_loop_run_ready(&loop);
    CHECK_INT(alarm.due, 1);
    CHECK_INT(pl_loop_next_timer(&loop), later);
    pl_timer_clear(&loop, &alarm.timer);
    pl_timer_clear(&loop, &alarm.timer);
    CHECK_INT(pl_loop_next_timer(&loop), PL_NEVER);
    pl_loop_deinit(&loop);
}

TEST(a_wait_ends_with_the_next_timer)
{
    struct pl_loop loop;
    struct alarm alarm = { .timer.due = on_due };
    CHECK_INT(pl_loop_init(&loop, 8), 0);
    uint64_t deadline = pl_clock_ns() + 20 * UINT64_C(1000000);
    CHECK_INT(pl_timer_set(&loop, &alarm.timer, deadline), 0);
    while (alarm.due == 0) {
        CHECK_INT(pl_loop_wait(&loop, PL_NEVER), 0);
        pl_loop_run_ready(&loop);
    }
    CHECK(pl_clock_ns() >= deadline);
    pl_loop_deinit(&loop);
}

/* ---- wake ---- */

static int wakes;

static void on_woken(struct pl_wake *wake)
{
    (void)wake;
    wakes++;
}

static void *wake_up(void *wake)
{
    pl_wake_up(wake);
    pl_wake_up(wake);
    return NULL;
}

TEST(another_thread_wakes_a_loop_that_sleeps)
{
    struct pl_loop loop;
    struct pl_wake wake;
    pthread_t thread;
    CHECK_INT(pl_loop_init(&loop, 8), 0);
    CHECK_INT(pl_wake_init(&wake, &loop, on_woken), 0);
    CHECK_INT(pthread_create(&thread, NULL, wake_up, &wake), 0);
    CHECK_INT(pl_loop_wait(&loop, PL_NEVER), 1);
    CHECK_INT(pthread_join(thread, NULL), 0);
    pl_loop_run_ready(&loop);
    CHECK_INT(wakes, 1); /* two before it looked are one */
    CHECK_INT(pl_loop_wait(&loop, 0), 0);
    pl_wake_deinit(&wake, &loop);
    pl_wake_deinit(&wake, &loop);
    pl_loop_deinit(&loop);
}

TEST(a_wake_that_never_was_is_torn_down_without_harm)
{
    struct pl_loop loop = { .epoll_fd = -1 };
    struct pl_wake wake = { .woken = on_woken };
    pl_wake_deinit(&wake, &loop);
    CHECK_INT(pl_wake_init(&wake, &loop, on_woken), -EBADF);
    pl_wake_deinit(&wake, &loop);
    pl_loop_deinit(&loop);
}
