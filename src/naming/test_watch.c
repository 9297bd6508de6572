#include "naming/watch.h"

#include "base/clock.h"
#include "naming/test_support.h"

#include <pthread.h>
#include <sys/inotify.h>
#include <sys/ptrace.h>
#include <sys/resource.h>

static const struct pl_allow nobody_else;

static const char *own(void)
{
    return getenv("PLAIT_DIR");
}

static struct pl_name_watch *open_it(const char *peer)
{
    struct pl_name_watch *watch = NULL;
    int r = pl_name_watch_open(&watch, peer);
    if (r != 0) test_fail(__FILE__, __LINE__, "watch: %d %s", r, pl_error_text());
    return watch;
}

static struct pl_claim claim_it(const char *name)
{
    struct pl_claim claim;
    int r = pl_claim_open(&claim, name, false, &nobody_else);
    if (r < 0) test_fail(__FILE__, __LINE__, "claim: %s", pl_error_text());
    return claim;
}

static bool readable(const struct pl_name_watch *watch, int timeout)
{
    struct pollfd ready = { .fd = pl_name_watch_fd(watch), .events = POLLIN };
    return poll(&ready, 1, timeout) == 1;
}

/* What a client does: waits for a change, clears, looks up; until COUNT instances are there. */
static void wait_for(struct pl_name_watch *watch, const char *name, const char *peer, int count)
{
    uint64_t deadline = pl_clock_ns() + 20000000000u;
    while (count_of(name, peer) != count) {
        if (!readable(watch, pl_clock_poll_ms(deadline))) test_fail(__FILE__, __LINE__, "not told about %s", name);
        pl_name_watch_clear(watch);
    }
}

/* All there is to say has been said. */
static void settle(struct pl_name_watch *watch)
{
    for (int i = 0; i < 100 && readable(watch, 0); i++) pl_name_watch_clear(watch);
    CHECK(!readable(watch, 0));
}

static int inotify_count(void)
{
    DIR *list = opendir("/proc/self/fd");
    char target[64];
    int count = 0;
    for (struct dirent *item = readdir(list); item != NULL; item = readdir(list)) {
        ssize_t size = readlinkat(dirfd(list), item->d_name, target, sizeof target - 1);
        if (size <= 0) continue;
        target[size] = '\0';
        count += strstr(target, "inotify") != NULL;
    }
    closedir(list);
    return count;
}

TEST(a_name_that_comes_is_told)
{
    struct pl_claim first = claim_it("first");
    struct pl_name_watch *watch = open_it(NULL);
    CHECK(!readable(watch, 0));
    struct pl_claim claim = claim_it("greeter");
    CHECK(readable(watch, 0));
    wait_for(watch, "greeter", NULL, 1);
    pl_claim_close(&claim);
    pl_claim_close(&first);
    pl_name_watch_close(watch);
}

TEST(a_name_that_goes_is_told)
{
    struct pl_claim claim = claim_it("greeter");
    struct pl_name_watch *watch = open_it(NULL);
    pl_claim_withdraw(&claim);
    CHECK(readable(watch, 0));
    settle(watch);
    pl_claim_close(&claim);
    pl_name_watch_close(watch);
}

TEST(missing_directories_are_waited_for)
{
    setenv("PLAIT_DIR", path_of("%s/a/b/c", test_directory()), 1);
    struct pl_name_watch *watch = open_it(NULL);
    CHECK(!readable(watch, 0));
    CHECK_INT(mkdir(path_of("%s/a", test_directory()), 0700), 0);
    CHECK(readable(watch, 0));
    settle(watch);
    CHECK_INT(mkdir(path_of("%s/a/other", test_directory()), 0700), 0);
    settle(watch);
    CHECK_INT(mkdir(path_of("%s/a/b", test_directory()), 0700), 0);
    CHECK(readable(watch, 0));
    struct server server = start("greeter", (struct server_options){ 0 }); /* makes c and c/services before we look */
    wait_for(watch, "greeter", NULL, 1);
    settle(watch);
    stop(&server);
    CHECK(readable(watch, 0));
    wait_for(watch, "greeter", NULL, 0);
    pl_name_watch_close(watch);
}

