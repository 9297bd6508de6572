/* subscriber: finds the publishers of a topic, and waits for what they tell.
 *
 * One epoll set tells of everything: bells, publishers' ends, new names. A subscriber that is about to sleep
 * announces that to each of its publishers; what it hears in the set makes it look at all of them. A futex would be
 * a little quicker to wake, but deaf to new publishers and to ends.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/options.h"
#include "base/user.h"
#include "topic/topic.h"
#include "transport/socket.h"
#include "wire/name.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    EVENTS = 16,
    TURN = 64,       /* messages of one publisher in a row while others may have some */
    UNSEEN = 256,    /* messages in a row without a look at epoll */
    LOOK_NS = 16000, /* the same while spinning */
    RETRY_MS = 100,
    RETRY_MAX_MS = 2000,
    CONNECT_MS = 5000,
    OPEN_MS = 1000, /* how long open waits for publishers that don't answer */
    SOON_MS = 5,    /* who must not wait long waits so long for them */
    ONE_TRY_NS = 1000000000
};

/* ---- finding publishers ---- */

static bool wanted(const struct plait_subscriber *subscriber, const char *name)
{
    const char *pattern = subscriber->url.name;
    return subscriber->all ? strncmp(name, pattern, strlen(pattern)) == 0 : strcmp(name, pattern) == 0;
}

static bool known(const struct plait_subscriber *subscriber, uint64_t id)
{
    pl_list_each(item,
                 &subscriber->inlets) if (pl_container_of(item, struct pl_inlet, link)->instance.id == id) return true;
    return false;
}

static void try_again_later(struct plait_subscriber *subscriber)
{
    subscriber->retry_ms = subscriber->retry_ms == 0             ? RETRY_MS
                           : subscriber->retry_ms < RETRY_MAX_MS ? subscriber->retry_ms * 2
                                                                 : RETRY_MAX_MS;
    (void)pl_timer_set(&subscriber->loop, &subscriber->retry, pl_clock_ns() + (uint64_t)subscriber->retry_ms * 1000000);
}

/* One pass over the names that there are. */
static int look_up(struct plait_subscriber *subscriber)
{
    struct pl_instance *instances;
    size_t count;
    bool again = false;
    int r = pl_lookup_as(PL_KIND_TOPIC, subscriber->all ? NULL : subscriber->url.name, subscriber->peer, &instances,
                         &count);
    if (r < 0) return r;
    for (size_t i = 0; i < count && r >= 0; i++) {
        struct pl_inlet *inlet;
        int socket;
        uid_t uid;
        if (!wanted(subscriber, instances[i].name) || known(subscriber, instances[i].id)) continue;
        r = pl_lookup_connect(&instances[i], subscriber->peer, &socket, &uid);
        if (r == 0) r = pl_inlet_new(&inlet, subscriber, &instances[i], socket);
        if (r == PL_CONNECT_BUSY) again = true;
    }
    free(instances);
    if (again) try_again_later(subscriber);
    return r < 0 ? r : 0;
}

static int connect_url(struct plait_subscriber *subscriber, uint64_t deadline_ns)
{
    struct pl_inlet *inlet;
    struct pl_address address;
    struct pl_instance instance = { .kind = PL_KIND_TOPIC };
    int socket;
    const struct pl_interrupt *before = pl_interrupt;
    pl_interrupt = &subscriber->interrupt;
    int r = pl_socket_connect(&subscriber->url, deadline_ns, &socket, &address);
    pl_interrupt = before;
    if (r < 0) return r;
    snprintf(instance.name, sizeof instance.name, "%s", subscriber->url.name);
    return pl_inlet_new(&inlet, subscriber, &instance, socket);
}

