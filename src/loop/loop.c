#include "loop/loop.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"

#include <errno.h>
#include <stdlib.h>

int pl_loop_init(struct pl_loop *loop, int events)
{
    *loop =
        (struct pl_loop){ .epoll_fd = -1, .ready_room = events, .ready = calloc((size_t)events, sizeof(*loop->ready)) };
    if (loop->ready == NULL) return pl_error(-ENOMEM, "no memory for a loop");
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0) return pl_error(-errno, "no epoll instance: %s", pl_error_word(errno));
    return 0;
}

void pl_loop_deinit(struct pl_loop *loop)
{
    pl_close(&loop->epoll_fd);
    free(loop->heap);
    free(loop->ready);
    loop->heap = NULL;
    loop->ready = NULL;
    loop->timer_count = loop->timer_room = 0;
    loop->ready_count = loop->ready_next = 0;
}

static int control(struct pl_loop *loop, int operation, struct pl_source *source, uint32_t events)
{
    struct epoll_event event = { .events = events, .data.ptr = source };
    if (epoll_ctl(loop->epoll_fd, operation, source->fd, &event) < 0)
        return pl_error(-errno, "cannot wait for descriptor %d: %s", source->fd, pl_error_word(errno));
    source->events = events;
    return 0;
}

int pl_loop_add(struct pl_loop *loop, struct pl_source *source, uint32_t events)
{
    return control(loop, EPOLL_CTL_ADD, source, events);
}

int pl_loop_change(struct pl_loop *loop, struct pl_source *source, uint32_t events)
{
    if (source->events == events) return 0;
    return control(loop, EPOLL_CTL_MOD, source, events);
}

void pl_loop_remove(struct pl_loop *loop, struct pl_source *source)
{
    if (source->events == 0) return;
    (void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
    source->events = 0;
    for (int i = loop->ready_next; i < loop->ready_count; i++)
        if (loop->ready[i].data.ptr == source) loop->ready[i].data.ptr = NULL;
}

int pl_loop_wait(struct pl_loop *loop, uint64_t deadline_ns)
{
    uint64_t next = pl_loop_next_timer(loop);
    int timeout = pl_clock_poll_ms(next < deadline_ns ? next : deadline_ns);
    int count = epoll_wait(loop->epoll_fd, loop->ready, loop->ready_room, timeout);
    if (count < 0 && errno != EINTR) return pl_error(-errno, "epoll_wait: %s", pl_error_word(errno));
    loop->ready_next = 0;
    loop->ready_count = count < 0 ? 0 : count;
    return loop->ready_count;
}

void pl_loop_run_ready(struct pl_loop *loop)
{
    while (loop->ready_next < loop->ready_count) {
        struct epoll_event *event = &loop->ready[loop->ready_next++];
        struct pl_source *source = event->data.ptr;
        if (source != NULL) source->ready(source, event->events);
    }
    if (loop->timer_count == 0) return;
    uint64_t now = pl_clock_ns();
    while (loop->timer_count > 0 && loop->heap[0]->deadline <= now) {
        struct pl_timer *timer = loop->heap[0];
        pl_timer_clear(loop, timer);
        timer->due(timer);
    }
}

/* ---- timers: a binary heap by deadline; each knows its place, so that clearing is O(log n) ---- */

static void place(struct pl_loop *loop, size_t i, struct pl_timer *timer)
{
    loop->heap[i] = timer;
    timer->place = i + 1;
}

static void sift(struct pl_loop *loop, size_t i)
{
    struct pl_timer *timer = loop->heap[i];
    while (i > 0 && timer->deadline < loop->heap[(i - 1) / 2]->deadline) {
        place(loop, i, loop->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= loop->timer_count) break;
        if (child + 1 < loop->timer_count && loop->heap[child + 1]->deadline < loop->heap[child]->deadline) child++;
        if (timer->deadline <= loop->heap[child]->deadline) break;
        place(loop, i, loop->heap[child]);
        i = child;
    }
    place(loop, i, timer);
}

int pl_timer_set(struct pl_loop *loop, struct pl_timer *timer, uint64_t deadline_ns)
{
    if (timer->place == 0) {
        if (loop->timer_count == loop->timer_room) {
            size_t room = loop->timer_room ? 2 * loop->timer_room : 16;
            struct pl_timer **heap = realloc(loop->heap, room * sizeof(*heap));
            if (heap == NULL) return pl_error(-ENOMEM, "no memory for a timer");
            loop->heap = heap;
            loop->timer_room = room;
        }
        place(loop, loop->timer_count++, timer);
    }
    timer->deadline = deadline_ns;
    sift(loop, timer->place - 1);
    return 0;
}

void pl_timer_clear(struct pl_loop *loop, struct pl_timer *timer)
{
    if (timer->place == 0) return;
    size_t i = timer->place - 1;
    timer->place = 0;
    struct pl_timer *last = loop->heap[--loop->timer_count];
    if (last == timer) return;
    place(loop, i, last);
    sift(loop, i);
}

uint64_t pl_loop_next_timer(const struct pl_loop *loop)
{
    return loop->timer_count ? loop->heap[0]->deadline : PL_NEVER;
}
