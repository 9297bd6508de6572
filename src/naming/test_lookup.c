#include "naming/lookup.h"

#include "base/clock.h"
#include "naming/entry.h"
#include "naming/test_support.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

static const struct pl_allow nobody_else;

static const char *own(void)
{
    return getenv("PLAIT_DIR");
}

static struct pl_claim claim_it(const char *name)
{
    struct pl_claim claim;
    int r = pl_claim_open(&claim, name, false, &nobody_else);
    if (r < 0) test_fail(__FILE__, __LINE__, "claim: %s", pl_error_text());
    return claim;
}

TEST(nothing_is_found_where_nothing_is)
{
    struct pl_instance *instances = (void *)1;
    size_t count = 7;
    CHECK_INT(pl_lookup("greeter", NULL, &instances, &count), 0);
    CHECK_INT(count, 0);
    free(instances);
    setenv("PLAIT_DIR", path_of("%s/missing", test_directory()), 1);
    CHECK_INT(count_of("greeter", NULL), 0);
    setenv("PLAIT_DIR", "relative", 1);
    CHECK_INT(count_of("greeter", NULL), 0);
}

TEST(an_instance_is_found_with_all_that_it_says)
{
    struct server server = start("greeter", (struct server_options){ 0 });
    struct pl_instance instance = only("greeter", NULL);
    CHECK(instance.id == server.id);
    CHECK_STR(instance.name, "greeter");
    CHECK_INT(instance.pid, server.pid);
    CHECK_INT(instance.uid, geteuid());
    CHECK_INT(instance.start, pl_process_start(server.pid));
    CHECK_STR(instance.urls, "");
    CHECK_STR(instance.directory, own());
    CHECK_INT(pl_instance_alive(&instance), 1);
    stop(&server);
    CHECK_INT(pl_instance_alive(&instance), 0);
}

TEST(only_the_name_asked_for_is_found)
{
    struct pl_claim a = claim_it("greeter"), b = claim_it("greeter2"), c = claim_it("greet");
    CHECK_INT(count_of("greeter", NULL), 1);
    CHECK_INT(count_of("gree", NULL), 0);
    CHECK_INT(count_of(NULL, NULL), 3);
    pl_claim_close(&a);
    pl_claim_close(&b);
    pl_claim_close(&c);
}

TEST(instances_come_in_random_order)
{
    struct pl_claim claims[4];
    bool first[4] = { false };
    for (int i = 0; i < 4; i++) claims[i] = claim_it("greeter");
    for (int i = 0; i < 200; i++) { /* a wrong failure: once in 10^24 */
        struct pl_instance *instances = NULL;
        size_t count = 0;
        CHECK_INT(pl_lookup("greeter", NULL, &instances, &count), 0);
        CHECK_INT(count, 4);
        for (int j = 0; j < 4; j++) first[j] |= instances[0].id == claims[j].id;
        free(instances);
    }
    for (int i = 0; i < 4; i++) {
        CHECK(first[i]);
        pl_claim_close(&claims[i]);
    }
}

TEST(a_stopped_server_is_still_found)
{
    struct server server = start("greeter", (struct server_options){ 0 });
    CHECK_INT(kill(server.pid, SIGSTOP), 0);
    siginfo_t info;
    CHECK_INT(waitid(P_PID, (id_t)server.pid, &info, WSTOPPED | WNOWAIT), 0);
    struct pl_instance instance = only("greeter", NULL);
    CHECK_INT(connect_to(&instance, NULL), 0);
    CHECK_INT(kill(server.pid, SIGCONT), 0);
    stop(&server);
}

TEST(the_dead_are_left_out_and_swept)
{
    struct server server = start("greeter", (struct server_options){ 0 });
    kill_it(&server);
    CHECK_INT(files_in(own(), "s"), 1);
    CHECK_INT(count_of("greeter", NULL), 0);
    CHECK_INT(files_in(own(), "s"), 0);
}

TEST(the_dead_are_left_out_although_a_forked_child_lives_on)
{
    struct server server = start("greeter", (struct server_options){ .fork_child = true });
    struct pl_instance instance = only("greeter", NULL);
    kill_only(&server);
    CHECK_INT(pl_instance_alive(&instance), 0);
    CHECK_INT(count_of("greeter", NULL), 0);
    pl_close(&server.talk);
}

