/* choose: which connection a call takes, and where connections come from.
 *
 * The least of own outstanding calls plus the load that the instance shows; ties rotate. A further connection
 * (another instance, or another reactor of one) is made only when a call would queue behind this client's own, or
 * would never be answered: see connection/context.h.
 */
#include "base/error.h"
#include "base/fd.h"
#include "base/futex.h"
#include "base/interrupt.h"
#include "base/random.h"
#include "client/client.h"
#include "connection/context.h"
#include "naming/lookup.h"
#include "naming/watch.h"
#include "transport/socket.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LOOK_AGAIN_NS = 10000000, ONE_TRY_MS = 1000, RETRY_MS = 5, WATCH_MS = 1000, EXPAND_MS = 20 };
#define EXPAND_PAUSE_LEAST_NS UINT64_C(100000000)
#define EXPAND_PAUSE_MOST_NS UINT64_C(10000000000)

/* ---- one link ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct pl_method_slot *)a)->name, ((const struct pl_method_slot *)b)->name);
}

static int sort_methods(struct pl_link *link)
{
    if (link->peer.method_count == 0) return 0;
    link->slots = malloc(link->peer.method_count * sizeof(*link->slots));
    if (link->slots == NULL) return pl_error(-ENOMEM, "no memory for the method table");
    for (uint32_t i = 0; i < link->peer.method_count; i++)
        link->slots[i] = (struct pl_method_slot){ link->peer.methods[i], i };
    qsort(link->slots, link->peer.method_count, sizeof(*link->slots), by_name);
    return 0;
}

static int no_method(struct pl_link *link, const char *method)
{
    char known[512];
    size_t used = 0;
    known[0] = 0;
    if (link->idless)
        return pl_error(-EOPNOTSUPP,
                        "%s carries no method name: leave '%s' out (the listener's URL says which it calls)",
                        pl_url_messages(link->client->target), method);
    for (uint32_t i = 0; i < link->peer.method_count && used + PLAIT_NAME_MAX + 3 < sizeof(known); i++)
        used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s", i ? ", " : "",
                                 link->peer.methods[i][0] ? link->peer.methods[i] : "\"\"");
    return pl_error(-EOPNOTSUPP, "%s has no method '%s' (it has: %s)", link->client->target_text, method, known);
}

int pl_link_method(struct pl_link *link, const char *method, uint32_t *ret_index, bool *ret_named)
{
    *ret_named = false;
    *ret_index = PL_METHOD_DEFAULT;
    if (method == NULL || method[0] == 0) return 0;
    if (link->slots != NULL) {
        const struct pl_method_slot key = { method, 0 }, *slot = &link->slots[link->last_slot];
        if (strcmp(slot->name, method) != 0) {
            slot = bsearch(&key, link->slots, link->peer.method_count, sizeof(key), by_name);
            if (slot) link->last_slot = (uint32_t)(slot - link->slots);
        }
        if (slot) {
            *ret_index = slot->index;
            return 0;
        }
    }
    if (!(link->peer.features & PL_FEATURE_ANY_METHOD)) return no_method(link, method);
    *ret_named = true;
    return 0;
}

static void on_event(struct pl_connection *connection)
{
    struct pl_link *link = pl_container_of(connection, struct pl_link, connection);
    pl_client_wake_waiters(link->client); /* a doorbell may mean room; pump receives the rest */
}

void pl_link_free(struct pl_link *link)
{
    pl_list_remove(&link->link);
    pl_connection_close(&link->connection, &link->client->loop);
    pl_load_detach(link->peer.load);
    free(link->peer.methods);
    free(link->slots);
    free(link);
}

/* Takes TRANSPORT and what ACCEPTED owns. Lock held. */
static int add_link(struct plait_client *client, struct pl_transport *transport, const struct pl_accepted *accepted,
                    bool local)
{
    struct pl_link *link = calloc(1, sizeof(*link));
    if (link == NULL) {
        transport->ops->close(transport);
        pl_load_detach(accepted->load);
        free(accepted->methods);
        return pl_error(-ENOMEM, "no memory for a connection");
    }
    link->client = client;
    link->peer = *accepted;
    link->idless = client->target->framing != PL_FRAMING_PLAIT;
    link->one_at_a_time = client->target->framing == PL_FRAMING_RAW;
    link->moved = pl_ticks();
    pl_list_init(&link->link);
    pl_list_init(&link->calls);
    int r = pl_connection_open(&link->connection, transport, local ? (pid_t)accepted->pid : 0, &client->loop, on_event);
    if (r == 0) r = sort_methods(link);
    if (r < 0) {
        pl_link_free(link);
        return r;
    }
    pl_list_append(&client->links, &link->link);
    client->link_count++;
    pl_client_kick(client); /* the leader looks at this one, too, from now on */
    return 0;
}

