/* run: a server's methods resolved, its threads started, stopped and waited for.
 *
 * With one thread that thread does everything. With more, one of its own accepts and greets (plait_server_run's
 * caller), so that a handler that takes long holds up neither new connections nor a stop.
 */
#include "base/buffer.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/futex.h"
#include "base/log.h"
#include "loop/signal.h"
#include "server/server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { GIVE_UP_MS = 1000 }; /* beyond the grace, in which sessions are ended, until a stop waits no longer */

static const struct pl_method *method_named(struct plait_server *server, const char *name)
{
    for (uint32_t i = 0; i < server->method_count; i++)
        if (strcmp(server->methods[i].name, name) == 0) return &server->methods[i];
    return NULL;
}

int pl_server_resolve(struct plait_server *server)
{
    if (server->method_count == 0)
        return pl_error(-EINVAL, "%s has no methods: register one with plait_server_handle()", server->name);
    server->any = method_named(server, "*");
    server->fallback = method_named(server, "");
    if (server->fallback == NULL) server->fallback = server->method_count == 1 ? &server->methods[0] : server->any;
    for (unsigned i = server->name_listeners; i < server->listener_count; i++) {
        struct pl_listener *listener = server->listeners[i];
        if (listener->url.framing == PL_FRAMING_PLAIT) continue;
        const char *wanted = listener->url.method;
        listener->method = wanted[0] ? method_named(server, wanted) : server->fallback;
        if (listener->method == NULL && wanted[0] && server->any) listener->method = server->any;
        if (listener->method == NULL)
            return pl_error(-EINVAL,
                            wanted[0] ? "%s: there is no method '%s'"
                                      : "%s: which method%s? Add method=NAME to the URL",
                            listener->text, wanted);
    }
    return 0;
}

/* The table as it goes over the wire (u8 length, name), and as text for the status page. */
static int write_table(struct plait_server *server)
{
    struct pl_buffer names = PL_BUFFER_INIT, urls = PL_BUFFER_INIT;
    free(server->table); /* of a start that failed */
    server->table_size = 0;
    server->table = malloc((size_t)server->method_count * (PLAIT_NAME_MAX + 1));
    if (server->table == NULL) return pl_error(-ENOMEM, "no memory for the method table");
    int r = 0;
    for (uint32_t i = 0; r >= 0 && i < server->method_count; i++) {
        const char *name = server->methods[i].name;
        size_t size = strlen(name);
        server->table[server->table_size++] = (uint8_t)size;
        memcpy(server->table + server->table_size, name, size);
        server->table_size += size;
        r = pl_buffer_printf(&names, "%s%s", i ? " " : "", size ? name : "\"\"");
    }
    for (size_t i = 0; r >= 0 && plait_server_url(server, i) != NULL; i++)
        r = pl_buffer_printf(&urls, "%s%s", i ? " " : "", plait_server_url(server, i));
    if (r >= 0) r = pl_buffer_append(&names, "", 1);
    if (r >= 0) r = pl_buffer_append(&urls, "", 1);
    if (r >= 0) {
        pl_status_service_set(server->status, (const char *)pl_buffer_data(&urls),
                              (const char *)pl_buffer_data(&names));
        r = pl_claim_set_urls(&server->claim, (const char *)pl_buffer_data(&urls));
    }
    pl_buffer_deinit(&names);
    pl_buffer_deinit(&urls);
    return r < 0 ? r : 0;
}

static void *reactor_thread(void *argument)
{
    struct pl_reactor *reactor = argument;
    struct plait_server *server = reactor->server;
    pl_reactor_main(reactor);
    /* R_RUN1: pairs with A_RUN1 in await_threads: what the thread did is done */
    if (atomic_fetch_sub_explicit(&server->running, 1, memory_order_release) == 1)
        pl_futex_wake(&server->running, INT32_MAX);
    return NULL;
}

static int start_thread(struct pl_reactor *reactor)
{
    sigset_t before;
    reactor->started = true;
    atomic_fetch_add_explicit(&reactor->server->running, 1,
                              memory_order_relaxed); /* relaxed: the thread has it later */
    pl_signal_block_all(&before);
    int error = pthread_create(&reactor->thread, NULL, reactor_thread, reactor);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0) return 0;
    reactor->started = false;
    atomic_fetch_sub_explicit(&reactor->server->running, 1, memory_order_relaxed); /* relaxed: it never was */
    return pl_error(-error, "cannot start thread %u of %s: %s", reactor->index, reactor->server->name,
                    pl_error_word(error));
}

