/* afterfork: fork(), signals, and silence: what plait must leave alone in its process. */
#include "system/system.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

static const struct serve plain = { .name = "plain" };

/* fork() without any atfork handler. */
static pid_t raw_fork(void)
{
    return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

static void no_reply(int result, plait_reply *reply, void *context)
{
    (void)result;
    (void)context;
    plait_reply_free(reply);
}

#define CHECK_CHILD(call)                                                                                              \
    do {                                                                                                               \
        CHECK_INT(call, -ECHILD);                                                                                      \
        CHECK_CONTAINS(plait_error_text(), "fork");                                                                    \
    } while (0)

static void check_client_in_child(plait_client *client)
{
    char **names;
    size_t count;
    uint64_t call;
    CHECK_CHILD(plait_client_call(client, "", "12345678", 8, NULL, NULL));
    CHECK_CHILD(plait_client_call_async(client, "", "12345678", 8, NULL, no_reply, NULL, &call));
    CHECK_CHILD(plait_client_send(client, "", "12345678", 8, NULL));
    CHECK_CHILD(plait_client_methods(client, &names, &count));
    CHECK_CHILD(plait_client_fd(client));
    CHECK_CHILD(plait_client_dispatch(client, PLAIT_NOW));
    CHECK_CHILD(plait_client_cancel(client, 1));
    plait_client_close(client);
}

static void check_client_fork(const char *target, pid_t (*forking)(void), bool hooked)
{
    struct board *board = board_new();
    struct started server = serve(board, &plain);
    size_t fds = test_count_fds();
    plait_client *client = open_client(target, NULL);
    CHECK_INT(checked_call(board, client, 64, 0, 0), 0);
    for (int i = 0; i < 3; i++) {
        pid_t child = forking();
        CHECK(child >= 0);
        if (child == 0) {
            if (hooked) CHECK_INT(test_count_fds(), fds);
            check_client_in_child(client);
            plait_client *own = open_client(target, NULL);
            CHECK_INT(checked_call(board, own, 20000, 0, 0), 0);
            plait_client_close(own);
            _exit(0);
        }
        CHECK_INT(checked_call(board, client, 20000, 0, 0), 0);
        CHECK_INT(test_wait_child(child), 0);
        CHECK_INT(checked_call(board, client, 200000, 0, 0), 0);
    }
    plait_client_close(client);
    end_server(&server);
    board_free(board);
}

TEST(a_client_belongs_to_the_process_that_opened_it)
{
    check_client_fork("plain", fork, true);
    check_client_fork("plain?shm=off", fork, true);
}

TEST(a_client_knows_of_forks_that_nobody_tells)
{
    check_client_fork("plain", raw_fork, false);
}

static _Atomic int churning;

static void echo(plait_request *request, void *context)
{
    plait_bytes body = plait_request_body(request);
    (void)context;
    plait_request_reply(request, body.data, body.size);
}

/* Opens, uses and closes servers and clients all the time. */
static void *churn(void *context)
{
    (void)context;
    while (churning) {
        plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
        plait_server *server = NULL;
        options.threads = 4;
        CHECK_INT(plait_server_open(&server, "churned", &options), 0);
        CHECK_INT(plait_server_handle(server, "", echo, NULL), 0);
        CHECK_INT(plait_server_listen(server, "tcp://127.0.0.1:0"), 0);
        CHECK_INT(plait_server_start(server), 0);
        plait_client *client = open_client("plain", NULL);
        plait_client_close(client);
        plait_server_close(server);
    }
    return NULL;
}

TEST(a_fork_amid_another_threads_work_harms_neither_side)
{
    enum { FORKS = 400 };
    struct board *board = board_new();
    struct started server = serve(board, &plain);
    plait_client *client = open_client("plain", NULL);
    pthread_t threads[2];
    churning = 1;
    for (int i = 0; i < 2; i++) CHECK_INT(pthread_create(&threads[i], NULL, churn, NULL), 0);
    for (int i = 0; i < FORKS; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            CHECK(fcntl(STDIN_FILENO, F_GETFD) >= 0); /* what would be closed by mistake is 0 */
            CHECK_CHILD(plait_client_call(client, "", "12345678", 8, NULL, NULL));
            if (i % 20 == 0) {
                plait_client *own = open_client("plain", NULL);
                CHECK_INT(checked_call(board, own, 64, 0, 0), 0);
                plait_client_close(own);
            }
            _exit(0);
        }
        CHECK_INT(test_wait_child(child), 0);
    }
    churning = 0;
    for (int i = 0; i < 2; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
    CHECK_INT(checked_call(board, client, 64, 0, 0), 0);
    plait_client_close(client);
    end_server(&server);
    board_free(board);
}

static void on_forking(plait_request *request, void *context)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK_CHILD(plait_request_reply(request, "child", 5));
        CHECK_CHILD(plait_server_stop(*(plait_server **)context, PLAIT_NOW));
        plait_server_close(*(plait_server **)context);
        _exit(0);
    }
    CHECK_INT(test_wait_child(child), 0);
    CHECK_INT(plait_request_reply(request, "parent", 6), 0);
}

