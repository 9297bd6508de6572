/* context: what the handler that this thread is in hands on to calls made there. */
#ifndef PL_CONNECTION_CONTEXT_H
#define PL_CONNECTION_CONTEXT_H

#include <stdbool.h>
#include <stdint.h>

struct pl_context {
    uint64_t trace;    /* inherited by calls */
    uint64_t instance; /* that runs the handler; 0: not in a handler */
    bool alone;        /* this thread is the only one that serves that instance */
};

/* initial-exec: a register and an offset instead of a call, on every request. */
extern _Thread_local struct pl_context pl_context __attribute__((tls_model("initial-exec")));

#endif
