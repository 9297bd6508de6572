/* listener: accepting and greeting, in the acceptor's thread; a socket for datagrams becomes a session at once. */
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "loop/crash.h"
#include "server/server.h"
#include "transport/socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ACCEPT_BATCH = 32, ACCEPT_RETRY_MS = 100 };

struct greeting {
    struct pl_list link;
    struct pl_source source;
    struct pl_timer timer;
    struct pl_listener *listener;
    struct pl_greeting hello;
    pid_t pid;
    uid_t uid;
    char address[PL_ADDRESS_TEXT];
};

static struct pl_loop *loop_of(struct plait_server *server)
{
    return &server->acceptor->loop;
}

static void count_refused(struct plait_server *server)
{
    pthread_mutex_lock(&server->status_lock);
    pl_count(&pl_status_service_counters(server->status)->refused, 1);
    pthread_mutex_unlock(&server->status_lock);
}

/* Ends a greeting; the socket is closed unless it was taken out (-1). */
static void end_greeting(struct greeting *greeting)
{
    struct plait_server *server = greeting->listener->server;
    pl_timer_clear(loop_of(server), &greeting->timer);
    pl_loop_remove(loop_of(server), &greeting->source);
    pl_close(&greeting->source.fd);
    pl_list_remove(&greeting->link);
    server->greeting_count--;
    free(greeting);
}

static void refuse(struct greeting *greeting, int error)
{
    struct plait_server *server = greeting->listener->server;
    pl_log(PLAIT_LOG_INFO, "%s: refused %s: %s", server->name, greeting->address, pl_error_text());
    if (error != -ECONNRESET && greeting->source.fd >= 0)
        pl_handshake_refuse(greeting->source.fd, error, pl_error_text());
    count_refused(server);
    end_greeting(greeting);
}

static void on_hello_late(struct pl_timer *timer)
{
    struct greeting *greeting = pl_container_of(timer, struct greeting, timer);
    (void)pl_error(-ETIMEDOUT, "no hello within %d ms", PL_HELLO_MS);
    refuse(greeting, -ETIMEDOUT);
}

static int welcome(struct greeting *greeting, const struct pl_hello_client *hello)
{
    struct pl_listener *listener = greeting->listener;
    struct plait_server *server = listener->server;
    struct pl_reactor *reactor = pl_reactor_emptiest(server, greeting->pid);
    bool local = listener->url.scheme != PL_SCHEME_TCP;
    struct pl_terms terms = {
        .instance = server->claim.id,
        .max_message = listener->max_message,
        .outstanding = server->outstanding_max,
        .concurrency = server->thread_count,
        .reactor = reactor->index + 1,
        .methods = server->table,
        .methods_size = server->table_size,
        .method_count = server->method_count,
        .any_method = server->any != NULL,
        .load_fd = server->load_fd,
        .shm = local && greeting->uid == geteuid(),
        .transport = local ? "unix" : "tcp",
    };
    if (hello->name[0] != 0 && strcmp(hello->name, server->name) != 0)
        return pl_error(-ENOENT, "no service '%s' here, this is '%s'", hello->name, server->name);
    struct pl_transport *transport;
    int socket = greeting->source.fd;
    pl_loop_remove(loop_of(server), &greeting->source);
    greeting->source.fd = -1;
    int r = pl_handshake_accept(&transport, socket, hello, &terms);
    if (r < 0) return r;
    struct pl_session *session =
        pl_session_new(reactor, transport, listener, greeting->pid, greeting->uid, greeting->address);
    if (session == NULL) return pl_error(-ENOMEM, "no memory for a connection");
    if (hello->max_reply && hello->max_reply < session->reply_limit) session->reply_limit = hello->max_reply;
    pl_reactor_knock(session->reactor, session);
    pl_session_unref(session); /* the inbox and, from there on, the reactor hold it */
    return 0;
}

