/* bench_plait: plait as a subject of `plait bench`, through the public headers like anybody else.
 */
#include "bench.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <plait/plait.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    IN_FLIGHT = 256,                /* calls at once: a quarter of what a server takes by default */
    NETWORK_MESSAGE_MAX = 16 << 20, /* the library's default over TCP */
    PAIR_TIMEOUT_MS = 20 * 1000,
    LOANS = 4,
};

static int is(const struct bench_link *link, const char *transport)
{
    return strcmp(link->subject->transport, transport) == 0;
}

static int fail(struct bench_link *link, int code, const char *what)
{
    return bench_fail(link, code, "%s: %s", what, plait_error_text());
}

/* ---- server --------------------------------------------------------------------------------- */

static void echo(plait_request *request, void *context)
{
    plait_bytes body = plait_request_body(request);

    (void)context;
    plait_request_reply(request, body.data, body.size);
}

struct sink {
    struct bench_shared *shared;
    uint64_t count;
};

static void take(plait_request *request, void *context)
{
    struct sink *sink = context;
    plait_bytes body = plait_request_body(request);
    uint64_t sequence;

    if (body.size < sizeof(sequence)) {
        sink->shared->wrong++;
        return;
    }
    memcpy(&sequence, body.data, sizeof(sequence));
    sink->shared->wrong += sequence != sink->count++;
}

static void tell_count(plait_request *request, void *context)
{
    const struct sink *sink = context;

    plait_request_reply(request, &sink->count, sizeof(sink->count));
}

static int over_network(const struct bench_link *link)
{
    return is(link, "tcp") || is(link, "raw-tcp") || is(link, "udp");
}

/* The body begins with the moment of its commit and ends with its number. */
static void enter(plait_request *request, void *context)
{
    struct sink *sink = context;
    uint64_t now = bench_now(), started, sequence;
    plait_bytes body = plait_request_body(request);

    memcpy(&started, body.data, sizeof(started));
    memcpy(&sequence, (const char *)body.data + body.size - sizeof(sequence), sizeof(sequence));
    sink->shared->wrong += sequence != ++sink->count;
    now -= started;
    plait_request_reply(request, &now, sizeof(now));
}

static int listen_inet(struct bench_link *link, plait_server *server)
{
    char url[160];
    size_t size = link->load->size;
    bool udp = is(link, "udp");
    int n = snprintf(url, sizeof(url), "%s://127.0.0.1:0?%s", udp ? "udp" : "tcp",
                     is(link, "tcp") ? "framing=plait" : "framing=raw&method=echo");
    int r;

    if (size > NETWORK_MESSAGE_MAX && !udp) snprintf(url + n, sizeof(url) - (size_t)n, "&max_message=%zu", size);
    r = plait_server_listen(server, url);
    if (r < 0) return r;
    snprintf(link->shared->url, sizeof(link->shared->url), "%s", plait_server_url(server, 0));
    return 0;
}

static int serve(struct bench_link *link)
{
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    plait_server *server = NULL;
    struct sink sink = { .shared = link->shared };
    int r;

    options.spin_us = link->subject->spin_us;
    r = plait_server_open(&server, link->name, &options);
    if (r == 0) r = plait_server_handle(server, "echo", echo, NULL);
    if (r == 0) r = plait_server_handle(server, "take", take, &sink);
    if (r == 0) r = plait_server_handle(server, "enter", enter, &sink);
    if (r == 0) r = plait_server_handle(server, "count", tell_count, &sink);
    if (r == 0 && over_network(link)) r = listen_inet(link, server);
    if (r == 0) r = bench_ready(link);
    if (r == 0) r = plait_server_run(server);
    if (r < 0) fail(link, r, "server");
    plait_server_close(server);
    return r;
}

/* ---- client ------------------------------------------------------------------------------------ */

struct state {
    plait_client *client;
    plait_reply *reply;
    const char *method;
    plait_call_options options;
    uint64_t sent; /* one way */
    uint64_t started, answered, wrong;
    int error; /* of a call in flight */
};

/* The listener's URL as a client says it: its own query, without the server's. */
static void make_target(const struct bench_link *link, char *target, size_t room)
{
    int n;

    if (!over_network(link)) {
        snprintf(target, room, "%s", link->name);
        return;
    }
    n = snprintf(target, room, "%.*s?framing=%s", (int)strcspn(link->shared->url, "?"), link->shared->url,
                 is(link, "tcp") ? "plait" : "raw");
    if (link->load->size > NETWORK_MESSAGE_MAX && !is(link, "udp"))
        snprintf(target + n, room - (size_t)n, "&max_message=%zu", link->load->size);
}

