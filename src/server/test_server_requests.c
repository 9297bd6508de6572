#include "server/test_support.h"

#include <sys/ioctl.h>
#include <linux/sockios.h>
#include <time.h>

#define PLAIN "unix://%s/plain"
#define LINES "unix://%s/lines?framing=lines"

/* ---- deferral ---- */

struct pool {
    struct kept kept;
    pthread_t threads[4];
};

static void *answer_all(void *context)
{
    struct kept *kept = context;
    for (;;) {
        plait_request *request = kept_request(kept);
        plait_bytes body = plait_request_body(request);
        bool last = body.size == 4 && memcmp(body.data, "stop", 4) == 0;
        CHECK_INT(plait_request_reply(request, body.data, body.size), 0);
        if (last) return NULL;
    }
}

/* Answers of several sessions knock, some more than once, while the reactor empties its inbox. */
TEST(deferred_requests_of_many_sessions_are_answered_by_many_threads)
{
    enum { CLIENTS = 8, ROUNDS = 300, FLIGHT = 12 };
    static struct pool pool = { .kept = KEPT_INIT };
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    options.outstanding = 4;
    plait_server *server = open_server(&options, PLAIN);
    struct caller callers[CLIENTS];
    CHECK_INT(plait_server_handle(server, "", keep, &pool.kept), 0);
    CHECK_INT(plait_server_start(server), 0);
    for (int i = 0; i < 4; i++) CHECK_INT(pthread_create(&pool.threads[i], NULL, answer_all, &pool.kept), 0);
    for (int i = 0; i < CLIENTS; i++) CHECK_INT(greet_as(&callers[i], server, 0, i % 2, "tested"), 0);
    for (uint64_t round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < CLIENTS; i++)
            for (uint64_t j = 0; j < FLIGHT; j++) send_call(&callers[i], round * FLIGHT + j, "abc", 3);
        for (int i = 0; i < CLIENTS; i++) {
            uint64_t seen = 0;
            for (int j = 0; j < FLIGHT; j++) { /* in any order, each once */
                struct pl_message message;
                CHECK_INT(next_message(&callers[i], &message), PL_TRANSPORT_OK);
                CHECK_INT(message.frame.call / FLIGHT, round);
                seen |= UINT64_C(1) << message.frame.call % FLIGHT;
                pl_message_release(callers[i].transport, &message);
            }
            CHECK_INT(seen, (1 << FLIGHT) - 1);
        }
    }
    for (uint64_t i = 0; i < 4; i++) {
        send_call(&callers[0], i, "stop", 4);
        check_reply(&callers[0], i, PL_STATUS_OK, "stop", 4);
    }
    for (int i = 0; i < 4; i++) CHECK_INT(pthread_join(pool.threads[i], NULL), 0);
    for (int i = 0; i < CLIENTS; i++) hang_up(&callers[i]);
    plait_server_close(server);
}

static struct kept kept = KEPT_INIT;
static _Atomic int again;

static void defer_and_answer_too(plait_request *request, void *context)
{
    plait_request *twice;
    keep(request, context);
    again = plait_request_reply(request, "x", 1);
    CHECK_INT(plait_request_defer(request, &twice), -EALREADY);
    CHECK_INT(plait_request_fail(request, 1, "no"), -EALREADY);
}

TEST(a_deferred_request_is_answered_by_its_deferred_one_alone)
{
    plait_server *server = open_server(NULL, PLAIN);
    struct caller caller;
    CHECK_INT(plait_server_handle(server, "", defer_and_answer_too, &kept), 0);
    CHECK_INT(plait_server_start(server), 0);
    CHECK_INT(greet_as(&caller, server, 0, true, "tested"), 0);
    send_call(&caller, 1, "abc", 3);
    plait_request *request = kept_request(&kept);
    CHECK_MEM(plait_request_body(request).data, "abc", 3);
    CHECK_INT(plait_request_reply(request, "late", 4), 0);
    check_reply(&caller, 1, PL_STATUS_OK, "late", 4);
    uint64_t deadline = pl_clock_deadline(PATIENCE_MS, 0);
    while (again == 0) CHECK(pl_clock_ns() < deadline); /* the handler is still at it */
    CHECK_INT(again, -EALREADY);
    hang_up(&caller);
    plait_server_close(server);
}

