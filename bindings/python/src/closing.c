/* closing: a server's close waits for its handlers, which need the GIL and may take any time. So a thread of its own
 * does it, and a signal, or a limit, ends our wait for that. */
#include "server.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

enum { LOOK_MS = 50 };

struct closing {
    plait_server *handle;
    pthread_mutex_t lock;
    pthread_cond_t over;
    bool done, left; /* `left`: nobody waits any more, whoever comes last frees */
};

static void free_closing(struct closing *closing)
{
    pthread_mutex_destroy(&closing->lock);
    pthread_cond_destroy(&closing->over);
    free(closing);
}

static void *close_handle(void *argument)
{
    struct closing *closing = argument;
    plait_server_close(closing->handle);
    pthread_mutex_lock(&closing->lock);
    closing->done = true;
    bool left = closing->left;
    pthread_cond_signal(&closing->over);
    pthread_mutex_unlock(&closing->lock);
    if (left) free_closing(closing);
    return NULL;
}

static bool wait_for_look(struct closing *closing)
{
    struct timespec until;
    PyThreadState *state = PyEval_SaveThread();
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += LOOK_MS * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&closing->lock);
    if (!closing->done) (void)pthread_cond_timedwait(&closing->over, &closing->lock, &until);
    bool done = closing->done;
    pthread_mutex_unlock(&closing->lock);
    PyEval_RestoreThread(state);
    return done;
}

int close_aside(plait_server *handle, int limit_ms)
{
    pthread_t thread;
    int r = 0;
    struct closing *closing = calloc(1, sizeof(*closing));
    if (closing == NULL) {
        (void)PyErr_NoMemory();
        return -1;
    }
    closing->handle = handle;
    pthread_mutex_init(&closing->lock, NULL);
    pthread_cond_init(&closing->over, NULL);
    if (pthread_create(&thread, NULL, close_handle, closing) != 0) {
        struct waiting waiting;
        waiting_begin(&waiting);
        (void)close_handle(closing);
        waiting_end(&waiting);
        free_closing(closing);
        return 0;
    }
    for (int waited = 0; r == 0 && !wait_for_look(closing); waited += LOOK_MS) {
        if (PyErr_CheckSignals() < 0) r = -1;
        else if (limit_ms > 0 && waited >= limit_ms) r = 1;
    }
    if (r == 0) {
        (void)pthread_join(thread, NULL);
    } else {
        pthread_detach(thread);
        pthread_mutex_lock(&closing->lock);
        bool done = closing->done;
        closing->left = true;
        pthread_mutex_unlock(&closing->lock);
        if (!done) return r;
    }
    free_closing(closing);
    return r;
}
