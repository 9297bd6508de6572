/* client: open, close, fork, the descriptor for foreign loops, dispatch. */
#include "client/client.h"

#include "base/error.h"
#include "base/fd.h"
#include "base/options.h"
#include "base/random.h"
#include "base/user.h"
#include "naming/watch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { CLIENT_EVENTS = 8 };
#define NETWORK_MESSAGE_DEFAULT ((uint64_t)16 << 20)

static int check_usable(const struct plait_client *client)
{
    if (pl_forked(&client->fork_hook))
        return pl_error(-ECHILD,
                        "this client was opened before fork() and belongs to the parent: open one in the child");
    return 0;
}

static void close_outer(struct plait_client *client)
{
    pl_close(&client->outer_fd);
    pl_close(&client->ready_fd);
    pl_close(&client->timer_fd);
}

static void on_fork(struct pl_fork_hook *hook)
{
    struct plait_client *client = pl_container_of(hook, struct plait_client, fork_hook);
    pl_list_each(item, &client->links) pl_connection_forked(&pl_container_of(item, struct pl_link, link)->connection);
    pl_close(&client->wake.source.fd);
    pl_close(&client->loop.epoll_fd);
    close_outer(client);
}

static void on_wake(struct pl_wake *wake)
{
    (void)wake; /* the leader looks around after each wait anyway */
}

void pl_client_kick(struct plait_client *client)
{
    if (!client->asleep) return;
    /* Made when it is needed first, which takes a second thread. Without it the leader notices at its deadline. */
    if (client->wake.source.fd < 0 && pl_wake_init(&client->wake, &client->loop, on_wake) < 0) return;
    pl_wake_up(&client->wake);
}

static int apply(struct plait_client *client, const char *target, const plait_client_options *options)
{
    struct pl_url url;
    int r = pl_url_parse(&url, target);
    if (r < 0) return r;
    client->target_text = strdup(target);
    client->target = malloc(sizeof(*client->target));
    if (client->target_text == NULL || client->target == NULL) return pl_error(-ENOMEM, "no memory for a client");
    *client->target = url;
    uint64_t usual = client->target->scheme == PL_SCHEME_TCP   ? NETWORK_MESSAGE_DEFAULT
                     : client->target->scheme == PL_SCHEME_UDP ? PLAIT_DATAGRAM_MAX
                                                               : PLAIT_MESSAGE_MAX;
    if (options->max_message > PLAIT_MESSAGE_MAX || client->target->max_message > PLAIT_MESSAGE_MAX)
        return pl_error(-EINVAL, "max_message: at most PLAIT_MESSAGE_MAX, %u", PLAIT_MESSAGE_MAX);
    client->max_message = options->max_message          ? options->max_message
                          : client->target->max_message ? client->target->max_message
                                                        : usual;
    if (options->transport < PLAIT_TRANSPORT_AUTO || options->transport > PLAIT_TRANSPORT_UNIX)
        return pl_error(-EINVAL, "unknown transport %d", options->transport);
    if (options->transport == PLAIT_TRANSPORT_SHM && client->target->shm_off)
        return pl_error(-EINVAL, "'%s' says shm=off, and the options allow shared memory only", target);
    client->transport = options->transport;
    if (options->peer && options->peer[0]) {
        /* Looked up once: a lookup may ask the network. */
        uid_t uid;
        r = pl_user_uid(options->peer, strlen(options->peer), &uid);
        if (r < 0) return pl_error_in(r, "peer");
        if (asprintf(&client->peer, "%u", (unsigned)uid) < 0) {
            client->peer = NULL;
            return pl_error(-ENOMEM, "no memory for a client");
        }
    }
    client->connect_ms = options->connect_timeout ? options->connect_timeout : PL_CONNECT_MS;
    client->call_ms = options->timeout ? options->timeout : PL_CALL_MS;
    client->rotation = (unsigned)pl_random_u64();
    pl_spin_init(&client->spin, options->spin_us);
    client->interrupt = (struct pl_interrupt){ options->interrupted, options->interrupted_context };
    return 0;
}

