/* What the page promises: seen from another process, or by the reader in this one. */
#include "observe/status.h"

#include "base/fd.h"
#include "harness/test.h"
#include "observe/place.h"
#include "observe/status_layout.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <plait/watch.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
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

static const struct pl_status_peer sample_peer = { 4321, 77, "shm", "plait", "caller" };

static plait_watch *look(const char *name)
{
    plait_watch *watch = NULL;
    CHECK_INT(plait_watch_open(&watch, name), 0);
    return watch;
}

/* The only instance of NAME; the watch is the caller's to close. */
static const plait_watch_instance *look_at(const char *name, plait_watch **ret_watch)
{
    *ret_watch = look(name);
    CHECK_INT(plait_watch_count(*ret_watch), 1);
    return plait_watch_at(*ret_watch, 0);
}

static size_t count_instances(const char *name)
{
    plait_watch *watch = look(name);
    size_t count = plait_watch_count(watch);
    plait_watch_close(watch);
    return count;
}

struct files {
    size_t count, bytes;
};

static int add_file(const struct pl_place *place, const char *name, void *context)
{
    struct files *files = context;
    struct stat status;
    if (fstatat(place->fd, name, &status, AT_SYMLINK_NOFOLLOW) == 0) {
        files->count++;
        files->bytes += (size_t)status.st_size;
    }
    return 0;
}

/* The pages that lie in the own directory's place, dead or alive. */
static struct files count_files(void)
{
    struct files files = { 0, 0 };
    struct pl_directory directory;
    struct pl_place place = PL_PLACE_NONE;
    if (pl_directory_own(&directory, false) < 0) return files;
    if (pl_place_open(&place, &directory, false) == 0) CHECK_INT(pl_place_each(&place, add_file, &files), 0);
    pl_place_close(&place);
    pl_directory_close(&directory);
    return files;
}

TEST(a_service_is_shown_with_what_it_said)
{
    plait_watch *watch;
    char name[64];
    struct pl_status_service *service = pl_status_service_add("greeter", 0xabcdef, "/run/here", 3);
    pl_status_service_set(service, "tcp://127.0.0.1:8888 unix:///x", "greet bye");
    pl_count(&pl_status_service_counters(service)->refused, 2);
    pl_count(&pl_status_service_counters(service)->requests, 5);
    const plait_watch_instance *seen = look_at("greeter", &watch);
    CHECK_STR(seen->service, "greeter");
    CHECK_INT(seen->id, 0xabcdef);
    CHECK_INT(seen->pid, getpid());
    CHECK_INT(seen->uid, geteuid());
    CHECK_STR(seen->process, pl_process_name(getpid(), name, sizeof name));
    CHECK_STR(seen->language, "c");
    CHECK_STR(seen->version, PLAIT_VERSION);
    CHECK_STR(seen->directory, "/run/here");
    CHECK_STR(seen->urls, "tcp://127.0.0.1:8888 unix:///x");
    CHECK_STR(seen->methods, "greet bye");
    CHECK_INT(seen->requests, 5);
    CHECK_INT(seen->threads, 3);
    CHECK_INT(seen->stopped, 0);
    CHECK(seen->started_ms > 1500000000000);
    CHECK_INT(seen->connection_count, 0);
    CHECK(plait_watch_at(watch, 1) == NULL);
    plait_watch_close(watch);
    CHECK_INT(count_instances("greete"), 0);
    CHECK_INT(count_instances(NULL), 1);
    pl_status_service_remove(service);
}

