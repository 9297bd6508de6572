/* instances: several servers of one name, their coming and going, and the clients that stay. */
#include "system/system.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct serve one = { .name = "many" };

/* Requests that the status page of the instance with this PID counts; -1: not shown. */
static int64_t requests_of(pid_t pid, int32_t *ret_stopped, size_t *ret_connections)
{
    plait_watch *watch = NULL;
    int64_t requests = -1;
    CHECK_INT(plait_watch_open(&watch, "many"), 0);
    for (size_t i = 0; i < plait_watch_count(watch); i++) {
        const plait_watch_instance *instance = plait_watch_at(watch, i);
        if (instance->pid != pid) continue;
        requests = (int64_t)instance->requests;
        if (ret_stopped) *ret_stopped = instance->stopped;
        if (ret_connections) *ret_connections = instance->connection_count;
    }
    plait_watch_close(watch);
    return requests;
}

static void on_reply(int result, plait_reply *reply, void *context)
{
    if (result < 0) test_fail(__FILE__, __LINE__, "a call failed: %s", plait_error_text());
    plait_reply_free(reply);
    ++*(int *)context;
}

static void call_many(plait_client *client, int count, int *over)
{
    for (int i = 0; i < count; i++)
        CHECK_INT(plait_client_call_async(client, "", "12345678", 8, NULL, on_reply, over, NULL), 0);
}

static void finish_calls(plait_client *client, int count, const int *over)
{
    int64_t until = now_ms() + PATIENCE_MS;
    while (*over < count && now_ms() < until) CHECK(plait_client_dispatch(client, 100) >= 0);
    CHECK_INT(*over, count);
}

/* Calls in bursts until all of the servers have got some. */
static void reach_all(plait_client *client, const struct started *servers, int count)
{
    int64_t until = now_ms() + PATIENCE_MS;
    for (int reached = 0; reached < count;) {
        int over = 0;
        call_many(client, 50, &over);
        finish_calls(client, 50, &over);
        reached = 0;
        for (int i = 0; i < count; i++) reached += requests_of(servers[i].pid, NULL, NULL) > 0;
        if (now_ms() > until) test_fail(__FILE__, __LINE__, "only %d of %d instances were called", reached, count);
    }
}

TEST(one_busy_client_uses_all_instances)
{
    struct board *board = board_new();
    struct started servers[3];
    for (int i = 0; i < 3; i++) servers[i] = serve(board, &one);
    plait_client *client = open_client("many", NULL);
    reach_all(client, servers, 3);
    plait_client_close(client);
    for (int i = 0; i < 3; i++) end_server(&servers[i]);
    board_free(board);
}

TEST(many_clients_spread_over_the_instances)
{
    enum { CLIENTS = 24 };
    struct board *board = board_new();
    struct started servers[3];
    plait_client *clients[CLIENTS];
    size_t connections[3] = { 0 };
    for (int i = 0; i < 3; i++) servers[i] = serve(board, &one);
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = open_client("many", NULL);
        CHECK_INT(checked_call(board, clients[i], 8, 0, 0), 0);
    }
    for (int i = 0; i < 3; i++) {
        CHECK(requests_of(servers[i].pid, NULL, &connections[i]) >= 0);
        /* Chance has it that 24 clients never leave one of three alone but once in 5,000 times. */
        CHECK(connections[i] > 0);
    }
    for (int i = 0; i < CLIENTS; i++) plait_client_close(clients[i]);
    for (int i = 0; i < 3; i++) end_server(&servers[i]);
    board_free(board);
}

/* An instance of the name that speaks another major version of the protocol, until it is killed. */
static pid_t start_another_version(void)
{
    int ready[2];
    char byte;
    CHECK_INT(pipe(ready), 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        plait_server *server = NULL;
        int listener = -1, on = 0;
        CHECK_INT(plait_server_open(&server, "many", NULL), 0);
        for (int fd = 3; fd < 100 && listener < 0; fd++) {
            socklen_t size = sizeof(on);
            if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &size) == 0 && on) listener = fd;
        }
        CHECK(listener >= 0);
        CHECK_INT(write(ready[1], "r", 1), 1);
        for (;;) {
            uint8_t answer[64] = { 'P', 'L', 'A', 'S', 99 }, hello[132];
            int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
            if (fd < 0) {
                pause_ms(1);
                continue;
            }
            (void)!recv(fd, hello, sizeof(hello), 0);
            (void)!send(fd, answer, sizeof(answer), MSG_NOSIGNAL);
            close(fd);
        }
    }
    CHECK_INT(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    close(ready[1]);
    return pid;
}

