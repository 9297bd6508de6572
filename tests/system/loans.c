/* loans: large messages that are read where they were written, between real processes. */
#include "system/system.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum { MIB = 1 << 20 };

/* What server and director share. */
struct shared {
    _Atomic uint32_t ready, stop, release, deferred, answered, bad;
    _Atomic uint64_t inode;  /* of the memory in which the last "look" saw its body; 0: private */
    _Atomic uint64_t faults; /* the server's, so far */
};

static struct shared *shared_new(void)
{
    struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    return shared;
}

/* The inode of the shared file that is mapped at ADDRESS; 0: private memory. */
static uint64_t inode_at(const void *address)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[1024];
    uint64_t found = 0;
    CHECK(maps != NULL);
    while (fgets(line, sizeof(line), maps)) {
        unsigned long first, last, inode;
        char access[5];
        if (sscanf(line, "%lx-%lx %4s %*s %*s %lu", &first, &last, access, &inode) != 4) continue;
        if ((uintptr_t)address >= first && (uintptr_t)address < last && access[3] == 's') found = inode;
    }
    fclose(maps);
    return found;
}

static uint64_t faults(void)
{
    struct rusage usage;
    CHECK_INT(getrusage(RUSAGE_SELF, &usage), 0);
    return (uint64_t)usage.ru_minflt + (uint64_t)usage.ru_majflt;
}

/* A body of SIZE bytes that says itself whether it is whole: its seed first, then words made of seed and place. */
static void fill(void *memory, size_t size, uint64_t seed)
{
    uint64_t *words = memory;
    for (size_t i = 0; i < size / 8; i++) words[i] = i == 0 ? seed : seed * 0x9e3779b97f4a7c15 + i;
}

static bool whole(plait_bytes body)
{
    const uint64_t *words = body.data;
    for (size_t i = 1; i < body.size / 8; i++)
        if (words[i] != words[0] * 0x9e3779b97f4a7c15 + i) return false;
    return body.size >= 8;
}

/* ---- the server ---- */

enum { KEPT = 256 };
static plait_request *kept[KEPT];

static void on_look(plait_request *request, void *context)
{
    struct shared *shared = context;
    plait_bytes body = plait_request_body(request);
    if (!whole(body)) atomic_fetch_add(&shared->bad, 1);
    atomic_store(&shared->inode, inode_at(body.data));
    plait_request_reply(request, NULL, 0);
}

/* Only what a steady state may do. */
static void on_touch(plait_request *request, void *context)
{
    struct shared *shared = context;
    plait_bytes body = plait_request_body(request);
    if (((const uint64_t *)body.data)[0] != body.size) atomic_fetch_add(&shared->bad, 1);
    atomic_store(&shared->faults, faults());
    plait_request_reply(request, NULL, 0);
}

static void on_check(plait_request *request, void *context)
{
    struct shared *shared = context;
    if (!whole(plait_request_body(request))) atomic_fetch_add(&shared->bad, 1);
    plait_request_reply(request, plait_request_body(request).data, 8);
}

/* The body is {size, seed}; the answer is lent. */
static void on_make(plait_request *request, void *context)
{
    uint64_t order[2];
    plait_loan *loan = NULL;
    (void)context;
    CHECK_INT(plait_request_body(request).size, sizeof(order));
    memcpy(order, plait_request_body(request).data, sizeof(order));
    int r = plait_request_reply_loan(request, order[0], &loan);
    if (r < 0) {
        plait_request_fail(request, 1, "%s", plait_error_text());
        return;
    }
    CHECK_INT(plait_loan_size(loan), order[0]);
    fill(plait_loan_data(loan), order[0], order[1]);
    CHECK_INT(plait_request_reply_loaned(request, PLAIT_ARRAY, loan, order[0]), 0);
    CHECK_INT(plait_request_reply_loaned(request, PLAIT_ARRAY, loan, order[0]), -EINVAL);
}

static void on_defer(plait_request *request, void *context)
{
    struct shared *shared = context;
    CHECK_INT(plait_request_defer(request, &kept[atomic_load(&shared->deferred)]), 0);
    atomic_fetch_add(&shared->deferred, 1);
}

