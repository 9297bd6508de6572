/* inlet: one publisher, as its subscriber has it.
 *
 * It greets without waiting: a publisher that is stopped holds nobody up. What the publisher published before its end
 * is read to the end, and only then is the inlet done.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/futex.h"
#include "base/log.h"
#include "shm/doorbell.h"
#include "topic/topic.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { GREETING_NS = 2000000000 };

static const char *name_of(const struct pl_inlet *inlet)
{
    return inlet->instance.name[0] != '\0' ? inlet->instance.name : inlet->subscriber->target;
}

/* What went wrong with one publisher is told to the log and to nobody else, but that a URL's only one won't have us:
 * that is what open says. */
static void give_up(struct pl_inlet *inlet, int error)
{
    char who[32] = "";
    bool told = inlet->subscriber->url.scheme != PL_SCHEME_NAME && !inlet->subscriber->ready;
    if (inlet->instance.pid > 0) snprintf(who, sizeof who, " (pid %d)", (int)inlet->instance.pid);
    if (inlet->state != PL_INLET_ENDED && error != -ECONNRESET && !told)
        pl_log(PLAIT_LOG_ERROR, "topic '%s'%s: %s", name_of(inlet), who, pl_error_text());
    if (error != -ECONNRESET || inlet->state == PL_INLET_GREETING) {
        inlet->error = error;
        snprintf(inlet->subscriber->refusal, sizeof inlet->subscriber->refusal, "%s", pl_error_text());
    }
    inlet->state = PL_INLET_ENDED;
    pl_loop_remove(&inlet->subscriber->loop, &inlet->socket);
    pl_loop_remove(&inlet->subscriber->loop, &inlet->process);
    pl_timer_clear(&inlet->subscriber->loop, &inlet->timer);
}

static void tell(struct pl_inlet *inlet)
{
    inlet->told = inlet->reader.position;
    if (pl_broadcast_tell_cursor(inlet->page, inlet->told)) pl_futex_wake_shared(&inlet->page->waiting, 1);
}

/* ---- greeting ---- */

static int send_greeting(struct pl_inlet *inlet)
{
    struct plait_subscriber *subscriber = inlet->subscriber;
    uint8_t bytes[PL_HELLO_CLIENT_MAX + PL_FRAME_HEAD];
    struct pl_hello_client hello = { .major = PL_PROTOCOL_MAJOR,
                                     .minor = PL_PROTOCOL_MINOR,
                                     .abi = pl_hello_abi(),
                                     .features = PL_FEATURE_TOPIC | (subscriber->url.shm_off ? 0 : PL_FEATURE_SHM),
                                     .max_reply = subscriber->max_message };
    snprintf(hello.name, sizeof hello.name, "%s", inlet->instance.name);
    size_t size = pl_hello_client_encode(bytes, &hello);
    struct pl_frame frame = { .kind = PL_FRAME_SUBSCRIBE,
                              .method = (subscriber->reliable >= 0 ? PL_SUBSCRIBE_GATES : 0) |
                                        (subscriber->reliable > 0 ? PL_SUBSCRIBE_RELIABLE : 0) |
                                        (inlet->later ? PL_SUBSCRIBE_GO_ON : 0),
                              .call = inlet->later ? subscriber->last_number + 1 : subscriber->history,
                              .trace = inlet->later ? subscriber->last_instance : 0 };
    pl_frame_encode(bytes + size, &frame);
    ssize_t n = send(inlet->stream.fd, bytes, size + PL_FRAME_HEAD, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n != (ssize_t)size + PL_FRAME_HEAD)
        return pl_error(n < 0 ? -errno : -ECONNRESET, "hello: %s", pl_error_word(n < 0 ? errno : ECONNRESET));
    return 0;
}

static void on_bell(struct pl_source *source, uint32_t events)
{
    (void)source;
    (void)events; /* awake is what it makes us */
}

