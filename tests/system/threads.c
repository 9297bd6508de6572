/* threads: one client and many threads; ends that come while something is still going on. */
#include "system/system.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { THREADS = 16, CALLS = 300 };

struct shared {
    struct board *board;
    plait_client *client;
};

static void *call_much(void *context)
{
    struct shared *shared = context;
    static const size_t sizes[] = { 8, 100, 8000, 20000 };
    for (int i = 0; i < CALLS; i++) CHECK_INT(checked_call(shared->board, shared->client, sizes[i % 4], 0, 0), 0);
    caller_forget();
    return NULL;
}

static void check_threads(const char *target, int reactors)
{
    struct board *board = board_new();
    struct started server =
        serve(board, &(struct serve){ .name = "busy",
                                      .options = { .size = sizeof(plait_server_options), .threads = reactors } });
    struct shared shared = { board, open_client(target, NULL) };
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) CHECK_INT(pthread_create(&threads[i], NULL, call_much, &shared), 0);
    for (int i = 0; i < THREADS; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
    plait_client_close(shared.client);
    end_server(&server);
    board_free(board);
}

TEST(many_threads_of_one_client_get_their_own_answers_over_shared_memory)
{
    check_threads("busy", 1);
}
TEST(many_threads_of_one_client_get_their_own_answers_from_many_reactors)
{
    check_threads("busy", 4);
}
TEST(many_threads_of_one_client_get_their_own_answers_over_a_socket)
{
    check_threads("busy?shm=off", 2);
}

static void cancelled(int result, plait_reply *reply, void *context)
{
    CHECK_INT(result, -ECANCELED);
    CHECK(reply == NULL);
    ++*(int *)context;
}

static void check_close(const char *target)
{
    struct board *board = board_new();
    struct started server = serve(board, &(struct serve){ .name = "busy" });
    plait_client *client = open_client(target, NULL);
    int told = 0;
    for (int i = 0; i < 20; i++)
        CHECK_INT(plait_client_call_async(client, "defer", "\0\0\0\0\0\0\0\0", 8, NULL, cancelled, &told, NULL), 0);
    WAIT_UNTIL(atomic_load(&board->deferred) == 20);
    plait_client_close(client);
    CHECK_INT(told, 20);
    atomic_store(&board->release, 1); /* the answers go nowhere */
    WAIT_UNTIL(atomic_load(&board->answered) == 20);
    client = open_client(target, NULL);
    CHECK_INT(checked_call(board, client, 8, 0, 0), 0);
    plait_client_close(client);
    end_server(&server);
    board_free(board);
}

TEST(a_client_that_closes_tells_each_call_and_the_server_goes_on)
{
    check_close("busy");
    check_close("busy?shm=off");
}

/* ---- a server that closes before its deferred requests are answered ---- */

static plait_request *kept[8];
static _Atomic int kept_count;

static void keep(plait_request *request, void *context)
{
    (void)context;
    CHECK_INT(plait_request_defer(request, &kept[atomic_load(&kept_count)]), 0);
    atomic_fetch_add(&kept_count, 1);
}

static void gone(int result, plait_reply *reply, void *context)
{
    CHECK(result < 0);
    plait_reply_free(reply);
    ++*(int *)context;
}

static void check_late_answers(const char *target)
{
    plait_server *server = NULL;
    atomic_store(&kept_count, 0);
    CHECK_INT(plait_server_open(&server, "leaving", NULL), 0);
    CHECK_INT(plait_server_handle(server, "", keep, NULL), 0);
    CHECK_INT(plait_server_start(server), 0);
    plait_client *client = open_client(target, NULL);
    plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
    options.timeout = 3000;
    int told = 0;
    for (int i = 0; i < 8; i++)
        CHECK_INT(plait_client_call_async(client, "", "body", 4, &options, gone, &told, NULL), 0);
    WAIT_UNTIL(atomic_load(&kept_count) == 8);
    CHECK_INT(plait_server_stop(server, 50), 0);
    plait_server_close(server);
    for (int i = 0; i < 8; i++) {
        CHECK_INT(plait_request_body(kept[i]).size, 4);
        CHECK_MEM(plait_request_body(kept[i]).data, "body", 4);
        CHECK_INT(plait_request_cancelled(kept[i]), 1);
        CHECK_INT(plait_request_reply(kept[i], "late", 4), -ECONNRESET);
        CHECK(plait_error_text()[0] != 0);
    }
    WAIT_UNTIL(plait_client_dispatch(client, 10) >= 0 && told == 8);
    plait_client_close(client);
}

TEST(requests_outlive_their_server_and_are_answered_into_nowhere)
{
    check_late_answers("leaving");
    check_late_answers("leaving?shm=off");
}

/* ---- one client, many reactors ---- */

enum { REACTORS = 16 };
struct gathering {
    _Atomic int here, released;
};

static void gather(plait_request *request, void *context)
{
    struct gathering *gathering = context;
    int64_t until = now_ms() + PATIENCE_MS;
    atomic_fetch_add(&gathering->here, 1);
    while (!atomic_load(&gathering->released) && now_ms() < until) pause_ms(1);
    plait_request_reply(request, "met", 3);
}

