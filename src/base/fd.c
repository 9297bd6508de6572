/* fd: what the kernel hands us is ours to close, however wrong the message was that it came with. */
#include "base/fd.h"

#include "base/error.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* More than we allow, so that a surplus arrives and is counted rather than cut off. */
#define FDS_SEEN 16

void pl_close(int *fd)
{
    if (*fd < 0) return;
    int keep_errno = errno;
    close(*fd); /* never again, EINTR or not: Linux has let go of it in either case */
    *fd = -1;
    errno = keep_errno;
}

int pl_fd_nonblock(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    int done = flags >= 0 && flags & O_NONBLOCK;
    if (flags < 0 || (!done && fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)) {
        int code = -errno;
        return pl_error(code, "cannot make descriptor %d nonblocking: %s", fd, pl_error_word(code));
    }
    return 0;
}

int pl_fd_open_directory(const char *path, int *ret_fd)
{
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        int code = -errno;
        return pl_error(code, "directory %s: %s", path, pl_error_word(code));
    }
    *ret_fd = fd;
    return 0;
}

ssize_t pl_fd_send(int socket, const void *data, size_t size, const int *fds, size_t count)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(PL_FDS_MAX * sizeof(int))];
    } control;
    if (count > PL_FDS_MAX || (count > 0 && size == 0)) {
        return pl_error(-EINVAL, "%zu descriptors on %zu bytes: at most %d, on at least 1", count, size, PL_FDS_MAX);
    }
    struct iovec vector = { .iov_base = (void *)(uintptr_t)data, .iov_len = size };
    struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1 };
    if (count > 0) {
        memset(&control, 0, sizeof control);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(&control.header), fds, count * sizeof(int));
        message.msg_control = control.space;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    }
    ssize_t sent;
    do {
        sent = sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0) return sent;
    int code = -errno;
    return code == -EAGAIN ? code : pl_error(code, "send: %s", pl_error_word(code));
}

/* Collects every descriptor of MESSAGE. Linux puts all into one control message, but promises it nowhere. */
static size_t collect_fds(struct msghdr *message, int seen[FDS_SEEN])
{
    size_t count = 0;
    for (struct cmsghdr *item = CMSG_FIRSTHDR(message); item != NULL; item = CMSG_NXTHDR(message, item)) {
        if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS) continue;
        size_t held = (item->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < held; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(item) + i * sizeof(int), sizeof fd);
            if (count < FDS_SEEN) seen[count++] = fd;
            else close(fd);
        }
    }
    return count;
}

ssize_t pl_fd_receive(int socket, void *data, size_t size, int *fds, size_t *count)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(FDS_SEEN * sizeof(int))];
    } control;
    struct iovec vector = { .iov_base = data, .iov_len = size };
    struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1 };
    message.msg_control = control.space;
    message.msg_controllen = sizeof control;
    ssize_t received;
    do {
        received = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    } while (received < 0 && errno == EINTR);
    if (received < 0) {
        int code = -errno;
        return code == -EAGAIN ? code : pl_error(code, "receive: %s", pl_error_word(code));
    }
    int seen[FDS_SEEN];
    size_t held = collect_fds(&message, seen);
    if ((message.msg_flags & MSG_CTRUNC) != 0 || held > *count) {
        for (size_t i = 0; i < held; i++) pl_close(&seen[i]);
        if (held <= *count)
            return pl_error(
                -EPROTO,
                "descriptors were cut off a message: too many, or none left here (raise the limit: ulimit -n)");
        return pl_error(-EPROTO, "%zu descriptors came with a message that may hold %zu", held, *count);
    }
    memcpy(fds, seen, held * sizeof(int));
    *count = held;
    return received;
}

ssize_t pl_fd_read_text(int directory_fd, const char *path, char *text, size_t size)
{
    /* In a directory that others write, a link or a fifo must neither mislead us nor hold us up. */
    int guard = directory_fd == AT_FDCWD ? 0 : O_NOFOLLOW;
    PL_AUTO_CLOSE int fd = openat(directory_fd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | guard);
    size_t length = 0;
    ssize_t got = fd < 0 ? -1 : 1;
    while (got > 0 && length + 1 < size) {
        got = read(fd, text + length, size - 1 - length);
        if (got > 0) length += (size_t)got;
        else if (got < 0 && errno == EINTR) got = 1;
    }
    if (got < 0) {
        int code = -errno;
        return pl_error(code, "%s: %s", path, pl_error_word(code));
    }
    if (size > 0) text[length] = '\0';
    return (ssize_t)length;
}

int pl_fd_pidfd(pid_t pid)
{
    long fd = syscall(SYS_pidfd_open, pid, 0);
    if (fd >= 0) return (int)fd; /* CLOEXEC by itself */
    int code = -errno;
    return pl_error(code, "process %d: %s", (int)pid, pl_error_word(code));
}

uint64_t pl_process_start(pid_t pid)
{
    char path[32], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (pid <= 0 || pl_fd_read_text(AT_FDCWD, path, text, sizeof text) <= 0) return 0;
    char *field = strrchr(text, ')'); /* the last: the name before it may hold any byte */
    if (field == NULL || field[1] != ' ') return 0;
    char state = field[2];
    unsigned long threads = 0;
    for (int number = 3; number <= 22; number++) {
        field = strchr(field + 1, ' ');
        if (field == NULL) return 0;
        if (number == 20) threads = strtoul(field + 1, NULL, 10);
    }
    /* A zombie is gone, unless only its first thread has ended. */
    if ((state == 'Z' || state == 'X') && threads <= 1) return 0;
    return strtoull(field + 1, NULL, 10);
}

const char *pl_process_name(pid_t pid, char *text, size_t size)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
    ssize_t length = pid <= 0 ? -1 : pl_fd_read_text(AT_FDCWD, path, text, size);
    if (length > 0 && text[length - 1] == '\n') text[--length] = '\0';
    if (length <= 0) snprintf(text, size, "?");
    return text;
}
