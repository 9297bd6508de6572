/* client: what the files of this folder share.
 *
 * client.c   open, close, fork, fd, methods
 * choose.c   instances to links: connecting, load, reconnecting
 * call.c     calls and sends on their way out; cancel; retries
 * loan.c     memory for calls and sends, and its way out
 * file.c     replies and deaths on their way in: each reply is filed with the call that it answers
 * wait.c     one leader reads, the others wait for their own
 *
 * One mutex guards a client. It is dropped while its holder spins, sleeps, connects or runs a callback.
 * Of the threads that wait, one is the leader: it alone receives, files what belongs to others, wakes
 * exactly them, and hands leadership on when it has its own. Links are freed only by the leader or
 * while there is none.
 */
#ifndef PL_CLIENT_CLIENT_H
#define PL_CLIENT_CLIENT_H

#include "base/clock.h"
#include "base/fork.h"
#include "base/interrupt.h"
#include "base/list.h"
#include "base/spin.h"
#include "connection/connection.h"
#include "connection/context.h"
#include "connection/handshake.h"
#include "loop/loop.h"
#include "loop/wake.h"
#include "wire/url.h"
#include <plait/plait.h>
#include <pthread.h>
#include <stdatomic.h>

enum {
    PL_LINKS_MAX = 16,
    PL_CONNECT_MS = 5000,
    PL_CALL_MS = 30000,
    PL_STUCK_MS = 100,      /* owes a reply and has not moved: avoided while another exists */
    PL_CALL_CHUNK = 4,      /* few: a thousand idle clients count */
    PL_CALLS_MAX = 1 << 20, /* in flight */
    PL_SPARE_MAX = 512,     /* of a call's kept message: the next one in its slot uses the memory again */
    PL_RESEND = 1           /* a call's result inside: it never ran, send it elsewhere */
};

/* When a wait must end; the clock is asked only once somebody has to sleep. */
struct pl_deadline {
    int64_t timeout_ms;
    uint64_t ns; /* 0: not asked yet */
};

struct pl_link {
    struct pl_connection connection;
    struct plait_client *client;
    struct pl_list link;
    struct pl_list calls; /* in flight, oldest first */
    struct pl_accepted peer;
    struct pl_method_slot *slots; /* sorted by name */
    uint32_t last_slot;
    bool idless, one_at_a_time;
    bool down;       /* nothing more goes out or comes in; freed by reap */
    bool refused;    /* a send failed; what had come before is still to be received */
    bool draining;   /* GOAWAY came */
    uint64_t goaway; /* frames that the server takes */
    uint64_t sent;   /* CALL and SEND frames */
    uint32_t outstanding;
    struct pl_call *borrower; /* synchronous: its body is still read from the caller's memory */
    uint64_t moved;           /* ticks when its last reply came or its first call went */
};

struct pl_method_slot {
    const char *name;
    uint32_t index;
};

struct pl_waiter {
    struct pl_list link; /* client->waiters while it follows */
    _Atomic uint32_t woken;
    bool for_room; /* waits for anything that moves, not for a call */
};

struct pl_call {
    uint32_t index, generation;
    struct pl_list link; /* link->calls, client->completed, client->resend or the free list */
    struct pl_link *on;  /* NULL: nowhere now */
    uint64_t sequence;   /* its number among the link's frames, from 1 */
    bool done, idempotent, sent;
    bool cancelled; /* while it was on its way elsewhere */
    int result;
    plait_reply *reply;
    char *why;                /* the text of a failure that is not in a reply */
    struct pl_waiter *waiter; /* synchronous */
    plait_reply_fn *fn;       /* asynchronous */
    void *context;
    uint64_t deadline_ns;
    struct pl_outgoing *kept;  /* asynchronous: what to send again */
    struct pl_outgoing *spare; /* memory of PL_SPARE_MAX bytes for such; NULL: none yet, or `kept` has it */
};

