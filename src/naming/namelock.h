/* namelock: who may serve a name beside whom. services/.NAME.lock: `exclusive` holds its write lock,
 * others a read lock (OFD). */
#ifndef PL_NAMING_NAMELOCK_H
#define PL_NAMING_NAMELOCK_H

#include "base/directory.h"
#include <stdbool.h>

/* One at a time makes, replaces or removes name locks: a lock on the folder FOLDER_FD itself. False: somebody
 * is stuck with it (stopped in the middle), go on without what needs it. */
bool pl_name_turn_begin(int folder_fd);
void pl_name_turn_end(int folder_fd);

/* Takes the lock of NAME in DIRECTORY (its services folder is FOLDER_FD). TURN: as begin said. 0 and *ret_fd;
 * -EADDRINUSE with the living holders' pids and names in the text; -EACCES, -ENOSPC, -EMFILE, ... */
int pl_name_lock(const struct pl_directory *directory, int folder_fd, const char *name, bool exclusive, bool turn,
                 int *ret_fd);

/* Lets go of it, and removes the file if nobody else holds it and we have TURN. */
void pl_name_unlock(int folder_fd, const char *name, bool turn, int *lock_fd);

/* Removes the lock files that nobody holds; THOROUGH: also those that only dead processes' children hold. Needs
 * TURN. */
void pl_name_lock_sweep(const struct pl_directory *directory, int folder_fd, bool thorough);

#endif
