/* helper: the publisher's thread. It greets subscribers, notices their end, and serves those at sockets out of the
 * ring, like a subscriber among others: their queue is the ring and what their socket holds, so it is bounded, and what
 * is lost or waited for follows the same rules as in shared memory.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "topic/topic.h"
#include "transport/socket.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

enum { ACCEPT_BATCH = 32, ACCEPT_RETRY_NS = 100000000 };

static void on_accept_again(struct pl_timer *timer)
{
    struct plait_publisher *publisher = pl_container_of(timer, struct plait_publisher, accept_timer);
    for (uint32_t i = 0; i < publisher->listener_count; i++)
        (void)pl_loop_add(&publisher->loop, &publisher->listeners[i]->source, EPOLLIN);
}

static void stop_accepting(struct plait_publisher *publisher)
{
    pl_timer_clear(&publisher->loop, &publisher->accept_timer);
    for (uint32_t i = 0; i < publisher->listener_count; i++)
        pl_loop_remove(&publisher->loop, &publisher->listeners[i]->source);
}

/* Large messages have stopped for a while, or the timer moves on behind the last one. What somebody holds or has yet to
 * read is looked at again, each time after twice as long: somebody may hold it for ever, and then nobody is woken
 * often.
 */
static void on_idle(struct pl_timer *timer)
{
    struct plait_publisher *publisher = pl_container_of(timer, struct plait_publisher, idle_timer);
    pthread_mutex_lock(&publisher->lock);
    uint64_t now = pl_clock_ns(), due = publisher->bulk_ns + publisher->idle_span;
    if (now >= due) {
        publisher->idle_span = pl_bulk_trim(publisher) ? publisher->idle_span * 2 : 0;
        due = now + publisher->idle_span;
    }
    if (publisher->idle_span != 0 && pl_timer_set(&publisher->loop, timer, due) < 0) publisher->idle_span = 0;
    pthread_mutex_unlock(&publisher->lock);
}

static void on_subscriber(struct pl_source *source, uint32_t events)
{
    struct pl_topic_listener *listener = pl_container_of(source, struct pl_topic_listener, source);
    struct plait_publisher *publisher = listener->publisher;
    (void)events;
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        struct pl_address peer;
        int socket;
        int r = pl_socket_accept(source->fd, &socket, &peer);
        if (r == PL_SOCKET_NONE) return;
        if (r < 0) {
            pl_log(PLAIT_LOG_ERROR, "topic '%s': %s (raise the descriptor limit, ulimit -n)", publisher->topic,
                   pl_error_text());
            stop_accepting(publisher);
            (void)pl_timer_set(&publisher->loop, &publisher->accept_timer, pl_clock_ns() + ACCEPT_RETRY_NS);
            return;
        }
        pl_outlet_begin(listener, socket, &peer);
    }
}

static void on_wake(struct pl_wake *wake)
{
    (void)wake; /* chores are looked at every round */
}

static void on_bell(struct pl_source *source, uint32_t events)
{
    (void)source;
    (void)events;
}

/* Sends on to everybody at a socket. True: somebody has more to get at once. */
static bool pump_all(struct plait_publisher *publisher)
{
    bool more = false;
    pl_list_each(item, &publisher->outlets)
    {
        struct pl_outlet *outlet = pl_container_of(item, struct pl_outlet, link);
        if (!outlet->shm && !outlet->blocked && pl_outlet_pump(outlet)) more = true;
    }
    return more;
}

/* All at sockets are asleep together: one announcement does for them. False: something came. */
static bool announce(struct plait_publisher *publisher)
{
    bool announced = false;
    if (publisher->socket_count == 0) return true;
    pl_list_each(item, &publisher->outlets)
    {
        struct pl_outlet *outlet = pl_container_of(item, struct pl_outlet, link);
        if (outlet->shm || outlet->blocked) continue;
        if (announced ? pl_broadcast_ready(&outlet->reader) : !pl_broadcast_sleep(&outlet->reader, publisher->waiters))
            return false;
        announced = true;
    }
    return true;
}

/* While closing: is there anybody at a socket who has not got everything? */
static bool lingering(const struct plait_publisher *publisher)
{
    if (pl_clock_ns() >= publisher->linger_until) return false;
    pl_list_each(item, &publisher->outlets)
    {
        const struct pl_outlet *outlet = pl_container_of(item, struct pl_outlet, link);
        if (!outlet->shm && (pl_stream_pending(&outlet->stream) || pl_broadcast_ready(&outlet->reader))) return true;
    }
    return false;
}

