/* loan: memory for calls and sends. A loan belongs to its call until that is over: it may have to be sent again. */
#include "base/error.h"
#include "client/client.h"

#include <errno.h>
#include <stdbool.h>

struct pl_link *pl_client_lender(struct plait_client *client, const struct pl_outgoing *out, struct pl_link *link)
{
    pl_list_each(item, &client->links)
    {
        struct pl_link *other = pl_container_of(item, struct pl_link, link);
        if (!other->down && !other->refused && !other->draining && !(out->waits && pl_link_is_own(other)) &&
            pl_transport_lent(other->connection.transport, out->loan))
            return other;
    }
    return link;
}

/* Waits for something to be given back on LINK, which may be gone afterwards. */
static int wait_for_segment(struct plait_client *client, const struct pl_link *link, struct pl_deadline *deadline)
{
    unsigned held, lent, peer = link->peer.pid;
    pl_transport_loan_census(link->connection.transport, &held, &lent);
    int r = pl_client_wait(client, NULL, deadline);
    if (r != -ETIMEDOUT) return r;
    return pl_error(
        -ENOBUFS,
        "%s: PLAIT_SEGMENTS_MAX, %d, loans and bodies of this connection are out: this process holds %u in "
        "loans and calls in flight (send or abort them), the server (pid %u) %u in requests (it must answer "
        "them)",
        client->target_text, PLAIT_SEGMENTS_MAX, held, peer, lent);
}

/* Memory from the connection that the call will probably take. Lock held. */
static int lend(struct plait_client *client, const struct pl_outgoing *out, struct pl_deadline *deadline,
                struct pl_loan *ret_loan)
{
    for (bool again = false;; again = true) {
        struct pl_link *link;
        /* Before looking: from the question for a segment to the sleep the lock is held, or its answer might be missed.
         */
        int r = again ? pl_client_ask(client) : 0;
        if (r < 0) return r;
        r = client->closing ? pl_error(-ECANCELED, "the client is being closed")
                            : pl_client_choose(client, out, deadline, &link);
        if (r < 0) return r;
        if (out->size > link->peer.max_message)
            return pl_error(-EMSGSIZE, "a loan of %zu bytes; %s takes max_message=%llu", out->size, client->target_text,
                            (unsigned long long)link->peer.max_message);
        r = pl_transport_loan(link->connection.transport, out->size, true, ret_loan);
        if (r == PL_TRANSPORT_FULL) {
            r = wait_for_segment(client, link, deadline);
        } else if (r == -EPROTO) {
            pl_link_refused(link);
            r = pl_link_forsake(client, deadline);
        } else {
            return r;
        }
        if (r < 0) return r;
    }
}

int plait_client_loan(plait_client *client, size_t size, const plait_call_options *options, plait_loan **ret_loan)
{
    struct pl_outgoing out;
    struct pl_deadline deadline;
    struct pl_loan loan = { 0 };
    plait_loan *handle;
    int r = pl_call_prepare(client, NULL, "", size, options, &out, &deadline);
    if (r < 0) return r;
    pthread_mutex_lock(&client->lock);
    r = lend(client, &out, &deadline, &loan);
    pthread_mutex_unlock(&client->lock);
    if (r == 0) r = pl_transport_loan_populate(&loan);
    if (r == 0) r = pl_loan_new(&handle, &loan);
    if (r < 0) {
        pl_loan_give_back(&loan);
        return r;
    }
    *ret_loan = handle;
    return 0;
}

/* Ends the handle, checks the rest. On failure nothing is left of either. */
static int prepare(plait_client *client, const char *method, plait_loan *handle, size_t size,
                   const plait_call_options *options, struct pl_loan *loan, struct pl_outgoing *out,
                   struct pl_deadline *deadline)
{
    int r = pl_loan_take(handle, size, loan);
    if (r < 0) return r;
    r = pl_call_prepare(client, method, loan->data, size, options, out, deadline);
    if (r < 0) pl_loan_give_back(loan);
    out->loan = loan;
    return r;
}

int plait_client_call_loan(plait_client *client, const char *method, plait_loan *loan, size_t size,
                           const plait_call_options *options, plait_reply **ret_reply)
{
    struct pl_outgoing out;
    struct pl_deadline deadline;
    struct pl_loan lent;
    if (ret_reply) *ret_reply = NULL;
    int r = prepare(client, method, loan, size, options, &lent, &out, &deadline);
    if (r < 0) return r;
    r = pl_call_run(client, &out, &deadline, ret_reply);
    pl_loan_give_back(&lent);
    return r;
}

int plait_client_call_async_loan(plait_client *client, const char *method, plait_loan *loan, size_t size,
                                 const plait_call_options *options, plait_reply_fn *fn, void *context,
                                 uint64_t *ret_call)
{
    struct pl_outgoing out;
    struct pl_deadline deadline;
    struct pl_loan lent;
    int r = prepare(client, method, loan, size, options, &lent, &out, &deadline);
    if (r < 0) return r;
    r = pl_call_start(client, &out, &deadline, fn, context, ret_call);
    pl_loan_give_back(&lent); /* nothing, unless it wasn't taken over */
    return r;
}

int plait_client_send_loan(plait_client *client, const char *method, plait_loan *loan, size_t size,
                           const plait_call_options *options)
{
    struct pl_outgoing out;
    struct pl_deadline deadline;
    struct pl_loan lent;
    int r = prepare(client, method, loan, size, options, &lent, &out, &deadline);
    if (r < 0) return r;
    r = pl_call_send(client, &out, &deadline);
    pl_loan_give_back(&lent);
    return r;
}