static int open_client(struct bench_link *link)
{
    plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
    struct state *state = calloc(1, sizeof(*state));
    char target[400];
    int r;

    if (!state) return bench_fail(link, -ENOMEM, "out of memory");
    options.spin_us = link->subject->spin_us;
    options.timeout = PAIR_TIMEOUT_MS;
    if (is(link, "shm")) options.transport = PLAIT_TRANSPORT_SHM;
    if (is(link, "unix")) options.transport = PLAIT_TRANSPORT_UNIX;
    state->method = is(link, "raw-tcp") || is(link, "udp") ? "" : "echo";
    state->options = (plait_call_options)PLAIT_CALL_OPTIONS_INIT;
    state->options.flags = PLAIT_CALL_ORDERED;
    make_target(link, target, sizeof(target));
    r = plait_client_open(&state->client, target, &options);
    if (r < 0) {
        free(state);
        return fail(link, r, "open");
    }
    link->state = state;
    return 0;
}

static int call(struct bench_link *link, const void *body, size_t size, const void **ret_reply)
{
    struct state *state = link->state;
    plait_bytes reply;
    int r;

    r = plait_client_call(state->client, state->method, body, size, NULL, &state->reply);
    if (r < 0) return fail(link, r, "call");
    reply = plait_reply_body(state->reply);
    if (reply.size != size) return bench_fail(link, -EBADMSG, "%zu bytes of %zu came back", reply.size, size);
    *ret_reply = reply.data;
    return 0;
}

static void release(struct bench_link *link)
{
    struct state *state = link->state;

    plait_reply_free(state->reply);
    state->reply = NULL;
}

static void close_client(struct bench_link *link)
{
    struct state *state = link->state;

    plait_client_close(state->client);
    free(state);
    link->state = NULL;
}

/* ---- many in flight ------------------------------------------------------------------------------ */

static int check_count(struct bench_link *link)
{
    struct state *state = link->state;
    uint64_t count = 0;
    plait_bytes body;
    int r;

    r = plait_client_call(state->client, "count", NULL, 0, &state->options, &state->reply);
    if (r < 0) return fail(link, r, "count");
    body = plait_reply_body(state->reply);
    if (body.size == sizeof(count)) memcpy(&count, body.data, sizeof(count));
    release(link);
    if (count == state->sent) return 0;
    return bench_fail(link, -EBADMSG, "%llu of %llu messages arrived", (unsigned long long)count,
                      (unsigned long long)state->sent);
}

static int stream(struct bench_link *link, size_t size, uint64_t count)
{
    struct state *state = link->state;
    unsigned char body[4096] = { 0 };

    if (size < sizeof(uint64_t) || size > sizeof(body))
        return bench_fail(link, -EINVAL, "one-way messages of %zu bytes: 8 to %zu can be measured", size, sizeof(body));
    for (uint64_t i = 0; i < count; i++, state->sent++) {
        int r;
        memcpy(body, &state->sent, sizeof(state->sent));
        r = plait_client_send(state->client, "take", body, size, NULL);
        if (r < 0) return fail(link, r, "send");
    }
    return check_count(link);
}

static void answered(int result, plait_reply *reply, void *context)
{
    struct state *state = context;
    uint64_t sequence = UINT64_MAX;
    plait_bytes body;

    if (result < 0) {
        state->error = result;
    } else {
        body = plait_reply_body(reply);
        if (body.size >= sizeof(sequence)) memcpy(&sequence, body.data, sizeof(sequence));
        state->wrong += sequence != state->answered; /* one connection, one reactor: replies come in order */
    }
    state->answered++;
    plait_reply_free(reply);
}

static int pairs(struct bench_link *link, size_t size, uint64_t count)
{
    struct state *state = link->state;
    unsigned char body[4096] = { 0 };
    uint64_t end = state->started + count;
    int r;

    if (size < sizeof(uint64_t) || size > sizeof(body))
        return bench_fail(link, -EINVAL, "calls of %zu bytes in flight: 8 to %zu can be measured", size, sizeof(body));
    while (state->answered < end) {
        while (state->started < end && state->started - state->answered < IN_FLIGHT) {
            memcpy(body, &state->started, sizeof(state->started));
            r = plait_client_call_async(state->client, state->method, body, size, &state->options, answered, state,
                                        NULL);
            if (r < 0) return fail(link, r, "call_async");
            state->started++;
        }
        r = plait_client_dispatch(state->client, PAIR_TIMEOUT_MS);
        if (r < 0) return fail(link, r, "dispatch");
        if (state->error < 0)
            return bench_fail(link, state->error, "a call in flight failed: %s", strerror(-state->error));
    }
    if (state->wrong) return bench_fail(link, -EBADMSG, "%llu wrong replies", (unsigned long long)state->wrong);
    return 0;
}

