/* context: what the handler that this thread is in hands on to calls made there.
 *
 * A thread that handles a request answers nothing until its handler returns. A call that it makes and waits for must
 * therefore never go to a connection that it serves itself: a server tells a client that asks which of its threads
 * serves a connection, and who is in a handler of the same instance compares. What serves what is fixed for the life of
 * a connection, so this is exact.
 */
#ifndef PL_CONNECTION_CONTEXT_H
#define PL_CONNECTION_CONTEXT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct pl_context {
    uint64_t trace;    /* inherited by calls */
    uint64_t instance; /* that runs the handler; 0: not in a handler */
    uint32_t reactor;  /* which of its threads this one is, from 1; as in the hello */
    bool alone;        /* it is the only one, and accepts connections, too */
};

/* How many servers this process has. Who has none need not ask which thread serves a connection. Relaxed: a server is
 * counted before its name can be found, and who connects to it has found it. */
extern _Atomic uint32_t pl_context_servers;

/* initial-exec: a register and an offset instead of a call, on every request. */
extern _Thread_local struct pl_context pl_context __attribute__((tls_model("initial-exec")));

#endif
