/* pool: a bounded queue of deferred requests, and threads that handle them.
 *
 * One lock for everything; it is held for a few instructions, never while a handler runs or a request is deferred
 * or answered. Room in the queue is taken before the request is deferred, since a deferred one can't be given back.
 *
 * In a forked child the pool begins anew: what waits belongs to the parent, and no thread of it is there. The threads
 * start with the first request, so a pool that was opened before the workers were forked works in each of them.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/fork.h"
#include "base/options.h"
#include "loop/crash.h"
#include "loop/signal.h"
#include "server/server.h"
#include <plait/worker.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct item {
    plait_request *request;
    plait_handler *handler;
    void *context;
    uint64_t service, queued; /* ticks */
    unsigned method;
};

/* A method that is handled here. */
struct pooled {
    struct pl_list link;
    plait_pool *pool;
    plait_handler *handler;
    void *context;
};

struct plait_pool {
    pthread_mutex_t lock;
    pthread_cond_t more;  /* an item, or closing */
    pthread_cond_t begun; /* as many threads as run */
    struct pl_fork_hook hook;
    struct pl_list methods;
    char name[PLAIT_NAME_MAX + 1];
    unsigned threads, running; /* wanted; started */
    pthread_t *ids;
    unsigned index; /* of the next thread that begins; those before it are shown */
    uint32_t room, reserved, first, count;
    struct item *queue;
    struct pl_status_service *service; /* whose page shows it; used under the lock, and while threads start */
    struct pl_status_pool *shown;
    bool closing;
};

static void in_child(struct pl_fork_hook *hook)
{
    plait_pool *pool = pl_container_of(hook, plait_pool, hook);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->more, NULL);
    pthread_cond_init(&pool->begun, NULL);
    pool->running = pool->index = 0;
    pool->reserved = pool->first = pool->count = 0;
}

int plait_pool_open(plait_pool **ret_pool, const plait_pool_options *options)
{
    plait_pool_options known;
    int r = pl_options_read(&known, sizeof(known), options, "plait_pool_options");
    if (r < 0) return r;
    if (known.threads < 0 || known.threads > PLAIT_POOL_THREADS_MAX)
        return pl_error(-EINVAL, "threads=%d: 1 to %d (PLAIT_POOL_THREADS_MAX), 0 for as many as CPUs", known.threads,
                        PLAIT_POOL_THREADS_MAX);
    if (known.queue > PLAIT_POOL_QUEUE_MAX)
        return pl_error(-EINVAL, "queue=%u: at most PLAIT_POOL_QUEUE_MAX, %d", known.queue, PLAIT_POOL_QUEUE_MAX);
    const char *name = known.name && known.name[0] ? known.name : "pool";
    if (strlen(name) > PLAIT_NAME_MAX)
        return pl_error(-EINVAL, "a pool's name of %zu bytes: at most PLAIT_NAME_MAX, %d", strlen(name),
                        PLAIT_NAME_MAX);
    plait_pool *pool = calloc(1, sizeof(*pool));
    if (pool == NULL) return pl_error(-ENOMEM, "no memory for a pool");
    strcpy(pool->name, name);
    pool->threads = known.threads ? (unsigned)known.threads : (unsigned)pl_cpu_count();
    if (pool->threads > PLAIT_POOL_THREADS_MAX) pool->threads = PLAIT_POOL_THREADS_MAX;
    pool->room = known.queue ? known.queue : PLAIT_POOL_QUEUE_DEFAULT;
    pool->queue = malloc(pool->room * sizeof(*pool->queue));
    pool->ids = malloc(pool->threads * sizeof(*pool->ids));
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->more, NULL);
    pthread_cond_init(&pool->begun, NULL);
    pl_list_init(&pool->methods);
    pool->hook.in_child = in_child;
    r = pool->queue == NULL || pool->ids == NULL
            ? pl_error(-ENOMEM, "no memory for a pool of %u threads and %u requests", pool->threads, pool->room)
            : pl_fork_add(&pool->hook);
    if (r < 0) {
        plait_pool_close(pool);
        return r;
    }
    *ret_pool = pool;
    return 0;
}

/* ---- what is shown; lock held ---- */

static void show_queue(plait_pool *pool)
{
    struct pl_status_queue *queue = pl_status_pool_queue(pool->shown);
    /* relaxed: a reader wants each number alone */
    atomic_store_explicit(&queue->waiting, pool->count, memory_order_relaxed);
    atomic_store_explicit(&queue->oldest, pool->count ? pool->queue[pool->first].queued : 0, memory_order_relaxed);
}

/* ---- threads ---- */

