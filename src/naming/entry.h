/* entry: the small file that a name is, its lock, and whether its maker still lives.
 *
 * "NAME@ID" is visible, ".NAME@ID" half-made. The maker holds a write lock (OFD) on it as long as
 * it lives; a forked child keeps that lock alive, so pid and start time are compared, too.
 */
#ifndef PL_NAMING_ENTRY_H
#define PL_NAMING_ENTRY_H

#include <plait/plait.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PL_ENTRY_TEXT 2048                          /* more isn't read */
#define PL_ENTRY_FILE (1 + PLAIT_NAME_MAX + 17 + 1) /* ".NAME@0123456789abcdef" */
#define PL_ENTRY_URLS 512

struct pl_entry {
    pid_t pid; /* in its own pid namespace */
    uid_t uid;
    uint64_t start; /* pl_process_start(), 0 if unknown */
    uint64_t ns;    /* its pid namespace's inode, 0 if unknown: containers share directories */
    uint64_t id;
    bool holds; /* the name without serving it: a supervisor */
    char process[32];
    char urls[PL_ENTRY_URLS];
};

/* This process, without id and urls. */
void pl_entry_self(struct pl_entry *ret_entry);

/* The inode of this process's pid namespace; 0 if unknown. Needs no descriptor. */
uint64_t pl_entry_namespace(void);

/* The file's content; its length. */
size_t pl_entry_format(const struct pl_entry *entry, char text[PL_ENTRY_TEXT]);

/* Takes whatever somebody wrote into a file. 0 or -EBADMSG without text. */
int pl_entry_parse(struct pl_entry *ret_entry, const char *text);

/* "NAME@ID" or ".NAME@ID"? */
bool pl_entry_split(const char *file, char name[PLAIT_NAME_MAX + 1], uint64_t *ret_id, bool *ret_hidden);

/* Opens FILE in the folder FOLDER_FD for reading. 0 and *ret_fd; -ENOENT also for what isn't a regular
 * file of OWNER's; -EMFILE and the like with text. */
int pl_entry_open(int folder_fd, const char *file, uid_t owner, int *ret_fd);

/* Reads an open entry and asks whether its maker lives. *ret_entry is filled for ALIVE only. UNCLEAR: locked,
 * but not (yet) an entry: neither to be used nor to be removed. */
enum pl_entry_verdict { PL_ENTRY_DEAD, PL_ENTRY_ALIVE, PL_ENTRY_UNCLEAR };
enum pl_entry_verdict pl_entry_judge(int fd, struct pl_entry *ret_entry);

/* Has somebody a write lock on it? False: certainly dead. */
bool pl_entry_locked(int fd);

/* OFD locks on the whole file. TYPE: F_RDLCK, F_WRLCK, F_UNLCK. 0, -EAGAIN, -errno; without text. */
int pl_entry_lock(int fd, short type);
bool pl_entry_same(int folder_fd, const char *file, int fd); /* is FD still what FILE names? */

#endif
