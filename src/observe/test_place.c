/* Any process of ours that makes a page sweeps every borrowed directory in /dev/shm, other tests' as well. So what
 * must not be swept lies in a runtime directory on tmpfs, or has a file beside it that isn't a page. */
#include "observe/place.h"

#include "base/error.h"
#include "base/fd.h"
#include "harness/test.h"
#include "observe/page.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

/* A runtime directory on tmpfs, as PLAIT_DIR. */
static const char *memory_directory(void)
{
    static char path[64] = "/dev/shm/plait-test-XXXXXX";
    if (mkdtemp(path) == NULL) SKIP("/dev/shm is not writable");
    CHECK_INT(setenv("PLAIT_DIR", path, 1), 0);
    return path;
}

static struct pl_place open_own(bool create)
{
    struct pl_directory directory;
    struct pl_place place = PL_PLACE_NONE;
    CHECK_INT(pl_directory_own(&directory, true), 0);
    int r = pl_place_open(&place, &directory, create);
    pl_directory_close(&directory);
    if (r < 0) CHECK_INT(r, -ENOENT);
    return place;
}

/* An empty directory in /dev/shm is anybody's to remove: hold it with a file "keep". */
static struct pl_place open_own_kept(void)
{
    for (int tries = 0; tries < 100; tries++) {
        struct pl_place place = open_own(true);
        int fd = openat(place.fd, "keep", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
        close(fd);
        if (fd >= 0) return place;
        pl_place_close(&place);
    }
    test_fail(__FILE__, __LINE__, "%s", "the place is removed again and again");
}

/* Also removes the runtime directory that memory_directory() made. */
static void end(struct pl_place *place)
{
    char status[96];
    unlinkat(place->fd, "keep", 0);
    pl_place_tidy(place);
    pl_place_close(place);
    if (place->borrowed) return;
    snprintf(status, sizeof status, "%s/status", getenv("PLAIT_DIR"));
    CHECK_INT(rmdir(status), 0);
    CHECK_INT(rmdir(getenv("PLAIT_DIR")), 0);
}

static bool there(const struct pl_place *place, const char *name)
{
    struct stat status;
    return fstatat(place->fd, name, &status, AT_SYMLINK_NOFOLLOW) == 0;
}

static void make_file(const struct pl_place *place, const char *name)
{
    int fd = openat(place->fd, name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    CHECK_INT(write(fd, "x", 1), 1);
    close(fd);
}

static bool own_is_tmpfs(void)
{
    struct statfs status;
    return statfs(getenv("PLAIT_DIR"), &status) == 0 && status.f_type == 0x01021994;
}

TEST(pages_lie_in_the_runtime_directory_if_that_is_memory)
{
    char expected[128];
    const char *path = memory_directory();
    struct pl_place place = open_own(true);
    snprintf(expected, sizeof expected, "%s/status", path);
    CHECK_STR(place.path, expected);
    CHECK(!place.borrowed);
    end(&place);
}

TEST(pages_of_a_directory_on_disk_lie_in_dev_shm_under_its_device_and_inode)
{
    struct stat status;
    char expected[128];
    if (own_is_tmpfs()) SKIP("the temporary directory is tmpfs");
    struct pl_place place = open_own_kept();
    CHECK_INT(stat(getenv("PLAIT_DIR"), &status), 0);
    snprintf(expected, sizeof expected, "/dev/shm/plait-%llx-%llx", (unsigned long long)status.st_dev,
             (unsigned long long)status.st_ino);
    CHECK_STR(place.path, expected);
    CHECK_INT(stat(expected, &status), 0);
    CHECK_INT(status.st_mode & 07777, 0700);
    end(&place);
    CHECK_INT(stat(expected, &status), -1);
    place = open_own(false);
    CHECK_INT(place.fd, -1);
}

TEST(a_place_that_is_a_symlink_a_file_or_open_to_others_is_refused)
{
    char path[128], made[] = "/dev/shm/plait-test-XXXXXX", keep[160];
    struct stat status;
    struct pl_directory directory;
    struct pl_place place = PL_PLACE_NONE;
    if (own_is_tmpfs()) SKIP("the temporary directory is tmpfs");
    CHECK_INT(pl_directory_own(&directory, true), 0);
    CHECK_INT(stat(getenv("PLAIT_DIR"), &status), 0);
    snprintf(path, sizeof path, "/dev/shm/plait-%llx-%llx", (unsigned long long)status.st_dev,
             (unsigned long long)status.st_ino);
    CHECK_INT(symlink(test_directory(), path), 0);
    CHECK_INT(pl_place_open(&place, &directory, true), -ELOOP);
    CHECK_INT(unlink(path), 0);
    close(open(path, O_CREAT | O_EXCL | O_RDWR, 0600));
    CHECK_INT(pl_place_open(&place, &directory, true), -ENOTDIR);
    CHECK_INT(unlink(path), 0);
    CHECK(mkdtemp(made) != NULL);
    snprintf(keep, sizeof keep, "%s/keep", made);
    close(open(keep, O_CREAT | O_EXCL | O_RDWR, 0600));
    CHECK_INT(chmod(made, 0777), 0);
    CHECK_INT(rename(made, path), 0);
    CHECK_INT(pl_place_open(&place, &directory, true), -EACCES);
    if (geteuid() == 0) {
        CHECK_INT(chmod(path, 0700), 0);
        CHECK_INT(chown(path, 65534, 65534), 0);
        CHECK_INT(pl_place_open(&place, &directory, true), -EPERM);
        CHECK_CONTAINS(pl_error_text(), path);
    }
    snprintf(keep, sizeof keep, "%s/keep", path);
    CHECK_INT(unlink(keep), 0);
    rmdir(path); /* or somebody's sweep has done it */
    CHECK_INT(place.fd, -1);
    pl_directory_close(&directory);
}

static int collect(const struct pl_place *place, const char *name, void *context)
{
    (void)place;
    strcat(strcat(context, name), " ");
    return 0;
}

TEST(only_files_with_sixteen_hex_digits_are_pages)
{
    char names[256] = "";
    memory_directory();
    struct pl_place place = open_own(true);
    static const char *const files[] = { "0123456789abcdef", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF",
                                         "x" };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) make_file(&place, files[i]);
    CHECK_INT(pl_place_each(&place, collect, names), 0);
    CHECK_STR(names, "0123456789abcdef ");
    names[0] = '\0';
    CHECK_INT(pl_place_each(&place, collect, names), 0); /* a second walk begins at the beginning */
    CHECK_STR(names, "0123456789abcdef ");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) CHECK_INT(unlinkat(place.fd, files[i], 0), 0);
    end(&place);
}

