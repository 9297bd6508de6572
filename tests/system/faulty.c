/* faulty: the calls that fail, by --wrap, and who is put through them. */
#include "system/faulty.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

struct fault *fault;

static bool fails(int kind, const char *name)
{
    if (fault == NULL || atomic_load(&fault->only) != kind || atomic_load(&fault->countdown) <= 0) return false;
    if (atomic_fetch_sub(&fault->countdown, 1) != 1) return false;
    fault->name = name;
    atomic_store(&fault->fired, 1);
    return true;
}

#define WRAP(kind, error, failed, type, name, parameters, arguments)                                                   \
    type __real_##name parameters;                                                                                     \
    type __wrap_##name parameters;                                                                                     \
    type __wrap_##name parameters                                                                                      \
    {                                                                                                                  \
        if (fails(kind, #name)) {                                                                                      \
            errno = error;                                                                                             \
            return failed;                                                                                             \
        }                                                                                                              \
        return __real_##name arguments;                                                                                \
    }
#define WRAP_MEMORY(name, parameters, arguments)                                                                       \
    WRAP(FAULT_ALLOCATIONS, ENOMEM, NULL, void *, name, parameters, arguments)
#define WRAP_CALL(error, name, parameters, arguments)                                                                  \
    WRAP(FAULT_SYSTEM_CALLS, error, -1, int, name, parameters, arguments)
#define WRAP_SIZE(error, name, parameters, arguments)                                                                  \
    WRAP(FAULT_SYSTEM_CALLS, error, -1, ssize_t, name, parameters, arguments)

WRAP_MEMORY(malloc, (size_t size), (size))
WRAP_MEMORY(calloc, (size_t count, size_t size), (count, size))
WRAP_MEMORY(realloc, (void *old, size_t size), (old, size))
WRAP_MEMORY(strdup, (const char *text), (text))
WRAP_MEMORY(strndup, (const char *text, size_t size), (text, size))

int __wrap_asprintf(char **ret_text, const char *format, ...);
int __wrap_asprintf(char **ret_text, const char *format, ...)
{
    if (fails(FAULT_ALLOCATIONS, "asprintf")) return -1;
    va_list arguments;
    va_start(arguments, format);
    int size = vasprintf(ret_text, format, arguments);
    va_end(arguments);
    return size;
}

WRAP_CALL(EMFILE, accept4, (int fd, void *address, void *size, int flags), (fd, address, size, flags))
WRAP_CALL(EADDRINUSE, bind, (int fd, const void *address, unsigned size), (fd, address, size))
WRAP_CALL(EACCES, chmod, (const char *path, mode_t mode), (path, mode))
WRAP_CALL(EAGAIN, connect, (int fd, const void *address, unsigned size), (fd, address, size))
WRAP_CALL(EMFILE, epoll_create1, (int flags), (flags))
/* Taking out what is in cannot fail. */
int __real_epoll_ctl(int epoll, int what, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int what, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int what, int fd, struct epoll_event *event)
{
    if (what == EPOLL_CTL_DEL || !fails(FAULT_SYSTEM_CALLS, "epoll_ctl"))
        return __real_epoll_ctl(epoll, what, fd, event);
    errno = ENOSPC;
    return -1;
}

WRAP_CALL(EMFILE, eventfd, (unsigned value, int flags), (value, flags))
WRAP_CALL(ENOSPC, fallocate64, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size))
WRAP_CALL(EPERM, fchmod, (int fd, mode_t mode), (fd, mode))
WRAP_CALL(EPERM, fchmodat, (int fd, const char *path, mode_t mode, int flags), (fd, path, mode, flags))
WRAP_CALL(EIO, fstat64, (int fd, void *status), (fd, status))
WRAP_CALL(EACCES, fstatat64, (int fd, const char *path, void *status, int flags), (fd, path, status, flags))
WRAP_CALL(EIO, fstatfs64, (int fd, void *status), (fd, status))
WRAP_CALL(ENOSPC, ftruncate64, (int fd, off_t size), (fd, size))
WRAP_CALL(ENOBUFS, getsockname, (int fd, void *address, void *size), (fd, address, size))
WRAP_CALL(EMFILE, getsockopt, (int fd, int level, int name, void *value, void *size), (fd, level, name, value, size))
WRAP_CALL(ENOSPC, inotify_add_watch, (int fd, const char *path, unsigned mask), (fd, path, mask))
WRAP_CALL(EMFILE, inotify_init1, (int flags), (flags))
WRAP_CALL(ENOSPC, linkat, (int from, const char *path, int to, const char *other, int flags),
          (from, path, to, other, flags))
WRAP_CALL(EADDRINUSE, listen, (int fd, int backlog), (fd, backlog))
WRAP_CALL(ENOMEM, madvise, (void *memory, size_t size, int advice), (memory, size, advice))
WRAP_CALL(EMFILE, memfd_create, (const char *name, unsigned flags), (name, flags))
WRAP_CALL(ENOSPC, mkdirat, (int fd, const char *path, mode_t mode), (fd, path, mode))
WRAP(FAULT_SYSTEM_CALLS, ENOMEM, MAP_FAILED, void *, mmap64,
     (void *at, size_t size, int access, int flags, int fd, off_t offset), (at, size, access, flags, fd, offset))
