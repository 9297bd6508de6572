/* strangers: two users, two pid namespaces, two ways to find the same directory. Needs root for other uids. */
#include "system/system.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HOST = 65534, GUEST = 65533 };

/* A runtime world that two users share, like /run/plait: sticky, with a directory per user. */
static void common_world(void)
{
    static char path[600];
    if (geteuid() != 0) SKIP("other users can be had by root alone");
    snprintf(path, sizeof(path), "%s/world", test_directory());
    CHECK_INT(chmod(test_directory(), 0755), 0);
    CHECK_INT(mkdir(path, 0700), 0);
    CHECK_INT(chmod(path, 01777), 0);
    char shared[700];
    snprintf(shared, sizeof(shared), "%s/shared", path);
    CHECK_INT(mkdir(shared, 0700), 0);
    CHECK_INT(chmod(shared, 01777), 0);
    CHECK_INT(setenv("PLAIT_DIR", path, 1), 0);
}

/* Runs WORK as UID; what it returns is its status. */
static void as_user(uid_t uid, void (*work)(struct board *board), struct board *board)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK_INT(setgid(uid), 0);
        CHECK_INT(setuid(uid), 0);
        work(board);
        leave(0);
    }
    CHECK_INT(test_wait_child(pid), 0);
}

static void call_host(struct board *board)
{
    plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
    options.peer = "65534";
    plait_client *client = open_client("hosted", &options);
    for (int i = 0; i < 3; i++) CHECK_INT(checked_call(board, client, (size_t[]){ 8, 9000, 300000 }[i], 0, 0), 0);
    CHECK_STR(plait_client_transport(client), "unix");
    plait_client_close(client);
    /* Shared memory or nothing: nothing, between users. */
    client = NULL;
    options.transport = PLAIT_TRANSPORT_SHM;
    options.connect_timeout = 200;
    CHECK(plait_client_open(&client, "hosted", &options) < 0);
    CHECK_CONTAINS(plait_error_text(), "shared memory");
}

static void miss_host(struct board *board)
{
    plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
    plait_client *client = NULL;
    (void)board;
    options.connect_timeout = 100;
    int r = plait_client_open(&client, "hosted", &options);
    CHECK(r == -ENOENT || r == -EACCES);
    CHECK_CONTAINS(plait_error_text(), "hosted");
    options.peer = "65534";
    r = plait_client_open(&client, "hosted", &options);
    CHECK(r == -ENOENT || r == -EACCES);
    CHECK_CONTAINS(plait_error_text(), "hosted");
}

TEST(a_service_with_allow_is_reached_by_another_user_over_a_socket)
{
    common_world();
    struct board *board = board_new();
    struct serve what = { .name = "hosted",
                          .uid = HOST,
                          .options = { .size = sizeof(plait_server_options), .allow = "65533" } };
    struct started server = serve(board, &what);
    as_user(GUEST, call_host, board);
    end_server(&server);
    board_free(board);
}

TEST(a_service_without_allow_is_not_reached_by_another_user)
{
    common_world();
    struct board *board = board_new();
    struct started server = serve(board, &(struct serve){ .name = "hosted", .uid = HOST });
    as_user(GUEST, miss_host, board);
    end_server(&server);
    struct serve third = { .name = "hosted",
                           .uid = HOST,
                           .options = { .size = sizeof(plait_server_options), .allow = "12345" } };
    server = serve(board, &third);
    as_user(GUEST, miss_host, board);
    end_server(&server);
    board_free(board);
}

/* GUEST's fake listens where HOST's service would be: in its own shared directory. */
static void pose(struct board *board)
{
    plait_server *server = NULL;
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    options.allow = "*";
    CHECK_INT(plait_server_open(&server, "hosted", &options), 0);
    atomic_store(&board->in_handler, (int32_t)getpid());
    while (!atomic_load(&board->release)) pause_ms(1);
    plait_server_close(server);
}

TEST(nobody_poses_as_another_users_service)
{
    common_world();
    struct board *board = board_new();
    pid_t poser = fork();
    CHECK(poser >= 0);
    if (poser == 0) {
        as_user(GUEST, pose, board);
        _exit(0);
    }
    WAIT_UNTIL(atomic_load(&board->in_handler) != 0);
    as_user(HOST, miss_host, board);
    atomic_store(&board->release, 1);
    CHECK_INT(test_wait_child(poser), 0);
    board_free(board);
}