TEST(sweeping_takes_the_dead_and_leaves_all_else)
{
    struct pl_page *page = NULL;
    memory_directory();
    struct pl_place place = open_own(true);
    CHECK_INT(pl_page_open(&page), 0);
    make_file(&place, "00000000000000aa"); /* nobody holds it */
    make_file(&place, "other");
    CHECK_INT(symlinkat("other", place.fd, "00000000000000bb"), 0);
    CHECK_INT(mkdirat(place.fd, "00000000000000cc", 0700), 0);
    CHECK_INT(mkfifoat(place.fd, "00000000000000dd", 0600), 0);
    if (geteuid() == 0) {
        make_file(&place, "00000000000000ee");
        CHECK_INT(fchownat(place.fd, "00000000000000ee", 65534, 65534, 0), 0);
    }
    CHECK(pl_place_sweep(&place) >= 1); /* more where other processes died just now */
    CHECK(!there(&place, "00000000000000aa"));
    CHECK(there(&place, page->name));
    CHECK(there(&place, "other") && there(&place, "00000000000000bb"));
    CHECK(there(&place, "00000000000000cc") && there(&place, "00000000000000dd"));
    if (geteuid() == 0) CHECK(there(&place, "00000000000000ee"));
    pl_page_unlink(page);
    pl_page_free(page);
    unlinkat(place.fd, "00000000000000ee", 0);
    unlinkat(place.fd, "00000000000000dd", 0);
    unlinkat(place.fd, "00000000000000bb", 0);
    unlinkat(place.fd, "00000000000000cc", AT_REMOVEDIR);
    unlinkat(place.fd, "other", 0);
    end(&place);
}

TEST(what_a_vanished_runtime_directory_left_in_dev_shm_is_swept)
{
    char path[64], file[96];
    memory_directory();
    struct pl_place place = open_own(true);
    snprintf(path, sizeof path, "/dev/shm/plait-fffffff0-%x", (unsigned)getpid());
    CHECK_INT(mkdir(path, 0700), 0);
    snprintf(file, sizeof file, "%s/00000000000000aa", path);
    close(open(file, O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    pl_place_sweep(&place);
    CHECK_INT(access(path, F_OK), -1);
    end(&place);
}

/* ---- liveness ------------------------------------------------------------------------- */

static int locked_file(int type)
{
    char path[600];
    snprintf(path, sizeof path, "%s/lock", test_directory());
    int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    struct flock lock = { .l_type = (short)type, .l_whence = SEEK_SET };
    CHECK_INT(fcntl(fd, F_OFD_SETLK, &lock), 0);
    return fd;
}

static int reader_of_lock(void)
{
    char path[600];
    snprintf(path, sizeof path, "%s/lock", test_directory());
    return open(path, O_RDONLY | O_CLOEXEC);
}

TEST(the_lock_and_the_process_decide_who_lives)
{
    uint64_t here = pl_place_pid_namespace(), start = pl_process_start(getpid());
    int owner = locked_file(F_WRLCK), reader = reader_of_lock();
    CHECK(here != 0 && start != 0);
    CHECK(pl_place_alive(reader, getpid(), start, here));
    CHECK(!pl_place_alive(reader, getpid(), start + 1, here)); /* the pid came again */
    CHECK(pl_place_alive(reader, 1, start + 1, here + 1));     /* another pid namespace: its pids say nothing here */
    CHECK(pl_place_alive(reader, 1, start + 1, 0));
    pl_close(&owner);
    CHECK(!pl_place_alive(reader, getpid(), start, here));
    pl_close(&reader);
}

TEST(a_lock_that_only_a_forked_child_holds_is_nobodys)
{
    int ready[2], leave[2], reader;
    uint64_t start = 0;
    CHECK_INT(pipe2(ready, O_CLOEXEC), 0);
    CHECK_INT(pipe2(leave, O_CLOEXEC), 0);
    pid_t owner = fork();
    if (owner == 0) {
        uint64_t own = pl_process_start(getpid());
        locked_file(F_WRLCK);
        if (fork() == 0) {
            char byte;
            close(leave[1]);
            CHECK_INT(write(ready[1], &own, sizeof own), sizeof own);
            _exit((int)read(leave[0], &byte, 1)); /* until the test closes its end */
        }
        _exit(0);
    }
    close(ready[1]);
    CHECK_INT(read(ready[0], &start, sizeof start), sizeof start);
    CHECK_INT(test_wait_child(owner), 0);
    reader = reader_of_lock();
    struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET };
    CHECK_INT(fcntl(reader, F_OFD_GETLK, &lock), 0);
    CHECK_INT(lock.l_type, F_WRLCK); /* the child does hold it */
    CHECK(!pl_place_alive(reader, owner, start, pl_place_pid_namespace()));
    close(reader);
    close(ready[0]);
    close(leave[0]);
    close(leave[1]);
}