static int open_shm(struct pl_inlet *inlet)
{
    struct plait_subscriber *subscriber = inlet->subscriber;
    int fds[PL_TOPIC_FDS];
    size_t count = inlet->stream.fd_count;
    for (int i = 0; i < PL_TOPIC_FDS; i++) fds[i] = pl_stream_take_fd(&inlet->stream);
    int r = 0;
    if (count != PL_TOPIC_FDS)
        r = pl_error(-EPROTO, "the publisher sent %zu descriptors where %d were due", count, PL_TOPIC_FDS);
    if (r == 0) r = pl_broadcast_attach(&inlet->reader, fds[PL_TOPIC_FD_RING]);
    if (r == 0) r = pl_topic_page_attach((void **)&inlet->waiters, fds[PL_TOPIC_FD_WAITERS]);
    if (r == 0) r = pl_topic_page_attach((void **)&inlet->page, fds[PL_TOPIC_FD_PAGE]);
    if (r == 0) r = pl_intake_new(&inlet->intake, inlet->reader.shared, inlet->page);
    if (r == 0) r = pl_doorbell_check(fds[PL_TOPIC_FD_BELL]);
    if (r == 0) {
        inlet->bell = PL_SOURCE(fds[PL_TOPIC_FD_BELL], on_bell);
        fds[PL_TOPIC_FD_BELL] = -1;
        r = pl_loop_add(&subscriber->loop, &inlet->bell, EPOLLIN | EPOLLET);
    }
    for (int i = 0; i < PL_TOPIC_FDS; i++) pl_close(&fds[i]);
    if (r == 0) r = pl_broadcast_begin(&inlet->reader, inlet->page->start, inlet->page->number);
    if (r < 0) return r;
    inlet->shm = true;
    tell(inlet);
    return 0;
}

static void become_open(struct pl_inlet *inlet)
{
    pl_timer_clear(&inlet->subscriber->loop, &inlet->timer);
    inlet->subscriber->retry_ms = 0;
    inlet->state = PL_INLET_OPEN;
    if (inlet->shm) return;
    /* At a socket what is still in it comes before its end. */
    pl_loop_remove(&inlet->subscriber->loop, &inlet->process);
    pl_close(&inlet->process.fd);
}

static int greeted(struct pl_inlet *inlet, const struct pl_hello_server *hello)
{
    char text[512];
    size_t offset = 0;
    if (hello->result < 0) return pl_error(hello->result, "%s", pl_hello_text(hello, text, sizeof text));
    if (!(hello->features & PL_FEATURE_TOPIC))
        return pl_error(-ENOENT, "it is a service, not a topic (to call it: plait call)");
    if (hello->method_count != 1 || pl_hello_method_next(hello, &offset, inlet->instance.name) != 1)
        return pl_error(-EPROTO, "the publisher's hello doesn't name its topic");
    inlet->instance.id = hello->instance;
    inlet->reliable = hello->features & PL_FEATURE_RELIABLE;
    int r = hello->features & PL_FEATURE_SHM ? open_shm(inlet) : 0;
    if (r < 0) return r;
    inlet->fresh = true;
    inlet->due = inlet->shm ? hello->outstanding : 0;
    if (inlet->due > PL_SEGMENTS_MAX)
        return pl_error(-EPROTO, "the publisher has %u segments; the limit is %d", inlet->due, PL_SEGMENTS_MAX);
    if (inlet->due == 0) become_open(inlet);
    return 0;
}

static int read_greeting(struct pl_inlet *inlet)
{
    struct pl_hello_server hello;
    const uint8_t *data;
    size_t size, consumed = 0, want = PL_HELLO_SERVER_HEAD;
    int r = 0;
    do {
        r = pl_stream_peek(&inlet->stream, want, &data, &size);
        if (r < 0) return r;
        int known = size > 0 ? pl_hello_server_decode(&hello, data, size, &consumed) : PL_HELLO_MORE;
        if (known < 0) return known;
        if (known == PL_HELLO_OK) {
            r = greeted(inlet, &hello);
            pl_stream_consume(&inlet->stream, consumed);
            return r;
        }
        if (r == PL_STREAM_END) return pl_error(-ECONNRESET, "the publisher closed the connection during the hello");
        want = size >= PL_HELLO_SERVER_HEAD ? PL_HELLO_SERVER_HEAD + hello.tail_size : PL_HELLO_SERVER_HEAD;
    } while (r == PL_STREAM_OK);
    return 0;
}

