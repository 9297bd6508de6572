/* Handlers that take long, on threads that are no reactors. */
#include "base/clock.h"
#include "harness/test.h"
#include <plait/plait.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATIENCE_MS = 30000 };

static void until(_Atomic int *value, int least)
{
    uint64_t deadline = pl_clock_deadline(PATIENCE_MS, 0);
    while (atomic_load(value) < least) {
        if (pl_clock_ns() > deadline) test_fail(__FILE__, __LINE__, "%d instead of %d", atomic_load(value), least);
        poll(NULL, 0, 1);
    }
}

/* ---- handlers ---- */

static _Atomic int begun, released, ended;

static void slow(plait_request *request, void *context)
{
    (void)context;
    atomic_fetch_add(&begun, 1);
    until(&released, 1);
    CHECK_INT(plait_request_reply(request, "slow", 4), 0);
    atomic_fetch_add(&ended, 1);
}

static void quick(plait_request *request, void *context)
{
    (void)context;
    plait_bytes body = plait_request_body(request);
    plait_request_reply(request, body.data, body.size);
}

static void silent(plait_request *request, void *context)
{
    (void)request;
    (void)context;
}

static plait_request *kept;
static _Atomic int keeping;
static void keep(plait_request *request, void *context)
{
    plait_request *again;
    (void)context;
    CHECK_INT(plait_request_defer(request, &kept), 0);
    CHECK_INT(plait_request_defer(request, &again), -EALREADY);
    CHECK_INT(plait_request_reply(request, "no", 2), -EALREADY);
    atomic_store(&keeping, 1);
}

/* As on a reactor: what was answered is still there until the handler returns. */
static void answer_and_look(plait_request *request, void *context)
{
    (void)context;
    CHECK_INT(plait_request_reply(request, "first", 5), 0);
    CHECK_INT(plait_request_reply(request, "second", 6), -EALREADY);
    CHECK_INT(plait_request_fail(request, 3, "late"), -EALREADY);
    CHECK_STR(plait_request_method(request), "look");
    CHECK_MEM(plait_request_body(request).data, "body", 4);
}

/* ---- a server with a pool, and a client ---- */

struct rig {
    plait_server *server;
    plait_pool *pool;
    plait_client *client;
    int over, results[16];
};

static void open_rig(struct rig *rig, int threads, unsigned queue)
{
    plait_pool_options options = PLAIT_POOL_OPTIONS_INIT;
    *rig = (struct rig){ .over = 0 };
    atomic_store(&begun, 0);
    atomic_store(&released, 0);
    atomic_store(&ended, 0);
    options.threads = threads;
    options.queue = queue;
    options.name = "long";
    CHECK_INT(plait_pool_open(&rig->pool, &options), 0);
    CHECK_INT(plait_server_open(&rig->server, "pooled", NULL), 0);
    CHECK_INT(plait_server_handle(rig->server, "quick", quick, NULL), 0);
    CHECK_INT(plait_pool_handle(rig->pool, rig->server, "slow", slow, NULL), 0);
    CHECK_INT(plait_pool_handle(rig->pool, rig->server, "silent", silent, NULL), 0);
    CHECK_INT(plait_pool_handle(rig->pool, rig->server, "keep", keep, NULL), 0);
    CHECK_INT(plait_pool_handle(rig->pool, rig->server, "look", answer_and_look, NULL), 0);
    CHECK_INT(plait_server_start(rig->server), 0);
    CHECK_INT(plait_client_open(&rig->client, "pooled", NULL), 0);
}

static void close_rig(struct rig *rig)
{
    plait_client_close(rig->client);
    plait_server_close(rig->server);
    plait_pool_close(rig->pool);
}

static void on_reply(int result, plait_reply *reply, void *context)
{
    struct rig *rig = context;
    rig->results[rig->over++] = result;
    plait_reply_free(reply);
}

static void call_slow(struct rig *rig, int count)
{
    for (int i = 0; i < count; i++)
        CHECK_INT(plait_client_call_async(rig->client, "slow", "x", 1, NULL, on_reply, rig, NULL), 0);
}

