/* server: open, handle, listen, run, start, stop, close. */
#include "server/server.h"

#include "base/buffer.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/options.h"
#include "connection/context.h"
#include "loop/crash.h"
#include "transport/socket.h"
#include "wire/name.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

int pl_server_check(const struct plait_server *server)
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
    if (server->spawning) server->name_lock = fcntl(pl_claim_lock_fd(&server->claim), F_DUPFD_CLOEXEC, 0);
    pl_claim_forked(&server->claim);
    if (server->spawning) return; /* into a worker, which has the rest */
    pl_close(&server->control_fd);
    pl_close(&server->name_lock);
    for (unsigned i = server->name_listeners; i < server->listener_count; i++)
        pl_close(&server->listeners[i]->source.fd);
    atomic_signal_fence(memory_order_seq_cst); /* F_FORK2: pairs with F_FORK1 */
    for (unsigned i = 0; server->reactors != NULL && i < server->reactor_count; i++) {
        struct pl_reactor *reactor = &server->reactors[i];
        pl_list_each(item, &reactor->sessions)
            pl_connection_forked(&pl_container_of(item, struct pl_session, link)->connection);
        pl_close(&reactor->wake.source.fd);
        if (reactor->alarm.source.ready) pl_close(&reactor->alarm.source.fd);
        pl_close(&reactor->loop.epoll_fd);
    }
    pl_close(&server->load_fd);
    pl_close(&server->wake_fd);
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
    if (options->processes < -1 || options->processes > PLAIT_PROCESSES_MAX)
        return pl_error(-EINVAL, "processes=%d: 1 to %d (PLAIT_PROCESSES_MAX), 0 for none, -1 for as many as CPUs",
                        options->processes, PLAIT_PROCESSES_MAX);
    if (options->restart_burst < -1)
        return pl_error(-EINVAL, "restart_burst=%d: 1 or more, 0 for PLAIT_RESTART_BURST, -1 for no limit",
                        options->restart_burst);
    int most = pl_cpu_count() < PLAIT_PROCESSES_MAX ? pl_cpu_count() : PLAIT_PROCESSES_MAX;
    server->processes = options->processes < 0 ? most : options->processes;
    server->restart_burst = options->restart_burst ? options->restart_burst : PLAIT_RESTART_BURST;
    server->spin_us = options->spin_us;
    server->exclusive = options->exclusive != 0;
    server->inbound_max = options->inbound_bytes ? options->inbound_bytes : default_inbound();
    server->outstanding_max = options->outstanding ? options->outstanding : PL_OUTSTANDING_DEFAULT;
    return pl_allow_parse(&server->allow, options->allow);
}

static int add_reactors(struct plait_server *server)
{
    unsigned count = server->thread_count + (server->thread_count > 1);
    struct pl_reactor *reactors = calloc(count, sizeof(*reactors));
    if (reactors == NULL) return pl_error(-ENOMEM, "no memory for %u reactors", count);
    for (unsigned i = 0; i < count; i++) pl_reactor_prepare(&reactors[i], server, i);
    server->reactor_count = count;
    server->acceptor = &reactors[count - 1];
    /* F_FORK1: pairs with F_FORK2 in on_fork, which finds them prepared or not at all */
    atomic_signal_fence(memory_order_seq_cst);
    server->reactors = reactors;
    atomic_fetch_add_explicit(&pl_context_servers, 1, memory_order_relaxed); /* relaxed: see context.h */
    return 0;
}

/* Before those of URLs, which a worker has already. */
static int add_name_listeners(struct plait_server *server)
{
    for (int i = 0; i < PL_WORKER_LISTENERS; i++) {
        if (server->claim.listeners[i] < 0) continue;
        struct pl_listener *listener = calloc(1, sizeof(*listener));
        if (listener == NULL) return pl_error(-ENOMEM, "no memory for a listener");
        listener->server = server;
        listener->source.fd = server->claim.listeners[i];
        listener->name_socket = true;
        listener->max_message = server->max_message;
        listener->url.scheme = PL_SCHEME_NAME;
        listener->url.framing = PL_FRAMING_PLAIT;
        struct pl_listener **at = &server->listeners[server->name_listeners++];
        memmove(at + 1, at, (server->listener_count++ + 1 - server->name_listeners) * sizeof(*at));
        *at = listener;
        pl_crash_watch(listener->source.fd);
    }
    return 0;
}

int pl_server_bring_up(struct plait_server *server)
{
    enum pl_claim_mode mode = server->worker ? PL_CLAIM_HELD : server->exclusive ? PL_CLAIM_EXCLUSIVE : PL_CLAIM_SHARED;
    int r = add_reactors(server);
    if (r == 0 && server->load == NULL) r = pl_load_create(&server->load, &server->load_fd);
    for (unsigned i = 0; r == 0 && i < server->reactor_count; i++)
        r = pl_reactor_init(&server->reactors[i], server->spin_us);
    if (r == 0) r = pl_claim_open(&server->claim, server->name, mode, &server->allow);
    if (r == 0) r = add_name_listeners(server);
    if (r < 0) return r;
    server->status =
        pl_status_service_add(server->name, server->claim.id, server->claim.directory, (int)server->thread_count);
    if (server->worker)
        pl_status_service_set_worker(server->status, server->supervisor, server->worker, server->restarts);
    return 0;
}