static void on_late(struct pl_timer *timer)
{
    struct pl_inlet *inlet = pl_container_of(timer, struct pl_inlet, timer);
    give_up(inlet, pl_error(-ETIMEDOUT, "no answer to the hello in time (is the publisher stopped?)"));
}

/* ---- events ---- */

/* All that a publisher says in the end are its segments, each with a descriptor. */
static int hear_segment(struct pl_inlet *inlet, const uint8_t *data)
{
    struct pl_frame frame;
    struct pl_frame_segment segment;
    int r = pl_frame_decode(&frame, data, PL_FRAME_SEGMENT_SIZE);
    if (r == 0 && frame.kind != PL_FRAME_SEGMENT)
        r = pl_error(-EPROTO, "the publisher sends frames of kind %d beside its ring", frame.kind);
    if (r > 0) r = pl_error(-EPROTO, "the publisher sends frames of a later protocol");
    if (r < 0) return r;
    pl_frame_segment_decode(&segment, data + PL_FRAME_HEAD);
    if (segment.size == 0) {
        pl_intake_drop(inlet->intake, segment.id);
    } else {
        int fd = pl_stream_take_fd(&inlet->stream);
        if (fd < 0) return pl_error(-EPROTO, "the publisher announces segment %u without its memory", segment.id);
        r = pl_intake_add(inlet->intake, fd, &segment);
    }
    pl_stream_consume(&inlet->stream, PL_FRAME_HEAD + PL_FRAME_SEGMENT_SIZE);
    if (inlet->due > 0 && --inlet->due == 0) become_open(inlet);
    return r == -ENOMEM || r == -EMFILE ? 0 : r; /* what lies in there will be lost */
}

static void hear_segments(struct pl_inlet *inlet)
{
    const uint8_t *data;
    size_t size;
    int r;
    inlet->stream.readable = true;
    while ((r = pl_stream_peek(&inlet->stream, PL_FRAME_HEAD + PL_FRAME_SEGMENT_SIZE, &data, &size)) == PL_STREAM_OK) {
        r = hear_segment(inlet, data);
        if (r < 0) break;
    }
    if (r == PL_STREAM_END) r = pl_error(-ECONNRESET, "the publisher is gone");
    if (r < 0 && inlet->state != PL_INLET_ENDED) give_up(inlet, r);
}

static void on_socket(struct pl_source *source, uint32_t events)
{
    struct pl_inlet *inlet = pl_container_of(source, struct pl_inlet, socket);
    inlet->stream.readable = true;
    (void)events;
    if (inlet->state == PL_INLET_GREETING && !inlet->shm) {
        int r = read_greeting(inlet);
        if (r < 0) give_up(inlet, r);
        if (r < 0 || inlet->state == PL_INLET_OPEN) return;
    }
    if (inlet->shm) hear_segments(inlet); /* else it is read when it is taken */
}

/* What it said before comes before its end: the answer to the hello, segments of messages that lie in the ring. */
static void on_process(struct pl_source *source, uint32_t events)
{
    struct pl_inlet *inlet = pl_container_of(source, struct pl_inlet, process);
    if (inlet->state == PL_INLET_GREETING && !inlet->shm) on_socket(&inlet->socket, events);
    if (inlet->state != PL_INLET_ENDED && inlet->shm) hear_segments(inlet);
    if (inlet->state == PL_INLET_GREETING || (inlet->state == PL_INLET_OPEN && inlet->shm))
        give_up(inlet, pl_error(-ECONNRESET, "the publisher is gone"));
}