/* Looks for publishers again, if that is due. What fails is told to the log, and tried again. 0; -EINTR. */
static int look_again(struct plait_subscriber *subscriber)
{
    int r;
    if (!subscriber->look_again) return 0;
    subscriber->look_again = false;
    if (subscriber->url.scheme == PL_SCHEME_NAME) r = look_up(subscriber);
    else if (!pl_list_empty(&subscriber->inlets)) return 0;
    else r = pl_interrupt_ask(&subscriber->interrupt); /* before a resolver is */
    if (r == 0 && subscriber->url.scheme != PL_SCHEME_NAME) r = connect_url(subscriber, pl_clock_ns() + ONE_TRY_NS);
    if (r == -EINTR) {
        subscriber->look_again = true;
        return r;
    }
    if (r < 0) {
        pl_log(PLAIT_LOG_INFO, "topic '%s': %s; trying again", subscriber->target, pl_error_text());
        try_again_later(subscriber);
    }
    return 0;
}

static void on_names(struct pl_source *source, uint32_t events)
{
    struct plait_subscriber *subscriber = pl_container_of(source, struct plait_subscriber, names);
    (void)events;
    pl_name_watch_clear(subscriber->watch);
    subscriber->look_again = true;
}

static void on_retry(struct pl_timer *timer)
{
    struct plait_subscriber *subscriber = pl_container_of(timer, struct plait_subscriber, retry);
    subscriber->look_again = true;
    if (subscriber->watch == NULL && subscriber->url.scheme == PL_SCHEME_NAME) try_again_later(subscriber);
}

static int watch_names(struct plait_subscriber *subscriber)
{
    int r = pl_name_watch_open_as(&subscriber->watch, PL_KIND_TOPIC, subscriber->peer);
    if (r < 0) return r;
    if (r == PL_NAME_WATCH_NONE) { /* no inotify to be had: look now and then */
        subscriber->watch = NULL;
        try_again_later(subscriber);
        return 0;
    }
    subscriber->names = PL_SOURCE(pl_name_watch_fd(subscriber->watch), on_names);
    return pl_loop_add(&subscriber->loop, &subscriber->names, EPOLLIN);
}

/* ---- publishers that end ---- */

/* One that was stopped, or short of something, may do better the next time; one that lies or refuses us won't. */
static bool will_pass(int error)
{
    return error != 0 && error != -EPROTO && error != -EOPNOTSUPP && error != -ENOENT && error != -EACCES;
}

static void done(struct plait_subscriber *subscriber, struct pl_inlet *inlet)
{
    bool again = subscriber->url.scheme != PL_SCHEME_NAME || will_pass(inlet->error);
    if (inlet->died || (!inlet->shm && inlet->number != 0)) subscriber->pending_why = PLAIT_LOST_DIED;
    if (subscriber->current == inlet) subscriber->current = NULL;
    pl_inlet_free(inlet);
    if (again) try_again_later(subscriber);
}

/* ---- next ---- */

static int take_from(struct plait_subscriber *subscriber, struct pl_inlet *inlet)
{
    int r = pl_inlet_take(inlet);
    if (r == 0) subscriber->current = inlet;
    if (r == PL_INLET_DONE) done(subscriber, inlet);
    return r;
}

/* A message of the publisher whose turn it is, or of the next one that has any. */
static bool take(struct plait_subscriber *subscriber)
{
    struct pl_inlet *inlet = subscriber->current;
    if (inlet != NULL && ++subscriber->turn < TURN && take_from(subscriber, inlet) == 0) return true;
    subscriber->turn = 0;
    struct pl_inlet *last = subscriber->current; /* the others first, it in the end */
    if (last != NULL) {
        pl_list_remove(&last->link);
        pl_list_append(&subscriber->inlets, &last->link);
    }
    pl_list_each(item, &subscriber->inlets) if (take_from(subscriber, pl_container_of(item, struct pl_inlet, link)) ==
                                                0) return true;
    return false;
}

static void release(struct plait_subscriber *subscriber)
{
    free(subscriber->message.memory);
    subscriber->message.memory = NULL;
    pl_intake_let_go(&subscriber->message);
}

