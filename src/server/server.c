/* server: open, handle, listen, run, start, stop, close. */
#include "server/server.h"

#include "base/buffer.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/options.h"
#include "loop/signal.h"
#include "transport/socket.h"
#include "wire/name.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int check_usable(const struct plait_server *server)
{
    if (pl_forked(&server->fork_hook))
        return pl_error(-ECHILD,
                        "this server was opened before fork() and belongs to the parent: open one in the child");
    return 0;
}

/* The fork may have come while another thread opened or closed this server. */
static void on_fork(struct pl_fork_hook *hook)
{
    struct plait_server *server = pl_container_of(hook, struct plait_server, fork_hook);
    server->forked = true;
    pl_claim_forked(&server->claim);
    for (unsigned i = server->name_listeners; i < server->listener_count; i++)
        pl_close(&server->listeners[i]->source.fd);
    atomic_signal_fence(memory_order_seq_cst); /* F_FORK2: pairs with F_FORK1 */
    for (unsigned i = 0; server->reactors != NULL && i < server->thread_count; i++) {
        struct pl_reactor *reactor = &server->reactors[i];
        pl_list_each(item, &reactor->sessions)
            pl_connection_forked(&pl_container_of(item, struct pl_session, link)->connection);
        pl_close(&reactor->wake.source.fd);
        if (reactor->alarm.source.ready) pl_close(&reactor->alarm.source.fd);
        pl_close(&reactor->loop.epoll_fd);
    }
    pl_close(&server->load_fd);
}

/* ---- open ---- */

static uint64_t default_inbound(void)
{
    uint64_t ram = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t most = (uint64_t)2 << 30;
    return ram / 4 < most ? ram / 4 : most;
}

static int apply_options(struct plait_server *server, const plait_server_options *options)
{
    if (options->threads < -1 || options->threads > PL_THREADS_MAX)
        return pl_error(-EINVAL, "threads=%d: 1 to %d (PL_THREADS_MAX), 0 for 1, -1 for as many as CPUs",
                        options->threads, PL_THREADS_MAX);
    int cpus = pl_cpu_count() < PL_THREADS_MAX ? pl_cpu_count() : PL_THREADS_MAX;
    server->thread_count = options->threads == 0  ? 1
                           : options->threads < 0 ? (unsigned)cpus
                                                  : (unsigned)options->threads;
    if (options->max_message > PLAIT_MESSAGE_MAX)
        return pl_error(-EINVAL, "max_message=%llu: at most PLAIT_MESSAGE_MAX, %u",
                        (unsigned long long)options->max_message, PLAIT_MESSAGE_MAX);
    server->max_message_given = options->max_message != 0;
    server->max_message = options->max_message ? options->max_message : PLAIT_MESSAGE_MAX;
    server->inbound_max = options->inbound_bytes ? options->inbound_bytes : default_inbound();
    server->outstanding_max = options->outstanding ? options->outstanding : PL_OUTSTANDING_DEFAULT;
    return pl_allow_parse(&server->allow, options->allow);
}

static int add_reactors(struct plait_server *server)
{
    struct pl_reactor *reactors = calloc(server->thread_count, sizeof(*reactors));
    if (reactors == NULL) return pl_error(-ENOMEM, "no memory for %u reactors", server->thread_count);
    for (unsigned i = 0; i < server->thread_count; i++) pl_reactor_prepare(&reactors[i], server, i);
    /* F_FORK1: pairs with F_FORK2 in on_fork, which finds them prepared or not at all */
    atomic_signal_fence(memory_order_seq_cst);
    server->reactors = reactors;
    return 0;
}

static int add_name_listeners(struct plait_server *server)
{
    for (int i = 0; i < 2; i++) {
        if (server->claim.listeners[i] < 0) continue;
        struct pl_listener *listener = calloc(1, sizeof(*listener));
        if (listener == NULL) return pl_error(-ENOMEM, "no memory for a listener");
        listener->server = server;
        listener->source.fd = server->claim.listeners[i];
        listener->name_socket = true;
        listener->max_message = server->max_message;
        listener->url.scheme = PL_SCHEME_NAME;
        listener->url.framing = PL_FRAMING_PLAIT;
        server->listeners[server->listener_count++] = listener;
        server->name_listeners++;
    }
    return 0;
}

