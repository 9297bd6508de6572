#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "connection/handshake.h"
#include "harness/test.h"
#include "shm/channel.h"
#include <plait/plait.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static const uint8_t table[] = { 3, 'a', 'd', 'd', 0 };

static struct pl_terms usual(bool shm)
{
    return (struct pl_terms){ .instance = 77,
                              .max_message = 5000,
                              .outstanding = 9,
                              .concurrency = 2,
                              .methods = table,
                              .methods_size = sizeof(table),
                              .method_count = 2,
                              .load_fd = -1,
                              .shm = shm,
                              .transport = "unix" };
}

struct meeting {
    int server, client;
    struct pl_terms terms;
    struct pl_transport *ours;
    int result;
};

static void open_meeting(struct meeting *meeting, bool shm)
{
    int fds[2];
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    *meeting = (struct meeting){ .server = fds[0], .client = fds[1], .terms = usual(shm) };
}

/* The server's side, until the hello is whole. */
static void *serve(void *argument)
{
    struct meeting *meeting = argument;
    struct pl_greeting greeting = { .size = 0 };
    struct pl_hello_client hello;
    int r;
    while ((r = pl_greeting_read(&greeting, meeting->server, &hello)) == PL_HELLO_MORE) usleep(100);
    meeting->result = r == 0 ? pl_handshake_accept(&meeting->ours, meeting->server, &hello, &meeting->terms) : r;
    return NULL;
}

static int meet(struct meeting *meeting, const struct pl_offer *offer, struct pl_transport **transport,
                struct pl_accepted *accepted)
{
    pthread_t thread;
    CHECK_INT(pthread_create(&thread, NULL, serve, meeting), 0);
    int r = pl_handshake_connect(transport, meeting->client, offer, pl_clock_deadline(20000, 0), accepted);
    CHECK_INT(pthread_join(thread, NULL), 0);
    return r;
}

static void check_conversation(struct pl_transport *a, struct pl_transport *b)
{
    struct pl_frame frame = { .kind = PL_FRAME_CALL, .call = 5, .size = 4 };
    struct pl_message message;
    CHECK_INT(a->ops->send(a, &frame, "ping", false), PL_TRANSPORT_OK);
    CHECK_INT(a->ops->flush(a), PL_TRANSPORT_OK);
    CHECK_INT(b->ops->receive(b, &message), PL_TRANSPORT_OK);
    CHECK_INT(message.frame.call, 5);
    CHECK_MEM(message.body, "ping", 4);
    pl_message_release(b, &message);
}

static void check_terms(const struct pl_accepted *accepted)
{
    CHECK_INT(accepted->instance, 77);
    CHECK_INT(accepted->max_message, 5000);
    CHECK_INT(accepted->outstanding, 9);
    CHECK_INT(accepted->concurrency, 2);
    CHECK_INT(accepted->pid, getpid());
    CHECK_INT(accepted->method_count, 2);
    CHECK_STR(accepted->methods[0], "add");
    CHECK_STR(accepted->methods[1], "");
}

TEST(both_agree_on_shared_memory_and_talk_over_it)
{
    struct meeting meeting;
    struct pl_offer offer = { .name = "x", .max_reply = 3 << 20, .shm = true, .transport = "unix" };
    struct pl_transport *transport;
    struct pl_accepted accepted;
    open_meeting(&meeting, true);
    CHECK_INT(meet(&meeting, &offer, &transport, &accepted), 0);
    CHECK_INT(meeting.result, 0);
    CHECK_STR(transport->ops->name, "shm");
    CHECK_INT(transport->max_message, 3 << 20);
    CHECK_INT(meeting.ours->max_message, 5000);
    check_terms(&accepted);
    CHECK(accepted.load == NULL);
    check_conversation(transport, meeting.ours);
    check_conversation(meeting.ours, transport);
    free(accepted.methods);
    transport->ops->close(transport);
    meeting.ours->ops->close(meeting.ours);
}

