#include "naming/claim.h"

#include "base/address.h"
#include "naming/entry.h"
#include "naming/test_support.h"

#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>

static const struct pl_allow nobody_else;

static const char *own(void)
{
    return getenv("PLAIT_DIR");
}

static struct pl_claim claim_it(const char *name, bool exclusive)
{
    struct pl_claim claim;
    int r = pl_claim_open(&claim, name, exclusive, &nobody_else);
    if (r < 0) test_fail(__FILE__, __LINE__, "claim: %s", pl_error_text());
    return claim;
}

static void check_refused(const char *name, bool exclusive, int code, const char *part)
{
    struct pl_claim claim;
    CHECK_INT(pl_claim_open(&claim, name, exclusive, &nobody_else), code);
    CHECK_CONTAINS(pl_error_text(), part);
}

static unsigned mode_of(const char *path)
{
    struct stat status;
    if (lstat(path, &status) < 0) return 0;
    return status.st_mode & 07777;
}

static const char *entry_path(const char *directory, const char *name, const struct pl_claim *claim)
{
    return path_of("%s/services/%s@%016llx", directory, name, (unsigned long long)claim->id);
}

static const char *socket_path(const char *directory, const struct pl_claim *claim)
{
    return path_of("%s/s/%016llx", directory, (unsigned long long)claim->id);
}

TEST(a_claim_is_an_entry_and_a_socket_until_it_is_closed)
{
    struct pl_claim claim = claim_it("greeter", false);
    CHECK_INT(access(entry_path(own(), "greeter", &claim), F_OK), 0);
    CHECK_INT(access(socket_path(own(), &claim), F_OK), 0);
    CHECK_STR(claim.directory, own());
    CHECK_INT(claim.listeners[1], -1);
    pl_claim_close(&claim);
    pl_claim_close(&claim);
    check_empty(own());
}

TEST(an_entry_says_who_serves)
{
    struct pl_claim claim = claim_it("greeter", false);
    struct pl_entry entry;
    int fd = open(entry_path(own(), "greeter", &claim), O_RDONLY | O_CLOEXEC);
    CHECK_INT(pl_entry_judge(fd, &entry), PL_ENTRY_ALIVE);
    CHECK_INT(entry.pid, getpid());
    CHECK_INT(entry.uid, geteuid());
    CHECK_INT(entry.start, pl_process_start(getpid()));
    CHECK(entry.id == claim.id);
    CHECK_STR(entry.process, "test_claim");
    CHECK_STR(entry.urls, "");
    close(fd);
    pl_claim_close(&claim);
}

TEST(names_are_checked)
{
    check_refused("", false, -EINVAL, "service");
    check_refused("Greeter", false, -EINVAL, "G");
    check_refused(".greeter", false, -EINVAL, ".");
    check_refused("a/b", false, -EINVAL, "/");
    check_refused("a@b", false, -EINVAL, "@");
    check_refused("../x", false, -EINVAL, ".");
    CHECK_INT(access(path_of("%s/services", own()), F_OK), -1);
    char name[PLAIT_NAME_MAX + 2];
    memset(name, 'x', sizeof name);
    name[PLAIT_NAME_MAX + 1] = '\0';
    check_refused(name, false, -EINVAL, "100");
    name[PLAIT_NAME_MAX] = '\0';
    struct pl_claim claim = claim_it(name, true);
    CHECK_INT(count_of(name, NULL), 1);
    pl_claim_close(&claim);
    check_empty(own());
}

