/* Services: a server claims a name and answers calls; clients call it. */
#ifndef PLAIT_SERVICE_H
#define PLAIT_SERVICE_H

#include <plait/plait.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct plait_server plait_server;
typedef struct plait_request plait_request;
typedef struct plait_client plait_client;
typedef struct plait_reply plait_reply;

/* Spinning before sleeping, in microseconds, for servers and clients alike. */
#define PLAIT_SPIN_DEFAULT 0  /* adaptive: grows while it pays, shrinks to nothing, at most 50 */
#define PLAIT_SPIN_NEVER (-1) /* sleep at once */
                              /* n > 0: always spin up to n before sleeping */

/* ---- server ------------------------------------------------------------------------- */

typedef struct plait_server_options {
    size_t size;
    int32_t threads;        /* reactors: 0 is 1, -1 is as many as there are CPUs; at most 64 */
    int32_t exclusive;      /* nonzero: be the only server of this name, with its workers, or fail with -EADDRINUSE */
    const char *allow;      /* who else may call: "alice,1001,@video,*" (user, uid, @group, everybody) */
    uint64_t max_message;   /* bytes; default 1 GiB locally, 16 MiB over the network */
    uint64_t inbound_bytes; /* request bytes held at once; default min(2 GiB, RAM / 4) */
    uint32_t outstanding;   /* requests of one connection in progress; default 1024 */
    int32_t processes;      /* workers, see <plait/worker.h>: 0 is none, -1 as many as CPUs; at most 64 */
    int64_t spin_us;        /* see PLAIT_SPIN_ */
    int32_t restart_burst;  /* workers' deaths within 10 s that end it all; 0 is 5, -1 never */
    uint32_t reserved;
} plait_server_options;
#define PLAIT_SERVER_OPTIONS_INIT                                                                                      \
    {                                                                                                                  \
        .size = sizeof(plait_server_options)                                                                           \
    }

/* Claims NAME and begins to queue connections; nothing is answered before run, start or
 * dispatch. Errors: -EINVAL (name, options), -EADDRINUSE (exclusive; the text names the
 * holder), -EACCES, -ENOSPC, -EROFS (runtime directory), -EMFILE, -ENOMEM. */
int plait_server_open(plait_server **ret_server, const char *name, const plait_server_options *options);

/* Called on a reactor thread. It answers with plait_request_reply, replyf or fail, or takes
 * the request away with plait_request_defer; if it does neither, the caller gets an error.
 * While it runs, its reactor serves nobody else.
 * A call to its own name that it waits for goes to another instance or another reactor; where there
 * is none (or the call is ordered, and its connection is served by this very reactor) it is -EDEADLK
 * at once. Not noticed, and ended by their deadlines, are handlers that wait for each other in a
 * circle; calls over raw, lines, length and udp://, which know no instance; connecting by a URL to a
 * server whose only thread this is; and waiting for another thread of the program that does any of it. */
typedef void plait_handler(plait_request *request, void *context);

/* METHOD "" is what callers get that name none; where it isn't registered and the server has
 * exactly one method, they get that one. Errors: -EINVAL (name), -EEXIST, -ENOSPC
 * (PLAIT_METHODS_MAX), -EBUSY (already running). */
int plait_server_handle(plait_server *server, const char *method, plait_handler *handler, void *context);

/* Also listens on URL: tcp://HOST:PORT or unix:///PATH, with ?framing=plait|raw|lines|length,
 * method=NAME, max_message=BYTES, insecure=1 (needed beyond loopback). Port 0 asks the kernel.
 * udp://HOST:PORT too, where each datagram is a request and its answer another: at most
 * PLAIT_DATAGRAM_MAX bytes, all served by one of the server's threads, up to `outstanding`
 * deferred at once. What the kernel drops meanwhile is counted (lost_requests, lost_replies).
 * Errors: -EINVAL (the text names the part), -EADDRINUSE, -EACCES, -EPROTONOSUPPORT, -EBUSY. */
int plait_server_listen(plait_server *server, const char *url);

/* The INDEXth listener's URL with its real port, or NULL. Valid until close. */
const char *plait_server_url(plait_server *server, size_t index);

/* Serves until SIGINT, SIGTERM or plait_server_stop(), then drains; 0 after an orderly end. A second
 * signal ends the process. -ETIMEDOUT: a handler didn't return within the grace, the text says which;
 * its thread still runs, so end the process. With processes, see <plait/worker.h>. */
int plait_server_run(plait_server *server);

/* Serves on threads of its own until plait_server_stop() or close. */
int plait_server_start(plait_server *server);