/* ---- connecting; without the lock ---- */

struct found {
    struct pl_transport *transport;
    struct pl_accepted accepted;
    bool local;
    bool more; /* other instances could be connected, too */
};

enum patience {
    PATIENCE_OPEN,  /* wait for an absent name; a URL answers or doesn't */
    PATIENCE_AGAIN, /* there was one: wait until the deadline */
    PATIENCE_NONE   /* one pass */
};

static bool serves_itself(void)
{
    return atomic_load_explicit(&pl_context_servers, memory_order_relaxed) > 0; /* relaxed: see context.h */
}

static int connect_url(struct plait_client *client, uint64_t deadline_ns, struct found *found)
{
    struct pl_address address;
    const char *name = client->target->scheme == PL_SCHEME_TCP ? "tcp" : "unix";
    int socket;
    int r = pl_socket_connect(client->target, deadline_ns, &socket, &address);
    if (r < 0) return r;
    found->accepted =
        (struct pl_accepted){ .max_message = PLAIT_MESSAGE_MAX, .concurrency = 1, .outstanding = UINT32_MAX };
    if (client->target->scheme == PL_SCHEME_UDP) {
        found->accepted.max_message = PLAIT_DATAGRAM_MAX;
        return pl_transport_udp_new(&found->transport, socket, false);
    }
    found->local = client->target->scheme == PL_SCHEME_UNIX;
    if (client->target->framing == PL_FRAMING_PLAIT) {
        struct pl_offer offer = { .name = client->target->name,
                                  .max_reply = client->max_message,
                                  .reactor = serves_itself(),
                                  .transport = name,
                                  .shm = found->local && client->transport != PLAIT_TRANSPORT_UNIX &&
                                         !client->target->shm_off };
        r = pl_handshake_connect(&found->transport, socket, &offer, deadline_ns, &found->accepted);
        return r < 0 ? pl_error_in(r, "%s", client->target_text) : 0;
    }
    struct pl_idless_options options = { .framing = client->target->framing, .until_eof = client->target->until_eof };
    r = pl_transport_idless_new(&found->transport, socket, name, &options);
    if (r < 0) return r;
    found->transport->max_message = client->max_message;
    return 0;
}

static int connect_instance(struct plait_client *client, const struct pl_instance *instance, uint64_t deadline_ns,
                            struct found *found)
{
    int socket;
    uid_t uid;
    if (pl_context.alone && instance->id == pl_context.instance)
        return pl_error(-EDEADLK,
                        "%s (pid %d) is served by this very thread, which would wait for itself: connect outside of "
                        "its handlers, or give the server more threads",
                        instance->name, (int)instance->pid);
    int r = pl_lookup_connect(instance, client->peer, &socket, &uid);
    if (r != 0) return r;
    struct pl_offer offer = { .name = instance->name,
                              .max_reply = client->max_message,
                              .reactor = serves_itself(),
                              .transport = "unix",
                              .shm = client->transport != PLAIT_TRANSPORT_UNIX && !client->target->shm_off };
    r = pl_handshake_connect(&found->transport, socket, &offer, deadline_ns, &found->accepted);
    if (r < 0) return pl_error_in(r, "%s (pid %d)", instance->name, (int)instance->pid);
    if (client->transport == PLAIT_TRANSPORT_SHM && found->transport->bell < 0) {
        found->transport->ops->close(found->transport);
        free(found->accepted.methods);
        return pl_error(
            -EOPNOTSUPP,
            "%s (pid %d) offers no shared memory here (another uid or byte order?), and nothing else was allowed",
            instance->name, (int)instance->pid);
    }
    found->local = true;
    return 0;
}

/* How many of our links go to each instance is asked under the lock, beforehand. */
struct taken {
    uint64_t instance[PL_LINKS_MAX];
    uint32_t left[PL_LINKS_MAX]; /* connections that it could still use */
    unsigned count;
};

static bool is_taken(const struct taken *taken, uint64_t instance)
{
    for (unsigned i = 0; i < taken->count; i++)
        if (taken->instance[i] == instance) return taken->left[i] == 0;
    return false;
}

