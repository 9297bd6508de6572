/* Workers: threads for handlers that take long. */
#ifndef PLAIT_WORKER_H
#define PLAIT_WORKER_H

#include <plait/service.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- pool ---------------------------------------------------------------------------
 *
 * A pool is a bounded queue of requests and threads that handle them, so that the server's own
 * threads (reactors) stay free for requests that are quick, new connections, cancellations. The
 * queue's length, and for how long its first request has waited, is shown by `plait ls NAME`.
 *
 * One pool may serve several methods and servers. Thread-safe. It starts its threads with its
 * first request, in each process by itself: unlike other objects it may be opened before fork()
 * and used in the child, where it begins empty. Close it after the servers that it works for. */
typedef struct plait_pool plait_pool;

#define PLAIT_POOL_THREADS_MAX 256
#define PLAIT_POOL_QUEUE_MAX 1048576
#define PLAIT_POOL_QUEUE_DEFAULT 1024

typedef struct plait_pool_options {
    size_t size;
    int32_t threads;  /* 0: as many as there are CPUs; at most PLAIT_POOL_THREADS_MAX */
    uint32_t queue;   /* requests that wait at most; 0: PLAIT_POOL_QUEUE_DEFAULT */
    const char *name; /* shown to those who look, also as the threads' name; default "pool" */
} plait_pool_options;
#define PLAIT_POOL_OPTIONS_INIT                                                                                        \
    {                                                                                                                  \
        .size = sizeof(plait_pool_options)                                                                             \
    }

/* Errors: -EINVAL (options; the text names the limit), -ENOMEM. */
int plait_pool_open(plait_pool **ret_pool, const plait_pool_options *options);

/* As plait_server_handle, but HANDLER runs on a thread of POOL. Where the queue is full the caller
 * gets -EBUSY. In there plait_request_defer and all else work as in any handler. A request whose
 * time is over before its turn, or whose caller has gone, isn't handled. Errors as
 * plait_server_handle, and -ENOMEM. */
int plait_pool_handle(plait_pool *pool, plait_server *server, const char *method, plait_handler *handler,
                      void *context);

/* Within a handler: gives REQUEST to the pool, which calls HANDLER for it; the handler that calls
 * this is done with it then. Errors: -EBUSY (the queue is full) and -EAGAIN (no thread could be
 * started): the request is still the caller's, to be answered; -EALREADY (answered or deferred),
 * -ENOMEM, -ESHUTDOWN (being closed). */
int plait_pool_submit(plait_pool *pool, plait_request *request, plait_handler *handler, void *context);

/* Fails what waits, waits for what is being handled, frees. NULL is fine. */
void plait_pool_close(plait_pool *pool);

#ifdef __cplusplus
}
#endif

#endif