/* Asks the server to stop: its name is withdrawn, what it has taken is answered for at most
 * GRACE ms (0: 5 s), what it has not taken is left to other instances. Returns at once. */
int plait_server_stop(plait_server *server, int64_t grace);

/* For a loop of one's own (threads = 1): when fd is readable, call dispatch, which does what
 * can be done within TIMEOUT ms (PLAIT_NOW: without waiting) and returns the number of
 * requests handled, or a negative errno; -ESHUTDOWN after a stop is complete. */
int plait_server_fd(plait_server *server);
int plait_server_dispatch(plait_server *server, int64_t timeout);

/* Stops (see stop; waits for it), frees. NULL is fine. Deferred requests stay valid and can
 * still be answered: into nowhere. Never from a handler. */
void plait_server_close(plait_server *server);

/* ---- request ------------------------------------------------------------------------ */

/* The body lives until the handler returns, or until a deferred request is answered. */
plait_bytes plait_request_body(const plait_request *request);
plait_encoding plait_request_encoding(const plait_request *request);
const char *plait_request_method(const plait_request *request); /* "" if none was named */
uint64_t plait_request_trace(const plait_request *request);     /* 0 if none */
int64_t plait_request_time_left(const plait_request *request);  /* ms; PLAIT_FOREVER without deadline */
int plait_request_cancelled(const plait_request *request);      /* 1: nobody waits any more */

typedef struct plait_peer {
    int32_t pid;           /* 0 if unknown (network) */
    uint32_t uid;          /* UINT32_MAX if unknown */
    const char *transport; /* "shm", "unix", "tcp", "udp" */
    const char *address;   /* "pid 123 (name)" or "127.0.0.1:40012" */
} plait_peer;
/* Valid as long as the request. */
const plait_peer *plait_request_peer(const plait_request *request);

/* Answers. One answer per request: a second is -EALREADY. The request's data are copied out
 * before these return. -ECONNRESET: the caller is gone. -EMSGSIZE: beyond the caller's limit.
 * A deferred request is freed by its answer, whatever that returns. */
int plait_request_reply(plait_request *request, const void *data, size_t size);
int plait_request_reply_as(plait_request *request, plait_encoding encoding, const void *data, size_t size);
int plait_request_replyf(plait_request *request, const char *format, ...)
#ifdef __GNUC__
    __attribute__((format(printf, 2, 3)))
#endif
    ;
/* STATUS is yours, 1 to 0x7fffffff (0 becomes 1); the caller gets -EREMOTEIO, status and text. */
int plait_request_fail(plait_request *request, uint32_t status, const char *format, ...)
#ifdef __GNUC__
    __attribute__((format(printf, 3, 4)))
#endif
    ;

/* Takes the request out of its handler: *ret_deferred may be answered later, from any thread,
 * and must be: it holds memory and its caller waits. Copies the body if it lies in a ring. */
int plait_request_defer(plait_request *request, plait_request **ret_deferred);

/* ---- client ------------------------------------------------------------------------- */

typedef enum plait_transport {
    PLAIT_TRANSPORT_AUTO = 0,
    PLAIT_TRANSPORT_SHM = 1, /* shared memory or nothing */
    PLAIT_TRANSPORT_UNIX = 2 /* a name's Unix socket, without shared memory */
} plait_transport;

typedef struct plait_client_options {
    size_t size;
    int64_t connect_timeout; /* ms; default 5000: how long an absent name is waited for */
    int64_t timeout;         /* ms; default of this client's calls; default 30000 */
    const char *peer;        /* user name or uid whose services are accepted too */
    uint64_t max_message;    /* bytes of a reply; default 1 GiB locally, 16 MiB over the network */
    int64_t spin_us;         /* see PLAIT_SPIN_ */
    int32_t transport;       /* plait_transport, for names */
    uint32_t reserved;
    /* NULL, or asked in the waiting thread, about every 50 ms, by each wait of this client, opening it
     * included, and before a wait for room or a connection: nonzero ends that wait with -EINTR, as a
     * timeout would. It may use the client. */
    int (*interrupted)(void *context);
    void *interrupted_context;
} plait_client_options;
#define PLAIT_CLIENT_OPTIONS_INIT                                                                                      \
    {                                                                                                                  \
        .size = sizeof(plait_client_options)                                                                           \
    }