static void finish(struct rig *rig, int count)
{
    uint64_t deadline = pl_clock_deadline(PATIENCE_MS, 0);
    while (rig->over < count && pl_clock_ns() < deadline) CHECK(plait_client_dispatch(rig->client, 100) >= 0);
    CHECK_INT(rig->over, count);
}

/* What a look shows of the only pool. */
static plait_watch_pool look(void)
{
    plait_watch *watch;
    CHECK_INT(plait_watch_open(&watch, "pooled"), 0);
    CHECK_INT(plait_watch_pool_count(watch), 1);
    plait_watch_pool pool = *plait_watch_pool_at(watch, 0);
    CHECK_STR(pool.name, "long");
    CHECK(plait_watch_pool_at(watch, 1) == NULL);
    plait_watch_close(watch);
    return pool;
}

TEST(a_slow_handler_in_a_pool_leaves_the_server_s_thread_free)
{
    struct rig rig;
    plait_reply *reply;
    open_rig(&rig, 2, 0);
    call_slow(&rig, 2);
    until(&begun, 2); /* both at once, beside the only reactor */
    for (int i = 0; i < 10; i++) {
        CHECK_INT(plait_client_call(rig.client, "quick", "y", 1, NULL, &reply), 0);
        CHECK_MEM(plait_reply_body(reply).data, "y", 1);
        plait_reply_free(reply);
    }
    CHECK_INT(rig.over, 0);
    atomic_store(&released, 1);
    finish(&rig, 2);
    CHECK(rig.results[0] == 0 && rig.results[1] == 0);
    close_rig(&rig);
}

TEST(a_full_queue_refuses_and_both_length_and_age_are_seen)
{
    struct rig rig;
    open_rig(&rig, 1, 3);
    call_slow(&rig, 1);
    until(&begun, 1);
    call_slow(&rig, 3);
    uint64_t deadline = pl_clock_deadline(PATIENCE_MS, 0);
    while (look().waiting < 3 && pl_clock_ns() < deadline) poll(NULL, 0, 1);
    uint64_t before = look().oldest_us;
    poll(NULL, 0, 20);
    plait_watch_pool pool = look();
    CHECK_INT(pool.pid, getpid());
    CHECK_INT(pool.waiting, 3);
    CHECK(pool.oldest_us >= before + 15000);
    CHECK_INT(pool.threads, 1);
    CHECK_INT(pool.capacity, 3);
    CHECK_INT(pool.taken, 1);
    CHECK_INT(pool.refused, 0);
    CHECK_INT(plait_client_call(rig.client, "slow", "x", 1, NULL, NULL), -EBUSY);
    CHECK_CONTAINS(plait_error_text(), "pool long: 3 requests wait already (queue=3)");
    CHECK_INT(look().refused, 1);
    atomic_store(&released, 1);
    finish(&rig, 4);
    CHECK_INT(atomic_load(&begun), 4);
    CHECK_INT(look().waiting, 0);
    CHECK_INT(look().oldest_us, 0);
    close_rig(&rig);
}

TEST(the_threads_of_a_pool_are_seen_with_what_they_handle)
{
    struct rig rig;
    open_rig(&rig, 1, 0);
    call_slow(&rig, 1);
    until(&begun, 1);
    plait_watch *watch;
    CHECK_INT(plait_watch_open(&watch, "pooled"), 0);
    int seen = 0;
    for (size_t i = 0; i < plait_watch_thread_count(watch); i++) {
        const plait_watch_thread *thread = plait_watch_thread_at(watch, i);
        if (strcmp(thread->role, "pool") != 0) continue;
        CHECK_STR(thread->name, "plait/long/0");
        CHECK_STR(thread->service, "pooled");
        CHECK_STR(thread->method, "slow");
        seen++;
    }
    CHECK_INT(seen, 1);
    plait_watch_close(watch);
    atomic_store(&released, 1);
    finish(&rig, 1);
    close_rig(&rig);
}