TEST(where_one_side_doesn_t_want_it_the_socket_is_the_transport)
{
    for (int i = 0; i < 2; i++) {
        struct meeting meeting;
        struct pl_offer offer = { .name = "x", .max_reply = 1, .shm = i == 0, .transport = "unix" };
        struct pl_transport *transport;
        struct pl_accepted accepted;
        open_meeting(&meeting, i == 1);
        CHECK_INT(meet(&meeting, &offer, &transport, &accepted), 0);
        CHECK_STR(transport->ops->name, "unix");
        CHECK_STR(meeting.ours->ops->name, "unix");
        check_terms(&accepted);
        check_conversation(transport, meeting.ours);
        free(accepted.methods);
        transport->ops->close(transport);
        meeting.ours->ops->close(meeting.ours);
    }
}

/* Another byte order, pointer width or page size: memory that both mapped would mean different things. */
TEST(processes_with_differing_abi_words_talk_over_the_socket)
{
    for (int bit = 0; bit < 24; bit++) {
        struct meeting meeting;
        struct pl_hello_client hello = { .major = 1, .features = PL_FEATURE_SHM | PL_FEATURE_GOAWAY };
        struct pl_hello_server answer;
        uint8_t bytes[PL_HELLO_SERVER_HEAD + sizeof(table)];
        size_t consumed;
        hello.abi = pl_hello_abi() ^ 1u << bit;
        open_meeting(&meeting, true);
        CHECK_INT(pl_handshake_accept(&meeting.ours, meeting.server, &hello, &meeting.terms), 0);
        CHECK_STR(meeting.ours->ops->name, "unix");
        CHECK_INT(recv(meeting.client, bytes, sizeof(bytes), 0), sizeof(bytes));
        CHECK_INT(pl_hello_server_decode(&answer, bytes, sizeof(bytes), &consumed), PL_HELLO_OK);
        CHECK_INT(answer.features, PL_FEATURE_GOAWAY);
        CHECK_INT(answer.ring_capacity, 0);
        meeting.ours->ops->close(meeting.ours);
        close(meeting.client);
    }
}

TEST(the_load_page_comes_along)
{
    struct meeting meeting;
    struct pl_offer offer = { .name = "", .max_reply = 1, .shm = true, .transport = "unix" };
    struct pl_transport *transport;
    struct pl_accepted accepted;
    struct pl_load_page *load;
    open_meeting(&meeting, true);
    CHECK_INT(pl_load_create(&load, &meeting.terms.load_fd), 0);
    CHECK_INT(meet(&meeting, &offer, &transport, &accepted), 0);
    CHECK(accepted.load != NULL);
    pl_load_busy(load, 0, 1);
    CHECK_INT(pl_load_read(accepted.load, 1), 1);
    close(meeting.terms.load_fd);
    pl_load_detach(load);
    pl_load_detach(accepted.load);
    free(accepted.methods);
    transport->ops->close(transport);
    meeting.ours->ops->close(meeting.ours);
}

TEST(a_refusal_arrives_with_its_text)
{
    struct meeting meeting;
    struct pl_offer offer = { .name = "x", .transport = "unix" };
    struct pl_transport *transport;
    struct pl_accepted accepted;
    open_meeting(&meeting, false);
    pl_handshake_refuse(meeting.server, -ENOENT, "no service 'x' here, this is 'y'");
    CHECK_INT(pl_handshake_connect(&transport, meeting.client, &offer, pl_clock_deadline(20000, 0), &accepted),
              -ENOENT);
    CHECK_CONTAINS(plait_error_text(), "this is 'y'");
    close(meeting.server);
}

TEST(a_refusal_without_words_still_has_a_text)
{
    struct meeting meeting;
    struct pl_offer offer = { .name = "x", .transport = "unix" };
    struct pl_transport *transport;
    struct pl_accepted accepted;
    open_meeting(&meeting, false);
    pl_handshake_refuse(meeting.server, -EACCES, "");
    CHECK_INT(pl_handshake_connect(&transport, meeting.client, &offer, pl_clock_deadline(20000, 0), &accepted),
              -EACCES);
    CHECK(plait_error_text()[0] != 0);
    close(meeting.server);
}

static int connect_to(const void *bytes, size_t size, uint64_t deadline_ns)
{
    struct meeting meeting;
    struct pl_offer offer = { .name = "x", .shm = true, .transport = "unix" };
    struct pl_transport *transport;
    struct pl_accepted accepted;
    open_meeting(&meeting, false);
    if (size) CHECK_INT(send(meeting.server, bytes, size, 0), (ssize_t)size);
    if (deadline_ns == PL_NEVER) CHECK_INT(shutdown(meeting.server, SHUT_WR), 0);
    int r = pl_handshake_connect(&transport, meeting.client, &offer, deadline_ns, &accepted);
    close(meeting.server);
    return r;
}