TEST(a_listener_is_nonblocking_and_not_inherited_by_exec)
{
    struct pl_claim claim = claim_it("greeter", false);
    CHECK_INT(fcntl(claim.listeners[0], F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    CHECK_INT(fcntl(claim.listeners[0], F_GETFD), FD_CLOEXEC);
    CHECK_INT(accept(claim.listeners[0], NULL, NULL), -1);
    CHECK_INT(errno, EAGAIN);
    pl_claim_close(&claim);
}

TEST(several_instances_may_serve_a_name)
{
    struct pl_claim one = claim_it("greeter", false), two = claim_it("greeter", false);
    CHECK(one.id != two.id);
    CHECK_INT(count_of("greeter", NULL), 2);
    pl_claim_close(&one);
    CHECK_INT(count_of("greeter", NULL), 1);
    pl_claim_close(&two);
    check_empty(own());
}

TEST(exclusive_refuses_a_second_and_names_the_holder)
{
    struct server holder = start("greeter", (struct server_options){ .exclusive = true });
    check_refused("greeter", true, -EADDRINUSE, path_of("already served by pid %d (test_claim)", (int)holder.pid));
    check_refused("greeter", false, -EADDRINUSE, path_of("exclusively served by pid %d (test_claim)", (int)holder.pid));
    CHECK_INT(count_of("greeter", NULL), 1);
    stop(&holder);
    struct pl_claim claim = claim_it("greeter", true);
    pl_claim_close(&claim);
    check_empty(own());
}

TEST(exclusive_is_refused_where_others_serve_already)
{
    struct server one = start("greeter", (struct server_options){ 0 }),
                  two = start("greeter", (struct server_options){ 0 });
    check_refused("greeter", true, -EADDRINUSE, path_of("pid %d", (int)one.pid));
    CHECK_CONTAINS(pl_error_text(), path_of("pid %d", (int)two.pid));
    stop(&one);
    check_refused("greeter", true, -EADDRINUSE, path_of("pid %d", (int)two.pid));
    stop(&two);
    check_empty(own());
}

TEST(exclusive_concerns_one_name_only)
{
    struct pl_claim one = claim_it("a", true), two = claim_it("a.b", true), three = claim_it("a.lock", true);
    pl_claim_close(&one);
    pl_claim_close(&two);
    pl_claim_close(&three);
    check_empty(own());
}

TEST(a_killed_exclusive_holder_makes_room)
{
    struct server holder = start("greeter", (struct server_options){ .exclusive = true });
    kill_it(&holder);
    struct pl_claim claim = claim_it("greeter", true);
    pl_claim_close(&claim);
    check_empty(own());
}

TEST(a_killed_exclusive_holder_makes_room_although_its_child_lives_on)
{
    struct server holder = start("greeter", (struct server_options){ .exclusive = true, .fork_child = true });
    kill_only(&holder);
    struct pl_claim claim = claim_it("greeter", true);
    CHECK_INT(count_of("greeter", NULL), 1);
    check_refused("greeter", false, -EADDRINUSE, path_of("pid %d", (int)getpid()));
    pl_claim_close(&claim);
    check_empty(own());
    pl_close(&holder.talk);
}

TEST(a_killed_holders_child_does_not_hold_up_the_others_lock)
{
    struct server dead = start("greeter", (struct server_options){ .fork_child = true });
    struct server alive = start("greeter", (struct server_options){ 0 });
    kill_only(&dead);
    check_refused("greeter", true, -EADDRINUSE, path_of("served by pid %d (test_claim) (stop", (int)alive.pid));
    stop(&alive);
    struct pl_claim claim = claim_it("greeter", true);
    pl_claim_close(&claim);
    CHECK_INT(pl_claim_sweep(), 1);
    check_empty(own());
    pl_close(&dead.talk);
}

TEST(a_withdrawn_name_is_free_while_its_listener_stays)
{
    struct pl_claim claim = claim_it("greeter", true);
    struct pl_instance instance = only("greeter", NULL);
    int fd = -1;
    uid_t uid;
    CHECK_INT(pl_lookup_connect(&instance, NULL, &fd, &uid), 0);
    pl_claim_withdraw(&claim);
    pl_claim_withdraw(&claim);
    check_empty(own());
    CHECK_INT(count_of("greeter", NULL), 0);
    struct pl_claim next = claim_it("greeter", true);
    int accepted = accept(claim.listeners[0], NULL, NULL);
    CHECK(accepted >= 0); /* who came before is still served */
    close(accepted);
    close(fd);
    pl_claim_close(&claim);
    CHECK_INT(count_of("greeter", NULL), 1);
    pl_claim_close(&next);
}

TEST(urls_can_be_told_and_changed)
{
    struct pl_claim claim = claim_it("greeter", false);
    CHECK_INT(pl_claim_set_urls(&claim, "tcp://127.0.0.1:8888 tcp://127.0.0.1:8889"), 0);
    CHECK_STR(only("greeter", NULL).urls, "tcp://127.0.0.1:8888 tcp://127.0.0.1:8889");
    CHECK_INT(pl_claim_set_urls(&claim, "unix:///x"), 0);
    CHECK_STR(only("greeter", NULL).urls, "unix:///x");
    char text[PL_ENTRY_TEXT] = "";
    int folder = open(path_of("%s/services", own()), O_PATH | O_CLOEXEC);
    CHECK(pl_fd_read_text(folder, strrchr(entry_path(own(), "greeter", &claim), '/') + 1, text, sizeof text) > 0);
    CHECK_STR(strstr(text, "urls"), "urls unix:///x\n"); /* nothing remains of what was longer */
    close(folder);
    CHECK_INT(pl_claim_set_urls(&claim, "a\npid 1"), -EINVAL);
    char many[PL_ENTRY_URLS + 1];
    memset(many, 'u', sizeof many);
    many[PL_ENTRY_URLS] = '\0';
    CHECK_INT(pl_claim_set_urls(&claim, many), 0); /* longer than fits */
    CHECK_STR(only("greeter", NULL).urls, "");
    many[PL_ENTRY_URLS - 1] = '\0';
    CHECK_INT(pl_claim_set_urls(&claim, many), 0);
    CHECK_STR(only("greeter", NULL).urls, many);
    many[PL_ENTRY_URLS - 1] = 'u';
    many[5] = many[9] = ' ';
    CHECK_INT(pl_claim_set_urls(&claim, many), 0); /* as many as fit, and these whole */
    CHECK_STR(only("greeter", NULL).urls, "uuuuu uuu");
    pl_claim_withdraw(&claim);
    CHECK_INT(pl_claim_set_urls(&claim, "late"), 0);
    pl_claim_close(&claim);
}

TEST(directories_may_be_longer_than_a_socket_address)
{
    char path[400];
    snprintf(path, sizeof path, "%s/", test_directory());
    while (strlen(path) < 340) {
        strcat(path, "0123456789012345678/");
        CHECK_INT(mkdir(path, 0700), 0);
    }
    setenv("PLAIT_DIR", path, 1);
    struct pl_claim claim = claim_it("greeter", false);
    struct pl_instance instance = only("greeter", NULL);
    CHECK_INT(connect_to(&instance, NULL), 0);
    pl_claim_close(&claim);
}

TEST(a_file_system_without_rename_noreplace_will_do)
{
    deny(SYS_renameat2, -1, EINVAL);
    struct pl_claim claim = claim_it("greeter", true);
    CHECK_INT(files_in(own(), "services"), 2); /* the entry and the lock: nothing hidden remains */
    struct pl_instance instance = only("greeter", NULL);
    CHECK_INT(connect_to(&instance, NULL), 0);
    pl_claim_close(&claim);
    check_empty(own());
}

TEST(a_file_system_without_locks_is_told)
{
    deny(SYS_fcntl, -1, ENOLCK);
    check_refused("greeter", false, -ENOLCK, "lock");
}

TEST(what_is_made_is_for_us_alone_under_any_umask)
{
    static const mode_t masks[] = { 0, 0777 };
    for (size_t i = 0; i < 2; i++) {
        umask(masks[i]);
        struct pl_claim claim = claim_it("greeter", false);
        CHECK_INT(mode_of(entry_path(own(), "greeter", &claim)), 0600);
        CHECK_INT(mode_of(socket_path(own(), &claim)), 0600);
        CHECK_INT(mode_of(path_of("%s/services/.greeter.lock", own())), 0600);
        pl_claim_close(&claim);
    }
}

TEST(a_server_with_allow_can_be_reached_in_the_shared_directory)
{
    struct pl_allow allow;
    CHECK_INT(pl_allow_parse(&allow, "54321"), 0);
    umask(0777);
    struct pl_claim claim;
    CHECK_INT(pl_claim_open(&claim, "greeter", false, &allow), 0);
    const char *shared = path_of("%s/shared/%u", own(), (unsigned)geteuid());
    CHECK_INT(mode_of(shared), 0755);
    CHECK_INT(mode_of(entry_path(shared, "greeter", &claim)), 0644);
    CHECK_INT(mode_of(socket_path(shared, &claim)), 0666);
    CHECK(claim.listeners[1] >= 0);
    CHECK_INT(pl_claim_set_urls(&claim, "unix:///x"), 0);
    if (geteuid() == 0) CHECK_INT(count_of("greeter", NULL), 1); /* one instance in two places */
    pl_claim_withdraw(&claim);
    check_empty(own());
    check_empty(path_of("%s/shared/%u", own(), (unsigned)geteuid()));
    pl_claim_close(&claim);
}

TEST(roots_services_are_in_the_shared_directory)
{
    own_world();
    struct pl_claim claim = claim_it("greeter", false);
    CHECK_STR(claim.directory, "/tmp/plait-0");
    CHECK(claim.listeners[1] >= 0);
    CHECK_INT(access(entry_path("/run/plait/0", "greeter", &claim), F_OK), 0);
    pl_claim_close(&claim);
    check_empty("/run/plait/0");
}

TEST(root_serves_although_the_shared_directory_cannot_be_made_unless_allow_asks_for_it)
{
    struct pl_allow allow;
    struct pl_claim claim;
    own_world();
    close(creat("/run/plait", 0600));
    claim = claim_it("greeter", false);
    CHECK_INT(claim.listeners[1], -1);
    pl_claim_close(&claim);
    CHECK_INT(pl_allow_parse(&allow, "*"), 0);
    CHECK_INT(pl_claim_open(&claim, "greeter", false, &allow), -ENOTDIR);
    CHECK_CONTAINS(pl_error_text(), "allow: /run/plait: not a directory");
    check_empty("/tmp/plait-0");
}

TEST(another_user_is_told_to_have_the_shared_directory_made)
{
    struct pl_allow allow;
    struct pl_claim claim;
    own_world();
    be(SOMEBODY);
    CHECK_INT(pl_allow_parse(&allow, "*"), 0);
    CHECK_INT(pl_claim_open(&claim, "greeter", false, &allow), -ENOENT);
    CHECK_CONTAINS(pl_error_text(), "mkdir -m 1777 /run/plait");
}

TEST(a_forked_child_closes_without_taking_the_name_away)
{
    struct pl_claim claim = claim_it("greeter", true);
    for (int i = 0; i < 4; i++) {
        pid_t child = fork();
        if (child == 0) {
            if (i == 0) pl_claim_forked(&claim);
            if (i == 1) pl_claim_close(&claim);
            if (i == 2) pl_claim_withdraw(&claim);
            if (i == 3) {
                CHECK_INT(pl_claim_set_urls(&claim, "x"), -ECHILD);
                CHECK_INT(pl_claim_sweep(), 0);
            }
            if (i < 2) CHECK_INT(claim.listeners[0], -1);
            _exit(0);
        }
        CHECK_INT(test_wait_child(child), 0);
        struct pl_instance instance = only("greeter", NULL);
        CHECK_INT(connect_to(&instance, NULL), 0);
        check_refused("greeter", true, -EADDRINUSE, "pid");
    }
    pl_claim_close(&claim);
    check_empty(own());
}

TEST(running_out_of_descriptors_leaves_nothing)
{
    struct rlimit limit;
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    struct pl_claim claim;
    int r = -EMFILE, room = (int)test_count_fds();
    for (int i = 0; i < 32 && r != 0; i++) {
        struct rlimit small = { (rlim_t)(room + i), limit.rlim_max };
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &small), 0);
        r = pl_claim_open(&claim, "greeter", true, &nobody_else);
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
        if (r != 0) {
            CHECK_INT(r, -EMFILE);
            CHECK_CONTAINS(pl_error_text(), "/");
            check_empty(own());
        }
    }
    CHECK_INT(r, 0);
    pl_claim_close(&claim);
}