TEST(hostile_entries_are_passed_over)
{
    char text[PL_ENTRY_TEXT];
    struct pl_entry self;
    struct pl_claim claim = claim_it("greeter");
    pl_entry_self(&self);
    self.id = 5;
    pl_entry_format(&self, text);
    int fds[4];
    const char *files[] = { "greeter@0000000000000001", "greeter@0000000000000002", "greeter@0000000000000003",
                            "greeter@0000000000000004" };
    for (int i = 0; i < 4; i++) {
        fds[i] = open(path_of("%s/services/%s", own(), files[i]), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        CHECK_INT(pl_entry_lock(fds[i], F_WRLCK), 0);
    }
    CHECK_INT(write(fds[0], text, strlen(text)), strlen(text)); /* another id than its file's */
    CHECK_INT(ftruncate(fds[1], 1 << 30), 0);                   /* a gigabyte of zeros */
    CHECK_INT(write(fds[2], "pid 1\nuid 0\nstart ", 18), 18);
    CHECK_INT(mkfifo(path_of("%s/services/greeter@0000000000000006", own()), 0600), 0);
    CHECK_INT(symlink("/proc/self/environ", path_of("%s/services/greeter@0000000000000007", own())), 0);
    CHECK_INT(mkdir(path_of("%s/services/greeter@0000000000000008", own()), 0700), 0);
    CHECK(only("greeter", NULL).id == claim.id);
    for (int i = 0; i < 4; i++) close(fds[i]);
    pl_claim_close(&claim);
}

TEST(without_descriptors_it_fails_instead_of_finding_nothing)
{
    struct pl_claim claim = claim_it("greeter");
    struct rlimit limit;
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    int r = -EMFILE, room = (int)test_count_fds();
    for (int i = 0; i < 16 && r != 0; i++) {
        struct rlimit small = { (rlim_t)(room + i), limit.rlim_max };
        struct pl_instance *instances = NULL;
        size_t count = 0;
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &small), 0);
        r = pl_lookup("greeter", NULL, &instances, &count);
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
        CHECK(r == -EMFILE || count == 1);
        free(instances);
    }
    CHECK_INT(r, 0);
    pl_claim_close(&claim);
}

TEST(a_client_with_and_a_server_without_xdg_runtime_dir_find_each_other)
{
    own_world();
    CHECK_INT(mkdir("/run/user", 0755), 0);
    CHECK_INT(mkdir("/run/user/54321", 0700), 0);
    CHECK_INT(chown("/run/user/54321", SOMEBODY, SOMEBODY), 0);
    be(SOMEBODY);
    struct server server = start("greeter", (struct server_options){ 0 });
    setenv("XDG_RUNTIME_DIR", "/run/user/54321", 1);
    struct pl_instance instance = only("greeter", NULL);
    CHECK_STR(instance.directory, "/run/user/54321/plait");
    CHECK_INT(connect_to(&instance, NULL), 0);
    stop(&server);
    server = start("greeter", (struct server_options){ 0 });
    unsetenv("XDG_RUNTIME_DIR");
    CHECK(only("greeter", NULL).id == server.id);
    stop(&server);
}

/* ---- connecting --------------------------------------------------------------------- */

TEST(a_server_that_ended_is_gone)
{
    struct server server = start("greeter", (struct server_options){ 0 });
    struct pl_instance instance = only("greeter", NULL);
    stop(&server);
    CHECK_INT(connect_to(&instance, NULL), PL_CONNECT_GONE);
}

TEST(a_server_that_was_killed_is_gone)
{
    struct server server = start("greeter", (struct server_options){ 0 });
    struct pl_instance instance = only("greeter", NULL);
    kill_it(&server);
    CHECK_INT(connect_to(&instance, NULL), PL_CONNECT_GONE);
}

TEST(a_killed_server_is_gone_although_its_child_keeps_the_socket)
{
    struct server server = start("greeter", (struct server_options){ .fork_child = true });
    struct pl_instance instance = only("greeter", NULL);
    CHECK_INT(connect_to(&instance, NULL), 0);
    kill_only(&server);
    CHECK_INT(connect_to(&instance, NULL), PL_CONNECT_GONE);
    pl_close(&server.talk);
}

TEST(a_zombie_is_gone_although_its_child_keeps_the_socket)
{
    struct server server = start("greeter", (struct server_options){ .fork_child = true });
    struct pl_instance instance = only("greeter", NULL);
    siginfo_t info;
    CHECK_INT(kill(server.pid, SIGKILL), 0);
    CHECK_INT(waitid(P_PID, (id_t)server.pid, &info, WEXITED | WNOWAIT), 0);
    CHECK_INT(pl_instance_alive(&instance), 0);
    CHECK_INT(connect_to(&instance, NULL), PL_CONNECT_GONE);
    CHECK_INT(test_wait_child(server.pid), 128 + SIGKILL);
    pl_close(&server.talk);
}

