/* faults: every allocation and every system call that plait makes while it opens, calls and serves fails once: the
 * first, the second, and so on until none is left. No crash, no leak, an error with a text; and a server goes on.
 *
 * plait is linked statically here, with --wrap for each function below, so that nobody else's calls fail. */
#include "system/system.h"

#include <errno.h>
#include <fcntl.h>
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

/* Counts down over fork(): a countdown of 1 lets the next call fail. 0: none fails. */
static struct fault {
    _Atomic int64_t countdown;
    _Atomic int fired;
    _Atomic int only; /* 1: allocations, 2: system calls */
    const char *name;
} * fault;

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
#define WRAP_MEMORY(name, parameters, arguments) WRAP(1, ENOMEM, NULL, void *, name, parameters, arguments)
#define WRAP_CALL(error, name, parameters, arguments) WRAP(2, error, -1, int, name, parameters, arguments)
#define WRAP_SIZE(error, name, parameters, arguments) WRAP(2, error, -1, ssize_t, name, parameters, arguments)

WRAP_MEMORY(malloc, (size_t size), (size))
WRAP_MEMORY(calloc, (size_t count, size_t size), (count, size))
WRAP_MEMORY(realloc, (void *old, size_t size), (old, size))
WRAP_MEMORY(strdup, (const char *text), (text))
WRAP_MEMORY(strndup, (const char *text, size_t size), (text, size))

int __wrap_asprintf(char **ret_text, const char *format, ...);
int __wrap_asprintf(char **ret_text, const char *format, ...)
{
    if (fails(1, "asprintf")) return -1;
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
    if (what == EPOLL_CTL_DEL || !fails(2, "epoll_ctl")) return __real_epoll_ctl(epoll, what, fd, event);
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
WRAP(2, ENOMEM, MAP_FAILED, void *, mmap64, (void *at, size_t size, int access, int flags, int fd, off_t offset),
     (at, size, access, flags, fd, offset))
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
    if (!fails(2, "open")) return __real_open64(path, flags, mode);
    errno = EMFILE;
    return -1;
}

int __real_openat64(int fd, const char *path, int flags, mode_t mode);
int __wrap_openat64(int fd, const char *path, int flags, mode_t mode);
int __wrap_openat64(int fd, const char *path, int flags, mode_t mode)
{
    if (!fails(2, "openat")) return __real_openat64(fd, path, flags, mode);
    errno = EMFILE;
    return -1;
}

int __real_fcntl64(int fd, int what, void *argument);
int __wrap_fcntl64(int fd, int what, void *argument);
int __wrap_fcntl64(int fd, int what, void *argument)
{
    if (!fails(2, "fcntl")) return __real_fcntl64(fd, what, argument);
    errno = ENOLCK;
    return -1;
}

/* ---- who is put through it ---- */

enum { MOST = 2000 };

static void fault_new(void)
{
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    fault = memory;
}

static void fault_arm(int kind, int nth)
{
    atomic_store(&fault->fired, 0);
    atomic_store(&fault->only, kind);
    atomic_store(&fault->countdown, nth);
}

static void fault_free(void)
{
    munmap(fault, 4096);
    fault = NULL;
}

/* An error must say something. */
static bool bad(int r, const char *what)
{
    if (r >= 0) return false;
    if (plait_error_text()[0] == 0)
        test_fail(__FILE__, __LINE__, "%s failed (%d) without a text when %s did", what, r, fault->name);
    return true;
}

static void echo(plait_request *request, void *context)
{
    plait_bytes body = plait_request_body(request);
    (void)context;
    (void)plait_request_reply(request, body.data, body.size);
}

static void open_serve_close(void)
{
    plait_server *server = NULL;
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    char url[300];
    snprintf(url, sizeof(url), "unix://%s/faulty", test_directory());
    if (bad(plait_server_open(&server, "faulty", &options), "open")) {
        CHECK(server == NULL);
        return;
    }
    bool broken = bad(plait_server_handle(server, "", echo, NULL), "handle");
    broken = broken || bad(plait_server_listen(server, url), "listen");
    broken = broken || bad(plait_server_listen(server, "tcp://127.0.0.1:0?framing=lines"), "listen");
    broken = broken || bad(plait_server_listen(server, "udp://127.0.0.1:0"), "listen");
    broken = broken || bad(plait_server_fd(server), "fd");
    for (int i = 0; i < 3 && !broken; i++) broken = bad(plait_server_dispatch(server, PLAIT_NOW), "dispatch");
    plait_server_close(server);
}

static void told(int result, plait_reply *reply, void *context)
{
    if (result < 0) (void)bad(result, "a call");
    plait_reply_free(reply);
    ++*(int *)context;
}

static const char *target;

static void call_with(plait_client *client)
{
    static char body[300000];
    static const size_t sizes[] = { 8, 9000, sizeof(body), 8 };
    for (int i = 0; i < 4; i++) {
        plait_reply *reply = NULL;
        int r = plait_client_call(client, "", body, sizes[i], NULL, &reply);
        if (!bad(r, "call")) CHECK_INT(plait_reply_body(reply).size, sizes[i]);
        plait_reply_free(reply);
    }
    for (int i = 0; i < 4; i++) {
        plait_loan *loan = NULL;
        size_t size = i % 2 ? 300000 : 20000;
        int r = plait_client_loan(client, size, NULL, &loan);
        if (r == -ENOMEM) { /* the connection lives */
            CHECK(strstr(plait_error_text(), "loan") || strstr(plait_error_text(), "memory"));
            CHECK_INT(plait_client_call(client, "", body, 8, NULL, NULL), 0);
        }
        if (bad(r, "loan")) continue;
        memcpy(plait_loan_data(loan), body, 8);
        (void)bad(plait_client_call_loan(client, "", loan, size, NULL, NULL), "call_loan");
    }
    int over = 0, started = 0;
    (void)bad(plait_client_fd(client), "fd");
    for (int i = 0; i < 10; i++)
        started += !bad(plait_client_call_async(client, "", body, 100, NULL, told, &over, NULL), "call_async");
    for (int i = 0; i < 100 && over < started; i++) (void)bad(plait_client_dispatch(client, 50), "dispatch");
    CHECK_INT(over, started);
    char **names = NULL;
    size_t count = 0;
    if (!bad(plait_client_methods(client, &names, &count), "methods")) free(names);
}

