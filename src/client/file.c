/* file: what comes in is filed with the call that it belongs to; what dies takes its calls along. */
#include "base/error.h"
#include "base/fd.h"
#include "client/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Replies at once: as many as malloc keeps ready of one size, so that those of a busy client stay in the same memory.
 */
enum { PUMP_FRAMES = 7 };
enum { DEATH_NEWS_US = 20000, DEATH_LOOK_US = 50 };

void pl_call_end(struct pl_call *call, int result, plait_reply *reply, const char *why)
{
    struct pl_link *link = call->on;
    pl_list_remove(&call->link);
    if (link != NULL) {
        if (__builtin_expect(pl_link_full(link), 0)) pl_client_wake_waiters(link->client); /* no doorbell tells them */
        link->outstanding--;
        if (__builtin_expect(link->borrower == call, 0)) {
            /* Answered before it was all read: its caller takes the memory away. */
            if (!link->down) (void)link->connection.transport->ops->own(link->connection.transport);
            link->borrower = NULL;
        }
        call->on = NULL;
    }
    call->done = true;
    call->result = result;
    call->reply = reply;
    if (why != NULL) call->why = strdup(why); /* without memory the errno has to do */
    if (call->waiter) pl_waiter_wake(call->waiter);
}

/* An asynchronous call's end, or its next try. */
static void end_async(struct plait_client *client, struct pl_call *call, int result, plait_reply *reply,
                      const char *why)
{
    pl_call_end(call, result, reply, why);
    pl_list_append(result == PL_RESEND ? &client->resend : &client->completed, &call->link);
    pl_client_ring_ready(client);
}

static void end_any(struct plait_client *client, struct pl_call *call, int result, plait_reply *reply, const char *why)
{
    if (call->fn) end_async(client, call, result, reply, why);
    else pl_call_end(call, result, reply, why);
}

/* ---- replies ---- */

static plait_reply *make_reply(struct pl_message *message)
{
    size_t copied = message->lent || message->body == NULL ? message->size : 0;
    plait_reply *reply = malloc(sizeof(*reply) + copied);
    if (reply == NULL) return NULL;
    *reply = (plait_reply){ .body = { message->body, message->size },
                            .encoding = message->frame.encoding,
                            .status = message->frame.method };
    if (copied) {
        memcpy(reply->inlined, message->body, copied);
        reply->body.data = reply->inlined;
    } else {
        reply->owned = message->owned;
        reply->view = message->view;
        message->owned = NULL;
        message->view.map = NULL;
    }
    return reply;
}

/* What a failing status says: the errno; the text is the body. */
__attribute__((cold)) static int failure(const plait_reply *reply, char *text, size_t size)
{
    int error = pl_status_errno(reply->status);
    if (error == 0) error = -EREMOTEIO;
    snprintf(text, size, "%.*s", (int)(reply->body.size < size ? reply->body.size : size - 1),
             (const char *)reply->body.data);
    return error;
}

static void file_reply(struct pl_link *link, struct pl_call *call, struct pl_message *message)
{
    struct plait_client *client = link->client;
    char text[1024];
    plait_reply *reply = make_reply(message);
    if (reply == NULL) {
        end_any(client, call, -ENOMEM, NULL, "no memory for the reply");
        return;
    }
    if (__builtin_expect(reply->status == PL_STATUS_OK, 1)) {
        if (__builtin_expect(reply->body.size > client->max_message, 0)) {
            snprintf(text, sizeof(text), "the answer has %zu bytes; this client's max_message is %llu",
                     reply->body.size, (unsigned long long)client->max_message);
            plait_reply_free(reply);
            end_any(client, call, -EMSGSIZE, NULL, text);
            return;
        }
        end_any(client, call, 0, reply, NULL);
        return;
    }
    int error = failure(reply, text, sizeof(text));
    reply->text = strndup(reply->body.data ? reply->body.data : "", reply->body.size);
    if (error != -EREMOTEIO) {
        plait_reply_free(reply);
        reply = NULL;
    }
    end_any(client, call, error, reply, text[0] ? text : pl_error_word(error));
}

static void take_reply(struct pl_link *link, struct pl_message *message)
{
    struct pl_call *call;
    if (link->idless) {
        if (pl_list_empty(&link->calls)) return; /* an answer that nobody asked for */
        call = pl_container_of(link->calls.next, struct pl_call, link);
    } else {
        call = pl_call_of(link->client, message->frame.call);
        if (call == NULL || call->on != link) return; /* too late: its time was over */
    }
    if (link->client->link_count > 1) link->moved = pl_ticks();
    file_reply(link, call, message);
}

