/* sweep: takes away what dead processes left. */
#ifndef PL_NAMING_SWEEP_H
#define PL_NAMING_SWEEP_H

#include "base/directory.h"
#include <dirent.h>

/* Removes entry FILE, open as FD, in the folder FOLDER_FD of DIRECTORY, and its socket, if its maker is
 * dead. 1 removed, 0 not. */
int pl_sweep_entry(const struct pl_directory *directory, int folder_fd, const char *file, int fd);

/* Every dead entry and every socket without entry in DIRECTORY, which must be ours. Count. Not THOROUGH: what
 * is locked stays, without asking for its maker: a tenth of the time. */
int pl_sweep_directory(const struct pl_directory *directory, bool thorough);

/* Lists the folder open as FD (borrowed) from its beginning; to be ended with closedir. NULL: errno. */
DIR *pl_folder_list(int fd);

#endif