TEST(a_pooled_handler_may_defer_and_must_answer)
{
    struct rig rig;
    open_rig(&rig, 1, 0);
    CHECK_INT(plait_client_call(rig.client, "silent", "x", 1, NULL, NULL), -EREMOTEIO);
    CHECK_INT(plait_client_call(rig.client, "look", "body", 4, NULL, NULL), 0);
    CHECK_INT(plait_client_call_async(rig.client, "keep", "body", 4, NULL, on_reply, &rig, NULL), 0);
    until(&keeping, 1);
    CHECK_MEM(plait_request_body(kept).data, "body", 4);
    CHECK_INT(plait_request_reply(kept, "z", 1), 0);
    finish(&rig, 1);
    CHECK_INT(rig.results[0], 0);
    close_rig(&rig);
}

TEST(what_nobody_waits_for_any_more_is_not_handled)
{
    struct rig rig;
    plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
    open_rig(&rig, 1, 0);
    call_slow(&rig, 1);
    until(&begun, 1);
    options.timeout = 30;
    CHECK_INT(plait_client_call(rig.client, "slow", "x", 1, &options, NULL), -ETIMEDOUT);
    atomic_store(&released, 1);
    finish(&rig, 1);
    CHECK_INT(plait_client_call(rig.client, "slow", "x", 1, NULL, NULL), 0);
    CHECK_INT(atomic_load(&begun), 2); /* the first and the last */
    close_rig(&rig);
}

static void *release_soon(void *unused)
{
    poll(NULL, 0, 30);
    atomic_store(&released, 1);
    return unused;
}

TEST(closing_fails_what_waits_and_waits_for_what_is_handled)
{
    struct rig rig;
    pthread_t thread;
    open_rig(&rig, 1, 0);
    call_slow(&rig, 1);
    until(&begun, 1);
    call_slow(&rig, 2);
    uint64_t deadline = pl_clock_deadline(PATIENCE_MS, 0);
    while (look().waiting < 2 && pl_clock_ns() < deadline) poll(NULL, 0, 1);
    CHECK_INT(pthread_create(&thread, NULL, release_soon, NULL), 0);
    plait_pool_close(rig.pool);
    CHECK_INT(atomic_load(&ended), 1);
    finish(&rig, 3);
    CHECK_INT(rig.results[0], -ECONNRESET);
    CHECK_INT(rig.results[1], -ECONNRESET);
    CHECK_INT(rig.results[2], 0);
    pthread_join(thread, NULL);
    rig.pool = NULL;
    close_rig(&rig);
}

TEST(a_pool_that_was_opened_before_fork_works_in_the_child_and_in_the_parent)
{
    struct rig rig;
    if (test_sanitized()) SKIP("ThreadSanitizer lets no child of a process with threads have any");
    open_rig(&rig, 2, 0);
    atomic_store(&released, 1);
    CHECK_INT(plait_client_call(rig.client, "slow", "x", 1, NULL, NULL), 0);
    pid_t pid = fork();
    if (pid == 0) {
        plait_server *server;
        plait_client *client;
        CHECK_INT(plait_server_open(&server, "child", NULL), 0);
        CHECK_INT(plait_pool_handle(rig.pool, server, "slow", slow, NULL), 0);
        CHECK_INT(plait_server_start(server), 0);
        CHECK_INT(plait_client_open(&client, "child", NULL), 0);
        for (int i = 0; i < 5; i++) CHECK_INT(plait_client_call(client, "slow", "x", 1, NULL, NULL), 0);
        plait_client_close(client);
        plait_server_close(server);
        plait_pool_close(rig.pool);
        _exit(0);
    }
    CHECK_INT(test_wait_child(pid), 0);
    CHECK_INT(plait_client_call(rig.client, "slow", "x", 1, NULL, NULL), 0);
    close_rig(&rig);
}

