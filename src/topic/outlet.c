/* outlet: one subscriber, as its publisher has it.
 *
 * A subscriber sends its hello and a SUBSCRIBE frame at once. In shared memory it gets descriptors for the ring, the
 * waiters' page, a page of its own and the bell, and from then on the socket only tells of somebody's end. Other
 * users' subscribers and those over TCP get MESSAGE frames, which the helper's thread makes out of the ring.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/futex.h"
#include "base/log.h"
#include "shm/memory.h"
#include "topic/topic.h"
#include "transport/socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PUMP_MESSAGES = 256, QUEUE_MAX = 262144 };

/* ---- its end ---- */

void pl_outlet_wake_publisher(struct pl_subscriber_page *page)
{
    pl_futex_wake_shared(&page->waiting, 1);
}

void pl_outlet_free(struct pl_outlet *outlet)
{
    if (outlet->shm) pl_topic_page_detach(outlet->page);
    else free(outlet->page);
    free(outlet);
}

/* Lock held, so that the publishing thread announces nothing to a socket that is somebody else's by then. */
static void let_go(struct pl_outlet *outlet)
{
    struct plait_publisher *publisher = outlet->publisher;
    pl_timer_clear(&publisher->loop, &outlet->timer);
    pl_loop_remove(&publisher->loop, &outlet->socket);
    pl_list_remove(&outlet->link);
    pl_stream_deinit(&outlet->stream);
    pl_status_connection_remove(outlet->status);
    if (outlet->page == NULL) {
        publisher->greeting_count--;
        return;
    }
    /* Relaxed: a number. */
    atomic_fetch_sub_explicit(&publisher->count, 1, memory_order_relaxed);
    if (!outlet->shm && --publisher->socket_count == 0) pl_loop_remove(&publisher->loop, &publisher->bell_source);
}

void pl_outlet_end(struct pl_outlet *outlet)
{
    struct plait_publisher *publisher = outlet->publisher;
    pthread_mutex_lock(&publisher->lock);
    let_go(outlet);
    bool pinned = outlet->orphan = outlet->pinned; /* then the publishing thread frees it */
    if (pinned) {
        /* Relaxed: the wake-up, a system call, comes after it. */
        atomic_store_explicit(&outlet->page->waiting, 0, memory_order_relaxed);
        pl_outlet_wake_publisher(outlet->page);
    }
    pthread_mutex_unlock(&publisher->lock);
    if (!pinned) pl_outlet_free(outlet);
}

static void refuse(struct pl_outlet *outlet, int error)
{
    struct plait_publisher *publisher = outlet->publisher;
    pl_log(PLAIT_LOG_INFO, "topic '%s': refused %s: %s", publisher->topic, outlet->address, pl_error_text());
    if (error != -ECONNRESET) pl_handshake_refuse(outlet->stream.fd, error, pl_error_text());
    pl_outlet_end(outlet);
}

static int queue(struct pl_outlet *outlet, const struct pl_frame *frame, const void *body)
{
    uint8_t head[PL_FRAME_HEAD];
    pl_frame_encode(head, frame);
    int r = pl_buffer_append(&outlet->stream.out, head, sizeof head);
    if (r == 0 && frame->size > 0) r = pl_buffer_append(&outlet->stream.out, body, frame->size);
    if (r < 0) return pl_error(r, "no memory for a subscriber's queue");
    return 0;
}

/* ---- joining ---- */

/* Makes it one of those whom the publisher counts, and says where it begins. Its cursor is not before what the
 * publisher may overwrite without another look at cursors. Lock held. */