TEST(a_connection_is_shown_while_it_lives_and_counted_for_ever)
{
    plait_watch *watch;
    struct pl_status_service *service = pl_status_service_add("greeter", 1, "/run/here", 1);
    struct pl_status_connection *connection = pl_status_connection_add(service, &sample_peer);
    struct pl_counters *counters = pl_status_connection_counters(connection);
    pl_count(&counters->requests, 10);
    pl_count(&counters->replies, 9);
    pl_count(&counters->failures, 2);
    pl_count(&counters->bytes_in, 1000);
    pl_count(&counters->bytes_out, 2000);
    pl_count(&counters->outstanding, 1);
    const plait_watch_instance *seen = look_at("greeter", &watch);
    CHECK_INT(seen->connection_count, 1);
    const plait_watch_connection *one = &seen->connections[0];
    CHECK_STR(one->service, "greeter");
    CHECK_INT(one->id, pl_status_connection_id(connection));
    CHECK_INT(one->peer_pid, 4321);
    CHECK_INT(one->peer_uid, 77);
    CHECK_STR(one->peer, "caller");
    CHECK_STR(one->transport, "shm");
    CHECK_STR(one->framing, "plait");
    CHECK(one->connected_ms >= seen->started_ms);
    CHECK_INT(one->requests, 10);
    CHECK_INT(one->replies, 9);
    CHECK_INT(one->errors, 2);
    CHECK_INT(one->bytes_in, 1000);
    CHECK_INT(one->bytes_out, 2000);
    CHECK_INT(one->outstanding, 1);
    CHECK_INT(seen->requests, 10);
    plait_watch_close(watch);
    pl_status_connection_remove(connection);

    connection = pl_status_connection_add(service, &sample_peer); /* the slot again, from zero */
    pl_count(&pl_status_connection_counters(connection)->requests, 1);
    seen = look_at("greeter", &watch);
    CHECK_INT(seen->connection_count, 1);
    CHECK_INT(seen->connections[0].requests, 1);
    CHECK_INT(seen->connections[0].outstanding, 0);
    CHECK_INT(seen->requests, 11);
    CHECK_INT(seen->failures, 2);
    CHECK_INT(seen->bytes_in, 1000);
    plait_watch_close(watch);
    pl_status_connection_remove(connection);
    pl_status_service_remove(service);
}

TEST(the_last_service_takes_the_page_away)
{
    struct pl_status_service *first = pl_status_service_add("first", 1, "", 1);
    struct pl_status_service *second = pl_status_service_add("second", 2, "", 1);
    CHECK_INT(count_files().count, 1); /* one page per process */
    CHECK_INT(count_instances(NULL), 2);
    pl_status_service_remove(first);
    CHECK_INT(count_files().count, 1);
    CHECK_INT(count_instances(NULL), 1);
    pl_status_service_remove(second);
    CHECK_INT(count_files().count, 0);
    CHECK_INT(count_instances(NULL), 0);
    pl_status_service_remove(NULL);
    pl_status_connection_remove(NULL);
}

TEST(a_connection_may_outlive_its_service_and_the_page)
{
    struct pl_status_service *first = pl_status_service_add("first", 1, "", 1);
    struct pl_status_connection *late = pl_status_connection_add(first, &sample_peer);
    struct pl_status_connection *later = pl_status_connection_add(first, &sample_peer);
    pl_status_service_remove(first);
    CHECK_INT(count_files().count, 0);
    pl_count(&pl_status_connection_counters(late)->replies, 1);
    struct pl_status_service *second = pl_status_service_add("second", 2, "", 1);
    CHECK_INT(count_instances(NULL), 1);
    pl_status_connection_remove(late);
    CHECK_INT(count_files().count, 1);
    pl_status_service_remove(second);
    pl_count(&pl_status_connection_counters(later)->replies, 1);
    pl_status_connection_remove(later);
}

