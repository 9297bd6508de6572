/* request: one request's life: taken, handled, answered or deferred. */
#include "base/clock.h"
#include "base/error.h"
#include "connection/context.h"
#include "server/server.h"
#include "wire/name.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- sending ---- */

struct parked {
    struct pl_list link;
    struct pl_frame frame;
    struct pl_loan loan; /* in which the body lies; data NULL: it lies here */
    uint8_t body[];
};

static void free_parked(struct parked *parked)
{
    pl_loan_give_back(&parked->loan);
    free(parked);
}

/* While no request of the session is deferred nobody else sends, and the lock is not needed. */
static bool lock_send(struct pl_session *session)
{
    /* A_DEF1: pairs with R_DEF1 */
    if (atomic_load_explicit(&session->deferred_count, memory_order_acquire) == 0) return false;
    pthread_mutex_lock(&session->send_lock);
    return true;
}

static void unlock_send(struct pl_session *session, bool locked)
{
    if (locked) pthread_mutex_unlock(&session->send_lock);
}

__attribute__((cold)) static int park(struct pl_session *session, const struct pl_frame *frame, const void *body,
                                      struct pl_loan *loan)
{
    struct parked *parked = malloc(sizeof(*parked) + (loan ? 0 : frame->size));
    if (parked == NULL) {
        /* Relaxed: the knock orders it. */
        atomic_store_explicit(&session->lost_answer, true, memory_order_relaxed);
        pl_reactor_knock(session->reactor, session);
        return pl_error(-ENOMEM, "no memory to keep an answer of %u bytes", frame->size);
    }
    parked->frame = *frame;
    parked->loan = (struct pl_loan){ 0 };
    if (loan) {
        parked->loan = *loan;
        *loan = (struct pl_loan){ 0 };
    } else if (frame->size) {
        memcpy(parked->body, body, frame->size);
    }
    pl_list_append(&session->parked, &parked->link);
    pl_count(&session->counters->parked, 1);
    pl_reactor_knock(session->reactor, session);
    return 0;
}

int pl_session_send(struct pl_session *session, const struct pl_frame *frame, const void *body, struct pl_loan *loan)
{
    struct pl_transport *transport = session->connection.transport;
    if (!pl_list_empty(&session->parked)) return park(session, frame, body, loan);
    int r = transport->ops->send(transport, frame, body, loan ? PL_BODY_LOANED : PL_BODY_COPY);
    if (r == PL_TRANSPORT_FULL) return park(session, frame, body, loan);
    if (r == PL_TRANSPORT_OK) r = transport->ops->flush(transport);
    if (__builtin_expect(r == PL_TRANSPORT_OK, 1)) return 0;
    if (r < 0 && r != -EINVAL) /* that one's sender has something else to say; relaxed: the knock orders it */
        atomic_store_explicit(&session->lost_answer, true, memory_order_relaxed);
    pl_reactor_knock(session->reactor, session); /* to watch for room, or to end it */
    return r < 0 ? r : 0;
}

__attribute__((cold)) int pl_session_flush_parked(struct pl_session *session)
{
    struct pl_transport *transport = session->connection.transport;
    bool locked = lock_send(session);
    int r = transport->ops->flush(transport);
    while (r >= 0 && !pl_list_empty(&session->parked)) {
        struct parked *parked = pl_container_of(session->parked.next, struct parked, link);
        bool loaned = parked->loan.data != NULL;
        r = transport->ops->send(transport, &parked->frame, loaned ? parked->loan.data : parked->body,
                                 loaned ? PL_BODY_LOANED : PL_BODY_COPY);
        if (r != PL_TRANSPORT_OK) break;
        pl_list_remove(&parked->link);
        free_parked(parked);
        r = transport->ops->flush(transport);
    }
    bool parked = !pl_list_empty(&session->parked), pending = transport->ops->pending(transport);
    unlock_send(session, locked);
    if (r < 0) return r;
    pl_session_set_pause(session, PL_PAUSE_PARKED, parked);
    return pl_connection_want_write(&session->connection, &session->reactor->loop, pending);
}