static int join(struct pl_outlet *outlet, const struct pl_frame *frame)
{
    struct plait_publisher *publisher = outlet->publisher;
    const struct pl_broadcast_writer *writer = &publisher->writer;
    struct pl_broadcast_reader *reader = &outlet->reader;
    int r = 0;
    pl_broadcast_reader_init(reader, writer->shared, writer->data, writer->capacity);
    if ((frame->method & PL_SUBSCRIBE_GO_ON) == 0) r = pl_broadcast_seek(reader, frame->call);
    /* Relaxed: under the lock, and before anybody else has the page. */
    uint64_t limit = atomic_load_explicit(&publisher->limit, memory_order_relaxed);
    uint64_t oldest = limit - writer->capacity;
    outlet->seen = (int64_t)(reader->position - oldest) > 0 ? reader->position : oldest;
    atomic_store_explicit(&outlet->page->cursor, outlet->seen, memory_order_relaxed);
    outlet->page->start = reader->position;
    outlet->page->number = reader->number;
    outlet->since = pl_clock_ns();
    pl_list_remove(&outlet->link);
    pl_list_append(&publisher->outlets, &outlet->link);
    publisher->greeting_count--;
    return r;
}

static void count(struct pl_outlet *outlet)
{
    struct plait_publisher *publisher = outlet->publisher;
    struct pl_status_peer peer = { .pid = outlet->pid,
                                   .uid = outlet->uid,
                                   .transport = outlet->shm                                     ? "shm"
                                                : outlet->listener->url.scheme == PL_SCHEME_TCP ? "tcp"
                                                                                                : "unix",
                                   .framing = "plait",
                                   .name = outlet->address };
    outlet->status = pl_status_connection_add(publisher->status, &peer);
    /* Relaxed: see wait_for_subscribers. */
    atomic_fetch_add_explicit(&publisher->count, 1, memory_order_relaxed);
    pl_futex_wake(&publisher->count, INT32_MAX);
}

/* The page of a subscriber at a socket is nobody else's. */
static int private_page(struct pl_outlet *outlet)
{
    void *page = NULL;
    if (posix_memalign(&page, 64, sizeof *outlet->page) != 0) return pl_error(-ENOMEM, "no memory for a subscriber");
    memset(page, 0, sizeof *outlet->page);
    outlet->page = page;
    return 0;
}

static int answer(struct pl_outlet *outlet, const int *fds, size_t count)
{
    struct plait_publisher *publisher = outlet->publisher;
    uint8_t head[PL_HELLO_SERVER_HEAD + 1 + PLAIT_NAME_MAX], *name = head + PL_HELLO_SERVER_HEAD;
    size_t name_size = strlen(publisher->topic);
    bool network = outlet->listener->url.scheme == PL_SCHEME_TCP;
    struct pl_hello_server hello = {
        .major = PL_PROTOCOL_MAJOR,
        .minor = PL_PROTOCOL_MINOR,
        .features =
            PL_FEATURE_TOPIC | (outlet->shm ? PL_FEATURE_SHM : 0) | (publisher->reliable ? PL_FEATURE_RELIABLE : 0),
        .instance = publisher->claim.id,
        .max_message = network && publisher->max_message > PL_TOPIC_NETWORK_MESSAGE ? PL_TOPIC_NETWORK_MESSAGE
                                                                                    : publisher->max_message,
        .pid = (uint32_t)getpid(),
        .outstanding = outlet->shm ? pl_bulk_announcements(publisher) : 0, /* announcements that follow at once */
        .ring_capacity = outlet->shm ? publisher->writer.capacity : 0,
        .method_count = 1, /* the topic, like a method */
        .tail_size = 1 + name_size,
    };
    name[0] = (uint8_t)name_size;
    memcpy(name + 1, publisher->topic, name_size);
    hello.tail = name;
    pl_hello_server_encode(head, &hello);
    int r = pl_stream_write_fds(&outlet->stream, head, PL_HELLO_SERVER_HEAD + hello.tail_size, fds, count);
    return r > 0 ? pl_error(-EAGAIN, "the subscriber's socket has no room for the hello") : r;
}

