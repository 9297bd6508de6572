/* interrupt: whoever waits asks now and then whether to go on, so that a program that hears of its signals in a
 * way of its own (an interpreter's flag) can end the wait.
 *
 * Waits deep below the client find what to ask in pl_interrupt, which the client sets round them. Nothing is
 * asked with a lock held.
 */
#ifndef PL_BASE_INTERRUPT_H
#define PL_BASE_INTERRUPT_H

#include <stdint.h>

enum { PL_INTERRUPT_MS = 50 }; /* asked this often */

struct pl_interrupt {
    int (*asked)(void *context); /* NULL: nobody to ask */
    void *context;
};

extern _Thread_local const struct pl_interrupt *pl_interrupt; /* of this thread's connecting; NULL: none */

/* 0: go on; -EINTR, with a text. INTERRUPT may be NULL. */
int pl_interrupt_ask(const struct pl_interrupt *interrupt);

/* The end of the next stretch of waiting: DEADLINE, or when to ask again. */
uint64_t pl_interrupt_slice(const struct pl_interrupt *interrupt, uint64_t deadline_ns);

/* poll() for one descriptor (FD -1: a pause), until DEADLINE, which asks pl_interrupt once it has waited FIRST_MS and
 * from then on: what is there; 0: nothing was; -EINTR as above; -errno. A signal alone doesn't end it. */
int pl_interrupt_poll(int fd, short events, uint64_t deadline_ns, int first_ms);

#endif
