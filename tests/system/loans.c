/* loans: large messages that are read where they were written, between real processes. How loans end: loan_ends.c. */
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

/* ---- zero copies ---- */

TEST(a_request_is_read_where_it_was_written)
{
    struct shared *shared = shared_new();
    pid_t server = start_server("loans", shared, -1);
    plait_client *client = open_client("loans", NULL);
    static const size_t sizes[] = { 8200, 100000, MIB, 5 * MIB + 8, 16 * MIB };
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (int again = 0; again < 3; again++) {
            plait_loan *loan = lend(client, sizes[i]);
            uint64_t written = inode_at(plait_loan_data(loan));
            CHECK(written != 0);
            fill(plait_loan_data(loan), sizes[i], i + 1);
            CHECK_INT(plait_client_call_loan(client, "look", loan, sizes[i], NULL, NULL), 0);
            CHECK_INT(atomic_load(&shared->inode), written);
        }
    }
    plait_client_close(client);
    stop_server(server, shared);
}

TEST(an_answer_is_read_where_it_was_written_also_after_its_client_is_closed_and_its_server_dead)
{
    struct shared *shared = shared_new();
    pid_t server = start_server("loans", shared, -1);
    plait_client *client = open_client("loans", NULL);
    plait_reply *replies[10];
    for (uint64_t i = 0; i < 10; i++) {
        uint64_t order[2] = { 3 * MIB, i + 1 };
        CHECK_INT(plait_client_call(client, "make", order, sizeof(order), NULL, &replies[i]), 0);
        CHECK_INT(plait_reply_encoding(replies[i]), PLAIT_ARRAY);
        CHECK(inode_at(plait_reply_body(replies[i]).data) != 0);
    }
    plait_client_close(client);
    kill_process(server);
    for (uint64_t i = 0; i < 10; i++) {
        plait_bytes body = plait_reply_body(replies[i]);
        CHECK_INT(body.size, 3 * MIB);
        CHECK(whole(body) && *(const uint64_t *)body.data == i + 1);
    }
    for (int i = 9; i >= 0; i -= 2) plait_reply_free(replies[i]);
    for (int i = 8; i >= 0; i -= 2) plait_reply_free(replies[i]);
    munmap(shared, sizeof(*shared));
}

TEST(in_steady_state_no_page_is_touched_for_the_first_time)
{
    static const size_t sizes[] = { 100000, MIB, 16 * MIB };
    struct shared *shared = shared_new();
    pid_t server = start_server("loans", shared, -1);
    plait_client *client = open_client("loans", NULL);
    for (size_t k = 0; k < 3; k++) {
        uint64_t size = sizes[k], here = 0, there = 0;
        plait_loan *loans[4];
        /* As many as can be out at once: what was sent last may not be back when the next one is lent. */
        for (int i = 0; i < 4; i++) loans[i] = lend(client, size);
        for (int i = 0; i < 4 + 200; i++) {
            plait_loan *loan = i < 4 ? loans[i] : lend(client, size);
            memset(plait_loan_data(loan), i, size);
            memcpy(plait_loan_data(loan), &size, sizeof(size));
            CHECK_INT(plait_client_call_loan(client, "touch", loan, size, NULL, NULL), 0);
            if (i == 3) here = faults(), there = atomic_load(&shared->faults);
        }
        /* Others may touch a page of their own now and then: far fewer than one a call. */
        CHECK(faults() - here < 20);
        CHECK(atomic_load(&shared->faults) - there < 20);
    }
    plait_client_close(client);
    stop_server(server, shared);
}

/* ---- everywhere the same ---- */

TEST(over_sockets_a_loan_is_plain_memory_and_everything_else_is_the_same)
{
    struct shared *shared = shared_new();
    int pipes[2];
    char url[200];
    CHECK_INT(pipe(pipes), 0);
    pid_t server = start_server("loans", shared, pipes[1]);
    CHECK(read(pipes[0], url, sizeof(url)) > 0);
    close(pipes[0]), close(pipes[1]);
    for (int way = 0; way < 3; way++) {
        plait_client *client = open_client(way == 0 ? "loans" : way == 1 ? "loans?shm=off" : url, NULL);
        for (int i = 0; i < 6; i++) {
            size_t size = i % 3 == 0 ? 16 : i % 3 == 1 ? 9000 : 7 * MIB;
            plait_reply *reply = NULL;
            plait_loan *loan = lend(client, size + 100);
            fill(plait_loan_data(loan), size, (uint64_t)i + 9);
            CHECK_INT(plait_client_call_loan(client, "check", loan, size, NULL, &reply), 0);
            CHECK_INT(*(const uint64_t *)plait_reply_body(reply).data, i + 9);
            plait_reply_free(reply);
            uint64_t order[2] = { size, (uint64_t)i + 1 };
            CHECK_INT(plait_client_call(client, "make", order, sizeof(order), NULL, &reply), 0);
            CHECK_INT(plait_reply_body(reply).size, size);
            CHECK(whole(plait_reply_body(reply)));
            plait_reply_free(reply);
            loan = lend(client, size);
            fill(plait_loan_data(loan), size, 1);
            CHECK_INT(plait_client_send_loan(client, "check", loan, size, NULL), 0);
        }
        CHECK_INT(plait_client_call_loan(client, "check", lend(client, 8), 8, NULL, NULL), 0); /* behind the sends */
        plait_client_close(client);
    }
    stop_server(server, shared);
}

/* ---- the limit ---- */