TEST(a_deferred_request_outlives_its_client_and_its_server)
{
    plait_server *server = open_server(NULL, PLAIN);
    struct caller caller;
    CHECK_INT(plait_server_handle(server, "", keep, &kept), 0);
    CHECK_INT(plait_server_start(server), 0);
    CHECK_INT(greet_as(&caller, server, 0, true, "tested"), 0);
    for (uint64_t i = 1; i <= 2; i++) send_call(&caller, i, "abc", 3);
    plait_request *first = kept_request(&kept), *second = kept_request(&kept);
    CHECK_INT(plait_request_cancelled(first), 0);
    hang_up(&caller);
    uint64_t deadline = pl_clock_deadline(PATIENCE_MS, 0);
    while (!plait_request_cancelled(first)) CHECK(pl_clock_ns() < deadline);
    CHECK_INT(plait_request_reply(first, "x", 1), -ECONNRESET);
    plait_server_close(server);
    CHECK_MEM(plait_request_body(second).data, "abc", 3);
    CHECK_STR(plait_request_peer(second)->transport, "shm");
    CHECK_INT(plait_request_reply(second, "x", 1), -ECONNRESET);
}

TEST(a_cancel_reaches_the_holder_of_a_deferred_request)
{
    plait_server *server = open_server(NULL, PLAIN);
    struct caller caller;
    CHECK_INT(plait_server_handle(server, "", keep, &kept), 0);
    CHECK_INT(plait_server_start(server), 0);
    CHECK_INT(greet_as(&caller, server, 0, true, "tested"), 0);
    send_call(&caller, 1, "abc", 3);
    plait_request *request = kept_request(&kept);
    send_frame(&caller, (struct pl_frame){ .kind = PL_FRAME_CANCEL, .call = 1 }, NULL);
    uint64_t deadline = pl_clock_deadline(PATIENCE_MS, 0);
    while (!plait_request_cancelled(request)) CHECK(pl_clock_ns() < deadline);
    CHECK_INT(plait_request_reply(request, "x", 1), 0);
    hang_up(&caller);
    plait_server_close(server);
}

/* The bound is on what is deferred; what lies beyond stays in the ring, and goes on by itself. */
TEST(beyond_outstanding_a_connection_waits_and_others_don_t)
{
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    options.outstanding = 2;
    plait_server *server = open_server(&options, PLAIN);
    struct caller full, other;
    CHECK_INT(plait_server_handle(server, "", keep, &kept), 0);
    CHECK_INT(plait_server_handle(server, "echo", echo, NULL), 0);
    CHECK_INT(plait_server_start(server), 0);
    CHECK_INT(greet_as(&full, server, 0, true, "tested"), 0);
    CHECK_INT(greet_as(&other, server, 0, true, "tested"), 0);
    CHECK_INT(full.accepted.outstanding, 2);
    for (uint64_t i = 1; i <= 5; i++) send_call(&full, i, "abc", 3);
    plait_request *requests[2] = { kept_request(&kept), kept_request(&kept) };
    for (uint64_t i = 1; i <= 20; i++) {
        send_frame(&other, (struct pl_frame){ .kind = PL_FRAME_CALL, .call = i, .method = 1, .size = 2 }, "hi");
        check_reply(&other, i, PL_STATUS_OK, "hi", 2);
    }
    pthread_mutex_lock(&kept.lock);
    CHECK(kept.first == kept.count); /* the third is still out there */
    pthread_mutex_unlock(&kept.lock);
    for (int i = 0; i < 2; i++) CHECK_INT(plait_request_reply(requests[i], "x", 1), 0);
    for (uint64_t i = 3; i <= 5; i++) CHECK_INT(plait_request_reply(kept_request(&kept), "x", 1), 0);
    for (uint64_t i = 1; i <= 5; i++) check_reply(&full, i, PL_STATUS_OK, "x", 1);
    hang_up(&full);
    hang_up(&other);
    plait_server_close(server);
}

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* A hang-up is told by epoll again and again, whatever one asks for. */
TEST(a_client_that_left_while_its_request_is_deferred_costs_no_cpu)
{
    static const char *const urls[] = { LINES, PLAIN };
    for (int i = 0; i < 2; i++) {
        plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
        options.outstanding = 1;
        plait_server *server = open_server(&options, urls[i]);
        struct caller caller;
        CHECK_INT(plait_server_handle(server, "", keep, &kept), 0);
        CHECK_INT(plait_server_start(server), 0);
        if (i == 0) {
            int fd = dial(server, 0);
            write_all(fd, "abc\n", 4);
            close(fd);
        } else {
            CHECK_INT(greet_as(&caller, server, 0, false, "tested"), 0);
            send_call(&caller, 1, "abc", 3);
            hang_up(&caller);
        }
        plait_request *request = kept_request(&kept);
        double before = cpu_seconds();
        (void)poll(NULL, 0, 300); /* a span to measure, not to wait for anything */
        CHECK(cpu_seconds() - before < 0.03);
        (void)plait_request_reply(request, "x", 1);
        plait_server_close(server);
    }
}