int pl_inlet_new(struct pl_inlet **ret_inlet, struct plait_subscriber *subscriber, const struct pl_instance *instance,
                 int socket)
{
    struct pl_inlet *inlet = calloc(1, sizeof *inlet);
    if (inlet == NULL) {
        pl_close(&socket);
        return pl_error(-ENOMEM, "no memory for a publisher");
    }
    inlet->subscriber = subscriber;
    inlet->instance = *instance;
    inlet->later = subscriber->ready;
    pl_stream_init(&inlet->stream, socket);
    inlet->stream.with_fds = subscriber->url.scheme != PL_SCHEME_TCP;
    inlet->socket = PL_SOURCE(socket, on_socket);
    inlet->process = PL_SOURCE(instance->pid > 0 ? pl_fd_pidfd(instance->pid) : -1, on_process);
    inlet->bell.fd = -1;
    inlet->timer.due = on_late;
    pl_list_init(&inlet->link);
    int r = send_greeting(inlet);
    if (r == 0) r = pl_loop_add(&subscriber->loop, &inlet->socket, EPOLLIN | EPOLLRDHUP);
    if (r == 0 && inlet->process.fd >= 0) r = pl_loop_add(&subscriber->loop, &inlet->process, EPOLLIN);
    if (r == 0) r = pl_timer_set(&subscriber->loop, &inlet->timer, pl_clock_ns() + GREETING_NS);
    if (r < 0) {
        pl_inlet_free(inlet);
        return r;
    }
    pl_list_append(&subscriber->inlets, &inlet->link);
    *ret_inlet = inlet;
    return 0;
}

void pl_inlet_forked(struct pl_inlet *inlet)
{
    pl_stream_deinit(&inlet->stream);
    pl_close(&inlet->process.fd);
    pl_close(&inlet->bell.fd);
}

void pl_inlet_free(struct pl_inlet *inlet)
{
    struct plait_subscriber *subscriber = inlet->subscriber;
    pl_loop_remove(&subscriber->loop, &inlet->socket);
    pl_loop_remove(&subscriber->loop, &inlet->process);
    pl_loop_remove(&subscriber->loop, &inlet->bell);
    pl_timer_clear(&subscriber->loop, &inlet->timer);
    pl_list_remove(&inlet->link);
    if (inlet->intake != NULL) pl_intake_close(inlet->intake, &inlet->stream.fd);
    else pl_topic_page_detach(inlet->page);
    pl_inlet_forked(inlet);
    pl_broadcast_detach(&inlet->reader);
    pl_topic_page_detach(inlet->waiters);
    free(inlet->partial);
    free(inlet);
}

/* ---- reading ---- */

/* Fills in what the publisher's memory doesn't say. */
static void finish(struct pl_inlet *inlet, uint64_t lost, plait_lost why)
{
    struct plait_subscriber *subscriber = inlet->subscriber;
    struct plait_message *message = &subscriber->message;
    message->publisher = inlet->instance.id;
    message->lost = lost + subscriber->pending_lost;
    message->why = why != PLAIT_LOST_NOTHING ? why : subscriber->pending_why;
    subscriber->pending_lost = 0;
    subscriber->pending_why = PLAIT_LOST_NOTHING;
    subscriber->last_instance = inlet->instance.id;
    subscriber->last_number = message->head.number;
    inlet->fresh = false;
    if (message->named == inlet->instance.id) return;
    message->named = inlet->instance.id;
    memcpy(message->topic, inlet->instance.name, sizeof message->topic);
}

/* Why messages of this publisher are missing. */
static plait_lost cause(struct pl_inlet *inlet)
{
    /* relaxed: what was overwritten came after the word */
    uint64_t dropped = atomic_load_explicit(&inlet->page->dropped, memory_order_relaxed);
    if (dropped != inlet->dropped) {
        inlet->dropped = dropped;
        inlet->subscriber->message.stuck_ms = (uint32_t)dropped;
        return PLAIT_LOST_DROPPED;
    }
    return inlet->fresh && inlet->later ? PLAIT_LOST_RECONNECTED : PLAIT_LOST_OVERRUN;
}

