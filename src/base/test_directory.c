/* The runtime directories. What needs another uid or other mounts runs as root in a mount namespace
 * of its own: the machine's /run and /tmp are never touched. */
#include "base/directory.h"

#include "base/error.h"
#include "base/fd.h"
#include "harness/test.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY 65534
#define SOMEBODY 54321 /* has no name */

static char *path_of(const char *format, ...) __attribute__((format(printf, 1, 2)));
static char *path_of(const char *format, ...)
{
    static char texts[8][512];
    static int next;
    char *text = texts[next++ % 8];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, 512, format, arguments);
    va_end(arguments);
    return text;
}

static unsigned mode_of(const char *path)
{
    struct stat status;
    if (lstat(path, &status) < 0) return 0;
    return status.st_mode & 07777;
}

static void be(uid_t uid)
{
    CHECK_INT(setgroups(0, NULL), 0);
    CHECK_INT(setresgid(uid, uid, uid), 0);
    CHECK_INT(setresuid(uid, uid, uid), 0);
}

static void mount_tmpfs(const char *path, const char *options, unsigned long flags)
{
    CHECK_INT(mount("tmpfs", path, "tmpfs", flags, options), 0);
}

/* /run and /tmp become empty file systems that only this process sees; no variable is set. */
static void own_world(void)
{
    if (geteuid() != 0) SKIP("needs root");
    if (unshare(CLONE_NEWNS) < 0) SKIP("needs a mount namespace");
    CHECK_INT(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    mount_tmpfs("/run", "mode=755", 0);
    mount_tmpfs("/tmp", "mode=1777", 0);
    unsetenv("PLAIT_DIR");
    unsetenv("XDG_RUNTIME_DIR");
}

static void use(const char *path)
{
    setenv("PLAIT_DIR", path, 1);
}

static void check_refused(bool create, int code, const char *part)
{
    struct pl_directory directory = PL_DIRECTORY_NONE;
    CHECK_INT(pl_directory_own(&directory, create), code);
    CHECK_CONTAINS(pl_error_text(), part);
    CHECK_INT(directory.fd, -1); /* untouched */
}

static void check_own(const char *path)
{
    struct pl_directory directory = PL_DIRECTORY_NONE;
    CHECK_INT(pl_directory_own(&directory, true), 0);
    CHECK_STR(directory.path, path);
    CHECK_INT(directory.owner, geteuid());
    CHECK_INT(mode_of(path), 0700);
    pl_directory_close(&directory);
    pl_directory_close(&directory);
    CHECK_INT(directory.fd, -1);
}

static char *search(const char *peer, int count)
{
    static char paths[2048];
    struct pl_directory directories[3];
    CHECK_INT(pl_directory_search(directories, peer, paths, sizeof paths), count);
    for (int i = 0; i < count; i++) pl_directory_close(&directories[i]);
    return paths;
}

TEST(plait_dir_is_the_own_directory_and_the_only_one_searched)
{
    setenv("XDG_RUNTIME_DIR", test_directory(), 1);
    use(path_of("%s/chosen", test_directory()));
    check_own(path_of("%s/chosen", test_directory()));
    CHECK_STR(search(NULL, 1), path_of("%s/chosen, %s/chosen/shared/0", test_directory(), test_directory()));
}

TEST(plait_dir_may_end_in_slashes)
{
    use(path_of("%s/chosen//", test_directory()));
    check_own(path_of("%s/chosen", test_directory()));
}

TEST(a_relative_plait_dir_is_refused)
{
    use("here");
    check_refused(true, -EINVAL, "PLAIT_DIR=here: not an absolute path");
    CHECK_CONTAINS(search(NULL, 0), "not an absolute path");
}

TEST(a_plait_dir_too_long_for_entries_is_refused)
{
    char name[500];
    memset(name, 'x', sizeof name);
    name[0] = '/';
    name[sizeof name - 1] = '\0';
    use(name);
    check_refused(true, -ENAMETOOLONG, "longer than 351 bytes");
}

TEST(an_empty_variable_is_none)
{
    own_world();
    setenv("PLAIT_DIR", "", 1);
    setenv("XDG_RUNTIME_DIR", "", 1);
    check_own("/tmp/plait-0");
}

TEST(a_missing_directory_is_made_only_on_demand)
{
    use(path_of("%s/chosen", test_directory()));
    check_refused(false, -ENOENT, "/chosen: not found");
    CHECK_INT(access(getenv("PLAIT_DIR"), F_OK), -1);
}

TEST(a_missing_parent_is_named)
{
    use(path_of("%s/a/b", test_directory()));
    check_refused(true, -ENOENT, path_of("%s/a: ", test_directory()));
    CHECK_CONTAINS(pl_error_text(), "set PLAIT_DIR");
}

TEST(xdg_runtime_dir_comes_after_plait_dir)
{
    unsetenv("PLAIT_DIR");
    setenv("XDG_RUNTIME_DIR", test_directory(), 1);
    check_own(path_of("%s/plait", test_directory()));
}

TEST(a_missing_xdg_runtime_dir_is_told)
{
    unsetenv("PLAIT_DIR");
    setenv("XDG_RUNTIME_DIR", path_of("%s/gone", test_directory()), 1);
    check_refused(true, -ENOENT, "XDG_RUNTIME_DIR names it");
}

TEST(an_xdg_runtime_dir_of_the_user_before_sudo_is_refused)
{
    own_world();
    mkdir("/run/user", 0755);
    mkdir("/run/user/54321", 0700);
    CHECK_INT(chown("/run/user/54321", SOMEBODY, SOMEBODY), 0);
    setenv("XDG_RUNTIME_DIR", "/run/user/54321", 1);
    check_refused(true, -EPERM, "belongs to uid 54321, not to uid 0 (root)");
    CHECK_INT(access("/run/user/54321/plait", F_OK), -1);
}

TEST(with_and_without_xdg_runtime_dir_the_same_directory_is_found)
{
    own_world();
    mkdir("/run/user", 0755);
    mkdir("/run/user/0", 0700);
    check_own("/run/user/0/plait");
    setenv("XDG_RUNTIME_DIR", "/run/user/0", 1);
    check_own("/run/user/0/plait");
}

TEST(a_run_user_directory_of_somebody_else_is_not_used)
{
    own_world();
    mkdir("/run/user", 0755);
    mkdir("/run/user/0", 0755);
    CHECK_INT(chown("/run/user/0", SOMEBODY, SOMEBODY), 0);
    check_own("/tmp/plait-0");
}

TEST(else_it_is_in_tmp)
{
    own_world();
    check_own("/tmp/plait-0");
    be(SOMEBODY);
    check_own("/tmp/plait-54321");
}

TEST(somebody_else_cannot_prepare_our_directory_in_tmp)
{
    own_world();
    mkdir("/tmp/plait-0", 0755);
    CHECK_INT(chown("/tmp/plait-0", SOMEBODY, SOMEBODY), 0);
    check_refused(true, -EPERM, "/tmp/plait-0: belongs to uid 54321");
    CHECK_CONTAINS(pl_error_text(), "set PLAIT_DIR");
}

TEST(modes_do_not_depend_on_the_umask)
{
    static const mode_t masks[] = { 0, 022, 077, 0777 };
    for (size_t i = 0; i < sizeof masks / sizeof *masks; i++) {
        struct pl_directory own, shared;
        int fd = -1;
        use(path_of("%s/%zu", test_directory(), i));
        umask(masks[i]);
        CHECK_INT(pl_directory_own(&own, true), 0);
        CHECK_INT(pl_directory_sub(&own, "services", true, &fd), 0);
        pl_close(&fd);
        CHECK_INT(pl_directory_shared(&shared, true), 0);
        CHECK_INT(pl_directory_sub(&shared, "services", true, &fd), 0);
        pl_close(&fd);
        CHECK_INT(mode_of(own.path), 0700);
        CHECK_INT(mode_of(path_of("%s/services", own.path)), 0700);
        CHECK_INT(mode_of(path_of("%s/shared", own.path)), 01777);
        CHECK_INT(mode_of(shared.path), 0755);
        CHECK_INT(mode_of(path_of("%s/services", shared.path)), 0755);
        pl_directory_close(&own);
        pl_directory_close(&shared);
    }
}

TEST(a_directory_whose_maker_died_before_chmod_is_mended)
{
    struct pl_directory own;
    int fd = -1;
    CHECK_INT(pl_directory_own(&own, true), 0);
    CHECK_INT(mkdir(path_of("%s/services", own.path), 0), 0);
    CHECK_INT(pl_directory_sub(&own, "services", true, &fd), 0);
    CHECK_INT(mode_of(path_of("%s/services", own.path)), 0700);
    pl_close(&fd);
    pl_directory_close(&own);
}

TEST(the_mode_of_a_chosen_directory_is_left_alone)
{
    struct pl_directory own;
    CHECK_INT(chmod(getenv("PLAIT_DIR"), 0755), 0);
    CHECK_INT(pl_directory_own(&own, true), 0);
    CHECK_INT(mode_of(own.path), 0755);
    CHECK_INT(own.mode, 0700);
    pl_directory_close(&own);
}

TEST(a_symlink_is_refused_with_and_without_a_slash)
{
    CHECK_INT(symlink(getenv("PLAIT_DIR"), path_of("%s/link", test_directory())), 0);
    use(path_of("%s/link", test_directory()));
    check_refused(true, -ELOOP, "/link: a symbolic link");
    use(path_of("%s/link/", test_directory()));
    check_refused(true, -ELOOP, "/link: a symbolic link");
}

TEST(a_dangling_symlink_is_refused)
{
    CHECK_INT(symlink("/nowhere", path_of("%s/link", test_directory())), 0);
    use(path_of("%s/link", test_directory()));
    check_refused(true, -ELOOP, "a symbolic link");
}

TEST(a_file_is_refused)
{
    close(creat(path_of("%s/file", test_directory()), 0600));
    use(path_of("%s/file", test_directory()));
    check_refused(true, -ENOTDIR, "/file: not a directory");
}

TEST(a_directory_writable_by_others_is_refused_with_the_command_that_mends_it)
{
    CHECK_INT(chmod(getenv("PLAIT_DIR"), 0770), 0);
    check_refused(true, -EACCES, path_of("writable by others, mode 0770 (chmod go-w %s)", getenv("PLAIT_DIR")));
    CHECK_INT(chmod(getenv("PLAIT_DIR"), 0702), 0);
    check_refused(false, -EACCES, "mode 0702");
    CHECK_CONTAINS(search(NULL, 0), "chmod go-w");
}

TEST(a_directory_of_somebody_else_is_refused)
{
    if (geteuid() != 0) SKIP("needs root");
    CHECK_INT(chown(getenv("PLAIT_DIR"), SOMEBODY, SOMEBODY), 0);
    check_refused(true, -EPERM, "belongs to uid 54321, not to uid 0 (root) (set PLAIT_DIR");
}

TEST(a_read_only_file_system_is_told)
{
    own_world();
    mount_tmpfs("/tmp", "mode=1777", MS_RDONLY);
    check_refused(true, -EROFS, "/tmp/plait-0: the file system is read-only (set PLAIT_DIR");
}

TEST(a_full_file_system_is_told)
{
    own_world();
    mount_tmpfs("/tmp", "mode=1777,nr_inodes=1", 0);
    check_refused(true, -ENOSPC, "/tmp/plait-0: no space left");
}

TEST(no_permission_is_told)
{
    own_world();
    mkdir("/run/closed", 0755);
    mkdir("/run/shut", 0700);
    be(SOMEBODY);
    use("/run/closed/x");
    check_refused(true, -EACCES, "/run/closed/x: no permission to make it (set PLAIT_DIR");
    use("/run/shut/x");
    check_refused(true, -EACCES, "/run/shut/x");
    CHECK_CONTAINS(pl_error_text(), "set PLAIT_DIR");
}

TEST(root_makes_the_shared_directory_others_are_told_how)
{
    struct pl_directory shared = PL_DIRECTORY_NONE;
    own_world();
    pid_t child = fork();
    if (child == 0) {
        be(SOMEBODY);
        CHECK_INT(pl_directory_shared(&shared, true), -ENOENT);
        CHECK_CONTAINS(pl_error_text(), "mkdir -m 1777 /run/plait");
        _exit(0);
    }
    CHECK_INT(test_wait_child(child), 0);
    CHECK_INT(pl_directory_shared(&shared, true), 0);
    CHECK_STR(shared.path, "/run/plait/0");
    pl_directory_close(&shared);
    CHECK_INT(mode_of("/run/plait"), 01777);
    child = fork();
    if (child == 0) {
        be(SOMEBODY);
        CHECK_INT(pl_directory_shared(&shared, true), 0);
        CHECK_STR(shared.path, "/run/plait/54321");
        CHECK_INT(mode_of(shared.path), 0755);
        pl_directory_close(&shared);
        _exit(0);
    }
    CHECK_INT(test_wait_child(child), 0);
}

TEST(a_shared_place_taken_by_somebody_else_is_refused)
{
    struct pl_directory shared = PL_DIRECTORY_NONE;
    own_world();
    mkdir("/run/plait", 0755);
    chmod("/run/plait", 01777);
    mkdir("/run/plait/0", 0755);
    CHECK_INT(chown("/run/plait/0", SOMEBODY, SOMEBODY), 0);
    CHECK_INT(pl_directory_shared(&shared, true), -EPERM);
    CHECK_CONTAINS(pl_error_text(), "/run/plait/0: belongs to uid 54321");
    CHECK_CONTAINS(search(NULL, 0), "/run/plait/0: belongs to uid 54321");
}

TEST(a_shared_directory_without_sticky_bit_is_refused)
{
    struct pl_directory shared = PL_DIRECTORY_NONE;
    own_world();
    mkdir("/run/plait", 0755);
    chmod("/run/plait", 0777);
    CHECK_INT(pl_directory_shared(&shared, true), -EACCES);
    CHECK_CONTAINS(pl_error_text(), "chmod +t /run/plait");
}

TEST(a_shared_directory_that_is_not_roots_is_refused)
{
    struct pl_directory shared = PL_DIRECTORY_NONE;
    own_world();
    mkdir("/run/plait", 0755);
    CHECK_INT(chown("/run/plait", SOMEBODY, SOMEBODY), 0);
    CHECK_INT(pl_directory_shared(&shared, true), -EPERM);
}

TEST(the_own_the_roots_and_the_peers_directory_are_searched)
{
    struct pl_directory shared;
    own_world();
    CHECK_STR(search(NULL, 0), "/tmp/plait-0, /run/plait/0");
    CHECK_STR(search("54321", 0), "/tmp/plait-0, /run/plait/0, /run/plait/54321");
    CHECK_STR(search("0", 0), "/tmp/plait-0, /run/plait/0");
    CHECK_INT(pl_directory_shared(&shared, true), 0);
    pl_directory_close(&shared);
    CHECK_STR(search("nobody", 1), "/tmp/plait-0, /run/plait/0, /run/plait/65534");
}

TEST(places_keep_what_is_missing)
{
    struct pl_directory places[3];
    CHECK_INT(pl_directory_places(places, NULL), 2);
    CHECK(places[0].fd >= 0);
    CHECK_INT(places[1].fd, -1);
    CHECK_STR(places[1].path, path_of("%s/shared/0", getenv("PLAIT_DIR")));
    pl_directory_close(&places[0]);
}

TEST(an_unknown_peer_is_named)
{
    struct pl_directory directories[3];
    CHECK_INT(pl_directory_search(directories, "no-such-user", NULL, 0), -EINVAL);
    CHECK_CONTAINS(pl_error_text(), "peer: no user 'no-such-user'");
    CHECK_INT(pl_directory_search(directories, "", NULL, 0), -EINVAL);
}

TEST(a_short_text_of_paths_is_cut)
{
    struct pl_directory directories[3];
    char paths[8];
    CHECK_INT(pl_directory_search(directories, NULL, paths, sizeof paths), 1);
    CHECK_INT(strlen(paths), sizeof paths - 1);
    pl_directory_close(&directories[0]);
}

TEST(a_plait_dir_of_root_lets_another_user_search_what_root_shares)
{
    struct pl_directory directories[3];
    if (geteuid() != 0) SKIP("needs root");
    CHECK_INT(chmod(test_directory(), 0755), 0);
    CHECK_INT(chmod(getenv("PLAIT_DIR"), 0755), 0);
    CHECK_INT(pl_directory_shared(&directories[0], true), 0);
    pl_directory_close(&directories[0]);
    pid_t child = fork();
    if (child == 0) {
        be(SOMEBODY);
        CHECK_INT(pl_directory_search(directories, NULL, NULL, 0), 1);
        CHECK_STR(directories[0].path, path_of("%s/shared/0", getenv("PLAIT_DIR")));
        CHECK_INT(directories[0].owner, 0);
        _exit(0);
    }
    CHECK_INT(test_wait_child(child), 0);
}

TEST(the_owner_of_a_plait_dir_makes_its_shared_directory)
{
    struct pl_directory shared = PL_DIRECTORY_NONE;
    own_world();
    be(SOMEBODY);
    use("/tmp/chosen");
    check_own("/tmp/chosen");
    CHECK_INT(pl_directory_shared(&shared, true), 0);
    CHECK_STR(shared.path, "/tmp/chosen/shared/54321");
    pl_directory_close(&shared);
}

TEST(in_a_sticky_plait_dir_every_user_has_an_own_directory)
{
    struct pl_directory directory;
    if (geteuid() != 0) SKIP("needs root");
    CHECK_INT(chmod(test_directory(), 0755), 0);
    CHECK_INT(chmod(getenv("PLAIT_DIR"), 01777), 0);
    check_own(path_of("%s/0", getenv("PLAIT_DIR")));
    CHECK_INT(pl_directory_shared(&directory, true), 0);
    pl_directory_close(&directory);
    pid_t child = fork();
    if (child == 0) {
        be(SOMEBODY);
        check_own(path_of("%s/54321", getenv("PLAIT_DIR")));
        CHECK_INT(pl_directory_shared(&directory, true), 0);
        CHECK_STR(directory.path, path_of("%s/shared/54321", getenv("PLAIT_DIR")));
        _exit(0);
    }
    CHECK_INT(test_wait_child(child), 0);
}

TEST(a_subdirectory_is_checked_like_its_parent)
{
    struct pl_directory own;
    int fd = -1;
    CHECK_INT(pl_directory_own(&own, true), 0);
    CHECK_INT(pl_directory_sub(&own, "services", false, &fd), -ENOENT);
    CHECK_INT(symlink("/", path_of("%s/services", own.path)), 0);
    CHECK_INT(pl_directory_sub(&own, "services", true, &fd), -ELOOP);
    CHECK_INT(mkdir(path_of("%s/s", own.path), 0700), 0);
    CHECK_INT(chmod(path_of("%s/s", own.path), 0720), 0);
    CHECK_INT(pl_directory_sub(&own, "s", true, &fd), -EACCES);
    CHECK_CONTAINS(pl_error_text(), "/s: writable by others");
    CHECK_INT(fd, -1);
    pl_directory_close(&own);
}

TEST(many_processes_may_make_the_directories_at_once)
{
    enum { CHILDREN = 8 };
    pid_t children[CHILDREN];
    for (int round = 0; round < 10; round++) {
        use(path_of("%s/%d", test_directory(), round));
        for (int i = 0; i < CHILDREN; i++) {
            children[i] = fork();
            if (children[i] != 0) continue;
            struct pl_directory own, shared;
            int fd = -1;
            CHECK_INT(pl_directory_own(&own, true), 0);
            CHECK_INT(pl_directory_sub(&own, "services", true, &fd), 0);
            CHECK_INT(pl_directory_shared(&shared, true), 0);
            _exit(0);
        }
        for (int i = 0; i < CHILDREN; i++) CHECK_INT(test_wait_child(children[i]), 0);
    }
}