/* ---- receiving ---- */

__attribute__((cold)) static int take_goaway(struct pl_link *link, const struct pl_message *message)
{
    if (message->size != 8) return pl_error(-EPROTO, "a GOAWAY of %zu bytes", message->size);
    link->draining = true;
    link->client->reap_due = true;
    link->goaway = pl_frame_load_u64(message->body);
    pl_list_each(item, &link->calls)
    {
        struct pl_call *call = pl_container_of(item, struct pl_call, link);
        if (call->sequence > link->goaway) end_any(link->client, call, PL_RESEND, NULL, NULL);
    }
    return 0;
}

static int take_message(struct pl_link *link, struct pl_message *message)
{
    switch (message->frame.kind) {
    case PL_FRAME_REPLY: take_reply(link, message); return 0;
    case PL_FRAME_GOAWAY: return take_goaway(link, message);
    default: return pl_error(-EPROTO, "the server sent a frame of kind %d", message->frame.kind);
    }
}

static bool pump_link(struct pl_link *link)
{
    struct pl_transport *transport = link->connection.transport;
    bool moved = false;
    int r = 0;
    if (link->refused) {
        transport->hung_up = true;
        transport->ops->readable(transport);
    }
    if (transport->ops->pending(transport) || link->connection.socket.events & EPOLLOUT) {
        r = transport->ops->flush(transport);
        if (r < 0) {
            /* What the peer still said comes first. */
            pl_link_refused(link);
            transport->hung_up = true;
            transport->ops->readable(transport);
            r = 0;
        } else if (r == PL_TRANSPORT_OK) {
            link->borrower = NULL;
            (void)pl_connection_want_write(&link->connection, &link->client->loop, false);
            pl_client_wake_waiters(link->client);
            moved = true;
        }
    }
    bool looked = false;
    uint64_t arrived = 0;
    for (int i = 0; i < PUMP_FRAMES && r >= 0; i++) {
        struct pl_message message;
        r = transport->ops->receive(transport, &message);
        if (r == PL_TRANSPORT_EMPTY && transport->hung_up) {
            /* A stream takes a short read for the last one, and more, or its end, may lie behind it. */
            if (looked && pl_transport_moved(transport) == arrived) r = PL_TRANSPORT_END;
            looked = true;
            arrived = pl_transport_moved(transport);
            if (r == PL_TRANSPORT_EMPTY) {
                transport->ops->readable(transport);
                continue;
            }
        }
        if (r == PL_TRANSPORT_EMPTY) break;
        if (r == PL_TRANSPORT_END) break;
        if (r < 0) break;
        moved = true;
        r = take_message(link, &message);
        pl_message_release(transport, &message);
    }
    if (r < 0 || r == PL_TRANSPORT_END) {
        pl_link_down(link, r < 0 ? r : -ECONNRESET);
        return true;
    }
    return moved;
}

bool pl_client_pump(struct plait_client *client)
{
    bool moved = false;
    pl_list_each(item, &client->links)
    {
        struct pl_link *link = pl_container_of(item, struct pl_link, link);
        if (!link->down) moved |= pump_link(link);
    }
    return moved;
}

/* ---- the end of a link ---- */

/* What a supervised worker died of; its supervisor knows a little after the kernel has closed its sockets. 0: nobody
 * supervises it, or nobody says. */
__attribute__((cold)) static uint64_t cause_of_death(const struct pl_link *link)
{
    const struct pl_load_page *load = link->peer.load;
    if (load == NULL || load->worker == 0) return 0;
    uint64_t until = pl_clock_ns() + (uint64_t)DEATH_NEWS_US * 1000, death;
    while ((death = pl_load_death(load)) == 0 && pl_clock_ns() < until)
        (void)nanosleep(&(struct timespec){ 0, DEATH_LOOK_US * 1000 }, NULL);
    return death;
}

__attribute__((cold)) static void tell_worker(const struct pl_link *link, char *text, size_t size)
{
    char how[64] = "or closed the connection";
    uint64_t death = cause_of_death(link);
    if (death != 0) pl_death_text(death, how, sizeof(how));
    snprintf(text, size, "%s: worker %u (pid %u) died%s%s", link->client->target_text, link->peer.load->worker,
             link->peer.pid, death ? ": " : " ", how);
}