bool pl_session_unsent(struct pl_session *session)
{
    bool locked = lock_send(session);
    bool unsent =
        !pl_list_empty(&session->parked) || session->connection.transport->ops->pending(session->connection.transport);
    unlock_send(session, locked);
    return unsent;
}

void pl_session_drop_parked(struct pl_session *session)
{
    struct pl_list *item;
    while ((item = pl_list_take(&session->parked)) != NULL) free_parked(pl_container_of(item, struct parked, link));
}

/* ---- answering ---- */

/* LOAN: in which DATA lie; NULL: they don't. Whatever of it is left afterwards is the caller's. */
static int send_answer(struct plait_request *request, uint32_t status, plait_encoding encoding, const void *data,
                       size_t size, struct pl_loan *loan)
{
    struct pl_session *session = request->session;
    char text[128];
    int r = 0;
    if (size > session->reply_limit) {
        r = pl_error(-EMSGSIZE, "an answer of %zu bytes; the caller's limit is %s=%llu", size,
                     session->datagrams ? "PLAIT_DATAGRAM_MAX" : "max_message",
                     (unsigned long long)session->reply_limit);
        size = (size_t)snprintf(text, sizeof(text), "the answer has %zu bytes; %s is %llu", size,
                                session->datagrams ? "a datagram's limit, PLAIT_DATAGRAM_MAX,"
                                                   : "this client's max_message",
                                (unsigned long long)session->reply_limit);
        data = text;
        loan = NULL;
        status = PL_STATUS_TOO_LARGE;
        encoding = PLAIT_UTF8;
    }
    struct pl_frame frame = {
        .size = (uint32_t)size,
        .kind = PL_FRAME_REPLY,
        .encoding = (uint8_t)encoding,
        .method = status,
        .call = request->message.frame.call,
        .trace = request->message.frame.trace,
    };
    int sent = pl_session_send(session, &frame, data, loan);
    if (sent == -EINVAL && session->idless) {
        /* The framing cannot carry it (a newline in a line): the caller learns that instead. */
        const char *why = pl_error_text();
        frame.method = PL_STATUS_NO_REPLY;
        frame.size = (uint32_t)strlen(why);
        (void)pl_session_send(session, &frame, why, NULL);
    }
    pl_count(&session->counters->replies, 1);
    pl_count(&session->counters->bytes_out, size);
    if (status != PL_STATUS_OK) pl_count(&session->counters->failures, 1);
    return sent < 0 ? sent : r;
}

void pl_server_give_inbound_back(struct plait_server *server, uint64_t bytes)
{
    if (bytes == 0) return;
    atomic_fetch_sub(&server->inbound, bytes); /* F_INB1: seq_cst against F_INB2 in session.c: freed, then who waits? */
    if (atomic_load(&server->throttled) == 0) return; /* F_INB1: as above */
    for (unsigned i = 0; i < server->thread_count; i++) pl_wake_up(&server->reactors[i].wake);
}

static void free_deferred(struct plait_request *request)
{
    pl_message_release(NULL, &request->message); /* nothing is lent by a transport any more */
    pl_session_unref(request->session);
    free(request);
}

/* From any thread. Frees REQUEST. */
static int answer_deferred(struct plait_request *request, uint32_t status, plait_encoding encoding, const void *data,
                           size_t size, struct pl_loan *loan)
{
    struct pl_session *session = request->session;
    int r = 0;
    pthread_mutex_lock(&session->send_lock);
    pl_list_remove(&request->link);
    if (session->dead) {
        r = pl_error(-ECONNRESET, "the caller of this deferred request is gone");
    } else {
        if (!request->one_way) r = send_answer(request, status, encoding, data, size, loan);
        pl_server_give_inbound_back(session->server, request->admitted);
        pl_load_defer(session->server->load, -1);
        pl_count(&session->counters->outstanding, (uint64_t)-1);
    }
    bool dead = session->dead;
    atomic_fetch_sub(&session->deferred_count, 1); /* R_DEF1: pairs with A_DEF1 in lock_send; F_DEF1 against F_DEF2 */
    if (!dead && (session->idless || atomic_load(&session->waits))) /* F_DEF1: seq_cst against F_DEF2 in session.c */
        pl_reactor_knock(session->reactor, session);
    pthread_mutex_unlock(&session->send_lock);
    if (!request->pooled) free_deferred(request);
    return r;
}

