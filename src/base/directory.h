/* directory: the runtime directories in which names and status pages lie (DESIGN: names).
 *
 * Own: $PLAIT_DIR (then the only one searched); else $XDG_RUNTIME_DIR/plait; else /run/user/UID/plait
 * if /run/user/UID exists and is ours; else /tmp/plait-UID. Shared: /run/plait (root, 1777) with one
 * directory per uid (0755). Every one is verified through an O_PATH|O_NOFOLLOW descriptor: a
 * directory, ours (or root's, or the peer's), not writable by others; modes are set by chmod.
 *
 * With PLAIT_DIR set, $PLAIT_DIR/shared stands for /run/plait: two users who set the same PLAIT_DIR
 * are a world of their own. Where $PLAIT_DIR has the sticky bit (1777, like /tmp), each user's own
 * directory is $PLAIT_DIR/UID; else it is $PLAIT_DIR itself, and somebody else's is refused as own
 * but still searched for what is shared.
 */
#ifndef PL_BASE_DIRECTORY_H
#define PL_BASE_DIRECTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct pl_directory {
    int fd;      /* O_PATH | O_DIRECTORY */
    uid_t owner; /* whose entries lie there */
    char path[512];
    mode_t mode; /* of what is made inside: 0700, in the shared directory 0755 */
};
#define PL_DIRECTORY_NONE                                                                                              \
    {                                                                                                                  \
        -1, 0, "", 0                                                                                                   \
    }

/* Opens (CREATE: and makes, 0700) the own directory. -ENOENT, -EPERM (somebody else's), -EACCES
 * (writable by others, or no permission), -ELOOP or -ENOTDIR (a symlink or file in its place),
 * -EINVAL (a relative PLAIT_DIR), -ENAMETOOLONG, -EROFS, -ENOSPC; the text names the path, what is wrong
 * and the variable or command that mends it. */
int pl_directory_own(struct pl_directory *ret_directory, bool create);

/* The same for our own place in the shared directory, /run/plait/UID (0755). Root makes /run/plait
 * itself; others get -ENOENT with "mkdir -m 1777 /run/plait" in the text. With PLAIT_DIR set the
 * shared directory is $PLAIT_DIR/shared, made by whoever owns $PLAIT_DIR. */
int pl_directory_shared(struct pl_directory *ret_directory, bool create);

/* The directories to search for names, in order: own, root's shared, PEER's shared (PEER NULL: none; a
 * user name or uid). Missing ones are left out. Count (at most 3), or -EINVAL (no such user). PATHS, if
 * not NULL, gets what was looked at, missing ones included, as text "a, b, c" (for errors); one that
 * was refused is there with the reason. */
int pl_directory_search(struct pl_directory directories[3], const char *peer, char *paths, size_t paths_size);

/* The same places with the missing and the refused ones kept, as an fd of -1. */
int pl_directory_places(struct pl_directory directories[3], const char *peer);

/* Opens (CREATE: makes, with the directory's own mode) the subdirectory NAME, O_RDONLY. *ret_fd or
 * -errno, with text and the same checks. */
int pl_directory_sub(const struct pl_directory *directory, const char *name, bool create, int *ret_fd);

void pl_directory_close(struct pl_directory *directory); /* idempotent */

#endif
