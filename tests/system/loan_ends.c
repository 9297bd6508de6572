/* loan_ends: however a loan ends, it is given back once, and what is read of it stays whole. */
#include "system/loan_server.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

static void count_end(int result, plait_reply *reply, void *context)
{
    ++((int *)context)[result == 0 ? 0 : result == -ETIMEDOUT ? 1 : result == -ECANCELED ? 2 : 3];
    plait_reply_free(reply);
}

/* All 64 can be lent at once: none is lost, none is lent twice. */
static void check_all_there(plait_client *client)
{
    plait_loan *loans[PLAIT_SEGMENTS_MAX];
    plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
    options.timeout = PATIENCE_MS;
    for (int i = 0; i < PLAIT_SEGMENTS_MAX; i++) {
        CHECK_INT(plait_client_loan(client, 20000, &options, &loans[i]), 0);
        memset(plait_loan_data(loans[i]), i, 20000);
    }
    for (int i = 0; i < PLAIT_SEGMENTS_MAX; i++) {
        const uint8_t *data = plait_loan_data(loans[i]);
        for (int k = 0; k < 20000; k += 1000) CHECK_INT(data[k], i);
    }
    for (int i = 0; i < PLAIT_SEGMENTS_MAX; i++) plait_loan_abort(loans[i]);
}

TEST(a_call_that_is_late_cancelled_answered_or_refused_returns_its_loan_once)
{
    struct shared *shared = shared_new();
    pid_t server = start_server("loans", shared, -1);
    plait_client *client = open_client("loans", NULL);
    int ends[4] = { 0 };
    plait_call_options soon = PLAIT_CALL_OPTIONS_INIT;
    soon.timeout = 20;
    for (int i = 0; i < 10; i++) {
        plait_loan *loan = lend(client, 20000);
        uint64_t id;
        fill(plait_loan_data(loan), 20000, 1);
        if (i % 2) {
            CHECK_INT(plait_client_call_loan(client, "defer", loan, 20000, &soon, NULL), -ETIMEDOUT);
        } else {
            CHECK_INT(plait_client_call_async_loan(client, "defer", loan, 20000, NULL, count_end, ends, &id), 0);
            CHECK_INT(plait_client_cancel(client, id), 0);
        }
        loan = lend(client, 20000);
        fill(plait_loan_data(loan), 20000, 2);
        CHECK_INT(plait_client_call_async_loan(client, "check", loan, 20000, NULL, count_end, ends, NULL), 0);
        CHECK_INT(plait_client_call_loan(client, "nowhere", lend(client, 20000), 10, NULL, NULL), -EOPNOTSUPP);
        CHECK_INT(plait_client_call_loan(client, "check", lend(client, 20000), 20001, NULL, NULL), -EINVAL);
        CHECK_CONTAINS(plait_error_text(), "20001 bytes in a loan of 20000");
        loan = lend(client, 20000);
        CHECK_INT(plait_client_call_async_loan(client, "check", loan, 8, NULL, NULL, NULL, NULL), -EINVAL);
        CHECK_INT(plait_client_send_loan(client, "check", loan, 8, NULL), -EINVAL);
        CHECK_CONTAINS(plait_error_text(), "this loan is over");
        plait_loan_abort(loan);
    }
    while (ends[0] < 10 || ends[2] < 5) CHECK(plait_client_dispatch(client, 1000) >= 0);
    atomic_store(&shared->release, 10);
    WAIT_UNTIL(atomic_load(&shared->answered) == 10);
    check_all_there(client);
    CHECK_INT(ends[0], 10);
    CHECK_INT(ends[2], 5);
    plait_client_close(client);
    stop_server(server, shared);
}

