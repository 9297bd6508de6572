/* session: one client's connection on its reactor: frames in, order kept, pauses, the end. */
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "loop/crash.h"
#include "server/server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void on_event(struct pl_connection *connection);

/* ---- coming and going ---- */

static bool admit(void *owner, uint64_t size)
{
    struct pl_session *session = owner;
    struct plait_server *server = session->server;
    /* Announce the wait before looking, so that a release between look and wait is not missed. */
    if (!session->throttled) atomic_fetch_add(&server->throttled, 1); /* F_INB2: seq_cst against F_INB1 in request.c */
    session->throttled = true;                                        /* counted once, however often it is woken */
    uint64_t used = atomic_fetch_add(&server->inbound, size);         /* F_INB2: as above */
    if (used == 0 || used + size <= server->inbound_max) {
        atomic_fetch_sub(&server->throttled, 1); /* F_INB2: as above */
        session->throttled = false;
        session->paused &= ~(unsigned)PL_PAUSE_INBOUND;
        session->admitted += size;
        return true;
    }
    atomic_fetch_sub(&server->inbound, size); /* F_INB2: as above */
    session->paused |= PL_PAUSE_INBOUND;
    return false;
}

__attribute__((cold)) struct pl_session *pl_session_new(struct pl_reactor *reactor, struct pl_transport *transport,
                                                        const struct pl_listener *listener, pid_t pid, uid_t uid,
                                                        const char *address)
{
    struct plait_server *server = reactor->server;
    struct pl_session *session = calloc(1, sizeof(*session));
    if (session == NULL) {
        transport->ops->close(transport);
        return NULL;
    }
    session->server = server;
    session->emptied = pl_ticks();
    session->fork_mark.generation = server->fork_hook.generation; /* its link belongs to fork.c's lock */
    session->connection.transport = transport;
    session->connection.process.fd = -1; /* until it is opened in its reactor, if it ever is */
    session->idless = listener->url.framing != PL_FRAMING_PLAIT;
    session->method = session->idless ? listener->method : NULL;
    if (session->idless) {
        bool any = listener->method == server->any; /* it takes every name, and this one names none */
        session->method_name = listener->url.method[0] || any ? listener->url.method : listener->method->name;
    }
    session->datagrams = transport->datagrams;
    session->reply_limit = session->datagrams ? PLAIT_DATAGRAM_MAX : PLAIT_MESSAGE_MAX;
    pthread_mutex_init(&session->send_lock, NULL);
    pl_list_init(&session->link);
    pl_list_init(&session->awake);
    pl_list_init(&session->stall);
    pl_list_init(&session->knock);
    pl_list_init(&session->deferred);
    pl_list_init(&session->parked);
    atomic_init(&session->references, 1);
    transport->admit = admit;
    transport->owner = session;

    if (pid > 0) snprintf(session->peer_text, sizeof(session->peer_text), "pid %d (%.40s)", pid, address);
    else snprintf(session->peer_text, sizeof(session->peer_text), "%.71s", address);
    session->peer =
        (plait_peer){ .pid = pid, .uid = uid, .transport = transport->ops->name, .address = session->peer_text };
    struct pl_status_peer shown = { .pid = pid,
                                    .uid = uid,
                                    .transport = transport->ops->name,
                                    .framing = session->datagrams ? "datagram" : pl_framing_name(listener->url.framing),
                                    .name = address };
    session->status = pl_status_connection_add(server->status, &shown);
    session->counters = transport->counters = pl_status_connection_counters(session->status);

    session->reactor = reactor;
    atomic_fetch_add_explicit(&reactor->load, 1, memory_order_relaxed); /* relaxed: see pl_reactor_emptiest */
    return session;
}

void pl_session_unref(struct pl_session *session)
{
    /* R_REF1: pairs with A_REF1, the same operation by whoever comes last. A_REF1: pairs with R_REF1. */
    if (atomic_fetch_sub_explicit(&session->references, 1, memory_order_acq_rel) != 1) return;
    pthread_mutex_destroy(&session->send_lock);
    free(session);
}