int plait_client_open(plait_client **ret_client, const char *target, const plait_client_options *options)
{
    plait_client_options known;
    int r = pl_options_read(&known, sizeof(known), options, "plait_client_options");
    if (r == 0 && target == NULL) r = pl_error(-EINVAL, "a client needs a target: a name or a URL");
    if (r < 0) return r;
    struct plait_client *client = calloc(1, sizeof(*client));
    if (client == NULL) return pl_error(-ENOMEM, "no memory for a client");
    pthread_mutex_init(&client->lock, NULL);
    pl_list_init(&client->links);
    pl_list_init(&client->waiters);
    pl_list_init(&client->free_calls);
    pl_list_init(&client->completed);
    pl_list_init(&client->resend);
    client->last_transport = "none";
    client->next_deadline = PL_NEVER;
    client->loop.epoll_fd = client->wake.source.fd = client->outer_fd = client->ready_fd = client->timer_fd = -1;
    client->fork_hook.in_child = on_fork;
    r = pl_fork_add(&client->fork_hook);
    pl_name_watch_hold();
    if (r == 0) r = apply(client, target, &known);
    if (r == 0) r = pl_loop_init(&client->loop, CLIENT_EVENTS);
    struct pl_deadline deadline = { .timeout_ms = client->connect_ms };
    if (r == 0) r = pl_client_connect_first(client, &deadline);
    if (r < 0) {
        plait_client_close(client);
        return r;
    }
    *ret_client = client;
    return 0;
}

/* ---- what it knows ---- */

const char *plait_client_transport(plait_client *client)
{
    if (pl_forked(&client->fork_hook)) return "none"; /* the lock may have been somebody's */
    pthread_mutex_lock(&client->lock);
    const char *name = client->last_transport;
    if (strcmp(name, "none") == 0 && !pl_list_empty(&client->links))
        name = pl_container_of(client->links.next, struct pl_link, link)->connection.transport->ops->name;
    pthread_mutex_unlock(&client->lock);
    return strcmp(name, "shm") == 0    ? "shm"
           : strcmp(name, "unix") == 0 ? "unix"
           : strcmp(name, "tcp") == 0  ? "tcp"
           : strcmp(name, "udp") == 0  ? "udp"
                                       : "none";
}

int plait_client_methods(plait_client *client, char ***ret_names, size_t *ret_count)
{
    int r = check_usable(client);
    if (r < 0) return r;
    if (client->target->framing != PL_FRAMING_PLAIT)
        return pl_error(-EOPNOTSUPP, "%s has no hello that would tell the methods", pl_url_messages(client->target));
    struct pl_deadline deadline = { .timeout_ms = client->connect_ms };
    struct pl_outgoing nothing = { .one_way = true }; /* any connection's table will do: the first's */
    struct pl_link *link;
    pthread_mutex_lock(&client->lock);
    r = pl_client_choose(client, &nothing, &deadline, &link);
    if (r == 0) {
        size_t size = 0, count = link->peer.method_count;
        for (size_t i = 0; i < count; i++) size += sizeof(char *) + strlen(link->peer.methods[i]) + 1;
        char **names = malloc(size + 1);
        if (names == NULL) {
            r = pl_error(-ENOMEM, "no memory for the methods' names");
        } else {
            char *text = (char *)(names + count);
            for (size_t i = 0; i < count; i++) {
                names[i] = strcpy(text, link->peer.methods[i]);
                text += strlen(text) + 1;
            }
            *ret_names = names;
            *ret_count = count;
        }
    }
    pthread_mutex_unlock(&client->lock);
    return r;
}

/* ---- foreign loops ---- */

/* An epoll set of its own over {the links' set, "callbacks are due", a timer}: a blocking leader drains the links'
 * set, and what it files for others must still show here. */