TEST(a_server_belongs_to_the_process_that_opened_it)
{
    pid_t serving = fork();
    CHECK(serving >= 0);
    if (serving == 0) {
        plait_server *server = NULL;
        size_t fds = test_count_fds();
        CHECK_INT(plait_server_open(&server, "forking", NULL), 0);
        CHECK_INT(plait_server_handle(server, "", on_forking, &server), 0);
        CHECK_INT(plait_server_listen(server, "tcp://127.0.0.1:0"), 0);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            CHECK_INT(test_count_fds(), fds);
            CHECK_CHILD(plait_server_run(server));
            CHECK_CHILD(plait_server_start(server));
            CHECK_CHILD(plait_server_stop(server, 0));
            CHECK_CHILD(plait_server_fd(server));
            CHECK_CHILD(plait_server_dispatch(server, PLAIT_NOW));
            CHECK_CHILD(plait_server_handle(server, "x", on_forking, NULL));
            CHECK_CHILD(plait_server_listen(server, "tcp://127.0.0.1:0"));
            plait_server_close(server);
            _exit(0);
        }
        CHECK_INT(test_wait_child(child), 0);
        CHECK_INT(plait_server_run(server), 0);
        plait_server_close(server);
        leave(0);
    }
    plait_client *client = open_client("forking", NULL);
    for (int i = 0; i < 5; i++) {
        plait_reply *reply = NULL;
        CHECK_INT(plait_client_call(client, "", NULL, 0, NULL, &reply), 0);
        CHECK_MEM(plait_reply_body(reply).data, "parent", 6);
        plait_reply_free(reply);
    }
    plait_client_close(client);
    CHECK_INT(kill(serving, SIGTERM), 0);
    CHECK_INT(test_wait_child(serving), 0);
}

/* ---- children that hold what the dead had ---- */

static void on_keep(plait_request *request, void *context)
{
    _Atomic int32_t *keeper = context;
    pid_t child = raw_fork(); /* it holds sockets, locks, doorbells */
    if (child == 0)
        for (;;) pause();
    atomic_store(keeper, (int32_t)child);
    (void)plait_request_reply(request, "kept", 4);
}

static void on_never(plait_request *request, void *context)
{
    (void)request;
    atomic_store((_Atomic int32_t *)context, -1);
    for (;;) pause();
}

static pid_t serve_keeping(_Atomic int32_t *keeper)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid > 0) return pid;
    plait_server *server = NULL;
    CHECK_INT(plait_server_open(&server, "kept", NULL), 0);
    CHECK_INT(plait_server_handle(server, "keep", on_keep, keeper), 0);
    CHECK_INT(plait_server_handle(server, "never", on_never, keeper), 0);
    CHECK_INT(plait_server_run(server), 0);
    _exit(0);
}

