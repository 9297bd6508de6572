/* call: calls and sends on their way out; cancel; what goes elsewhere. */
#include "base/error.h"
#include "base/futex.h"
#include "base/options.h"
#include "client/client.h"
#include "connection/context.h"
#include "wire/name.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the table of calls ---- */

static struct pl_call *new_call(struct plait_client *client)
{
    if (pl_list_empty(&client->free_calls)) {
        if ((client->chunk_count + 1) * PL_CALL_CHUNK > PL_CALLS_MAX) {
            (void)pl_error(-ENOBUFS, "%s: PL_CALLS_MAX, %d, calls are in flight", client->target_text, PL_CALLS_MAX);
            return NULL;
        }
        struct pl_call **chunks = realloc(client->chunks, (client->chunk_count + 1) * sizeof(*chunks));
        struct pl_call *chunk = calloc(PL_CALL_CHUNK, sizeof(*chunk));
        if (chunks) client->chunks = chunks;
        if (chunks == NULL || chunk == NULL) {
            free(chunk);
            (void)pl_error(-ENOMEM, "no memory for a call");
            return NULL;
        }
        for (uint32_t i = 0; i < PL_CALL_CHUNK; i++) {
            chunk[i].index = client->chunk_count * PL_CALL_CHUNK + i;
            pl_list_append(&client->free_calls, &chunk[i].link);
        }
        client->chunks[client->chunk_count++] = chunk;
    }
    struct pl_call *call = pl_container_of(pl_list_take(&client->free_calls), struct pl_call, link);
    uint32_t index = call->index, generation = call->generation + 1;
    *call = (struct pl_call){ .index = index, .generation = generation ? generation : 1, .spare = call->spare };
    pl_list_init(&call->link);
    return call;
}

static uint64_t id_of(const struct pl_call *call)
{
    return (uint64_t)call->generation << 32 | call->index;
}

static struct pl_call *slot_of(struct plait_client *client, uint64_t id)
{
    uint32_t index = (uint32_t)id;
    if (index >= client->chunk_count * PL_CALL_CHUNK) return NULL;
    struct pl_call *call = &client->chunks[index / PL_CALL_CHUNK][index % PL_CALL_CHUNK];
    return call->generation == (uint32_t)(id >> 32) ? call : NULL;
}

struct pl_call *pl_call_of(struct plait_client *client, uint64_t id)
{
    struct pl_call *call = slot_of(client, id);
    return call != NULL && !call->done ? call : NULL;
}

/* Bytes behind a kept message: its body, or the loan that holds it, and its method's name. */
static size_t kept_size(const struct pl_outgoing *out)
{
    return sizeof(*out) + (out->loan ? sizeof(*out->loan) : out->size) + (out->method ? strlen(out->method) + 1 : 0);
}

static void free_kept(struct pl_call *call, struct pl_outgoing *kept)
{
    if (kept == NULL) return;
    if (kept->loan != NULL) pl_loan_give_back(kept->loan);
    if (kept->spare && call != NULL && call->spare == NULL) call->spare = kept;
    else free(kept);
}

void pl_call_free(struct plait_client *client, struct pl_call *call)
{
    if (call->fn) client->async_count--;
    free_kept(call, call->kept);
    free(call->why);
    call->kept = NULL;
    call->why = NULL;
    call->fn = NULL;
    call->done = true;
    pl_list_remove(&call->link);
    /* The last freed goes first: its memory is warm. */
    struct pl_list *head = &client->free_calls;
    call->link.next = head->next;
    call->link.prev = head;
    head->next->prev = &call->link;
    head->next = &call->link;
}

/* ---- one message out ---- */

static uint32_t time_left_field(int64_t timeout_ms)
{
    if (timeout_ms < 0) return 1;
    return timeout_ms > (int64_t)(UINT32_MAX / 100) ? 0 : (uint32_t)timeout_ms * 100;
}

