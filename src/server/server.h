/* server: what the files of this folder share.
 *
 * server.c    open, handle, listen, close
 * run.c       start, run, stop, waiting for the end; a foreign loop
 * listener.c  accepting, greeting, refusing; which reactor gets a connection
 * reactor.c   a thread's loop: serve who is awake, spin, sleep
 * session.c   one client's connection: frames in, order, pauses, end
 * request.c   one request: the handler, its answer, deferral
 *
 * Who may touch what: a session belongs to its reactor's thread. Another thread may only answer a
 * deferred request: under the session's send_lock, which the reactor takes, too, while any of the session's
 * requests is deferred (`deferred_count`), and knocks (reactor inbox) when the reactor has to go on.
 */
#ifndef PL_SERVER_SERVER_H
#define PL_SERVER_SERVER_H

#include "base/fork.h"
#include "base/list.h"
#include "base/spin.h"
#include "connection/connection.h"
#include "connection/handshake.h"
#include "loop/alarm.h"
#include "loop/loop.h"
#include "loop/wake.h"
#include "naming/claim.h"
#include "observe/status.h"
#include "shm/load.h"
#include <plait/plait.h>
#include <pthread.h>
#include <stdatomic.h>

enum {
    PL_UNGREETED_MAX = 64, /* connections without a hello; the oldest is dropped */
    PL_HELLO_MS = 1000,    /* a hello's deadline */
    PL_STALL_MS = 10000,   /* a message in the middle without progress */
    PL_GRACE_MS = 5000,
    PL_OUTSTANDING_DEFAULT = 1024,
    PL_THREADS_MAX = 64,
    PL_WORKER_LISTENERS = 2, /* of a name: its directories */
    PL_LISTENERS_MAX = 64,
    PL_BATCH = 64,       /* frames of one session before the others' turn */
    PL_SPIN_SESSIONS = 8 /* a reactor spins only while few are awake */
};
#define PL_NETWORK_MESSAGE_DEFAULT ((uint64_t)16 << 20)

struct pl_method {
    char name[PLAIT_NAME_MAX + 1];
    plait_handler *handler;
    void *context;
};

struct pl_listener {
    struct pl_source source;
    struct plait_server *server;
    struct pl_url url;
    const struct pl_method *method; /* of framings without names; resolved at start */
    uint64_t max_message;
    bool name_socket; /* of the claim: Unix, plait framing, uid checked */
    bool paused;      /* no descriptor was free */
    char text[1400];
};

struct pl_reactor {
    struct plait_server *server;
    unsigned index;
    pthread_t thread; /* that runs the loop; of a foreign loop the one that did last */
    bool started;
    struct pl_status_thread *shown;        /* NULL: no thread runs it */
    _Atomic(struct pl_status_work *) work; /* lives until deinit */
    struct pl_loop loop;
    struct pl_wake wake;
    struct pl_alarm alarm; /* of a foreign loop */
    struct pl_spin spin;
    struct pl_list sessions; /* all of this reactor */
    struct pl_list awake;    /* which may have something to receive */
    struct pl_list ended;    /* sessions to let go of at the end of the round */
    struct pl_list stalled;  /* in the middle of a message */
    unsigned awake_count;
    struct pl_timer stall_timer;
    struct pl_timer grace_timer;
    uint64_t looked;      /* ticks at the last look at epoll */
    uint64_t now;         /* ticks when this round began, or when its last handler ended and somebody asked */
    uint64_t now_handled; /* `handled` at that time */
    uint64_t handled;     /* requests */
    bool draining, over;
    bool told; /* epoll told something since this wait began */
    pthread_mutex_t inbox_lock;
    struct pl_list inbox;  /* sessions: new ones, and those that may go on */
    _Atomic unsigned load; /* sessions, those in the inbox included */
};

struct plait_server {
    char name[PLAIT_NAME_MAX + 1];
    struct pl_fork_hook fork_hook;
    bool forked;
    struct pl_claim claim;
    struct pl_allow allow;
    struct pl_method *methods;
    uint32_t method_count;
    const struct pl_method *fallback, *any; /* "" or the only one; "*" */
    uint8_t *table;                         /* the method table as the hello carries it */
    size_t table_size;
    struct pl_listener *listeners[PL_LISTENERS_MAX];
    unsigned listener_count; /* the claim's come first */
    unsigned name_listeners;
    unsigned thread_count;  /* that handle */
    unsigned reactor_count; /* with more than one of those, one more that accepts and greets */
    struct pl_reactor *reactors;
    struct pl_reactor *acceptor; /* the last */
    _Atomic uint32_t running;    /* threads of ours in their loops: a futex */
    _Atomic bool accept_over;    /* of a stop: no more sessions come */
    bool abandoned;              /* a handler never came back: its thread still uses all of this */
    uint64_t max_message, inbound_max;
    bool max_message_given;
    uint32_t outstanding_max;
    _Atomic uint64_t inbound;   /* bytes of large messages admitted */
    _Atomic uint32_t throttled; /* sessions that wait for inbound bytes */
    struct pl_load_page *load;
    int load_fd;
    struct pl_status_service *status;
    pthread_mutex_t status_lock; /* for the service's own counters */

