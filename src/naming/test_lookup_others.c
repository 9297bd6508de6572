/* Lookups across users and across containers. */
#include "naming/lookup.h"

#include "naming/entry.h"
#include "naming/test_support.h"

static const char *own(void)
{
    return getenv("PLAIT_DIR");
}

/* ---- other users -------------------------------------------------------------------- */

/* In a child: looks for NAME as UID; CONNECT is the outcome, -1 if it shouldn't be found at all. */
static void check_as(uid_t uid, const char *name, const char *peer, int outcome)
{
    pid_t child = fork();
    if (child == 0) {
        if (uid != 0) be(uid);
        if (outcome == -1) {
            CHECK_INT(count_of(name, peer), 0);
            _exit(0);
        }
        struct pl_instance instance = only(name, peer);
        CHECK_INT(connect_to(&instance, peer), outcome);
        _exit(0);
    }
    CHECK_INT(test_wait_child(child), 0);
}

TEST(roots_services_are_found_by_everybody)
{
    share_plait_dir();
    struct server server = start("greeter", (struct server_options){ 0 });
    check_as(0, "greeter", NULL, 0);
    check_as(SOMEBODY, "greeter", NULL, 0);
    stop(&server);
    check_as(SOMEBODY, "greeter", NULL, -1);
}

TEST(a_users_services_are_found_by_that_user_alone)
{
    share_plait_dir();
    struct server server = start("greeter", (struct server_options){ .uid = SOMEBODY });
    check_as(SOMEBODY, "greeter", NULL, 0);
    check_as(OTHER, "greeter", "54321", -1);
    stop(&server);
}

TEST(with_allow_a_users_services_are_found_by_those_who_ask_for_that_user)
{
    share_plait_dir();
    struct server server = start("greeter", (struct server_options){ .uid = SOMEBODY, .allow = "54322" });
    check_as(SOMEBODY, "greeter", NULL, 0);
    check_as(OTHER, "greeter", NULL, -1);
    check_as(OTHER, "greeter", "54321", 0);
    check_as(0, "greeter", "54321", 0);
    check_as(0, "greeter", NULL, -1);
    stop(&server);
}

TEST(root_and_a_user_find_each_other_in_the_systems_directories)
{
    own_world();
    struct server roots = start("from-root", (struct server_options){ 0 });
    struct server users = start("from-user", (struct server_options){ .uid = SOMEBODY, .allow = "root,54322" });
    check_as(SOMEBODY, "from-root", NULL, 0);
    check_as(0, "from-user", "54321", 0);
    check_as(OTHER, "from-user", "54321", 0);
    check_as(OTHER, "from-user", NULL, -1);
    stop(&roots);
    stop(&users);
}

TEST(a_dead_entry_of_somebody_else_is_left_out_and_left_there)
{
    share_plait_dir();
    struct server server = start("greeter", (struct server_options){ .uid = SOMEBODY, .allow = "*" });
    kill_it(&server);
    check_as(OTHER, "greeter", "54321", -1);
    CHECK_INT(files_in(path_of("%s/shared/54321", own()), "services"), 1);
}

TEST(entries_in_a_directory_of_somebody_else_are_not_believed)
{
    share_plait_dir();
    struct server server = start("greeter", (struct server_options){ .uid = SOMEBODY, .allow = "*" });
    /* SOMEBODY's entries where root's should be */
    CHECK_INT(rename(path_of("%s/shared/54321", own()), path_of("%s/shared/0", own())), 0);
    check_as(OTHER, "greeter", NULL, -1);
    CHECK_INT(rename(path_of("%s/shared/0", own()), path_of("%s/shared/54321", own())), 0);
    stop(&server);
}

