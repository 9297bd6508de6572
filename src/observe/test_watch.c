/* The picture that tools get, of processes that run, stop, die and fork. */
#include "observe/test_look.h"

#include "base/fd.h"
#include "observe/status_layout.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __SANITIZE_THREAD__
enum { under_tsan = 1 };
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
enum { under_tsan = 1 };
#else
enum { under_tsan = 0 };
#endif
#else
enum { under_tsan = 0 };
#endif

/* ---- other processes ------------------------------------------------------------------ */

struct server {
    pid_t pid;
    int ready, leave; /* our ends */
};

static void say_ready(int fd)
{
    CHECK_INT(write(fd, "r", 1), 1);
}

/* A process with a service "child" and a connection that has counted 7 requests; it ends when told. */
static struct server start_server(bool clean)
{
    int ready[2], leave[2];
    char byte;
    CHECK_INT(pipe2(ready, O_CLOEXEC), 0);
    CHECK_INT(pipe2(leave, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        close(leave[1]);
        struct pl_status_service *service = pl_status_service_add("child", 5, "/run/here", 1);
        struct pl_status_connection *connection = pl_status_connection_add(service, &sample_peer);
        pl_count(&pl_status_connection_counters(connection)->requests, 7);
        pl_status_service_set(service, "", "greet");
        say_ready(ready[1]);
        CHECK_INT(read(leave[0], &byte, 1), 0);
        if (!clean) _exit(0);
        pl_status_connection_remove(connection);
        pl_status_service_remove(service);
        _exit(0);
    }
    close(ready[1]);
    close(leave[0]);
    CHECK_INT(read(ready[0], &byte, 1), 1);
    return (struct server){ pid, ready[0], leave[1] };
}

static int end_server(struct server *server)
{
    close(server->leave);
    close(server->ready);
    return test_wait_child(server->pid);
}

/* A PLAIT_DIR on tmpfs: what dies there, other processes' sweeps don't take away before we look. */
static void enter_memory(char path[64])
{
    strcpy(path, "/dev/shm/plait-test-XXXXXX");
    if (mkdtemp(path) == NULL) SKIP("/dev/shm is not writable");
    CHECK_INT(setenv("PLAIT_DIR", path, 1), 0);
}

static void leave_memory(const char *path)
{
    char status[96];
    snprintf(status, sizeof status, "%s/status", path);
    CHECK_INT(rmdir(status), 0);
    CHECK_INT(rmdir(path), 0);
}

TEST(a_stopped_process_is_shown_in_full_and_as_stopped)
{
    plait_watch *watch;
    int status;
    struct server server = start_server(true);
    CHECK_INT(kill(server.pid, SIGSTOP), 0);
    CHECK_INT(waitpid(server.pid, &status, WUNTRACED), server.pid);
    const plait_watch_instance *seen = look_at("child", &watch);
    CHECK_INT(seen->pid, server.pid);
    CHECK_INT(seen->stopped, 1);
    CHECK_STR(seen->methods, "greet");
    CHECK_INT(seen->connection_count, 1);
    CHECK_INT(seen->connections[0].requests, 7);
    plait_watch_close(watch);
    CHECK_INT(kill(server.pid, SIGCONT), 0);
    CHECK_INT(waitpid(server.pid, &status, WCONTINUED), server.pid);
    seen = look_at("child", &watch);
    CHECK_INT(seen->stopped, 0);
    plait_watch_close(watch);
    CHECK_INT(end_server(&server), 0);
    CHECK_INT(count_files().count, 0);
}

TEST(a_killed_process_is_not_shown_and_a_reader_sweeps_what_it_left)
{
    char path[64];
    enter_memory(path);
    struct server server = start_server(true);
    CHECK_INT(kill(server.pid, SIGKILL), 0);
    CHECK_INT(end_server(&server), 128 + SIGKILL);
    CHECK_INT(count_files().count, 1);
    CHECK_INT(count_instances(NULL), 0);
    CHECK_INT(count_files().count, 0);
    leave_memory(path);
}

TEST(a_zombie_is_not_shown)
{
    siginfo_t info;
    struct server server = start_server(false);
    close(server.leave);
    CHECK_INT(waitid(P_PID, (id_t)server.pid, &info, WEXITED | WNOWAIT), 0);
    CHECK_INT(count_instances(NULL), 0);
    close(server.ready);
    CHECK_INT(test_wait_child(server.pid), 0);
}

TEST(the_next_starter_sweeps_what_a_killed_process_left)
{
    char path[64];
    enter_memory(path);
    struct server server = start_server(true);
    CHECK_INT(kill(server.pid, SIGKILL), 0);
    CHECK_INT(end_server(&server), 128 + SIGKILL);
    CHECK_INT(count_files().count, 1);
    struct pl_status_service *service = pl_status_service_add("mine", 1, "", 1);
    CHECK_INT(count_files().count, 1);
    CHECK_INT(count_instances("mine"), 1);
    pl_status_service_remove(service);
    CHECK_INT(count_files().count, 0);
    leave_memory(path);
}

TEST(instances_of_several_processes_are_joined)
{
    struct server server = start_server(true), other = start_server(true);
    struct pl_status_service *service = pl_status_service_add("child", 6, "", 1);
    CHECK_INT(count_instances("child"), 3);
    pl_status_service_remove(service);
    CHECK_INT(count_instances("child"), 2);
    CHECK_INT(end_server(&other), 0); /* it holds the first one's pipe */
    CHECK_INT(end_server(&server), 0);
    CHECK_INT(count_files().count, 0);
}

/* In strict mode any call but read, write and exit kills. */
TEST(counting_makes_no_system_call_and_is_seen_at_once)
{
    plait_watch *watch;
    int ready[2], leave[2];
    char byte;
    if (under_tsan) SKIP("TSan makes system calls of its own");
    CHECK_INT(pipe2(ready, O_CLOEXEC), 0);
    CHECK_INT(pipe2(leave, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct pl_status_service *service = pl_status_service_add("strict", 5, "", 1);
        struct pl_status_connection *connection = pl_status_connection_add(service, &sample_peer);
        struct pl_counters *counters = pl_status_connection_counters(connection);
        CHECK_INT(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT), 0);
        for (int i = 0; i < 1000; i++) pl_count(&counters->requests, 1);
        say_ready(ready[1]);
        if (read(leave[0], &byte, 1) != 1) syscall(SYS_exit, 1);
        for (int i = 0; i < 1000; i++) pl_count(&counters->bytes_in, 3);
        say_ready(ready[1]);
        if (read(leave[0], &byte, 1) != 1) syscall(SYS_exit, 1);
        syscall(SYS_exit, 0);
    }
    CHECK_INT(read(ready[0], &byte, 1), 1);
    const plait_watch_instance *seen = look_at("strict", &watch);
    CHECK_INT(seen->connections[0].requests, 1000);
    CHECK_INT(seen->connections[0].bytes_in, 0);
    plait_watch_close(watch);
    CHECK_INT(write(leave[1], "x", 1), 1);
    CHECK_INT(read(ready[0], &byte, 1), 1);
    seen = look_at("strict", &watch);
    CHECK_INT(seen->connections[0].bytes_in, 3000);
    plait_watch_close(watch);
    CHECK_INT(write(leave[1], "x", 1), 1);
    CHECK_INT(test_wait_child(pid), 0);
    for (int i = 0; i < 2; i++) {
        close(ready[i]);
        close(leave[i]);
    }
    CHECK_INT(count_instances(NULL), 0);
}

/* ---- fork ------------------------------------------------------------------------------- */

TEST(a_forked_child_leaves_the_parents_page_alone)
{
    plait_watch *watch;
    struct pl_status_service *service = pl_status_service_add("parent", 1, "", 1);
    struct pl_status_connection *connection = pl_status_connection_add(service, &sample_peer);
    pl_count(&pl_status_connection_counters(connection)->requests, 1);
    pid_t pid = fork();
    if (pid == 0) {
        pl_count(&pl_status_connection_counters(connection)->requests, 1000);
        pl_status_service_set(service, "tcp://child", "child");
        struct pl_status_connection *more = pl_status_connection_add(service, &sample_peer);
        pl_count(&pl_status_connection_counters(more)->requests, 1000);
        pl_status_connection_remove(more);
        pl_status_connection_remove(connection);
        pl_status_service_remove(service);
        CHECK_INT(count_files().count, 1);
        _exit(0);
    }
    CHECK_INT(test_wait_child(pid), 0);
    const plait_watch_instance *seen = look_at("parent", &watch);
    CHECK_INT(seen->pid, getpid());
    CHECK_STR(seen->methods, "");
    CHECK_INT(seen->requests, 1);
    CHECK_INT(seen->connection_count, 1);
    plait_watch_close(watch);
    pl_status_connection_remove(connection);
    pl_status_service_remove(service);
    CHECK_INT(count_files().count, 0);
}

TEST(a_forked_child_gets_a_page_of_its_own)
{
    struct pl_status_service *service = pl_status_service_add("parent", 1, "", 1);
    pid_t pid = fork();
    if (pid == 0) {
        struct pl_status_service *own = pl_status_service_add("parent", 2, "", 1);
        CHECK_INT(count_files().count, 2);
        CHECK_INT(count_instances("parent"), 2);
        pid_t grandchild = fork(); /* and again */
        if (grandchild == 0) {
            struct pl_status_service *third = pl_status_service_add("parent", 3, "", 1);
            CHECK_INT(count_instances("parent"), 3);
            pl_status_service_remove(own);
            pl_status_service_remove(service);
            CHECK_INT(count_instances("parent"), 3);
            pl_status_service_remove(third);
            _exit(0);
        }
        CHECK_INT(test_wait_child(grandchild), 0);
        CHECK_INT(count_instances("parent"), 2);
        pl_status_service_remove(own);
        pl_status_service_remove(service);
        _exit(0);
    }
    CHECK_INT(test_wait_child(pid), 0);
    CHECK_INT(count_instances("parent"), 1);
    pl_status_service_remove(service);
}

TEST(a_forked_child_does_not_keep_a_dead_parents_page_alive)
{
    int ready[2], leave[2];
    char byte;
    CHECK_INT(pipe2(ready, O_CLOEXEC), 0);
    CHECK_INT(pipe2(leave, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        pl_status_service_add("parent", 1, "", 1);
        if (fork() == 0) {
            close(leave[1]);
            say_ready(ready[1]);
            _exit((int)read(leave[0], &byte, 1));
        }
        _exit(0);
    }
    CHECK_INT(test_wait_child(pid), 0);
    CHECK_INT(read(ready[0], &byte, 1), 1);
    CHECK_INT(count_instances(NULL), 0);
    CHECK_INT(count_files().count, 0);
    for (int i = 0; i < 2; i++) {
        close(ready[i]);
        close(leave[i]);
    }
}

/* clone(2) by hand runs no atfork handler: the next call on the status notices. */
TEST(a_raw_cloned_child_leaves_the_parents_page_alone)
{
    struct pl_status_service *service = pl_status_service_add("parent", 1, "", 1);
    struct pl_status_connection *connection = pl_status_connection_add(service, &sample_peer);
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0) {
        struct pl_status_service *own = pl_status_service_add("own", 2, "", 1);
        pl_status_connection_remove(connection);
        pl_status_service_remove(service);
        if (count_files().count != 2 || count_instances("own") != 1) syscall(SYS_exit, 1);
        pl_status_service_remove(own);
        syscall(SYS_exit, 0);
    }
    CHECK_INT(test_wait_child(pid), 0);
    CHECK_INT(count_files().count, 1);
    CHECK_INT(count_instances("parent"), 1);
    pl_status_connection_remove(connection);
    pl_status_service_remove(service);
}

/* ---- directories ---------------------------------------------------------------------------- */

TEST(directories_are_told_in_order_with_the_missing_ones)
{
    int exists = 7;
    char path[600];
    CHECK_STR(plait_watch_directory(0, &exists), getenv("PLAIT_DIR"));
    CHECK_INT(exists, 1);
    snprintf(path, sizeof path, "%s/shared/0", getenv("PLAIT_DIR"));
    CHECK_STR(plait_watch_directory(1, &exists), path);
    CHECK_INT(exists, 0);
    CHECK(plait_watch_directory(2, NULL) == NULL);
    CHECK(plait_watch_directory((size_t)-1, NULL) == NULL);
}

TEST(a_missing_directory_is_an_empty_list_and_a_refused_one_an_error)
{
    char path[600];
    plait_watch *watch = NULL;
    snprintf(path, sizeof path, "%s/none", test_directory());
    CHECK_INT(setenv("PLAIT_DIR", path, 1), 0);
    CHECK_INT(count_instances(NULL), 0);
    CHECK_INT(mkdir(path, 0700), 0);
    CHECK_INT(chmod(path, 0777), 0);
    CHECK_INT(plait_watch_open(&watch, NULL), -EACCES);
    CHECK_CONTAINS(plait_error_text(), path);
    CHECK(watch == NULL);
}

TEST(a_page_that_is_broken_hides_no_other)
{
    struct pl_directory directory;
    struct pl_place place = PL_PLACE_NONE;
    struct pl_status_service *service = pl_status_service_add("whole", 1, "", 1);
    CHECK_INT(pl_directory_own(&directory, false), 0);
    CHECK_INT(pl_place_open(&place, &directory, false), 0);
    int fd = openat(place.fd, "0000000000000000", O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    CHECK_INT(fcntl(fd, F_OFD_SETLK, &lock), 0); /* it seems to live */
    CHECK_INT(count_instances(NULL), 1);
    CHECK_INT(write(fd, "rubbish", 7), 7);
    CHECK_INT(count_instances(NULL), 1);
    CHECK_INT(ftruncate(fd, 3 << 20), 0);
    CHECK_INT(count_instances(NULL), 1);
    CHECK_INT(ftruncate(fd, PL_STATUS_SIZE_MAX + 1), 0);
    CHECK_INT(count_instances(NULL), 1);
    close(fd);
    pl_status_service_remove(service);
    unlinkat(place.fd, "0000000000000000", 0);
    pl_place_tidy(&place);
    pl_place_close(&place);
    pl_directory_close(&directory);
}

TEST(another_user_sees_nothing_of_a_private_directory)
{
    if (geteuid() != 0) SKIP("needs root, to become somebody else");
    struct pl_status_service *service = pl_status_service_add("private", 1, "", 1);
    pid_t pid = fork();
    if (pid == 0) {
        plait_watch *watch = NULL;
        CHECK_INT(setresuid(65534, 65534, 65534), 0);
        CHECK_INT(plait_watch_open(&watch, NULL), -EPERM);
        CHECK(watch == NULL);
        _exit(0);
    }
    CHECK_INT(test_wait_child(pid), 0);
    CHECK_INT(count_instances(NULL), 1);
    pl_status_service_remove(service);
}