/* ---- bounds ---- */

static void wait_until_read(int fd)
{
    int left = 1;
    uint64_t deadline = pl_clock_deadline(PATIENCE_MS, 0);
    while (left > 0) {
        CHECK(pl_clock_ns() < deadline);
        CHECK_INT(ioctl(fd, SIOCOUTQ, &left), 0);
    }
}

TEST(bytes_that_a_dead_client_had_reserved_go_to_who_waits)
{
    enum { SIZE = 3 << 20 };
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    options.inbound_bytes = 4 << 20;
    uint8_t *body = calloc(1, SIZE + 4), *got = malloc(SIZE + 4);
    plait_server *server = open_server(&options, "unix://%s/length?framing=length&max_message=3M");
    CHECK_INT(plait_server_handle(server, "", echo, NULL), 0);
    CHECK_INT(plait_server_start(server), 0);
    body[1] = SIZE >> 16;
    int dying = dial(server, 0), waiting = dial(server, 0);
    write_all(dying, body, SIZE / 2);
    wait_until_read(dying);
    size_t sent = 0;
    while (sent < SIZE + 4) {
        ssize_t n = send(waiting, body + sent, SIZE + 4 - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) break; /* the server reads no further: it waits for bytes */
        sent += (size_t)n;
    }
    CHECK(sent < SIZE + 4);
    close(dying);
    write_all(waiting, body + sent, SIZE + 4 - sent);
    CHECK(read_all(waiting, got, SIZE + 4));
    CHECK_MEM(got, body, SIZE + 4);
    close(waiting);
    uint64_t deadline = pl_clock_deadline(PATIENCE_MS, 0);
    while (atomic_load(&server->inbound) != 0) CHECK(pl_clock_ns() < deadline);
    CHECK_INT(atomic_load(&server->throttled), 0); /* however often it was woken */
    plait_server_close(server);
    free(body);
    free(got);
}

/* ---- answers ---- */

static void answer_by_size(plait_request *request, void *context)
{
    (void)context;
    plait_bytes body = plait_request_body(request);
    if (body.size == 0) return;
    if (body.size == 1) plait_request_fail(request, 7, "failed with %d", 7);
    else if (body.size == 2) plait_request_reply_as(request, PLAIT_JSON, "{}", 2);
    else if (body.size == 3) plait_request_replyf(request, "%0*d", 5000, 1);
    else plait_request_reply(request, body.data, body.size);
}

