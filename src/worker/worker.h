/* worker: what the files of this folder share.
 *
 * workers.c     the public functions; plait_server_run() of either kind
 * supervisor.c  the loop that keeps N places filled: deaths, pauses, rolling, stop
 * spawn.c       one worker is born: fork, what it gets, what it must let go of
 * adopt.c       the other way of being born: a program of its own that gets everything by the socket
 * child.c       the worker's own life: hooks, serving, a thread that heeds the supervisor
 * death.c       what a worker died of, in words
 * pool.c        threads for handlers that take long
 *
 * Supervisor and worker share a socket (orders one way, news the other) and the worker's load page, in which its
 * death is noted for its clients. The supervisor reads the worker's status page, dead or alive, for what it handles.
 */
#ifndef PL_WORKER_WORKER_H
#define PL_WORKER_WORKER_H

#include "server/server.h"

enum {
    PL_RESTART_MS = 100,       /* the pause before a second start soon after a death; doubles */
    PL_RESTART_MOST_MS = 5000, /* its limit */
    PL_KILL_MS = 2000,         /* beyond the grace, when a worker should have given up by itself */
    PL_ORPHAN_MS = 1000        /* a worker's grace when its supervisor is gone */
};

/* What goes over the socket. A worker may be killed at any time, and then nothing comes. */
enum pl_worker_news { PL_WORKER_READY = 1, PL_WORKER_FAILED = 2 };
struct pl_worker_message {
    uint32_t news;
    int32_t code;   /* of a failure */
    char text[480]; /* its text; READY: the status page's name */
};
struct pl_worker_order {
    int64_t grace; /* the only one: stop */
};

/* What a worker that was spawned finds in its socket, with its load page and the name's lock; behind it as many
 * messages as listeners, each a URL with its socket. */
#define PL_WORKER_SEED UINT64_C(0x64656573746c6c70) /* "plltseed" */
struct pl_worker_seed {
    uint64_t magic;
    char version[16];
    uint32_t number, restarts, listeners;
    int32_t supervisor;
    char name[PLAIT_NAME_MAX + 1];
};

struct pl_supervisor;
struct pl_seat;

/* One process. */
struct pl_worker {
    struct pl_list link; /* supervisor->workers */
    struct pl_supervisor *supervisor;
    struct pl_seat *seat;
    unsigned number;
    pid_t pid;
    struct pl_source process, control; /* pidfd and socket */
    int theirs;                        /* the socket's other end, until the fork */
    struct pl_load_page *load;
    int load_fd;
    int page_fd; /* its status page, or -1 */
    bool ready, asked, killed;
    uint64_t since;   /* ns */
    int64_t grace_ms; /* when it was asked to stop */
    struct pl_timer kill_timer;
    struct pl_worker_message failure; /* code 0: none was told */
};

/* A place that is to be filled. */
struct pl_seat {
    struct pl_supervisor *supervisor;
    unsigned number, restarts, quick; /* quick: deaths, each soon after the start before it */
    struct pl_worker *holder, *successor;
    struct pl_timer restart_timer;
};

struct pl_supervisor {
    struct plait_server *server;
    struct pl_loop loop;
    struct pl_source wake, attended; /* the server's wake_fd; the program's attend_fd */
    int ticket;                      /* of signals */
    struct pl_list workers;
    struct pl_seat *seats;
    unsigned count, rolling; /* rolling: the seat that is being changed + 1; 0: none */
    bool up, stopping;
    uint64_t *deaths; /* ns; the last restart_burst of them, a ring */
    unsigned death_count;
    int result;
    char text[1500]; /* of the result */
};

int pl_supervise(struct plait_server *server);

/* ---- spawn.c ---- */
/* Forks a worker for SEAT. In the worker it never returns. 0 and *ret_worker, -EAGAIN, -EMFILE, -ENOMEM, ... */
int pl_worker_spawn(struct pl_seat *seat, struct pl_worker **ret_worker);
/* Lets go of what the supervisor has of it, but not of the process. */
void pl_worker_free(struct pl_worker *worker);

/* ---- adopt.c ---- */
int pl_worker_send_seed(const struct pl_worker *worker); /* -errno with text */

/* ---- child.c ---- */
/* Dies with PARENT, whatever it is busy with. -ECONNRESET: that is gone already. Until it serves; then it heeds. */
int pl_worker_bind(pid_t parent);
int pl_worker_serve(struct plait_server *server, int control); /* takes CONTROL; 0 or -errno with text, which is told */
void pl_worker_live(struct plait_server *server, int control) __attribute__((noreturn));

/* ---- death.c ---- */
/* "worker 3 (pid 4711) died: signal 11 (Segmentation fault), call 812 of greeter/greet in progress" */
void pl_worker_tell_death(const struct pl_worker *worker, uint64_t death, char *text, size_t size);
/* "call 812 of greeter/greet in progress for 12 ms", or "" */
void pl_worker_tell_work(const struct pl_worker *worker, uint32_t thread, char *text, size_t size);

#endif
