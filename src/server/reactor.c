/* reactor: a thread's loop: serve who is awake, look at epoll, spin while it pays, sleep.
 *
 * A session is awake while frames may come without a doorbell. When none came for the spin budget, each awake
 * session announces its sleep (and is looked at once more, or a frame committed just then would be slept over);
 * then epoll waits. While it spins or is busy, a reactor looks at epoll every 16 µs.
 */
#include "base/clock.h"
#include "base/error.h"
#include "loop/crash.h"
#include "loop/signal.h"
#include "server/server.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

enum { LOOK_NS = 16000 };

static void on_wake(struct pl_wake *wake)
{
    struct pl_reactor *reactor = pl_container_of(wake, struct pl_reactor, wake);
    struct plait_server *server = reactor->server;
    struct pl_list taken;
    pl_list_init(&taken);
    pthread_mutex_lock(&reactor->inbox_lock);
    pl_list_splice(&taken, &reactor->inbox);
    /* A session may knock again as soon as it is out of our list and not before: its link has one place only. */
    struct pl_list *item;
    while ((item = pl_list_take(&taken)) != NULL) {
        struct pl_session *session = pl_container_of(item, struct pl_session, knock);
        session->knocking = false;
        pthread_mutex_unlock(&reactor->inbox_lock);
        pl_session_adopt(session);
        pl_session_unref(session);
        pthread_mutex_lock(&reactor->inbox_lock);
    }
    pthread_mutex_unlock(&reactor->inbox_lock);
    if (atomic_load_explicit(&server->throttled, memory_order_relaxed)) /* relaxed: a wake-up follows each release */
        pl_list_each(other, &reactor->sessions)
            pl_session_set_pause(pl_container_of(other, struct pl_session, link), PL_PAUSE_INBOUND, false);
    if (reactor == server->acceptor && server->accept_paused) pl_listener_free_descriptor(server);
}

void pl_reactor_knock(struct pl_reactor *reactor, struct pl_session *session)
{
    pthread_mutex_lock(&reactor->inbox_lock);
    bool first = !session->knocking;
    if (first) {
        session->knocking = true;
        atomic_fetch_add_explicit(&session->references, 1, memory_order_relaxed); /* relaxed: the caller holds one */
        pl_list_append(&reactor->inbox, &session->knock);
    }
    pthread_mutex_unlock(&reactor->inbox_lock);
    if (first) pl_wake_up(&reactor->wake);
}

/* A guess is good enough to spread connections. A handler of ours that connects to its own server mustn't get
 * its own thread, which wouldn't answer: before a connection of our own process those that are in handlers stand back.
 */
struct pl_reactor *pl_reactor_emptiest(const struct plait_server *server, pid_t pid)
{
    struct pl_reactor *emptiest = NULL;
    uint64_t least = UINT64_MAX;
    bool own = pid == getpid();
    for (unsigned i = 0; i < server->thread_count; i++) {
        /* relaxed: a guess */
        /* relaxed: see above */
        uint64_t load = atomic_load_explicit(&server->reactors[i].load, memory_order_relaxed);
        if (own && pl_load_is_busy(server->load, i)) load += UINT64_C(1) << 32;
        if (load >= least) continue;
        least = load;
        emptiest = &server->reactors[i];
    }
    return emptiest;
}

__attribute__((cold)) static void on_stall_timer(struct pl_timer *timer)
{
    struct pl_reactor *reactor = pl_container_of(timer, struct pl_reactor, stall_timer);
    uint64_t now = pl_clock_ns();
    pl_list_each(item, &reactor->stalled) pl_session_check_stall(pl_container_of(item, struct pl_session, stall), now);
    if (!pl_list_empty(&reactor->stalled))
        (void)pl_timer_set(&reactor->loop, timer, now + (uint64_t)PL_STALL_MS * 250000);
}

static void on_grace_over(struct pl_timer *timer)
{
    struct pl_reactor *reactor = pl_container_of(timer, struct pl_reactor, grace_timer);
    pl_list_each(item, &reactor->sessions) pl_session_end(pl_container_of(item, struct pl_session, link));
}

__attribute__((cold)) void pl_reactor_prepare(struct pl_reactor *reactor, struct plait_server *server, unsigned index)
{
    reactor->server = server;
    reactor->index = index;
    reactor->stall_timer.due = on_stall_timer;
    reactor->grace_timer.due = on_grace_over;
    pl_list_init(&reactor->sessions);
    pl_list_init(&reactor->awake);
    pl_list_init(&reactor->stalled);
    pl_list_init(&reactor->ended);
    pl_list_init(&reactor->inbox);
    pthread_mutex_init(&reactor->inbox_lock, NULL);
    reactor->loop.epoll_fd = reactor->wake.source.fd = reactor->alarm.source.fd = -1;
}