static void on_hello(struct pl_source *source, uint32_t events)
{
    struct greeting *greeting = pl_container_of(source, struct greeting, source);
    struct pl_hello_client hello;
    (void)events;
    int r = pl_greeting_read(&greeting->hello, source->fd, &hello);
    if (r == PL_HELLO_MORE) return;
    if (r == PL_HELLO_OK) r = welcome(greeting, &hello);
    if (r < 0) refuse(greeting, r);
    else end_greeting(greeting);
}

static void begin_greeting(struct pl_listener *listener, int socket, pid_t pid, uid_t uid, const char *address)
{
    struct plait_server *server = listener->server;
    struct greeting *greeting = calloc(1, sizeof(*greeting));
    if (greeting == NULL) {
        pl_close(&socket);
        return;
    }
    greeting->source = PL_SOURCE(socket, on_hello);
    greeting->timer.due = on_hello_late;
    greeting->listener = listener;
    greeting->pid = pid;
    greeting->uid = uid;
    snprintf(greeting->address, sizeof(greeting->address), "%s", address);
    pl_list_append(&server->greetings, &greeting->link);
    if (++server->greeting_count > PL_UNGREETED_MAX) {
        (void)pl_error(-EBUSY, "more than PL_UNGREETED_MAX, %d, connections without a hello: the oldest is dropped",
                       PL_UNGREETED_MAX);
        refuse(pl_container_of(server->greetings.next, struct greeting, link), -EBUSY);
    }
    int r = pl_loop_add(loop_of(server), &greeting->source, EPOLLIN);
    if (r == 0) r = pl_timer_set(loop_of(server), &greeting->timer, pl_clock_ns() + (uint64_t)PL_HELLO_MS * 1000000);
    if (r < 0) {
        refuse(greeting, r);
        return;
    }
    on_hello(&greeting->source, EPOLLIN); /* it is there already, mostly */
}

static void begin_idless(struct pl_listener *listener, int socket, pid_t pid, uid_t uid, const char *address)
{
    struct pl_transport *transport;
    struct pl_idless_options options = { .framing = listener->url.framing, .server = true };
    const char *name = listener->url.scheme == PL_SCHEME_TCP ? "tcp" : "unix";
    if (pl_transport_idless_new(&transport, socket, name, &options) < 0) return;
    transport->max_message = listener->max_message;
    struct pl_reactor *reactor = pl_reactor_emptiest(listener->server, pid);
    struct pl_session *session = pl_session_new(reactor, transport, listener, pid, uid, address);
    if (session == NULL) return;
    pl_reactor_knock(session->reactor, session);
    pl_session_unref(session);
}

/* The socket is the session's from now on: all who send to it are one, until the server drains. */
static int begin_datagrams(struct pl_listener *listener)
{
    struct pl_transport *transport;
    int socket = listener->source.fd;
    if (socket < 0) return 0; /* an earlier start got so far */
    listener->source.fd = -1;
    int r = pl_transport_udp_new(&transport, socket, true);
    if (r < 0) return r;
    transport->max_message = listener->max_message;
    struct pl_reactor *reactor = pl_reactor_emptiest(listener->server, 0);
    struct pl_session *session = pl_session_new(reactor, transport, listener, 0, (uid_t)-1, "(datagrams)");
    if (session == NULL) return pl_error(-ENOMEM, "no memory for a datagram socket");
    pl_reactor_knock(session->reactor, session);
    pl_session_unref(session);
    return 0;
}

static void begin(struct pl_listener *listener, int socket, const struct pl_address *peer)
{
    struct plait_server *server = listener->server;
    char address[PL_ADDRESS_TEXT];
    pid_t pid = 0;
    uid_t uid = (uid_t)-1;
    pthread_mutex_lock(&server->status_lock);
    pl_count(&pl_status_service_counters(server->status)->connections, 1);
    pthread_mutex_unlock(&server->status_lock);
    if (listener->url.scheme == PL_SCHEME_TCP) {
        pl_socket_tune(socket);
        pl_address_format(peer, address, sizeof(address));
    } else {
        int r = pl_allow_check(&server->allow, socket, &pid, &uid);
        if (r < 0) {
            pl_log(PLAIT_LOG_INFO, "%s: refused: %s", server->name, pl_error_text());
            if (listener->url.framing == PL_FRAMING_PLAIT) pl_handshake_refuse(socket, r, pl_error_text());
            count_refused(server);
            pl_close(&socket);
            return;
        }
        pl_process_name(pid, address, sizeof(address));
    }
    if (listener->url.framing == PL_FRAMING_PLAIT) begin_greeting(listener, socket, pid, uid, address);
    else begin_idless(listener, socket, pid, uid, address);
}

