#include "naming/namelock.h"

#include "naming/entry.h"
#include "naming/test_support.h"

#include <sys/file.h>
#include <sys/ptrace.h>

static struct pl_directory directory;
static int folder = -1;

static void set_up(void)
{
    CHECK_INT(pl_directory_own(&directory, true), 0);
    CHECK_INT(pl_directory_sub(&directory, "services", true, &folder), 0);
}

static void tear_down(void)
{
    pl_close(&folder);
    pl_directory_close(&directory);
}

static const char *lock_path(void)
{
    return path_of("%s/services/.greeter.lock", directory.path);
}

/* What a second process would be told. */
static int try_lock(bool exclusive, bool turn)
{
    int fd = -1;
    int r = pl_name_lock(&directory, folder, "greeter", exclusive, turn, &fd);
    if (r == 0) pl_name_unlock(folder, "greeter", turn, &fd);
    CHECK_INT(fd, -1);
    return r;
}

TEST(a_name_lock_leaves_nothing_behind)
{
    int one = -1, two = -1;
    set_up();
    CHECK_INT(pl_name_lock(&directory, folder, "greeter", false, true, &one), 0);
    CHECK_INT(pl_name_lock(&directory, folder, "greeter", false, true, &two), 0);
    pl_name_unlock(folder, "greeter", true, &one);
    pl_name_unlock(folder, "greeter", true, &one);
    CHECK_INT(access(lock_path(), F_OK), 0); /* the other one still needs it */
    pl_name_unlock(folder, "greeter", true, &two);
    CHECK_INT(access(lock_path(), F_OK), -1);
    tear_down();
}

TEST(without_the_turn_a_lock_file_is_left_to_a_sweep)
{
    int fd = -1;
    set_up();
    CHECK_INT(pl_name_lock(&directory, folder, "greeter", true, false, &fd), 0);
    pl_name_unlock(folder, "greeter", false, &fd);
    CHECK_INT(access(lock_path(), F_OK), 0);
    pl_name_lock_sweep(&directory, folder, false);
    CHECK_INT(access(lock_path(), F_OK), -1);
    tear_down();
}

TEST(a_lock_that_no_living_entry_goes_with_is_replaced_by_whose_turn_it_is)
{
    int held = -1;
    set_up();
    /* As a forked child of a dead holder has it, or a server that is just withdrawing. */
    CHECK_INT(pl_name_lock(&directory, folder, "greeter", true, true, &held), 0);
    CHECK_INT(try_lock(true, false), -EADDRINUSE);
    CHECK_CONTAINS(pl_error_text(), "a process that is just claiming it");
    CHECK_INT(try_lock(true, true), 0);
    CHECK_INT(try_lock(false, true), 0);
    pl_name_unlock(folder, "greeter", true, &held);
    tear_down();
}

TEST(an_unlock_removes_only_its_own_file)
{
    int held = -1, next = -1;
    set_up();
    CHECK_INT(pl_name_lock(&directory, folder, "greeter", true, true, &held), 0);
    CHECK_INT(pl_name_lock(&directory, folder, "greeter", true, true, &next), 0); /* has replaced it */
    pl_name_unlock(folder, "greeter", true, &held);
    CHECK_INT(access(lock_path(), F_OK), 0);
    pl_name_unlock(folder, "greeter", true, &next);
    tear_down();
}

TEST(a_turn_is_one_processs_at_a_time)
{
    int other = -1;
    set_up();
    CHECK_INT(pl_directory_sub(&directory, "services", false, &other), 0);
    CHECK(pl_name_turn_begin(folder));
    CHECK_INT(flock(other, LOCK_EX | LOCK_NB), -1);
    pl_name_turn_end(folder);
    CHECK(pl_name_turn_begin(other));
    pl_name_turn_end(other);
    pl_close(&other);
    tear_down();
}

TEST(a_turn_ends_although_a_forked_child_has_the_descriptor)
{
    int pair[2], other = -1;
    char byte;
    set_up();
    CHECK_INT(pipe2(pair, O_CLOEXEC), 0);
    CHECK(pl_name_turn_begin(folder));
    pid_t child = fork();
    if (child == 0) {
        close(pair[1]);
        (void)!read(pair[0], &byte, 1);
        _exit(0);
    }
    pl_name_turn_end(folder);
    CHECK_INT(pl_directory_sub(&directory, "services", false, &other), 0);
    CHECK_INT(flock(other, LOCK_EX | LOCK_NB), 0);
    close(pair[1]);
    CHECK_INT(test_wait_child(child), 0);
    close(pair[0]);
    pl_close(&other);
    tear_down();
}

TEST(whoever_locks_a_file_that_was_just_removed_locks_again)
{
    int pair[2], status = 0;
    char byte = 'x';
    set_up();
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    pid_t child = fork();
    if (child == 0) {
        int fd = -1;
        close(pair[0]);
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        CHECK_INT(pl_name_lock(&directory, folder, "greeter", true, false, &fd), 0);
        CHECK_INT(write(pair[1], &byte, 1), 1);
        (void)!read(pair[1], &byte, 1);
        _exit(0);
    }
    close(pair[1]);
    CHECK_INT(waitpid(child, &status, 0), child);
    if (!WIFSTOPPED(status)) SKIP("cannot trace");
    while (access(lock_path(), F_OK) < 0) { /* until it has just opened the file */
        CHECK_INT(ptrace(PTRACE_SYSCALL, child, NULL, NULL), 0);
        CHECK_INT(waitpid(child, &status, 0), child);
        CHECK(WIFSTOPPED(status));
    }
    CHECK_INT(unlink(lock_path()), 0);
    CHECK_INT(ptrace(PTRACE_CONT, child, NULL, NULL), 0);
    CHECK_INT(read(pair[0], &byte, 1), 1);
    CHECK_INT(try_lock(true, false), -EADDRINUSE);
    close(pair[0]);
    CHECK_INT(test_wait_child(child), 0);
    pl_name_lock_sweep(&directory, folder, false);
    CHECK_INT(access(lock_path(), F_OK), -1);
    tear_down();
}
