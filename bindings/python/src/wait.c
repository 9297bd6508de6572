/* wait: giving the GIL away, and being called back without it. */
#include "binding.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>

/* The innermost wait of this thread. */
static _Thread_local struct waiting *waiting_now;
/* A thread of the library keeps one thread state for all its handlers: making one costs more than a call. */
static _Thread_local struct waiting own;
static pthread_key_t thread_ends;
static pthread_once_t once = PTHREAD_ONCE_INIT;

enum { SOON_NS = 4000000 };

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void waiting_begin(struct waiting *waiting)
{
    waiting->raised = waiting->kept = waiting->serves = false;
    waiting->outer = waiting_now;
    waiting_now = waiting;
    waiting->state = PyEval_SaveThread();
}

void waiting_end(struct waiting *waiting)
{
    PyEval_RestoreThread(waiting->state);
    waiting_now = waiting->outer;
}

void waiting_keep(struct waiting *waiting, bool serves)
{
    waiting->raised = false;
    waiting->kept = true;
    waiting->serves = serves;
    waiting->begun = serves ? now_ns() : 0;
    waiting->state = NULL;
    waiting->outer = waiting_now;
    waiting_now = waiting;
}

void waiting_kept(struct waiting *waiting)
{
    waiting_now = waiting->outer;
}

int waiting_interrupted(void *closing)
{
    struct waiting *waiting = waiting_now;
    if (__atomic_load_n((bool *)closing, __ATOMIC_RELAXED)) return 1; /* relaxed: a flag alone */
    if (waiting == NULL) return 0;
    if (waiting->raised) return 1;
    if (waiting->kept) {
        /* Asked before anything was waited for, there is no hello that a server of ours could answer. */
        bool served = waiting->serves && now_ns() - waiting->begun > SOON_NS && server_dispatch_own();
        waiting->serves = false;
        return !served;
    }
    /* Python's signal handlers run in its first thread alone; the others need not wake the GIL. */
    if (gettid() != getpid()) return 0;
    PyEval_RestoreThread(waiting->state);
    waiting_now = waiting->outer; /* what the handler calls has waits of its own */
    if (PyErr_CheckSignals() < 0) waiting->raised = true;
    waiting_now = waiting;
    waiting->state = PyEval_SaveThread();
    return waiting->raised;
}

/* ---- handlers ---- */

static void forget_thread(void *state)
{
    if (!Py_IsInitialized()) return;
    PyEval_RestoreThread(state);
    PyThreadState_Clear(state); /* not PyGILState_Release: its key is gone by now */
    (void)PyEval_SaveThread();
    PyThreadState_Delete(state);
}

static void make_key(void)
{
    (void)pthread_key_create(&thread_ends, forget_thread);
}

struct waiting *handler_enter(void)
{
    struct waiting *waiting = waiting_now;
    if (waiting == NULL) {
        (void)pthread_once(&once, make_key);
        waiting = &own;
        if (own.state == NULL) {
            (void)PyGILState_Ensure();
            own.state = PyThreadState_Get();
            (void)pthread_setspecific(thread_ends, own.state);
            return waiting;
        }
    } else {
        waiting_now = waiting->outer;
    }
    if (!waiting->kept) PyEval_RestoreThread(waiting->state);
    return waiting;
}

void handler_leave(struct waiting *waiting)
{
    if (!waiting->kept) waiting->state = PyEval_SaveThread();
    if (waiting != &own) waiting_now = waiting;
}