TEST(an_instance_of_another_version_hides_none_that_can_be_talked_to)
{
    struct board *board = board_new();
    plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
    plait_client *client = NULL;
    options.connect_timeout = 2000;
    pid_t stranger = start_another_version();
    CHECK_INT(plait_client_open(&client, "many", &options), -EPROTO);
    CHECK_CONTAINS(plait_error_text(), "99");
    struct started server = serve(board, &one);
    for (int i = 0; i < 12; i++) { /* the start among the instances is random */
        client = open_client("many", NULL);
        CHECK_INT(checked_call(board, client, 8, 0, 0), 0);
        plait_client_close(client);
    }
    end_server(&server);
    kill_process(stranger);
    board_free(board);
}

TEST(rolling_restarts_under_load_fail_no_call)
{
    enum { LOAD = 4, RESTARTS = 15 };
    static const char *const targets[LOAD] = { "many", "many?shm=off", "many", "many?shm=off" };
    struct board *board = board_new();
    struct started servers[2];
    pid_t pids[LOAD];
    for (int i = 0; i < 2; i++) servers[i] = serve(board, &one);
    for (unsigned i = 0; i < LOAD; i++) pids[i] = caller_start(board, i, targets[i], false);
    callers_advance(board, LOAD);
    for (int i = 0; i < RESTARTS; i++) {
        end_server(&servers[i % 2]);
        callers_advance(board, LOAD);
        servers[i % 2] = serve(board, &one);
    }
    callers_end(board, pids, LOAD);
    for (int i = 0; i < 2; i++) end_server(&servers[i]);
    CHECK_INT(entries_of_names(), 0);
    board_free(board);
}

/* Many calls are on their way when the server stops: what lies beyond its GOAWAY runs elsewhere. */
static void check_pipelined_drain(const char *target)
{
    enum { BURST = 400, RESTARTS = 20 };
    static const char body[2000];
    struct board *board = board_new();
    struct started servers[2];
    for (int i = 0; i < 2; i++) servers[i] = serve(board, &one);
    plait_client *client = open_client(target, NULL);
    reach_all(client, servers, 2);
    for (int i = 0; i < RESTARTS; i++) {
        int over = 0;
        await_running(&servers[i % 2]);
        for (int j = 0; j < BURST; j++) {
            if (j == BURST / 2) CHECK_INT(kill(servers[i % 2].pid, SIGTERM), 0);
            CHECK_INT(plait_client_call_async(client, "", body, sizeof(body), NULL, on_reply, &over, NULL), 0);
        }
        finish_calls(client, BURST, &over);
        CHECK_INT(test_wait_child(servers[i % 2].pid), 0);
        servers[i % 2] = serve(board, &one);
        over = 0;
        call_many(client, 50, &over);
        finish_calls(client, 50, &over);
    }
    plait_client_close(client);
    for (int i = 0; i < 2; i++) end_server(&servers[i]);
    board_free(board);
}

TEST(many_calls_under_way_survive_a_drain_over_shared_memory)
{
    check_pipelined_drain("many");
}

TEST(many_calls_under_way_survive_a_drain_over_a_socket)
{
    check_pipelined_drain("many?shm=off");
}

