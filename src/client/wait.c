/* wait: one leader receives for all; followers sleep on a word of their own. */
#include "base/error.h"
#include "base/futex.h"
#include "client/client.h"

#include <errno.h>

enum { LOOK_NS = 16000, BUSY_ROUNDS = 64 };

uint64_t pl_deadline_ns(struct pl_deadline *deadline)
{
    if (deadline->ns == 0) deadline->ns = pl_clock_deadline(deadline->timeout_ms, PL_CALL_MS);
    return deadline->ns;
}

void pl_waiter_wake(struct pl_waiter *waiter)
{
    atomic_store_explicit(&waiter->woken, 1, memory_order_release); /* R_WAIT1: pairs with A_WAIT1 */
    pl_futex_wake(&waiter->woken, 1);
}

/* Nobody reads for those who wait: the first of them shall. */
static void hand_on(struct plait_client *client)
{
    if (client->leading || pl_list_empty(&client->waiters)) return;
    pl_waiter_wake(pl_container_of(client->waiters.next, struct pl_waiter, link));
}

void pl_client_wake_waiters(struct plait_client *client)
{
    pl_list_each(item, &client->waiters)
    {
        struct pl_waiter *waiter = pl_container_of(item, struct pl_waiter, link);
        if (waiter->for_room) pl_waiter_wake(waiter);
    }
}

struct looker {
    struct pl_transport *transports[PL_LINKS_MAX];
    unsigned count;
};

static void snapshot(struct plait_client *client, struct looker *looker)
{
    looker->count = 0;
    pl_list_each(item, &client->links)
    {
        struct pl_link *link = pl_container_of(item, struct pl_link, link);
        if (!link->down && looker->count < PL_LINKS_MAX)
            looker->transports[looker->count++] = link->connection.transport;
    }
}

static bool any_ready(const struct looker *looker)
{
    for (unsigned i = 0; i < looker->count; i++)
        if (looker->transports[i]->ops->ready(looker->transports[i])) return true;
    return false;
}

static enum pl_spinning spinning(const struct looker *looker)
{
    enum pl_spinning how = PL_SPINNING_NEVER;
    for (unsigned i = 0; i < looker->count; i++) {
        enum pl_spinning one = looker->transports[i]->ops->spinning(looker->transports[i]);
        if (one > how) how = one;
    }
    return how;
}

/* Without the lock: looks until something is there, epoll tells something, or BUDGET ticks are over. */
static bool spin(struct plait_client *client, const struct looker *looker, uint64_t start, uint64_t budget,
                 enum pl_spinning how)
{
    uint64_t step = pl_ticks_of_ns(LOOK_NS), looked = start;
    for (;;) {
        for (int i = 0; i < (how == PL_SPINNING_YIELD ? 1 : 16); i++) {
            if (any_ready(looker)) return true;
            pl_spin_relax(how == PL_SPINNING_YIELD);
        }
        uint64_t now = pl_ticks();
        if (now - start > budget) return false;
        if (now - looked > step) {
            if (pl_loop_wait(&client->loop, 0) != 0) return true;
            looked = now;
        }
        how = spinning(looker);
    }
}

static uint64_t until(struct plait_client *client, struct pl_deadline *deadline)
{
    uint64_t ns = pl_interrupt_slice(&client->interrupt, pl_deadline_ns(deadline));
    if (client->async_count && client->next_deadline < ns) ns = client->next_deadline;
    return ns;
}

static void awake_links(struct plait_client *client)
{
    pl_list_each(item, &client->links)
    {
        struct pl_link *link = pl_container_of(item, struct pl_link, link);
        if (!link->down) link->connection.transport->ops->awake(link->connection.transport);
    }
}

static bool rest_links(struct plait_client *client)
{
    bool resting = true;
    pl_list_each(item, &client->links)
    {
        struct pl_link *link = pl_container_of(item, struct pl_link, link);
        if (!link->down && !link->connection.transport->ops->sleep(link->connection.transport)) resting = false;
    }
    return resting;
}

void pl_client_rest(struct plait_client *client)
{
    if (client->outer_fd < 0 || client->leading || !pl_list_empty(&client->waiters))
        return; /* they rest when they leave */
    if (client->async_count > 0 && !rest_links(client)) pl_client_ring_ready(client);
    pl_client_set_timer(client);
}

/* While one link keeps the leader busy, the others' sockets want to be heard, too. */
static void look_now_and_then(struct plait_client *client)
{
    uint64_t now = pl_ticks();
    if (client->link_count < 2 || now - client->peeked < pl_ticks_of_ns(LOOK_NS)) return;
    client->peeked = now;
    if (pl_loop_wait(&client->loop, 0) > 0) pl_loop_run_ready(&client->loop);
}