/* A name that the server's table lacks travels before the body. *ret_body is to be freed. */
__attribute__((cold)) static int prefix_name(const struct pl_outgoing *out, uint8_t **ret_body)
{
    size_t length = strlen(out->method);
    int r = pl_name_check_method(out->method, length);
    if (r < 0) return r;
    uint8_t *body = malloc(1 + length + out->size);
    if (body == NULL) return pl_error(-ENOMEM, "no memory for a message of %zu bytes", out->size);
    body[0] = (uint8_t)length;
    memcpy(body + 1, out->method, length);
    if (out->size) memcpy(body + 1 + length, out->data, out->size);
    *ret_body = body;
    return (int)(1 + length);
}

/* Puts OUT on LINK. 0, PL_TRANSPORT_FULL, -errno (the call's), PL_RESEND: the link failed, take another. */
static int transmit(struct pl_link *link, const struct pl_outgoing *out, struct pl_call *call, bool borrow)
{
    unsigned how = (borrow ? PL_BODY_BORROW : 0U) | (out->loan ? PL_BODY_LOANED : 0U);
    struct pl_transport *transport = link->connection.transport;
    bool named;
    struct pl_frame frame = {
        .size = (uint32_t)out->size,
        .kind = out->one_way ? PL_FRAME_SEND : PL_FRAME_CALL,
        .encoding = out->encoding,
        .flags = out->flags & PLAIT_CALL_IDEMPOTENT ? PL_FRAME_IDEMPOTENT : 0,
        .time_left = time_left_field(out->timeout_ms),
        .call = call ? id_of(call) : 0,
        .trace = out->trace,
    };
    if (out->size > PLAIT_DATAGRAM_MAX && transport->datagrams)
        return pl_error(-EMSGSIZE, "a message of %zu bytes; a datagram holds at most PLAIT_DATAGRAM_MAX, %u", out->size,
                        PLAIT_DATAGRAM_MAX);
    if (out->size > link->peer.max_message)
        return pl_error(-EMSGSIZE, "a message of %zu bytes; %s takes max_message=%llu", out->size,
                        link->client->target_text, (unsigned long long)link->peer.max_message);
    int r = pl_link_method(link, out->method, &frame.method, &named);
    if (r < 0) return r;
    const void *body = out->data;
    uint8_t *prefixed = NULL;
    if (__builtin_expect(named, 0)) {
        r = prefix_name(out, &prefixed);
        if (r < 0) return r;
        frame.size += (uint32_t)r;
        if (frame.size > link->peer.max_message) {
            free(prefixed);
            return pl_error(-EMSGSIZE, "a message of %zu bytes and its method's name; %s takes max_message=%llu",
                            out->size, link->client->target_text, (unsigned long long)link->peer.max_message);
        }
        frame.flags |= PL_FRAME_NAMED;
        body = prefixed;
        borrow = false;
        how = PL_BODY_COPY;
    }
    r = transport->ops->send(transport, &frame, body, how);
    free(prefixed);
    if (r == PL_TRANSPORT_FULL) return r;
    if (r >= 0) {
        link->sent++;
        if (call) {
            call->sequence = link->sent;
            call->sent = true;
        }
        r = transport->ops->flush(transport);
        if (r == PL_TRANSPORT_FULL) {
            if (borrow && call && link->borrower == NULL) link->borrower = call;
            r = pl_connection_want_write(&link->connection, &link->client->loop, true);
        } else if (r < 0 && transport->bell >= 0) {
            /* The ring has it, and it may have run: the link's end, which comes now, judges by what was taken. */
            pl_link_refused(link);
            r = 0;
        } else {
            link->borrower = NULL;
        }
    }
    if (__builtin_expect(r >= 0, 1)) return 0;
    if (r == -EINVAL || r == -EMSGSIZE || r == -ENOMEM || transport->datagrams) return r; /* the message's fault */
    pl_link_refused(link);
    return PL_RESEND;
}

int pl_link_forsake(struct plait_client *client, struct pl_deadline *deadline)
{
    if (!client->leading) {
        (void)pl_client_pump(client);
        pl_client_reap(client);
    }
    if (pl_clock_ns() < pl_deadline_ns(deadline)) return 0;
    return pl_error(-ETIMEDOUT, "%s: connections end as soon as they are used: the call never left",
                    client->target_text);
}