TEST(closing_a_client_leaves_its_loans_and_ends_its_calls)
{
    struct shared *shared = shared_new();
    pid_t server = start_server("loans", shared, -1);
    size_t mappings = test_count_mappings();
    plait_client *client = open_client("loans", NULL), *other;
    plait_loan *kept_loan = lend(client, MIB), *sent = lend(client, MIB);
    int ends[4] = { 0 };
    fill(plait_loan_data(sent), MIB, 1);
    CHECK_INT(plait_client_call_async_loan(client, "defer", sent, MIB, NULL, count_end, ends, NULL), 0);
    WAIT_UNTIL(atomic_load(&shared->deferred) == 1);
    plait_client_close(client);
    CHECK_INT(ends[2], 1);
    fill(plait_loan_data(kept_loan), MIB, 77);
    other = open_client("loans", NULL);
    plait_reply *reply = NULL;
    CHECK_INT(plait_client_call_loan(other, "check", kept_loan, MIB, NULL, &reply), 0); /* with a copy */
    CHECK_INT(*(const uint64_t *)plait_reply_body(reply).data, 77);
    plait_reply_free(reply);
    atomic_store(&shared->release, 1); /* its body is still whole */
    WAIT_UNTIL(atomic_load(&shared->answered) == 1);
    plait_client_close(other);
    CHECK(test_count_mappings() <= mappings);
    stop_server(server, shared);
}

TEST(a_client_that_dies_leaves_its_messages_to_those_who_read_them)
{
    struct shared *shared = shared_new();
    pid_t server = start_server("loans", shared, -1);
    pid_t writer = fork();
    CHECK(writer >= 0);
    if (writer == 0) {
        plait_client *client = open_client("loans", NULL);
        for (uint64_t i = 0; i < 5; i++) {
            plait_loan *loan = lend(client, 3 * MIB);
            fill(plait_loan_data(loan), 3 * MIB, i + 1);
            CHECK_INT(plait_client_send_loan(client, "defer", loan, 3 * MIB, NULL), 0);
        }
        for (;;) pause();
    }
    WAIT_UNTIL(atomic_load(&shared->deferred) == 5);
    size_t mappings = mappings_of(server);
    kill_process(writer);
    plait_client *client = open_client("loans", NULL);
    for (uint64_t i = 0; i < 5; i++) { /* others' messages take no place of theirs */
        plait_loan *loan = lend(client, 3 * MIB);
        fill(plait_loan_data(loan), 3 * MIB, 100 + i);
        CHECK_INT(plait_client_call_loan(client, "check", loan, 3 * MIB, NULL, NULL), 0);
    }
    plait_client_close(client);
    atomic_store(&shared->release, 5);
    WAIT_UNTIL(atomic_load(&shared->answered) == 5);
    WAIT_UNTIL(mappings_of(server) < mappings); /* and then they are gone */
    stop_server(server, shared);
}

TEST(when_the_server_dies_a_loan_is_still_good_for_the_next)
{
    struct shared *shared = shared_new();
    pid_t server = start_server("loans", shared, -1);
    plait_client *client = open_client("loans", NULL);
    plait_loan *before = lend(client, MIB), *held = lend(client, MIB);
    fill(plait_loan_data(before), MIB, 5);
    fill(plait_loan_data(held), MIB, 6);
    plait_call_options again = PLAIT_CALL_OPTIONS_INIT;
    int ends[4] = { 0 };
    again.flags = PLAIT_CALL_IDEMPOTENT;
    /* In flight when it dies: it is sent again, and so its memory must not have been given to another. */
    CHECK_INT(plait_client_call_async_loan(client, "defer", held, MIB, &again, count_end, ends, NULL), 0);
    WAIT_UNTIL(atomic_load(&shared->deferred) == 1);
    kill_process(server);
    atomic_store(&shared->deferred, 0);
    server = start_server("loans", shared, -1);
    CHECK_INT(plait_client_call_loan(client, "check", before, MIB, NULL, NULL), 0);
    atomic_store(&shared->release, 1);
    while (ends[0] == 0) CHECK(plait_client_dispatch(client, 1000) >= 0);
    WAIT_UNTIL(atomic_load(&shared->answered) == 1); /* counted after the answer has left */
    check_all_there(client);
    plait_client_close(client);
    stop_server(server, shared);
}