    /* Greeting, the acceptor's */
    struct pl_list greetings;
    unsigned greeting_count;
    struct pl_timer accept_timer; /* listeners come back */
    _Atomic bool accept_paused;   /* relaxed: the acceptor's; others knock if they see it */

    /* Processes: in the supervisor, and with `worker` in a worker */
    int processes; /* 0: none */
    int restart_burst;
    int64_t spin_us;
    bool exclusive;
    bool spawning;   /* the fork that happens now is ours: listeners and the new worker's page stay */
    bool spawned;    /* a worker that a program of its own opened */
    int control_fd;  /* ... and not run yet: to its supervisor; else -1 */
    int name_lock;   /* of a worker: the supervisor's, which holds the name until its last worker has ended; or -1 */
    unsigned worker; /* its number; 0: the supervisor, or none */
    unsigned restarts;
    pid_t supervisor;
    int wake_fd; /* the supervisor's, or -1: for stop */
    plait_worker_hooks hooks;
    void (*serving)(struct plait_server *server); /* called once when everything is up */

    enum { PL_SERVER_OPEN, PL_SERVER_RUNNING, PL_SERVER_ENDED } state;
    bool foreign_loop;
    _Atomic int stopping; /* 1: asked to */
    _Atomic int64_t grace;
    bool withdrawn;
};

enum {
    PL_PAUSE_PARKED = 1, /* replies wait for room */
    PL_PAUSE_FULL = 2,   /* `outstanding` requests are deferred */
    PL_PAUSE_ORDER = 4,  /* framing without ids: one at a time */
    PL_PAUSE_INBOUND = 8 /* no inbound bytes are free */
};

struct pl_session {
    struct pl_connection connection;
    struct plait_server *server;
    struct pl_fork_hook fork_mark; /* a copy, for pl_forked alone: deferred requests may outlive the server */
    struct pl_reactor *reactor;
    struct pl_list link, awake, stall, knock;
    const struct pl_method *method; /* idless */
    const char *method_name;        /* idless: what the listener's URL says, or the method's own */
    bool idless;
    bool datagrams;        /* idless, but answers may come in any order: see pl_origin */
    bool throttled;        /* counted in server->throttled */
    bool is_awake, listed; /* in reactor->awake; in reactor->sessions */
    unsigned paused;       /* PL_PAUSE_ bits */
    bool input_over;       /* END: answer what was taken, then close */
    bool drained;          /* GOAWAY is sent */
    uint64_t taken;        /* CALL and SEND frames */
    uint64_t taken_limit;  /* after GOAWAY */
    uint64_t reply_limit;  /* the client's */
    uint64_t admitted;     /* inbound bytes of the message being received */
    uint64_t stall_moved, stall_since;
    uint64_t seen;    /* ticks when the message at hand was seen first */
    uint64_t emptied; /* ticks when nothing was there last: what comes next came after that */

    pthread_mutex_t send_lock;
    _Atomic uint32_t deferred_count;
    struct pl_list deferred;  /* requests */
    struct pl_list parked;    /* replies */
    bool dead;                /* the transport is gone */
    _Atomic bool lost_answer; /* it must end, for its client would take the next answer for this one */
    bool knocking;            /* in the inbox; under inbox_lock */
    _Atomic bool waits;       /* the reactor wants to hear of the next answer */
    _Atomic uint32_t references;

    plait_peer peer;
    char peer_text[72];
    struct pl_status_connection *status;
    struct pl_counters *counters;
};

struct plait_request {
    struct pl_session *session;
    struct plait_server *server;
    const struct pl_method *method;
    const char *method_name;
    struct pl_message message;
    uint64_t arrived; /* ticks */
    bool pooled;      /* a pool's thread handles it, and frees it when the handler returns, whatever became of it */
    bool answered, one_way, deferred;
    _Atomic bool cancelled;
    struct pl_list link; /* session->deferred */
    uint64_t admitted;
};

/* ---- server.c ---- */
/* What plait_server_open makes of OPTIONS before anything is claimed. */
int pl_server_new(struct plait_server **ret_server, const char *name, const plait_server_options *options);
/* FD, which is taken, listens on URL; TEXT is the same with its real port. */
int pl_server_add_listener(struct plait_server *server, const struct pl_url *url, const char *text, int fd);
int pl_server_check(const struct plait_server *server); /* -ECHILD after fork() */
/* Reactors, claim and status page: what a server has that is no supervisor. In a worker with its load page and the
 * URLs' listeners, which it inherited. */