__attribute__((cold)) int pl_reactor_init(struct pl_reactor *reactor, int64_t spin_us)
{
    pl_spin_init(&reactor->spin, spin_us);
    int r = pl_loop_init(&reactor->loop, PL_LOOP_EVENTS);
    return r < 0 ? r : pl_wake_init(&reactor->wake, &reactor->loop, on_wake);
}

static void let_go_of_ended(struct pl_reactor *reactor)
{
    struct pl_list *item;
    while ((item = pl_list_take(&reactor->ended)) != NULL)
        pl_session_unref(pl_container_of(item, struct pl_session, link));
}

__attribute__((cold)) void pl_reactor_deinit(struct pl_reactor *reactor)
{
    struct pl_list *item;
    pl_list_each(session, &reactor->sessions) pl_session_end(pl_container_of(session, struct pl_session, link));
    while ((item = pl_list_take(&reactor->inbox)) != NULL) {
        struct pl_session *session = pl_container_of(item, struct pl_session, knock);
        pl_session_end(session);
        pl_session_unref(session);
    }
    let_go_of_ended(reactor);
    pl_status_thread_remove(reactor->shown);
    pl_alarm_deinit(&reactor->alarm, &reactor->loop);
    pl_wake_deinit(&reactor->wake, &reactor->loop);
    pl_loop_deinit(&reactor->loop);
    pthread_mutex_destroy(&reactor->inbox_lock);
}

static void set_now(struct pl_reactor *reactor)
{
    reactor->now = pl_ticks();
    reactor->now_handled = reactor->handled;
}

static bool serve_awake(struct pl_reactor *reactor)
{
    bool received = false;
    pl_list_each(item, &reactor->awake) received |= pl_session_serve(pl_container_of(item, struct pl_session, awake));
    return received;
}

static void look(struct pl_reactor *reactor)
{
    if (pl_loop_wait(&reactor->loop, 0) > 0) {
        reactor->told = true;
        pl_loop_run_ready(&reactor->loop);
    }
    reactor->looked = pl_ticks();
}

/* Sessions that cannot gain leave the awake list: sockets where there are several, since each look is a system
 * call. Of the others: how to spin. */
static enum pl_spinning spinning(struct pl_reactor *reactor)
{
    enum pl_spinning how = PL_SPINNING_NEVER;
    pl_list_each(item, &reactor->awake)
    {
        struct pl_session *session = pl_container_of(item, struct pl_session, awake);
        struct pl_transport *transport = session->connection.transport;
        enum pl_spinning one = transport->ops->spinning(transport);
        if (one == PL_SPINNING_NEVER || (transport->bell < 0 && reactor->awake_count > 1))
            (void)pl_session_rest(session);
        else if (one > how) how = one;
    }
    return reactor->awake_count <= PL_SPIN_SESSIONS ? how : PL_SPINNING_NEVER;
}

static bool any_ready(struct pl_reactor *reactor)
{
    pl_list_each(item, &reactor->awake)
    {
        struct pl_transport *transport = pl_container_of(item, struct pl_session, awake)->connection.transport;
        if (transport->ops->ready(transport)) return true;
    }
    return false;
}

/* Looks for BUDGET ticks whether something comes by itself. */
static bool spin(struct pl_reactor *reactor, uint64_t start, uint64_t budget, enum pl_spinning how)
{
    uint64_t step = pl_ticks_of_ns(LOOK_NS);
    for (;;) {
        for (int i = 0; i < (how == PL_SPINNING_YIELD ? 1 : 16); i++) {
            if (any_ready(reactor)) return true;
            pl_spin_relax(how == PL_SPINNING_YIELD);
        }
        uint64_t now = pl_ticks();
        if (now - start > budget) return false;
        if (now - reactor->looked > step) {
            unsigned awake = reactor->awake_count;
            look(reactor);
            if (reactor->awake_count != awake || awake == 0) return true;
        }
        how = spinning(reactor);
        if (how == PL_SPINNING_NEVER) return false;
    }
}

/* Nothing was there to serve: spins, announces sleep, sleeps. */
static int wait_for_work(struct pl_reactor *reactor, uint64_t deadline_ns)
{
    uint64_t start = pl_ticks(), budget = pl_spin_begin(&reactor->spin, start);
    reactor->told = false;
    if (deadline_ns == 0 && budget > 0) {
        budget = 0; /* a foreign loop waits by itself */
        pl_spin_decline(&reactor->spin);
    }
    enum pl_spinning how = budget > 0 ? spinning(reactor) : PL_SPINNING_NEVER;
    bool found = false;
    if (how != PL_SPINNING_NEVER) found = spin(reactor, start, budget, how);
    else if (budget > 0) pl_spin_decline(&reactor->spin);
    if (!found) {
        pl_reactor_rest(reactor);
        found = reactor->awake_count > 0; /* something came while its sleep was announced */
    }
    if (found) {
        set_now(reactor);
        pl_spin_end(&reactor->spin, reactor->now, PL_SPIN_AWAKE);
        return 0;
    }
    /* What epoll told while we spun (a stop, the last session's end) is judged at the start of a round. */
    int r = pl_loop_wait(&reactor->loop, reactor->told ? 0 : deadline_ns);
    set_now(reactor);
    reactor->looked = reactor->now;
    pl_spin_end(&reactor->spin, reactor->looked, r > 0 ? PL_SPIN_SLEPT : PL_SPIN_OTHER);
    pl_loop_run_ready(&reactor->loop);
    return r < 0 ? r : 0;
}