/* A failure of one instance is no reason to stop, unless it would be the same with the next try. */
static bool worth_retrying(int error)
{
    return error == -ECONNRESET || error == -ETIMEDOUT || error == -EPIPE || error == -ENOENT || error == -EAGAIN ||
           error == -ECONNREFUSED || error == -EBUSY;
}

/* Why the last instance could not be reached, kept from what is asked afterwards. */
struct failure {
    int code; /* 0: none failed in this pass */
    char text[1024];
};

static void note_failure(struct failure *failure, int code)
{
    failure->code = code;
    snprintf(failure->text, sizeof(failure->text), "%s", pl_error_text());
}

/* One pass over the living instances: 0; 1: none there, or none that could be reached yet; -errno: the first's, if
 * none would do. */
static int try_instances(struct plait_client *client, const struct taken *taken, uint64_t deadline_ns,
                         struct found *found, struct failure *last)
{
    struct pl_instance *instances;
    size_t count;
    int r = pl_lookup(client->target->name, client->peer, &instances, &count);
    if (r < 0) return r;
    int result = 1;
    struct failure hopeless = { 0, "" };
    for (size_t i = 0; i < count && result != 0; i++) {
        if (is_taken(taken, instances[i].id)) continue;
        uint64_t limit = count > 1 ? pl_clock_ns() + (uint64_t)ONE_TRY_MS * 1000000 : deadline_ns;
        r = connect_instance(client, &instances[i], limit < deadline_ns ? limit : deadline_ns, found);
        if (r == 0) found->more = i + 1 < count;
        if (r == 0) result = 0;
        else if (r < 0 && worth_retrying(r)) note_failure(last, r);
        else if (r < 0 && hopeless.code == 0) note_failure(&hopeless, r);
        else if (r == PL_CONNECT_BUSY)
            note_failure(last, pl_error(-ETIMEDOUT, "%s: its queue of connections is full", client->target_text));
    }
    free(instances);
    /* Of instances of another protocol version, say, one that can be talked to may be on its way up. */
    return result == 1 && hopeless.code < 0 && last->code == 0 ? pl_error(hopeless.code, "%s", hopeless.text) : result;
}

/* Who waits for no name and no room (PLAIT_NOW) still has to exchange a hello with whoever is there. */
static uint64_t hello_deadline(const struct plait_client *client, uint64_t deadline_ns, enum patience patience)
{
    uint64_t soon = pl_clock_ns() + (uint64_t)ONE_TRY_MS * 1000000;
    return patience == PATIENCE_OPEN && client->connect_ms < 0 && soon > deadline_ns ? soon : deadline_ns;
}

static int wait_for_name(struct plait_client *client, const struct taken *taken, uint64_t deadline_ns,
                         enum patience patience, struct found *found)
{
    struct pl_name_watch *watch = NULL;
    struct failure last = { 0, "" };
    int r;
    for (;;) {
        last.code = 0;
        r = try_instances(client, taken, hello_deadline(client, deadline_ns, patience), found, &last);
        uint64_t now = pl_clock_ns();
        if (r != 1 || now >= deadline_ns || patience == PATIENCE_NONE) break;
        if (watch == NULL && last.code == 0) {
            /* Watch first, then look again: what came in between is seen. */
            r = pl_name_watch_open(&watch, client->peer);
            if (r < 0) break;
            if (r == 0) continue;
        }
        uint64_t pause = now + (uint64_t)(last.code < 0 || watch == NULL ? RETRY_MS : WATCH_MS) * 1000000;
        int fd = watch ? pl_name_watch_fd(watch) : -1;
        r = pl_interrupt_poll(fd, POLLIN, pause < deadline_ns ? pause : deadline_ns, 0);
        if (r == -EINTR) break;
        if (watch) pl_name_watch_clear(watch);
    }
    pl_name_watch_close(watch);
    if (r == 1 && last.text[0]) r = pl_error(-ETIMEDOUT, "%s", last.text);
    else if (r == 1) r = pl_lookup_missing(client->target->name, client->peer);
    return r;
}

static int wait_for_url(struct plait_client *client, uint64_t deadline_ns, enum patience patience, struct found *found)
{
    for (;;) {
        int r = connect_url(client, hello_deadline(client, deadline_ns, patience), found);
        uint64_t now = pl_clock_ns();
        if (r == 0 || patience != PATIENCE_AGAIN || !worth_retrying(r) || now >= deadline_ns) return r;
        uint64_t pause = now + (uint64_t)RETRY_MS * 4 * 1000000;
        r = pl_interrupt_poll(-1, 0, pause < deadline_ns ? pause : deadline_ns, 0);
        if (r == -EINTR) return r;
    }
}