int plait_server_open(plait_server **ret_server, const char *name, const plait_server_options *options)
{
    plait_server_options known;
    int r = pl_options_read(&known, sizeof(known), options, "plait_server_options");
    if (r < 0) return r;
    struct plait_server *server = calloc(1, sizeof(*server));
    if (server == NULL) return pl_error(-ENOMEM, "no memory for a server");
    server->load_fd = server->claim.listeners[0] = server->claim.listeners[1] = -1;
    pl_list_init(&server->greetings);
    pthread_mutex_init(&server->status_lock, NULL);
    server->fork_hook.in_child = on_fork;
    r = pl_fork_add(&server->fork_hook);
    if (r == 0 && name == NULL) r = pl_error(-EINVAL, "a server needs a name");
    if (r == 0) r = pl_name_check("service", name, strlen(name));
    if (r == 0) r = apply_options(server, &known);
    if (r == 0) {
        strcpy(server->name, name);
        r = add_reactors(server);
    }
    if (r == 0) r = pl_load_create(&server->load, &server->load_fd);
    for (unsigned i = 0; r == 0 && i < server->thread_count; i++)
        r = pl_reactor_init(&server->reactors[i], known.spin_us);
    if (r == 0) r = pl_claim_open(&server->claim, name, known.exclusive != 0, &server->allow);
    if (r == 0) r = add_name_listeners(server);
    if (r < 0) {
        plait_server_close(server);
        return r;
    }
    server->status = pl_status_service_add(name, server->claim.id, server->claim.directory, (int)server->thread_count);
    *ret_server = server;
    return 0;
}

/* ---- before it runs ---- */

int plait_server_handle(plait_server *server, const char *method, plait_handler *handler, void *context)
{
    int r = check_usable(server);
    if (r < 0) return r;
    if (server->state != PL_SERVER_OPEN)
        return pl_error(-EBUSY, "methods are registered before the server runs: clients have the table by then");
    if (method == NULL) method = "";
    bool any = strcmp(method, "*") == 0;
    if (handler == NULL) return pl_error(-EINVAL, "method '%s' has no handler", method);
    if (method[0] != 0 && !any) r = pl_name_check_method(method, strlen(method));
    if (r < 0) return r;
    for (uint32_t i = 0; i < server->method_count; i++)
        if (strcmp(server->methods[i].name, method) == 0)
            return pl_error(-EEXIST, "method '%s' has a handler already", method);
    if (server->method_count == PLAIT_METHODS_MAX)
        return pl_error(-ENOSPC, "%s has PLAIT_METHODS_MAX, %d, methods already", server->name, PLAIT_METHODS_MAX);
    struct pl_method *methods = realloc(server->methods, (server->method_count + 1) * sizeof(*methods));
    if (methods == NULL) return pl_error(-ENOMEM, "no memory for a method");
    server->methods = methods;
    struct pl_method *added = &methods[server->method_count++];
    *added = (struct pl_method){ .handler = handler, .context = context };
    strcpy(added->name, method);
    return 0;
}

int plait_server_listen(plait_server *server, const char *text)
{
    struct pl_url url;
    int r = check_usable(server);
    if (r < 0) return r;
    if (server->state != PL_SERVER_OPEN) return pl_error(-EBUSY, "listeners are added before the server runs");
    if (server->listener_count == PL_LISTENERS_MAX)
        return pl_error(-ENOSPC, "%s has PL_LISTENERS_MAX, %d, listeners already", server->name, PL_LISTENERS_MAX);
    r = pl_url_parse(&url, text);
    if (r < 0) return r;
    if (url.name[0] && url.scheme != PL_SCHEME_NAME && strcmp(url.name, server->name) != 0)
        return pl_error(-EINVAL, "'%s' names the service '%s', this one is '%s'", text, url.name, server->name);
    struct pl_listener *listener = calloc(1, sizeof(*listener));
    if (listener == NULL) return pl_error(-ENOMEM, "no memory for a listener");
    r = pl_socket_listen(&url, &listener->source.fd, listener->text, sizeof(listener->text));
    if (r < 0) {
        free(listener);
        return r;
    }
    listener->server = server;
    listener->url = url;
    uint64_t usual =
        url.scheme == PL_SCHEME_TCP && !server->max_message_given ? PL_NETWORK_MESSAGE_DEFAULT : server->max_message;
    if (url.scheme == PL_SCHEME_UDP && usual > PLAIT_DATAGRAM_MAX) usual = PLAIT_DATAGRAM_MAX;
    listener->max_message = url.max_message ? url.max_message : usual;
    server->listeners[server->listener_count++] = listener;
    return 0;
}

const char *plait_server_url(plait_server *server, size_t index)
{
    if (index >= server->listener_count - server->name_listeners) return NULL;
    return server->listeners[server->name_listeners + index]->text;
}

/* ---- starting ---- */

static const struct pl_method *method_named(struct plait_server *server, const char *name)
{
    for (uint32_t i = 0; i < server->method_count; i++)
        if (strcmp(server->methods[i].name, name) == 0) return &server->methods[i];
    return NULL;
}

static int resolve_methods(struct plait_server *server)
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

static int start_thread(struct pl_reactor *reactor)
{
    sigset_t before;
    reactor->started = true;
    pl_signal_block_all(&before);
    int error = pthread_create(&reactor->thread, NULL, pl_reactor_main, reactor);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0) return 0;
    reactor->started = false;
    return pl_error(-error, "cannot start thread %u of %s: %s", reactor->index, reactor->server->name,
                    pl_error_word(error));
}