TEST(directories_that_go_and_come_again_are_followed)
{
    struct pl_name_watch *watch = open_it(NULL);
    for (int i = 0; i < 3; i++) {
        struct server server = start("greeter", (struct server_options){ 0 });
        wait_for(watch, "greeter", NULL, 1);
        CHECK_INT(rename(own(), path_of("%s/old%d", test_directory(), i)), 0);
        wait_for(watch, "greeter", NULL, 0);
        stop(&server);
        settle(watch);
        struct server next = start("greeter", (struct server_options){ 0 });
        wait_for(watch, "greeter", NULL, 1);
        stop(&next);
        CHECK_INT(rmdir(path_of("%s/services", own())), 0);
        CHECK_INT(rmdir(path_of("%s/s", own())), 0);
        CHECK_INT(rmdir(own()), 0);
        CHECK(readable(watch, 0));
        settle(watch);
    }
    pl_name_watch_close(watch);
}

TEST(a_folder_that_is_removed_is_told)
{
    struct pl_claim claim = claim_it("greeter");
    pl_claim_close(&claim);
    struct pl_name_watch *watch = open_it(NULL);
    CHECK_INT(rmdir(path_of("%s/services", own())), 0);
    CHECK(readable(watch, 0));
    settle(watch);
    claim = claim_it("greeter");
    settle(watch);
    struct pl_claim second = claim_it("greeter"); /* in the new folder, which is watched now */
    CHECK(readable(watch, 0));
    pl_claim_close(&claim);
    pl_claim_close(&second);
    pl_name_watch_close(watch);
}

TEST(a_directory_that_is_opened_to_us_later_is_noticed)
{
    share_plait_dir();
    CHECK_INT(mkdir(path_of("%s/shared/0", own()), 0700), 0);
    struct server server = start("greeter", (struct server_options){ 0 });
    pid_t child = fork();
    if (child == 0) {
        be(SOMEBODY);
        struct pl_name_watch *watch = open_it(NULL);
        CHECK_INT(count_of("greeter", NULL), 0);
        CHECK_INT(raise(SIGSTOP), 0);
        wait_for(watch, "greeter", NULL, 1);
        pl_name_watch_close(watch);
        _exit(0);
    }
    siginfo_t info;
    CHECK_INT(waitid(P_PID, (id_t)child, &info, WSTOPPED | WEXITED | WNOWAIT), 0);
    CHECK_INT(chmod(path_of("%s/shared/0", own()), 0755), 0);
    CHECK_INT(kill(child, SIGCONT), 0);
    CHECK_INT(test_wait_child(child), 0);
    stop(&server);
}

TEST(a_file_in_the_way_does_no_harm)
{
    setenv("PLAIT_DIR", path_of("%s/a", test_directory()), 1);
    close(creat(own(), 0600));
    struct pl_name_watch *watch = open_it(NULL);
    CHECK_INT(unlink(own()), 0);
    CHECK(readable(watch, 0));
    settle(watch);
    struct server server = start("greeter", (struct server_options){ 0 });
    wait_for(watch, "greeter", NULL, 1);
    stop(&server);
    pl_name_watch_close(watch);
}

TEST(half_made_entries_and_locks_are_no_news)
{
    struct pl_claim claim = claim_it("greeter");
    struct pl_name_watch *one = open_it(NULL), *two = open_it(NULL);
    close(creat(path_of("%s/services/.other@0000000000000001", own()), 0600));
    CHECK_INT(unlink(path_of("%s/services/.other@0000000000000001", own())), 0);
    pl_name_watch_clear(one);
    CHECK(!readable(one, 0));
    CHECK(!readable(two, 0));
    pl_name_watch_close(one);
    pl_name_watch_close(two);
    pl_claim_close(&claim);
}

TEST(all_watchers_are_told_whoever_reads_first)
{
    struct pl_name_watch *watches[5];
    struct pl_claim first = claim_it("first");
    for (int i = 0; i < 5; i++) watches[i] = open_it(i % 2 == 0 ? NULL : "54321");
    struct pl_claim claim = claim_it("greeter");
    for (int i = 0; i < 5; i++) {
        CHECK(readable(watches[i], 0));
        pl_name_watch_clear(watches[i]);
        CHECK(!readable(watches[i], 0));
    }
    pl_claim_close(&claim);
    pl_claim_close(&first);
    for (int i = 0; i < 5; i++) pl_name_watch_close(watches[i]);
}

