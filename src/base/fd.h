/* fd: descriptors with manners: always CLOEXEC, closed once, sent and received with checks. */
#ifndef PL_BASE_FD_H
#define PL_BASE_FD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Closes *fd if it is one, sets it to -1, keeps errno. */
void pl_close(int *fd);
#define PL_AUTO_CLOSE __attribute__((cleanup(pl_close)))

int pl_fd_nonblock(int fd); /* 0 or -errno */

/* An O_PATH descriptor for directory PATH. 0 and *ret_fd; -errno with text. */
int pl_fd_open_directory(const char *path, int *ret_fd);

#define PL_FDS_MAX 4 /* descriptors in one message */

/* sendmsg(2) of SIZE bytes with COUNT descriptors riding on the first; MSG_NOSIGNAL and
 * MSG_DONTWAIT. Returns bytes sent, -EAGAIN or another -errno. Borrows the descriptors. */
ssize_t pl_fd_send(int socket, const void *data, size_t size, const int *fds, size_t count);

/* recvmsg(2), MSG_CMSG_CLOEXEC and MSG_DONTWAIT. *count holds the room in FDS on entry (at most
 * PL_FDS_MAX) and the number received on return; a surplus is closed and told as -EPROTO, as is
 * MSG_CTRUNC (everything received is closed then). Returns bytes, 0 at the end, -EAGAIN, -errno. */
ssize_t pl_fd_receive(int socket, void *data, size_t size, int *fds, size_t *count);

/* Reads at most SIZE - 1 bytes of a small file into TEXT and ends it with NUL. Bytes or -errno. */
ssize_t pl_fd_read_text(int directory_fd, const char *path, char *text, size_t size);

/* A pidfd for PID, or -errno. */
int pl_fd_pidfd(pid_t pid);

/* Start time of PID in clock ticks since boot (field 22 of /proc/PID/stat), or 0 if it is gone.
 * With the pid it names one process for ever. */
uint64_t pl_process_start(pid_t pid);
/* The process's name (comm) into TEXT, "?" if unknown; returns TEXT. */
const char *pl_process_name(pid_t pid, char *text, size_t size);

#endif