static void slow_into_nowhere(plait_request *request, void *context)
{
    (void)context;
    atomic_fetch_add(&begun, 1);
    until(&released, 1);
    CHECK_INT(plait_request_cancelled(request), 1);
    CHECK_INT(plait_request_reply(request, "slow", 4), -ECONNRESET);
    atomic_fetch_add(&ended, 1);
}

TEST(a_pool_outlives_servers_that_left_it_requests)
{
    struct rig rig;
    open_rig(&rig, 1, 0);
    plait_server *other;
    CHECK_INT(plait_server_open(&other, "leaving", NULL), 0);
    CHECK_INT(plait_pool_handle(rig.pool, other, "", slow_into_nowhere, NULL), 0);
    CHECK_INT(plait_server_start(other), 0);
    plait_client *client;
    CHECK_INT(plait_client_open(&client, "leaving", NULL), 0);
    for (int i = 0; i < 3; i++) CHECK_INT(plait_client_call_async(client, "", "x", 1, NULL, on_reply, &rig, NULL), 0);
    until(&begun, 1);
    CHECK_INT(plait_server_stop(other, 1), 0);
    plait_server_close(other);
    atomic_store(&released, 1);
    CHECK_INT(plait_client_call(rig.client, "slow", "x", 1, NULL, NULL), 0);
    CHECK_INT(atomic_load(&begun), 2); /* those that waited had nobody to be answered */
    plait_client_close(client);
    close_rig(&rig);
}

static void pass_on_too_late(plait_request *request, void *context)
{
    atomic_fetch_add(&begun, 1);
    until(&released, 1);
    CHECK_INT(plait_pool_submit(context, request, quick, NULL), -ECONNRESET);
    CHECK(strstr(plait_error_text(), "gone") != NULL);
    atomic_fetch_add(&ended, 1);
}

static void pass_on(plait_request *request, void *context)
{
    CHECK_INT(plait_pool_submit(context, request, quick, NULL), 0);
}

TEST(a_pooled_handler_may_pass_its_request_on_and_is_told_where_its_server_is_gone)
{
    struct rig rig;
    open_rig(&rig, 2, 0);
    plait_server *other;
    CHECK_INT(plait_server_open(&other, "leaving", NULL), 0);
    CHECK_INT(plait_pool_handle(rig.pool, other, "late", pass_on_too_late, rig.pool), 0);
    CHECK_INT(plait_pool_handle(rig.pool, other, "on", pass_on, rig.pool), 0);
    CHECK_INT(plait_server_start(other), 0);
    plait_client *client;
    plait_reply *reply;
    CHECK_INT(plait_client_open(&client, "leaving", NULL), 0);
    CHECK_INT(plait_client_call(client, "on", "body", 4, NULL, &reply), 0);
    CHECK_MEM(plait_reply_body(reply).data, "body", 4);
    plait_reply_free(reply);
    CHECK_INT(plait_client_call_async(client, "late", "x", 1, NULL, on_reply, &rig, NULL), 0);
    until(&begun, 1);
    CHECK_INT(plait_server_stop(other, 1), 0);
    plait_server_close(other);
    atomic_store(&released, 1);
    until(&ended, 1);
    plait_client_close(client);
    close_rig(&rig);
}

TEST(wrong_options_are_refused_with_the_limit_s_name)
{
    plait_pool *pool = NULL;
    plait_pool_options options = PLAIT_POOL_OPTIONS_INIT;
    options.threads = -1;
    CHECK_INT(plait_pool_open(&pool, &options), -EINVAL);
    CHECK_CONTAINS(plait_error_text(), "PLAIT_POOL_THREADS_MAX");
    options.threads = 257;
    CHECK_INT(plait_pool_open(&pool, &options), -EINVAL);
    options.threads = 1;
    options.queue = PLAIT_POOL_QUEUE_MAX + 1;
    CHECK_INT(plait_pool_open(&pool, &options), -EINVAL);
    CHECK_CONTAINS(plait_error_text(), "PLAIT_POOL_QUEUE_MAX");
    CHECK(pool == NULL);
    plait_pool_close(NULL);
}