/* Finds a link and sends; waits for room and connections until DEADLINE. With CALL: it is on *ret_link then. */
static int send_out(struct plait_client *client, const struct pl_outgoing *out, struct pl_call *call,
                    struct pl_deadline *deadline, bool borrow, struct pl_link **ret_link)
{
    for (;;) {
        struct pl_link *link;
        int r = pl_client_choose(client, out, deadline, &link);
        if (r < 0) return r;
        if (__builtin_expect(out->loan != NULL, 0) && !pl_stays_first(out)) link = pl_client_lender(client, out, link);
        if (link->idless && out->one_way)
            return pl_error(-EOPNOTSUPP, "%s has no one-way messages: every request is answered",
                            pl_url_messages(client->target));
        r = pl_link_full(link) ? PL_TRANSPORT_FULL : transmit(link, out, call, borrow);
        if (r == 0) {
            if (call) {
                if (link->outstanding++ == 0 && client->link_count > 1) link->moved = pl_ticks();
                call->on = link;
                pl_list_append(&link->calls, &call->link);
            }
            client->last_transport = link->connection.transport->ops->name;
            *ret_link = link;
            return 0;
        }
        if (r < 0) return r;
        if (r == PL_TRANSPORT_FULL) {
            r = pl_client_ask(client); /* before it waits: who has other things to do may come back */
            if (r == 0) r = pl_client_wait(client, NULL, deadline);
            if (r < 0)
                return r == -ETIMEDOUT ? pl_error(r, "%s takes no more: the call never left", client->target_text) : r;
        } else {
            r = pl_link_forsake(client, deadline);
            if (r < 0) return r;
        }
    }
}

/* ---- checks and options ---- */

int pl_call_prepare(struct plait_client *client, const char *method, const void *data, size_t size,
                    const plait_call_options *options, struct pl_outgoing *out, struct pl_deadline *deadline)
{
    plait_call_options known = { .size = sizeof(known) };
    if (__builtin_expect(pl_forked(&client->fork_hook), 0))
        return pl_error(-ECHILD,
                        "this client was opened before fork() and belongs to the parent: open one in the child");
    if (options != NULL) {
        int r = pl_options_read(&known, sizeof(known), options, "plait_call_options");
        if (r < 0) return r;
        if ((unsigned)known.encoding > PLAIT_ARRAY) return pl_error(-EINVAL, "unknown encoding %d", known.encoding);
        if (known.flags & ~(PLAIT_CALL_IDEMPOTENT | PLAIT_CALL_ORDERED))
            return pl_error(-EINVAL, "unknown call flags 0x%x", known.flags);
    }
    if (size > PLAIT_MESSAGE_MAX)
        return pl_error(-EMSGSIZE, "a message of %zu bytes; the limit is PLAIT_MESSAGE_MAX, %u", size,
                        PLAIT_MESSAGE_MAX);
    if (size > 0 && data == NULL) return pl_error(-EINVAL, "a message of %zu bytes at NULL", size);
    *out = (struct pl_outgoing){ .method = method,
                                 .data = data,
                                 .size = size,
                                 .encoding = (uint8_t)known.encoding,
                                 .flags = known.flags,
                                 .trace = known.trace ? known.trace : pl_context.trace,
                                 .timeout_ms = known.timeout ? known.timeout : client->call_ms };
    *deadline = (struct pl_deadline){ .timeout_ms = out->timeout_ms };
    return 0;
}

/* Nobody waits for CALL any more: its server may know. */
void pl_call_tell_cancelled(const struct pl_call *call)
{
    struct pl_frame frame = { .kind = PL_FRAME_CANCEL, .call = id_of(call) };
    struct pl_transport *transport = call->on->connection.transport;
    if (call->on->idless) return;
    if (transport->ops->send(transport, &frame, NULL, PL_BODY_COPY) == PL_TRANSPORT_OK)
        (void)transport->ops->flush(transport);
}

/* ---- synchronous ---- */