WRAP_SIZE(EIO, pread64, (int fd, void *bytes, size_t size, off_t at), (fd, bytes, size, at))
WRAP_SIZE(ENOSPC, pwrite64, (int fd, const void *bytes, size_t size, off_t at), (fd, bytes, size, at))
WRAP_SIZE(EIO, read, (int fd, void *bytes, size_t size), (fd, bytes, size))
WRAP_SIZE(EACCES, readlink, (const char *path, char *text, size_t size), (path, text, size))
WRAP_SIZE(EINTR, recv, (int fd, void *bytes, size_t size, int flags), (fd, bytes, size, flags))
WRAP_CALL(ENOMEM, recvmmsg, (int fd, void *messages, unsigned count, int flags, void *timeout),
          (fd, messages, count, flags, timeout))
WRAP_SIZE(ENOMEM, recvmsg, (int fd, void *message, int flags), (fd, message, flags))
WRAP_CALL(ENOSPC, renameat2, (int from, const char *path, int to, const char *other, unsigned flags),
          (from, path, to, other, flags))
WRAP_SIZE(ENOBUFS, send, (int fd, const void *bytes, size_t size, int flags), (fd, bytes, size, flags))
WRAP_SIZE(ENOBUFS, sendmsg, (int fd, const void *message, int flags), (fd, message, flags))
WRAP_CALL(ENOBUFS, setsockopt, (int fd, int level, int name, const void *value, unsigned size),
          (fd, level, name, value, size))
WRAP_CALL(EMFILE, socket, (int domain, int type, int protocol), (domain, type, protocol))
WRAP_CALL(EMFILE, timerfd_create, (int clock, int flags), (clock, flags))
WRAP_CALL(EACCES, unlinkat, (int fd, const char *path, int flags), (fd, path, flags))

int __real_open64(const char *path, int flags, mode_t mode);
int __wrap_open64(const char *path, int flags, mode_t mode);
int __wrap_open64(const char *path, int flags, mode_t mode)
{
    if (!fails(FAULT_SYSTEM_CALLS, "open")) return __real_open64(path, flags, mode);
    errno = EMFILE;
    return -1;
}

int __real_openat64(int fd, const char *path, int flags, mode_t mode);
int __wrap_openat64(int fd, const char *path, int flags, mode_t mode);
int __wrap_openat64(int fd, const char *path, int flags, mode_t mode)
{
    if (!fails(FAULT_SYSTEM_CALLS, "openat")) return __real_openat64(fd, path, flags, mode);
    errno = EMFILE;
    return -1;
}

int __real_fcntl64(int fd, int what, void *argument);
int __wrap_fcntl64(int fd, int what, void *argument);
int __wrap_fcntl64(int fd, int what, void *argument)
{
    if (!fails(FAULT_SYSTEM_CALLS, "fcntl")) return __real_fcntl64(fd, what, argument);
    errno = ENOLCK;
    return -1;
}

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *context);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *context);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *context)
{
    return fails(FAULT_SYSTEM_CALLS, "pthread_create") ? EAGAIN : __real_pthread_create(thread, how, run, context);
}

/* ---- who is put through it ---- */

void fault_new(void)
{
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    fault = memory;
}

void fault_arm(int kind, int nth)
{
    atomic_store(&fault->fired, 0);
    atomic_store(&fault->only, kind);
    atomic_store(&fault->countdown, nth);
}

void fault_free(void)
{
    munmap(fault, 4096);
    fault = NULL;
}

bool bad(int r, const char *what)
{
    if (r >= 0) return false;
    if (plait_error_text()[0] == 0)
        test_fail(__FILE__, __LINE__, "%s failed (%d) without a text when %s did", what, r, fault->name);
    return true;
}

void put_through(int kind, void (*work)(void))
{
    for (int nth = 1; nth < FAULTS_MOST; nth++) {
        fault_arm(kind, nth);
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            size_t fds = test_count_fds(), mappings = test_count_mappings();
            work();
            if (test_count_fds() != fds)
                test_fail(__FILE__, __LINE__, "a descriptor was left when %s failed, the %dth call", fault->name, nth);
            if (test_count_mappings() > mappings)
                test_fail(__FILE__, __LINE__, "a mapping was left when %s failed, the %dth call", fault->name, nth);
            leave(0);
        }
        int status = test_wait_child(pid);
        if (status != 0)
            test_fail(__FILE__, __LINE__, "status %d when %s failed, the %dth call", status, fault->name, nth);
        if (!atomic_load(&fault->fired)) {
            printf("# %d %s failed in turn\n", nth - 1, kind == FAULT_ALLOCATIONS ? "allocations" : "system calls");
            CHECK(nth > 5);
            return;
        }
    }
    test_fail(__FILE__, __LINE__, "it never ends");
}