/* What a call or a send says. */
struct pl_outgoing {
    const char *method;
    const void *data;
    size_t size;
    uint8_t encoding;
    uint32_t flags; /* PLAIT_CALL_ */
    uint64_t trace;
    int64_t timeout_ms;
    bool one_way;
    bool waits;           /* the caller blocks until it is answered */
    bool spare;           /* kept in memory of PL_SPARE_MAX bytes */
    struct pl_loan *loan; /* in which the data lie; NULL: in the caller's memory */
};

struct plait_client {
    pthread_mutex_t lock;
    struct pl_fork_hook fork_hook;
    struct pl_url *target;
    char *target_text;
    char *peer; /* option; NULL: none */
    int64_t connect_ms, call_ms;
    uint64_t max_message;
    int transport;
    struct pl_interrupt interrupt;

    struct pl_loop loop;
    struct pl_wake wake; /* makes a sleeping leader look around; see pl_client_kick */
    struct pl_spin spin;
    struct pl_list links;
    unsigned link_count, rotation;
    bool reap_due;        /* a link is down or draining */
    bool leading, asleep; /* a leader exists; it sleeps or spins without the lock */
    struct pl_list waiters;
    const char *last_transport;

    bool connecting;
    _Atomic uint32_t connects; /* counts ends of connecting: a futex */
    uint64_t peeked;           /* ticks at the last look at epoll between two busy rounds */
    uint64_t looked;           /* ticks at the last look for more instances */
    uint64_t expanded;         /* ticks at the last connection that was to be a further one and failed; */
    uint64_t expand_pause;     /* ticks until the next try after it */
    uint64_t stamp;

    struct pl_call **chunks;
    uint32_t chunk_count;
    struct pl_list free_calls;
    struct pl_list completed;   /* asynchronous calls whose callback is due */
    struct pl_list resend;      /* asynchronous calls that go elsewhere */
    uint64_t resend_at;         /* ns; earliest next try */
    uint64_t clocked, clock_ns; /* a recent look at the clock: ticks, and what it said */
    uint64_t next_deadline;     /* ns; of asynchronous calls; may be early */
    uint32_t async_count;

    int outer_fd, ready_fd, timer_fd; /* plait_client_fd(); -1 before */
    bool ready_rung;
    uint64_t timer_set;
    unsigned dispatching; /* plait_client_dispatch() at work: it frees what a callback closes */
    bool closing;
};

struct plait_reply {
    plait_bytes body;
    uint8_t encoding;
    uint32_t status;
    uint8_t *owned;
    struct pl_segment_view view;
    char *text; /* a failure's, NUL-terminated */
    uint8_t inlined[];
};

/* It takes no further call before one is over: the server's bound, or framing=raw, one at a time. */
static inline bool pl_link_full(const struct pl_link *link)
{
    return link->outstanding >= link->peer.outstanding || (link->one_at_a_time && link->outstanding > 0);
}

uint64_t pl_deadline_ns(struct pl_deadline *deadline);

/* ---- client.c ---- */
void pl_client_set_timer(struct plait_client *client); /* of plait_client_fd() */
void pl_client_kick(struct plait_client *client);      /* makes a leader that sleeps look around */

/* ---- choose.c ---- */
/* OUT goes where the client's earlier sends and ordered calls went. */
static inline bool pl_stays_first(const struct pl_outgoing *out)
{
    return out->one_way || out->flags & PLAIT_CALL_ORDERED;
}
bool pl_link_is_own(const struct pl_link *link); /* the calling thread, in a handler, is who serves it */

/* The link where there is just one and it takes calls; NULL. The usual case, and no look at the load page, whose line
 * the server keeps writing. */
static inline struct pl_link *pl_client_only_link(const struct plait_client *client)
{
    if (__builtin_expect(client->link_count != 1, 0)) return NULL;
    struct pl_link *only = pl_container_of(client->links.next, struct pl_link, link);
    return only->down || only->draining || only->refused ? NULL : only;
}

int pl_client_choose_among(struct plait_client *client, const struct pl_outgoing *out, struct pl_deadline *deadline,
                           struct pl_link **ret_link);