/* Its time is over: nobody will file its reply, the server is told. */
__attribute__((cold)) static void give_up(struct plait_client *client, struct pl_call *call)
{
    struct pl_link *link = call->on;
    if (link == NULL) return;
    struct pl_transport *transport = link->connection.transport;
    (void)transport->ops->own(transport); /* the caller's memory goes away */
    if (link->idless) {
        pl_call_end(call, -ETIMEDOUT, NULL, NULL);
        pl_link_down(link, -ETIMEDOUT); /* a late reply must never answer the next call */
        if (!client->leading) pl_client_reap(client);
        return;
    }
    pl_call_tell_cancelled(call);
    pl_call_end(call, -ETIMEDOUT, NULL, NULL);
}

static int call_once(struct plait_client *client, const struct pl_outgoing *out, struct pl_deadline *deadline,
                     plait_reply **ret_reply)
{
    struct pl_link *link;
    struct pl_call *call = new_call(client);
    if (call == NULL) return -ENOBUFS;
    call->idempotent = out->flags & PLAIT_CALL_IDEMPOTENT;
    int r = send_out(client, out, call, deadline, true, &link);
    if (r == 0) r = pl_client_wait(client, call, deadline);
    if (call->done) {
        r = call->result;
        *ret_reply = call->reply;
        if (r < 0) (void)pl_error(r, "%s", call->why ? call->why : pl_error_word(r));
    } else if (r < 0 && call->on) {
        give_up(client, call);
        if (r == -ETIMEDOUT)
            (void)pl_error(r, "%s: no reply within %lld ms (it may still run; is the server busy or stopped?)",
                           client->target_text, (long long)deadline->timeout_ms);
    }
    pl_call_free(client, call);
    return r;
}

int pl_call_run(struct plait_client *client, struct pl_outgoing *out, struct pl_deadline *deadline,
                plait_reply **ret_reply)
{
    plait_reply *reply = NULL;
    int r;
    out->waits = true;
    pthread_mutex_lock(&client->lock);
    do {
        r = call_once(client, out, deadline, &reply);
        if (r == PL_RESEND && pl_clock_ns() >= pl_deadline_ns(deadline))
            r = pl_error(-ETIMEDOUT, "%s: every instance ended before it took the call", client->target_text);
    } while (r == PL_RESEND);
    pthread_mutex_unlock(&client->lock);
    if (ret_reply) *ret_reply = reply;
    else plait_reply_free(reply);
    return r;
}

int plait_client_call(plait_client *client, const char *method, const void *data, size_t size,
                      const plait_call_options *options, plait_reply **ret_reply)
{
    struct pl_outgoing out;
    struct pl_deadline deadline;
    if (ret_reply) *ret_reply = NULL;
    int r = pl_call_prepare(client, method, data, size, options, &out, &deadline);
    return r < 0 ? r : pl_call_run(client, &out, &deadline, ret_reply);
}

/* What the transport didn't take at once still lies in the caller's memory. */
static int send_the_rest(struct plait_client *client, struct pl_link *link, struct pl_deadline *deadline)
{
    /* While we wait the link may end, and another thread free it. */
    while (pl_link_lives(client, link) && link->connection.transport->ops->pending(link->connection.transport)) {
        int r = pl_client_wait(client, NULL, deadline);
        if (r == 0) continue;
        if (pl_link_lives(client, link)) (void)link->connection.transport->ops->own(link->connection.transport);
        return r == -ETIMEDOUT ? 0 : r; /* it is on its way: the rest is ours now */
    }
    return 0;
}

int pl_call_send(struct plait_client *client, struct pl_outgoing *out, struct pl_deadline *deadline)
{
    struct pl_link *link;
    out->one_way = true;
    pthread_mutex_lock(&client->lock);
    int r = send_out(client, out, NULL, deadline, true, &link);
    if (__builtin_expect(r == 0 && link->connection.transport->ops->pending(link->connection.transport), 0))
        r = send_the_rest(client, link, deadline);
    pthread_mutex_unlock(&client->lock);
    return r;
}

int plait_client_send(plait_client *client, const char *method, const void *data, size_t size,
                      const plait_call_options *options)
{
    struct pl_outgoing out;
    struct pl_deadline deadline;
    int r = pl_call_prepare(client, method, data, size, options, &out, &deadline);
    return r < 0 ? r : pl_call_send(client, &out, &deadline);
}

/* ---- asynchronous ---- */

enum { RECENT_NS = 50000 };

