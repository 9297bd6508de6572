/* status: this process's page, which tools read at no cost to us. One per process, made with the first
 * service and gone with the last; status_layout.h says what is in it, place.h where it lies. Counters
 * come from counters.def. Nothing here is a system call but coming and going, and of a thousand
 * connections' coming only every 63rd.
 */
#ifndef PL_OBSERVE_STATUS_H
#define PL_OBSERVE_STATUS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct pl_counters {
#define PL_COUNTER(id, unit, help) _Atomic uint64_t id;
#include "observe/counters.def"
#undef PL_COUNTER
};

enum pl_counter {
#define PL_COUNTER(id, unit, help) PL_COUNTER_##id,
#include "observe/counters.def"
#undef PL_COUNTER
    PL_COUNTERS
};

struct pl_counter_info {
    const char *name, *unit, *help;
    bool gauge;
};
extern const struct pl_counter_info pl_counter_table[PL_COUNTERS];

/* One writer at a time per counter: a load and a store, no locked instruction. Relaxed: a reader wants
 * the number alone, nothing is published by it. */
static inline void pl_count(_Atomic uint64_t *counter, uint64_t by)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + by, memory_order_relaxed);
}

struct pl_status_service; /* all of this is thread-safe, but a removed object is gone */
struct pl_status_connection;

/* Never fail: without memory or room they return an unseen object whose counters still work; why is
 * logged once. In a forked child the parent's objects may be removed, which touches no page. */
struct pl_status_service *pl_status_service_add(const char *name, uint64_t id, const char *directory, int threads);
/* A topic that this process publishes, in all else like a service; its methods are the word that says how. */
struct pl_status_service *pl_status_topic_add(const char *name, uint64_t id, const char *directory);
void pl_status_service_set(struct pl_status_service *service, const char *urls, const char *methods);
/* Says whose worker serves it, and how often this number had to be started again. */
void pl_status_service_set_worker(struct pl_status_service *service, pid_t supervisor, unsigned worker,
                                  unsigned restarts);
/* NULL is fine. Its connections may be removed later; nobody sees them any more. */
void pl_status_service_remove(struct pl_status_service *service);

struct pl_status_peer {
    pid_t pid; /* 0 unknown */
    uid_t uid; /* (uid_t)-1 unknown */
    const char *transport, *framing;
    const char *name; /* process name or address */
};
struct pl_status_connection *pl_status_connection_add(struct pl_status_service *service,
                                                      const struct pl_status_peer *peer);
/* Adds the connection's counters (gauges not) to what the service's closed connections did and frees the
 * slot: whoever wrote the counters must be done with them. NULL is fine. */
void pl_status_connection_remove(struct pl_status_connection *connection);

/* The service's own counters are for what belongs to no connection (refused, accepted, a request over an
 * anonymous channel): readers show own + closed connections + living ones, so count each thing once. */
struct pl_counters *pl_status_service_counters(struct pl_status_service *service);
struct pl_counters *pl_status_connection_counters(struct pl_status_connection *connection);
/* This process's page as a file name in its place, "" without one; and another process's, to be read when it is dead.
 * 0 and *ret_fd, -errno with text. */
void pl_status_page_name(char name[17]);
int pl_status_page_open(const char *name, int *ret_fd);

uint64_t pl_status_connection_id(const struct pl_status_connection *connection); /* 0: out of memory */

/* ---- threads ---- */

enum pl_status_role { PL_STATUS_SERVES = 1, PL_STATUS_ACCEPTS = 2, PL_STATUS_POOL = 3, PL_STATUS_WATCHES = 4 };

/* What a thread handles, written by itself alone: three stores for each request, in a cache line of its own. */
struct pl_status_work {
    _Atomic uint64_t current; /* requests begun so far << 16 | the method's place in the service's list + 1, 0: idle */
    _Atomic uint64_t since;   /* ticks */
    _Atomic uint64_t service; /* whose request it is, or was last */
};

static inline void pl_status_work_begin(struct pl_status_work *work, unsigned method, uint64_t ticks)
{
    /* relaxed: this thread alone writes it */
    uint64_t count = (atomic_load_explicit(&work->current, memory_order_relaxed) >> 16) + 1;
    atomic_store_explicit(&work->since, ticks, memory_order_relaxed); /* relaxed: published by the next */
    /* OBR6: pairs with OBA2 in reader.c: who sees the request sees since when */
    atomic_store_explicit(&work->current, count << 16 | (method + 1), memory_order_release);
}

static inline void pl_status_work_end(struct pl_status_work *work)
{
    /* relaxed: this thread alone writes it, and it publishes nothing */
    uint64_t current = atomic_load_explicit(&work->current, memory_order_relaxed);
    atomic_store_explicit(&work->current, current & ~(uint64_t)UINT16_MAX,
                          memory_order_relaxed); /* relaxed: as above */
}

/* Shows the calling thread under NAME, with SERVICE as whose requests it handles; it must be removed before it ends,
 * by whom doesn't matter. As services and connections it never fails. */
struct pl_status_thread;
struct pl_status_thread *pl_status_thread_add(struct pl_status_service *service, enum pl_status_role role,
                                              const char *name);
void pl_status_thread_remove(struct pl_status_thread *thread); /* NULL is fine */
struct pl_status_work *pl_status_thread_work(struct pl_status_thread *thread);
uint64_t pl_status_service_id(const struct pl_status_service *service); /* what `work.service` says */

/* ---- pools ---- */

/* Written under the pool's lock. */
struct pl_status_queue {
    _Atomic uint64_t waiting; /* requests */
    _Atomic uint64_t oldest;  /* ticks when the first of them came; 0: none waits */
    _Atomic uint64_t taken;   /* requests that threads took out */
    _Atomic uint64_t refused; /* requests for which there was no room */
};

/* In the page that shows SERVICE. Never fails. */
struct pl_status_pool;
struct pl_status_pool *pl_status_pool_add(struct pl_status_service *service, const char *name, unsigned threads,
                                          unsigned capacity);
void pl_status_pool_remove(struct pl_status_pool *pool); /* NULL is fine */
struct pl_status_queue *pl_status_pool_queue(struct pl_status_pool *pool);

#endif