static int answer(struct plait_request *request, uint32_t status, plait_encoding encoding, const void *data,
                  size_t size, struct pl_loan *loan)
{
    if (pl_forked(&request->session->fork_mark))
        return pl_error(-ECHILD, "this request was taken before fork(); answer it in the parent");
    if (size > PLAIT_MESSAGE_MAX && !request->deferred) /* a deferred one is answered and freed whatever happens */
        return pl_error(-EMSGSIZE, "an answer of %zu bytes; the limit is PLAIT_MESSAGE_MAX, %u", size,
                        PLAIT_MESSAGE_MAX);
    if (request->answered)
        return pl_error(-EALREADY, "this request is answered already, or was deferred: answer the deferred one");
    request->answered = true;
    if (request->deferred) return answer_deferred(request, status, encoding, data, size, loan);
    if (request->one_way) return 0;
    bool locked = lock_send(request->session);
    int r = send_answer(request, status, encoding, data, size, loan);
    unlock_send(request->session, locked);
    return r;
}

int plait_request_reply(plait_request *request, const void *data, size_t size)
{
    return answer(request, PL_STATUS_OK, PLAIT_BYTES, data, size, NULL);
}

int plait_request_reply_as(plait_request *request, plait_encoding encoding, const void *data, size_t size)
{
    if ((unsigned)encoding > PLAIT_ARRAY) return pl_error(-EINVAL, "unknown encoding %d", (int)encoding);
    return answer(request, PL_STATUS_OK, encoding, data, size, NULL);
}

static int answer_text(plait_request *request, uint32_t status, const char *format, va_list arguments)
{
    char space[1024], *text = space;
    va_list again;
    va_copy(again, arguments);
    int size = vsnprintf(space, sizeof(space), format, arguments);
    if (size >= (int)sizeof(space)) {
        text = malloc((size_t)size + 1);
        if (text != NULL) vsnprintf(text, (size_t)size + 1, format, again);
    }
    va_end(again);
    if (size < 0) return pl_error(-EINVAL, "the format '%s' cannot be printed", format);
    if (text == NULL) { /* rather cut off than not at all: somebody waits */
        text = space;
        size = (int)sizeof(space) - 1;
    }
    int r = answer(request, status, PLAIT_UTF8, text, (size_t)size, NULL);
    if (text != space) free(text);
    return r;
}

int plait_request_replyf(plait_request *request, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int r = answer_text(request, PL_STATUS_OK, format, arguments);
    va_end(arguments);
    return r;
}

int plait_request_fail(plait_request *request, uint32_t status, const char *format, ...)
{
    va_list arguments;
    if (status == 0) status = 1;
    if (status > INT32_MAX) return pl_error(-EINVAL, "status %u: a handler's own are 1 to 0x7fffffff", status);
    va_start(arguments, format);
    int r = answer_text(request, status, format, arguments);
    va_end(arguments);
    return r;
}

/* ---- loans ---- */

/* From the request's connection, under its send lock. */
static int lend(struct plait_request *request, size_t size, struct pl_loan *ret_loan)
{
    struct pl_session *session = request->session;
    bool locked = request->deferred;
    if (locked) pthread_mutex_lock(&session->send_lock);
    else locked = lock_send(session);
    int r = session->dead ? pl_error(-ECONNRESET, "the caller of this request is gone")
                          : pl_transport_loan(session->connection.transport, size, false, ret_loan);
    unlock_send(session, locked);
    /* Nobody waits in a reactor: while all are out, the answer is copied. A broken connection shows with the answer. */
    return r == PL_TRANSPORT_FULL || r == -EPROTO ? pl_loan_plain(ret_loan, size) : r;
}