static void check_keeper_of_server(const char *target)
{
    struct board *board = board_new();
    _Atomic int32_t *keeper = &board->in_handler;
    pid_t server = serve_keeping(keeper);
    plait_client *client = open_client(target, NULL);
    CHECK_INT(plait_client_call(client, "keep", NULL, 0, NULL, NULL), 0);
    pid_t holder = atomic_load(keeper);
    CHECK(holder > 0);
    pid_t killer = fork();
    CHECK(killer >= 0);
    if (killer == 0) {
        WAIT_UNTIL(atomic_load(keeper) == -1);
        kill(server, SIGKILL);
        _exit(0);
    }
    int64_t start = now_ms();
    CHECK_INT(plait_client_call(client, "never", NULL, 0, NULL, NULL), -ECONNRESET);
    CHECK(now_ms() - start < 10000);
    CHECK_INT(test_wait_child(killer), 0);
    CHECK_INT(test_wait_child(server), 128 + SIGKILL);
    plait_client_close(client);

    plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
    options.connect_timeout = 200;
    client = NULL;
    CHECK(plait_client_open(&client, target, &options) < 0); /* nobody is there, whatever still listens */
    plait_watch *watch = NULL;
    CHECK_INT(plait_watch_open(&watch, "kept"), 0);
    CHECK_INT(plait_watch_count(watch), 0);
    plait_watch_close(watch);

    server = serve_keeping(keeper);
    client = open_client(target, NULL);
    plait_client_close(client);
    CHECK_INT(kill(server, SIGTERM), 0);
    CHECK_INT(test_wait_child(server), 0);
    kill(holder, SIGKILL);
    board_free(board);
}

TEST(a_child_that_holds_a_dead_servers_sockets_does_not_keep_it_alive)
{
    check_keeper_of_server("kept");
    check_keeper_of_server("kept?shm=off");
}

TEST(a_child_that_holds_a_dead_clients_sockets_does_not_keep_it_alive)
{
    struct board *board = board_new();
    struct started server = serve(board, &plain);
    for (int i = 0; i < 2; i++) {
        pid_t client_pid = fork();
        CHECK(client_pid >= 0);
        if (client_pid == 0) {
            plait_client *client = open_client(i ? "plain" : "plain?shm=off", NULL);
            CHECK_INT(checked_call(board, client, 64, 0, 0), 0);
            pid_t holder = raw_fork();
            if (holder > 0) atomic_store(&board->answer_result, (int32_t)holder);
            for (;;) pause();
        }
        WAIT_UNTIL(atomic_load(&board->answer_result) > 0);
        kill_process(client_pid);
        plait_watch *watch = NULL;
        WAIT_UNTIL(plait_watch_open(&watch, "plain") == 0 && plait_watch_count(watch) == 1 &&
                   (plait_watch_at(watch, 0)->connection_count == 0 || (plait_watch_close(watch), false)));
        plait_watch_close(watch);
        kill((pid_t)atomic_exchange(&board->answer_result, 0), SIGKILL);
    }
    end_server(&server);
    board_free(board);
}

/* ---- signals ---- */

static volatile sig_atomic_t caught;

static void on_signal(int number)
{
    (void)number;
    caught++;
}

TEST(only_signals_at_their_default_stop_a_server_and_get_it_back)
{
    struct board *board = board_new();
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        struct sigaction action;
        plait_server *server = NULL;
        signal(SIGINT, on_signal);
        CHECK_INT(plait_server_open(&server, "signals", NULL), 0);
        CHECK_INT(plait_server_handle(server, "", on_forking, &server), 0);
        atomic_store(&board->answered, 1);
        CHECK_INT(plait_server_run(server), 0);
        plait_server_close(server);
        CHECK_INT(caught, 3);
        CHECK_INT(sigaction(SIGINT, NULL, &action), 0);
        CHECK(action.sa_handler == on_signal);
        CHECK_INT(sigaction(SIGTERM, NULL, &action), 0);
        CHECK(action.sa_handler == SIG_DFL);
        CHECK_INT(sigaction(SIGPIPE, NULL, &action), 0);
        CHECK(action.sa_handler == SIG_DFL);
        leave(0);
    }
    plait_client *client = open_client("signals", NULL);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(plait_client_call(client, "", NULL, 0, NULL, NULL), 0);
        CHECK_INT(kill(pid, SIGINT), 0);
        CHECK_INT(plait_client_call(client, "", NULL, 0, NULL, NULL), 0);
    }
    CHECK_INT(kill(pid, SIGTERM), 0);
    CHECK_INT(test_wait_child(pid), 0);
    plait_client_close(client);
    board_free(board);
}