/* ---- fork, threads, kills ---- */

TEST(a_forked_child_can_abort_a_loan_and_nothing_else)
{
    struct shared *shared = shared_new();
    pid_t server = start_server("loans", shared, -1);
    plait_client *client = open_client("loans", NULL);
    plait_loan *loan = lend(client, MIB), *other = lend(client, MIB);
    fill(plait_loan_data(loan), MIB, 3);
    fill(plait_loan_data(other), MIB, 4);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        plait_loan *more = NULL;
        CHECK_INT(plait_client_loan(client, 10, NULL, &more), -ECHILD);
        CHECK_INT(plait_client_call_loan(client, "check", loan, MIB, NULL, NULL), -ECHILD);
        plait_loan_abort(loan);
        plait_loan_abort(other);
        plait_client_close(client);
        plait_client *own = open_client("loans", NULL);
        more = lend(own, MIB);
        fill(plait_loan_data(more), MIB, 9);
        CHECK_INT(plait_client_call_loan(own, "check", more, MIB, NULL, NULL), 0);
        plait_client_close(own);
        _exit(0); /* the parent's client is the parent's: no look for leaks */
    }
    CHECK_INT(test_wait_child(child), 0);
    CHECK_INT(plait_client_call_loan(client, "check", loan, MIB, NULL, NULL), 0);
    plait_loan_abort(other);
    check_all_there(client);
    plait_client_close(client);
    stop_server(server, shared);
}

struct lender {
    plait_client *client;
    pthread_t thread;
    unsigned seed;
    int calls;
};

static void *lend_and_call(void *argument)
{
    struct lender *lender = argument;
    for (int i = 0; i < lender->calls; i++) {
        size_t size = 8 + 8 * ((size_t)rand_r(&lender->seed) % 40000);
        plait_loan *loan = lend(lender->client, size);
        uint64_t seed = (uint64_t)rand_r(&lender->seed) + 1;
        plait_reply *reply = NULL;
        fill(plait_loan_data(loan), size, seed);
        if (i % 7 == 3) {
            plait_loan_abort(loan);
            continue;
        }
        CHECK_INT(plait_client_call_loan(lender->client, "check", loan, size, NULL, &reply), 0);
        CHECK(*(const uint64_t *)plait_reply_body(reply).data == seed);
        plait_reply_free(reply);
    }
    return NULL;
}

TEST(threads_share_a_client_s_loans_and_every_message_is_whole)
{
    enum { THREADS = 5 };
    struct shared *shared = shared_new();
    pid_t server = start_server("loans", shared, -1);
    plait_client *client = open_client("loans", NULL);
    struct lender lenders[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        lenders[i] = (struct lender){ .client = client, .seed = i + 1, .calls = 300 };
        CHECK_INT(pthread_create(&lenders[i].thread, NULL, lend_and_call, &lenders[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) CHECK_INT(pthread_join(lenders[i].thread, NULL), 0);
    check_all_there(client);
    plait_client_close(client);
    stop_server(server, shared);
}

TEST(kills_at_any_moment_tear_no_message_and_leave_nothing)
{
    TEST_TIMEOUT(180);
    struct shared *shared = shared_new();
    pid_t server = start_server("loans", shared, -1);
    plait_client *client = open_client("loans", NULL);
    test_settle();
    struct lender first = { .client = client, .seed = 1, .calls = 50 };
    (void)lend_and_call(&first);
    size_t fds = fds_of(server);
    unsigned seed = 4711;
    for (int i = 0; i < 100; i++) {
        pid_t writer = fork();
        CHECK(writer >= 0);
        if (writer == 0) {
            struct lender lender = { .client = open_client("loans", NULL), .seed = (unsigned)i + 9, .calls = 1 << 30 };
            (void)lend_and_call(&lender);
        }
        usleep((unsigned)rand_r(&seed) % 20000);
        kill_process(writer);
    }
    (void)lend_and_call(&first);
    await_fds(server, fds);
    plait_client_close(client);
    stop_server(server, shared);
}