TEST(two_thousand_connections_come_and_go_in_260_bytes_each)
{
    enum { COUNT = 2000 };
    plait_watch *watch;
    static struct pl_status_connection *connections[COUNT];
    struct pl_status_service *service = pl_status_service_add("crowd", 1, "", 1);
    size_t before = count_files().bytes, after = 0;
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < COUNT; i++) {
            struct pl_status_peer peer = { 1000 + i, 0, "unix", "plait", "someone" };
            connections[i] = pl_status_connection_add(service, &peer);
            pl_count(&pl_status_connection_counters(connections[i])->requests, 1);
        }
        size_t bytes = count_files().bytes;
        CHECK(bytes - before <= COUNT * 261);
        if (round > 0) CHECK_INT(bytes, after); /* slots are used again */
        after = bytes;
        const plait_watch_instance *seen = look_at("crowd", &watch);
        CHECK_INT(seen->connection_count, COUNT);
        CHECK_INT(seen->requests, COUNT * (round + 1));
        uint64_t sum = 0;
        for (size_t i = 0; i < COUNT; i++) sum += (uint64_t)seen->connections[i].peer_pid;
        CHECK_INT(sum, (uint64_t)COUNT * 1000 + (uint64_t)COUNT * (COUNT - 1) / 2);
        plait_watch_close(watch);
        for (int i = 0; i < COUNT; i++) pl_status_connection_remove(connections[(i * 7) % COUNT]); /* 7 and 2000 share no factor */
    }
    pl_status_service_remove(service);
}

TEST(many_services_and_long_texts_fit)
{
    enum { COUNT = 40, METHODS = 100000 };
    plait_watch *watch;
    struct pl_status_service *services[COUNT];
    char *methods = malloc(METHODS + 1), name[32];
    for (int i = 0; i < METHODS; i++) methods[i] = i % 101 == 100 ? ' ' : 'm';
    methods[METHODS] = '\0';
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof name, "service-%02d", i);
        services[i] = pl_status_service_add(name, (uint64_t)i + 1, "/run/here", 1);
    }
    for (int round = 0; round < 50; round++) pl_status_service_set(services[0], "url", methods);
    size_t bytes = count_files().bytes;
    CHECK(bytes < 4 * METHODS + COUNT * 8192); /* old texts make room for new ones */
    watch = look(NULL);
    CHECK_INT(plait_watch_count(watch), COUNT);
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof name, "service-%02d", i);
        CHECK_STR(plait_watch_at(watch, (size_t)i)->service, name); /* sorted */
    }
    CHECK_STR(plait_watch_at(watch, 0)->methods, methods);
    plait_watch_close(watch);
    for (int i = 0; i < COUNT; i++) pl_status_service_remove(services[i]);
    free(methods);
}

TEST(names_and_peers_that_are_too_long_are_cut)
{
    plait_watch *watch;
    char text[300];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    struct pl_status_peer peer = { 1, 1, text, text, text };
    struct pl_status_service *service = pl_status_service_add(text, 1, text, 1);
    struct pl_status_connection *connection = pl_status_connection_add(service, &peer);
    watch = look(NULL);
    CHECK_INT(strlen(plait_watch_at(watch, 0)->service), 103);
    CHECK_INT(strlen(plait_watch_at(watch, 0)->directory), sizeof text - 1);
    CHECK_INT(strlen(plait_watch_at(watch, 0)->connections[0].peer), 63);
    CHECK_INT(strlen(plait_watch_at(watch, 0)->connections[0].transport), 11);
    plait_watch_close(watch);
    pl_status_connection_remove(connection);
    pl_status_service_remove(service);
}

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

/* ---- threads ---------------------------------------------------------------------------- */

enum { WRITERS = 3 };
static _Atomic int writers_done;
static struct pl_status_service *busy;

/* Connections whose every text is the same letter, each counting one request in its short life. */
static void *come_and_go(void *context)
{
    char letter = (char)('a' + (intptr_t)context), text[40];
    memset(text, letter, sizeof text - 1);
    text[sizeof text - 1] = '\0';
    for (int i = 0; i < 3000; i++) {
        struct pl_status_peer peer = { letter, (uid_t)letter, text, text, text };
        struct pl_status_connection *connection = pl_status_connection_add(busy, &peer);
        pl_count(&pl_status_connection_counters(connection)->requests, 1);
        pl_status_connection_remove(connection);
    }
    atomic_fetch_add(&writers_done, 1);
    return NULL;
}