/* Hears what epoll has, waiting until DEADLINE. */
static int hear(struct plait_subscriber *subscriber, uint64_t deadline_ns)
{
    subscriber->unseen = 0;
    int r = pl_loop_wait(&subscriber->loop, deadline_ns);
    if (r < 0) return r;
    pl_loop_run_ready(&subscriber->loop);
    return look_again(subscriber);
}

static bool announce(struct plait_subscriber *subscriber)
{
    bool asleep = true;
    pl_list_each(item, &subscriber->inlets) if (!pl_inlet_sleep(pl_container_of(item, struct pl_inlet, link))) asleep =
        false;
    return asleep;
}

static bool any_ready(const struct plait_subscriber *subscriber)
{
    pl_list_each(item,
                 &subscriber->inlets) if (pl_inlet_ready(pl_container_of(item, struct pl_inlet, link))) return true;
    return false;
}

/* The publisher that spoke last runs on our CPU: a spinner would only keep it from speaking. */
static bool same_cpu(const struct plait_subscriber *subscriber)
{
    const struct pl_inlet *inlet = subscriber->current;
    /* relaxed: a hint */
    return inlet != NULL && inlet->shm &&
           atomic_load_explicit(&inlet->reader.shared->cpu, memory_order_relaxed) == (uint32_t)sched_getcpu() + 1;
}

/* True: something is there, or was heard. */
static bool spin(struct plait_subscriber *subscriber, uint64_t began, uint64_t budget)
{
    uint64_t step = pl_ticks_of_ns(LOOK_NS), looked = began;
    for (;;) {
        bool same = same_cpu(subscriber);
        for (int i = 0; i < (same ? 1 : 16); i++) {
            if (any_ready(subscriber)) return true;
            pl_spin_relax(same);
        }
        uint64_t now = pl_ticks();
        if (now - began > budget) return false;
        if (now - looked < step) continue;
        looked = now;
        if (pl_loop_wait(&subscriber->loop, 0) != 0) {
            pl_loop_run_ready(&subscriber->loop);
            return true;
        }
    }
}

static int wait_for(struct plait_subscriber *subscriber, uint64_t deadline_ns)
{
    uint64_t began = pl_ticks(), budget = pl_spin_begin(&subscriber->spin, began);
    if (subscriber->interrupt.asked != NULL) {
        uint64_t most = pl_ticks_of_ns((uint64_t)PL_INTERRUPT_MS * 1000000);
        if (budget > most) budget = most;
    }
    if (budget > 0 && spin(subscriber, began, budget)) {
        pl_spin_end(&subscriber->spin, pl_ticks(), PL_SPIN_AWAKE);
        return look_again(subscriber);
    }
    if (!announce(subscriber)) {
        pl_spin_end(&subscriber->spin, pl_ticks(), PL_SPIN_AWAKE);
        return 0;
    }
    int r = hear(subscriber, deadline_ns);
    pl_spin_end(&subscriber->spin, pl_ticks(), any_ready(subscriber) ? PL_SPIN_SLEPT : PL_SPIN_OTHER);
    return r;
}

static int nothing_now(struct plait_subscriber *subscriber)
{
    return pl_error(-EAGAIN, "topic '%s': nothing now", subscriber->target);
}

/* Without waiting; a loop of the caller's sleeps next: so it announces, and leaves nothing in the set unheard. */
static int poll_once(struct plait_subscriber *subscriber)
{
    for (;;) {
        int r = hear(subscriber, 0);
        if (r < 0) return r;
        if (take(subscriber)) return 0;
        if (subscriber->foreign_loop) pl_alarm_follow(&subscriber->alarm, &subscriber->loop);
        if (!subscriber->foreign_loop || announce(subscriber)) return nothing_now(subscriber);
    }
}

static int timed_out(const struct plait_subscriber *subscriber, int64_t timeout)
{
    return pl_error(-ETIMEDOUT, "topic '%s': no message within %lld ms%s", subscriber->target, (long long)timeout,
                    pl_list_empty(&subscriber->inlets) ? " (nobody publishes it here)" : "");
}