TEST(at_the_limit_a_loan_waits_for_its_deadline_then_says_who_holds_how_many)
{
    struct shared *shared = shared_new();
    pid_t server = start_server("loans", shared, -1);
    plait_client *client = open_client("loans", NULL);
    plait_loan *loans[PLAIT_SEGMENTS_MAX], *more = NULL;
    plait_call_options soon = PLAIT_CALL_OPTIONS_INIT;
    for (int i = 0; i < PLAIT_SEGMENTS_MAX; i++) loans[i] = lend(client, 20000);
    soon.timeout = PLAIT_NOW;
    CHECK_INT(plait_client_loan(client, 20000, &soon, &more), -ENOBUFS);
    soon.timeout = 30;
    int64_t before = now_ms();
    CHECK_INT(plait_client_loan(client, 20000, &soon, &more), -ENOBUFS);
    CHECK(now_ms() - before >= 29);
    CHECK_CONTAINS(plait_error_text(), "PLAIT_SEGMENTS_MAX, 64");
    CHECK_CONTAINS(plait_error_text(), "this process holds 64 in loans");
    CHECK(more == NULL);
    /* Calls go on: they are copied. */
    char *body = calloc(1, MIB);
    for (int i = 0; i < 3; i++) {
        fill(body, MIB, (uint64_t)i + 1);
        CHECK_INT(plait_client_call(client, "check", body, MIB, NULL, NULL), 0);
    }
    free(body);
    plait_loan_abort(loans[7]);
    loans[7] = lend(client, 20000);
    for (int i = 0; i < PLAIT_SEGMENTS_MAX; i++) plait_loan_abort(loans[i]);
    plait_client_close(client);
    stop_server(server, shared);
}

struct waiter {
    plait_client *client;
    pthread_t thread;
    int result;
};

static void *wait_for_loan(void *argument)
{
    struct waiter *waiter = argument;
    plait_call_options patient = PLAIT_CALL_OPTIONS_INIT;
    plait_loan *loan = NULL;
    patient.timeout = PATIENCE_MS;
    waiter->result = plait_client_loan(waiter->client, 20000, &patient, &loan);
    plait_loan_abort(loan);
    return NULL;
}

TEST(who_waits_for_a_loan_is_woken_by_an_abort_and_by_the_server_alike)
{
    struct shared *shared = shared_new();
    pid_t server = start_server("loans", shared, -1);
    plait_client *client = open_client("loans", NULL);
    plait_loan *loans[PLAIT_SEGMENTS_MAX];
    for (int i = 0; i < PLAIT_SEGMENTS_MAX; i++) loans[i] = lend(client, 20000);
    struct waiter waiters[3];
    for (int i = 0; i < 3; i++) {
        waiters[i] = (struct waiter){ .client = client };
        CHECK_INT(pthread_create(&waiters[i].thread, NULL, wait_for_loan, &waiters[i]), 0);
    }
    pause_ms(20); /* likely asleep by then; it must work either way */
    int64_t before = now_ms();
    plait_loan_abort(loans[0]);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(pthread_join(waiters[i].thread, NULL), 0);
        CHECK_INT(waiters[i].result, 0);
    }
    CHECK(now_ms() - before < PATIENCE_MS / 2);
    /* Now the server has all of them. */
    loans[0] = lend(client, 20000);
    for (int i = 0; i < PLAIT_SEGMENTS_MAX; i++) {
        fill(plait_loan_data(loans[i]), 20000, (uint64_t)i + 1);
        CHECK_INT(plait_client_send_loan(client, "defer", loans[i], 20000, NULL), 0);
    }
    WAIT_UNTIL(atomic_load(&shared->deferred) == PLAIT_SEGMENTS_MAX);
    plait_call_options soon = PLAIT_CALL_OPTIONS_INIT;
    plait_loan *more = NULL;
    soon.timeout = PLAIT_NOW;
    CHECK_INT(plait_client_loan(client, 20000, &soon, &more), -ENOBUFS);
    CHECK_CONTAINS(plait_error_text(), "this process holds 0 in loans");
    CHECK_CONTAINS(plait_error_text(), "64 in requests");
    waiters[0] = (struct waiter){ .client = client };
    CHECK_INT(pthread_create(&waiters[0].thread, NULL, wait_for_loan, &waiters[0]), 0);
    pause_ms(20);
    before = now_ms();
    atomic_store(&shared->release, 1);
    CHECK_INT(pthread_join(waiters[0].thread, NULL), 0);
    CHECK_INT(waiters[0].result, 0);
    CHECK(now_ms() - before < PATIENCE_MS / 2);
    atomic_store(&shared->release, PLAIT_SEGMENTS_MAX);
    WAIT_UNTIL(atomic_load(&shared->answered) == PLAIT_SEGMENTS_MAX);
    plait_client_close(client);
    stop_server(server, shared);
}

TEST(answers_are_copied_while_the_client_keeps_all_segments)
{
    struct shared *shared = shared_new();
    pid_t server = start_server("loans", shared, -1);
    plait_client *client = open_client("loans", NULL);
    plait_reply *replies[PLAIT_SEGMENTS_MAX + 6];
    for (uint64_t i = 0; i < PLAIT_SEGMENTS_MAX + 6; i++) {
        uint64_t order[2] = { 20000, i + 1 };
        CHECK_INT(plait_client_call(client, "make", order, sizeof(order), NULL, &replies[i]), 0);
        CHECK_INT(inode_at(plait_reply_body(replies[i]).data) != 0, i < PLAIT_SEGMENTS_MAX);
    }
    for (uint64_t i = 0; i < PLAIT_SEGMENTS_MAX + 6; i++) {
        plait_bytes body = plait_reply_body(replies[i]);
        CHECK(whole(body) && *(const uint64_t *)body.data == i + 1);
        plait_reply_free(replies[i]);
    }
    plait_client_close(client);
    stop_server(server, shared);
}
