/* place: see place.h. */
#include "observe/place.h"

#include "base/error.h"
#include "base/fd.h"
#include "observe/status_layout.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define MEMORY "/dev/shm"
#define BORROWED_PREFIX "plait-"

static bool on_tmpfs(int fd)
{
    struct statfs status;
    return fstatfs(fd, &status) == 0 && status.f_type == TMPFS_MAGIC;
}

/* /dev/shm as the directory above OWNER's borrowed ones. */
static int open_memory(struct pl_directory *directory, uid_t owner, mode_t mode)
{
    int fd = open(MEMORY, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return pl_error(-errno, MEMORY ": %s", pl_error_word(errno));
    if (!on_tmpfs(fd)) {
        close(fd);
        return pl_error(-ENOENT, MEMORY ": not a tmpfs, and the runtime directory isn't on one either (mount one)");
    }
    *directory = (struct pl_directory){ .fd = fd, .owner = owner, .path = MEMORY, .mode = mode };
    return 0;
}

int pl_place_open(struct pl_place *ret_place, const struct pl_directory *directory, bool create)
{
    struct pl_place place = PL_PLACE_NONE;
    struct pl_directory above = PL_DIRECTORY_NONE;
    struct stat status;
    char name[64];
    if (on_tmpfs(directory->fd)) {
        int r = pl_directory_sub(directory, "status", create, &place.fd);
        if (r < 0) return r;
        snprintf(place.path, sizeof place.path, "%s/status", directory->path);
        *ret_place = place;
        return 0;
    }
    if (fstat(directory->fd, &status) < 0) return pl_error(-errno, "%s: %s", directory->path, pl_error_word(errno));
    int r = open_memory(&above, directory->owner, directory->mode);
    if (r < 0) return r;
    snprintf(name, sizeof name, BORROWED_PREFIX "%llx-%llx", (unsigned long long)status.st_dev,
             (unsigned long long)status.st_ino);
    r = pl_directory_sub(&above, name, create, &place.fd);
    pl_directory_close(&above);
    if (r < 0) return r;
    place.borrowed = true;
    snprintf(place.path, sizeof place.path, MEMORY "/%s", name);
    *ret_place = place;
    return 0;
}

void pl_place_close(struct pl_place *place)
{
    pl_close(&place->fd);
}

void pl_place_tidy(const struct pl_place *place)
{
    if (place->fd >= 0 && place->borrowed) rmdir(place->path); /* refuses unless it is empty: as wanted */
}

/* LENGTH hex digits as we write them, or any number of them up to 16 where LENGTH is 0; returns how many. */
static size_t hex_digits(const char *text, size_t length)
{
    size_t count = strspn(text, "0123456789abcdef");
    return count > 0 && count <= 16 && (length == 0 || count == length) ? count : 0;
}

int pl_place_each(const struct pl_place *place,
                  int (*fn)(const struct pl_place *place, const char *name, void *context), void *context)
{
    int r = 0;
    int fd = openat(place->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* a position of its own */
    if (fd < 0 && errno == ENOENT) return 0;                             /* tidied away by its last user */
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    if (stream == NULL) {
        r = pl_error(-errno, "%s: %s", place->path, pl_error_word(errno));
        pl_close(&fd);
        return r;
    }
    for (struct dirent *entry = readdir(stream); entry != NULL && r == 0; entry = readdir(stream))
        if (hex_digits(entry->d_name, 16) == 16 && entry->d_name[16] == '\0') r = fn(place, entry->d_name, context);
    closedir(stream);
    return r;
}

uint64_t pl_place_pid_namespace(void)
{
    struct stat status;
    return stat("/proc/self/ns/pid", &status) == 0 ? status.st_ino : 0;
}

bool pl_place_alive(int fd, int32_t pid, uint64_t process_start, uint64_t pid_namespace)
{
    struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET };
    if (fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type == F_UNLCK) return false;
    if (pid_namespace == 0 || pid_namespace != pl_place_pid_namespace() || pid <= 0) return true;
    uint64_t start = pl_process_start(pid);
    if (start != 0) return start == process_start;
    return kill(pid, 0) < 0 && errno == EPERM; /* there, but /proc hides other users' processes */
}

/* ---- sweeping ------------------------------------------------------------------------- */

/* True for a regular file of ours whose owner is gone. Another version's head says nothing that we know, and
 * neither does a file that isn't a page at all: then the lock alone decides. */
static bool dead(int fd, const struct stat *status)
{
    struct pl_status_head head = { 0 };
    if (!S_ISREG(status->st_mode) || status->st_uid != geteuid()) return false;
    bool known = pread(fd, &head, sizeof head, 0) == (ssize_t)sizeof head && head.magic == PL_STATUS_MAGIC &&
                 head.version == PL_STATUS_VERSION;
    return !pl_place_alive(fd, head.pid, head.process_start, known ? head.pid_namespace : 0);
}

static int sweep_file(const struct pl_place *place, const char *name, void *context)
{
    struct stat status, again;
    int fd PL_AUTO_CLOSE = openat(place->fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0 || !dead(fd, &status)) return 0;
    if (fstatat(place->fd, name, &again, AT_SYMLINK_NOFOLLOW) < 0) return 0;
    if (again.st_ino == status.st_ino && unlinkat(place->fd, name, 0) == 0) ++*(int *)context;
    return 0;
}

/* NAME in /dev/shm, if it is one that pl_place_open makes for us. */
static void sweep_borrowed(const struct pl_directory *above, const char *name, int *count)
{
    struct pl_place place = { .fd = -1, .borrowed = true };
    size_t prefix = strlen(BORROWED_PREFIX);
    if (strncmp(name, BORROWED_PREFIX, prefix) != 0) return;
    size_t device = hex_digits(name + prefix, 0);
    if (device == 0 || name[prefix + device] != '-') return;
    const char *inode = name + prefix + device + 1;
    if (hex_digits(inode, 0) == 0 || inode[hex_digits(inode, 0)] != '\0') return;
    if (pl_directory_sub(above, name, false, &place.fd) < 0) return; /* somebody else's */
    snprintf(place.path, sizeof place.path, MEMORY "/%s", name);
    pl_place_each(&place, sweep_file, count);
    pl_place_tidy(&place);
    pl_place_close(&place);
}

int pl_place_sweep(const struct pl_place *place)
{
    int count = 0;
    struct pl_directory above = PL_DIRECTORY_NONE;
    pl_place_each(place, sweep_file, &count);
    if (open_memory(&above, geteuid(), 0700) < 0) return count;
    int fd = openat(above.fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    if (stream != NULL) {
        for (struct dirent *entry = readdir(stream); entry != NULL; entry = readdir(stream))
            sweep_borrowed(&above, entry->d_name, &count);
        closedir(stream);
    } else {
        pl_close(&fd);
    }
    pl_directory_close(&above);
    return count;
}
