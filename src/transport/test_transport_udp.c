#include "base/clock.h"
#include "transport/socket.h"
#include "transport/test_pair.h"

#include <stdio.h>

static struct pl_url url_of(const char *text)
{
    struct pl_url url;
    CHECK_INT(pl_url_parse(&url, text), 0);
    return url;
}

/* A server on URL, and a client connected to its port at HOST. */
struct udp_pair {
    struct pl_transport *server, *client;
    struct pl_counters counters;
};

static void open_pair(struct udp_pair *pair, const char *listen, const char *host)
{
    struct pl_url url = url_of(listen), real;
    struct pl_address peer;
    char text[1400];
    int fd;
    memset(pair, 0, sizeof(*pair));
    CHECK_INT(pl_socket_listen(&url, &fd, text, sizeof(text)), 0);
    CHECK_INT(pl_transport_udp_new(&pair->server, fd, true), 0);
    pair->server->counters = &pair->counters;
    real = url_of(text);
    if (host) strcpy(real.host, host);
    CHECK_INT(pl_socket_connect(&real, UINT64_MAX, &fd, &peer), 0);
    CHECK_INT(pl_transport_udp_new(&pair->client, fd, false), 0);
}

static void close_pair(struct udp_pair *pair)
{
    pair->server->ops->close(pair->server);
    pair->client->ops->close(pair->client);
}

static void call(struct pl_transport *client, const char *text)
{
    struct pl_frame frame = { .kind = PL_FRAME_CALL, .size = (uint32_t)strlen(text) };
    CHECK_INT(client->ops->send(client, &frame, text, false), PL_TRANSPORT_OK);
}

static void next(struct pl_transport *transport, struct pl_message *message, const char *text)
{
    CHECK_INT(receive_pushing(transport, NULL, message), PL_TRANSPORT_OK);
    CHECK_INT(message->size, strlen(text));
    CHECK_MEM(message->body, text, strlen(text));
}

static void reply(struct pl_transport *server, const struct pl_message *message, uint32_t status, const char *text)
{
    struct pl_frame frame = {
        .kind = PL_FRAME_REPLY, .call = message->frame.call, .method = status, .size = (uint32_t)strlen(text)
    };
    CHECK_INT(server->ops->send(server, &frame, text, false), PL_TRANSPORT_OK);
}

static void check_round_trip(struct udp_pair *pair, const char *text)
{
    struct pl_message message;
    call(pair->client, text);
    next(pair->server, &message, text);
    CHECK_INT(message.frame.kind, PL_FRAME_CALL);
    reply(pair->server, &message, 0, text);
    pl_message_release(pair->server, &message);
    next(pair->client, &message, text);
    CHECK_INT(message.frame.kind, PL_FRAME_REPLY);
    pl_message_release(pair->client, &message);
}

TEST(a_datagram_is_a_message_over_IPv4_and_IPv6)
{
    static const char *const listeners[] = { "udp://127.0.0.1:0", "udp://[::1]:0" };
    for (int i = 0; i < 2; i++) {
        struct udp_pair pair;
        open_pair(&pair, listeners[i], NULL);
        check_round_trip(&pair, "hello");
        check_round_trip(&pair, ""); /* an empty one, too */
        close_pair(&pair);
    }
}

TEST(datagrams_are_neither_joined_nor_split)
{
    struct udp_pair pair;
    struct pl_message message;
    char text[16];
    open_pair(&pair, "udp://127.0.0.1:0", NULL);
    for (int i = 0; i < 20; i++) { /* more than one system call brings */
        snprintf(text, sizeof(text), "number %d", i);
        call(pair.client, text);
    }
    for (int i = 0; i < 20; i++) {
        snprintf(text, sizeof(text), "number %d", i);
        next(pair.server, &message, text);
        pl_message_release(pair.server, &message);
    }
    CHECK_INT(pair.server->ops->receive(pair.server, &message), PL_TRANSPORT_EMPTY);
    close_pair(&pair);
}

TEST(an_answer_goes_to_who_asked_whatever_the_order)
{
    struct udp_pair pair, other = { 0 };
    struct pl_message message;
    struct pl_origin origins[2];
    struct pl_address peer, bound = { .size = sizeof(bound.storage) };
    struct pl_url url = url_of("udp://127.0.0.1:1");
    int fd;
    open_pair(&pair, "udp://127.0.0.1:0", NULL);
    CHECK_INT(getsockname(pair.server->socket, (struct sockaddr *)&bound.storage, &bound.size), 0);
    url.port = pl_address_port(&bound);
    CHECK_INT(pl_socket_connect(&url, UINT64_MAX, &fd, &peer), 0);
    CHECK_INT(pl_transport_udp_new(&other.client, fd, false), 0);
    call(pair.client, "first");
    call(other.client, "second");
    for (int i = 0; i < 2; i++) {
        next(pair.server, &message, i ? "second" : "first");
        origins[i] = *(struct pl_origin *)(uintptr_t)message.frame.call; /* as a deferred request keeps it */
        pl_message_release(pair.server, &message);
    }
    for (int i = 1; i >= 0; i--) {
        message.frame.call = (uintptr_t)&origins[i];
        reply(pair.server, &message, 0, i ? "to second" : "to first");
    }
    next(pair.client, &message, "to first");
    next(other.client, &message, "to second");
    other.client->ops->close(other.client);
    close_pair(&pair);
}