static int open_outer(struct plait_client *client)
{
    client->outer_fd = epoll_create1(EPOLL_CLOEXEC);
    client->ready_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    client->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    int fds[3] = { client->loop.epoll_fd, client->ready_fd, client->timer_fd };
    for (int i = 0; i < 3; i++) {
        struct epoll_event event = { .events = EPOLLIN };
        if (client->outer_fd < 0 || fds[i] < 0 || epoll_ctl(client->outer_fd, EPOLL_CTL_ADD, fds[i], &event) < 0) {
            int r = pl_error(-errno, "no descriptor for a loop: %s", pl_error_word(errno));
            close_outer(client);
            return r;
        }
    }
    return 0;
}

void pl_client_ring_ready(struct plait_client *client)
{
    uint64_t one = 1;
    pl_client_wake_waiters(client);
    if (client->ready_fd < 0 || client->ready_rung) return;
    client->ready_rung = true;
    (void)!write(client->ready_fd, &one, sizeof(one));
}

void pl_client_set_timer(struct plait_client *client)
{
    uint64_t due = client->async_count ? client->next_deadline : PL_NEVER;
    if (!pl_list_empty(&client->resend) && client->resend_at < due) due = client->resend_at;
    if (client->timer_fd < 0 || due == client->timer_set) return;
    client->timer_set = due;
    struct itimerspec when = { .it_value = { 0, 0 } };
    if (due != PL_NEVER) when.it_value = (struct timespec){ (time_t)(due / 1000000000), (long)(due % 1000000000) };
    (void)timerfd_settime(client->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

int plait_client_fd(plait_client *client)
{
    int r = check_usable(client);
    if (r < 0) return r;
    pthread_mutex_lock(&client->lock);
    if (client->outer_fd < 0) r = open_outer(client);
    if (r == 0) {
        pl_client_rest(client);
        if (!pl_list_empty(&client->completed)) pl_client_ring_ready(client);
        pl_client_set_timer(client);
        r = client->outer_fd;
    }
    pthread_mutex_unlock(&client->lock);
    return r;
}

static int run_callbacks(struct plait_client *client)
{
    int count = 0, due = 0;
    struct pl_list *item;
    pl_list_each(call, &client->completed) due++; /* what a callback completes comes next time */
    /* In place: a callback may dispatch or close, which takes what is left. */
    while (due-- > 0 && (item = pl_list_take(&client->completed)) != NULL) {
        struct pl_call *call = pl_container_of(item, struct pl_call, link);
        plait_reply_fn *fn = call->fn;
        void *context = call->context;
        plait_reply *reply = call->reply;
        int result = call->result;
        if (result < 0) (void)pl_error(result, "%s", call->why ? call->why : pl_error_word(result));
        pl_call_free(client, call);
        pthread_mutex_unlock(&client->lock);
        fn(result, reply, context);
        pthread_mutex_lock(&client->lock);
        count++;
    }
    return count;
}

static void unring_ready(struct plait_client *client)
{
    uint64_t count;
    if (client->ready_rung) (void)!read(client->ready_fd, &count, sizeof(count));
    client->ready_rung = false;
}

static void clear_outer(struct plait_client *client)
{
    uint64_t count;
    unring_ready(client);
    if (client->timer_fd >= 0 && client->timer_set != PL_NEVER && pl_clock_ns() >= client->timer_set) {
        (void)!read(client->timer_fd, &count, sizeof(count));
        client->timer_set = 0;
    }
}

static void free_client(struct plait_client *client)
{
    for (uint32_t i = 0; i < client->chunk_count; i++) {
        for (uint32_t j = 0; j < PL_CALL_CHUNK; j++) free(client->chunks[i][j].spare);
        free(client->chunks[i]);
    }
    free(client->chunks);
    free(client->peer);
    free(client->target);
    free(client->target_text);
    pthread_mutex_destroy(&client->lock);
    free(client);
}

/* Nobody uses it any more. */
static void end_client(struct plait_client *client)
{
    pl_list_each(item, &client->links) pl_link_free(pl_container_of(item, struct pl_link, link));
    pl_wake_deinit(&client->wake, &client->loop);
    pl_loop_deinit(&client->loop);
    close_outer(client);
    pl_name_watch_release();
    pl_fork_remove(&client->fork_hook);
    free_client(client);
}

/* As pl_client_wait, but no longer than until a call shall be sent again. */
static int wait_or_resend(struct plait_client *client, struct pl_deadline *deadline)
{
    struct pl_deadline sooner = { .timeout_ms = deadline->timeout_ms, .ns = client->resend_at };
    if (pl_list_empty(&client->resend) || client->resend_at >= pl_deadline_ns(deadline))
        return pl_client_wait(client, NULL, deadline);
    int r = pl_client_wait(client, NULL, &sooner);
    return r == -ETIMEDOUT && pl_clock_ns() < pl_deadline_ns(deadline) ? 0 : r;
}

enum { DISPATCH_MOST = 256 };

int plait_client_dispatch(plait_client *client, int64_t timeout)
{
    int r = check_usable(client), count = 0;
    if (r < 0) return r;
    struct pl_deadline deadline = { .timeout_ms = timeout > 0 ? timeout : PLAIT_NOW };
    pthread_mutex_lock(&client->lock);
    if (client->closing) {
        pthread_mutex_unlock(&client->lock);
        return 0;
    }
    client->dispatching++;
    if (client->outer_fd >= 0) clear_outer(client);
    for (;;) {
        bool moved = false;
        if (!client->leading) {
            moved = pl_client_pump(client);
            pl_client_reap(client);
        }
        if (client->async_count) pl_client_expire(client);
        pl_client_resend(client);
        int ended = run_callbacks(client);
        count += ended;
        if (client->closing || count >= DISPATCH_MOST) break;
        if (moved && ended > 0) continue; /* there may be more */
        if (count > 0) break;
        r = wait_or_resend(client, &deadline);
        if (r < 0) break;
        if (timeout <= 0 && pl_list_empty(&client->completed)) break;
    }
    if (client->outer_fd >= 0) {
        unring_ready(client); /* for callbacks that have run meanwhile */
        pl_client_rest(client);
        if (!pl_list_empty(&client->completed)) pl_client_ring_ready(client);
        pl_client_set_timer(client);
    }
    bool closed = --client->dispatching == 0 && client->closing;
    pthread_mutex_unlock(&client->lock);
    if (closed) end_client(client);
    return r < 0 && r != -ETIMEDOUT ? r : count;
}

/* ---- close ---- */

static void cancel_all(struct plait_client *client)
{
    for (uint32_t i = 0; i < client->chunk_count * PL_CALL_CHUNK; i++) {
        struct pl_call *call = &client->chunks[i / PL_CALL_CHUNK][i % PL_CALL_CHUNK];
        if (call->fn == NULL || (call->done && call->result != PL_RESEND)) continue;
        pl_call_end(call, -ECANCELED, NULL, "the client was closed");
        pl_list_append(&client->completed, &call->link);
    }
    while (!pl_list_empty(&client->completed)) (void)run_callbacks(client);
}

void plait_client_close(plait_client *client)
{
    if (client == NULL) return;
    if (pl_forked(&client->fork_hook)) {
        free_client(client); /* descriptors are closed, links lie in the parent's hands */
        return;
    }
    pthread_mutex_lock(&client->lock);
    if (client->closing) { /* by a callback of the close that is at work */
        pthread_mutex_unlock(&client->lock);
        return;
    }
    client->closing = true;
    cancel_all(client);
    bool later = client->dispatching > 0; /* a callback closes: the dispatch that it runs in frees */
    pthread_mutex_unlock(&client->lock);
    if (!later) end_client(client);
}