/* Answers what is kept, one more each time the director raises `release`; checks each body first. */
static void *answerer(void *context)
{
    struct shared *shared = context;
    while (!atomic_load(&shared->stop)) {
        uint32_t next = atomic_load(&shared->answered);
        if (next == atomic_load(&shared->release) || next == atomic_load(&shared->deferred)) {
            usleep(200);
            continue;
        }
        plait_request *request = kept[next];
        if (!whole(plait_request_body(request))) atomic_fetch_add(&shared->bad, 1);
        plait_loan *loan = NULL;
        if (next % 2 && plait_request_reply_loan(request, 100000, &loan) == 0) {
            fill(plait_loan_data(loan), 100000, next + 1);
            plait_request_reply_loaned(request, PLAIT_BYTES, loan, 100000);
        } else {
            plait_request_reply(request, NULL, 0);
        }
        atomic_fetch_add(&shared->answered, 1);
    }
    return NULL;
}

static plait_server *stopped_by_signal;
static void stop_server(int signal)
{
    (void)signal;
    plait_server_stop(stopped_by_signal, 0);
}

static pid_t start_server(const char *name, struct shared *shared, int port_pipe)
{
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid > 0) {
        WAIT_UNTIL(atomic_load(&shared->ready) == (uint32_t)pid);
        return pid;
    }
    plait_server *server = NULL;
    pthread_t thread;
    CHECK_INT(plait_server_open(&server, name, NULL), 0);
    if (port_pipe >= 0) {
        char url[200];
        CHECK_INT(plait_server_listen(server, "tcp://127.0.0.1:0"), 0);
        for (size_t i = 0; plait_server_url(server, i); i++)
            if (strncmp(plait_server_url(server, i), "tcp:", 4) == 0) {
                int n = snprintf(url, sizeof(url), "%s", plait_server_url(server, i));
                CHECK(write(port_pipe, url, (size_t)n + 1) == n + 1);
            }
    }
    CHECK_INT(plait_server_handle(server, "look", on_look, shared), 0);
    CHECK_INT(plait_server_handle(server, "touch", on_touch, shared), 0);
    CHECK_INT(plait_server_handle(server, "check", on_check, shared), 0);
    CHECK_INT(plait_server_handle(server, "make", on_make, shared), 0);
    CHECK_INT(plait_server_handle(server, "defer", on_defer, shared), 0);
    stopped_by_signal = server;
    signal(SIGUSR1, stop_server);
    CHECK_INT(plait_server_start(server), 0);
    CHECK_INT(pthread_create(&thread, NULL, answerer, shared), 0);
    atomic_store(&shared->ready, (uint32_t)getpid());
    while (!atomic_load(&shared->stop)) usleep(500);
    CHECK_INT(pthread_join(thread, NULL), 0);
    for (uint32_t i = atomic_load(&shared->answered); i < atomic_load(&shared->deferred); i++)
        plait_request_fail(kept[i], 1, "over");
    plait_server_close(server);
    leave(0);
}

static void stop(pid_t pid, struct shared *shared)
{
    atomic_store(&shared->stop, 1);
    CHECK_INT(test_wait_child(pid), 0);
    CHECK_INT(atomic_load(&shared->bad), 0);
    munmap(shared, sizeof(*shared));
}

static plait_loan *lend(plait_client *client, size_t size)
{
    plait_loan *loan = NULL;
    int r = plait_client_loan(client, size, NULL, &loan);
    if (r < 0) test_fail(__FILE__, __LINE__, "no loan of %zu bytes: %s", size, plait_error_text());
    CHECK(plait_loan_data(loan) != NULL);
    CHECK_INT(plait_loan_size(loan), size);
    CHECK_INT((uintptr_t)plait_loan_data(loan) % 64, 0);
    return loan;
}

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
    stop(server, shared);
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
    stop(server, shared);
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
    stop(server, shared);
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
    stop(server, shared);
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
    stop(server, shared);
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
    stop(server, shared);
}

/* ---- the ends of a loan ---- */

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
    stop(server, shared);
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
    stop(server, shared);
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
    stop(server, shared);
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
    CHECK_INT(atomic_load(&shared->answered), 1);
    check_all_there(client);
    plait_client_close(client);
    stop(server, shared);
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
    stop(server, shared);
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
    stop(server, shared);
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
    stop(server, shared);
}