TEST(calls_wait_while_the_only_instance_restarts)
{
    enum { LOAD = 2 };
    struct board *board = board_new();
    struct started server = serve(board, &one);
    pid_t pids[LOAD] = { caller_start(board, 0, "many", false), caller_start(board, 1, "many?shm=off", false) };
    callers_advance(board, LOAD);
    for (int i = 0; i < 20; i++) {
        end_server(&server);
        uint32_t before = atomic_load(&board->next);
        if (i % 2) WAIT_UNTIL(state_of(pids[0]) == 'S' && state_of(pids[1]) == 'S');
        CHECK(atomic_load(&board->next) <= before + LOAD);
        server = serve(board, &one);
        callers_advance(board, LOAD);
    }
    callers_end(board, pids, LOAD);
    end_server(&server);
    board_free(board);
}

/* What the server has taken is answered although it stops meanwhile; the next call goes to the next server. */
static void check_goaway(const char *listen, const char *target)
{
    struct board *board = board_new();
    struct serve what = { .name = "many" };
    what.listen[0] = listen;
    struct started server = serve(board, &what);
    if (target == NULL) target = server.url[0];
    static char url[200];
    snprintf(url, sizeof(url), "%s", target);
    pid_t caller = caller_start(board, 0, url, false);
    callers_advance(board, 1);
    caller_order(board, 0, ORDER_DEFER);
    WAIT_UNTIL(atomic_load(&board->deferred) == 1);
    CHECK_INT(kill(server.pid, SIGTERM), 0);
    WAIT_UNTIL(entries_of_names() == 0);
    CHECK_INT(waitpid(server.pid, NULL, WNOHANG), 0); /* it owes an answer */
    atomic_store(&board->release, 1);
    CHECK_INT(test_wait_child(server.pid), 0);
    CHECK_INT(atomic_load(&board->answer_result), 0);
    what.listen[0] = server.url[0][0] ? server.url[0] : NULL; /* the same port */
    server = serve(board, &what);
    callers_advance(board, 1);
    callers_end(board, &caller, 1);
    end_server(&server);
    board_free(board);
}

TEST(a_stopping_server_answers_what_it_took_over_shared_memory)
{
    check_goaway(NULL, "many");
}

TEST(a_stopping_server_answers_what_it_took_over_a_socket)
{
    check_goaway(NULL, "many?shm=off");
}

TEST(a_stopping_server_answers_what_it_took_over_tcp)
{
    check_goaway("tcp://127.0.0.1:0", NULL);
}

TEST(a_stopped_instance_is_avoided_while_another_lives)
{
    enum { DEFERRED = 60 };
    struct board *board = board_new();
    struct started servers[2];
    for (int i = 0; i < 2; i++) servers[i] = serve(board, &one);
    plait_client *client = open_client("many", NULL);
    reach_all(client, servers, 2);
    CHECK_INT(kill(servers[0].pid, SIGSTOP), 0);
    WAIT_UNTIL(state_of(servers[0].pid) == 'T');
    int over = 0;
    call_many(client, 40, &over); /* some of them go to the one that doesn't move */
    int64_t until = now_ms() + 200;
    while (now_ms() < until) CHECK(plait_client_dispatch(client, 10) >= 0);
    CHECK(over < 40);
    for (int i = 0; i < 100; i++) CHECK_INT(checked_call(board, client, 8, 0, 5000), 0);
    /* Also when the other has more to do by now than the one that is stuck. */
    for (int i = 0; i < DEFERRED; i++)
        CHECK_INT(plait_client_call_async(client, "defer", "\0\0\0\0\0\0\0\0", 8, NULL, on_reply, &over, NULL), 0);
    WAIT_UNTIL(atomic_load(&board->deferred) == DEFERRED);
    atomic_store(&board->release, 1);
    CHECK_INT(kill(servers[0].pid, SIGCONT), 0);
    finish_calls(client, 40 + DEFERRED, &over);
    plait_client_close(client);
    for (int i = 0; i < 2; i++) end_server(&servers[i]);
    board_free(board);
}