TEST(what_isn_t_plait_is_named_and_silence_has_an_end)
{
    CHECK_INT(connect_to("SSH-2.0-OpenSSH", 15, PL_NEVER), -EPROTO);
    CHECK(plait_error_text()[0] != 0);
    CHECK_INT(connect_to("", 0, PL_NEVER), -ECONNRESET);
    CHECK_INT(connect_to("PLAS", 4, PL_NEVER), -ECONNRESET);
    CHECK_INT(connect_to("PLAS", 4, pl_clock_ns() + 1000000), -ETIMEDOUT);
    CHECK_CONTAINS(plait_error_text(), "stopped");
}

TEST(shared_memory_without_its_descriptors_breaks_the_protocol)
{
    uint8_t bytes[PL_HELLO_SERVER_HEAD];
    struct pl_hello_server hello = {
        .major = PL_PROTOCOL_MAJOR, .features = PL_FEATURE_SHM, .ring_capacity = PL_RING_CAPACITY, .pid = 1
    };
    pl_hello_server_encode(bytes, &hello);
    CHECK_INT(connect_to(bytes, sizeof(bytes), pl_clock_deadline(20000, 0)), -EPROTO);
    CHECK_CONTAINS(plait_error_text(), "descriptors");
}

/* ---- the server's side ---- */

TEST(a_hello_may_come_byte_by_byte_and_what_follows_it_stays_in_the_socket)
{
    struct meeting meeting;
    struct pl_greeting greeting = { .size = 0 };
    struct pl_hello_client hello = { .major = 1, .abi = 5, .max_reply = 1 << 20 }, heard;
    uint8_t bytes[PL_HELLO_CLIENT_MAX + 1];
    char rest;
    strcpy(hello.name, "greeter");
    size_t size = pl_hello_client_encode(bytes, &hello);
    open_meeting(&meeting, false);
    for (size_t i = 0; i < size; i++) {
        CHECK_INT(pl_greeting_read(&greeting, meeting.server, &heard), PL_HELLO_MORE);
        CHECK_INT(send(meeting.client, bytes + i, 1, 0), 1);
    }
    CHECK_INT(send(meeting.client, "x", 1, 0), 1);
    CHECK_INT(pl_greeting_read(&greeting, meeting.server, &heard), PL_HELLO_OK);
    CHECK_STR(heard.name, "greeter");
    CHECK_INT(recv(meeting.server, &rest, 1, 0), 1);
    CHECK_INT(rest, 'x');
    close(meeting.server);
    close(meeting.client);
}

TEST(a_greeting_says_what_the_bytes_look_like)
{
    struct meeting meeting;
    struct pl_greeting greeting = { .size = 0 };
    struct pl_hello_client heard;
    open_meeting(&meeting, false);
    CHECK_INT(send(meeting.client, "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
    CHECK_INT(pl_greeting_read(&greeting, meeting.server, &heard), -EPROTO);
    CHECK_CONTAINS(plait_error_text(), "HTTP");
    close(meeting.client);
    greeting.size = 0;
    while (recv(meeting.server, &heard, sizeof(heard), 0) > 0) continue;
    CHECK_INT(pl_greeting_read(&greeting, meeting.server, &heard), -ECONNRESET);
    close(meeting.server);
}

TEST(an_accept_without_descriptors_left_fails_and_closes_all)
{
    struct meeting meeting;
    struct pl_hello_client hello = { .major = 1, .features = PL_FEATURE_SHM };
    struct rlimit before, now;
    hello.abi = pl_hello_abi();
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &before), 0);
    for (int spare = 0; spare < 6; spare++) {
        open_meeting(&meeting, true);
        int lowest = dup(0);
        close(lowest);
        now = before;
        now.rlim_cur = (rlim_t)(lowest + spare);
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &now), 0);
        int r = pl_handshake_accept(&meeting.ours, meeting.server, &hello, &meeting.terms);
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &before), 0);
        CHECK(r == 0 || r == -EMFILE);
        if (r == 0) meeting.ours->ops->close(meeting.ours);
        else CHECK_CONTAINS(plait_error_text(), "descriptor");
        close(meeting.client);
    }
}