/* A copy of OUT to send again, in MEMORY, with its strings behind it; a loan is taken over as it is. */
static struct pl_outgoing *keep(void *memory, const struct pl_outgoing *out)
{
    struct pl_outgoing *kept = memory;
    size_t name = out->method ? strlen(out->method) + 1 : 0, body = out->loan ? sizeof(*out->loan) : out->size;
    void *behind = kept + 1;
    *kept = *out;
    if (out->loan) {
        kept->loan = memcpy(behind, out->loan, body);
        *out->loan = (struct pl_loan){ 0 };
    } else {
        kept->data = behind;
        if (out->size) memcpy(behind, out->data, out->size);
    }
    if (name) kept->method = memcpy((char *)behind + body, out->method, name);
    return kept;
}

/* The deadline by a look at the clock that may be RECENT_NS old: late by as much at most, never early. */
static uint64_t deadline_of(struct plait_client *client, struct pl_deadline *deadline)
{
    if (deadline->ns != 0 || deadline->timeout_ms <= 0) return pl_deadline_ns(deadline);
    uint64_t now = pl_ticks();
    if (now - client->clocked > pl_ticks_of_ns(RECENT_NS)) {
        client->clocked = now;
        client->clock_ns = pl_clock_ns();
    }
    return pl_clock_deadline_from(client->clock_ns + RECENT_NS, deadline->timeout_ms, 0);
}

/* KEPT: OUT as it is kept; NULL: it is small, and lies in the call's spare memory from then on. */
static int start(struct plait_client *client, const struct pl_outgoing *out, struct pl_deadline *deadline,
                 struct pl_outgoing *kept, struct pl_call **ret_call)
{
    struct pl_link *link;
    if (client->closing) return pl_error(-ECANCELED, "the client is being closed");
    struct pl_call *call = new_call(client);
    if (call == NULL) return -ENOBUFS;
    if (kept == NULL) {
        if (call->spare == NULL) call->spare = malloc(PL_SPARE_MAX);
        if (call->spare == NULL) {
            pl_call_free(client, call);
            return pl_error(-ENOMEM, "no memory for a call of %zu bytes", out->size);
        }
        kept = keep(call->spare, out);
        kept->spare = true;
        call->spare = NULL;
    }
    int r = send_out(client, kept, call, deadline, kept->loan != NULL, &link);
    if (r < 0) {
        if (kept->spare) free_kept(call, kept);
        pl_call_free(client, call);
        return r;
    }
    call->kept = kept;
    *ret_call = call;
    return 0;
}

int pl_call_start(struct plait_client *client, struct pl_outgoing *out, struct pl_deadline *deadline,
                  plait_reply_fn *fn, void *context, uint64_t *ret_call)
{
    struct pl_outgoing *kept = NULL;
    struct pl_call *call = NULL;
    if (fn == NULL) return pl_error(-EINVAL, "an asynchronous call needs a function to tell its end");
    size_t size = kept_size(out);
    if (size > PL_SPARE_MAX) { /* a long copy, and so not under the lock */
        void *memory = malloc(size);
        if (memory == NULL) return pl_error(-ENOMEM, "no memory for a call of %zu bytes", out->size);
        kept = keep(memory, out);
    }
    pthread_mutex_lock(&client->lock);
    int r = start(client, out, deadline, kept, &call);
    if (r < 0) {
        pthread_mutex_unlock(&client->lock);
        free_kept(NULL, kept);
        return r;
    }
    call->idempotent = out->flags & PLAIT_CALL_IDEMPOTENT;
    call->fn = fn;
    call->context = context;
    call->deadline_ns = deadline_of(client, deadline);
    if (client->async_count++ == 0 || call->deadline_ns < client->next_deadline)
        client->next_deadline = call->deadline_ns;
    if (ret_call) *ret_call = id_of(call);
    if (call->deadline_ns == client->next_deadline)
        pl_client_kick(client); /* who dispatches sleeps until a later one */
    pl_client_rest(client);
    pthread_mutex_unlock(&client->lock);
    return 0;
}