/* A server process of UID behind an entry and a socket that lie in DIRECTORY, which isn't UID's. */
static void pose(const struct server *server, const char *directory, const char *name, uid_t uid)
{
    char text[PL_ENTRY_TEXT];
    struct pl_entry entry;
    CHECK_INT(mkdir(path_of("%s/services", directory), 0755) < 0 && errno != EEXIST, 0);
    CHECK_INT(mkdir(path_of("%s/s", directory), 0755) < 0 && errno != EEXIST, 0);
    CHECK_INT(link(path_of("%s/shared/%u/s/%016llx", own(), (unsigned)uid, (unsigned long long)server->id),
                   path_of("%s/s/%016llx", directory, (unsigned long long)server->id)),
              0);
    pl_entry_self(&entry);
    entry.id = server->id;
    size_t size = pl_entry_format(&entry, text);
    int fd = open(path_of("%s/services/%s@%016llx", directory, name, (unsigned long long)server->id),
                  O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    CHECK_INT(fchmod(fd, 0644), 0);
    CHECK_INT(write(fd, text, size), size);
    CHECK_INT(pl_entry_lock(fd, F_WRLCK), 0);
}

TEST(nobody_can_pose_as_a_service)
{
    share_plait_dir();
    struct server root = start("real", (struct server_options){ 0 });
    struct server poser = start("greeter", (struct server_options){ .uid = SOMEBODY, .allow = "*" });
    pid_t child = fork();
    if (child == 0) { /* holds the entry's lock for as long as it's tried */
        pose(&poser, path_of("%s/shared/0", own()), "posed", SOMEBODY);
        check_as(OTHER, "posed", NULL, -EACCES);
        check_as(OTHER, "posed", "54322", -EACCES);
        check_as(OTHER, "posed", "54321", 0); /* who asks for that very user means it */
        struct pl_instance instance = only("posed", NULL);
        int fd = -1;
        uid_t uid = 7;
        CHECK_INT(pl_lookup_connect(&instance, NULL, &fd, &uid), -EACCES);
        CHECK_CONTAINS(
            pl_error_text(),
            "is served by uid 54321, who is neither you nor root (if that user is meant, ask for it: peer=54321)");
        CHECK_INT(uid, 7);
        _exit(0);
    }
    CHECK_INT(test_wait_child(child), 0);
    stop(&poser);
    stop(&root);
}

TEST(who_serves_is_told)
{
    share_plait_dir();
    struct server server = start("greeter", (struct server_options){ .uid = SOMEBODY, .allow = "*" });
    struct pl_instance instance = only("greeter", "54321");
    CHECK_INT(instance.uid, SOMEBODY);
    int fd = -1;
    uid_t uid = 0;
    CHECK_INT(pl_lookup_connect(&instance, "54321", &fd, &uid), 0);
    CHECK_INT(uid, SOMEBODY);
    CHECK_INT(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    CHECK_INT(fcntl(fd, F_GETFD), FD_CLOEXEC);
    close(fd);
    CHECK_INT(pl_lookup_connect(&instance, "no-such-user", &fd, &uid), -EINVAL);
    stop(&server);
}

/* ---- pid namespaces ----------------------------------------------------------------- */

/* A server that is pid 1 of a namespace of its own, as in a container that shares the directory. */
static pid_t start_container(int talk[2], bool fork_child)
{
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, talk), 0);
    pid_t outer = fork();
    if (outer == 0) {
        close(talk[0]);
        CHECK_INT(unshare(CLONE_NEWPID), 0);
        pid_t inner = fork();
        if (inner == 0) {
            CHECK_INT(getpid(), 1);
            serve("greeter", (struct server_options){ .fork_child = fork_child }, talk[1]);
        }
        close(talk[1]);
        _exit(test_wait_child(inner));
    }
    uint64_t id;
    close(talk[1]);
    CHECK_INT(read(talk[0], &id, sizeof id), sizeof id);
    return outer;
}