/* Until there is a message, which it takes. */
static int wait(struct plait_subscriber *subscriber, int64_t timeout)
{
    const struct pl_interrupt *interrupt = &subscriber->interrupt;
    uint64_t deadline = timeout == 0 ? PL_NEVER : pl_clock_deadline(timeout, 0);
    uint64_t slice = pl_interrupt_slice(interrupt, deadline);
    int r = 0;
    while (r == 0) {
        r = wait_for(subscriber, slice);
        if (r < 0) break;
        if (take(subscriber)) return 0;
        if (slice == PL_NEVER) continue;
        uint64_t now = pl_clock_ns();
        if (now >= deadline) return timed_out(subscriber, timeout);
        if (now < slice) continue;
        r = pl_interrupt_ask(interrupt);
        slice = pl_interrupt_slice(interrupt, deadline);
    }
    return r;
}

int plait_subscriber_next(plait_subscriber *subscriber, int64_t timeout, plait_message **ret_message)
{
    if (__builtin_expect(pl_forked(&subscriber->fork), 0))
        return pl_error(-ECHILD, "topic '%s': opened before fork() (open it in this process)", subscriber->target);
    if (__builtin_expect(subscriber->message.memory != NULL || subscriber->message.intake != NULL, 0))
        release(subscriber);
    int r = __builtin_expect(++subscriber->unseen >= UNSEEN, 0) ? hear(subscriber, 0) : 0;
    if (r == 0 && !take(subscriber)) r = timeout == PLAIT_NOW ? poll_once(subscriber) : wait(subscriber, timeout);
    if (r < 0) return r;
    *ret_message = &subscriber->message;
    return 0;
}

static void on_nudge(struct pl_timer *timer)
{
    (void)timer; /* the descriptor was readable: that is all */
}

int plait_subscriber_fd(plait_subscriber *subscriber)
{
    if (pl_forked(&subscriber->fork)) return pl_error(-ECHILD, "topic '%s': opened before fork()", subscriber->target);
    if (!subscriber->foreign_loop) {
        int r = pl_alarm_init(&subscriber->alarm, &subscriber->loop);
        if (r < 0) return r;
        subscriber->foreign_loop = true;
        subscriber->nudge.due = on_nudge;
        if (!announce(subscriber)) r = pl_timer_set(&subscriber->loop, &subscriber->nudge, 1); /* long past */
        pl_alarm_follow(&subscriber->alarm, &subscriber->loop);
        if (r < 0) return r;
    }
    return subscriber->loop.epoll_fd;
}

size_t plait_subscriber_publishers(const plait_subscriber *subscriber)
{
    size_t count = 0;
    pl_list_each(item, &subscriber->inlets) count +=
        pl_container_of(item, struct pl_inlet, link)->state == PL_INLET_OPEN;
    return count;
}

/* ---- opening and closing ---- */

static void on_fork(struct pl_fork_hook *hook)
{
    struct plait_subscriber *subscriber = pl_container_of(hook, struct plait_subscriber, fork);
    pl_list_each(item, &subscriber->inlets) pl_inlet_forked(pl_container_of(item, struct pl_inlet, link));
    pl_close(&subscriber->alarm.source.fd);
    pl_close(&subscriber->loop.epoll_fd);
}