int plait_client_call_async(plait_client *client, const char *method, const void *data, size_t size,
                            const plait_call_options *options, plait_reply_fn *fn, void *context, uint64_t *ret_call)
{
    struct pl_outgoing out;
    struct pl_deadline deadline;
    int r = pl_call_prepare(client, method, data, size, options, &out, &deadline);
    return r < 0 ? r : pl_call_start(client, &out, &deadline, fn, context, ret_call);
}

__attribute__((cold)) int plait_client_cancel(plait_client *client, uint64_t id)
{
    if (pl_forked(&client->fork_hook)) return pl_error(-ECHILD, "this client was opened before fork()");
    pthread_mutex_lock(&client->lock);
    struct pl_call *call = slot_of(client, id);
    int r = 0;
    if (call == NULL || call->fn == NULL || call->cancelled || (call->done && call->result != PL_RESEND)) {
        r = pl_error(-ENOENT, "this call is over already");
    } else if (call->done && pl_list_empty(&call->link)) {
        call->cancelled = true; /* another thread is just sending it elsewhere, and will see this */
    } else {
        struct pl_link *link = call->on;
        bool idless = link && link->idless;
        if (link) pl_call_tell_cancelled(call);
        pl_call_end(call, -ECANCELED, NULL, "cancelled");
        pl_list_append(&client->completed, &call->link);
        if (idless) pl_link_down(link, -ECANCELED);
        pl_client_ring_ready(client);
        pl_client_kick(client); /* who dispatches may sleep as the leader */
    }
    pthread_mutex_unlock(&client->lock);
    return r;
}

enum { AGAIN_MS = 10 };

/* Nobody is there now; somebody may come. */
static bool may_come(int error)
{
    return error == -ETIMEDOUT || error == -ENOENT || error == -ECONNREFUSED || error == -ECONNRESET ||
           error == -EPIPE || error == -EBUSY || error == -EAGAIN || error == -EINTR;
}

/* One call's next try. It counts as done meanwhile: the lock may be dropped, and nobody else shall end it. */
__attribute__((cold)) static int send_again(struct plait_client *client, struct pl_call *call, uint64_t now)
{
    struct pl_deadline soon = { .timeout_ms = AGAIN_MS };
    struct pl_link *link;
    call->sent = false;
    if (call->deadline_ns != PL_NEVER) {
        int64_t left = 1 + (int64_t)((call->deadline_ns - now) / 1000000);
        if (left < call->kept->timeout_ms) call->kept->timeout_ms = left; /* rounded up, but never more than it was */
    }
    int r = send_out(client, call->kept, call, &soon, call->kept->loan != NULL, &link);
    if (r < 0) return r;
    call->done = false;
    if (call->deadline_ns < client->next_deadline) client->next_deadline = call->deadline_ns;
    return 0;
}

/* Asynchronous calls that never ran where they went: elsewhere. Those that find nobody stay until their deadline,
 * and the first that does spares the others the try. Lock held. */
__attribute__((cold)) void pl_client_resend(struct plait_client *client)
{
    uint64_t now = pl_clock_ns();
    if (pl_list_empty(&client->resend) || now < client->resend_at) return;
    struct pl_list due;
    pl_list_init(&due);
    pl_list_splice(&due, &client->resend);
    struct pl_list *item;
    int absent = 0;
    while ((item = pl_list_take(&due)) != NULL) {
        struct pl_call *call = pl_container_of(item, struct pl_call, link);
        bool late = call->deadline_ns <= now;
        int r = late ? -ETIMEDOUT : absent < 0 ? absent : send_again(client, call, now);
        if (call->cancelled && r == 0) pl_call_tell_cancelled(call);
        if (r == 0 && !call->cancelled) continue;
        if (call->cancelled) {
            pl_call_end(call, -ECANCELED, NULL, "cancelled");
            pl_list_append(&client->completed, &call->link);
        } else if (!late && may_come(r)) {
            absent = r;
            pl_list_append(&client->resend, &call->link);
        } else {
            pl_call_end(call, r, NULL, late ? "no reply in time: no instance took the call" : pl_error_text());
            pl_list_append(&client->completed, &call->link);
        }
    }
    client->resend_at = pl_clock_ns() + (uint64_t)AGAIN_MS * 1000000;
}