int plait_request_reply_loan(plait_request *request, size_t size, plait_loan **ret_loan)
{
    struct pl_loan loan = { 0 };
    plait_loan *handle;
    if (pl_forked(&request->session->fork_mark))
        return pl_error(-ECHILD, "this request was taken before fork(); answer it in the parent");
    if (request->answered) return pl_error(-EALREADY, "this request is answered already, or was deferred");
    uint64_t limit = request->session->reply_limit;
    if (size > limit || size > PLAIT_MESSAGE_MAX)
        return pl_error(-EMSGSIZE, "a loan of %zu bytes; the caller's limit is max_message=%llu, the library's %u",
                        size, (unsigned long long)limit, PLAIT_MESSAGE_MAX);
    int r = lend(request, size, &loan);
    if (r == 0) r = pl_transport_loan_populate(&loan);
    if (r == 0) r = pl_loan_new(&handle, &loan);
    if (r < 0) {
        pl_loan_give_back(&loan);
        return r;
    }
    *ret_loan = handle;
    return 0;
}

int plait_request_reply_loaned(plait_request *request, plait_encoding encoding, plait_loan *loan, size_t size)
{
    struct pl_loan lent;
    int r = pl_loan_take(loan, size, &lent);
    if (r < 0) return r;
    if ((unsigned)encoding > PLAIT_ARRAY) r = pl_error(-EINVAL, "unknown encoding %d", (int)encoding);
    else r = answer(request, PL_STATUS_OK, encoding, lent.data, size, &lent);
    pl_loan_give_back(&lent);
    return r;
}

/* ---- the handler ---- */

__attribute__((cold)) void pl_request_refuse(struct pl_session *session, const struct pl_frame *frame, uint32_t status,
                                             const char *text)
{
    struct plait_request request = { .session = session, .server = session->server, .message = { .frame = *frame } };
    if (text == NULL) text = pl_status_text(status);
    if (frame->kind != PL_FRAME_CALL) return;
    bool locked = lock_send(session);
    (void)send_answer(&request, status, PLAIT_UTF8, text, strlen(text), NULL);
    unlock_send(session, locked);
}

/* The method that FRAME means, and its name; a NAMED body loses its prefix. NULL: none, or a broken name. */
static const struct pl_method *find_method(struct plait_request *request, char name[PLAIT_NAME_MAX + 1])
{
    struct plait_server *server = request->server;
    struct pl_message *message = &request->message;
    if (request->session->method != NULL) {
        request->method_name = request->session->method_name;
        return request->session->method;
    }
    if (message->frame.flags & PL_FRAME_NAMED) {
        size_t size = message->size > 0 ? message->body[0] : 0;
        if (size == 0 || size > PLAIT_NAME_MAX || size + 1 > message->size) return NULL;
        memcpy(name, message->body + 1, size);
        name[size] = 0;
        if (!pl_name_valid_method(name, size)) return NULL;
        message->body += size + 1;
        message->size -= size + 1;
        request->method_name = name;
        return server->any;
    }
    request->method_name = "";
    if (message->frame.method == PL_METHOD_DEFAULT) return server->fallback;
    if (message->frame.method >= server->method_count) return NULL;
    request->method_name = server->methods[message->frame.method].name;
    return &server->methods[message->frame.method];
}

