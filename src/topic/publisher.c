/* publisher: a topic's public life, and waiting for those whom it mustn't leave behind.
 *
 * Publishing writes into the ring, then looks whether somebody sleeps. `limit` is how far may be written without a
 * look at anybody: for ever with `latest`; else to a capacity behind the slowest cursor as it was when they were
 * last looked at, so a thousand subscribers are looked at once a lap. A subscriber that joins gets the cursor
 * limit - capacity, which no one can have overwritten, under the same lock: so it gates from its first message.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/futex.h"
#include "base/log.h"
#include "base/options.h"
#include "shm/doorbell.h"
#include "topic/topic.h"
#include "transport/socket.h"
#include "wire/name.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void ring(struct plait_publisher *publisher)
{
    pl_count(&publisher->counters->doorbells, 1);
    pl_doorbell_ring(publisher->bell);
}

/* ---- waiting for subscribers ---- */

/* What ends a wait for all of them at once: the slowest one's cursor. NULL: nobody gates. Lock held. */
static struct pl_outlet *slowest(struct plait_publisher *publisher, uint64_t now)
{
    uint64_t tail = publisher->writer.tail;
    struct pl_outlet *found = NULL;
    pl_list_each(item, &publisher->outlets)
    {
        struct pl_outlet *outlet = pl_container_of(item, struct pl_outlet, link);
        /* Relaxed: a subscriber that leaves wakes us after it. */
        if (!outlet->gates || atomic_load_explicit(&outlet->page->leaving, memory_order_relaxed) != 0) continue;
        uint64_t cursor = pl_broadcast_cursor(outlet->page);
        /* A cursor only grows, to at most our tail. Any other is a lie that makes its teller look stuck. */
#ifdef PLAIT_PLANT_BUG /* what fuzz_outlet must find: one beyond what was written is believed */
        if (cursor != outlet->seen) {
#else
        if (cursor != outlet->seen && cursor - outlet->seen <= tail - outlet->seen) {
#endif
            outlet->seen = cursor;
            outlet->since = now;
            outlet->left = false;
        }
        if (!outlet->left && (found == NULL || tail - outlet->seen > tail - found->seen)) found = outlet;
    }
    /* Relaxed: joining reads it under the lock, publishing is this thread. */
    atomic_store_explicit(&publisher->limit, (found ? found->seen : tail) + publisher->writer.capacity,
                          memory_order_relaxed);
    return found;
}

static void leave_behind(struct plait_publisher *publisher, struct pl_outlet *outlet, uint64_t now)
{
    uint64_t ms = (now - outlet->since) / 1000000;
    outlet->left = true;
    outlet->times_left++;
    /* Relaxed: the subscriber looks when it finds itself overrun, which is later. */
    atomic_store_explicit(&outlet->page->dropped, (uint64_t)outlet->times_left << 32 | (uint32_t)ms,
                          memory_order_relaxed);
    pl_count(&publisher->counters->stuck, 1);
    pl_log(PLAIT_LOG_ERROR, "topic '%s': dropped %s (pid %d): stuck for %llu ms; the others go on", publisher->topic,
           outlet->address, (int)outlet->pid, (unsigned long long)ms);
}

/* Sleeps until OUTLET has read up to NEED. Lock held, given up meanwhile. */
static void sleep_for(struct plait_publisher *publisher, struct pl_outlet *outlet, uint64_t need, uint64_t deadline_ns)
{
    struct pl_subscriber_page *page = outlet->page;
    outlet->pinned = true;
    pthread_mutex_unlock(&publisher->lock);
    uint64_t began = pl_ticks(), budget = pl_spin_begin(&publisher->spin, began);
    bool awake = false;
    while (!awake && budget > 0 && pl_ticks() - began < budget) {
        pl_spin_relax(false);
        awake = (int64_t)(pl_broadcast_cursor(page) - need) >= 0;
    }
    if (!awake && pl_broadcast_starve(page, need)) {
        /* Who sleeps shall not wait for the ringer any longer: we have the time. */
        if (pl_ringer_take(publisher)) ring(publisher);
        pl_futex_wait_shared(&page->waiting, 1, deadline_ns);
        pl_spin_end(&publisher->spin, pl_ticks(), PL_SPIN_SLEPT);
    } else {
        pl_spin_end(&publisher->spin, pl_ticks(), PL_SPIN_AWAKE);
    }
    /* Relaxed: a late reset costs a needless wake-up. */
    atomic_store_explicit(&page->waiting, 0, memory_order_relaxed);
    pthread_mutex_lock(&publisher->lock);
    outlet->pinned = false;
    if (outlet->orphan) pl_outlet_free(outlet);
}

/* Whom to wait for until all who count have read up to TARGET; NULL: they have. Who made no progress for `timeout`
 * since *BEGUN, when the wait began (0: now, which it gets), is left behind. Lock held. */
static struct pl_outlet *behind(struct plait_publisher *publisher, uint64_t target, uint64_t *begun)
{
    for (;;) {
        uint64_t now = pl_clock_ns();
        struct pl_outlet *outlet = slowest(publisher, now);
        if (outlet == NULL || (int64_t)(target - outlet->seen) <= 0) return NULL;
        if (*begun == 0) *begun = now;
        if (outlet->since < *begun) outlet->since = *begun;
        if (now - outlet->since < publisher->timeout_ns) return outlet;
        leave_behind(publisher, outlet, now);
    }
}

int pl_publisher_wait_for(struct plait_publisher *publisher, uint64_t target, uint64_t extra)
{
    uint64_t tail = publisher->writer.tail, need = target + extra, begun = 0, ask = 0;
    struct pl_outlet *outlet;
    int r = 0;
    if ((int64_t)(need - tail) > 0) need = tail;
    pthread_mutex_lock(&publisher->lock);
    while (r == 0 && (outlet = behind(publisher, target, &begun)) != NULL) {
        if (ask == 0) ask = begun + (uint64_t)PL_INTERRUPT_MS * 1000000;
        sleep_for(publisher, outlet, need,
                  pl_interrupt_slice(&publisher->interrupt, outlet->since + publisher->timeout_ns));
        if (publisher->interrupt.asked == NULL || pl_clock_ns() < ask) continue;
        pthread_mutex_unlock(&publisher->lock);
        r = pl_interrupt_ask(&publisher->interrupt);
        ask = pl_clock_ns() + (uint64_t)PL_INTERRUPT_MS * 1000000;
        pthread_mutex_lock(&publisher->lock);
    }
    pthread_mutex_unlock(&publisher->lock);
    return r;
}

/* Waits until SPAN bytes may be written. A quarter of the ring at once, so that the two don't alternate by single
 * messages. */
static int make_room(struct plait_publisher *publisher, uint64_t span)
{
    uint64_t capacity = publisher->writer.capacity;
    return pl_publisher_wait_for(publisher, publisher->writer.tail + span - capacity, capacity / 4);
}

static int wait_for_subscribers(struct plait_publisher *publisher)
{
    uint64_t deadline = pl_clock_ns() + publisher->timeout_ns;
    for (;;) {
        /* Relaxed: who is counted was added under the lock; nothing else depends on it. */
        uint32_t count = atomic_load_explicit(&publisher->count, memory_order_relaxed);
        if (count >= publisher->wanted) return 0;
        uint64_t slice = pl_interrupt_slice(&publisher->interrupt, deadline);
        bool silent = pl_futex_wait(&publisher->count, count, slice) == -ETIMEDOUT;
        int r = silent ? pl_interrupt_ask(&publisher->interrupt) : 0;
        if (r < 0) return r;
        if (silent && slice == deadline)
            return pl_error(-ETIMEDOUT, "topic '%s': %u of %u subscribers came within %llu ms (wait_subscribers)",
                            publisher->topic, count, publisher->wanted,
                            (unsigned long long)(publisher->timeout_ns / 1000000));
    }
}

/* ---- publishing ---- */

/* Few and rare sleepers are woken here. Many would hold us up; and those that fall asleep again before the next
 * message would make each message cost their waking: the ringer wakes them together, after a while. */
static void wake(struct plait_publisher *publisher, uint32_t sleepers, uint64_t now)
{
    if (sleepers <= PL_TOPIC_DIRECT_MAX && now - publisher->woke > publisher->direct) {
        publisher->woke = now;
        ring(publisher);
        return;
    }
    pl_ringer_ask(publisher, sleepers);
}

/* Writes HEAD and the SIZE bytes that stand in the ring, and wakes who sleeps. 0; -EINTR: nothing was written. */
static int write_message(struct plait_publisher *publisher, struct pl_broadcast_head *head, const void *data)
{
    uint64_t span = pl_broadcast_span(head->size);
    /* Relaxed: see slowest. */
    if (publisher->reliable &&
        publisher->writer.tail + span > atomic_load_explicit(&publisher->limit, memory_order_relaxed)) {
        int r = make_room(publisher, span);
        if (r < 0) return r;
    }
    head->ticks = pl_ticks();
    uint32_t cpu = (uint32_t)sched_getcpu() + 1;
    if (cpu != publisher->cpu) {
        publisher->cpu = cpu;
        /* Relaxed: a hint to spinners. */
        atomic_store_explicit(&publisher->writer.shared->cpu, cpu, memory_order_relaxed);
    }
    pl_broadcast_write(&publisher->writer, head, data);
    pl_count(&publisher->counters->published, 1);
    uint32_t sleepers = pl_broadcast_sleepers(publisher->waiters);
    if (__builtin_expect(sleepers != 0, 0)) wake(publisher, sleepers, head->ticks);
    return 0;
}

/* What SEGMENT holds, of SIZE bytes. */
static int write_bulk(struct plait_publisher *publisher, plait_encoding encoding, struct pl_bulk_segment *segment,
                      size_t size)
{
    uint8_t record[PL_FRAME_SEGMENT_SIZE];
    struct pl_broadcast_head head = { .size = sizeof record, .kind = PL_BULK_SEGMENT, .encoding = (uint8_t)encoding };
    pl_bulk_record(publisher, segment, size, record);
    int r = write_message(publisher, &head, record);
    pl_bulk_give_back(segment);
    return r;
}

static int check_size(const struct plait_publisher *publisher, size_t size)
{
    if (__builtin_expect(pl_forked(&publisher->fork), 0))
        return pl_error(-ECHILD, "topic '%s': opened before fork() (open it in this process)", publisher->topic);
    if (__builtin_expect(size > publisher->max_message, 0))
        return pl_error(-EMSGSIZE, "topic '%s': a message of %zu bytes; the limit, max_message, is %llu",
                        publisher->topic, size, (unsigned long long)publisher->max_message);
    return 0;
}

static int check(struct plait_publisher *publisher, plait_encoding encoding, size_t size)
{
    int r = check_size(publisher, size);
    if (r < 0) return r;
    if (__builtin_expect((unsigned)encoding > PLAIT_ARRAY, 0))
        return pl_error(-EINVAL, "there is no encoding %d", (int)encoding);
    /* Relaxed: see wait_for_subscribers. */
    if (__builtin_expect(atomic_load_explicit(&publisher->count, memory_order_relaxed) < publisher->wanted, 0))
        return wait_for_subscribers(publisher);
    return 0;
}

int plait_publisher_publish_as(plait_publisher *publisher, plait_encoding encoding, const void *data, size_t size)
{
    int r = check(publisher, encoding, size);
    if (r < 0) return r;
    if (size > PL_BROADCAST_BODY_MAX) {
        struct pl_bulk_segment *segment;
        r = pl_bulk_take(publisher, size, &segment);
        if (r < 0) return r;
        memcpy(pl_bulk_data(segment), data, size);
        r = write_bulk(publisher, encoding, segment, size);
    } else {
        struct pl_broadcast_head head = { .size = (uint32_t)size, .encoding = (uint8_t)encoding };
        r = write_message(publisher, &head, data);
    }
    if (r < 0) return r;
    pl_count(&publisher->counters->bytes_out, size);
    return 0;
}

int plait_publisher_loan(plait_publisher *publisher, size_t size, plait_loan **ret_loan)
{
    struct pl_loan loan;
    struct pl_bulk_segment *segment;
    int r = check_size(publisher, size);
    if (r < 0) return r;
    r = size > PL_BROADCAST_BODY_MAX ? pl_bulk_take(publisher, size, &segment) : pl_loan_plain(&loan, size);
    if (r < 0) return r;
    if (size > PL_BROADCAST_BODY_MAX) pl_bulk_lend(segment, size, &loan);
    r = pl_loan_new(ret_loan, &loan);
    if (r < 0) pl_loan_give_back(&loan);
    return r;
}

int plait_publisher_publish_loan(plait_publisher *publisher, plait_encoding encoding, plait_loan *handle, size_t size)
{
    struct pl_loan loan;
    int r = pl_loan_take(handle, size, &loan);
    if (r < 0) return r;
    struct pl_bulk_segment *segment = pl_bulk_of(publisher, &loan);
    if (segment == NULL) { /* plain memory, or somebody else's */
        r = plait_publisher_publish_as(publisher, encoding, loan.data, size);
        pl_loan_give_back(&loan);
        return r;
    }
    r = check(publisher, encoding, size);
    if (r < 0) {
        pl_loan_give_back(&loan);
        return r;
    }
    r = write_bulk(publisher, encoding, segment, size);
    if (r < 0) return r;
    pl_count(&publisher->counters->bytes_out, size);
    return 0;
}

int plait_publisher_publish(plait_publisher *publisher, const void *data, size_t size)
{
    return plait_publisher_publish_as(publisher, PLAIT_BYTES, data, size);
}

int plait_publisher_ready(plait_publisher *publisher, size_t size)
{
    bool large = size > PL_BROADCAST_BODY_MAX;
    uint64_t end = publisher->writer.tail + pl_broadcast_span(large ? PL_FRAME_SEGMENT_SIZE : (uint32_t)size);
    int r = check_size(publisher, size);
    if (r < 0) return r;
    /* Relaxed: see wait_for_subscribers. */
    uint32_t count = atomic_load_explicit(&publisher->count, memory_order_relaxed);
    if (count < publisher->wanted)
        return pl_error(-EAGAIN, "topic '%s': %u of %u subscribers are there (wait_subscribers)", publisher->topic,
                        count, publisher->wanted);
    /* Relaxed: see slowest. */
    if (!publisher->reliable || (!large && end <= atomic_load_explicit(&publisher->limit, memory_order_relaxed)))
        return 0;
    uint64_t target = end - publisher->writer.capacity;
    pthread_mutex_lock(&publisher->lock);
    bool slow = behind(publisher, target, &publisher->asked) != NULL;
    while (!slow && large && pl_bulk_unread(publisher, &target))
        slow = behind(publisher, target, &publisher->asked) != NULL;
    if (!slow) publisher->asked = 0;
    pthread_mutex_unlock(&publisher->lock);
    return slow ? pl_error(-EAGAIN, "topic '%s': a subscriber is slow", publisher->topic) : 0;
}

/* ---- opening and closing ---- */

static void on_fork(struct pl_fork_hook *hook)
{
    struct plait_publisher *publisher = pl_container_of(hook, struct plait_publisher, fork);
    pl_helper_forked(publisher);
    pl_claim_forked(&publisher->claim);
    pl_bulk_forked(publisher);
    pl_close(&publisher->bell);
    pl_close(&publisher->ring_fd);
    pl_close(&publisher->waiters_fd);
}

static int add_listener(struct plait_publisher *publisher, const char *text, size_t size)
{
    char copy[1400];
    if (publisher->listener_count == PL_TOPIC_LISTENERS_MAX)
        return pl_error(-ENOSPC, "topic '%s' has PL_TOPIC_LISTENERS_MAX, %d, listeners already", publisher->topic,
                        PL_TOPIC_LISTENERS_MAX);
    if (size >= sizeof copy) return pl_error(-EINVAL, "listen: a URL of %zu bytes", size);
    memcpy(copy, text, size);
    copy[size] = '\0';
    struct pl_topic_listener *listener = calloc(1, sizeof *listener);
    if (listener == NULL) return pl_error(-ENOMEM, "no memory for a listener");
    listener->publisher = publisher;
    listener->source.fd = -1;
    publisher->listeners[publisher->listener_count++] = listener;
    int r = pl_url_parse(&listener->url, copy);
    if (r < 0) return pl_error_in(r, "listen");
    if (listener->url.scheme != PL_SCHEME_TCP && listener->url.scheme != PL_SCHEME_UNIX)
        return pl_error(-EINVAL, "listen '%s': a topic listens at tcp://HOST:PORT or unix:///PATH", copy);
    if (listener->url.framing != PL_FRAMING_PLAIT)
        return pl_error(-EINVAL, "listen '%s': topics speak framing=plait alone", copy);
    if (listener->url.name[0] != '\0' && strcmp(listener->url.name, publisher->topic) != 0)
        return pl_error(-EINVAL, "listen '%s': this publisher's topic is '%s'", copy, publisher->topic);
    return pl_socket_listen(&listener->url, &listener->source.fd, listener->text, sizeof listener->text);
}

static int listen_at(struct plait_publisher *publisher, const char *urls)
{
    int r = 0;
    for (int i = 0; i < 2 && r == 0; i++) {
        if (publisher->claim.listeners[i] < 0) continue;
        struct pl_topic_listener *listener = calloc(1, sizeof *listener);
        if (listener == NULL) return pl_error(-ENOMEM, "no memory for a listener");
        *listener = (struct pl_topic_listener){ .source = { .fd = publisher->claim.listeners[i] },
                                                .publisher = publisher,
                                                .url = { .scheme = PL_SCHEME_UNIX },
                                                .of_claim = true };
        publisher->listeners[publisher->listener_count++] = listener;
    }
    char all[512] = "";
    size_t used = 0;
    for (const char *at = urls != NULL ? urls : ""; r == 0 && *(at += strspn(at, " ")) != '\0';
         at += strcspn(at, " ")) {
        r = add_listener(publisher, at, strcspn(at, " "));
        if (r < 0) break;
        int n = snprintf(all + used, sizeof all - used, "%s%s", used ? " " : "",
                         publisher->listeners[publisher->listener_count - 1]->text);
        if (n > 0 && (size_t)n < sizeof all - used) used += (size_t)n;
        else all[used] = '\0';
    }
    if (r == 0 && used > 0) r = pl_claim_set_urls(&publisher->claim, all);
    if (r == 0) pl_status_service_set(publisher->status, all, publisher->reliable ? "reliable" : "latest");
    return r;
}

/* A power of two that holds HISTORY of the largest messages besides the one that is being written. */
static uint32_t capacity_for(uint32_t history)
{
    uint64_t need = pl_broadcast_span(PL_BROADCAST_BODY_MAX) * ((uint64_t)history + 1);
    uint32_t capacity = PL_BROADCAST_CAPACITY;
    while (capacity < need + need / 8) capacity *= 2; /* and the part that a mark is for */
    return capacity;
}

static int check_service(const char *topic)
{
    struct pl_instance *instances;
    size_t count;
    int r = pl_lookup(topic, NULL, &instances, &count);
    if (r < 0) return r;
    free(instances);
    if (count > 0) return pl_error(-EEXIST, "'%s' is a service; a topic needs a name of its own", topic);
    return 0;
}

static int apply(struct plait_publisher *publisher, const plait_publisher_options *options)
{
    if (options->history > PLAIT_HISTORY_MAX)
        return pl_error(-EINVAL, "history: %u is more than PLAIT_HISTORY_MAX, %d", options->history, PLAIT_HISTORY_MAX);
    if (options->max_message > PLAIT_MESSAGE_MAX)
        return pl_error(-EINVAL, "max_message: at most PLAIT_MESSAGE_MAX, %u", PLAIT_MESSAGE_MAX);
    publisher->max_message = options->max_message ? options->max_message : PLAIT_MESSAGE_MAX;
    int64_t timeout = options->timeout == 0 ? PL_TOPIC_TIMEOUT_MS : options->timeout < 0 ? 0 : options->timeout;
    publisher->timeout_ns = timeout > INT64_MAX / 4 / 1000000 ? UINT64_MAX / 4 : (uint64_t)timeout * 1000000;
    publisher->wanted = options->wait_subscribers;
    publisher->kept = (options->history < PL_SEGMENTS_MAX / 2 ? options->history : PL_SEGMENTS_MAX / 2) + PL_BULK_KEPT;
    publisher->reliable = options->reliable != 0;
    publisher->interrupt = (struct pl_interrupt){ options->interrupted, options->interrupted_context };
    pl_spin_init(&publisher->spin, 0);
    return pl_allow_parse(&publisher->allow, options->allow);
}

static int open_all(struct plait_publisher *publisher, const plait_publisher_options *options)
{
    int r = pl_name_check("topic", publisher->topic, strlen(publisher->topic));
    if (r == 0) r = apply(publisher, options);
    if (r == 0) r = check_service(publisher->topic);
    if (r == 0)
        r = pl_broadcast_create(&publisher->writer, capacity_for(options->history), publisher->reliable,
                                &publisher->ring_fd);
    if (r < 0) return r;
    /* Relaxed: nobody else is here yet. */
    atomic_store_explicit(&publisher->limit, publisher->writer.capacity, memory_order_relaxed);
    r = pl_topic_page_create((void **)&publisher->waiters, &publisher->waiters_fd);
    if (r == 0) r = pl_doorbell_create(&publisher->bell);
    if (r == 0)
        r = pl_claim_open_as(&publisher->claim, PL_KIND_TOPIC, publisher->topic, PL_CLAIM_SHARED, &publisher->allow);
    if (r < 0) return r;
    publisher->status = pl_status_topic_add(publisher->topic, publisher->claim.id, publisher->claim.directory);
    publisher->counters = pl_status_service_counters(publisher->status);
    r = listen_at(publisher, options->listen);
    if (r == 0) r = pl_helper_start(publisher);
    if (r == 0) r = pl_ringer_start(publisher);
    return r;
}

int plait_publisher_open(plait_publisher **ret_publisher, const char *topic, const plait_publisher_options *options)
{
    plait_publisher_options known;
    int r = pl_options_read(&known, sizeof known, options, "plait_publisher_options");
    if (r == 0 && topic == NULL) r = pl_error(-EINVAL, "a publisher needs a topic's name");
    if (r == 0 && strlen(topic) > PLAIT_NAME_MAX) r = pl_name_check("topic", topic, strlen(topic));
    if (r < 0) return r;
    struct plait_publisher *publisher = calloc(1, sizeof *publisher);
    if (publisher == NULL) return pl_error(-ENOMEM, "no memory for a publisher");
    strcpy(publisher->topic, topic);
    pthread_mutex_init(&publisher->lock, NULL);
    pl_list_init(&publisher->outlets);
    pl_list_init(&publisher->greetings);
    publisher->bell = publisher->ring_fd = publisher->waiters_fd = publisher->loop.epoll_fd = -1;
    publisher->claim.listeners[0] = publisher->claim.listeners[1] = -1;
    publisher->fork.in_child = on_fork;
    publisher->direct = pl_ticks_of_ns(PL_TOPIC_DIRECT_NS);
    r = pl_fork_add(&publisher->fork);
    if (r == 0) r = open_all(publisher, &known);
    if (r < 0) {
        plait_publisher_close(publisher);
        return r;
    }
    *ret_publisher = publisher;
    return 0;
}

size_t plait_publisher_subscribers(const plait_publisher *publisher)
{
    /* relaxed: a number */
    return atomic_load_explicit(&publisher->count, memory_order_relaxed);
}

const char *plait_publisher_url(const plait_publisher *publisher, size_t index)
{
    for (uint32_t i = 0; i < publisher->listener_count; i++)
        if (!publisher->listeners[i]->of_claim && index-- == 0) return publisher->listeners[i]->text;
    return NULL;
}

void plait_publisher_close(plait_publisher *publisher)
{
    if (publisher == NULL) return;
    bool ours = !pl_forked(&publisher->fork);
    pl_fork_remove(&publisher->fork);
    if (ours) {
        if (publisher->claim.state != NULL) pl_claim_withdraw(&publisher->claim);
        if (publisher->writer.shared != NULL && publisher->running)
            /* Relaxed: the HUP that follows is what makes anybody look. */
            atomic_store_explicit(&publisher->writer.shared->closed, 1, memory_order_relaxed);
        pl_helper_stop(publisher);
        pl_ringer_stop(publisher);
    }
    for (uint32_t i = 0; i < publisher->listener_count; i++) {
        struct pl_topic_listener *listener = publisher->listeners[i];
        if (!listener->of_claim) {
            if (ours && listener->source.fd >= 0) pl_socket_unlink(&listener->url);
            pl_close(&listener->source.fd);
        }
        free(listener);
    }
    if (publisher->claim.state != NULL) pl_claim_close(&publisher->claim);
    pl_status_service_remove(publisher->status);
    pl_bulk_free(publisher);
    pl_broadcast_destroy(&publisher->writer);
    pl_topic_page_detach(publisher->waiters);
    pl_close(&publisher->bell);
    pl_close(&publisher->ring_fd);
    pl_close(&publisher->waiters_fd);
    pthread_mutex_destroy(&publisher->lock);
    free(publisher);
}
