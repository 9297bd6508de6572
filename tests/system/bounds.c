/* bounds: limits that are met, and places that are not as they should be. */
#include "system/system.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- descriptors ---- */

TEST(a_server_without_descriptors_serves_those_that_it_has_and_takes_others_later)
{
    enum { LIMIT = 48, CROWD = 40 };
    struct board *board = board_new();
    struct started server = serve(board, &(struct serve){ .name = "full", .fd_limit = LIMIT });
    pid_t good[2] = { caller_start(board, 0, "full", false), caller_start(board, 1, "full?shm=off", false) };
    /* Their large messages have been as well: the memory for those comes with a descriptor. */
    for (unsigned i = 0; i < 2; i++) WAIT_UNTIL(atomic_load(&board->caller[i].verified) >= 16);
    plait_client *clients[CROWD];
    int open = 0;
    for (int i = 0; i < CROWD; i++) {
        plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
        options.connect_timeout = 100;
        clients[i] = NULL;
        if (plait_client_open(&clients[i], i % 2 ? "full" : "full?shm=off", &options) == 0) open++;
        else CHECK(plait_error_text()[0] != 0);
    }
    CHECK(open > 0 && open < CROWD);
    callers_advance(board, 2);
    for (int i = 0; i < CROWD; i++) plait_client_close(clients[i]);
    plait_client *late = open_client("full", NULL);
    CHECK_INT(checked_call(board, late, 64, 0, 0), 0);
    plait_client_close(late);
    callers_end(board, good, 2);
    end_server(&server);
    board_free(board);
}

TEST(a_client_without_descriptors_gets_an_error_that_says_so)
{
    struct board *board = board_new();
    struct started server = serve(board, &(struct serve){ .name = "full" });
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        struct rlimit before, limit;
        size_t fds = test_count_fds();
        CHECK_INT(getrlimit(RLIMIT_NOFILE, &before), 0);
        int r = -1;
        for (rlim_t n = 3; r < 0; n++) {
            plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
            plait_client *client = NULL;
            options.connect_timeout = 200;
            limit = (struct rlimit){ n, before.rlim_max };
            CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
            r = plait_client_open(&client, "full", &options);
            if (r == 0) r = checked_call(board, client, 64, 0, 0);
            char text[300];
            snprintf(text, sizeof(text), "%s", plait_error_text());
            plait_client_close(client);
            CHECK_INT(setrlimit(RLIMIT_NOFILE, &before), 0);
            CHECK_INT(test_count_fds(), fds);
            if (r < 0 && text[0] == 0) test_fail(__FILE__, __LINE__, "with %d descriptors: no text", (int)n);
            if (r < 0 && strstr(text, "ulimit -n") == NULL)
                test_fail(__FILE__, __LINE__, "with %d descriptors: %d, %s", (int)n, r, text);
            CHECK(n < 60);
        }
        leave(0);
    }
    CHECK_INT(test_wait_child(pid), 0);
    end_server(&server);
    board_free(board);
}

/* ---- memory and messages ---- */

static void check_inbound(const char *target)
{
    enum { CROWD = 5 };
    struct board *board = board_new();
    /* Room for one and a bit: they wait for each other. */
    struct started server = serve(board, &(struct serve){ .name = "heavy",
                                                          .options = { .size = sizeof(plait_server_options),
                                                                       .threads = 2,
                                                                       .inbound_bytes = BIG + 1000000 } });
    pid_t pids[CROWD];
    for (unsigned i = 0; i < CROWD; i++) pids[i] = caller_start(board, i, target, false);
    callers_advance(board, CROWD);
    for (int round = 0; round < 3; round++) {
        for (unsigned i = 0; i < CROWD; i++) caller_order(board, i, ORDER_UPLOAD);
        for (unsigned i = 0; i < CROWD; i++) WAIT_UNTIL(atomic_load(&board->caller[i].order) == ORDER_CHECKED);
    }
    callers_end(board, pids, CROWD);
    end_server(&server);
    board_free(board);
}

TEST(large_messages_wait_for_inbound_bytes_and_all_arrive_over_shared_memory)
{
    check_inbound("heavy");
}

TEST(large_messages_wait_for_inbound_bytes_and_all_arrive_over_sockets)
{
    check_inbound("heavy?shm=off");
}

static void count_over(int result, plait_reply *reply, void *context)
{
    if (result < 0) test_fail(__FILE__, __LINE__, "a call failed: %s", plait_error_text());
    plait_reply_free(reply);
    ++*(int *)context;
}

