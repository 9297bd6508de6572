/* wake: an eventfd in a loop, by which other threads make it look around. */
#ifndef PL_LOOP_WAKE_H
#define PL_LOOP_WAKE_H

#include "loop/loop.h"

struct pl_wake {
    struct pl_source source; /* source.fd: the eventfd */
    void (*woken)(struct pl_wake *wake);
};

int pl_wake_init(struct pl_wake *wake, struct pl_loop *loop, void (*woken)(struct pl_wake *wake));
void pl_wake_deinit(struct pl_wake *wake, struct pl_loop *loop); /* idempotent */
void pl_wake_up(struct pl_wake *wake);                           /* any thread, and signal handlers */

#endif