static void *exchange_texts(void *unused)
{
    char long_text[6000];
    (void)unused;
    for (int i = 0; i < 3000; i++) {
        size_t size = i % 2 == 0 ? 10 : sizeof long_text - 1;
        memset(long_text, 'a' + i % 26, size);
        long_text[size] = '\0';
        pl_status_service_set(busy, long_text, long_text);
    }
    atomic_fetch_add(&writers_done, 1);
    return NULL;
}

static void require_whole(const plait_watch_instance *seen)
{
    CHECK_STR(seen->urls, seen->methods);
    CHECK_INT(strspn(seen->urls, (char[]){ seen->urls[0], '\0' }), strlen(seen->urls));
    for (size_t i = 0; i < seen->connection_count; i++) {
        const plait_watch_connection *one = &seen->connections[i];
        char letter[2] = { (char)one->peer_pid, '\0' };
        CHECK_INT(one->peer_uid, one->peer_pid);
        CHECK_INT(strspn(one->peer, letter), 39);
        CHECK_INT(strspn(one->transport, letter), 11);
        CHECK_INT(strspn(one->framing, letter), 11);
    }
}

TEST(readers_never_see_half_a_thing_while_threads_come_and_go)
{
    plait_watch *watch;
    pthread_t threads[WRITERS + 1];
    const plait_watch_instance *seen;
    busy = pl_status_service_add("busy", 1, "", 1);
    for (intptr_t i = 0; i < WRITERS; i++) CHECK_INT(pthread_create(&threads[i], NULL, come_and_go, (void *)i), 0);
    CHECK_INT(pthread_create(&threads[WRITERS], NULL, exchange_texts, NULL), 0);
    while (atomic_load(&writers_done) < WRITERS + 1) {
        seen = look_at("busy", &watch);
        CHECK(seen->requests <= WRITERS * 3000);
        require_whole(seen);
        plait_watch_close(watch);
    }
    for (int i = 0; i <= WRITERS; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
    seen = look_at("busy", &watch);
    CHECK_INT(seen->requests, WRITERS * 3000); /* exactly: no fold was lost */
    CHECK_INT(seen->connection_count, 0);
    plait_watch_close(watch);
    pl_status_service_remove(busy);
}

static void *services_come_and_go(void *context)
{
    for (int i = 0; i < 200; i++) {
        struct pl_status_service *service = pl_status_service_add("brief", (uint64_t)(intptr_t)context * 1000 + (uint64_t)i + 1, "", 1);
        struct pl_status_connection *connection = pl_status_connection_add(service, &sample_peer);
        pl_status_service_remove(service);
        pl_status_connection_remove(connection);
    }
    return NULL;
}

TEST(services_of_many_threads_make_and_lose_the_page)
{
    pthread_t threads[WRITERS];
    for (intptr_t i = 0; i < WRITERS; i++) CHECK_INT(pthread_create(&threads[i], NULL, services_come_and_go, (void *)i), 0);
    for (int i = 0; i < WRITERS; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
    CHECK_INT(count_files().count, 0);
}

/* ---- no room ------------------------------------------------------------------------------ */

static int lines_logged;
static char last_line[512];

static void note_line(plait_log_level level, const char *line, void *context)
{
    (void)context;
    if (level != PLAIT_LOG_ERROR) return;
    lines_logged++;
    snprintf(last_line, sizeof last_line, "%s", line);
}

/* A runtime directory on a tmpfs of SIZE, in a mount namespace that ends with this process. */
static void mount_small(const char *options)
{
    char path[600];
    if (unshare(CLONE_NEWNS) < 0) SKIP("needs root, for a mount of its own");
    CHECK_INT(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    snprintf(path, sizeof path, "%s/small", test_directory());
    CHECK_INT(mkdir(path, 0700), 0);
    CHECK_INT(mount("small", path, "tmpfs", 0, options), 0);
    CHECK_INT(setenv("PLAIT_DIR", path, 1), 0);
    plait_set_log(note_line, NULL);
}

static void unmount_small(void)
{
    plait_set_log(NULL, NULL);
    CHECK_INT(umount2(getenv("PLAIT_DIR"), MNT_DETACH), 0);
}

TEST(without_room_for_a_page_everything_counts_unseen_and_it_is_said_once)
{
    mount_small("size=8k,mode=0700");
    struct pl_status_service *first = pl_status_service_add("first", 1, "", 1);
    struct pl_status_service *second = pl_status_service_add("second", 2, "", 1);
    struct pl_status_connection *connection = pl_status_connection_add(first, &sample_peer);
    pl_status_service_set(first, "url", "method");
    pl_count(&pl_status_connection_counters(connection)->requests, 4);
    pl_count(&pl_status_service_counters(first)->refused, 5);
    CHECK_INT(atomic_load(&pl_status_connection_counters(connection)->requests), 4);
    CHECK_INT(atomic_load(&pl_status_service_counters(first)->refused), 5);
    CHECK_INT(count_instances(NULL), 0);
    CHECK_INT(lines_logged, 1);
    CHECK_CONTAINS(last_line, "no space");
    pl_status_connection_remove(connection);
    pl_status_service_remove(first);
    pl_status_service_remove(second);
    CHECK_INT(count_files().count, 0);
    unmount_small();
}

TEST(when_the_page_cannot_grow_further_connections_are_unseen_until_slots_are_free)
{
    enum { COUNT = 100 };
    plait_watch *watch;
    struct pl_status_connection *connections[COUNT];
    mount_small("size=32k,mode=0700");
    struct pl_status_service *service = pl_status_service_add("small", 1, "", 1);
    for (int i = 0; i < COUNT; i++) {
        connections[i] = pl_status_connection_add(service, &sample_peer);
        pl_count(&pl_status_connection_counters(connections[i])->requests, 1);
    }
    const plait_watch_instance *seen = look_at("small", &watch);
    CHECK_INT(seen->connection_count, 63);
    CHECK_INT(lines_logged, 1);
    plait_watch_close(watch);
    for (int i = 0; i < COUNT; i++) pl_status_connection_remove(connections[i]);
    connections[0] = pl_status_connection_add(service, &sample_peer);
    seen = look_at("small", &watch);
    CHECK_INT(seen->connection_count, 1);
    plait_watch_close(watch);
    pl_status_connection_remove(connections[0]);
    pl_status_service_remove(service);
    unmount_small();
}

TEST(a_limit_of_file_sizes_sends_no_signal)
{
    struct rlimit limit = { 8192, 8192 };
    pid_t pid = fork();
    if (pid == 0) {
        plait_set_log(note_line, NULL);
        CHECK_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
        struct pl_status_service *service = pl_status_service_add("small", 1, "", 1);
        CHECK_INT(count_instances(NULL), 0);
        CHECK_INT(lines_logged, 1);
        CHECK_CONTAINS(last_line, "ulimit -f");
        pl_status_service_remove(service);
        _exit(0);
    }
    CHECK_INT(test_wait_child(pid), 0);
}

TEST(without_descriptors_everything_counts_unseen)
{
    struct rlimit limit;
    pid_t pid = fork();
    if (pid == 0) {
        CHECK_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
        limit.rlim_cur = 3;
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
        struct pl_status_service *service = pl_status_service_add("poor", 1, "", 1);
        pl_count(&pl_status_service_counters(service)->refused, 1);
        plait_watch *watch = NULL;
        CHECK_INT(plait_watch_open(&watch, NULL), -EMFILE);
        CHECK(watch == NULL);
        pl_status_service_remove(service);
        _exit(0);
    }
    CHECK_INT(test_wait_child(pid), 0);
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