TEST(an_older_kernel_knows_the_dead_by_their_entries)
{
    struct server dead = start("greeter", (struct server_options){ .fork_child = true });
    struct pl_instance gone = only("greeter", NULL);
    struct pl_claim claim = claim_it("other");
    struct pl_instance alive = only("other", NULL);
    deny(SYS_getsockopt, 77 /* SO_PEERPIDFD */, ENOPROTOOPT);
    kill_only(&dead);
    CHECK_INT(connect_to(&gone, NULL), PL_CONNECT_GONE);
    CHECK_INT(connect_to(&alive, NULL), 0);
    pl_close(&dead.talk);
    pl_claim_close(&claim);
}

/* Fills the backlog of a listener that nobody accepts from. */
static int fill(const struct pl_instance *instance, int fds[8])
{
    uid_t uid;
    int count = 0;
    while (count < 8 && pl_lookup_connect(instance, NULL, &fds[count], &uid) == 0) count++;
    return count;
}

TEST(a_full_backlog_is_busy_and_a_full_backlog_of_the_dead_is_gone)
{
    int pair[2], fds[8];
    char byte = 'x';
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    pid_t child = fork();
    if (child == 0) {
        struct pl_claim claim = claim_it("greeter");
        CHECK_INT(listen(claim.listeners[0], 1), 0); /* a short one */
        close(pair[0]);
        if (fork() == 0) {
            (void)!read(pair[1], &byte, 1);
            _exit(0);
        }
        CHECK_INT(write(pair[1], &byte, 1), 1);
        pause();
    }
    close(pair[1]);
    CHECK_INT(read(pair[0], &byte, 1), 1);
    struct pl_instance instance = only("greeter", NULL);
    int count = fill(&instance, fds);
    CHECK(count > 0 && count < 8);
    CHECK_INT(connect_to(&instance, NULL), PL_CONNECT_BUSY);
    CHECK_INT(kill(child, SIGKILL), 0);
    CHECK_INT(test_wait_child(child), 128 + SIGKILL);
    CHECK_INT(connect_to(&instance, NULL), PL_CONNECT_GONE);
    while (count > 0) close(fds[--count]);
    close(pair[0]);
}

TEST(a_file_in_place_of_the_socket_is_gone)
{
    struct pl_claim claim = claim_it("greeter");
    struct pl_instance instance = only("greeter", NULL);
    const char *path = path_of("%s/s/%016llx", own(), (unsigned long long)claim.id);
    CHECK_INT(unlink(path), 0);
    CHECK_INT(connect_to(&instance, NULL), PL_CONNECT_GONE);
    close(creat(path, 0600));
    CHECK_INT(connect_to(&instance, NULL), PL_CONNECT_GONE);
    pl_claim_close(&claim);
}

TEST(a_directory_that_vanished_is_gone)
{
    struct pl_instance instance = { .name = "greeter", .id = 1 };
    snprintf(instance.directory, sizeof instance.directory, "%s/nowhere", test_directory());
    CHECK_INT(connect_to(&instance, NULL), PL_CONNECT_GONE);
    CHECK_INT(pl_instance_alive(&instance), 0);
}

/* ---- errors and stamps -------------------------------------------------------------- */

TEST(a_missing_name_is_told_with_every_directory_and_near_names)
{
    CHECK_INT(pl_lookup_missing("greter", NULL), -ENOENT);
    CHECK_STR(pl_error_text(), path_of("no service 'greter' (searched %s, %s/shared/0)", own(), own()));
    struct pl_claim one = claim_it("greeter"), two = claim_it("zebra"), three = claim_it("greeter");
    CHECK_INT(pl_lookup_missing("greter", NULL), -ENOENT);
    CHECK_STR(pl_error_text(),
              path_of("no service 'greter' (searched %s, %s/shared/0; did you mean 'greeter'?)", own(), own()));
    struct pl_claim four = claim_it("greater");
    CHECK_INT(pl_lookup_missing("greter", "54321"), -ENOENT);
    CHECK_CONTAINS(pl_error_text(), path_of("%s/shared/54321; did you mean 'gre", own()));
    CHECK_CONTAINS(pl_error_text(), "' or 'gre");
    CHECK_INT(pl_lookup_missing("zebra", NULL), -ENOENT); /* it came meanwhile; it's no near name of itself */
    CHECK_CONTAINS(pl_error_text(), "/shared/0)");
    pl_claim_close(&one);
    pl_claim_close(&two);
    pl_claim_close(&three);
    pl_claim_close(&four);
    CHECK_INT(pl_lookup_missing("greeter", "no-such-user"), -EINVAL);
}

