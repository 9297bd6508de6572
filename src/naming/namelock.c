/* namelock: exclusive names.
 *
 * The kernel frees a lock at its holder's death, unless a forked child shares it. Such a lock can't be
 * broken, but its file can be replaced: when no living process has an entry for the name, the file
 * is unlinked, and whoever holds the old inode holds nothing. For this to be safe,
 * - whoever locks looks afterwards whether the path still names what it locked;
 * - lock files are made, replaced and removed only by one process at a time: the one whose turn it
 *   is (flock on the folder; it lies in a 0700 directory, so no other user can hold it);
 * - a claimer keeps its turn until its entry is visible: with the turn ours, a living holder has an
 *   entry that we can see.
 */
#include "naming/namelock.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "naming/entry.h"
#include "naming/sweep.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define TURN_WAIT_NS 2000000000u /* a turn takes well below 1 ms */
#define TRIES 16

bool pl_name_turn_begin(int folder_fd)
{
    uint64_t deadline = 0;
    long nap = 100000;
    while (flock(folder_fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EINTR) continue;
        if (errno != EWOULDBLOCK) return false;
        uint64_t now = pl_clock_ns();
        if (deadline == 0) deadline = now + TURN_WAIT_NS;
        if (now >= deadline) return false;
        nanosleep(&(struct timespec){ .tv_nsec = nap }, NULL); /* flock has no deadline, and alarms aren't ours */
        if (nap < 6400000) nap *= 2;
    }
    return true;
}

void pl_name_turn_end(int folder_fd)
{
    /* Not by closing: a child that another thread forked meanwhile has the descriptor, too. */
    flock(folder_fd, LOCK_UN);
}

static void lock_file(const char *name, char file[PLAIT_NAME_MAX + 8])
{
    snprintf(file, PLAIT_NAME_MAX + 8, ".%.*s.lock", PLAIT_NAME_MAX, name);
}

/* The living makers of NAME's visible entries, as "pid 12 (greeter), pid 13 (greeter)", and supervisors, whose entries
 * are hidden: they hold the name also while none of their workers lives. Count. */
static int holders(const struct pl_directory *directory, int folder_fd, const char *name, char *text, size_t size)
{
    char found[PLAIT_NAME_MAX + 1];
    uint64_t id;
    bool hidden;
    size_t used = 0;
    int count = 0;
    text[0] = '\0';
    DIR *list = pl_folder_list(folder_fd);
    if (list == NULL) return 0;
    for (struct dirent *item = readdir(list); item != NULL; item = readdir(list)) {
        struct pl_entry entry;
        int fd PL_AUTO_CLOSE = -1;
        if (!pl_entry_split(item->d_name, found, &id, &hidden) || strcmp(found, name) != 0 ||
            pl_entry_open(folder_fd, item->d_name, directory->owner, &fd) < 0 ||
            pl_entry_judge(fd, &entry) != PL_ENTRY_ALIVE || (hidden && !entry.holds))
            continue;
        int length = snprintf(text + used, size - used, "%spid %d (%s%s)", count > 0 ? ", " : "", (int)entry.pid,
                              entry.process, entry.holds ? ", with workers" : "");
        if (length > 0 && (size_t)length < size - used) used += (size_t)length;
        else text[used] = '\0';
        count++;
    }
    closedir(list);
    return count;
}

static int in_use(const char *name, bool exclusive, const char *who)
{
    if (exclusive)
        return pl_error(-EADDRINUSE, "service '%s' is already served by %s (stop it, or open without `exclusive`)",
                        name, who);
    return pl_error(-EADDRINUSE, "service '%s' is exclusively served by %s (stop it first)", name, who);
}

int pl_name_lock(const struct pl_directory *directory, int folder_fd, const char *name, bool exclusive, bool turn,
                 int *ret_fd)
{
    char file[PLAIT_NAME_MAX + 8], who[256] = "";
    lock_file(name, file);
    for (int i = 0; i < TRIES; i++) {
        int fd PL_AUTO_CLOSE =
            openat(folder_fd, file, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600);
        if (fd < 0) {
            int code = -errno;
            return pl_error(code, "%s/services/%s: %s", directory->path, file, pl_error_word(code));
        }
        (void)fchmod(fd, 0600); /* against an odd umask: the next one must be able to open it */
        int r = pl_entry_lock(fd, exclusive ? F_WRLCK : F_RDLCK);
        if (r < 0 && r != -EAGAIN)
            return pl_error(r, "%s/services/%s: lock: %s", directory->path, file, pl_error_word(r));
        bool same = pl_entry_same(folder_fd, file, fd);
        if (r == 0 && same) {
            *ret_fd = fd;
            fd = -1;
            return 0;
        }
        if (r == 0) continue;
        if (holders(directory, folder_fd, name, who, sizeof who) > 0) return in_use(name, exclusive, who);
        if (turn && same) unlinkat(folder_fd, file, 0);
    }
    return in_use(name, exclusive, "a process that is just claiming it");
}

void pl_name_unlock(int folder_fd, const char *name, bool turn, int *lock_fd)
{
    char file[PLAIT_NAME_MAX + 8];
    if (*lock_fd < 0) return;
    lock_file(name, file);
    if (turn && pl_entry_lock(*lock_fd, F_WRLCK) == 0 && pl_entry_same(folder_fd, file, *lock_fd))
        unlinkat(folder_fd, file, 0);
    pl_entry_lock(*lock_fd, F_UNLCK); /* for forked children that share it */
    pl_close(lock_fd);
}

void pl_name_lock_sweep(const struct pl_directory *directory, int folder_fd, bool thorough)
{
    DIR *list = pl_folder_list(folder_fd);
    if (list == NULL) return;
    for (struct dirent *item = readdir(list); item != NULL; item = readdir(list)) {
        char name[PLAIT_NAME_MAX + 8], who[64];
        size_t size = strlen(item->d_name);
        if (item->d_name[0] != '.' || size < 7 || size > PLAIT_NAME_MAX + 6 ||
            strcmp(item->d_name + size - 5, ".lock") != 0)
            continue;
        int fd PL_AUTO_CLOSE = openat(folder_fd, item->d_name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        snprintf(name, sizeof name, "%.*s", (int)(size - 6), item->d_name + 1);
        if (fd < 0) continue;
        int r = pl_entry_lock(fd, F_WRLCK);
        bool unused = r == 0 || (thorough && r == -EAGAIN && holders(directory, folder_fd, name, who, sizeof who) == 0);
        if (unused && pl_entry_same(folder_fd, item->d_name, fd)) unlinkat(folder_fd, item->d_name, 0);
        if (r == 0) pl_entry_lock(fd, F_UNLCK);
    }
    closedir(list);
}