__attribute__((cold)) static const char *who_died(const struct pl_link *link, char *text, size_t size, int error)
{
    const struct plait_client *client = link->client;
    if (error == -ETIMEDOUT || error == -ECANCELED) {
        snprintf(text, size, "%s: the connection was given up with a call that %s", client->target_text,
                 error == -ETIMEDOUT ? "was not answered in time" : "was cancelled");
    } else if (link->connection.transport->datagrams) {
        snprintf(text, size, "%s: %s", client->target_text, pl_error_text());
    } else if (error != -ECONNRESET) {
        snprintf(text, size, "%s: the connection ended: %s", client->target_text, pl_error_text());
    } else if (link->peer.load != NULL && link->peer.load->worker != 0) {
        tell_worker(link, text, size);
    } else if (link->peer.pid > 0 && link->connection.transport->bell >= 0) {
        snprintf(text, size, "%s: its instance (pid %u) died or closed the connection", client->target_text,
                 link->peer.pid);
    } else {
        snprintf(text, size, "%s: the server closed the connection", client->target_text);
    }
    return text;
}

void pl_link_refused(struct pl_link *link)
{
    link->refused = true; /* who receives does the rest: its half of the transport is not ours */
    pl_client_kick(link->client);
}

__attribute__((cold)) void pl_link_down(struct pl_link *link, int error)
{
    struct plait_client *client = link->client;
    char text[1600], why[1500];
    if (link->down) return;
    why[0] = 0;
    link->down = true;
    client->reap_due = true;
    client->link_count--;
    /* Exact, also after kill -9: the server notes each request before it runs it. */
    uint64_t taken = pl_transport_shm_count_taken(link->connection.transport);
    if (link->draining && link->goaway < taken) taken = link->goaway;
    while (!pl_list_empty(&link->calls)) {
        struct pl_call *call = pl_container_of(link->calls.next, struct pl_call, link);
        bool never_ran = call->sequence > taken || !call->sent;
        bool again = error != -ECONNREFUSED && (never_ran || call->idempotent);
        if (!again && why[0] == 0) who_died(link, why, sizeof(why), error); /* may take a while: somebody may say */
        if (again) {
            end_any(client, call, PL_RESEND, NULL, NULL);
        } else if (error == -ECONNREFUSED) {
            end_any(client, call, error, NULL, why); /* a datagram met nobody: trying again at once would not help */
        } else {
            snprintf(text, sizeof(text), "%s; the call may have run", why);
            end_any(client, call, error == -EPROTO || error == -EMSGSIZE ? error : -ECONNRESET, NULL, text);
        }
    }
    pl_client_wake_waiters(client);
    pl_client_kick(client); /* the leader's own call may be among them */
}

void pl_client_reap(struct plait_client *client)
{
    if (__builtin_expect(!client->reap_due, 1)) return;
    client->reap_due = false;
    pl_list_each(item, &client->links)
    {
        struct pl_link *link = pl_container_of(item, struct pl_link, link);
        bool drained = link->draining && pl_list_empty(&link->calls) &&
                       !link->connection.transport->ops->pending(link->connection.transport);
        if (!link->down && drained) pl_link_down(link, -ECONNRESET);
        if (link->down) pl_link_free(link);
        else if (link->draining) client->reap_due = true; /* until its last reply is here */
    }
}

__attribute__((cold)) void pl_client_expire(struct plait_client *client)
{
    uint64_t now = pl_clock_ns(), next = PL_NEVER;
    if (client->async_count == 0 || now < client->next_deadline) return;
    for (uint32_t i = 0; i < client->chunk_count * PL_CALL_CHUNK; i++) {
        struct pl_call *call = &client->chunks[i / PL_CALL_CHUNK][i % PL_CALL_CHUNK];
        if (call->fn == NULL || call->done) continue;
        if (call->deadline_ns > now) {
            if (call->deadline_ns < next) next = call->deadline_ns;
            continue;
        }
        struct pl_link *link = call->on;
        if (link) pl_call_tell_cancelled(call);
        end_async(client, call, -ETIMEDOUT, NULL, "no reply in time");
        if (link && link->idless) pl_link_down(link, -ETIMEDOUT); /* a late reply must never answer the next call */
    }
    client->next_deadline = next;
}

/* ---- replies, as the user sees them ---- */

plait_bytes plait_reply_body(const plait_reply *reply)
{
    return reply->body;
}

plait_encoding plait_reply_encoding(const plait_reply *reply)
{
    return (plait_encoding)reply->encoding;
}

uint32_t plait_reply_status(const plait_reply *reply)
{
    return reply->status;
}

const char *plait_reply_text(const plait_reply *reply)
{
    return reply->text ? reply->text : "";
}

void plait_reply_free(plait_reply *reply)
{
    if (reply == NULL) return;
    if (__builtin_expect(reply->view.map != NULL, 0)) pl_segment_view_release(&reply->view);
    free(reply->owned);
    free(reply->text);
    free(reply);
}