/* As many loans at once as steady calls ever need: what was sent last may not be back when the next is lent. */
static int make_segments(struct bench_link *link, size_t size)
{
    struct state *state = link->state;
    plait_loan *loans[LOANS];
    int r = 0;

    for (int i = 0; i < LOANS; i++)
        if (r == 0) r = plait_client_loan(state->client, size, NULL, &loans[i]);
    for (int i = 0; i < LOANS; i++) {
        if (r == 0) memset(plait_loan_data(loans[i]), 0, size);
        if (r == 0) r = plait_client_call_loan(state->client, "count", loans[i], size, NULL, NULL);
    }
    return r < 0 ? fail(link, r, "loan") : 0;
}

static int hand_over(struct bench_link *link, size_t size, uint64_t sequence, struct bench_hand_over *ret_times)
{
    struct state *state = link->state;
    plait_loan *loan = NULL;
    uint64_t start, lent, commit;
    int r;

    if (sequence == 1 && make_segments(link, size) < 0) return -EIO;
    start = bench_now();
    r = plait_client_loan(state->client, size, NULL, &loan);
    if (r < 0) return fail(link, r, "loan");
    lent = bench_now() - start;
    bench_fill(plait_loan_data(loan), size, sequence);
    commit = bench_now();
    memcpy(plait_loan_data(loan), &commit, sizeof(commit));
    r = plait_client_call_loan(state->client, "enter", loan, size, NULL, &state->reply);
    if (r < 0) return fail(link, r, "call");
    ret_times->call = lent + bench_now() - commit;
    memcpy(&ret_times->entry, plait_reply_body(state->reply).data, sizeof(ret_times->entry));
    release(link);
    return 0;
}

/* Like a program whose loop waits for this client alone. */
static void idle(struct bench_link *link)
{
    struct state *state = link->state;

    while (plait_client_dispatch(state->client, PLAIT_FOREVER) > 0)
        ;
}

const struct bench_ops bench_plait = {
    .serve = serve,
    .open = open_client,
    .call = call,
    .release = release,
    .stream = stream,
    .pairs = pairs,
    .hand_over = hand_over,
    .idle = idle,
    .close = close_client,
};

/* ---- a plain socket that calls plait's raw framing -------------------------------------------------- */

struct plain {
    int fd;
    unsigned char reply[4096];
};

static int plain_open(struct bench_link *link)
{
    struct plain *plain = calloc(1, sizeof(*plain));
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    const char *port = strrchr(link->shared->url, ':');
    int one = 1;

    if (!plain || !port) return bench_fail(link, -EINVAL, "no port in %s", link->shared->url);
    address.sin_port = htons((uint16_t)atoi(port + 1));
    plain->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    link->state = plain;
    if (plain->fd < 0 || connect(plain->fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        setsockopt(plain->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0)
        return bench_fail(link, -errno, "connect to %s: %s", link->shared->url, strerror(errno));
    return 0;
}

static int plain_call(struct bench_link *link, const void *body, size_t size, const void **ret_reply)
{
    struct plain *plain = link->state;
    size_t have = 0;

    if (size > sizeof(plain->reply))
        return bench_fail(link, -EMSGSIZE, "a plain socket carries %zu bytes here", sizeof(plain->reply));
    if (send(plain->fd, body, size, MSG_NOSIGNAL) != (ssize_t)size)
        return bench_fail(link, -errno, "send: %s", strerror(errno));
    while (have < size) {
        ssize_t n = recv(plain->fd, plain->reply + have, sizeof(plain->reply) - have, 0);
        if (n <= 0) return bench_fail(link, -EPIPE, "the server closed the connection");
        have += (size_t)n;
    }
    *ret_reply = plain->reply;
    return 0;
}

static void plain_close(struct bench_link *link)
{
    struct plain *plain = link->state;

    close(plain->fd);
    free(plain);
}

const struct bench_ops bench_plait_raw_server = {
    .serve = serve,
    .open = plain_open,
    .call = plain_call,
    .close = plain_close,
};
