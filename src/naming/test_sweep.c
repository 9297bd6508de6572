#include "naming/sweep.h"

#include "base/random.h"
#include "naming/entry.h"
#include "naming/test_support.h"

#include <sys/un.h>

static const struct pl_allow nobody_else;

static const char *own(void)
{
    return getenv("PLAIT_DIR");
}

static void make_folders(void)
{
    mkdir(path_of("%s/services", own()), 0700);
    mkdir(path_of("%s/topics", own()), 0700);
    mkdir(path_of("%s/s", own()), 0700);
}

/* A file in a folder of the own directory, open. */
static int put(const char *file)
{
    int fd = open(path_of("%s/%s", own(), file), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    return fd;
}

static void put_socket(const char *id)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%.80s/s/%.20s", own(), id);
    CHECK_INT(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
}

static bool there(const char *file)
{
    return access(path_of("%s/%s", own(), file), F_OK) == 0;
}

TEST(nothing_is_swept_where_nothing_is)
{
    CHECK_INT(pl_claim_sweep(), 0);
    setenv("PLAIT_DIR", path_of("%s/missing", test_directory()), 1);
    CHECK_INT(pl_claim_sweep(), 0);
    CHECK_INT(access(getenv("PLAIT_DIR"), F_OK), -1);
}

TEST(the_dead_are_swept_the_living_stay)
{
    struct server dead = start("greeter", (struct server_options){ 0 }),
                  alive = start("greeter", (struct server_options){ 0 });
    kill_it(&dead);
    CHECK_INT(pl_claim_sweep(), 1);
    CHECK_INT(files_in(own(), "services"), 2); /* the entry and the name's lock */
    CHECK_INT(files_in(own(), "s"), 1);
    CHECK_INT(pl_claim_sweep(), 0);
    struct pl_instance instance = only("greeter", NULL);
    CHECK_INT(connect_to(&instance, NULL), 0);
    stop(&alive);
    check_empty(own());
}

TEST(name_locks_that_nobody_holds_are_swept)
{
    struct server dead = start("greeter", (struct server_options){ .exclusive = true });
    kill_it(&dead);
    CHECK_INT(files_in(own(), "services"), 2);
    CHECK_INT(pl_claim_sweep(), 1);
    check_empty(own());
}

TEST(the_dead_are_swept_although_a_forked_child_lives_on)
{
    struct server dead = start("greeter", (struct server_options){ .exclusive = true, .fork_child = true });
    kill_only(&dead);
    CHECK_INT(pl_claim_sweep(), 1);
    check_empty(own());
    pl_close(&dead.talk);
}

TEST(claiming_sweeps)
{
    struct pl_claim claim;
    struct server dead = start("other", (struct server_options){ 0 });
    kill_it(&dead);
    CHECK_INT(pl_claim_open(&claim, "greeter", false, &nobody_else), 0);
    CHECK_INT(files_in(own(), "services"), 2);
    CHECK_INT(files_in(own(), "s"), 1);
    pl_claim_close(&claim);
    check_empty(own());
}

TEST(half_made_entries_stay_while_their_maker_lives)
{
    make_folders();
    int fd = put("services/.greeter@00000000000000aa");
    CHECK_INT(pl_entry_lock(fd, F_WRLCK), 0);
    put_socket("00000000000000aa");
    CHECK_INT(pl_claim_sweep(), 0);
    CHECK(there("services/.greeter@00000000000000aa"));
    CHECK(there("s/00000000000000aa"));
    close(fd);
    CHECK_INT(pl_claim_sweep(), 1);
    check_empty(own());
}

TEST(a_socket_without_entry_is_swept)
{
    make_folders();
    put_socket("00000000000000aa");
    CHECK_INT(pl_claim_sweep(), 1);
    check_empty(own());
}

TEST(sockets_of_topics_stay)
{
    make_folders();
    int fd = put("topics/news@00000000000000aa");
    CHECK_INT(pl_entry_lock(fd, F_WRLCK), 0);
    put_socket("00000000000000aa");
    CHECK_INT(pl_claim_sweep(), 0);
    CHECK(there("s/00000000000000aa"));
    close(fd);
    CHECK_INT(pl_claim_sweep(), 1);
    CHECK(!there("topics/news@00000000000000aa"));
    CHECK(!there("s/00000000000000aa"));
}

TEST(what_is_not_ours_to_sweep_stays)
{
    static const char *const files[] = { "services/README",
                                         "services/Greeter@00000000000000aa",
                                         "services/greeter@aa",
                                         "s/README",
                                         "s/00aa",
                                         "s/00000000000000AA",
                                         "services/.hidden" };
    make_folders();
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) close(put(files[i]));
    CHECK_INT(symlink("/etc/passwd", path_of("%s/services/greeter@00000000000000ab", own())), 0);
    CHECK_INT(mkdir(path_of("%s/services/greeter@00000000000000ac", own()), 0700), 0);
    CHECK_INT(mkfifo(path_of("%s/services/greeter@00000000000000ad", own()), 0600), 0);
    CHECK_INT(pl_claim_sweep(), 0);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) CHECK(there(files[i]));
}