/* ---- connecting; with the lock, which is dropped meanwhile ---- */

static void note_taken(struct plait_client *client, struct taken *taken)
{
    taken->count = 0;
    pl_list_each(item, &client->links)
    {
        struct pl_link *link = pl_container_of(item, struct pl_link, link);
        unsigned i = 0;
        if (link->down) continue;
        while (i < taken->count && taken->instance[i] != link->peer.instance) i++;
        if (i == PL_LINKS_MAX) continue; /* links that drain, or are refused, aren't limited */
        if (i == taken->count) {
            taken->instance[i] = link->peer.instance;
            taken->left[i] = link->draining || link->refused ? 0 : link->peer.concurrency;
            taken->count++;
        }
        if (taken->left[i] > 0) taken->left[i]--;
    }
}

static int connect_one(struct plait_client *client, struct pl_deadline *deadline, enum patience patience)
{
    struct found found = { .transport = NULL };
    struct taken taken;
    uint64_t ns = pl_deadline_ns(deadline);
    note_taken(client, &taken);
    client->connecting = true;
    pthread_mutex_unlock(&client->lock);
    const struct pl_interrupt *before = pl_interrupt;
    pl_interrupt = patience == PATIENCE_NONE ? NULL : &client->interrupt; /* which soon ends by itself */
    /* Before the lookup: what comes after it makes the next look worthwhile. Most clients never need a second
     * connection: the first look for one finds out anew. */
    bool stamped = client->target->scheme == PL_SCHEME_NAME && patience != PATIENCE_OPEN;
    uint64_t stamp = stamped ? pl_lookup_stamp(client->peer) : 0;
    int r = client->target->scheme == PL_SCHEME_NAME ? wait_for_name(client, &taken, ns, patience, &found)
                                                     : wait_for_url(client, ns, patience, &found);
    pl_interrupt = before;
    pthread_mutex_lock(&client->lock);
    client->connecting = false;
    if (r == 0) r = add_link(client, found.transport, &found.accepted, found.local);
    /* Who could not be reached is still there. */
    client->stamp = found.more || (r < 0 && r != -ENOENT) ? 0 : stamp;
    atomic_fetch_add_explicit(&client->connects, 1, memory_order_release); /* R_CONN1: pairs with A_CONN1 */
    pl_futex_wake(&client->connects, INT32_MAX);
    return r;
}

int pl_client_connect_first(struct plait_client *client, struct pl_deadline *deadline)
{
    pthread_mutex_lock(&client->lock);
    int r = connect_one(client, deadline, PATIENCE_OPEN);
    pthread_mutex_unlock(&client->lock);
    return r;
}

static int wait_for_connecting(struct plait_client *client, struct pl_deadline *deadline)
{
    uint32_t seen = atomic_load_explicit(&client->connects, memory_order_acquire); /* A_CONN1: pairs with R_CONN1 */
    uint64_t ns = pl_deadline_ns(deadline);
    pthread_mutex_unlock(&client->lock);
    uint64_t slice = pl_interrupt_slice(&client->interrupt, ns);
    int asked = pl_interrupt_ask(&client->interrupt);
    int r = asked < 0 ? asked : pl_futex_wait(&client->connects, seen, slice);
    pthread_mutex_lock(&client->lock);
    if (asked < 0) return asked;
    if (slice != ns) return 0; /* look again */
    return r == -ETIMEDOUT ? pl_error(r, "%s: no connection in time", client->target_text) : 0;
}

/* ---- choosing ---- */

static bool stuck(const struct pl_link *link)
{
    return link->outstanding > 0 && pl_ticks() - link->moved > pl_ticks_of_ns((uint64_t)PL_STUCK_MS * 1000000);
}

bool pl_link_is_own(const struct pl_link *link)
{
    return pl_context.instance != 0 && pl_context.instance == link->peer.instance &&
           (pl_context.alone || pl_context.reactor == link->peer.reactor);
}