static void stop_stalling(struct pl_session *session)
{
    pl_list_remove(&session->stall);
    session->stall_since = 0;
}

static void leave_awake(struct pl_session *session)
{
    if (!session->is_awake) return;
    session->is_awake = false;
    pl_list_remove(&session->awake);
    session->reactor->awake_count--;
}

static void join_awake(struct pl_session *session)
{
    if (session->is_awake || session->dead) return;
    session->is_awake = true;
    pl_list_append(&session->reactor->awake, &session->awake);
    session->reactor->awake_count++;
}

__attribute__((cold)) void pl_session_end(struct pl_session *session)
{
    struct plait_server *server = session->server;
    if (session->dead) return;
    pthread_mutex_lock(&session->send_lock);
    session->dead = true;
    pl_session_drop_parked(session);
    pl_list_each(item, &session->deferred)
    {
        struct plait_request *request = pl_container_of(item, struct plait_request, link);
        atomic_store_explicit(&request->cancelled, true, memory_order_relaxed); /* a hint for its holder */
        session->admitted += request->admitted;
        pl_load_defer(server->load, -1);
    }
    pthread_mutex_unlock(&session->send_lock);
    leave_awake(session);
    stop_stalling(session);
    if (session->throttled) atomic_fetch_sub(&server->throttled, 1); /* F_INB2: against F_INB1 */
    pl_server_give_inbound_back(server, session->admitted);
    pl_connection_close(&session->connection, &session->reactor->loop);
    pl_status_connection_remove(session->status);
    session->counters = NULL;
    pl_list_remove(&session->link);
    atomic_fetch_sub_explicit(&session->reactor->load, 1, memory_order_relaxed); /* a guess, see above */
    if (server->accept_paused) pl_wake_up(&server->acceptor->wake);
    if (session->listed) pl_list_append(&session->reactor->ended, &session->link); /* its callers still look at it */
}

/* The protocol was broken, or the connection failed: say so where somebody looks. */
__attribute__((cold)) static void fail(struct pl_session *session, int error)
{
    if (error == -EPROTO || error == -EMSGSIZE) {
        pl_count(&session->counters->protocol_errors, 1);
        pl_log(PLAIT_LOG_INFO, "%s: connection of %s ended: %s", session->server->name, session->peer_text,
               pl_error_text());
    }
    pl_session_end(session);
}

/* ---- pauses ---- */

/* A paused session receives nothing; on a socket its readiness isn't watched, or epoll would not rest. */
void pl_session_set_pause(struct pl_session *session, unsigned bit, bool on)
{
    unsigned before = session->paused;
    session->paused = on ? before | bit : before & ~bit;
    if ((session->paused != 0) == (before != 0)) return;
    if (session->connection.transport->bell < 0) {
        /* A hang-up is told whatever one asks for: as an edge, or epoll would not rest until the pause is over. */
        uint32_t events = session->connection.socket.events & EPOLLOUT;
        events |= session->paused ? EPOLLET : EPOLLIN | EPOLLRDHUP;
        (void)pl_loop_change(&session->reactor->loop, &session->connection.socket, events);
    }
    if (session->paused) {
        leave_awake(session);
    } else {
        session->connection.transport->ops->readable(session->connection.transport);
        join_awake(session);
    }
}

/* Whether `outstanding` or the order of an idless framing holds the session up. */
static void check_deferred(struct pl_session *session)
{
    uint32_t deferred =
        atomic_load_explicit(&session->deferred_count, memory_order_acquire); /* A_DEF1: pairs with R_DEF1 */
    bool full = deferred >= session->server->outstanding_max, one_at_a_time = session->idless && !session->datagrams;
    bool order = session->input_over || (one_at_a_time && deferred > 0);
    if (full || order || session->input_over || session->drained) {
        atomic_store(&session->waits, true);              /* F_DEF2: then look again, against F_DEF1 in request.c */
        deferred = atomic_load(&session->deferred_count); /* F_DEF2: as above */
        full = deferred >= session->server->outstanding_max;
        order = session->input_over || (one_at_a_time && deferred > 0);
    } else if (atomic_load_explicit(&session->waits, memory_order_relaxed)) { /* relaxed: only this thread sets it */
        atomic_store_explicit(&session->waits, false, memory_order_relaxed);
    }
    pl_session_set_pause(session, PL_PAUSE_FULL, full);
    pl_session_set_pause(session, PL_PAUSE_ORDER, order);
}