/* What there is before the workers are: the name's lock, and what wakes the supervisor. */
static int open_supervisor(struct plait_server *server)
{
    server->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (server->wake_fd < 0) return pl_error(-errno, "no eventfd: %s", pl_error_word(errno));
    return pl_claim_hold(&server->claim, server->name, server->exclusive);
}

int pl_server_new(struct plait_server **ret_server, const char *name, const plait_server_options *options)
{
    struct plait_server *server = calloc(1, sizeof(*server));
    if (server == NULL) return pl_error(-ENOMEM, "no memory for a server");
    server->load_fd = server->wake_fd = server->claim.listeners[0] = server->claim.listeners[1] = -1;
    server->control_fd = server->name_lock = -1;
    pl_list_init(&server->greetings);
    pthread_mutex_init(&server->status_lock, NULL);
    server->fork_hook.in_child = on_fork;
    int r = pl_fork_add(&server->fork_hook);
    if (r == 0 && name == NULL) r = pl_error(-EINVAL, "a server needs a name");
    if (r == 0) r = pl_name_check("service", name, strlen(name));
    if (r == 0) r = apply_options(server, options);
    if (r < 0) {
        plait_server_close(server);
        return r;
    }
    strcpy(server->name, name);
    *ret_server = server;
    return 0;
}

int plait_server_open(plait_server **ret_server, const char *name, const plait_server_options *options)
{
    plait_server_options known;
    struct plait_server *server;
    int r = pl_options_read(&known, sizeof(known), options, "plait_server_options");
    if (r == 0) r = pl_server_new(&server, name, &known);
    if (r < 0) return r;
    r = server->processes ? open_supervisor(server) : pl_server_bring_up(server);
    if (r < 0) {
        plait_server_close(server);
        return r;
    }
    *ret_server = server;
    return 0;
}

/* ---- before it runs ---- */

int plait_server_handle(plait_server *server, const char *method, plait_handler *handler, void *context)
{
    int r = pl_server_check(server);
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

int pl_server_add_listener(struct plait_server *server, const struct pl_url *url, const char *text, int fd)
{
    struct pl_listener *listener = calloc(1, sizeof(*listener));
    if (listener == NULL) {
        pl_close(&fd);
        return pl_error(-ENOMEM, "no memory for a listener");
    }
    listener->server = server;
    listener->url = *url;
    listener->source.fd = fd;
    snprintf(listener->text, sizeof(listener->text), "%s", text);
    uint64_t usual =
        url->scheme == PL_SCHEME_TCP && !server->max_message_given ? PL_NETWORK_MESSAGE_DEFAULT : server->max_message;
    if (url->scheme == PL_SCHEME_UDP && usual > PLAIT_DATAGRAM_MAX) usual = PLAIT_DATAGRAM_MAX;
    listener->max_message = url->max_message ? url->max_message : usual;
    server->listeners[server->listener_count++] = listener;
    return 0;
}

int plait_server_listen(plait_server *server, const char *text)
{
    struct pl_url url;
    char real[sizeof(server->listeners[0]->text)];
    int fd, r = pl_server_check(server);
    if (r < 0) return r;
    if (server->state != PL_SERVER_OPEN) return pl_error(-EBUSY, "listeners are added before the server runs");
    if (server->spawned)
        return pl_error(-EINVAL, "a worker has its supervisor's listeners: listen there, before it runs");
    if (server->listener_count + (server->processes ? PL_WORKER_LISTENERS : 0) >= PL_LISTENERS_MAX)
        return pl_error(-ENOSPC, "%s has PL_LISTENERS_MAX, %d, listeners already", server->name, PL_LISTENERS_MAX);
    r = pl_url_parse(&url, text);
    if (r < 0) return r;
    if (url.name[0] && url.scheme != PL_SCHEME_NAME && strcmp(url.name, server->name) != 0)
        return pl_error(-EINVAL, "'%s' names the service '%s', this one is '%s'", text, url.name, server->name);
    r = pl_socket_listen(&url, &fd, real, sizeof(real));
    return r < 0 ? r : pl_server_add_listener(server, &url, real, fd);
}

const char *plait_server_url(plait_server *server, size_t index)
{
    if (index >= server->listener_count - server->name_listeners) return NULL;
    return server->listeners[server->name_listeners + index]->text;
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

void plait_server_close(plait_server *server)
{
    if (server == NULL) return;
    if (server->forked || pl_forked(&server->fork_hook)) {
        free_server(server); /* descriptors are closed, sessions lie in the parent's hands */
        return;
    }
    pl_server_finish(server);
    if (server->abandoned) { /* a thread still uses the memory: it stays */
        pl_claim_close(&server->claim);
        return;
    }
    pl_listener_stop(server);
    if (server->reactors) {
        for (unsigned i = 0; i < server->reactor_count; i++) pl_reactor_deinit(&server->reactors[i]);
        atomic_fetch_sub_explicit(&pl_context_servers, 1, memory_order_relaxed); /* relaxed: see context.h */
    }
    pl_claim_close(&server->claim);
    pl_status_service_remove(server->status);
    pl_load_detach(server->load);
    pl_close(&server->load_fd);
    pl_close(&server->wake_fd);
    pl_close(&server->control_fd);
    pl_close(&server->name_lock);
    pl_fork_remove(&server->fork_hook);
    free_server(server);
}