static void *pool_main(void *argument)
{
    plait_pool *pool = argument;
    char name[PLAIT_NAME_MAX + 16];
    pthread_mutex_lock(&pool->lock);
    unsigned index = pool->index;
    struct pl_status_service *service = pool->service;
    snprintf(name, sizeof(name), "plait/%.5s/%u", pool->name, index);
    pthread_setname_np(pthread_self(), name);
    snprintf(name, sizeof(name), "plait/%s/%u", pool->name, index);
    struct pl_crash_stack *stack = pl_crash_stack_begin();
    struct pl_status_thread *shown = pl_status_thread_add(service, PL_STATUS_POOL, name);
    pool->index++;
    pthread_cond_signal(&pool->begun);
    while (!pool->closing) {
        if (pool->count == 0) {
            pthread_cond_wait(&pool->more, &pool->lock);
            continue;
        }
        struct item item = pool->queue[pool->first];
        pool->first = (pool->first + 1) % pool->room;
        pool->count--;
        pl_count(&pl_status_pool_queue(pool->shown)->taken, 1);
        show_queue(pool);
        pthread_mutex_unlock(&pool->lock);
        struct pl_status_work *work = pl_status_thread_work(shown);
        /* relaxed: this thread alone writes it */
        atomic_store_explicit(&work->service, item.service, memory_order_relaxed);
        pl_status_work_begin(work, item.method, pl_ticks());
        pl_request_run_deferred(item.request, item.handler, item.context);
        pl_status_work_end(work);
        pthread_mutex_lock(&pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    pl_status_thread_remove(shown);
    pl_crash_stack_end(stack);
    return NULL;
}

/* Lock held. The first request brings the page in which the pool is shown; it belongs to a server that may be closed as
 * soon as that request is answered, so all threads are shown before any of them goes on. */
static int start_threads(plait_pool *pool, struct pl_status_service *service)
{
    sigset_t before;
    int error = 0;
    if (pl_forked(&pool->hook)) {
        int r = pl_fork_add(&pool->hook);
        if (r < 0) return r;
    }
    pl_status_pool_remove(pool->shown); /* of the process before a fork */
    pool->shown = pl_status_pool_add(service, pool->name, pool->threads, pool->room);
    pool->service = service;
    pl_signal_block_all(&before);
    while (pool->running < pool->threads && error == 0) {
        error = pthread_create(&pool->ids[pool->running], NULL, pool_main, pool);
        if (error == 0) pool->running++;
    }
    while (pool->index < pool->running) pthread_cond_wait(&pool->begun, &pool->lock);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pool->running > 0) return 0; /* fewer do, too */
    return pl_error(-error, "pool %s: cannot start a thread: %s", pool->name, pl_error_word(error));
}

/* ---- requests ---- */

/* Takes a place in the queue, to be filled or given back. */
static int reserve(plait_pool *pool, struct pl_status_service *service)
{
    int r = 0;
    pthread_mutex_lock(&pool->lock);
    if (pool->closing) r = pl_error(-ESHUTDOWN, "pool %s is being closed", pool->name);
    if (r == 0 && pool->running == 0) r = start_threads(pool, service);
    if (r == 0 && pool->count + pool->reserved >= pool->room) {
        r = pl_error(-EBUSY, "pool %s: %u requests wait already (queue=%u)", pool->name, pool->count, pool->room);
        pl_count(&pl_status_pool_queue(pool->shown)->refused, 1);
    }
    if (r == 0) pool->reserved++;
    pthread_mutex_unlock(&pool->lock);
    return r;
}

int plait_pool_submit(plait_pool *pool, plait_request *request, plait_handler *handler, void *context)
{
    struct item item = { .handler = handler, .context = context };
    if (handler == NULL) return pl_error(-EINVAL, "pool %s: no handler was given", pool->name);
    const struct plait_server *server = pl_request_hold_server(request);
    if (server == NULL) return -ECONNRESET;
    item.service = pl_status_service_id(server->status);
    item.method = request->method ? (unsigned)(request->method - server->methods) : 0;
    int r = reserve(pool, server->status);
    pl_request_let_go(request);
    if (r < 0) return r;
    r = plait_request_defer(request, &item.request);
    pthread_mutex_lock(&pool->lock);
    pool->reserved--;
    bool late = r == 0 && pool->closing;
    if (r == 0 && !late) {
        item.queued = pl_ticks();
        pool->queue[(pool->first + pool->count++) % pool->room] = item;
        show_queue(pool);
        pthread_cond_signal(&pool->more);
    }
    pthread_mutex_unlock(&pool->lock);
    if (late) pl_request_refuse_deferred(item.request, PL_STATUS_GONE);
    return r;
}

static void submit_pooled(plait_request *request, void *context)
{
    struct pooled *pooled = context;
    int r = plait_pool_submit(pooled->pool, request, pooled->handler, pooled->context);
    if (r < 0) pl_request_busy(request, pl_error_text());
}

int plait_pool_handle(plait_pool *pool, plait_server *server, const char *method, plait_handler *handler, void *context)
{
    struct pooled *pooled = calloc(1, sizeof(*pooled));
    if (pooled == NULL) return pl_error(-ENOMEM, "no memory for a method");
    *pooled = (struct pooled){ .pool = pool, .handler = handler, .context = context };
    int r = plait_server_handle(server, method, handler ? submit_pooled : NULL, pooled);
    if (r < 0) {
        free(pooled);
        return r;
    }
    pthread_mutex_lock(&pool->lock);
    pl_list_append(&pool->methods, &pooled->link);
    pthread_mutex_unlock(&pool->lock);
    return 0;
}

void plait_pool_close(plait_pool *pool)
{
    if (pool == NULL) return;
    pthread_mutex_lock(&pool->lock);
    pool->closing = true;
    pthread_cond_broadcast(&pool->more);
    for (; pool->count > 0; pool->count--, pool->first = (pool->first + 1) % pool->room) {
        plait_request *request = pool->queue[pool->first].request;
        pthread_mutex_unlock(&pool->lock);
        pl_request_refuse_deferred(request, PL_STATUS_GONE);
        pthread_mutex_lock(&pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->running; i++) pthread_join(pool->ids[i], NULL);
    pl_status_pool_remove(pool->shown);
    pl_fork_remove(&pool->hook);
    struct pl_list *item;
    while ((item = pl_list_take(&pool->methods)) != NULL) free(pl_container_of(item, struct pooled, link));
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->more);
    pthread_cond_destroy(&pool->begun);
    free(pool->queue);
    free(pool->ids);
    free(pool);
}