static void check_outstanding(const char *target)
{
    enum { BOUND = 4, CALLS = 30 };
    struct board *board = board_new();
    struct started server =
        serve(board, &(struct serve){ .name = "bounded",
                                      .options = { .size = sizeof(plait_server_options), .outstanding = BOUND } });
    pid_t good = caller_start(board, 0, "bounded", false);
    plait_client *client = open_client(target, NULL);
    int over = 0;
    for (int i = 0; i < BOUND; i++)
        CHECK_INT(plait_client_call_async(client, "defer", "\0\0\0\0\0\0\0\0", 8, NULL, count_over, &over, NULL), 0);
    WAIT_UNTIL(atomic_load(&board->deferred) == BOUND);
    /* One more doesn't get in: it waits, here or there, until its time is over. */
    plait_call_options soon = PLAIT_CALL_OPTIONS_INIT;
    soon.timeout = 150;
    CHECK_INT(plait_client_call(client, "defer", "\0\0\0\0\0\0\0\0", 8, &soon, NULL), -ETIMEDOUT);
    CHECK_INT(atomic_load(&board->deferred), BOUND);
    callers_advance(board, 1); /* nobody else is held up */
    atomic_store(&board->release, 1);
    for (int i = BOUND; i < CALLS; i++)
        CHECK_INT(plait_client_call_async(client, "defer", "\0\0\0\0\0\0\0\0", 8, NULL, count_over, &over, NULL), 0);
    WAIT_UNTIL(plait_client_dispatch(client, 10) >= 0 && over == CALLS);
    callers_end(board, &good, 1);
    plait_client_close(client);
    end_server(&server);
    board_free(board);
}

TEST(no_more_than_outstanding_requests_are_in_progress_over_shared_memory)
{
    check_outstanding("bounded");
}

TEST(no_more_than_outstanding_requests_are_in_progress_over_a_socket)
{
    check_outstanding("bounded?shm=off");
}

static void check_max_message(const char *target)
{
    struct board *board = board_new();
    struct started server =
        serve(board, &(struct serve){ .name = "narrow",
                                      .options = { .size = sizeof(plait_server_options), .max_message = 100000 } });
    plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
    options.max_message = 1 << 20;
    plait_client *client = open_client(target, &options);
    CHECK_INT(checked_call(board, client, 100000, 0, 0), 0);
    CHECK_INT(checked_call(board, client, 100001, 0, 0), -EMSGSIZE);
    CHECK_CONTAINS(plait_error_text(), "max_message=100000");
    CHECK_INT(plait_client_call(client, "fetch", "\0\0\0\0\0\0\0\0", 8, NULL, NULL), -EMSGSIZE);
    CHECK_CONTAINS(plait_error_text(), "max_message");
    CHECK_INT(checked_call(board, client, 100000, 0, 0), 0);
    plait_client_close(client);
    end_server(&server);
    board_free(board);
}

TEST(max_message_is_named_where_it_is_met)
{
    check_max_message("narrow");
    check_max_message("narrow?shm=off");
}

TEST(who_does_not_read_its_replies_holds_up_nobody_else)
{
    enum { CALLS = 300 };
    struct board *board = board_new();
    struct started server = serve(board, &(struct serve){ .name = "patient" });
    pid_t good[2] = { caller_start(board, 0, "patient", false), caller_start(board, 1, "patient?shm=off", false) };
    callers_advance(board, 2);
    /* Over a socket: big answers that nobody takes. */
    uint8_t hello[132], frame[40] = { 0 };
    int deaf = raw_connect_name("patient");
    raw_send(deaf, hello, raw_hello(hello, "patient", 0));
    for (int i = 0; i < 8; i++) {
        raw_frame(frame, 8, 1, 0, 2, (uint64_t)i + 1);
        raw_send(deaf, frame, sizeof(frame));
    }
    for (int i = 0; i < 20; i++) callers_advance(board, 2);
    /* Over shared memory: more answers than the ring holds. */
    static char body[8000];
    plait_client *client = open_client("patient", NULL);
    int over = 0;
    for (int i = 0; i < CALLS; i++)
        CHECK_INT(plait_client_call_async(client, "", body, sizeof(body), NULL, count_over, &over, NULL), 0);
    for (int i = 0; i < 20; i++) callers_advance(board, 2);
    WAIT_UNTIL(plait_client_dispatch(client, 10) >= 0 && over == CALLS);
    plait_client_close(client);
    close(deaf);
    callers_end(board, good, 2);
    end_server(&server);
    board_free(board);
}

/* ---- runtime directories ---- */