/* Everything but the acceptor's own loop. */
static int begin(struct plait_server *server, bool foreign_loop)
{
    int r = pl_server_check(server);
    if (r < 0) return r;
    if (server->state != PL_SERVER_OPEN)
        return pl_error(-EBUSY, "%s %s", server->name,
                        server->state == PL_SERVER_RUNNING ? "runs already" : "has run and ended: open another");
    if (server->reactors == NULL)
        return pl_error(-EINVAL,
                        "a server with processes=%d, or such a one's worker, is run by plait_server_run() alone",
                        server->processes);
    if (foreign_loop && server->thread_count > 1)
        return pl_error(-EINVAL, "a server with %u threads runs its own loops: use threads=1 with fd and dispatch",
                        server->thread_count);
    r = pl_server_resolve(server);
    if (r == 0) r = write_table(server);
    if (r == 0) r = pl_listener_start(server);
    if (r < 0) return r;
    server->foreign_loop = foreign_loop;
    server->state = PL_SERVER_RUNNING;
    for (unsigned i = 0; r == 0 && i < server->reactor_count; i++)
        if (&server->reactors[i] != server->acceptor) r = start_thread(&server->reactors[i]);
    return r;
}

/* Which handler holds up the end, and for how long. */
static int stuck_in(struct plait_server *server)
{
    for (unsigned i = 0; i < server->thread_count; i++) {
        struct pl_reactor *reactor = &server->reactors[i];
        if (!reactor->started) continue;
        /* A_RUN2: pairs with R_RUN2 in reactor.c */
        struct pl_status_work *work = atomic_load_explicit(&reactor->work, memory_order_acquire);
        if (work == NULL) continue;
        /* Relaxed: a look at what another thread is doing, which may be over by now. */
        uint64_t current = atomic_load_explicit(&work->current, memory_order_relaxed) & UINT16_MAX;
        uint64_t since = atomic_load_explicit(&work->since, memory_order_relaxed);
        if (current == 0 || current > server->method_count) continue;
        return pl_error(-ETIMEDOUT,
                        "%s: method '%s' has been running for %llu ms on thread plait/%s/%u and holds up the stop (end "
                        "the process: nothing else ends a handler)",
                        server->name, server->methods[current - 1].name,
                        (unsigned long long)pl_ns_of_ticks(pl_ticks() - since) / 1000000, server->name, i);
    }
    return pl_error(-ETIMEDOUT, "%s: a thread doesn't end", server->name);
}

/* Until every thread has left its loop: 0, or at UNTIL -ETIMEDOUT with the handler that is in its way. */
static int await_threads(struct plait_server *server, uint64_t until)
{
    for (;;) {
        /* A_RUN1: pairs with R_RUN1 */
        uint32_t running = atomic_load_explicit(&server->running, memory_order_acquire);
        if (running == 0) return 0;
        if (pl_futex_wait(&server->running, running, until) == -ETIMEDOUT) return stuck_in(server);
    }
}

static uint64_t give_up_at(uint64_t grace_over_ns)
{
    uint64_t more = (uint64_t)GIVE_UP_MS * 1000000;
    return grace_over_ns < PL_NEVER - more ? grace_over_ns + more : PL_NEVER;
}

static void join_threads(struct plait_server *server)
{
    for (unsigned i = 0; i < server->reactor_count; i++) {
        if (!server->reactors[i].started) continue;
        pthread_join(server->reactors[i].thread, NULL);
        server->reactors[i].started = false;
    }
    server->state = PL_SERVER_ENDED;
}

int plait_server_stop(plait_server *server, int64_t grace)
{
    int r = pl_server_check(server);
    if (r < 0) return r;
    atomic_store_explicit(&server->grace, grace, memory_order_relaxed); /* published by the next */
    /* R_STOP1: pairs with A_STOP1 in reactor.c and A_STOP2 in supervisor.c */
    atomic_store_explicit(&server->stopping, 1, memory_order_release);
    for (unsigned i = 0; i < server->reactor_count; i++) pl_wake_up(&server->reactors[i].wake);
    uint64_t one = 1;
    if (server->wake_fd >= 0) (void)!write(server->wake_fd, &one, sizeof(one));
    return 0;
}