static void begin_storm(void)
{
    struct sigaction action = { .sa_handler = on_signal }; /* no SA_RESTART */
    struct itimerval often = { { 0, 500 }, { 0, 500 } };
    CHECK_INT(sigaction(SIGALRM, &action, NULL), 0);
    CHECK_INT(setitimer(ITIMER_REAL, &often, NULL), 0);
}

TEST(a_storm_of_signals_disturbs_neither_side)
{
    static const char *const targets[] = { "stormy", "stormy?shm=off" };
    struct board *board = board_new();
    struct started server = serve(board, &(struct serve){ .name = "stormy", .storm = begin_storm });
    for (int i = 0; i < 2; i++) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            static const size_t sizes[] = { 8, 5000, 70000, 3000000 };
            begin_storm();
            for (int round = 0; round < 5; round++) {
                plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
                options.spin_us = PLAIT_SPIN_NEVER;
                plait_client *client = open_client(targets[i], &options);
                for (int j = 0; j < 40; j++) CHECK_INT(checked_call(board, client, sizes[j % 4], 0, 0), 0);
                plait_client_close(client);
            }
            CHECK(caught > 10);
            setitimer(ITIMER_REAL, &(struct itimerval){ 0 }, NULL);
            leave(0);
        }
        CHECK_INT(test_wait_child(pid), 0);
    }
    end_server(&server);
    board_free(board);
}

TEST(a_vanished_peer_raises_no_sigpipe)
{
    struct board *board = board_new();
    struct started server =
        serve(board, &(struct serve){ .name = "plain", .listen = { "tcp://127.0.0.1:0?framing=lines" } });
    signal(SIGPIPE, SIG_DFL);
    for (int i = 0; i < 20; i++) {
        int fd = raw_connect(server.url[0]);
        raw_send(fd, "12345678\n12345678\n12345678\n", 27);
        struct linger now = { 1, 0 };
        CHECK_INT(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
        close(fd); /* a reset: writing raises SIGPIPE in who doesn't mind */
    }
    plait_client *client = open_client("plain?shm=off", NULL);
    CHECK_INT(checked_call(board, client, 64, 0, 0), 0);
    kill_process(server.pid);
    plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
    options.timeout = 100;
    for (int i = 0; i < 3; i++) CHECK(plait_client_call(client, "", "12345678", 8, &options, NULL) < 0);
    plait_client_close(client);
    board_free(board);
}

/* ---- silence ---- */

TEST(nobody_wakes_up_while_nothing_happens)
{
    enum { CLIENTS = 3, QUIET_MS = 3000 };
    static const char *const targets[CLIENTS] = { "plain", "plain?shm=off", "plain" };
    if (test_sanitized()) SKIP("a sanitizer's own thread wakes up");
    struct board *board = board_new();
    struct started server =
        serve(board,
              &(struct serve){ .name = "plain", .options = { .size = sizeof(plait_server_options), .threads = 2 } });
    pid_t pids[CLIENTS + 1] = { server.pid };
    for (int i = 0; i < CLIENTS; i++) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        pids[i + 1] = pid;
        if (pid > 0) continue;
        plait_client *client = open_client(targets[i], NULL);
        for (int j = 0; j < 100; j++) CHECK_INT(checked_call(board, client, 64, 0, 0), 0);
        struct pollfd poller = { .fd = plait_client_fd(client), .events = POLLIN };
        atomic_fetch_add(&board->answered, 1);
        (void)poll(&poller, 1, -1);
        test_fail(__FILE__, __LINE__, "an idle client was woken");
    }
    WAIT_UNTIL(atomic_load(&board->answered) == CLIENTS);
    for (int i = 0; i <= CLIENTS; i++) WAIT_UNTIL(state_of(pids[i]) == 'S');
    pause_ms(300); /* what is still on its way to sleep gets there */
    uint64_t before[CLIENTS + 1];
    for (int i = 0; i <= CLIENTS; i++) before[i] = switches_of(pids[i]);
    pause_ms(QUIET_MS);
    for (int i = 0; i <= CLIENTS; i++) CHECK_INT(switches_of(pids[i]) - before[i], 0);
    for (int i = 1; i <= CLIENTS; i++) kill_process(pids[i]);
    end_server(&server);
    board_free(board);
}