static int greet_shm(struct pl_outlet *outlet, const struct pl_frame *frame)
{
    struct plait_publisher *publisher = outlet->publisher;
    int page PL_AUTO_CLOSE = -1;
    int r = pl_topic_page_create((void **)&outlet->page, &page);
    if (r < 0) return r;
    int fds[PL_TOPIC_FDS] = { publisher->ring_fd, publisher->waiters_fd, page, publisher->bell };
    pthread_mutex_lock(&publisher->lock); /* no message with an unknown segment comes between */
    r = join(outlet, frame);
    count(outlet);
    if (r == 0) r = answer(outlet, fds, PL_TOPIC_FDS);
    if (r == 0) r = pl_bulk_announce_all(outlet);
    pthread_mutex_unlock(&publisher->lock);
    return r;
}

static int greet_socket(struct pl_outlet *outlet, const struct pl_frame *frame)
{
    struct plait_publisher *publisher = outlet->publisher;
    int r = private_page(outlet);
    if (r < 0) return r;
    pthread_mutex_lock(&publisher->lock);
    r = join(outlet, frame);
    pthread_mutex_unlock(&publisher->lock);
    if (publisher->socket_count++ == 0 && r == 0)
        r = pl_loop_add(&publisher->loop, &publisher->bell_source, EPOLLIN | EPOLLET);
    count(outlet);
    if (r == 0) r = answer(outlet, NULL, 0);
    if (r < 0) return r;
    /* To go on is to begin at the beginning, and at a number that is ours to leave out what comes before it. */
    if ((frame->method & PL_SUBSCRIBE_GO_ON) && frame->trace == publisher->claim.id) outlet->skip_to = frame->call;
    struct pl_frame due = { .kind = PL_FRAME_SUBSCRIBE,
                            .call = outlet->skip_to > 0 ? outlet->skip_to : outlet->reader.number };
    return queue(outlet, &due, NULL);
}

static int greet(struct pl_outlet *outlet, const struct pl_frame *frame)
{
    struct plait_publisher *publisher = outlet->publisher;
    bool network = outlet->listener->url.scheme == PL_SCHEME_TCP;
    if (outlet->hello.name[0] != '\0' && strcmp(outlet->hello.name, publisher->topic) != 0)
        return pl_error(-ENOENT, "no topic '%s' here, this is '%s'", outlet->hello.name, publisher->topic);
    if ((frame->method & PL_SUBSCRIBE_RELIABLE) && !publisher->reliable)
        return pl_error(-EOPNOTSUPP, "topic '%s' is not reliable: its publisher (pid %d) doesn't wait for subscribers",
                        publisher->topic, (int)getpid());
    outlet->gates = publisher->reliable && (frame->method & PL_SUBSCRIBE_GATES) != 0;
    outlet->shm = !network && outlet->uid == geteuid() && (outlet->hello.features & PL_FEATURE_SHM) &&
                  outlet->hello.abi == pl_hello_abi();
    pl_timer_clear(&publisher->loop, &outlet->timer);
    return outlet->shm ? greet_shm(outlet, frame) : greet_socket(outlet, frame);
}

/* The hello byte by byte as it comes, then the frame behind it. 0; PL_HELLO_MORE; -errno. */
static int read_greeting(struct pl_outlet *outlet, struct pl_frame *frame)
{
    if (!outlet->hello_done) {
        int r = pl_greeting_read(&outlet->greeting, outlet->stream.fd, &outlet->hello);
        if (r != PL_HELLO_OK) return r;
        outlet->hello_done = true;
        outlet->stream.readable = true;
        if (!(outlet->hello.features & PL_FEATURE_TOPIC))
            return pl_error(-ENOENT, "'%s' is a topic, not a service: subscribe to it", outlet->publisher->topic);
    }
    const uint8_t *data;
    size_t size;
    outlet->stream.readable = true;
    int r = pl_stream_peek(&outlet->stream, PL_FRAME_HEAD, &data, &size);
    if (r == PL_STREAM_EMPTY) return PL_HELLO_MORE;
    if (r == PL_STREAM_END) return pl_error(-ECONNRESET, "the subscriber left");
    if (r < 0) return r;
    r = pl_frame_decode(frame, data, 0);
    if (r == PL_FRAME_SKIP || (r == 0 && frame->kind != PL_FRAME_SUBSCRIBE))
        r = pl_error(-EPROTO, "a subscriber that doesn't begin with SUBSCRIBE");
    pl_stream_consume(&outlet->stream, PL_FRAME_HEAD);
    return r;
}