TEST(a_full_file_system_leaves_nothing)
{
    own_world();
    int r = -ENOSPC, failures = 0;
    for (int inodes = 1; inodes < 16 && r != 0; inodes++) {
        struct pl_claim claim;
        CHECK_INT(mkdir("/tmp/small", 0700), 0);
        CHECK_INT(mount("tmpfs", "/tmp/small", "tmpfs", 0, path_of("mode=700,nr_inodes=%d", inodes)), 0);
        setenv("PLAIT_DIR", "/tmp/small", 1);
        r = pl_claim_open(&claim, "greeter", true, &nobody_else);
        if (r != 0) {
            CHECK_INT(r, -ENOSPC);
            CHECK_CONTAINS(pl_error_text(), "/tmp/small");
            CHECK_INT(files_in("/tmp/small", "services") <= 0, 1);
            CHECK_INT(files_in("/tmp/small", "s") <= 0, 1);
            failures++;
        } else {
            pl_claim_close(&claim);
        }
        CHECK_INT(umount2("/tmp/small", MNT_DETACH), 0);
        CHECK_INT(rmdir("/tmp/small"), 0);
    }
    CHECK_INT(r, 0);
    CHECK(failures >= 5);
}

TEST(a_file_system_without_a_free_page_leaves_nothing)
{
    own_world();
    CHECK_INT(mkdir("/tmp/small", 0700), 0);
    CHECK_INT(mount("tmpfs", "/tmp/small", "tmpfs", 0, "mode=700,size=4096"), 0);
    int fd = creat("/tmp/small/filler", 0600);
    char page[4096] = { 0 };
    CHECK_INT(write(fd, page, sizeof page), sizeof page);
    close(fd);
    setenv("PLAIT_DIR", "/tmp/small", 1);
    check_refused("greeter", true, -ENOSPC, "/tmp/small: write entry: no space");
    check_empty("/tmp/small");
}