TEST(every_kind_of_answer_arrives_as_it_is)
{
    static char zeros[5001];
    for (int shm = 0; shm < 2; shm++) {
        plait_server *server = open_server(NULL, PLAIN);
        struct caller caller;
        struct pl_message message;
        CHECK_INT(plait_server_handle(server, "", answer_by_size, NULL), 0);
        CHECK_INT(plait_server_start(server), 0);
        CHECK_INT(greet_as(&caller, server, 0, shm, "tested"), 0);
        send_call(&caller, 1, NULL, 0);
        check_reply(&caller, 1, PL_STATUS_NO_REPLY, NULL, 0);
        send_call(&caller, 2, "x", 1);
        check_reply(&caller, 2, 7, "failed with 7", 13);
        send_call(&caller, 3, "xx", 2);
        CHECK_INT(next_message(&caller, &message), PL_TRANSPORT_OK);
        CHECK_INT(message.frame.encoding, PLAIT_JSON);
        pl_message_release(caller.transport, &message);
        send_call(&caller, 4, "xxx", 3);
        snprintf(zeros, sizeof(zeros), "%0*d", 5000, 1);
        check_reply(&caller, 4, PL_STATUS_OK, zeros, 5000);
        send_frame(&caller, (struct pl_frame){ .kind = PL_FRAME_CALL, .call = 5, .method = 99 }, NULL);
        check_reply(&caller, 5, PL_STATUS_NO_METHOD, NULL, 0);
        hang_up(&caller);
        plait_server_close(server);
    }
}

TEST(a_frame_that_no_client_sends_ends_its_connection_alone)
{
    plait_server *server = open_server(NULL, PLAIN);
    struct caller liar, honest;
    struct pl_message message;
    CHECK_INT(plait_server_handle(server, "", echo, NULL), 0);
    CHECK_INT(plait_server_start(server), 0);
    CHECK_INT(greet_as(&honest, server, 0, true, "tested"), 0);
    for (int shm = 0; shm < 2; shm++) {
        CHECK_INT(greet_as(&liar, server, 0, shm, "tested"), 0);
        send_frame(&liar, (struct pl_frame){ .kind = PL_FRAME_GOAWAY, .size = 8 }, "12345678");
        CHECK_INT(next_message(&liar, &message), PL_TRANSPORT_END);
        hang_up(&liar);
    }
    send_call(&honest, 1, "still", 5);
    check_reply(&honest, 1, PL_STATUS_OK, "still", 5);
    hang_up(&honest);
    plait_server_close(server);
}

TEST(replies_that_the_client_doesn_t_read_hold_up_its_connection_alone)
{
    enum { CALLS = 400 };
    for (int shm = 0; shm < 2; shm++) {
        plait_server *server = open_server(NULL, PLAIN);
        struct caller lazy, other;
        uint8_t body[4000] = { 1 };
        CHECK_INT(plait_server_handle(server, "", echo, NULL), 0);
        CHECK_INT(plait_server_start(server), 0);
        CHECK_INT(greet_as(&lazy, server, 0, shm, "tested"), 0);
        CHECK_INT(greet_as(&other, server, 0, shm, "tested"), 0);
        uint64_t sent = 0, answered = 0;
        struct pl_frame frame = { .kind = PL_FRAME_CALL, .method = PL_METHOD_DEFAULT, .size = sizeof(body) };
        for (; sent < CALLS; sent++) {
            frame.call = sent;
            if (lazy.transport->ops->send(lazy.transport, &frame, body, false) != PL_TRANSPORT_OK) break;
            CHECK(lazy.transport->ops->flush(lazy.transport) >= 0);
        }
        for (uint64_t i = 0; i < 50; i++) {
            send_call(&other, i, "hi", 2);
            check_reply(&other, i, PL_STATUS_OK, "hi", 2);
        }
        for (; answered < sent; answered++) check_reply(&lazy, answered, PL_STATUS_OK, body, sizeof(body));
        hang_up(&lazy);
        hang_up(&other);
        plait_server_close(server);
    }
}