/* ---- where the directory comes from ---- */

TEST(the_variable_and_its_default_lead_to_the_same_directory)
{
    char parent[64], own[96];
    if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0) SKIP("needs root, for a /run/user of its own");
    snprintf(parent, sizeof(parent), "/run/user/%d", 54321);
    snprintf(own, sizeof(own), "%s/plait", parent);
    (void)mkdir("/run/user", 0755);
    bool made = mkdir(parent, 0700) == 0;
    if (!made) SKIP("there is somebody at /run/user/54321");
    CHECK_INT(chown(parent, 54321, 54321), 0);
    unsetenv("PLAIT_DIR");
    setenv("XDG_RUNTIME_DIR", parent, 1);
    struct board *board = board_new();
    struct started server = serve(board, &(struct serve){ .name = "found", .uid = 54321 });
    for (int with = 0; with < 2; with++) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            CHECK_INT(setgid(54321), 0);
            CHECK_INT(setuid(54321), 0);
            if (!with) unsetenv("XDG_RUNTIME_DIR");
            plait_client *client = open_client("found", NULL);
            CHECK_INT(checked_call(board, client, 64, 0, 0), 0);
            CHECK_STR(plait_client_transport(client), "shm");
            plait_client_close(client);
            leave(0);
        }
        CHECK_INT(test_wait_child(pid), 0);
    }
    end_server(&server);
    board_free(board);
    char command[200];
    snprintf(command, sizeof(command), "rm -r '%s'", parent);
    CHECK_INT(system(command), 0);
}

/* ---- namespaces ---- */

/* A child that is root and pid 1 in namespaces of its own. */
static pid_t fork_as_pid_1(void (*work)(struct board *board), struct board *board)
{
    pid_t outer = fork();
    CHECK(outer >= 0);
    if (outer > 0) return outer;
    if (unshare(CLONE_NEWUSER | CLONE_NEWPID) < 0) SKIP("no user namespaces to be had");
    pid_t inner = fork();
    CHECK(inner >= 0);
    if (inner == 0) {
        CHECK_INT(getpid(), 1);
        work(board);
        leave(0);
    }
    _exit(test_wait_child(inner));
}

static void serve_in_namespace(struct board *board)
{
    struct started server = serve(board, &(struct serve){ .name = "inside", .listen = { "tcp://127.0.0.1:0" } });
    plait_client_close(open_client(server.url[0], NULL)); /* it runs; /proc, which would tell, is the outer one */
    atomic_fetch_add(&board->answered, 1);
    while (!atomic_load(&board->release)) pause_ms(1);
    CHECK_INT(kill(server.pid, SIGTERM), 0);
    CHECK_INT(test_wait_child(server.pid), 0);
}

static void call_in_namespace(struct board *board)
{
    plait_client *client = open_client("inside", NULL);
    for (int i = 0; i < 100; i++) CHECK_INT(checked_call(board, client, 64, 0, 0), 0);
    plait_client_close(client);
    client = open_client("outside", NULL);
    for (int i = 0; i < 100; i++) CHECK_INT(checked_call(board, client, 9000, 0, 0), 0);
    plait_client_close(client);
}

TEST(processes_of_several_pid_namespaces_share_a_directory)
{
    struct board *board = board_new();
    struct started outside = serve(board, &(struct serve){ .name = "outside" });
    pid_t servers[2];
    for (int i = 0; i < 2; i++) servers[i] = fork_as_pid_1(serve_in_namespace, board);
    WAIT_UNTIL(atomic_load(&board->answered) == 2);
    CHECK_INT(entries_of_names(), 6);
    call_in_namespace(board);
    pid_t caller = fork_as_pid_1(call_in_namespace, board);
    CHECK_INT(test_wait_child(caller), 0);
    /* Claims and looks sweep the dead; nobody here is. */
    struct started more = serve(board, &(struct serve){ .name = "another" });
    end_server(&more);
    plait_watch *watch = NULL;
    CHECK_INT(plait_watch_open(&watch, NULL), 0);
    CHECK_INT(plait_watch_count(watch), 3);
    plait_watch_close(watch);
    CHECK_INT(entries_of_names(), 6);
    atomic_store(&board->release, 1);
    for (int i = 0; i < 2; i++) CHECK_INT(test_wait_child(servers[i]), 0);
    end_server(&outside);
    CHECK_INT(entries_of_names(), 0);
    board_free(board);
}