/* After END or GOAWAY: is there anything left to answer or to send? */
static bool finished(struct pl_session *session)
{
    if (!session->input_over && !session->drained) return false;
    /* First whether others may still answer: what they couldn't send is seen only after that. */
    atomic_store(&session->waits, true);                          /* F_DEF2: then look, against F_DEF1 in request.c */
    if (atomic_load(&session->deferred_count) != 0) return false; /* F_DEF2: as above */
    return !pl_session_unsent(session);
}

static bool lost_answer(const struct pl_session *session)
{
    return atomic_load_explicit(&session->lost_answer, memory_order_relaxed); /* relaxed: the knock orders it */
}

/* An answer couldn't be sent: nothing more is taken, and when the earlier ones are out, that is the end. */
static bool ends_for_lost_answer(struct pl_session *session)
{
    if (!lost_answer(session)) return false;
    pl_session_set_pause(session, PL_PAUSE_ORDER, true);
    if (!pl_session_unsent(session)) pl_session_end(session);
    return true;
}

__attribute__((cold)) void pl_session_adopt(struct pl_session *session)
{
    struct pl_reactor *reactor = session->reactor;
    if (session->dead) return;
    if (!session->listed) {
        struct pl_transport *transport = session->connection.transport;
        session->listed = true;
        atomic_fetch_add_explicit(&session->references, 1, memory_order_relaxed); /* relaxed: the inbox holds one */
        pl_list_append(&reactor->sessions, &session->link);
        /* On failure the transport is closed already; end does the rest. */
        if (pl_connection_open(&session->connection, transport, session->peer.pid, &reactor->loop, on_event) < 0) {
            pl_session_end(session);
            return;
        }
        /* A long method table may not have gone out with the hello. */
        if (transport->ops->pending(transport))
            (void)pl_connection_want_write(&session->connection, &reactor->loop, true);
        join_awake(session);
        if (reactor->draining) pl_session_drain(session);
        return;
    }
    if (session->connection.transport->hung_up && !pl_list_empty(&session->parked)) {
        pl_session_end(session);
        return;
    }
    int r = pl_session_flush_parked(session);
    if (r < 0) {
        fail(session, r);
        return;
    }
    if (ends_for_lost_answer(session)) return;
    check_deferred(session);
    if (finished(session) && session->input_over) pl_session_end(session);
    else if (!session->paused) join_awake(session);
}

static void on_event(struct pl_connection *connection)
{
    struct pl_session *session = pl_container_of(connection, struct pl_session, connection);
    struct pl_transport *transport = connection->transport;
    if (connection->socket.events & EPOLLOUT || pl_session_unsent(session)) {
        int r = pl_session_flush_parked(session);
        if (r < 0) {
            fail(session, r);
            return;
        }
    }
    if (ends_for_lost_answer(session)) return;
    /* Nobody is there to be answered; but what came one-way before is still to run. */
    bool dead = transport->hung_up && transport->bell >= 0;
    bool mute = transport->hung_up && (session->idless || session->paused & PL_PAUSE_PARKED);
    if (dead && session->paused & PL_PAUSE_INBOUND) mute = true; /* the body that it waits for will never be whole */
    if ((session->input_over && finished(session)) || (mute && session->paused)) {
        pl_session_end(session);
        return;
    }
    if (session->paused) return;
    transport->ops->awake(transport);
    join_awake(session);
}

/* ---- receiving ---- */

/* The peer sends no more. Shared memory: it is dead, nobody waits for what is deferred. */
__attribute__((cold)) static void input_over(struct pl_session *session)
{
    session->input_over = true;
    leave_awake(session);
    pl_session_set_pause(session, PL_PAUSE_ORDER, true);
    if (session->connection.transport->bell >= 0 || finished(session)) pl_session_end(session);
}