void pl_request_run(struct pl_session *session, struct plait_request *request, uint64_t now_ticks)
{
    char name[PLAIT_NAME_MAX + 1];
    struct pl_reactor *reactor = session->reactor;
    struct pl_message *message = &request->message;
    request->session = session;
    request->server = session->server;
    request->arrived = session->seen;
    request->pooled = request->answered = request->deferred = false;
    request->one_way = message->frame.kind == PL_FRAME_SEND;
    request->admitted = 0;
    atomic_init(&request->cancelled, false);
    const struct pl_method *method = request->method = find_method(request, name);
    pl_count(&session->counters->requests, 1);
    pl_count(&session->counters->bytes_in, message->size);
    if (__builtin_expect(method == NULL, 0)) {
        pl_request_refuse(session, &message->frame, PL_STATUS_NO_METHOD, NULL);
    } else {
        struct pl_context before = pl_context;
        pl_context = (struct pl_context){ .trace = message->frame.trace,
                                          .instance = session->server->claim.id,
                                          .reactor = reactor->index + 1,
                                          .alone = session->server->thread_count == 1 };
        pl_load_busy(session->server->load, reactor->index, 1);
        /* relaxed: this thread stored it */
        struct pl_status_work *work = atomic_load_explicit(&reactor->work, memory_order_relaxed);
        pl_status_work_begin(work, (unsigned)(method - session->server->methods), now_ticks);
        method->handler(request, method->context);
        pl_status_work_end(work);
        pl_load_busy(session->server->load, reactor->index, 0);
        pl_context = before;
        if (__builtin_expect(!request->answered && !request->deferred && !request->one_way, 0))
            pl_request_refuse(session, &message->frame, PL_STATUS_NO_REPLY, NULL);
    }
    if (message->admitted) {
        pl_server_give_inbound_back(session->server, message->admitted);
        message->admitted = 0;
    }
}

struct plait_server *pl_request_hold_server(struct plait_request *request)
{
    if (!request->pooled) return request->server; /* whose own thread this is */
    pthread_mutex_lock(&request->session->send_lock);
    if (!request->session->dead) return request->server;
    pthread_mutex_unlock(&request->session->send_lock);
    (void)pl_error(-ECONNRESET, "the caller of this request is gone, and so may be its server");
    return NULL;
}

void pl_request_let_go(struct plait_request *request)
{
    if (request->pooled) pthread_mutex_unlock(&request->session->send_lock);
}

__attribute__((cold)) void pl_request_cancel(struct pl_session *session, uint64_t call)
{
    bool locked = lock_send(session);
    pl_list_each(item, &session->deferred)
    {
        struct plait_request *request = pl_container_of(item, struct plait_request, link);
        if (request->message.frame.call == call)
            atomic_store_explicit(&request->cancelled, true, memory_order_relaxed); /* relaxed: a hint to its holder */
    }
    unlock_send(session, locked);
}

/* Of a datagram: where it came from. NULL: the session's peer sent it. */
static struct pl_origin *origin_of(const struct plait_request *request)
{
    return request->session->datagrams ? (struct pl_origin *)(uintptr_t)request->message.frame.call : NULL;
}

static struct pl_origin *copy_origin(void *memory, const struct pl_origin *origin)
{
    struct pl_origin *copy = memcpy(memory, origin, sizeof(*origin));
    copy->peer.transport = NULL; /* its address points to the text of the first */
    return copy;
}