void pl_reactor_rest(struct pl_reactor *reactor)
{
    pl_list_each(item, &reactor->awake)(void) pl_session_rest(pl_container_of(item, struct pl_session, awake));
}

__attribute__((cold)) static void begin_drain(struct pl_reactor *reactor)
{
    struct plait_server *server = reactor->server;
    int64_t grace = atomic_load_explicit(&server->grace, memory_order_relaxed); /* ordered by A_STOP1 */
    reactor->draining = true;
    if (reactor == server->acceptor) {
        pl_claim_withdraw(&server->claim);
        pl_listener_stop(server);
        /* R_ACC1: pairs with A_ACC1 below: what was accepted is in the others' inboxes */
        atomic_store_explicit(&server->accept_over, true, memory_order_release);
        for (unsigned i = 0; i < server->thread_count; i++)
            if (&server->reactors[i] != reactor) pl_wake_up(&server->reactors[i].wake);
    }
    (void)pl_timer_set(&reactor->loop, &reactor->grace_timer, pl_clock_deadline(grace, PL_GRACE_MS));
    pl_list_each(item, &reactor->sessions) pl_session_drain(pl_container_of(item, struct pl_session, link));
}

static bool inbox_empty(struct pl_reactor *reactor)
{
    pthread_mutex_lock(&reactor->inbox_lock);
    bool empty = pl_list_empty(&reactor->inbox);
    pthread_mutex_unlock(&reactor->inbox_lock);
    return empty;
}

static int round_of(struct pl_reactor *reactor, uint64_t deadline_ns)
{
    /* A_STOP1: pairs with R_STOP1 */
    int stopping = atomic_load_explicit(&reactor->server->stopping, memory_order_acquire);
    if (__builtin_expect(stopping, 0)) {
        if (!reactor->draining) begin_drain(reactor);
        /* A_ACC1: pairs with R_ACC1 above. First this, then the inbox: no session comes after that. */
        bool complete = atomic_load_explicit(&reactor->server->accept_over, memory_order_acquire);
        if (complete && pl_list_empty(&reactor->sessions) && inbox_empty(reactor)) {
            reactor->over = true;
            return 0;
        }
    }
    if (serve_awake(reactor)) {
        set_now(reactor);
        if (reactor->now - reactor->looked > pl_ticks_of_ns(LOOK_NS)) look(reactor);
        return 0;
    }
    return wait_for_work(reactor, deadline_ns);
}

int pl_reactor_round(struct pl_reactor *reactor, uint64_t deadline_ns)
{
    int r = round_of(reactor, deadline_ns);
    if (!pl_list_empty(&reactor->ended)) let_go_of_ended(reactor);
    return r;
}

void pl_reactor_enter(struct pl_reactor *reactor)
{
    const struct plait_server *server = reactor->server;
    char name[PLAIT_NAME_MAX + 16];
    bool serves = reactor->index < server->thread_count;
    if (serves) snprintf(name, sizeof(name), "plait/%s/%u", server->name, reactor->index);
    else snprintf(name, sizeof(name), "plait/%s/accept", server->name);
    pl_status_thread_remove(reactor->shown);
    if (!reactor->started) reactor->thread = pthread_self();
    reactor->shown = pl_status_thread_add(server->status, serves ? PL_STATUS_SERVES : PL_STATUS_ACCEPTS, name);
    /* R_RUN2: pairs with A_RUN2 in run.c */
    atomic_store_explicit(&reactor->work, pl_status_thread_work(reactor->shown), memory_order_release);
}

void pl_reactor_main(struct pl_reactor *reactor)
{
    char name[16];
    bool serves = reactor->index < reactor->server->thread_count;
    if (serves) snprintf(name, sizeof(name), "plait/%.7s/%u", reactor->server->name, reactor->index);
    else snprintf(name, sizeof(name), "plait/%.7s/a", reactor->server->name);
    pthread_setname_np(pthread_self(), name);
    struct pl_crash_stack *stack = pl_crash_stack_begin();
    pl_reactor_enter(reactor);
    while (!reactor->over)
        if (pl_reactor_round(reactor, PL_NEVER) < 0) break;
    pl_crash_stack_end(stack);
}
