#include "server/test_support.h"

#define PLAIN "unix://%s/plain"

enum { HOLD_MS = 300, LEFT_MS = 50 };

/* A handler that stays until the test lets it go; calls run in the order of their ids, from 1. */
static _Atomic uint64_t entered, released, ran;
static _Atomic int64_t least_left;

static void stay(plait_request *request, void *context)
{
    plait_bytes body = plait_request_body(request);
    int64_t left = plait_request_time_left(request);
    uint64_t deadline = pl_clock_deadline(PATIENCE_MS, 0), own = ++entered;
    (void)context;
    ran++;
    if (left < least_left) least_left = left;
    while (released < own) {
        CHECK(pl_clock_ns() < deadline);
        (void)poll(NULL, 0, 1);
    }
    plait_request_reply(request, body.data, body.size);
}

static void wait_until_entered(uint64_t count)
{
    uint64_t deadline = pl_clock_deadline(PATIENCE_MS, 0);
    while (entered < count) {
        CHECK(pl_clock_ns() < deadline);
        (void)poll(NULL, 0, 1);
    }
}

/* That much time passes for whoever waits in a queue. */
static void let_pass(int64_t milliseconds)
{
    uint64_t end = pl_clock_deadline(milliseconds, 0);
    while (pl_clock_ns() < end) (void)poll(NULL, 0, 1);
}

static plait_server *start_server(void)
{
    plait_server *server = open_server(NULL, PLAIN);
    entered = released = ran = 0;
    least_left = INT64_MAX;
    CHECK_INT(plait_server_handle(server, "", stay, NULL), 0);
    CHECK_INT(plait_server_start(server), 0);
    return server;
}

static struct pl_frame call_frame(uint64_t id, uint32_t left_ms)
{
    return (
        struct pl_frame){ .kind = PL_FRAME_CALL, .call = id, .method = PL_METHOD_DEFAULT, .time_left = left_ms * 100 };
}

static uint64_t dropped(void)
{
    plait_watch *watch = NULL;
    CHECK_INT(plait_watch_open(&watch, "tested"), 0);
    CHECK_INT(plait_watch_count(watch), 1);
    uint64_t count = plait_watch_at(watch, 0)->dropped;
    plait_watch_close(watch);
    return count;
}

/* Each call comes while the one before it is being handled, so that the reactor never finds the connection empty. */
static void check_unhurried(bool shm)
{
    enum { CALLS = 6 };
    plait_server *server = start_server();
    struct caller caller;
    CHECK_INT(greet_as(&caller, server, 0, shm, "tested"), 0);
    for (uint64_t id = 1; id <= CALLS; id++) {
        send_frame(&caller, call_frame(id, 3 * HOLD_MS), NULL);
        released = id - 1;
        wait_until_entered(id);
        let_pass(HOLD_MS);
    }
    released = CALLS;
    for (uint64_t id = 1; id <= CALLS; id++) check_reply(&caller, id, PL_STATUS_OK, "", 0);
    CHECK(least_left > HOLD_MS);
    hang_up(&caller);
    plait_server_close(server);
}

TEST(a_call_is_not_late_for_what_ran_before_it_came)
{
    check_unhurried(true);
    check_unhurried(false);
}

static void check_behind(bool shm)
{
    plait_server *server = start_server();
    struct pl_frame frames[3] = { call_frame(1, 0), call_frame(2, LEFT_MS), call_frame(3, PATIENCE_MS) };
    struct caller caller;
    CHECK_INT(greet_as(&caller, server, 0, shm, "tested"), 0);
    /* In one piece, so that all are seen at once. */
    uint8_t bytes[sizeof(frames) / sizeof(frames[0]) * PL_FRAME_HEAD];
    for (size_t i = 0; i < 3; i++) {
        if (shm) CHECK_INT(caller.transport->ops->send(caller.transport, &frames[i], NULL, false), PL_TRANSPORT_OK);
        pl_frame_encode(bytes + i * PL_FRAME_HEAD, &frames[i]);
    }
    if (shm) CHECK_INT(caller.transport->ops->flush(caller.transport), PL_TRANSPORT_OK);
    else write_all(caller.transport->socket, bytes, sizeof(bytes));
    wait_until_entered(1);
    let_pass(HOLD_MS);
    released = 2;
    check_reply(&caller, 1, PL_STATUS_OK, "", 0);
    check_reply(&caller, 2, PL_STATUS_TOO_LATE, NULL, 0);
    check_reply(&caller, 3, PL_STATUS_OK, "", 0);
    CHECK_INT(ran, 2);
    CHECK_INT(dropped(), 1);
    hang_up(&caller);
    plait_server_close(server);
}

TEST(a_queued_call_whose_time_is_over_does_not_run_and_is_counted)
{
    check_behind(true);
    check_behind(false);
}

/* The reactor is busy with one client while the other's call comes, and its caller's patience ends. */
static void check_given_up(bool shm)
{
    plait_server *server = start_server();
    struct caller busy, other;
    CHECK_INT(greet_as(&busy, server, 0, true, "tested"), 0);
    CHECK_INT(greet_as(&other, server, 0, shm, "tested"), 0);
    released = 1;
    send_frame(&other, call_frame(1, 0), NULL);
    check_reply(&other, 1, PL_STATUS_OK, "", 0);
    send_frame(&busy, call_frame(1, 0), NULL);
    wait_until_entered(2);
    send_frame(&other, call_frame(2, LEFT_MS), NULL);
    let_pass(HOLD_MS);
    send_frame(&other, (struct pl_frame){ .kind = PL_FRAME_CANCEL, .call = 2 }, NULL);
    send_frame(&other, call_frame(3, PATIENCE_MS), NULL);
    released = 3;
    check_reply(&busy, 1, PL_STATUS_OK, "", 0);
    check_reply(&other, 2, PL_STATUS_TOO_LATE, NULL, 0);
    check_reply(&other, 3, PL_STATUS_OK, "", 0);
    CHECK_INT(ran, 3);
    CHECK_INT(dropped(), 1);
    hang_up(&busy);
    hang_up(&other);
    plait_server_close(server);
}

TEST(a_call_whose_caller_gave_up_while_the_reactor_was_busy_elsewhere_does_not_run)
{
    check_given_up(true);
    check_given_up(false);
}