int pl_server_bring_up(struct plait_server *server);

/* ---- run.c ---- */
int pl_server_serve(struct plait_server *server);   /* plait_server_run, in the process that serves */
int pl_server_resolve(struct plait_server *server); /* checks methods and listeners before it runs */
void pl_server_finish(struct plait_server *server); /* stops it and waits for its threads, if it runs */

/* ---- listener.c ---- */
int pl_listener_start(struct plait_server *server);
void pl_listener_stop(struct plait_server *server);            /* closes them; greetings are dropped */
void pl_listener_free_descriptor(struct plait_server *server); /* one became free: listen again */

/* ---- reactor.c ---- */
void pl_reactor_prepare(struct pl_reactor *reactor, struct plait_server *server, unsigned index); /* may be deinited */
int pl_reactor_init(struct pl_reactor *reactor, int64_t spin_us);
void pl_reactor_deinit(struct pl_reactor *reactor);
/* One round: serves, spins, waits until DEADLINE. -errno. */
int pl_reactor_round(struct pl_reactor *reactor, uint64_t deadline_ns);
void pl_reactor_rest(struct pl_reactor *reactor);  /* before a foreign loop waits: announces sleep */
void pl_reactor_main(struct pl_reactor *reactor);  /* as a thread: until reactor->over */
void pl_reactor_enter(struct pl_reactor *reactor); /* the calling thread runs the loop from now on: for who looks */
void pl_reactor_knock(struct pl_reactor *reactor, struct pl_session *session); /* any thread */
/* For a new connection of the process PID (0: unknown), in the acceptor's thread. */
struct pl_reactor *pl_reactor_emptiest(const struct plait_server *server, pid_t pid);

/* ---- session.c ---- */
/* Takes TRANSPORT. To be handed to REACTOR, whose it is. NULL: out of memory, closed. */
struct pl_session *pl_session_new(struct pl_reactor *reactor, struct pl_transport *transport,
                                  const struct pl_listener *listener, pid_t pid, uid_t uid, const char *address);
void pl_session_adopt(struct pl_session *session); /* in its reactor's thread: new, or may go on */
bool pl_session_serve(struct pl_session *session); /* true: something was received */
bool pl_session_rest(struct pl_session *session);  /* true: announced its sleep, left the awake list */
void pl_session_end(struct pl_session *session);   /* its reactor's thread, which lets go of it after the round */
void pl_session_drain(struct pl_session *session); /* GOAWAY; ends it if it is idle */
void pl_session_check_stall(struct pl_session *session, uint64_t now_ns);
void pl_session_unref(struct pl_session *session);
void pl_session_set_pause(struct pl_session *session, unsigned bit, bool on);

/* ---- request.c ---- */
/* REQUEST's message has been received; the rest of it is made here. What the message still holds afterwards is the
 * caller's: nothing, if the request was deferred. */
void pl_request_run(struct pl_session *session, struct plait_request *request, uint64_t now_ticks);
/* REQUEST's server, which is not closed before pl_request_let_go: a pooled handler may run when its server is gone.
 * Such a request must not be answered or deferred meanwhile. NULL with text (-ECONNRESET): it is gone. */
struct plait_server *pl_request_hold_server(struct plait_request *request);
void pl_request_let_go(struct plait_request *request);
void pl_request_cancel(struct pl_session *session, uint64_t call);
/* A deferred request's handler on a thread that is no reactor's; if it leaves it unanswered the caller gets an error.
 */
void pl_request_run_deferred(struct plait_request *request, plait_handler *handler, void *context);
void pl_request_refuse_deferred(struct plait_request *request, uint32_t status); /* frees it, as any answer does */
void pl_request_busy(struct plait_request *request, const char *text);           /* answers: a bound of the server */
/* Answers STATUS; TEXT NULL: the status's own. */
void pl_request_refuse(struct pl_session *session, const struct pl_frame *frame, uint32_t status, const char *text);
/* BODY may lie in LOAN (NULL: it doesn't), which is taken over if the answer has to wait. */
int pl_session_send(struct pl_session *session, const struct pl_frame *frame, const void *body, struct pl_loan *loan);
bool pl_session_unsent(struct pl_session *session);      /* answers wait for room; reactor's thread */
int pl_session_flush_parked(struct pl_session *session); /* reactor's thread; 0 or -errno */
void pl_session_drop_parked(struct pl_session *session);
void pl_server_give_inbound_back(struct plait_server *server, uint64_t bytes); /* any thread; wakes who waits */

#endif