TEST(a_process_has_one_inotify)
{
    struct pl_name_watch *watches[20];
    for (int i = 0; i < 20; i++) watches[i] = open_it(NULL);
    CHECK_INT(inotify_count(), 1);
    for (int i = 0; i < 20; i++) {
        pl_name_watch_close(watches[i]);
        if (i < 19) continue;
        CHECK_INT(inotify_count(), 0);
    }
    pl_name_watch_close(NULL);
}

TEST(a_watcher_that_closes_leaves_the_others_their_watches)
{
    struct pl_claim first = claim_it("first");
    struct pl_name_watch *one = open_it(NULL), *two = open_it(NULL);
    pl_name_watch_close(one);
    struct pl_claim claim = claim_it("greeter");
    CHECK(readable(two, 0));
    settle(two);
    pl_claim_close(&claim);
    pl_claim_close(&first);
    pl_name_watch_close(two);
}

TEST(a_peers_directory_is_watched)
{
    share_plait_dir();
    struct pl_name_watch *with = open_it("54321"), *without = open_it(NULL);
    settle(with);
    settle(without);
    struct server server = start("greeter", (struct server_options){ .uid = SOMEBODY, .allow = "*" });
    wait_for(with, "greeter", "54321", 1);
    CHECK_INT(count_of("greeter", NULL), 0);
    stop(&server);
    pl_name_watch_close(with);
    pl_name_watch_close(without);
}

TEST(an_unknown_peer_is_an_error)
{
    struct pl_name_watch *watch = NULL;
    CHECK_INT(pl_name_watch_open(&watch, "no-such-user"), -EINVAL);
    CHECK(watch == NULL);
}

TEST(without_descriptors_there_is_none)
{
    struct rlimit limit;
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    struct pl_name_watch *watch = NULL;
    int r = PL_NAME_WATCH_NONE, room = (int)test_count_fds();
    for (int i = 0; i < 12 && r != 0; i++) {
        struct rlimit small = { (rlim_t)(room + i), limit.rlim_max };
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &small), 0);
        r = pl_name_watch_open(&watch, NULL);
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
        if (r == 0) continue;
        CHECK_INT(r, PL_NAME_WATCH_NONE);
        CHECK_INT(test_count_fds(), room);
    }
    CHECK_INT(r, 0);
    pl_name_watch_close(watch);
}

TEST(without_inotify_instances_there_is_none)
{
    if (geteuid() != 0) SKIP("needs root");
    CHECK_INT(chmod(test_directory(), 0755), 0);
    pid_t child = fork();
    if (child == 0) { /* another uid: the limit is per user, and ours is others' too */
        struct pl_name_watch *watch = NULL;
        be(OTHER);
        int last = -1;
        for (int fd = 0; (fd = inotify_init1(IN_CLOEXEC)) >= 0;) last = fd;
        CHECK_INT(pl_name_watch_open(&watch, NULL), PL_NAME_WATCH_NONE);
        close(last);
        CHECK_INT(pl_name_watch_open(&watch, NULL), 0);
        _exit(0);
    }
    CHECK_INT(test_wait_child(child), 0);
}

TEST(a_forked_child_neither_reads_the_parents_events_nor_holds_its_inotify)
{
    struct pl_claim first = claim_it("first");
    struct pl_name_watch *watch = open_it(NULL);
    struct pl_claim claim = claim_it("greeter");
    int fds = (int)test_count_fds();
    pid_t child = fork();
    if (child == 0) {
        CHECK_INT(inotify_count(), 0);
        CHECK_INT(test_count_fds(), fds - 3); /* inotify, epoll, eventfd */
        pl_name_watch_clear(watch);
        struct pl_name_watch *mine = open_it(NULL); /* the child may watch for itself */
        pl_name_watch_close(watch);
        CHECK_INT(inotify_count(), 1);
        CHECK(!readable(mine, 0));
        struct pl_claim other = claim_it("other");
        CHECK(readable(mine, 0));
        pl_claim_close(&other);
        pl_name_watch_close(mine);
        _exit(0);
    }
    CHECK_INT(test_wait_child(child), 0);
    CHECK(readable(watch, 0));
    wait_for(watch, "greeter", NULL, 1);
    pl_claim_close(&claim);
    pl_claim_close(&first);
    pl_name_watch_close(watch);
}

