/* server: what server.c, closing.c and workers.c share. */
#ifndef PLAIT_PYTHON_SERVER_H
#define PLAIT_PYTHON_SERVER_H

#include "binding.h"

#include <pthread.h>

struct server {
    struct life life;
    struct handler *handlers;
    struct server *next, *previous; /* of all that are open; under the GIL */
    unsigned round;                 /* of server_dispatch_own */
    pthread_t loop_thread;          /* of the event loop that serves it, where `looped` */
    bool started, deferring, looped;
    int bell, usual[2]; /* of _supervise */
    PyObject *error;    /* what a handler raised that must end run(): KeyboardInterrupt, SystemExit */
};

/* What a dispatch came to, R: raises, or how many requests there were; None (-ESHUTDOWN): it has stopped. Leaves. */
PyObject *server_served(struct server *self, int r);

/* ---- closing.c ---- */
/* Waits at most LIMIT_MS (0: any time); the closing goes on then. 0; -1: a signal's exception is set; 1: the limit. */
int close_aside(plait_server *handle, int limit_ms);

/* ---- workers.c ---- */
/* _supervise(bell, sigint, sigterm, spawns): plait_server_run with workers. BELL (not blocking) is readable when a
 * signal came; the signals, 0 for none, are those that workers leave to the library. */
PyObject *server_supervise(struct server *self, PyObject *args);
/* _run_worker(): the same in a worker that is an interpreter of its own. */
PyObject *server_run_worker(struct server *self, PyObject *unused);

#endif
