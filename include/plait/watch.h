/* Watching: who serves what, who is connected, what goes through. Reads the status pages
 * (docs/status.md), so it costs the observed programs nothing and is right also while they are
 * stopped. Shown is what lives and may be read: each user sees their own services, root sees
 * root's. A process that found no room for its page serves unseen, and says so in its log. */
#ifndef PLAIT_WATCH_H
#define PLAIT_WATCH_H

#include <plait/plait.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct plait_watch plait_watch;

/* A picture taken now; every pointer below lives until plait_watch_close(). */
typedef struct plait_watch_connection {
    const char *service;   /* whose connection this is */
    uint64_t id;           /* unique within its process */
    int32_t peer_pid;      /* 0 if unknown */
    uint32_t peer_uid;     /* UINT32_MAX if unknown */
    const char *peer;      /* process name or network address */
    const char *transport; /* shm, unix, tcp, udp (one for all who send datagrams to a listener) */
    const char *framing;   /* plait, raw, lines, length, datagram */
    uint64_t connected_ms; /* Unix time, ms */
    uint64_t requests, replies, bytes_in, bytes_out;
    uint64_t errors;      /* failure replies and breaches of the protocol */
    uint64_t outstanding; /* requests taken and not answered yet */
} plait_watch_connection;

typedef struct plait_watch_instance {
    const char *service;
    uint64_t id; /* 64 random bits, names its runtime entries */
    int32_t pid;
    uint32_t uid;
    const char *process;   /* the process's name */
    const char *language;  /* "c" */
    const char *version;   /* the library's */
    uint64_t started_ms;   /* Unix time, ms */
    const char *directory; /* where its entry lies */
    const char *urls;      /* listeners, separated by spaces; "" if none */
    const char *methods;   /* separated by spaces */
    uint64_t requests, failures, dropped, bytes_in, bytes_out, protocol_errors; /* totals */
    uint64_t published;                                                         /* of a topic: messages */
    uint64_t stuck; /* of a topic: subscribers that a reliable publisher went on without */
    int32_t threads;
    int32_t stopped; /* 1: the process is stopped (SIGSTOP) */
    size_t connection_count;
    const plait_watch_connection *connections;
    uint64_t lost;      /* datagrams, requests and replies, that the kernel dropped here */
    int32_t supervisor; /* pid of the process that restarts it; 0: none does */
    uint32_t worker;    /* its number there, from 1; 0: none */
    uint32_t restarts;  /* how often that number had to be started again */
    uint32_t reserved;
    uint64_t busy_us; /* how long the request that is handled longest has been; 0: none is */
} plait_watch_instance;

/* A thread that serves, of any process that is listed and whose pid means something here. */
typedef struct plait_watch_thread {
    int32_t pid;
    int32_t tid;          /* native thread id */
    uint64_t library_id;  /* pthread_self() in its process; Python: threading.get_ident() */
    const char *name;     /* "plait/NAME/0" */
    const char *role;     /* serves, accepts, pool, watches */
    const char *service;  /* whose request it handles or handled last; "" unknown */
    const char *method;   /* of the request that it handles, "" the default one; NULL: it handles none */
    uint64_t handling_us; /* for how long */
    uint64_t handled;     /* requests begun so far */
} plait_watch_thread;

/* A pool of such a process, see <plait/worker.h>. */
typedef struct plait_watch_pool {
    int32_t pid;
    uint32_t threads, capacity; /* capacity: requests that may wait */
    const char *name;
    uint64_t waiting;   /* requests that wait now */
    uint64_t oldest_us; /* for how long the first of them has */
    uint64_t taken;     /* requests that its threads began */
    uint64_t refused;   /* requests for which there was no room */
} plait_watch_pool;

/* NAME NULL: all. Sorted by service, then age. Errors: -ENOMEM, -EMFILE, and where the own runtime
 * directory is refused and no other is there: -EACCES, -EPERM, -ELOOP, -ENOTDIR, -EINVAL. An absent
 * name is an empty list. */
int plait_watch_open(plait_watch **ret_watch, const char *name);
size_t plait_watch_count(const plait_watch *watch);
const plait_watch_instance *plait_watch_at(const plait_watch *watch, size_t index);

/* The publishers of topics: `service` is the topic, `methods` is "latest" or "reliable", `connections` are the
 * subscribers. */
size_t plait_watch_topic_count(const plait_watch *watch);
const plait_watch_instance *plait_watch_topic_at(const plait_watch *watch, size_t index);
size_t plait_watch_thread_count(const plait_watch *watch);
const plait_watch_thread *plait_watch_thread_at(const plait_watch *watch, size_t index);
size_t plait_watch_pool_count(const plait_watch *watch);
const plait_watch_pool *plait_watch_pool_at(const plait_watch *watch, size_t index);
void plait_watch_close(plait_watch *watch);

/* The runtime directories in the order in which they are searched; NULL beyond the last. Static
 * text per thread, valid until the next call. EXISTS may be NULL. */
const char *plait_watch_directory(size_t index, int *ret_exists);

#ifdef __cplusplus
}
#endif

#endif