TEST(containers_that_share_a_directory_may_all_be_pid_1)
{
    int one[2], two[2];
    if (geteuid() != 0) SKIP("needs root");
    pid_t first = start_container(one, false), second = start_container(two, false);
    struct pl_instance *instances = NULL;
    size_t count = 0;
    CHECK_INT(pl_lookup("greeter", NULL, &instances, &count), 0);
    CHECK_INT(count, 2);
    for (size_t i = 0; i < count; i++) {
        CHECK_INT(instances[i].pid, 1);
        CHECK_INT(connect_to(&instances[i], NULL), 0);
    }
    free(instances);
    CHECK_INT(pl_claim_sweep(), 0);
    CHECK_INT(shutdown(one[0], SHUT_WR), 0);
    CHECK_INT(test_wait_child(first), 0);
    CHECK_INT(count_of("greeter", NULL), 1);
    CHECK_INT(shutdown(two[0], SHUT_WR), 0);
    CHECK_INT(test_wait_child(second), 0);
    check_empty(own());
    close(one[0]);
    close(two[0]);
}

TEST(from_within_a_container_the_others_are_found)
{
    int talk[2];
    if (geteuid() != 0) SKIP("needs root");
    pid_t container = start_container(talk, false);
    struct server outside = start("greeter", (struct server_options){ 0 });
    pid_t child = fork();
    if (child == 0) {
        CHECK_INT(unshare(CLONE_NEWPID), 0);
        pid_t inner = fork();
        if (inner == 0) {
            struct pl_instance *instances = NULL;
            size_t count = 0;
            CHECK_INT(pl_lookup("greeter", NULL, &instances, &count), 0);
            CHECK_INT(count, 2);
            CHECK_INT(connect_to(&instances[0], NULL), 0);
            CHECK_INT(connect_to(&instances[1], NULL), 0);
            free(instances);
            _exit(0);
        }
        _exit(test_wait_child(inner));
    }
    CHECK_INT(test_wait_child(child), 0);
    stop(&outside);
    CHECK_INT(shutdown(talk[0], SHUT_WR), 0);
    CHECK_INT(test_wait_child(container), 0);
    close(talk[0]);
}

TEST(a_user_in_a_user_namespace_and_one_outside_find_each_other)
{
    int pair[2];
    char byte = 'x';
    if (geteuid() != 0) SKIP("needs root");
    CHECK_INT(chmod(test_directory(), 0755), 0);
    CHECK_INT(chown(own(), SOMEBODY, SOMEBODY), 0);
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    pid_t child = fork();
    if (child == 0) { /* as `unshare -Urpf` does it: uid 0 inside is SOMEBODY outside */
        close(pair[0]);
        be(SOMEBODY);
        if (unshare(CLONE_NEWUSER | CLONE_NEWPID) < 0) _exit(77);
        int fd = open("/proc/self/uid_map", O_WRONLY | O_CLOEXEC);
        CHECK_INT(write(fd, "0 54321 1\n", 10), 10);
        close(fd);
        pid_t inner = fork();
        if (inner == 0) {
            CHECK_INT(geteuid(), 0);
            struct pl_claim claim;
            CHECK_INT(pl_claim_open(&claim, "greeter", false, &(struct pl_allow){ 0 }), 0);
            CHECK_INT(count_of("greeter", NULL), 1);
            CHECK_INT(write(pair[1], &byte, 1), 1);
            CHECK_INT(read(pair[1], &byte, 1), 1);
            struct pl_instance instance = only("outside", NULL);
            CHECK_INT(connect_to(&instance, NULL), 0);
            pl_claim_close(&claim);
            _exit(0);
        }
        _exit(test_wait_child(inner));
    }
    close(pair[1]);
    if (read(pair[0], &byte, 1) == 1) {
        check_as(SOMEBODY, "greeter", NULL, 0);
        pid_t looker = fork();
        if (looker == 0) {
            be(SOMEBODY);
            CHECK_INT(only("greeter", NULL).uid, SOMEBODY); /* whatever it calls itself in there */
            _exit(0);
        }
        CHECK_INT(test_wait_child(looker), 0);
        struct server outside = start("outside", (struct server_options){ .uid = SOMEBODY });
        CHECK_INT(write(pair[0], &byte, 1), 1);
        CHECK_INT(test_wait_child(child), 0);
        stop(&outside);
        check_empty(own());
    } else {
        CHECK_INT(test_wait_child(child), 77);
        SKIP("no user namespaces");
    }
    close(pair[0]);
}