/* ---- accepting ---- */

/* A URL's listener is shared by all workers, and one of them is enough for a connection. */
static uint32_t listening_for(const struct pl_listener *listener)
{
    return listener->server->worker && !listener->name_socket ? EPOLLIN | EPOLLEXCLUSIVE : EPOLLIN;
}

static void pause_accepting(struct plait_server *server)
{
    server->accept_paused = true;
    for (unsigned i = 0; i < server->listener_count; i++)
        pl_loop_remove(loop_of(server), &server->listeners[i]->source);
    (void)pl_timer_set(loop_of(server), &server->accept_timer, pl_clock_ns() + (uint64_t)ACCEPT_RETRY_MS * 1000000);
}

static void on_connection(struct pl_source *source, uint32_t events)
{
    struct pl_listener *listener = pl_container_of(source, struct pl_listener, source);
    (void)events;
    /* A burst is for all workers, not for the one that is called first. */
    int batch = listening_for(listener) & EPOLLEXCLUSIVE ? 1 : ACCEPT_BATCH;
    for (int i = 0; i < batch; i++) {
        struct pl_address peer;
        int socket;
        int r = pl_socket_accept(source->fd, &socket, &peer);
        if (r == PL_SOCKET_NONE) return;
        if (r < 0) {
            pl_log(PLAIT_LOG_ERROR, "%s: %s: others are served meanwhile", listener->server->name, pl_error_text());
            pause_accepting(listener->server);
            return;
        }
        begin(listener, socket, &peer);
    }
}

void pl_listener_free_descriptor(struct plait_server *server)
{
    if (!server->accept_paused || server->acceptor->draining) return;
    server->accept_paused = false;
    pl_timer_clear(loop_of(server), &server->accept_timer);
    for (unsigned i = 0; i < server->listener_count; i++)
        if (server->listeners[i]->source.fd >= 0)
            (void)pl_loop_add(loop_of(server), &server->listeners[i]->source, listening_for(server->listeners[i]));
}

static void on_accept_again(struct pl_timer *timer)
{
    pl_listener_free_descriptor(pl_container_of(timer, struct plait_server, accept_timer));
}

int pl_listener_start(struct plait_server *server)
{
    server->accept_timer.due = on_accept_again;
    for (unsigned i = 0; i < server->listener_count; i++) {
        struct pl_listener *listener = server->listeners[i];
        listener->source.ready = on_connection;
        int r = listener->url.scheme == PL_SCHEME_UDP
                    ? begin_datagrams(listener)
                    : pl_loop_add(loop_of(server), &listener->source, listening_for(listener));
        if (r < 0) return r;
    }
    return 0;
}

void pl_listener_stop(struct plait_server *server)
{
    if (server->reactors != NULL) { /* a supervisor has none, and its listeners are in no loop */
        pl_list_each(item, &server->greetings) end_greeting(pl_container_of(item, struct greeting, link));
        pl_timer_clear(loop_of(server), &server->accept_timer);
        for (unsigned i = 0; i < server->listener_count; i++)
            pl_loop_remove(loop_of(server), &server->listeners[i]->source);
    }
    for (unsigned i = 0; i < server->listener_count; i++) {
        struct pl_listener *listener = server->listeners[i];
        if (listener->name_socket) { /* the claim's */
            pl_crash_unwatch(listener->source.fd);
            continue;
        }
        if (listener->source.fd >= 0 && server->worker == 0) pl_socket_unlink(&listener->url);
        pl_close(&listener->source.fd);
    }
}