/* The link for OUT: connects if needed, until DEADLINE. 0 or -errno; -EDEADLK: its caller waits, in a handler, and only
 * the calling thread could answer. */
static inline int pl_client_choose(struct plait_client *client, const struct pl_outgoing *out,
                                   struct pl_deadline *deadline, struct pl_link **ret_link)
{
    struct pl_link *only = pl_client_only_link(client);
    bool queues = only != NULL && only->outstanding > 0 && !pl_stays_first(out);
    if (only == NULL || queues || (out->waits && pl_context.instance != 0))
        return pl_client_choose_among(client, out, deadline, ret_link);
    *ret_link = only;
    return 0;
}
int pl_client_connect_first(struct plait_client *client, struct pl_deadline *deadline);
void pl_link_free(struct pl_link *link);
/* The method's number on LINK: 0 and *ret_index (PL_METHOD_DEFAULT for none; *ret_named: by name); -EOPNOTSUPP. */
int pl_link_method(struct pl_link *link, const char *method, uint32_t *ret_index, bool *ret_named);

/* ---- call.c ---- */
struct pl_call *pl_call_of(struct plait_client *client, uint64_t id);
void pl_call_free(struct plait_client *client, struct pl_call *call);
/* What plait_client_call, _call_async and _send do, cut in two: checks, then the deed. */
int pl_call_prepare(struct plait_client *client, const char *method, const void *data, size_t size,
                    const plait_call_options *options, struct pl_outgoing *out, struct pl_deadline *deadline);
int pl_call_run(struct plait_client *client, struct pl_outgoing *out, struct pl_deadline *deadline,
                plait_reply **ret_reply);
int pl_call_start(struct plait_client *client, struct pl_outgoing *out, struct pl_deadline *deadline,
                  plait_reply_fn *fn, void *context, uint64_t *ret_call); /* takes the loan, if it gets that far */
int pl_call_send(struct plait_client *client, struct pl_outgoing *out, struct pl_deadline *deadline);
void pl_call_tell_cancelled(const struct pl_call *call); /* its server, while it is on a link */
void pl_client_resend(struct plait_client *client);
void pl_client_ring_ready(struct plait_client *client);
bool pl_link_lives(const struct plait_client *client, const struct pl_link *link);
/* LINK failed when it was used: another one, unless the deadline is over (-ETIMEDOUT with text). */
int pl_link_forsake(struct plait_client *client, struct pl_deadline *deadline);

/* ---- loan.c ---- */
/* The link that can send OUT's loan without a copy, or LINK. */
struct pl_link *pl_client_lender(struct plait_client *client, const struct pl_outgoing *out, struct pl_link *link);

/* ---- file.c ---- */
bool pl_client_pump(struct plait_client *client);   /* receives what is there; true: something moved */
void pl_link_refused(struct pl_link *link);         /* sending failed: the leader reads what is left and ends it */
void pl_link_down(struct pl_link *link, int error); /* its calls fail or go elsewhere */
void pl_client_reap(struct plait_client *client);   /* frees links that are down; see above who may */
void pl_call_end(struct pl_call *call, int result, plait_reply *reply, const char *why);
void pl_client_expire(struct plait_client *client); /* asynchronous calls whose time is over */

/* ---- wait.c ---- */
/* Waits until CALL is done (NULL: until something moved) or DEADLINE: 0, -ETIMEDOUT, -errno. Lock held. */
int pl_client_wait(struct plait_client *client, struct pl_call *call, struct pl_deadline *deadline);
/* Whether to go on waiting: 0, -EINTR. Asked without the lock, by nobody's leader: the answer may use this client. */
int pl_client_ask(struct plait_client *client);
void pl_client_rest(struct plait_client *client); /* announces sleep on every link, for plait_client_fd() */
void pl_waiter_wake(struct pl_waiter *waiter);
void pl_client_wake_waiters(struct plait_client *client); /* something moved: room, a connection */

#endif