TEST(a_missing_name_in_a_refused_directory_says_why)
{
    CHECK_INT(chmod(own(), 0777), 0);
    CHECK_INT(pl_lookup_missing("greeter", NULL), -ENOENT);
    CHECK_CONTAINS(pl_error_text(),
                   path_of("no service 'greeter' (searched %s: writable by others, mode 0777 (chmod go-w %s)", own(),
                           own()));
}

/* Waits until no change is recent: until then every stamp is another. */
static uint64_t settled_stamp(void)
{
    uint64_t stamp = pl_lookup_stamp(NULL), deadline = pl_clock_ns() + 10000000000u;
    for (uint64_t next; (next = pl_lookup_stamp(NULL)) != stamp; stamp = next) {
        CHECK(pl_clock_ns() < deadline);
        poll(NULL, 0, 5);
    }
    return stamp;
}

TEST(the_stamp_changes_when_entries_come_or_go)
{
    uint64_t empty = pl_lookup_stamp(NULL);
    CHECK(pl_lookup_stamp(NULL) == empty);
    struct pl_claim claim = claim_it("greeter");
    CHECK(pl_lookup_stamp(NULL) != empty);
    uint64_t one = settled_stamp();
    CHECK(pl_lookup_stamp(NULL) == one);
    struct pl_claim second = claim_it("greeter");
    uint64_t two = settled_stamp();
    CHECK(two != one);
    pl_claim_close(&second);
    CHECK(settled_stamp() != two);
    pl_claim_close(&claim);
}

TEST(while_a_change_is_recent_no_two_stamps_are_the_same)
{
    /* Directories' times may be coarse: a second change within the same tick would leave them as they are. */
    struct pl_claim claim = claim_it("greeter");
    struct timespec now, times[2];
    clock_gettime(CLOCK_REALTIME, &now);
    times[0] = times[1] = (struct timespec){ now.tv_sec + 5, now.tv_nsec }; /* stays recent, however slow we are */
    CHECK_INT(utimensat(AT_FDCWD, path_of("%s/services", own()), times, 0), 0);
    uint64_t stamp = pl_lookup_stamp(NULL);
    CHECK(pl_lookup_stamp(NULL) != stamp);
    pl_claim_close(&claim);
}

TEST(a_topic_and_a_service_may_have_the_same_name_and_are_not_mistaken)
{
    struct pl_allow nobody = { 0 };
    struct pl_claim service, topic;
    struct pl_instance *found;
    size_t count;
    CHECK_INT(pl_claim_open(&service, "twin", false, &nobody), 0);
    CHECK_INT(pl_claim_open_as(&topic, PL_KIND_TOPIC, "twin", false, &nobody), 0);
    CHECK_INT(pl_lookup("twin", NULL, &found, &count), 0);
    CHECK_INT(count, 1);
    CHECK(found[0].id == service.id && pl_instance_alive(&found[0]) == 1);
    free(found);
    CHECK_INT(pl_lookup_as(PL_KIND_TOPIC, "twin", NULL, &found, &count), 0);
    CHECK_INT(count, 1);
    CHECK(found[0].id == topic.id && pl_instance_alive(&found[0]) == 1);
    pl_claim_close(&service);
    CHECK_INT(pl_lookup_missing("twin", NULL), -ENOENT);
    CHECK_CONTAINS(pl_error_text(), getenv("PLAIT_DIR"));
    CHECK_CONTAINS(pl_error_text(), "it is a topic");
    pl_claim_close(&topic);
    CHECK_INT(pl_instance_alive(&found[0]), 0);
    free(found);
    CHECK_INT(pl_lookup_missing("twin", NULL), -ENOENT);
    CHECK(strstr(pl_error_text(), "topic") == NULL);
    CHECK_INT(pl_claim_open_as(&topic, PL_KIND_TOPIC, "Bad", false, &nobody), -EINVAL);
    CHECK_CONTAINS(pl_error_text(), "topic");
    CHECK_INT(files_in(getenv("PLAIT_DIR"), "topics"), 0);
}