TEST(an_instance_that_was_stopped_when_it_was_looked_for_is_called_later)
{
    struct board *board = board_new();
    struct started servers[2];
    servers[0] = serve(board, &one);
    plait_client *client = open_client("many", NULL);
    servers[1] = serve(board, &one);
    CHECK_INT(kill(servers[1].pid, SIGSTOP), 0);
    WAIT_UNTIL(state_of(servers[1].pid) == 'T');
    pause_ms(100); /* names that came just now are looked at again in any case */
    for (int i = 0; i < 20; i++) {
        int over = 0;
        call_many(client, 40, &over); /* a further connection would be welcome */
        finish_calls(client, 40, &over);
    }
    CHECK_INT(kill(servers[1].pid, SIGCONT), 0);
    reach_all(client, servers, 2);
    plait_client_close(client);
    for (int i = 0; i < 2; i++) end_server(&servers[i]);
    board_free(board);
}

TEST(the_list_is_right_while_a_server_is_stopped)
{
    struct board *board = board_new();
    struct started server = serve(board, &one);
    plait_client *client = open_client("many", NULL);
    for (int i = 0; i < 7; i++) CHECK_INT(checked_call(board, client, 8, 0, 0), 0);
    CHECK_INT(kill(server.pid, SIGSTOP), 0);
    WAIT_UNTIL(state_of(server.pid) == 'T');
    int32_t stopped = 0;
    size_t connections = 0;
    CHECK_INT(requests_of(server.pid, &stopped, &connections), 7);
    CHECK_INT(stopped, 1);
    CHECK_INT(connections, 1);

    char line[4096] = "", pid[32];
    FILE *list = popen("plait ls --json many", "re");
    CHECK(list != NULL);
    size_t size = fread(line, 1, sizeof(line) - 1, list);
    line[size] = 0;
    CHECK_INT(pclose(list), 0);
    snprintf(pid, sizeof(pid), "%d", (int)server.pid);
    CHECK_CONTAINS(line, "many");
    CHECK_CONTAINS(line, pid);
    CHECK_INT(kill(server.pid, SIGCONT), 0);
    plait_client_close(client);
    end_server(&server);
    board_free(board);
}

/* In the handler when its server dies: an idempotent call goes to the next one, by itself. */
static void check_retry(const char *target)
{
    struct board *board = board_new();
    struct started server = serve(board, &one);
    pid_t caller = fork();
    CHECK(caller >= 0);
    if (caller == 0) {
        plait_client *client = open_client(target, NULL);
        plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
        plait_reply *reply = NULL;
        options.flags = PLAIT_CALL_IDEMPOTENT;
        int r = plait_client_call(client, "hang", "\0\0\0\0\0\0\0\0", 8, &options, &reply);
        if (r < 0) test_fail(__FILE__, __LINE__, "an idempotent call failed: %s", plait_error_text());
        CHECK_MEM(plait_reply_body(reply).data, "hung", 4);
        plait_reply_free(reply);
        plait_client_close(client);
        leave(0);
    }
    for (int i = 0; i < 3; i++) {
        WAIT_UNTIL(atomic_load(&board->in_handler) == server.pid);
        kill_process(server.pid);
        server = serve(board, &one);
    }
    WAIT_UNTIL(atomic_load(&board->in_handler) == server.pid);
    atomic_store(&board->release, 1);
    CHECK_INT(test_wait_child(caller), 0);
    end_server(&server);
    board_free(board);
}

TEST(an_idempotent_call_survives_its_servers_over_shared_memory)
{
    check_retry("many");
}

TEST(an_idempotent_call_survives_its_servers_over_a_socket)
{
    check_retry("many?shm=off");
}

TEST(an_exclusive_name_goes_on_to_the_next_when_its_holder_is_killed)
{
    struct board *board = board_new();
    struct serve exclusive = { .name = "single", .options = { .size = sizeof(plait_server_options), .exclusive = 1 } };
    struct started server = serve(board, &exclusive);
    struct serve second = exclusive;
    second.fails = true;
    for (int i = 0; i < 20; i++) {
        struct started refused = serve(board, &second);
        char pid[32];
        CHECK_INT(refused.result, -EADDRINUSE);
        snprintf(pid, sizeof(pid), "%d", (int)server.pid);
        CHECK_CONTAINS(refused.error, pid);
        kill_process(server.pid);
        server = serve(board, &exclusive);
    }
    end_server(&server);
    board_free(board);
}