int plait_request_defer(plait_request *request, plait_request **ret_deferred)
{
    struct pl_session *session = request->session;
    if (request->deferred && !request->pooled) return pl_error(-EALREADY, "this request is deferred already");
    if (request->answered) return pl_error(-EALREADY, "this request is answered already");
    size_t name_size = strlen(request->method_name) + 1;
    struct plait_request *kept = malloc(sizeof(*kept) + name_size);
    if (kept == NULL) return pl_error(-ENOMEM, "no memory to defer a request");
    *kept = *request;
    kept->deferred = true;
    kept->pooled = false;
    const struct pl_origin *origin = origin_of(request);
    kept->method_name = memcpy(kept + 1, request->method_name, name_size);
    if (kept->message.lent) {
        size_t before = origin ? sizeof(*origin) : 0;
        uint8_t *body = malloc(before + request->message.size + 1);
        if (body == NULL) {
            free(kept);
            return pl_error(-ENOMEM, "no memory to keep a request of %zu bytes", request->message.size);
        }
        if (request->message.size) memcpy(body + before, request->message.body, request->message.size);
        kept->message.owned = body;
        kept->message.body = body + before;
        kept->message.lent = 0;
        if (origin) kept->message.frame.call = (uintptr_t)copy_origin(body, origin);
    } else {
        request->message.owned = NULL;
        request->message.view.map = NULL;
    }
    kept->admitted += request->message.admitted;
    request->message.admitted = 0;
    request->deferred = request->answered = true; /* by the deferred one alone from now on */

    atomic_fetch_add_explicit(&session->references, 1, memory_order_relaxed); /* relaxed: we hold one already */
    pthread_mutex_lock(&session->send_lock);
    pl_list_append(&session->deferred, &kept->link);
    if (request->pooled) { /* it takes the other's place */
        pl_list_remove(&request->link);
        /* relaxed: a hint, and the lock is held */
        if (atomic_load_explicit(&request->cancelled, memory_order_relaxed)) atomic_init(&kept->cancelled, true);
    } else {
        pl_count(&session->counters->outstanding, 1);
        atomic_fetch_add(&session->deferred_count, 1); /* F_DEF2: only this thread counts up */
        pl_load_defer(session->server->load, 1);
    }
    pthread_mutex_unlock(&session->send_lock);
    *ret_deferred = kept;
    return 0;
}

void pl_request_refuse_deferred(struct plait_request *request, uint32_t status)
{
    const char *text = pl_status_text(status);
    (void)answer(request, status, PLAIT_UTF8, text, strlen(text), NULL);
}

void pl_request_busy(struct plait_request *request, const char *text)
{
    (void)answer(request, PL_STATUS_BUSY, PLAIT_UTF8, text, strlen(text), NULL);
}

void pl_request_run_deferred(struct plait_request *request, plait_handler *handler, void *context)
{
    struct pl_context before = pl_context;
    if (plait_request_cancelled(request)) {
        pl_request_refuse_deferred(request, PL_STATUS_TOO_LATE);
        return;
    }
    request->pooled = true;
    pl_context = (struct pl_context){ .trace = request->message.frame.trace };
    handler(request, context);
    pl_context = before;
    if (!request->answered) pl_request_refuse_deferred(request, PL_STATUS_NO_REPLY);
    free_deferred(request);
}

/* ---- what a handler asks ---- */

plait_bytes plait_request_body(const plait_request *request)
{
    return (plait_bytes){ request->message.body, request->message.size };
}

plait_encoding plait_request_encoding(const plait_request *request)
{
    return (plait_encoding)request->message.frame.encoding;
}

const char *plait_request_method(const plait_request *request)
{
    return request->method_name;
}

uint64_t plait_request_trace(const plait_request *request)
{
    return request->message.frame.trace;
}

int64_t plait_request_time_left(const plait_request *request)
{
    if (request->message.frame.time_left == 0) return PLAIT_FOREVER;
    uint64_t per_ms = pl_ticks_of_ns(1000000);
    int64_t spent = (int64_t)((pl_ticks() - request->arrived) / (per_ms ? per_ms : 1));
    int64_t left = (int64_t)request->message.frame.time_left / 100 - spent;
    return left > 0 ? left : 0;
}

__attribute__((cold)) int plait_request_cancelled(const plait_request *request)
{
    struct pl_session *session = request->session;
    if (plait_request_time_left(request) == 0) return 1;
    if (request->deferred) return atomic_load_explicit(&request->cancelled, memory_order_relaxed); /* relaxed: a hint */
    struct pl_transport *transport = session->connection.transport;
    return transport->hung_up ||
           transport->ops->cancelled(transport, request->message.lent, request->message.frame.call);
}

const plait_peer *plait_request_peer(const plait_request *request)
{
    struct pl_origin *origin = origin_of(request);
    if (origin == NULL) return &request->session->peer;
    if (origin->peer.transport == NULL) {
        origin->peer = request->session->peer;
        origin->peer.address = pl_address_format(&origin->from, origin->text, sizeof(origin->text));
    }
    return &origin->peer;
}