/* TARGET: a name, "name?shm=off", tcp://HOST:PORT or unix:///PATH with ?framing=,
 * until=eof, max_message=; with framing=plait a URL may name the service: tcp://HOST:PORT/NAME.
 * udp://HOST:PORT sends a datagram for each call and has one in flight, further ones queue; a
 * timeout takes another port, so that a late answer never meets the next call. Nothing is
 * sent before the first call, which gets -ECONNREFUSED if the kernel learns that nobody listens.
 * An absent name is waited for until connect_timeout; connects before it returns.
 * Errors: -EINVAL, -ENOENT (the text lists the directories searched and near names),
 * -ECONNREFUSED, -ETIMEDOUT, -EACCES, -EPROTO (not plait, or another major version),
 * -EPROTONOSUPPORT (scheme), -EMFILE, -ENOMEM; -EDEADLK (in a handler: the name's only instance is
 * this one, and its only thread runs the handler). */
int plait_client_open(plait_client **ret_client, const char *target, const plait_client_options *options);

typedef struct plait_call_options {
    size_t size;
    int64_t timeout;  /* ms; 0: the client's */
    int32_t encoding; /* plait_encoding of the request */
    uint32_t flags;   /* PLAIT_CALL_ */
    uint64_t trace;   /* 0: inherited from the handler that this thread is in, or none */
} plait_call_options;
#define PLAIT_CALL_OPTIONS_INIT                                                                                        \
    {                                                                                                                  \
        .size = sizeof(plait_call_options)                                                                             \
    }
#define PLAIT_CALL_IDEMPOTENT 1u /* may run twice: retried elsewhere when its instance dies */
#define PLAIT_CALL_ORDERED 2u    /* arrives after this thread's earlier ordered calls and sends */

/* Calls METHOD ("" or NULL: the default one) and waits. DATA is copied out before it returns.
 * On 0 and on -EREMOTEIO *ret_reply is a reply to be freed, else NULL; RET_REPLY may be NULL.
 * Errors: -EREMOTEIO (the handler failed: status and text in the reply), -ETIMEDOUT,
 * -ECONNRESET (the instance died; the text says whether the call may have run),
 * -EOPNOTSUPP (no such method), -EMSGSIZE (names the limit), -EDEADLK, -EBUSY (the server's
 * bounds), -ENOBUFS, -EINVAL, -ECHILD. */
int plait_client_call(plait_client *client, const char *method, const void *data, size_t size,
                      const plait_call_options *options, plait_reply **ret_reply);

/* RESULT is what plait_client_call would have returned; REPLY belongs to the callee, may be
 * NULL. Runs inside plait_client_dispatch() and nowhere else. */
typedef void plait_reply_fn(int result, plait_reply *reply, void *context);

/* Starts a call; *ret_call (may be NULL) is for cancel. Its end is told exactly once, unless
 * this function itself failed. */
int plait_client_call_async(plait_client *client, const char *method, const void *data, size_t size,
                            const plait_call_options *options, plait_reply_fn *fn, void *context, uint64_t *ret_call);

/* Ends a call early: its callback gets -ECANCELED, the server is told. -ENOENT: already over. */
int plait_client_cancel(plait_client *client, uint64_t call);

/* One way: no answer, no error from afar. Returns when the message is on its way. */
int plait_client_send(plait_client *client, const char *method, const void *data, size_t size,
                      const plait_call_options *options);

/* Names of the methods: *ret_names is an array of *ret_count strings to be freed with one
 * free(). -EOPNOTSUPP on framings without a hello. */
int plait_client_methods(plait_client *client, char ***ret_names, size_t *ret_count);

/* "shm", "unix", "tcp", "udp": how the last call went; static. */
const char *plait_client_transport(plait_client *client);

/* Readable when plait_client_dispatch() has something to do. Owned by the client. */
int plait_client_fd(plait_client *client);

/* Runs what is due, waiting at most TIMEOUT ms for the first (0 and PLAIT_NOW: don't wait).
 * Returns how many callbacks ran, or a negative errno. */
int plait_client_dispatch(plait_client *client, int64_t timeout);

/* Ends every call with -ECANCELED (callbacks run here), frees. NULL is fine. Not while another
 * thread uses the client. */
void plait_client_close(plait_client *client);

/* ---- reply -------------------------------------------------------------------------- */

plait_bytes plait_reply_body(const plait_reply *reply); /* valid until free */
plait_encoding plait_reply_encoding(const plait_reply *reply);
uint32_t plait_reply_status(const plait_reply *reply);  /* 0 ok, else the handler's */
const char *plait_reply_text(const plait_reply *reply); /* the failure's text; "" if ok */
void plait_reply_free(plait_reply *reply);              /* NULL is fine */

#ifdef __cplusplus
}
#endif

#include <plait/loan.h> /* which needs what stands above */

#endif