/* One round as the leader, lock held on entry and return: receives; if nothing came, waits for something. */
static int lead_round(struct plait_client *client, struct pl_deadline *deadline)
{
    struct looker looker;
    pl_client_reap(client);
    if (pl_client_pump(client)) {
        look_now_and_then(client);
        return 0;
    }
    uint64_t start = pl_ticks(), budget = pl_spin_begin(&client->spin, start);
    if (deadline->timeout_ms < 0 && budget > 0) {
        budget = 0; /* PLAIT_NOW doesn't wait in any way */
        pl_spin_decline(&client->spin);
    }
    snapshot(client, &looker);
    client->loop.ready_count = client->loop.ready_next = 0;
    enum pl_spinning how = budget > 0 ? spinning(&looker) : PL_SPINNING_NEVER;
    if (budget > 0 && how == PL_SPINNING_NEVER) pl_spin_decline(&client->spin);
    if (how != PL_SPINNING_NEVER) {
        if (deadline->timeout_ms > 0 && (uint64_t)deadline->timeout_ms < 1000) {
            uint64_t most = pl_ticks_of_ns((uint64_t)deadline->timeout_ms * 1000000);
            if (budget > most) budget = most;
        }
        if (client->interrupt.asked) {
            uint64_t most = pl_ticks_of_ns((uint64_t)PL_INTERRUPT_MS * 1000000);
            if (budget > most) budget = most;
        }
        client->asleep = true;
        pthread_mutex_unlock(&client->lock);
        bool found = spin(client, &looker, start, budget, how);
        pthread_mutex_lock(&client->lock);
        client->asleep = false;
        if (found) {
            pl_spin_end(&client->spin, pl_ticks(), PL_SPIN_AWAKE);
            pl_loop_run_ready(&client->loop);
            (void)pl_client_pump(client);
            return 0;
        }
    }
    if (!rest_links(client)) {
        awake_links(client);
        pl_spin_end(&client->spin, pl_ticks(), PL_SPIN_AWAKE);
        return 0;
    }
    uint64_t wake_ns = until(client, deadline);
    client->asleep = true;
    pthread_mutex_unlock(&client->lock);
    int r = pl_loop_wait(&client->loop, wake_ns);
    pthread_mutex_lock(&client->lock);
    client->asleep = false;
    awake_links(client);
    pl_spin_end(&client->spin, pl_ticks(), r > 0 ? PL_SPIN_SLEPT : PL_SPIN_OTHER);
    pl_loop_run_ready(&client->loop);
    (void)pl_client_pump(client);
    if (client->async_count || !pl_list_empty(&client->resend)) pl_client_expire(client);
    return r < 0 ? r : 0;
}

/* Sleeps until its call is filed, it shall lead, or (without a call) something moved. */
static int follow(struct plait_client *client, struct pl_call *call, struct pl_deadline *deadline)
{
    struct pl_waiter own = { .woken = 0, .for_room = call == NULL };
    uint64_t ns = pl_deadline_ns(deadline), slice = pl_interrupt_slice(&client->interrupt, ns);
    pl_list_append(&client->waiters, &own.link);
    if (call) call->waiter = &own;
    pthread_mutex_unlock(&client->lock);
    int r = pl_futex_wait(&own.woken, 0, slice);
    (void)atomic_load_explicit(&own.woken, memory_order_acquire); /* A_WAIT1: pairs with R_WAIT1 */
    pthread_mutex_lock(&client->lock);
    if (call) call->waiter = NULL;
    pl_list_remove(&own.link);
    return r == -ETIMEDOUT && slice == ns ? r : 0;
}

int pl_client_ask(struct plait_client *client)
{
    if (client->interrupt.asked == NULL) return 0;
    hand_on(client);
    pthread_mutex_unlock(&client->lock);
    int r = pl_interrupt_ask(&client->interrupt);
    pthread_mutex_lock(&client->lock);
    return r;
}

int pl_client_wait(struct plait_client *client, struct pl_call *call, struct pl_deadline *deadline)
{
    int r = 0, rounds = 0;
    bool first = true;
    uint64_t asked = 0, often = 0;
    while (r == 0 && (call != NULL ? !call->done : first)) {
        if (client->leading) {
            r = follow(client, call, deadline);
        } else {
            client->leading = true;
            r = lead_round(client, deadline);
            client->leading = false;
            /* A leader whom others' replies keep busy never comes to sleep, where the clock is asked else. */
            if (++rounds % BUSY_ROUNDS == 0) (void)pl_deadline_ns(deadline);
            if (r == 0 && (call == NULL || !call->done) && deadline->ns != 0 && pl_clock_ns() >= deadline->ns)
                r = -ETIMEDOUT;
        }
        first = false;
        if (client->interrupt.asked == NULL || r < 0 || (call != NULL && call->done)) continue;
        /* Spinning included, and while replies for others keep coming. */
        uint64_t now = pl_ticks();
        if (often == 0) often = pl_ticks_of_ns((uint64_t)PL_INTERRUPT_MS * 1000000);
        if (asked != 0 && now - asked < often) continue;
        asked = now;
        r = pl_client_ask(client);
    }
    if (call != NULL && call->done) r = 0;
    hand_on(client);
    pl_client_rest(client);
    return r;
}