TEST(a_directory_that_became_read_only_is_told)
{
    own_world();
    struct pl_claim claim = claim_it("greeter", false);
    pl_claim_close(&claim);
    CHECK_INT(mount("/tmp", "/tmp", NULL, MS_BIND, NULL), 0);
    CHECK_INT(mount(NULL, "/tmp", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL), 0);
    check_refused("greeter", false, -EROFS, "/tmp/plait-0");
}

/* Runs a claim and its close in a child that is killed at its Nth system call boundary; false when it
 * came to its end before. */
static bool kill_at(int n)
{
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        struct pl_claim claim = claim_it("greeter", true);
        pl_claim_set_urls(&claim, "tcp://127.0.0.1:1");
        pl_claim_close(&claim);
        _exit(0);
    }
    int status = 0;
    CHECK_INT(waitpid(child, &status, 0), child);
    if (!WIFSTOPPED(status)) SKIP("cannot trace");
    for (int i = 0; i < n; i++) {
        CHECK_INT(ptrace(PTRACE_SYSCALL, child, NULL, NULL), 0);
        CHECK_INT(waitpid(child, &status, 0), child);
        if (WIFEXITED(status)) {
            CHECK_INT(WEXITSTATUS(status), 0);
            return false;
        }
    }
    CHECK_INT(kill(child, SIGKILL), 0);
    CHECK_INT(test_wait_child(child), 128 + SIGKILL);
    return true;
}