/* ---- sending ---- */

static int64_t unix_ns_of(uint64_t ticks)
{
    uint64_t now = pl_ticks(), age = (int64_t)(now - ticks) > 0 ? pl_ns_of_ticks(now - ticks) : 0;
    return (int64_t)(pl_clock_unix_ns() - age);
}

/* Whether this subscriber was left behind since the last time, which it is to hear before it finds out. */
static int queue_dropped(struct pl_outlet *outlet)
{
    /* relaxed: a message that was overwritten comes later than the word */
    uint64_t dropped = atomic_load_explicit(&outlet->page->dropped, memory_order_relaxed);
    if (dropped == outlet->dropped) return 0;
    outlet->dropped = dropped;
    struct pl_frame frame = { .kind = PL_FRAME_DROPPED, .method = (uint32_t)dropped, .call = dropped >> 32 };
    return queue(outlet, &frame, NULL);
}

/* The body as it is queued: out of the ring, or of the segment that stands there. 1: gone, or too large for a network.
 */
static int queue_message(struct pl_outlet *outlet, const struct pl_broadcast_head *head, const uint8_t *body)
{
    bool network = outlet->listener->url.scheme == PL_SCHEME_TCP;
    struct pl_frame frame = { .size = head->size,
                              .kind = PL_FRAME_MESSAGE,
                              .encoding = head->encoding,
                              .call = head->number,
                              .trace = (uint64_t)unix_ns_of(head->ticks) };
    if (head->kind == PL_BULK_RING) return queue(outlet, &frame, body);
    const uint8_t *data;
    size_t size;
    if (pl_bulk_view(outlet, body, &data, &size) != 0) return 1;
    frame.size = (uint32_t)size;
    int r = network && size > PL_TOPIC_NETWORK_MESSAGE ? 1 : queue(outlet, &frame, data);
    pl_hazard_clear(outlet->page, 0);
    return r;
}

/* 0; PL_BROADCAST_EMPTY; -errno. What can't be sent is a gap. */
static int queue_next(struct pl_outlet *outlet)
{
    struct pl_broadcast_head head;
    uint8_t body[PL_BROADCAST_BODY_MAX];
    uint64_t lost = 0;
    int r = pl_broadcast_read(&outlet->reader, &head, body, &lost);
    if (r != PL_BROADCAST_OK) return r;
    if (head.number < outlet->skip_to) return 0;
    if (lost > 0) r = queue_dropped(outlet);
    if (r == 0) r = queue_message(outlet, &head, body);
    return r < 0 ? r : 0;
}

static void tell(struct pl_outlet *outlet)
{
    if (outlet->reader.position == outlet->told) return;
    outlet->told = outlet->reader.position;
    if (pl_broadcast_tell_cursor(outlet->page, outlet->told)) pl_outlet_wake_publisher(outlet->page);
}

bool pl_outlet_pump(struct pl_outlet *outlet)
{
    struct plait_publisher *publisher = outlet->publisher;
    int r = 0;
    for (int i = 0; i < PUMP_MESSAGES && r == 0 && pl_buffer_size(&outlet->stream.out) < QUEUE_MAX; i++)
        r = queue_next(outlet);
    if (r >= 0) {
        /* relaxed: this thread alone moves it */
        uint64_t moved = atomic_load_explicit(&outlet->stream.moved, memory_order_relaxed);
        int sent = pl_stream_flush(&outlet->stream);
        if (publisher->linger_until != 0 && atomic_load_explicit(&outlet->stream.moved, memory_order_relaxed) != moved)
            publisher->linger_until = pl_clock_ns() + publisher->timeout_ns;
        if (sent < 0) r = sent;
        outlet->blocked = sent == PL_STREAM_FULL && pl_buffer_size(&outlet->stream.out) >= QUEUE_MAX / 2;
        uint32_t events = EPOLLIN | EPOLLRDHUP | (sent == PL_STREAM_FULL ? (uint32_t)EPOLLOUT : 0);
        if (sent >= 0 && pl_loop_change(&publisher->loop, &outlet->socket, events) < 0) r = -ENOMEM;
    }
    if (r < 0) {
        pl_log(PLAIT_LOG_INFO, "topic '%s': %s: %s", publisher->topic, outlet->address, pl_error_text());
        pl_outlet_end(outlet);
        return false;
    }
    tell(outlet);
    return !outlet->blocked && pl_broadcast_ready(&outlet->reader);
}