int pl_server_serve(struct plait_server *server)
{
    int r = begin(server, false);
    if (r < 0) return r;
    struct pl_reactor *reactor = server->acceptor;
    pl_reactor_enter(reactor);
    int ticket = pl_signal_catch(reactor->wake.source.fd, false);
    if (ticket < 0) r = ticket;
    else if (server->serving) server->serving(server);
    while (r == 0 && !reactor->over) {
        r = pl_reactor_round(reactor, PL_NEVER);
        if (ticket >= 0 && pl_signal_caught(ticket) && !reactor->draining) (void)plait_server_stop(server, 0);
    }
    pl_signal_release(ticket);
    if (r < 0) (void)plait_server_stop(server, PLAIT_NOW);
    uint64_t until = reactor->draining ? reactor->grace_timer.deadline : pl_clock_ns();
    int stuck = await_threads(server, give_up_at(until));
    if (stuck < 0) {
        server->state = PL_SERVER_ENDED;
        server->abandoned = true;
        return stuck;
    }
    join_threads(server);
    return r;
}

int plait_server_start(plait_server *server)
{
    int r = begin(server, false);
    if (r == 0) r = start_thread(server->acceptor);
    return r;
}

int plait_server_fd(plait_server *server)
{
    int r = pl_server_check(server);
    if (r == 0 && server->state == PL_SERVER_OPEN) r = begin(server, true);
    if (r < 0) return r;
    if (!server->foreign_loop) return pl_error(-EBUSY, "%s runs its own loop", server->name);
    struct pl_reactor *reactor = server->acceptor;
    if (reactor->alarm.source.ready == NULL) r = pl_alarm_init(&reactor->alarm, &reactor->loop);
    if (r < 0) return r;
    pl_reactor_rest(reactor);
    pl_alarm_follow(&reactor->alarm, &reactor->loop);
    return reactor->loop.epoll_fd;
}

int plait_server_dispatch(plait_server *server, int64_t timeout)
{
    int r = pl_server_check(server);
    if (r == 0 && server->state == PL_SERVER_OPEN) r = begin(server, true);
    if (r < 0) return r;
    struct pl_reactor *reactor = server->acceptor;
    if (!server->foreign_loop) return pl_error(-EBUSY, "%s runs its own loop", server->name);
    if (reactor->over) return pl_error(-ESHUTDOWN, "%s has stopped", server->name);
    if (reactor->shown == NULL || !pthread_equal(reactor->thread, pthread_self())) pl_reactor_enter(reactor);
    uint64_t deadline = timeout <= 0 ? 0 : pl_clock_deadline(timeout, 0), before = reactor->handled;
    bool again;
    do {
        r = pl_reactor_round(reactor, deadline);
        if (r < 0) return r;
        /* With its last session gone a stopping server has one more round, which nothing would announce. */
        bool last = reactor->draining && pl_list_empty(&reactor->sessions);
        again = (reactor->handled == before && pl_clock_ns() < deadline) || reactor->awake_count > 0 || last;
    } while (!reactor->over && again);
    pl_alarm_follow(&reactor->alarm, &reactor->loop);
    return reactor->over ? pl_error(-ESHUTDOWN, "%s has stopped", server->name) : (int)(reactor->handled - before);
}

void pl_server_finish(struct plait_server *server)
{
    if (server->state != PL_SERVER_RUNNING) return;
    (void)plait_server_stop(server, 0);
    if (server->foreign_loop) {
        pl_reactor_enter(server->acceptor);
        while (!server->acceptor->over && pl_reactor_round(server->acceptor, PL_NEVER) == 0) continue;
    }
    /* The server's memory, and what its handlers use, goes away afterwards: there is nothing for it but to wait. */
    if (await_threads(server, give_up_at(pl_clock_deadline(0, PL_GRACE_MS))) < 0)
        pl_log(PLAIT_LOG_ERROR, "%s; closing waits for it", pl_error_text());
    join_threads(server);
}
