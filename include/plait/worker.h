/* Workers: processes that serve side by side, and threads for handlers that take long. */
#ifndef PLAIT_WORKER_H
#define PLAIT_WORKER_H

#include <plait/service.h>

#ifdef __cplusplus
extern "C" {
#endif

/* As in service.h, whichever comes first. */
typedef struct plait_server plait_server;
typedef struct plait_server_options plait_server_options;
typedef struct plait_request plait_request;
typedef void plait_handler(plait_request *request, void *context);

/* ---- processes ----------------------------------------------------------------------
 *
 * With plait_server_options.processes = N, plait_server_run() makes its caller a supervisor: it
 * handles nothing itself, but forks N workers, each an instance of the name with the server's
 * methods and threads, and keeps them alive. The program is written as for one process:
 *
 *     options.processes = 4;
 *     plait_server_open(&server, "greeter", &options);
 *     plait_server_handle(server, "greet", greet, NULL);
 *     plait_server_listen(server, "tcp://127.0.0.1:8888");      opened once, shared by all workers
 *     plait_server_run(server);                                 returns in the supervisor alone
 *
 * - What the program set up before run is each worker's own copy from there on. Workers are forked
 *   before any thread is started: let the program start none before run, but in the `start` hook.
 * - A worker that dies is started again: at once, then with a growing pause (to 5 s). restart_burst
 *   deaths within PLAIT_RESTART_WINDOW_MS end it all: run returns -EOWNERDEAD, and the text tells
 *   the last one's signal and call. Every death is told by the log (PLAIT_LOG_ERROR): "greeter:
 *   worker 3 (pid 4711) died: signal 11 (...), call 812 of greeter/greet in progress".
 * - A death ends only the calls that this worker had begun: -ECONNRESET at once, and the text says
 *   who died of what; idempotent ones go to another instance. A crash signal (SIGSEGV, SIGBUS,
 *   SIGFPE, SIGILL, SIGABRT, where they are at SIG_DFL) is told before a core is written.
 * - SIGTERM, SIGINT and plait_server_stop() stop all workers in good order. One that doesn't stop
 *   within its grace is killed, and run returns -ETIMEDOUT: the text names its handler.
 * - SIGHUP (at SIG_DFL) replaces the workers one after the other: a new one serves before the old
 *   one takes no more calls, so none fails.
 * - Workers end when the supervisor does, however it ends. A worker ends with _exit(), after
 *   fflush(NULL): what atexit() was given is the supervisor's. SIGTERM to a worker makes it drain
 *   and end; it is then started again.
 * - plait_server_start, fd and dispatch are -EINVAL for such a server. */
#define PLAIT_PROCESSES_MAX 64
#define PLAIT_RESTART_BURST 5
#define PLAIT_RESTART_WINDOW_MS 10000

/* What a program has to do with its workers; each may be NULL. CONTEXT goes to all of them. */
typedef struct plait_worker_hooks {
    size_t size;
    /* In the supervisor, once, when all workers serve for the first time. */
    void (*ready)(plait_server *server, void *context);
    /* In each worker, before it has threads or can be called: opens what a process needs of its own
     * (clients, files, random numbers). Negative: this worker can't serve; counts as a death. */
    int (*start)(plait_server *server, int worker, void *context);
    /* Called instead of fork(), by languages that have to know of it. As fork(): 0 in the child. */
    int (*fork)(void *context);
    void *context;
    /* In each worker that ends in good order, when its handlers are through. */
    void (*end)(plait_server *server, int worker, void *context);
    /* In the supervisor, whenever it woke up, also because ATTEND_FD (-1: none) is readable, which this is to read.
     * For what must not wait until run returns; it may call plait_server_stop(). */
    void (*attend)(plait_server *server, void *context);
    int attend_fd;
    /* Called instead of forking: starts a program, mostly this one anew, that becomes the worker. It inherits the
     * descriptor CONTROL, which is close-on-exec here, and gives it to plait_server_open_worker(). Returns its pid, a
     * child of this process; -1 with errno. Where threads run already, or memory isn't to be shared with them. */
    int (*spawn)(plait_server *server, int control, void *context);
} plait_worker_hooks;
#define PLAIT_WORKER_HOOKS_INIT                                                                                        \
    {                                                                                                                  \
        .size = sizeof(plait_worker_hooks), .attend_fd = -1                                                            \
    }

/* Before run. HOOKS is copied. Errors: -EINVAL, -E2BIG, -EBUSY (running). */
int plait_server_workers(plait_server *server, const plait_worker_hooks *hooks);

/* In a program that a `spawn` hook started: opens, in place of plait_server_open, the supervisor's server as one of its
 * workers, with its name and listeners; `exclusive` and `processes` of OPTIONS are the supervisor's, too. Takes
 * CONTROL, whatever it returns. Then as ever: plait_server_handle, plait_server_workers (start, end), plait_server_run,
 * which returns when this worker is to end; the program then exits, with 0 if all is well. Until it runs it is killed
 * if the supervisor dies. Errors: as plait_server_open; -ECONNRESET (the supervisor is gone), -EPROTO (CONTROL is
 * something else, or another version's). */
int plait_server_open_worker(plait_server **ret_server, int control, const plait_server_options *options);

/* For a `start` hook that can't go on: what plait_error_text() says afterwards, and run's caller is told. Returns CODE.
 */
int plait_worker_fail(int code, const char *text);

/* The number of the worker that this process is, from 1; 0 in a supervisor and without processes. A
 * worker that takes another's place has its number. Thread-safe, also from handlers. */
int plait_server_worker(const plait_server *server);

/* ---- pool ---------------------------------------------------------------------------
 *
 * A pool is a bounded queue of requests and threads that handle them, so that the server's own
 * threads (reactors) stay free for requests that are quick, new connections, cancellations. The
 * queue's length, and for how long its first request has waited, is shown by `plait ls NAME`.
 *
 * One pool may serve several methods and servers. Thread-safe. It starts its threads with its
 * first request, in each process by itself: unlike other objects it may be opened before fork()
 * and used in the child, where it begins empty. Close it after the servers that it works for; until
 * then handlers may run, and their contexts must live, also those of servers that are closed. */
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
 * -ENOMEM, -ESHUTDOWN (being closed), -ECONNRESET (in a pooled handler: the caller and perhaps the server are gone). */
int plait_pool_submit(plait_pool *pool, plait_request *request, plait_handler *handler, void *context);

/* Fails what waits, waits for what is being handled, frees. NULL is fine. */
void plait_pool_close(plait_pool *pool);

#ifdef __cplusplus
}
#endif

#endif