/* Everything but reactor 0's own loop. */
static int begin(struct plait_server *server, bool foreign_loop)
{
    int r = check_usable(server);
    if (r < 0) return r;
    if (server->state != PL_SERVER_OPEN)
        return pl_error(-EBUSY, "%s %s", server->name,
                        server->state == PL_SERVER_RUNNING ? "runs already" : "has run and ended: open another");
    if (foreign_loop && server->thread_count > 1)
        return pl_error(-EINVAL, "a server with %u threads runs its own loops: use threads=1 with fd and dispatch",
                        server->thread_count);
    r = resolve_methods(server);
    if (r == 0) r = write_table(server);
    if (r == 0) r = pl_listener_start(server);
    if (r < 0) return r;
    server->foreign_loop = foreign_loop;
    server->state = PL_SERVER_RUNNING;
    for (unsigned i = 1; r == 0 && i < server->thread_count; i++) r = start_thread(&server->reactors[i]);
    return r;
}

static void join_threads(struct plait_server *server)
{
    for (unsigned i = 0; i < server->thread_count; i++) {
        if (!server->reactors[i].started) continue;
        pthread_join(server->reactors[i].thread, NULL);
        server->reactors[i].started = false;
    }
    server->state = PL_SERVER_ENDED;
}

int plait_server_stop(plait_server *server, int64_t grace)
{
    int r = check_usable(server);
    if (r < 0) return r;
    atomic_store_explicit(&server->grace, grace, memory_order_relaxed); /* published by the next */
    atomic_store_explicit(&server->stopping, 1, memory_order_release);  /* R_STOP1: pairs with A_STOP1 in reactor.c */
    for (unsigned i = 0; i < server->thread_count; i++) pl_wake_up(&server->reactors[i].wake);
    return 0;
}

int plait_server_run(plait_server *server)
{
    int r = begin(server, false);
    if (r < 0) return r;
    struct pl_reactor *reactor = &server->reactors[0];
    int ticket = pl_signal_catch(reactor->wake.source.fd);
    if (ticket < 0) r = ticket;
    while (r == 0 && !reactor->over) {
        r = pl_reactor_round(reactor, PL_NEVER);
        if (ticket >= 0 && pl_signal_caught(ticket) && !reactor->draining) (void)plait_server_stop(server, 0);
    }
    pl_signal_release(ticket);
    if (r < 0) (void)plait_server_stop(server, PLAIT_NOW);
    join_threads(server);
    return r;
}

int plait_server_start(plait_server *server)
{
    int r = begin(server, false);
    if (r == 0) r = start_thread(&server->reactors[0]);
    return r;
}

int plait_server_fd(plait_server *server)
{
    int r = check_usable(server);
    if (r == 0 && server->state == PL_SERVER_OPEN) r = begin(server, true);
    if (r < 0) return r;
    if (!server->foreign_loop) return pl_error(-EBUSY, "%s runs its own loop", server->name);
    struct pl_reactor *reactor = &server->reactors[0];
    if (reactor->alarm.source.ready == NULL) r = pl_alarm_init(&reactor->alarm, &reactor->loop);
    if (r < 0) return r;
    pl_reactor_rest(reactor);
    pl_alarm_follow(&reactor->alarm, &reactor->loop);
    return reactor->loop.epoll_fd;
}

int plait_server_dispatch(plait_server *server, int64_t timeout)
{
    int r = check_usable(server);
    if (r == 0 && server->state == PL_SERVER_OPEN) r = begin(server, true);
    if (r < 0) return r;
    struct pl_reactor *reactor = &server->reactors[0];
    if (!server->foreign_loop) return pl_error(-EBUSY, "%s runs its own loop", server->name);
    if (reactor->over) return pl_error(-ESHUTDOWN, "%s has stopped", server->name);
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

/* ---- closing ---- */

static void free_server(struct plait_server *server)
{
    for (unsigned i = 0; i < server->listener_count; i++) free(server->listeners[i]);
    free(server->methods);
    free(server->table);
    free(server->reactors);
    pthread_mutex_destroy(&server->status_lock);
    free(server);
}

static void finish(struct plait_server *server)
{
    if (server->state != PL_SERVER_RUNNING) return;
    (void)plait_server_stop(server, 0);
    if (server->foreign_loop)
        while (!server->reactors[0].over && pl_reactor_round(&server->reactors[0], PL_NEVER) == 0) continue;
    join_threads(server);
}

void plait_server_close(plait_server *server)
{
    if (server == NULL) return;
    if (server->forked || pl_forked(&server->fork_hook)) {
        free_server(server); /* descriptors are closed, sessions lie in the parent's hands */
        return;
    }
    finish(server);
    if (server->reactors) {
        pl_listener_stop(server);
        for (unsigned i = 0; i < server->thread_count; i++) pl_reactor_deinit(&server->reactors[i]);
    }
    pl_claim_close(&server->claim);
    pl_status_service_remove(server->status);
    pl_load_detach(server->load);
    pl_close(&server->load_fd);
    pl_fork_remove(&server->fork_hook);
    free_server(server);
}