static void met(int result, plait_reply *reply, void *context)
{
    if (result < 0) test_fail(__FILE__, __LINE__, "%s", plait_error_text());
    plait_reply_free(reply);
    ++*(int *)context;
}

/* No two of the calls can end before all of them run. */
static void check_spread(const char *target, const char *listen)
{
    static struct gathering gathering;
    plait_server *server = NULL;
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    int over = 0;
    gathering = (struct gathering){ 0, 0 };
    options.threads = REACTORS;
    CHECK_INT(plait_server_open(&server, "spread", &options), 0);
    CHECK_INT(plait_server_handle(server, "", gather, &gathering), 0);
    if (listen) CHECK_INT(plait_server_listen(server, listen), 0);
    CHECK_INT(plait_server_start(server), 0);
    plait_client *client = open_client(listen ? plait_server_url(server, 0) : target, NULL);
    for (int i = 0; i < REACTORS; i++)
        CHECK_INT(plait_client_call_async(client, "", "x", 1, NULL, met, &over, NULL), 0);
    WAIT_UNTIL(atomic_load(&gathering.here) == REACTORS);
    atomic_store(&gathering.released, 1);
    WAIT_UNTIL(plait_client_dispatch(client, 10) >= 0 && over == REACTORS);
    plait_client_close(client);
    plait_server_close(server);
}

TEST(sixteen_calls_of_one_asynchronous_client_run_at_once_on_sixteen_threads)
{
    check_spread("spread", NULL);
    check_spread("spread?shm=off", NULL);
    check_spread(NULL, "tcp://127.0.0.1:0");
}

/* ---- handlers that call their own server ---- */

static _Atomic(plait_client *) to_self; /* seq_cst will do */

/* "ordered": on the first connection; "open": by a client of its own; else by one that was open before. */
static void ask_self(plait_request *request, void *context)
{
    plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
    plait_bytes body = plait_request_body(request);
    plait_client *client = to_self;
    int r = 0;
    (void)context;
    options.timeout = PATIENCE_MS;
    if (body.size == 7) options.flags = PLAIT_CALL_ORDERED;
    if (body.size == 4) r = plait_client_open(&client, "selfish", NULL);
    if (r == 0) r = plait_client_call(client, "echo", "x", 1, &options, NULL);
    plait_request_replyf(request, "%d %s", r, r < 0 ? plait_error_text() : "");
    if (client != to_self) plait_client_close(client);
}

static void echo(plait_request *request, void *context)
{
    plait_bytes body = plait_request_body(request);
    (void)context;
    plait_request_reply(request, body.data, body.size);
}

static plait_server *start_selfish(int threads)
{
    plait_server *server = NULL;
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    options.threads = threads;
    CHECK_INT(plait_server_open(&server, "selfish", &options), 0);
    CHECK_INT(plait_server_handle(server, "ask", ask_self, NULL), 0);
    CHECK_INT(plait_server_handle(server, "echo", echo, NULL), 0);
    CHECK_INT(plait_server_start(server), 0);
    return server;
}

static int ask(plait_client *client, const char *how, const char *text)
{
    plait_reply *reply = NULL;
    char answer[600];
    int r = plait_client_call(client, "ask", how, strlen(how), NULL, &reply);
    if (r < 0) test_fail(__FILE__, __LINE__, "%s", plait_error_text());
    plait_bytes body = plait_reply_body(reply);
    snprintf(answer, sizeof(answer), "%.*s", (int)body.size, (const char *)body.data);
    plait_reply_free(reply);
    if (atoi(answer) < 0) CHECK_CONTAINS(answer, text);
    return atoi(answer);
}

TEST(a_handler_s_call_to_its_own_server_never_waits_for_its_own_thread)
{
    plait_server *server = start_selfish(2);
    plait_client *clients[2];
    to_self = open_client("selfish", NULL);
    for (int i = 0; i < 2; i++) clients[i] = open_client("selfish", NULL); /* a thread each */
    int ordered[2] = { ask(clients[0], "ordered", "this very thread"), ask(clients[1], "ordered", "this very thread") };
    CHECK_INT(ordered[0] + ordered[1], -EDEADLK); /* one of them is TO_SELF's first connection's */
    for (int i = 0; i < 20; i++) CHECK_INT(ask(clients[i % 2], "any", ""), 0);
    for (int i = 0; i < 10; i++) CHECK_INT(ask(clients[i % 2], "open", ""), 0);
    for (int i = 0; i < 2; i++) plait_client_close(clients[i]);
    plait_client_close(to_self);
    plait_server_close(server);
}

TEST(a_handler_that_connects_to_its_own_only_thread_is_told_at_once)
{
    plait_server *server = start_selfish(1);
    plait_client *client = open_client("selfish", NULL);
    to_self = open_client("selfish", NULL);
    CHECK_INT(ask(client, "open", "connect outside of its handlers"), -EDEADLK);
    CHECK_INT(ask(client, "any", "this very thread"), -EDEADLK);
    plait_client_close(client);
    plait_client_close(to_self);
    plait_server_close(server);
}
