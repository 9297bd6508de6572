/* place: where status pages lie, which of them are alive, and who removes the others.
 *
 * A page must lie on tmpfs: on a disk each write-back makes the next write fault again. So a runtime
 * directory's pages are in its own status/ where it lies on tmpfs, else in /dev/shm/plait-DEV-INODE,
 * named by device and inode of the runtime directory in hex: two runtime directories never share, and
 * a reader finds the place by the same rule. Owner and mode are checked as for every runtime
 * directory. A page's file is named by 16 hex digits.
 */
#ifndef PL_OBSERVE_PLACE_H
#define PL_OBSERVE_PLACE_H

#include "base/directory.h"

enum { PL_PLACE_PATH = 640 };

struct pl_place {
    int fd;        /* readable; -1 none */
    bool borrowed; /* lies under /dev/shm: to be removed when empty */
    char path[PL_PLACE_PATH];
};
#define PL_PLACE_NONE                                                                                                  \
    {                                                                                                                  \
        -1, false, ""                                                                                                  \
    }

/* 0; -ENOENT: not there (CREATE: no tmpfs to be had); others as pl_directory_sub. */
int pl_place_open(struct pl_place *ret_place, const struct pl_directory *directory, bool create);
void pl_place_close(struct pl_place *place); /* idempotent; removes nothing */

/* Takes an empty directory away again where it is borrowed. Whoever is about to use it gets -ENOENT there
 * and opens it anew. */
void pl_place_tidy(const struct pl_place *place);

/* Calls FN with the name of each page's file (16 hex digits, nothing else) until it returns nonzero, which is
 * then the result; 0 at the end; -errno. */
int pl_place_each(const struct pl_place *place,
                  int (*fn)(const struct pl_place *place, const char *name, void *context), void *context);

/* The owner holds a write lock on the open file for life. A forked child that got the descriptor keeps the lock
 * too, so a process of our pid namespace must also be there, with the same start time. */
bool pl_place_alive(int fd, int32_t pid, uint64_t process_start, uint64_t pid_namespace);

uint64_t pl_place_pid_namespace(void); /* 0 if unknown */

/* Removes what dead processes of ours left: here, and in every borrowed directory, since a runtime directory
 * that is gone has nobody else to look after its pages. Count removed. */
int pl_place_sweep(const struct pl_place *place);

#endif