static void *wait_in_thread(void *context)
{
    const char *name = context;
    for (int i = 0; i < 20; i++) {
        struct pl_name_watch *watch = open_it(NULL);
        wait_for(watch, name, NULL, 1);
        pl_name_watch_close(watch);
    }
    return NULL;
}

TEST(threads_that_wait_for_several_names_are_all_told)
{
    static char names[4][4] = { "n0", "n1", "n2", "n3" };
    pthread_t threads[4];
    TEST_TIMEOUT(120);
    for (int i = 0; i < 4; i++) {
        CHECK_INT(pthread_create(&threads[i], NULL, wait_in_thread, names[i]), 0);
    }
    struct pl_claim claims[4];
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < 4; i++) claims[i] = claim_it(names[i]);
        if (round < 9)
            for (int i = 0; i < 4; i++) pl_claim_close(&claims[i]);
    }
    for (int i = 0; i < 4; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < 4; i++) pl_claim_close(&claims[i]);
}

/* A child begins to watch; at its Nth system call boundary the directories come, and the name either with
 * them or when the child is waiting. False when it was waiting already. */
static bool come_at(int n, bool later)
{
    setenv("PLAIT_DIR", path_of("%s/%d%d", test_directory(), n, later), 1);
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        struct pl_name_watch *watch = open_it(NULL);
        int count = count_of("greeter", NULL);
        raise(SIGSTOP);
        if (count == 0) {
            CHECK(readable(watch, 5000)); /* told, not found by looking again */
            wait_for(watch, "greeter", NULL, 1);
        }
        pl_name_watch_close(watch);
        _exit(0);
    }
    int status = 0;
    bool waiting = false;
    CHECK_INT(waitpid(child, &status, 0), child);
    if (!WIFSTOPPED(status)) SKIP("cannot trace");
    for (int i = 0; i < n && !waiting; i++) {
        CHECK_INT(ptrace(PTRACE_SYSCALL, child, NULL, NULL), 0);
        CHECK_INT(waitpid(child, &status, 0), child);
        waiting = WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP;
    }
    struct pl_claim claim = claim_it("greeter");
    if (later) pl_claim_close(&claim);
    for (bool stopped = waiting; !stopped; stopped = WSTOPSIG(status) == SIGSTOP) {
        CHECK_INT(ptrace(PTRACE_CONT, child, NULL, NULL), 0);
        CHECK_INT(waitpid(child, &status, 0), child);
        CHECK(WIFSTOPPED(status));
    }
    if (later) claim = claim_it("greeter");
    CHECK_INT(ptrace(PTRACE_CONT, child, NULL, NULL), 0);
    CHECK_INT(test_wait_child(child), 0);
    pl_claim_close(&claim);
    return !waiting;
}

TEST(whoever_watches_first_and_then_looks_up_misses_nothing)
{
    int n = 2;
    if (test_sanitized()) SKIP("a sanitizer's own system calls are many");
    while (come_at(n / 2, n % 2 == 1) || n % 2 == 0) CHECK(++n < 2000);
    CHECK(n > 100);
}

TEST(a_watch_for_topics_hears_of_topics)
{
    struct pl_allow nobody = { 0 };
    struct pl_claim claim;
    struct pl_name_watch *watch;
    CHECK_INT(pl_name_watch_open_as(&watch, PL_KIND_TOPIC, NULL), 0);
    struct pollfd poller = { .fd = pl_name_watch_fd(watch), .events = POLLIN };
    CHECK_INT(pl_claim_open_as(&claim, PL_KIND_TOPIC, "news", false, &nobody), 0);
    CHECK_INT(poll(&poller, 1, 10000), 1);
    pl_name_watch_clear(watch);
    pl_claim_close(&claim);
    CHECK_INT(poll(&poller, 1, 10000), 1);
    pl_name_watch_close(watch);
}