/* One that the caller serves itself, while it waits for it, only if there is no other. */
static struct pl_link *least_loaded(struct plait_client *client, bool first, bool waits)
{
    struct pl_link *only = pl_client_only_link(client);
    if (only != NULL) return only;
    struct pl_link *best = NULL;
    uint32_t best_load = 0;
    unsigned place = 0, best_distance = 0;
    pl_list_each(item, &client->links)
    {
        struct pl_link *link = pl_container_of(item, struct pl_link, link);
        if (link->down || link->draining || link->refused) continue;
        if (first) return link;
        uint32_t load = link->outstanding + pl_load_read(link->peer.load, link->peer.concurrency);
        if (client->link_count > 1 && stuck(link)) load += 1u << 20;
        if (waits && pl_link_is_own(link)) load += 1u << 21;
        unsigned distance = (place - client->rotation) % PL_LINKS_MAX;
        if (best == NULL || load < best_load || (load == best_load && distance < best_distance)) {
            best = link;
            best_load = load;
            best_distance = distance;
        }
        place++;
    }
    client->rotation++;
    return best;
}

/* Whether a look for a further connection is due: a call would queue (DEADLOCK: for ever), and something may have
 * changed. */
static bool may_expand(struct plait_client *client, const struct pl_link *link, bool deadlock)
{
    if (client->connecting || client->link_count >= PL_LINKS_MAX || client->target->framing != PL_FRAMING_PLAIT)
        return false;
    uint64_t now = pl_ticks();
    if (now - client->expanded < client->expand_pause) return false;
    struct taken taken;
    note_taken(client, &taken);
    for (unsigned i = 0; i < taken.count; i++)
        if (taken.instance[i] == link->peer.instance && taken.left[i] > 0) return true;
    if (client->target->scheme != PL_SCHEME_NAME) return false;
    if (!deadlock && now - client->looked < pl_ticks_of_ns(LOOK_AGAIN_NS)) return false;
    client->looked = now;
    return pl_lookup_stamp(client->peer) != client->stamp;
}

/* What we have will do otherwise. Whoever has no connection to spare (it is out of descriptors, say) would cost each
 * call the time of a try: the tries grow rare. That there is nobody else (-ENOENT) is known at once. */
static int expand(struct plait_client *client)
{
    struct pl_deadline soon = { .timeout_ms = EXPAND_MS };
    int r = connect_one(client, &soon, PATIENCE_NONE);
    uint64_t least = pl_ticks_of_ns(EXPAND_PAUSE_LEAST_NS), most = pl_ticks_of_ns(EXPAND_PAUSE_MOST_NS);
    if (r == 0) {
        client->expand_pause = 0;
    } else if (r != -ENOENT && r != -EDEADLK) {
        client->expanded = pl_ticks();
        client->expand_pause = client->expand_pause == 0         ? least
                               : client->expand_pause > most / 2 ? most
                                                                 : client->expand_pause * 2;
    }
    return r;
}

bool pl_link_lives(const struct plait_client *client, const struct pl_link *link)
{
    pl_list_each(item, &client->links) if (pl_container_of(item, struct pl_link, link) == link) return !link->down;
    return false;
}

static int would_wait_for_itself(const struct pl_link *link)
{
    return pl_error(
        -EDEADLK,
        "%s is served by this very thread, which would wait for itself: defer the request, call asynchronously, "
        "or give the server more threads",
        link->client->target_text);
}

int pl_client_choose_among(struct plait_client *client, const struct pl_outgoing *out, struct pl_deadline *deadline,
                           struct pl_link **ret_link)
{
    bool first = pl_stays_first(out);
    unsigned tries = 0;
    for (;;) {
        struct pl_link *link = least_loaded(client, first, out->waits);
        bool deadlock = link != NULL && out->waits && pl_link_is_own(link);
        bool queues = link != NULL && !first && (link->outstanding > 0 || deadlock);
        /* Our thread may be what a further connection gets, too, and then the next. */
        if (queues && tries < (deadlock ? PL_LINKS_MAX : 1) && may_expand(client, link, deadlock)) {
            tries = expand(client) < 0 ? PL_LINKS_MAX : tries + 1;
            continue;
        }
        if (deadlock && !first && client->connecting) {
            int r = wait_for_connecting(client, deadline); /* another thread may find somebody else */
            if (r < 0) return r;
            continue;
        }
        if (deadlock) return would_wait_for_itself(link);
        if (link != NULL) {
            *ret_link = link;
            return 0;
        }
        int r =
            client->connecting ? wait_for_connecting(client, deadline) : connect_one(client, deadline, PATIENCE_AGAIN);
        if (r == -EINTR) return r;
        if (r < 0 && least_loaded(client, first, out->waits) == NULL) return r; /* nor did another thread */
    }
}
