/* A crash signal tells the peers at once, and ends the process as it would have. */
#include "loop/crash.h"

#include "harness/test.h"

#include <alloca.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

struct seen {
    _Atomic int number;
    _Atomic int thread;
};

static void note(int number, pid_t thread, void *context)
{
    struct seen *seen = context;
    atomic_store(&seen->thread, (int)thread);
    atomic_store(&seen->number, number);
}

static struct seen *share(void)
{
    struct seen *seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(seen != MAP_FAILED);
    return seen;
}

static int *volatile nowhere = (int *)8;
static void crash_by_fault(void)
{
    *nowhere = 1;
}
static void crash_by_abort(void)
{
    abort();
}
static void crash_by_kill(void)
{
    kill(getpid(), SIGBUS);
    for (;;) pause();
}
static void crash_by_overflow(void)
{
    for (;;) *(volatile char *)alloca(4096) = 1;
}

/* The child's end of a socket tells of the crash, and the child ends by NUMBER. */
static void check_crash(void (*crash)(void), int number)
{
    struct seen *seen = share();
    int ends[2], others[2];
    char byte;
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, others), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit none = { 0, 0 };
        setrlimit(RLIMIT_CORE, &none);
        pl_crash_arm(note, seen);
        pl_crash_watch(ends[1]);
        pl_crash_watch(others[1]);
        pl_crash_unwatch(others[1]);
        (void)pl_crash_stack_begin();
        crash();
        _exit(0);
    }
    /* Our copy of its end is open, so nothing but a shutdown can end the stream. */
    CHECK_INT(recv(ends[0], &byte, 1, 0), 0);
    CHECK_INT(atomic_load(&seen->number), number);
    CHECK_INT(atomic_load(&seen->thread), pid);
    CHECK_INT(test_wait_child(pid), 128 + number);
    CHECK_INT(recv(others[0], &byte, 1, MSG_DONTWAIT), -1);
    CHECK_INT(errno, EAGAIN);
    for (int i = 0; i < 2; i++) {
        close(ends[i]);
        close(others[i]);
    }
    munmap(seen, sizeof(*seen));
}

TEST(a_fault_shuts_the_connections_down_and_ends_the_process)
{
    if (test_sanitized()) SKIP("the sanitizer has a handler of its own");
    check_crash(crash_by_fault, SIGSEGV);
}

TEST(so_do_abort_and_a_signal_that_was_sent)
{
    if (test_sanitized()) SKIP("the sanitizer has a handler of its own");
    check_crash(crash_by_abort, SIGABRT);
    check_crash(crash_by_kill, SIGBUS);
}

TEST(a_stack_that_ran_out_is_told_as_well)
{
    if (test_sanitized()) SKIP("the sanitizer has a handler of its own");
    check_crash(crash_by_overflow, SIGSEGV);
}

/* What it forked crashes on its own: the connections that it has copies of are its parent's. */
TEST(a_child_s_crash_leaves_its_parent_s_connections)
{
    if (test_sanitized()) SKIP("the sanitizer has a handler of its own");
    struct seen *seen = share();
    int ends[2];
    char byte;
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        pl_crash_arm(note, seen);
        pl_crash_watch(ends[1]);
        pid_t child = fork();
        if (child == 0) {
            CHECK(!pl_crash_armed());
            crash_by_abort();
        }
        CHECK_INT(test_wait_child(child), 128 + SIGABRT);
        _exit(0);
    }
    CHECK_INT(test_wait_child(pid), 0);
    CHECK_INT(atomic_load(&seen->number), 0);
    CHECK_INT(recv(ends[0], &byte, 1, MSG_DONTWAIT), -1);
    close(ends[0]);
    close(ends[1]);
    munmap(seen, sizeof(*seen));
}

static void own_handler(int number)
{
    (void)number;
    _exit(7);
}

TEST(a_program_s_own_handler_stays)
{
    struct seen *seen = share();
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGFPE, own_handler);
        pl_crash_arm(note, seen);
        raise(SIGFPE);
        _exit(0);
    }
    CHECK_INT(test_wait_child(pid), 7);
    CHECK_INT(atomic_load(&seen->number), 0);
    munmap(seen, sizeof(*seen));
}

/* Two threads at once: one of them crashes, the other would begin what nobody learns of any more. */
static _Atomic int begun, checked;
static void *begin_for_ever(void *unused)
{
    for (;;) {
        atomic_fetch_add_explicit(&begun, 1, memory_order_relaxed); /* relaxed: the case that the check is for */
        pl_crash_check();
        atomic_fetch_add_explicit(&checked, 1, memory_order_relaxed); /* relaxed: as above */
    }
    return unused;
}

static void slow_note(int number, pid_t thread, void *context)
{
    int before[2] = { atomic_load(&begun), atomic_load(&checked) };
    poll(NULL, 0, 20);
    /* What had begun may have been past its check; after that none was. */
    struct seen *seen = context;
    atomic_store(&seen->thread, (int)thread);
    atomic_store(&seen->number,
                 atomic_load(&checked) <= before[0] && atomic_load(&begun) <= before[0] + 1 ? number : -1);
}

TEST(no_request_begins_once_a_crash_is_told)
{
    if (test_sanitized()) SKIP("the sanitizer has a handler of its own");
    struct seen *seen = share();
    for (int i = 0; i < 20; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            pthread_t thread;
            struct rlimit none = { 0, 0 };
            setrlimit(RLIMIT_CORE, &none);
            pl_crash_arm(slow_note, seen);
            CHECK_INT(pthread_create(&thread, NULL, begin_for_ever, NULL), 0);
            while (atomic_load(&begun) < 1000) poll(NULL, 0, 0);
            abort();
        }
        CHECK_INT(test_wait_child(pid), 128 + SIGABRT);
        CHECK_INT(atomic_load(&seen->number), SIGABRT);
    }
    munmap(seen, sizeof(*seen));
}