static void check_place(const char *path, int server_error, int other_error, bool client_too)
{
    plait_server *server = NULL;
    plait_client *client = NULL;
    plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
    options.connect_timeout = 50;
    CHECK_INT(setenv("PLAIT_DIR", path, 1), 0);
    size_t fds = test_count_fds();
    int r = plait_server_open(&server, "place", NULL);
    if (r != server_error && r != other_error)
        test_fail(__FILE__, __LINE__, "%s: a server gets %d: %s", path, r, plait_error_text());
    CHECK(strlen(plait_error_text()) > 10);
    CHECK_CONTAINS(plait_error_text(), path);
    r = plait_client_open(&client, "place", &options);
    if (r >= 0) test_fail(__FILE__, __LINE__, "%s: a client was opened", path);
    CHECK(strlen(plait_error_text()) > 10);
    if (client_too) CHECK_CONTAINS(plait_error_text(), path);
    CHECK_INT(test_count_fds(), fds);
}

TEST(a_runtime_directory_that_cannot_be_trusted_is_refused_with_its_path)
{
    char path[600], other[700];
    snprintf(other, sizeof(other), "%s/real", test_directory());
    snprintf(path, sizeof(path), "%s/link", test_directory());
    CHECK_INT(mkdir(other, 0700), 0);
    CHECK_INT(symlink(other, path), 0);
    check_place(path, -ELOOP, -ENOTDIR, true);
    snprintf(path, sizeof(path), "%s/file", test_directory());
    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    check_place(path, -ENOTDIR, -ELOOP, true);
    snprintf(path, sizeof(path), "%s/open", test_directory());
    CHECK_INT(mkdir(path, 0700), 0);
    CHECK_INT(chmod(path, 0777), 0);
    check_place(path, -EACCES, -EPERM, true);
    check_place("relative/path", -EINVAL, -EINVAL, true);
    snprintf(path, sizeof(path), "%s/no/such/parent", test_directory());
    check_place(path, -ENOENT, -ENOENT, true);
    if (geteuid() == 0) {
        snprintf(path, sizeof(path), "%s/theirs", test_directory());
        CHECK_INT(mkdir(path, 0700), 0);
        CHECK_INT(chown(path, 12345, 12345), 0);
        check_place(path, -EPERM, -EACCES, true);
    }
}

TEST(a_missing_runtime_directory_is_made)
{
    char path[600];
    struct stat status;
    snprintf(path, sizeof(path), "%s/fresh", test_directory());
    CHECK_INT(setenv("PLAIT_DIR", path, 1), 0);
    struct board *board = board_new();
    struct started server = serve(board, &(struct serve){ .name = "fresh" });
    CHECK_INT(stat(path, &status), 0);
    CHECK_INT(status.st_mode & 07777, 0700);
    plait_client *client = open_client("fresh", NULL);
    CHECK_INT(checked_call(board, client, 8, 0, 0), 0);
    plait_client_close(client);
    end_server(&server);
    board_free(board);
}

/* In a mount namespace of its own: a tmpfs at PATH. */
static void mount_small(const char *path, const char *options, unsigned long flags)
{
    CHECK_INT(mkdir(path, 0700), 0);
    if (unshare(CLONE_NEWNS) < 0) SKIP("no mount namespace to be had: it needs root");
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) SKIP("mounts cannot be made private here");
    if (mount("none", path, "tmpfs", flags, options) < 0) SKIP("no tmpfs can be mounted here");
}

TEST(a_full_runtime_directory_is_an_error_that_says_so)
{
    char path[600];
    snprintf(path, sizeof(path), "%s/full", test_directory());
    mount_small(path, "size=64k,nr_inodes=2,mode=0700", 0); /* no room for a folder */
    check_place(path, -ENOSPC, -ENOSPC, false);
    umount(path);
}

TEST(a_runtime_directory_without_room_for_a_status_page_still_serves)
{
    char path[600];
    snprintf(path, sizeof(path), "%s/small", test_directory());
    mount_small(path, "size=8k,mode=0700", 0);
    CHECK_INT(setenv("PLAIT_DIR", path, 1), 0);
    struct board *board = board_new();
    struct started server = serve(board, &(struct serve){ .name = "small" });
    plait_client *client = open_client("small", NULL);
    CHECK_INT(checked_call(board, client, 100000, 0, 0), 0);
    plait_client_close(client);
    end_server(&server);
    board_free(board);
    umount(path);
}

TEST(a_read_only_runtime_directory_is_an_error_that_says_so)
{
    char path[600];
    snprintf(path, sizeof(path), "%s/fixed", test_directory());
    mount_small(path, "mode=0700", MS_RDONLY);
    check_place(path, -EROFS, -EROFS, false);
    umount(path);
}