/* "sensors.*" is all topics that begin with "sensors."; "*" is all. */
static int parse_target(struct plait_subscriber *subscriber, const char *target)
{
    size_t size = strlen(target);
    if (size >= 1 && size <= PLAIT_NAME_MAX && target[size - 1] == '*' && strchr(target, ':') == NULL) {
        if (size == 2 || (size > 2 && target[size - 2] != '.'))
            return pl_error(-EINVAL, "topic '%s': only a trailing \".*\" stands for more (sensors.*), or \"*\" alone",
                            target);
        subscriber->all = true;
        memcpy(subscriber->url.name, target, size - 1);
        return size > 1 ? pl_name_check("topic", target, size - 1) : 0;
    }
    /* What can only be a name is judged as a topic's; of the rest the URL's errors know more. */
    bool name = target[0] != '\0' && strchr("/.", target[0]) == NULL && strpbrk(target, ":?") == NULL;
    int r = name ? pl_name_check("topic", target, strlen(target)) : 0;
    if (r == 0) r = pl_url_parse(&subscriber->url, target);
    if (r < 0) return r;
    if (subscriber->url.framing != PL_FRAMING_PLAIT)
        return pl_error(-EINVAL, "topic '%s': topics speak framing=plait alone", target);
    return 0;
}

static int apply(struct plait_subscriber *subscriber, const char *target, const plait_subscriber_options *options)
{
    uid_t uid;
    int r = parse_target(subscriber, target);
    if (r < 0) return r;
    if (options->max_message > PLAIT_MESSAGE_MAX)
        return pl_error(-EINVAL, "max_message: at most PLAIT_MESSAGE_MAX, %u", PLAIT_MESSAGE_MAX);
    if (options->reliable < PLAIT_RELIABLE_NO || options->reliable > PLAIT_RELIABLE_YES)
        return pl_error(-EINVAL, "reliable: there is no %d", options->reliable);
    subscriber->max_message = options->max_message                      ? options->max_message
                              : subscriber->url.max_message             ? subscriber->url.max_message
                              : subscriber->url.scheme == PL_SCHEME_TCP ? PL_TOPIC_NETWORK_MESSAGE
                                                                        : PLAIT_MESSAGE_MAX;
    subscriber->history = options->history;
    subscriber->reliable = options->reliable;
    subscriber->target = strdup(target);
    if (options->peer != NULL && options->peer[0] != '\0') {
        r = pl_user_uid(options->peer, strlen(options->peer), &uid);
        if (r < 0) return pl_error_in(r, "peer");
        if (asprintf(&subscriber->peer, "%u", (unsigned)uid) < 0) subscriber->target = NULL;
    }
    if (subscriber->target == NULL) return pl_error(-ENOMEM, "no memory for a subscriber");
    subscriber->interrupt = (struct pl_interrupt){ options->interrupted, options->interrupted_context };
    pl_spin_init(&subscriber->spin, options->spin_us);
    subscriber->retry.due = on_retry;
    return 0;
}

/* Only a service has this name? */
static int check_service(const struct plait_subscriber *subscriber)
{
    struct pl_instance *instances;
    size_t count;
    if (subscriber->all || !pl_list_empty(&subscriber->inlets)) return 0;
    int r = pl_lookup(subscriber->url.name, subscriber->peer, &instances, &count);
    if (r < 0) return r;
    free(instances);
    if (count > 0)
        return pl_error(-ENOENT, "'%s' is a service, not a topic (to call it: plait call)", subscriber->target);
    return 0;
}

/* Waits for the publishers that are there to answer. */
static int greet_all(struct plait_subscriber *subscriber, uint64_t deadline_ns)
{
    const struct pl_interrupt *interrupt = &subscriber->interrupt;
    uint64_t slice = interrupt->asked == NULL ? deadline_ns : pl_clock_deadline(SOON_MS, SOON_MS);
    if (slice > deadline_ns) slice = deadline_ns;
    for (;;) {
        bool greeting = false;
        pl_list_each(item, &subscriber->inlets) if (pl_container_of(item, struct pl_inlet, link)->state ==
                                                    PL_INLET_GREETING) greeting = true;
        uint64_t now = pl_clock_ns();
        if (!greeting || now >= deadline_ns) return 0;
        int r = now < slice ? hear(subscriber, slice) : pl_interrupt_ask(interrupt);
        if (r < 0) return r;
        if (now >= slice) slice = pl_interrupt_slice(interrupt, deadline_ns);
    }
}

