/* doorbell: see doorbell.h. Waiters watch it edge-triggered, so each write is an edge and nobody
 * needs to read; the 64-bit counter is emptied only if it should ever be full. */
#include "shm/doorbell.h"

#include "base/error.h"
#include "base/fd.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

int pl_doorbell_create(int *ret_fd)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) return pl_error(-errno, "eventfd for a doorbell: %s", pl_error_word(errno));
    *ret_fd = fd;
    return 0;
}

static bool is_eventfd(int fd)
{
    char path[32], target[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(path, target, sizeof target - 1);
    if (size >= 0) {
        target[size] = '\0';
        return strcmp(target, "anon_inode:[eventfd]") == 0;
    }
    /* Without /proc: an anonymous inode has no file type. An epoll or timer descriptor passes too; a
     * write to one fails, which costs the peer its own wake-ups and us nothing. */
    struct stat status;
    return fstat(fd, &status) == 0 && (status.st_mode & S_IFMT) == 0;
}

int pl_doorbell_check(int fd)
{
    if (!is_eventfd(fd)) return pl_error(-EPROTO, "doorbell from the peer: the descriptor is not an eventfd");
    int r = pl_fd_nonblock(fd);
    if (r < 0) return pl_error(-EPROTO, "doorbell from the peer: cannot be made nonblocking: %s", pl_error_word(r));
    return 0;
}

void pl_doorbell_ring(int fd)
{
    uint64_t one = 1;
    int saved = errno;
    for (int attempt = 0; attempt < 3; attempt++) {
        if (write(fd, &one, sizeof one) == (ssize_t)sizeof one) break;
        /* Full: whoever filled it rang it 2^64 times over, but only a write makes an edge. */
        uint64_t count;
        if (errno == EAGAIN) (void)!read(fd, &count, sizeof count);
        else if (errno != EINTR) break; /* the peer's affair: it hears nothing */
    }
    errno = saved;
}