TEST(a_read_lock_does_not_keep_a_dead_entry)
{
    make_folders();
    close(put("services/greeter@00000000000000aa"));
    int fd = open(path_of("%s/services/greeter@00000000000000aa", own()), O_RDONLY | O_CLOEXEC);
    CHECK_INT(pl_entry_lock(fd, F_RDLCK), 0);
    CHECK_INT(pl_claim_sweep(), 1);
    close(fd);
}

TEST(the_own_shared_directory_is_swept_other_users_are_not)
{
    share_plait_dir();
    struct server mine = start("a", (struct server_options){ .allow = "*" });
    struct server theirs = start("b", (struct server_options){ .uid = SOMEBODY, .allow = "*" });
    CHECK_INT(files_in(own(), "shared"), 2);
    kill_it(&mine);
    kill_it(&theirs);
    CHECK_INT(pl_claim_sweep(), 2); /* own and shared */
    check_empty(path_of("%s/0", own()));
    check_empty(path_of("%s/shared/0", own()));
    CHECK_INT(count_of("b", "54321"), 0);
    CHECK_INT(files_in(path_of("%s/shared/54321", own()), "s"), 1);
    pid_t child = fork();
    if (child == 0) {
        be(SOMEBODY);
        CHECK_INT(pl_claim_sweep(), 2);
        _exit(0);
    }
    CHECK_INT(test_wait_child(child), 0);
    check_empty(path_of("%s/shared/54321", own()));
}

enum { WORKERS = 5, ROUNDS = 60 };

/* One process of the crowd: claims and checks that it can be reached, sweeps, or dies in the middle. */
static void crowd(int kind, const char *name)
{
    for (int i = 0; i < ROUNDS; i++) {
        struct pl_claim claim;
        if (kind == 0) {
            CHECK(pl_claim_sweep() >= 0);
            continue;
        }
        if (kind == 1) {
            pid_t child = fork();
            if (child != 0) {
                CHECK_INT(test_wait_child(child), 128 + SIGKILL);
                continue;
            }
        }
        if (pl_claim_open(&claim, name, false, &nobody_else) < 0) test_fail(__FILE__, __LINE__, "%s", pl_error_text());
        if (kind == 1) kill(getpid(), SIGKILL);
        struct pl_instance *instances = NULL;
        size_t count = 0;
        int reached = 0;
        CHECK_INT(pl_lookup(name, NULL, &instances, &count), 0);
        for (size_t j = 0; j < count; j++)
            if (instances[j].id == claim.id) reached += connect_to(&instances[j], NULL) == 0;
        CHECK_INT(reached, 1);
        free(instances);
        pl_claim_close(&claim);
    }
}

TEST(claims_sweeps_and_deaths_at_once_lose_nobody)
{
    pid_t children[WORKERS];
    TEST_TIMEOUT(120);
    for (int i = 0; i < WORKERS; i++) {
        children[i] = fork();
        if (children[i] != 0) continue;
        crowd(i, i < 4 ? "greeter" : "other");
        _exit(0);
    }
    for (int i = 0; i < WORKERS; i++) CHECK_INT(test_wait_child(children[i]), 0);
    CHECK(pl_claim_sweep() >= 0);
    check_empty(own());
}

/* Claims NAME exclusively again and again; while it has it, it's the only one with the write lock on GUARD. */
static void contend(const char *guard, int rounds, bool die)
{
    for (int won = 0, i = 0; won < rounds && i < 20000; i++) {
        struct pl_claim claim;
        int r = pl_claim_open(&claim, "greeter", true, &nobody_else);
        if (r == -EADDRINUSE) {
            sched_yield();
            continue;
        }
        if (r < 0) test_fail(__FILE__, __LINE__, "%s", pl_error_text());
        int fd = open(guard, O_RDWR | O_CLOEXEC);
        CHECK_INT(pl_entry_lock(fd, F_WRLCK), 0);
        won++;
        pid_t child = die && won % 4 == 0 ? fork() : -1;
        if (child == 0) { /* shares every lock, and outlives our claim's end */
            close(fd);
            poll(NULL, 0, 5);
            _exit(0);
        }
        pl_entry_lock(fd, F_UNLCK);
        close(fd);
        if (child < 0 || won % 8 == 0) {
            pl_claim_close(&claim);
        } else {
            kill(getpid(), SIGKILL);
        }
        if (child > 0) CHECK_INT(test_wait_child(child), 0);
    }
}

TEST(one_at_a_time_has_a_name_exclusively)
{
    pid_t children[4];
    char guard[512];
    TEST_TIMEOUT(120);
    snprintf(guard, sizeof guard, "%s/guard", test_directory());
    close(creat(guard, 0600));
    for (int i = 0; i < 4; i++) {
        children[i] = fork();
        if (children[i] != 0) continue;
        contend(guard, 25, false);
        _exit(0);
    }
    for (int i = 0; i < 12; i++) { /* these die with the name in hand, and a child that holds on */
        pid_t child = fork();
        if (child == 0) {
            prctl(PR_SET_CHILD_SUBREAPER, 0);
            contend(guard, 4, true);
            _exit(0);
        }
        CHECK_INT(test_wait_child(child), 128 + SIGKILL);
    }
    for (int i = 0; i < 4; i++) CHECK_INT(test_wait_child(children[i]), 0);
    CHECK(pl_claim_sweep() >= 0);
    check_empty(own());
}