/* Reads the counter only if a handler ran since it was read last. */
static uint64_t ticks_now(struct pl_reactor *reactor)
{
    if (reactor->now_handled != reactor->handled) {
        reactor->now = pl_ticks();
        reactor->now_handled = reactor->handled;
    }
    return reactor->now;
}

/* Whether the caller's time was over before we came to its call. A message says how much time it has left, not when
 * it left: since we saw it that time has surely passed. How long it lay there unseen, while this thread was busy
 * elsewhere, isn't known; but a caller who gave up in that time said so behind it. */
static bool is_late(struct pl_session *session, const struct pl_message *message)
{
    struct pl_transport *transport = session->connection.transport;
    if (message->frame.time_left == 0) return false;
    uint64_t left = pl_ticks_of_ns(10000) * message->frame.time_left;
    if (ticks_now(session->reactor) - session->seen > left) return true;
    return session->seen - session->emptied > left &&
           transport->ops->cancelled(transport, message->lent, message->frame.call);
}

static void take(struct pl_session *session, struct plait_request *request)
{
    const struct pl_message *message = &request->message;
    struct pl_transport *transport = session->connection.transport;
    const struct pl_frame *frame = &message->frame;
    bool call = frame->kind == PL_FRAME_CALL;
    if (session->drained && call && session->taken >= session->taken_limit) {
        session->taken++;
        return; /* beyond the GOAWAY: the client runs it elsewhere */
    }
    session->taken++;
    if (session->datagrams && message->size > transport->max_message) {
        pl_count(&session->counters->protocol_errors, 1);
        (void)pl_error(-EMSGSIZE, "the request has %zu bytes; this listener's max_message is %llu", message->size,
                       (unsigned long long)transport->max_message);
        pl_request_refuse(session, frame, PL_STATUS_TOO_LARGE, pl_error_text());
        return;
    }
    bool gone = transport->hung_up && transport->bell >= 0;
    if (call && (gone || is_late(session, message))) {
        /* Its time was over before it ran, or nobody is there to be answered. */
        pl_count(&session->counters->dropped, 1);
        if (!gone) pl_request_refuse(session, frame, PL_STATUS_TOO_LATE, NULL);
        return;
    }
    pl_transport_shm_taken(transport, session->taken);
    pl_crash_check();
    pl_request_run(session, request, ticks_now(session->reactor));
    session->reactor->handled++;
}

static int handle(struct pl_session *session, struct plait_request *request)
{
    struct pl_message *message = &request->message;
    switch (message->frame.kind) {
    case PL_FRAME_CALL:
    case PL_FRAME_SEND:
        session->admitted -= message->admitted <= session->admitted ? message->admitted : session->admitted;
        take(session, request);
        /* What didn't run, since it came too late or beyond a GOAWAY. */
        pl_server_give_inbound_back(session->server, message->admitted);
        message->admitted = 0;
        return 0;
    case PL_FRAME_CANCEL: pl_request_cancel(session, message->frame.call); return 0;
    default: return pl_error(-EPROTO, "a client sent a frame of kind %d", message->frame.kind);
    }
}

static void note_stall(struct pl_session *session)
{
    struct pl_transport *transport = session->connection.transport;
    bool middle = transport->partial || pl_session_unsent(session);
    if (!middle) {
        if (session->stall_since) stop_stalling(session);
        return;
    }
    if (session->stall_since) return;
    struct pl_reactor *reactor = session->reactor;
    session->stall_since = pl_clock_ns();
    session->stall_moved = pl_transport_moved(transport);
    pl_list_append(&reactor->stalled, &session->stall);
    if (reactor->stall_timer.place == 0)
        (void)pl_timer_set(&reactor->loop, &reactor->stall_timer,
                           session->stall_since + (uint64_t)PL_STALL_MS * 1000000);
}