/* The message that lies in a segment. A record of an unknown one has its announcement in the socket: the publisher
 * announces first. */
static int take_bulk(struct pl_inlet *inlet)
{
    struct plait_message *message = &inlet->subscriber->message;
    struct pl_frame_segment where;
    if (message->head.size != PL_FRAME_SEGMENT_SIZE)
        return pl_error(-EPROTO, "the publisher's record of a segment has %u bytes", message->head.size);
    pl_frame_segment_decode(&where, inlet->subscriber->body);
    if ((uint32_t)where.size > inlet->subscriber->max_message) return PL_BULK_GONE;
    int r = pl_intake_take(inlet->intake, &where, message);
    if (r != PL_BULK_GONE || inlet->state != PL_INLET_OPEN) return r;
    hear_segments(inlet);
    return pl_intake_take(inlet->intake, &where, message);
}

static int take_ring(struct pl_inlet *inlet)
{
    struct plait_message *message = &inlet->subscriber->message;
    uint64_t lost = inlet->gone;
    int r = pl_broadcast_read(&inlet->reader, &message->head, inlet->subscriber->body, &lost);
    inlet->gone = lost;
    if (r != PL_BROADCAST_OK) return r;
    message->body = inlet->subscriber->body;
    message->unix_ns = 0;
    if (__builtin_expect(message->head.kind != PL_BULK_RING, 0)) {
        r = message->head.kind == PL_BULK_SEGMENT
                ? take_bulk(inlet)
                : pl_error(-EPROTO, "the publisher's message is of kind %d", message->head.kind);
        if (r < 0) return r;
        inlet->gone += r == PL_BULK_GONE;
        if (r == PL_BULK_GONE) return PL_BULK_AGAIN;
    }
    /* A large one's segment waits for that. */
    if (inlet->reader.position - inlet->told >= inlet->reader.capacity / 8 || message->head.kind != PL_BULK_RING)
        tell(inlet);
    finish(inlet, inlet->gone, __builtin_expect(inlet->gone > 0, 0) ? cause(inlet) : PLAIT_LOST_NOTHING);
    inlet->gone = 0;
    return 0;
}

static int take_shm(struct pl_inlet *inlet)
{
    int r;
    do r = take_ring(inlet);
    while (r == PL_BULK_AGAIN);
    if (__builtin_expect(r == 0, 1)) return 0;
    if (r < 0) {
        give_up(inlet, r);
        return PL_INLET_DONE;
    }
    if (inlet->reader.position != inlet->told) tell(inlet);
    if (inlet->state != PL_INLET_ENDED || pl_broadcast_ready(&inlet->reader)) return PL_INLET_EMPTY;
    /* relaxed: the HUP came after it */
    inlet->died = atomic_load_explicit(&inlet->reader.shared->closed, memory_order_relaxed) == 0;
    inlet->subscriber->pending_lost += inlet->gone;
    return PL_INLET_DONE;
}

/* ---- at a socket ---- */

