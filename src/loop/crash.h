/* crash: what a worker process does when it gets SIGSEGV, SIGBUS, SIGFPE, SIGILL or SIGABRT: notes it where others
 * look, shuts its connections down, and dies of the signal as it would have. A core dump of 200 MB takes a tenth of a
 * second, and the kernel closes sockets only after it: callers shall not wait for that.
 *
 * Only over SIG_DFL, on a stack of its own, in the process that armed it and not in its children.
 *
 * The other threads go on until the kernel ends them. So that none of them begins a request of which its client, told
 * of the end, believes that it never ran, each looks at pl_crash_now after it noted the request as begun; the handler
 * raises it and makes the kernel order that against them (membarrier) before it shuts anything down.
 */
#ifndef PL_LOOP_CRASH_H
#define PL_LOOP_CRASH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

/* For this process. NOTE is called in the signal handler, once: it may store and no more. Idempotent. */
void pl_crash_arm(void (*note)(int number, pid_t tid, void *context), void *context);
bool pl_crash_armed(void);

/* SOCKET is to be shut down, and no longer; before it is closed. Thread-safe. */
void pl_crash_watch(int socket);
void pl_crash_unwatch(int socket);

/* A stack for this thread's handler, also where it was its own stack that ran out; NULL where nothing is armed. */
struct pl_crash_stack;
struct pl_crash_stack *pl_crash_stack_begin(void);
void pl_crash_stack_end(struct pl_crash_stack *stack); /* in the same thread; NULL is fine */

extern _Atomic bool pl_crash_now;
void pl_crash_park(void) __attribute__((noreturn, cold));

/* After a request was noted as begun, before it runs. */
static inline void pl_crash_check(void)
{
    atomic_signal_fence(memory_order_seq_cst); /* F_CRASH1: against F_CRASH2, whose membarrier is the other half */
    /* relaxed: F_CRASH1 orders it */
    if (__builtin_expect(atomic_load_explicit(&pl_crash_now, memory_order_relaxed), 0)) pl_crash_park();
}

#endif