static void do_chores(struct plait_publisher *publisher)
{
    /* Relaxed: the descriptor that woke us orders it. */
    uint32_t chores = atomic_load_explicit(&publisher->chores, memory_order_relaxed);
    if (chores & PL_CHORE_IDLE) {
        /* Relaxed: as above. */
        atomic_fetch_and_explicit(&publisher->chores, ~(uint32_t)PL_CHORE_IDLE, memory_order_relaxed);
        on_idle(&publisher->idle_timer); /* which sets it */
    }
    if (chores & PL_CHORE_STOP && publisher->linger_until == 0) {
        publisher->linger_until = pl_clock_ns() + publisher->timeout_ns;
        stop_accepting(publisher);
    }
}

static void *help(void *context)
{
    struct plait_publisher *publisher = context;
    bool more = false;
    for (;;) {
        uint64_t until = publisher->linger_until ? publisher->linger_until : PL_NEVER;
        if (more || !announce(publisher)) until = 0;
        if (pl_loop_wait(&publisher->loop, until) < 0) break;
        pl_loop_run_ready(&publisher->loop);
        do_chores(publisher); /* behind the read that empties the wake-up: one that comes later wakes us again */
        more = publisher->socket_count > 0 && pump_all(publisher);
        if (publisher->linger_until && !lingering(publisher)) break;
    }
    return NULL;
}

int pl_topic_thread(struct plait_publisher *publisher, pthread_t *ret_thread, void *(*run)(void *), const char *name)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = -pthread_create(ret_thread, NULL, run, publisher);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r < 0) return pl_error(r, "topic '%s': no thread for its helpers: %s", publisher->topic, pl_error_word(r));
    pthread_setname_np(*ret_thread, name);
    return 0;
}

int pl_helper_start(struct plait_publisher *publisher)
{
    int r = pl_loop_init(&publisher->loop, PL_LOOP_EVENTS);
    if (r == 0) r = pl_wake_init(&publisher->wake, &publisher->loop, on_wake);
    publisher->accept_timer.due = on_accept_again;
    publisher->idle_timer.due = on_idle;
    publisher->bell_source = PL_SOURCE(publisher->bell, on_bell);
    for (uint32_t i = 0; i < publisher->listener_count && r == 0; i++) {
        publisher->listeners[i]->source.ready = on_subscriber;
        r = pl_loop_add(&publisher->loop, &publisher->listeners[i]->source, EPOLLIN);
    }
    if (r == 0) r = pl_topic_thread(publisher, &publisher->thread, help, "plait-topic");
    publisher->running = r == 0;
    return r;
}

void pl_helper_stop(struct plait_publisher *publisher)
{
    if (publisher->running) {
        /* Relaxed: as in wake(). */
        atomic_fetch_or_explicit(&publisher->chores, PL_CHORE_STOP, memory_order_relaxed);
        pl_wake_up(&publisher->wake);
        pthread_join(publisher->thread, NULL);
        publisher->running = false;
    }
    pl_list_each(item, &publisher->greetings) pl_outlet_end(pl_container_of(item, struct pl_outlet, link));
    pl_list_each(next, &publisher->outlets) pl_outlet_end(pl_container_of(next, struct pl_outlet, link));
    stop_accepting(publisher);
    pl_timer_clear(&publisher->loop, &publisher->idle_timer);
    if (publisher->loop.epoll_fd >= 0) {
        pl_loop_remove(&publisher->loop, &publisher->bell_source);
        pl_wake_deinit(&publisher->wake, &publisher->loop);
    }
    pl_loop_deinit(&publisher->loop);
}

static void forget(struct pl_list *outlets)
{
    for (struct pl_list *link = pl_list_take(outlets); link != NULL; link = pl_list_take(outlets)) {
        struct pl_outlet *outlet = pl_container_of(link, struct pl_outlet, link);
        pl_stream_deinit(&outlet->stream);
        pl_status_connection_remove(outlet->status);
        pl_outlet_free(outlet);
    }
}

/* The thread doesn't exist here; another one may have held the lock. */
void pl_helper_forked(struct plait_publisher *publisher)
{
    pthread_mutex_init(&publisher->lock, NULL);
    publisher->running = publisher->ringing = false;
    forget(&publisher->greetings);
    forget(&publisher->outlets);
    for (uint32_t i = 0; i < publisher->listener_count; i++)
        if (!publisher->listeners[i]->of_claim) pl_close(&publisher->listeners[i]->source.fd);
    pl_close(&publisher->wake.source.fd);
    pl_loop_deinit(&publisher->loop);
}