/* Publishers refused us, or a URL's isn't there: an error if there is no other. */
static int check_refusals(struct plait_subscriber *subscriber)
{
    int code = 0;
    pl_list_each(item, &subscriber->inlets)
    {
        const struct pl_inlet *inlet = pl_container_of(item, struct pl_inlet, link);
        if (inlet->state == PL_INLET_OPEN) return 0;
        if (inlet->error != 0) code = inlet->error;
        else if (inlet->state == PL_INLET_GREETING && subscriber->url.scheme != PL_SCHEME_NAME)
            return pl_error(-ETIMEDOUT, "topic '%s': no answer to the hello (is it a plait publisher?)",
                            subscriber->target);
    }
    if (code == 0) return 0;
    /* What one publisher of a name did wrong is no error; that it refuses us is. */
    if (subscriber->url.scheme == PL_SCHEME_NAME && code != -EOPNOTSUPP) return 0;
    return pl_error(code, "topic '%s': %s", subscriber->target, subscriber->refusal);
}

static int open_all(struct plait_subscriber *subscriber, const plait_subscriber_options *options)
{
    uint64_t deadline = pl_clock_deadline(options->connect_timeout, CONNECT_MS);
    int r = pl_loop_init(&subscriber->loop, EVENTS);
    if (r < 0) return r;
    if (subscriber->url.scheme == PL_SCHEME_NAME) {
        uint64_t patience = pl_clock_ns() + (uint64_t)OPEN_MS * 1000000;
        if (patience < deadline || options->connect_timeout == 0) deadline = patience;
        r = watch_names(subscriber); /* watch first, then look: none is missed */
        if (r == 0) r = look_up(subscriber);
        if (r == 0) r = check_service(subscriber);
    } else {
        r = connect_url(subscriber, deadline);
    }
    if (r == 0) r = greet_all(subscriber, deadline);
    if (r == 0) r = check_refusals(subscriber);
    return r;
}

int plait_subscriber_open(plait_subscriber **ret_subscriber, const char *topic, const plait_subscriber_options *options)
{
    plait_subscriber_options known_options;
    int r = pl_options_read(&known_options, sizeof known_options, options, "plait_subscriber_options");
    if (r == 0 && topic == NULL) r = pl_error(-EINVAL, "a subscriber needs a topic: a name or a URL");
    if (r < 0) return r;
    struct plait_subscriber *subscriber = aligned_alloc(_Alignof(struct plait_subscriber), sizeof *subscriber);
    if (subscriber == NULL) return pl_error(-ENOMEM, "no memory for a subscriber");
    memset(subscriber, 0, sizeof *subscriber);
    pl_list_init(&subscriber->inlets);
    subscriber->loop.epoll_fd = subscriber->alarm.source.fd = -1;
    subscriber->fork.in_child = on_fork;
    pl_name_watch_hold();
    r = pl_fork_add(&subscriber->fork);
    if (r == 0) r = apply(subscriber, topic, &known_options);
    if (r == 0) r = open_all(subscriber, &known_options);
    if (r < 0) {
        plait_subscriber_close(subscriber);
        return r;
    }
    subscriber->ready = true;
    *ret_subscriber = subscriber;
    return 0;
}

void plait_subscriber_close(plait_subscriber *subscriber)
{
    if (subscriber == NULL) return;
    bool ours = !pl_forked(&subscriber->fork);
    pl_fork_remove(&subscriber->fork);
    release(subscriber);
    pl_list_each(item, &subscriber->inlets) pl_inlet_free(pl_container_of(item, struct pl_inlet, link));
    if (subscriber->loop.epoll_fd >= 0) {
        pl_alarm_deinit(&subscriber->alarm, &subscriber->loop);
        pl_loop_remove(&subscriber->loop, &subscriber->names);
    }
    pl_loop_deinit(&subscriber->loop);
    pl_name_watch_close(subscriber->watch);
    if (ours) pl_name_watch_release();
    free(subscriber->target);
    free(subscriber->peer);
    free(subscriber);
}