__attribute__((cold)) void pl_session_check_stall(struct pl_session *session, uint64_t now_ns)
{
    struct pl_transport *transport = session->connection.transport;
    if (pl_transport_moved(transport) != session->stall_moved ||
        session->paused & (PL_PAUSE_INBOUND | PL_PAUSE_ORDER | PL_PAUSE_FULL)) {
        session->stall_moved = pl_transport_moved(transport);
        session->stall_since = now_ns;
        if (!transport->partial && !pl_session_unsent(session)) stop_stalling(session);
    } else if (now_ns - session->stall_since >= (uint64_t)PL_STALL_MS * 1000000) {
        pl_log(PLAIT_LOG_INFO, "%s: connection of %s ended: no progress in the middle of a message for %d s",
               session->server->name, session->peer_text, PL_STALL_MS / 1000);
        pl_session_end(session);
    }
}

bool pl_session_serve(struct pl_session *session)
{
    struct pl_transport *transport = session->connection.transport;
    bool received = false, looked = false;
    for (int i = 0; i < PL_BATCH && !session->paused; i++) {
        if (__builtin_expect(lost_answer(session), 0)) break; /* its knock ends it */
        struct plait_request request;                         /* received in place */
        int r = transport->ops->receive(transport, &request.message);
        if (r == PL_TRANSPORT_EMPTY) {
            /* Of a socket epoll tells; without a word from it nobody looks. */
            session->emptied = transport->bell < 0 ? session->reactor->looked : ticks_now(session->reactor);
            if (transport->hung_up && transport->bell < 0 && !looked) {
                /* A stream takes a short read for the last one: once more, since no event will say so. */
                looked = true;
                transport->ops->readable(transport);
                continue;
            }
            if (transport->hung_up) input_over(session);
            else note_stall(session);
            if (session->dead) return true;
            if (session->paused & PL_PAUSE_INBOUND) {
                session->paused &= ~(unsigned)PL_PAUSE_INBOUND;
                pl_session_set_pause(session, PL_PAUSE_INBOUND, true);
            }
            break;
        }
        if (r == PL_TRANSPORT_END) {
            input_over(session);
            return true;
        }
        if (r == 0) {
            received = true;
            if (request.message.fresh) session->seen = ticks_now(session->reactor);
            r = handle(session, &request);
            pl_message_release(transport, &request.message);
        }
        if (r < 0) {
            fail(session, r);
            return true;
        }
        if (atomic_load_explicit(&session->deferred_count, memory_order_relaxed)) {
            check_deferred(session); /* relaxed: a look follows; what others parked they tell of */
        } else if (__builtin_expect(!pl_list_empty(&session->parked), 0)) {
            pl_session_set_pause(session, PL_PAUSE_PARKED, true);
        }
    }
    /* Of datagrams there may be no end: what was not taken by now is lost to its sender. */
    if (session->drained && !session->dead && !transport->partial &&
        (session->datagrams || !transport->ops->ready(transport)) && finished(session)) {
        pl_session_end(session);
        return true;
    }
    return received;
}

bool pl_session_rest(struct pl_session *session)
{
    struct pl_transport *transport = session->connection.transport;
    /* An end that epoll told while the reactor spun is an edge: nobody will tell it again, and serving ends it. */
    if ((transport->hung_up && transport->bell >= 0) || !transport->ops->sleep(transport)) {
        transport->ops->awake(transport);
        return false;
    }
    leave_awake(session);
    return true;
}

__attribute__((cold)) void pl_session_drain(struct pl_session *session)
{
    if (session->drained || session->dead) return;
    session->drained = true;
    session->taken_limit = session->taken;
    if (!session->idless) {
        uint8_t position[8];
        struct pl_frame frame = { .kind = PL_FRAME_GOAWAY, .size = sizeof(position) };
        pl_frame_store_u64(position, session->taken_limit);
        pthread_mutex_lock(&session->send_lock);
        (void)pl_session_send(session, &frame, position, NULL);
        pthread_mutex_unlock(&session->send_lock);
    }
    check_deferred(session);
    if (!session->paused) join_awake(session); /* its next round ends it when nothing is left */
}