TEST(a_failure_is_a_datagram_of_one_line)
{
    struct udp_pair pair;
    struct pl_message message;
    open_pair(&pair, "udp://127.0.0.1:0", NULL);
    call(pair.client, "?");
    next(pair.server, &message, "?");
    reply(pair.server, &message, 5, "no such file\nline 2");
    pl_message_release(pair.server, &message);
    next(pair.client, &message, "error: no such file\n");
    close_pair(&pair);
}

TEST(a_server_on_all_addresses_answers_from_the_one_that_was_called)
{
    struct udp_pair pair;
    open_pair(&pair, "udp://0.0.0.0:0?insecure=1", "127.0.0.77");
    check_round_trip(&pair, "are you 127.0.0.77?");
    close_pair(&pair);
    open_pair(&pair, "udp://[::]:0?insecure=1", "::1");
    check_round_trip(&pair, "are you ::1?");
    close_pair(&pair);
}

TEST(what_a_full_queue_loses_is_counted)
{
    enum { SENT = 200 };
    struct udp_pair pair;
    struct pl_message message;
    int small = 1, got = 0;
    char body[1000];
    open_pair(&pair, "udp://127.0.0.1:0", NULL);
    CHECK_INT(setsockopt(pair.server->socket, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0); /* the least */
    memset(body, 'x', sizeof(body));
    struct pl_frame frame = { .kind = PL_FRAME_CALL, .size = sizeof(body) };
    for (int i = 0; i < SENT; i++) CHECK_INT(pair.client->ops->send(pair.client, &frame, body, false), 0);
    for (int more = 1; more; got += more) {
        pair.server->ops->readable(pair.server);
        more = pair.server->ops->receive(pair.server, &message) == PL_TRANSPORT_OK;
        if (more) pl_message_release(pair.server, &message);
    }
    call(pair.client, "the next one brings the news");
    next(pair.server, &message, "the next one brings the news");
    pl_message_release(pair.server, &message);
    CHECK(got > 0 && got < SENT);
    CHECK_INT(pair.counters.lost_requests, SENT - got);
    close_pair(&pair);
}

TEST(an_answer_that_the_kernel_does_not_take_is_counted_and_harms_nobody)
{
    struct udp_pair pair;
    struct pl_message message;
    open_pair(&pair, "udp://127.0.0.1:0", NULL);
    call(pair.client, "?");
    next(pair.server, &message, "?");
    char *large = calloc(1, PLAIT_DATAGRAM_MAX + 1);
    struct pl_frame frame = { .kind = PL_FRAME_REPLY, .call = message.frame.call, .size = PLAIT_DATAGRAM_MAX + 1 };
    CHECK_INT(pair.server->ops->send(pair.server, &frame, large, false), PL_TRANSPORT_OK);
    CHECK_INT(pair.counters.lost_replies, 1);
    pl_message_release(pair.server, &message);
    check_round_trip(&pair, "fine");
    free(large);
    close_pair(&pair);
}

TEST(a_client_is_told_that_nobody_listens)
{
    for (int looks_first = 0; looks_first < 2; looks_first++) { /* as a client that spins does */
        struct udp_pair pair;
        struct pl_message message;
        open_pair(&pair, "udp://127.0.0.1:0", NULL);
        int server = dup(pair.server->socket);
        pair.server->ops->close(pair.server);
        close(server);
        call(pair.client, "anybody?");
        CHECK(readable(pair.client->socket, 30000));
        if (looks_first) CHECK(pair.client->ops->ready(pair.client));
        pair.client->ops->readable(pair.client);
        CHECK_INT(pair.client->ops->receive(pair.client, &message), -ECONNREFUSED);
        CHECK_CONTAINS(plait_error_text(), "is the server running?");
        CHECK_INT(pair.client->ops->receive(pair.client, &message), PL_TRANSPORT_EMPTY); /* said once */
        pair.client->ops->close(pair.client);
    }
}

TEST(a_leftover_answer_is_thrown_away_before_the_next_call)
{
    struct udp_pair pair;
    struct pl_message message;
    open_pair(&pair, "udp://127.0.0.1:0", NULL);
    call(pair.client, "one");
    next(pair.server, &message, "one");
    reply(pair.server, &message, 0, "answer to one");
    reply(pair.server, &message, 0, "and once more"); /* as a network may do */
    pl_message_release(pair.server, &message);
    next(pair.client, &message, "answer to one");
    pl_message_release(pair.client, &message);
    uint64_t since = pl_clock_ns();
    while (pl_clock_ns() - since < 1000000) continue; /* a call that goes out at once saves the look */
    check_round_trip(&pair, "two");
    close_pair(&pair);
}

TEST(a_second_server_on_the_same_port_is_refused)
{
    struct udp_pair pair;
    struct pl_address bound = { .size = sizeof(bound.storage) };
    struct pl_url url = url_of("udp://127.0.0.1:1");
    char text[1400];
    int fd;
    open_pair(&pair, "udp://127.0.0.1:0", NULL);
    CHECK_INT(getsockname(pair.server->socket, (struct sockaddr *)&bound.storage, &bound.size), 0);
    url.port = pl_address_port(&bound);
    CHECK_INT(pl_socket_listen(&url, &fd, text, sizeof(text)), -EADDRINUSE);
    CHECK_CONTAINS(plait_error_text(), "another program listens there");
    url = url_of("udp://0.0.0.0:0");
    CHECK_INT(pl_socket_listen(&url, &fd, text, sizeof(text)), -EPERM);
    CHECK_CONTAINS(plait_error_text(), "insecure=1");
    close_pair(&pair);
}