static void open_call_close(void)
{
    plait_client *client = NULL;
    plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
    options.connect_timeout = 300;
    options.timeout = 1000;
    if (bad(plait_client_open(&client, target, &options), "open")) {
        CHECK(client == NULL);
        return;
    }
    call_with(client);
    plait_client_close(client);
}

/* Runs WORK in a child for each N; ends when nothing is left that could fail. */
static void put_through(int kind, void (*work)(void))
{
    for (int nth = 1; nth < MOST; nth++) {
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
            printf("# %d %s failed in turn\n", nth - 1, kind == 1 ? "allocations" : "system calls");
            CHECK(nth > 5);
            return;
        }
    }
    test_fail(__FILE__, __LINE__, "it never ends");
}

static void spare(void)
{
    fault = NULL;
}

static void put_client_through(int kind, const char *where)
{
    TEST_TIMEOUT(240);
    fault_new();
    struct board *board = board_new();
    struct started server =
        serve(board, &(struct serve){
                         .name = "faulty", .listen = { "tcp://127.0.0.1:0", "udp://127.0.0.1:0" }, .storm = spare });
    target = strcmp(where, "tcp") == 0 ? server.url[0] : strcmp(where, "udp") == 0 ? server.url[1] : where;
    put_through(kind, open_call_close);
    fault_arm(0, 0);
    end_server(&server);
    board_free(board);
    fault_free();
}

TEST(a_client_survives_every_failing_allocation_over_shared_memory)
{
    put_client_through(1, "faulty");
}
TEST(a_client_survives_every_failing_allocation_over_a_socket)
{
    put_client_through(1, "faulty?shm=off");
}
TEST(a_client_survives_every_failing_allocation_over_tcp)
{
    put_client_through(1, "tcp");
}
TEST(a_client_survives_every_failing_allocation_over_udp)
{
    put_client_through(1, "udp");
}
TEST(a_client_survives_every_failing_system_call_over_shared_memory)
{
    put_client_through(2, "faulty");
}
TEST(a_client_survives_every_failing_system_call_over_a_socket)
{
    put_client_through(2, "faulty?shm=off");
}
TEST(a_client_survives_every_failing_system_call_over_tcp)
{
    put_client_through(2, "tcp");
}
TEST(a_client_survives_every_failing_system_call_over_udp)
{
    put_client_through(2, "udp");
}

TEST(a_server_opens_or_says_why_when_an_allocation_fails)
{
    fault_new();
    put_through(1, open_serve_close);
    fault_free();
}

TEST(a_server_opens_or_says_why_when_a_system_call_fails)
{
    fault_new();
    put_through(2, open_serve_close);
    fault_free();
}

/* The server fails at its Nth call from here on; whoever suffers, the next client doesn't. */
static void put_serving_through(int kind)
{
    static const char *const targets[] = { "faulty", "faulty?shm=off" };
    TEST_TIMEOUT(240);
    fault_new();
    fault_arm(0, 0);
    struct board *board = board_new();
    struct started server = serve(board, &(struct serve){ .name = "faulty" });
    plait_client_close(open_client("faulty", NULL)); /* it runs */
    int nth = 1, quiet = 0;
    for (; quiet < 2; nth++) {
        CHECK(nth < MOST);
        fault_arm(kind, nth);
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            fault = NULL; /* ours don't fail */
            plait_client *client = NULL;
            plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
            options.connect_timeout = 300;
            options.timeout = 300;
            if (plait_client_open(&client, targets[nth % 2], &options) == 0)
                for (int i = 0; i < 4; i++)
                    (void)checked_call(board, client, (size_t[]){ 8, 9000, 300000, 8 }[i], 0, 0);
            plait_client_close(client);
            _exit(0);
        }
        CHECK_INT(test_wait_child(pid), 0);
        bool fired = atomic_load(&fault->fired);
        fault_arm(0, 0);
        quiet = fired ? 0 : quiet + 1;
        int status = 0;
        plait_client *client = NULL;
        if (plait_client_open(&client, targets[nth % 2], NULL) < 0)
            test_fail(__FILE__, __LINE__, "after %s failed, the %dth call, the server (wait status %d, 0x%x): %s",
                      fault->name, nth, (int)waitpid(server.pid, &status, WNOHANG), (unsigned)status,
                      plait_error_text());
        CHECK_INT(checked_call(board, client, 9000, 0, 0), 0);
        plait_client_close(client);
    }
    printf("# %d %s failed in turn\n", nth - 3, kind == 1 ? "allocations" : "system calls");
    CHECK(nth > 10);
    end_server(&server);
    board_free(board);
    fault_free();
}

TEST(a_server_goes_on_after_every_failing_allocation)
{
    put_serving_through(1);
}
TEST(a_server_goes_on_after_every_failing_system_call)
{
    put_serving_through(2);
}
