/* loop: one epoll set with callbacks, and timers; used by one thread at a time.
 *
 * A round takes the whole ready list away first and then calls back, so a callback may add or remove
 * any source; one that is removed is not called any more. Descriptors are borrowed: whoever adds one
 * removes it before closing it, because a duplicate held by a forked child would keep the
 * registration alive.
 */
#ifndef PL_LOOP_LOOP_H
#define PL_LOOP_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

struct pl_source {
    int fd;
    uint32_t events; /* as registered; 0: not registered */
    void (*ready)(struct pl_source *source, uint32_t events);
};
#define PL_SOURCE(fd_, ready_) ((struct pl_source){ .fd = (fd_), .events = 0, .ready = (ready_) })

struct pl_timer {
    uint64_t deadline; /* ns of pl_clock_ns() */
    size_t place;      /* in the heap, + 1; 0: not set */
    void (*due)(struct pl_timer *timer);
};

enum { PL_LOOP_EVENTS = 64 };
struct pl_loop {
    int epoll_fd;
    int ready_count, ready_next;
    int ready_room;
    struct epoll_event *ready;
    struct pl_timer **heap;
    size_t timer_count, timer_room;
};

/* EVENTS: how many one wait takes away; a server wants PL_LOOP_EVENTS, a client has few descriptors. */
int pl_loop_init(struct pl_loop *loop, int events);
void pl_loop_deinit(struct pl_loop *loop); /* idempotent; sources and timers are the owners' */

int pl_loop_add(struct pl_loop *loop, struct pl_source *source, uint32_t events);
int pl_loop_change(struct pl_loop *loop, struct pl_source *source, uint32_t events); /* no call if it is so already */
void pl_loop_remove(struct pl_loop *loop, struct pl_source *source);                 /* idempotent */

/* Waits until DEADLINE for events and fills the ready list; no callback runs. Count, or -errno. */
int pl_loop_wait(struct pl_loop *loop, uint64_t deadline_ns);

/* Calls back for what pl_loop_wait found, then for every timer that is due. */
void pl_loop_run_ready(struct pl_loop *loop);

int pl_timer_set(struct pl_loop *loop, struct pl_timer *timer, uint64_t deadline_ns); /* moves it if set; -ENOMEM */
void pl_timer_clear(struct pl_loop *loop, struct pl_timer *timer);                    /* idempotent */
uint64_t pl_loop_next_timer(const struct pl_loop *loop);                              /* PL_NEVER: none */

#endif