/* The head of the next message into inlet->frame. 0, EMPTY, DONE. */
static int next_frame(struct pl_inlet *inlet)
{
    for (;;) {
        const uint8_t *data;
        size_t size;
        int r = pl_stream_peek(&inlet->stream, PL_FRAME_HEAD, &data, &size);
        if (r == PL_STREAM_EMPTY) return PL_INLET_EMPTY;
        if (r == PL_STREAM_END) r = pl_error(-ECONNRESET, "the publisher is gone");
        if (r == 0) r = pl_frame_decode(&inlet->frame, data, inlet->subscriber->max_message);
        if (r == 0 && inlet->frame.kind == PL_FRAME_DROPPED) {
            inlet->dropped = inlet->frame.method | (uint64_t)1 << 32;
            pl_stream_consume(&inlet->stream, PL_FRAME_HEAD);
            continue;
        }
        if (r == 0 && inlet->frame.kind == PL_FRAME_SUBSCRIBE && inlet->fresh && inlet->number == 0) {
            inlet->number = inlet->frame.call;
            pl_stream_consume(&inlet->stream, PL_FRAME_HEAD);
            continue;
        }
        if (r == 0 && inlet->frame.kind != PL_FRAME_MESSAGE)
            r = pl_error(-EPROTO, "the publisher sent a frame of kind %d", inlet->frame.kind);
        if (r == PL_FRAME_SKIP) r = pl_error(-EPROTO, "the publisher sent a frame of a later protocol");
        if (r < 0) {
            give_up(inlet, r);
            return PL_INLET_DONE;
        }
#ifdef PLAIT_PLANT_BUG /* what fuzz_topic must find: memory for less than the claim */
        inlet->partial = malloc(inlet->frame.size / 2 + 1);
#else
        inlet->partial =
            malloc(inlet->frame.size + 1); /* untouched pages cost nothing: it grows with bytes that come */
#endif
        if (inlet->partial == NULL) {
            give_up(inlet, pl_error(-ENOMEM, "no memory for a message of %u bytes", inlet->frame.size));
            return PL_INLET_DONE;
        }
        inlet->size = 0;
        pl_stream_consume(&inlet->stream, PL_FRAME_HEAD);
        return 0;
    }
}

static int take_socket(struct pl_inlet *inlet)
{
    struct plait_message *message = &inlet->subscriber->message;
    const struct pl_frame *frame = &inlet->frame;
    if (inlet->partial == NULL) {
        int r = next_frame(inlet);
        if (r != 0) return r;
    }
    while (inlet->size < frame->size) {
        ssize_t n = pl_stream_read(&inlet->stream, inlet->partial + inlet->size, frame->size - inlet->size);
        if (n == 0) return PL_INLET_EMPTY;
        if (n < 0) {
            give_up(inlet, n == -EPIPE ? -ECONNRESET : (int)n);
            return PL_INLET_DONE;
        }
        inlet->size += (size_t)n;
    }
    if (inlet->number != 0 && frame->call < inlet->number) {
        give_up(inlet, pl_error(-EPROTO, "the publisher's messages are out of order"));
        return PL_INLET_DONE;
    }
    uint64_t lost = inlet->number != 0 ? frame->call - inlet->number : 0;
    plait_lost why = PLAIT_LOST_NOTHING;
    if (inlet->dropped != 0) {
        why = PLAIT_LOST_DROPPED;
        message->stuck_ms = (uint32_t)inlet->dropped;
        inlet->dropped = 0;
    } else if (lost > 0) {
        why = inlet->fresh && inlet->later ? PLAIT_LOST_RECONNECTED : PLAIT_LOST_OVERRUN;
    }
    inlet->number = frame->call + 1;
    message->head =
        (struct pl_broadcast_head){ .size = frame->size, .encoding = frame->encoding, .number = frame->call };
    message->unix_ns = (int64_t)frame->trace;
    message->body = message->memory = inlet->partial;
    inlet->partial = NULL;
    finish(inlet, lost, why);
    return 0;
}

int pl_inlet_take(struct pl_inlet *inlet)
{
    if (inlet->state == PL_INLET_GREETING) return PL_INLET_EMPTY;
    if (inlet->shm) return take_shm(inlet);
    return inlet->state == PL_INLET_OPEN ? take_socket(inlet) : PL_INLET_DONE;
}

bool pl_inlet_ready(const struct pl_inlet *inlet)
{
    return inlet->shm && inlet->state != PL_INLET_GREETING && pl_broadcast_ready(&inlet->reader);
}

bool pl_inlet_sleep(struct pl_inlet *inlet)
{
    return !inlet->shm || inlet->state == PL_INLET_GREETING || pl_broadcast_sleep(&inlet->reader, inlet->waiters);
}