TEST(killed_at_any_system_call_it_leaves_only_what_a_sweep_removes)
{
    int n = 1;
    if (test_sanitized()) SKIP("a sanitizer's own system calls are many");
    for (; kill_at(n); n++) {
        CHECK_INT(count_of("greeter", NULL), 0);
        if (n % 2 == 0) CHECK(pl_claim_sweep() >= 0);
        struct pl_claim claim = claim_it("greeter", true); /* which sweeps, too */
        CHECK_INT(count_of(NULL, NULL), 1);
        pl_claim_close(&claim);
        check_empty(own());
        CHECK(n < 2000);
    }
    CHECK(n > 100);
}

TEST(a_claimer_that_is_stopped_half_way_does_not_stop_the_others)
{
    if (test_sanitized()) SKIP("a sanitizer's own system calls are many");
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        struct pl_claim claim = claim_it("stuck", true);
        pl_claim_close(&claim);
        _exit(0);
    }
    int status = 0;
    CHECK_INT(waitpid(child, &status, 0), child);
    while (files_in(own(), "s") < 1) { /* up to bind: well inside its turn */
        CHECK_INT(ptrace(PTRACE_SYSCALL, child, NULL, NULL), 0);
        CHECK_INT(waitpid(child, &status, 0), child);
        CHECK(WIFSTOPPED(status));
    }
    struct pl_claim claim = claim_it("greeter", true);
    CHECK_INT(count_of("greeter", NULL), 1);
    check_refused("stuck", true, -EADDRINUSE, "a process that is just claiming it");
    CHECK(pl_claim_sweep() == 0);
    CHECK_INT(ptrace(PTRACE_CONT, child, NULL, NULL), 0);
    CHECK_INT(test_wait_child(child), 0); /* its claim held: nothing of it was swept */
    pl_claim_close(&claim);
    check_empty(own());
}
