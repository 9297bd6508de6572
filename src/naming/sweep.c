/* sweep: removal of the dead, while others may be claiming, withdrawing or sweeping.
 *
 * An entry's id is never used twice, so a path names one entry or nothing, and removing it twice
 * does no harm. What must not happen is removing one that is being made: its maker holds a write
 * lock on the hidden file, or notices after locking that the file is gone, and begins again.
 *
 * A socket is made after its hidden entry and removed before its entry goes. One without entry is
 * therefore left over, if the list of entries is newer than the list of sockets. A directory
 * listing may miss a file that is renamed meanwhile (hidden to visible), but that happens once
 * in an entry's life: two listings together miss none.
 */
#include "naming/sweep.h"

#include "base/fd.h"
#include "naming/entry.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const folders[] = { "services", "topics" };
#define FOLDERS 2

struct ids {
    uint64_t *ids;
    size_t count, room;
};

static bool append(struct ids *list, uint64_t id)
{
    if (list->count == list->room) {
        size_t room = list->room * 2 + 64;
        uint64_t *grown = realloc(list->ids, room * sizeof *grown);
        if (grown == NULL) return false;
        list->ids = grown;
        list->room = room;
    }
    list->ids[list->count++] = id;
    return true;
}

DIR *pl_folder_list(int fd)
{
    int own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = own >= 0 ? fdopendir(own) : NULL;
    if (list == NULL) pl_close(&own);
    return list;
}

int pl_sweep_entry(const struct pl_directory *directory, int folder_fd, const char *file, int fd)
{
    struct pl_entry entry;
    char name[PLAIT_NAME_MAX + 1], socket_name[32];
    uint64_t id = 0;
    bool hidden = false;
    if (!pl_entry_split(file, name, &id, &hidden) || pl_entry_judge(fd, &entry) != PL_ENTRY_DEAD) return 0;
    /* The lock keeps a maker that has not locked its file yet from going on with it. Refused means here:
     * held by a forked child of a process that is certainly gone. */
    int r = pl_entry_lock(fd, F_RDLCK);
    bool remove =
        (r == 0 || r == -EAGAIN) && pl_entry_judge(fd, &entry) == PL_ENTRY_DEAD && pl_entry_same(folder_fd, file, fd);
    if (remove) {
        snprintf(socket_name, sizeof socket_name, "s/%016" PRIx64, id);
        unlinkat(directory->fd, socket_name, 0);
        remove = unlinkat(folder_fd, file, 0) == 0;
    }
    if (r == 0) pl_entry_lock(fd, F_UNLCK);
    return remove;
}

static int sweep_entries(const struct pl_directory *directory, int folder_fd, bool thorough)
{
    char name[PLAIT_NAME_MAX + 1];
    uint64_t id;
    bool hidden;
    int removed = 0;
    DIR *list = pl_folder_list(folder_fd);
    if (list == NULL) return 0;
    for (struct dirent *item = readdir(list); item != NULL; item = readdir(list)) {
        int fd PL_AUTO_CLOSE = -1;
        if (pl_entry_split(item->d_name, name, &id, &hidden) &&
            pl_entry_open(folder_fd, item->d_name, directory->owner, &fd) == 0 && (thorough || !pl_entry_locked(fd)))
            removed += pl_sweep_entry(directory, folder_fd, item->d_name, fd);
    }
    closedir(list);
    return removed;
}

/* Adds the ids of all entries in both folders. False where a list could not be read to its end. */
static bool entry_ids(const struct pl_directory *directory, struct ids *ids)
{
    bool complete = true;
    for (int i = 0; i < FOLDERS && complete; i++) {
        char name[PLAIT_NAME_MAX + 1];
        uint64_t id;
        bool hidden;
        int fd PL_AUTO_CLOSE = -1;
        int r = pl_directory_sub(directory, folders[i], false, &fd);
        if (r == -ENOENT) continue;
        DIR *list = r == 0 ? pl_folder_list(fd) : NULL;
        if (list == NULL) return false;
        errno = 0;
        for (struct dirent *item = readdir(list); item != NULL && complete; item = readdir(list))
            if (pl_entry_split(item->d_name, name, &id, &hidden)) complete = append(ids, id);
        if (errno != 0) complete = false;
        closedir(list);
    }
    return complete;
}

static bool socket_ids(int sockets_fd, struct ids *ids)
{
    DIR *list = pl_folder_list(sockets_fd);
    bool complete = list != NULL;
    if (list == NULL) return false;
    for (struct dirent *item = readdir(list); item != NULL && complete; item = readdir(list))
        if (strlen(item->d_name) == 16 && strspn(item->d_name, "0123456789abcdef") == 16)
            complete = append(ids, strtoull(item->d_name, NULL, 16));
    closedir(list);
    return complete;
}

static int compare(const void *a, const void *b)
{
    const uint64_t *left = a, *right = b;
    return (*left > *right) - (*left < *right);
}

static int sweep_sockets(const struct pl_directory *directory, int sockets_fd)
{
    struct ids sockets = { 0 }, entries = { 0 };
    int removed = 0;
    if (socket_ids(sockets_fd, &sockets) && sockets.count > 0 && entry_ids(directory, &entries) &&
        entry_ids(directory, &entries)) {
        if (entries.count > 0) qsort(entries.ids, entries.count, sizeof *entries.ids, compare);
        for (size_t i = 0; i < sockets.count; i++) {
            char name[32];
            if (entries.count > 0 &&
                bsearch(&sockets.ids[i], entries.ids, entries.count, sizeof *entries.ids, compare) != NULL)
                continue;
            snprintf(name, sizeof name, "%016" PRIx64, sockets.ids[i]);
            removed += unlinkat(sockets_fd, name, 0) == 0;
        }
    }
    free(sockets.ids);
    free(entries.ids);
    return removed;
}

int pl_sweep_directory(const struct pl_directory *directory, bool thorough)
{
    int removed = 0;
    for (int i = 0; i < FOLDERS; i++) {
        int fd PL_AUTO_CLOSE = -1;
        if (pl_directory_sub(directory, folders[i], false, &fd) == 0) removed += sweep_entries(directory, fd, thorough);
    }
    int sockets PL_AUTO_CLOSE = -1;
    if (pl_directory_sub(directory, "s", false, &sockets) == 0) removed += sweep_sockets(directory, sockets);
    return removed;
}