/* ---- events ---- */

static void on_late(struct pl_timer *timer)
{
    struct pl_outlet *outlet = pl_container_of(timer, struct pl_outlet, timer);
    refuse(outlet, pl_error(-ETIMEDOUT, "no hello within %d ms", PL_TOPIC_HELLO_MS));
}

/* A subscriber has nothing to say once it is greeted. */
static void on_greeted(struct pl_outlet *outlet, uint32_t events)
{
    uint8_t byte;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        ssize_t n = recv(outlet->stream.fd, &byte, 1, MSG_DONTWAIT);
        if (n >= 0 || (errno != EAGAIN && errno != EINTR)) {
            if (n > 0) pl_count(&pl_status_connection_counters(outlet->status)->protocol_errors, 1);
            pl_outlet_end(outlet);
            return;
        }
    }
    if (!outlet->shm) pl_outlet_pump(outlet);
}

static void on_event(struct pl_source *source, uint32_t events)
{
    struct pl_outlet *outlet = pl_container_of(source, struct pl_outlet, socket);
    struct pl_frame frame;
    if (outlet->page != NULL) {
        on_greeted(outlet, events);
        return;
    }
    int r = read_greeting(outlet, &frame);
    if (r == PL_HELLO_MORE) return;
    if (r == 0) r = greet(outlet, &frame);
    if (r < 0) refuse(outlet, r);
    else if (!outlet->shm) pl_outlet_pump(outlet);
}

static int who(struct pl_outlet *outlet, const struct pl_address *peer)
{
    outlet->uid = (uid_t)-1;
    if (outlet->listener->url.scheme == PL_SCHEME_TCP) {
        pl_socket_tune(outlet->stream.fd);
        pl_address_format(peer, outlet->address, sizeof outlet->address);
        return 0;
    }
    int r = pl_allow_check(&outlet->publisher->allow, outlet->stream.fd, &outlet->pid, &outlet->uid);
    pl_process_name(outlet->pid, outlet->address, sizeof outlet->address);
    return r;
}

void pl_outlet_begin(struct pl_topic_listener *listener, int socket, const struct pl_address *peer)
{
    struct plait_publisher *publisher = listener->publisher;
    struct pl_outlet *outlet = calloc(1, sizeof *outlet);
    if (outlet == NULL) {
        pl_close(&socket);
        return;
    }
    outlet->publisher = publisher;
    outlet->listener = listener;
    pl_stream_init(&outlet->stream, socket);
    outlet->socket = PL_SOURCE(socket, on_event);
    outlet->timer.due = on_late;
    pl_list_append(&publisher->greetings, &outlet->link);
    if (++publisher->greeting_count > PL_TOPIC_UNGREETED_MAX)
        refuse(pl_container_of(publisher->greetings.next, struct pl_outlet, link),
               pl_error(-EBUSY, "more than %d subscribers without a hello: the oldest is dropped",
                        PL_TOPIC_UNGREETED_MAX));
    int r = who(outlet, peer);
    if (r == 0) r = pl_loop_add(&publisher->loop, &outlet->socket, EPOLLIN | EPOLLRDHUP);
    if (r == 0)
        r = pl_timer_set(&publisher->loop, &outlet->timer, pl_clock_ns() + (uint64_t)PL_TOPIC_HELLO_MS * 1000000);
    if (r < 0) refuse(outlet, r);
    else on_event(&outlet->socket, EPOLLIN); /* it is there already, mostly */
}
