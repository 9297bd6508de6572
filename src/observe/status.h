/* status: this process's page, which tools read at no cost to us. One per process, made with the first
 * service, a file on tmpfs named by ID (own directory's status/, or under /dev/shm where that isn't tmpfs);
 * without room it is anonymous memory, said once. Counters come from counters.def.
 */
#ifndef PL_OBSERVE_STATUS_H
#define PL_OBSERVE_STATUS_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

struct pl_counters {
#define PL_COUNTER(id, unit, help) _Atomic uint64_t id;
#include "observe/counters.def"
#undef PL_COUNTER
};

/* One writer at a time per counter: a load and a store, no locked instruction. Relaxed: a reader wants
 * the number alone, nothing is published by it. */
static inline void pl_count(_Atomic uint64_t *counter, uint64_t by)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + by, memory_order_relaxed);
}

struct pl_status_service;    /* thread-safe as a whole */
struct pl_status_connection;

/* Never fail: without memory or room they return an unseen object whose counters still work. */
struct pl_status_service *pl_status_service_add(const char *name, uint64_t id, const char *directory, int threads);
void pl_status_service_set(struct pl_status_service *service, const char *urls, const char *methods);
void pl_status_service_remove(struct pl_status_service *service); /* NULL is fine */

struct pl_status_peer {
    pid_t pid;             /* 0 unknown */
    uid_t uid;             /* (uid_t)-1 unknown */
    const char *transport, *framing;
    const char *name;      /* process name or address */
};
struct pl_status_connection *pl_status_connection_add(struct pl_status_service *service, const struct pl_status_peer *peer);
/* Adds the connection's counters to the service's and frees the slot. */
void pl_status_connection_remove(struct pl_status_connection *connection);

struct pl_counters *pl_status_service_counters(struct pl_status_service *service);
struct pl_counters *pl_status_connection_counters(struct pl_status_connection *connection);
uint64_t pl_status_connection_id(const struct pl_status_connection *connection);

#endif
