/* test: see test.h. The runner and the test's processes share one page, in which the first
 * failure is noted; the runner alone prints. */
#include "harness/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STATUS_FAILED = 1, STATUS_SKIPPED = 77, LIMIT_DEFAULT = 60, FDS_SHOWN = 4096 };

struct shared {
    atomic_int taken; /* 1: somebody notes a failure or a reason to skip; the first one wins */
    atomic_int noted; /* 1: `text` is complete */
    atomic_int limit; /* seconds */
    char text[1024];
};

static struct test_case *tests, **tests_end = &tests;
static struct shared *shared;
static const struct test_case *current;
static char directory[512];
static unsigned char fds_before[FDS_SHOWN];
static size_t mappings_before;
static int unforked;

void test_register(struct test_case *test)
{
    *tests_end = test;
    tests_end = &test->next;
}

/* ---- inside a test ------------------------------------------------------------------ */

static void note(const char *text)
{
    if (atomic_exchange(&shared->taken, 1) == 0) { /* TE1: pairs with TE1, one noter only */
        snprintf(shared->text, sizeof(shared->text), "%s", text);
        atomic_store(&shared->noted, 1); /* TR1: pairs with TA1 in report */
    }
}

void test_fail(const char *file, int line, const char *format, ...)
{
    char text[sizeof(shared->text)];
    int used = line > 0 ? snprintf(text, sizeof(text), "%s:%d: ", file, line) : 0;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + used, sizeof(text) - (size_t)used, format, arguments);
    va_end(arguments);
    if (unforked) {
        fprintf(stderr, "FAIL %s\n", text);
        abort();
    }
    note(text);
    fflush(stderr);
    _exit(STATUS_FAILED);
}

void test_skip(const char *why)
{
    if (unforked) {
        printf("skip: %s\n", why);
        exit(STATUS_SKIPPED);
    }
    note(why);
    _exit(STATUS_SKIPPED);
}

void test_set_timeout(int seconds)
{
    atomic_store(&shared->limit, seconds);
}

void test_check_int(const char *file, int line, const char *what, long long actual, long long expected)
{
    if (actual != expected) test_fail(file, line, "%s is %lld, expected %lld", what, actual, expected);
}

void test_check_str(const char *file, int line, const char *what, const char *actual, const char *expected)
{
    if (!actual || !expected) {
        if (actual != expected)
            test_fail(file, line, "%s is \"%s\", expected \"%s\"", what, actual ? actual : "(null)",
                      expected ? expected : "(null)");
        return;
    }
    if (strcmp(actual, expected)) test_fail(file, line, "%s is \"%s\", expected \"%s\"", what, actual, expected);
}

void test_check_contains(const char *file, int line, const char *what, const char *text, const char *part)
{
    if (!text || !strstr(text, part))
        test_fail(file, line, "%s is \"%s\", expected to contain \"%s\"", what, text ? text : "(null)", part);
}

void test_check_mem(const char *file, int line, const char *what, const void *actual, const void *expected, size_t size)
{
    const unsigned char *a = actual, *b = expected;
    for (size_t i = 0; i < size; i++)
        if (a[i] != b[i])
            test_fail(file, line, "%s differs at byte %zu of %zu: 0x%02x, expected 0x%02x", what, i, size, a[i], b[i]);
}

const char *test_directory(void)
{
    return directory;
}

int test_wait_child(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) test_fail(__FILE__, __LINE__, "waitpid(%d): %s", (int)pid, strerror(errno));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

const struct test_case *test_current(void)
{
    return current;
}

int test_sanitized(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return 1;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
    return 1;
#endif
#endif
    return 0;
}

/* ---- what a process holds ----------------------------------------------------------- */

/* Calls SEEN for each descriptor but the one that the listing itself needs. */
static size_t each_fd(void (*seen)(int fd, void *context), void *context)
{
    DIR *listing = opendir("/proc/self/fd");
    if (!listing) return 0;
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(listing));) {
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] == '.' || fd == dirfd(listing)) continue;
        count++;
        if (seen) seen(fd, context);
    }
    closedir(listing);
    return count;
}

size_t test_count_fds(void)
{
    return each_fd(NULL, NULL);
}

/* LAST (may be NULL) gets the last shared mapping's line. */
static size_t count_mappings(char *last, size_t size)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    if (!maps) return 0;
    char line[1024];
    size_t count = 0;
    while (fgets(line, sizeof(line), maps)) {
        const char *mode = strchr(line, ' ');
        if (!mode || strlen(mode) < 5 || mode[4] != 's') continue;
        count++;
        line[strcspn(line, "\n")] = 0;
        if (last) snprintf(last, size, "%s", line);
    }
    fclose(maps);
    return count;
}

size_t test_count_mappings(void)
{
    return count_mappings(NULL, 0);
}

static void remember_fd(int fd, void *context)
{
    (void)context;
    if (fd < FDS_SHOWN) fds_before[fd] = 1;
}

void test_settle(void)
{
    memset(fds_before, 0, sizeof(fds_before));
    each_fd(remember_fd, NULL);
    mappings_before = test_count_mappings();
}

static void complain_fd(int fd, void *context)
{
    (void)context;
    if (fd < FDS_SHOWN && fds_before[fd]) return;
    char path[64], target[256] = "?";
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    ssize_t size = readlink(path, target, sizeof(target) - 1);
    if (size >= 0) target[size] = 0;
    test_fail("", 0, "descriptor %d was left open: %s", fd, target);
}

static void check_leaks(void)
{
    each_fd(complain_fd, NULL);
    char last[600] = "";
    size_t mappings = count_mappings(last, sizeof(last));
    if (mappings > mappings_before)
        test_fail("", 0, "%zu shared mappings were left, the last is %s", mappings - mappings_before, last);
}

/* ---- the runner --------------------------------------------------------------------- */

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status;
    (void)where;
    if (kind == FTW_DNR) chmod(path, 0700);
    remove(path);
    return 0;
}

static void make_directory(void)
{
    const char *parent = getenv("TMPDIR");
    char run[sizeof(directory) + 8];
    snprintf(directory, sizeof(directory), "%s/plait-test-XXXXXX", parent && *parent ? parent : "/tmp");
    if (!mkdtemp(directory)) {
        perror(directory);
        exit(STATUS_FAILED);
    }
    snprintf(run, sizeof(run), "%s.run", directory);
    if (mkdir(run, 0700) < 0 || setenv("PLAIT_DIR", run, 1) < 0) {
        perror(run);
        exit(STATUS_FAILED);
    }
}

static void remove_directory(void)
{
    char run[sizeof(directory) + 8];
    snprintf(run, sizeof(run), "%s.run", directory);
    nftw(run, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Waits for CHILD within the limit, which the test may change meanwhile. 0, or -1 if it was
 * killed for its time. */
static int await(pid_t child, int *ret_status)
{
    int64_t start = now_ms();
    int pidfd = (int)syscall(SYS_pidfd_open, child, 0);
    for (;;) {
        struct pollfd event = { .fd = pidfd, .events = POLLIN };
        if (poll(&event, 1, 200) > 0) break;
        if (now_ms() - start > (int64_t)atomic_load(&shared->limit) * 1000) {
            kill(-child, SIGKILL);
            kill(child, SIGKILL);
            waitpid(child, ret_status, 0);
            close(pidfd);
            return -1;
        }
    }
    close(pidfd);
    waitpid(child, ret_status, 0);
    return 0;
}

/* As their subreaper the runner inherits what a test leaves: the dead are reaped; the living get
 * a moment to end (a killed process needs one), then they are killed. Returns a living one or 0. */
static pid_t reap_orphans(pid_t group)
{
    pid_t orphan = 0;
    int64_t start = now_ms();
    for (;;) {
        siginfo_t who = { 0 };
        if (waitid(P_ALL, 0, &who, WEXITED | WNOHANG) < 0) return orphan;
        if (who.si_pid) continue;
        if (now_ms() - start > 1000 && !orphan) {
            char path[64], text[64] = "";
            snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
            int fd = open(path, O_RDONLY | O_CLOEXEC);
            ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
            if (fd >= 0) close(fd);
            orphan = size > 0 ? (pid_t)atoi(text) : group;
            kill(-group, SIGKILL);
            if (orphan > 0) kill(orphan, SIGKILL);
        } else if (now_ms() - start > 5000) {
            return orphan;
        }
        poll(NULL, 0, 5);
    }
}

static void run_child(struct test_case *test)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    test_settle();
    current = test;
    test->run();
    check_leaks();
    exit(0); /* not _exit: leak checkers want to run */
}

/* 0 passed, 1 failed, 2 skipped */
static int report(const struct test_case *test, int in_time, int status, pid_t orphan)
{
    const char *text = atomic_load(&shared->noted) ? shared->text : NULL; /* TA1: pairs with TR1 in note */
    if (!in_time) {
        printf("FAIL %s: it took more than %d s%s%s\n", test->name, atomic_load(&shared->limit), text ? "; " : "",
               text ? text : "");
    } else if (WIFEXITED(status) && WEXITSTATUS(status) == STATUS_SKIPPED && text) {
        printf("skip %s: %s\n", test->name, text);
        return 2;
    } else if (text) {
        printf("FAIL %s: %s\n", test->name, text);
    } else if (WIFSIGNALED(status)) {
        printf("FAIL %s: ended by signal %d (%s)\n", test->name, WTERMSIG(status), strsignal(WTERMSIG(status)));
    } else if (WEXITSTATUS(status)) {
        printf("FAIL %s: ended with status %d\n", test->name, WEXITSTATUS(status));
    } else if (orphan) {
        printf("FAIL %s: left process %d behind\n", test->name, (int)orphan);
    } else {
        printf("ok %s\n", test->name);
        return 0;
    }
    return 1;
}

static int run_forked(struct test_case *test)
{
    memset(shared, 0, sizeof(*shared));
    atomic_store(&shared->limit, LIMIT_DEFAULT);
    make_directory();
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) run_child(test);
    if (child < 0) {
        perror("fork");
        exit(STATUS_FAILED);
    }
    int status = 0;
    int late = await(child, &status);
    pid_t orphan = reap_orphans(child);
    remove_directory();
    int result = report(test, late == 0, status, orphan);
    fflush(stdout);
    return result;
}

static int run_named(const char *name)
{
    for (struct test_case *test = tests; test; test = test->next) {
        if (strcmp(test->name, name)) continue;
        unforked = 1;
        atomic_store(&shared->limit, LIMIT_DEFAULT);
        make_directory();
        atexit(remove_directory);
        test_settle();
        current = test;
        test->run();
        check_leaks();
        printf("ok %s\n", name);
        return 0;
    }
    fprintf(stderr, "no test is called %s; --list names them\n", name);
    return 2;
}

int main(int argc, char **argv)
{
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return STATUS_FAILED;
    if (argc > 1 && !strcmp(argv[1], "--list")) {
        for (struct test_case *test = tests; test; test = test->next) puts(test->name);
        return 0;
    }
    if (argc > 1) return run_named(argv[1]);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    int count[3] = { 0 };
    for (struct test_case *test = tests; test; test = test->next) count[run_forked(test)]++;
    printf("%d passed, %d failed, %d skipped\n", count[0], count[1], count[2]);
    if (count[1]) return STATUS_FAILED;
    return count[0] == 0 && count[2] > 0 ? STATUS_SKIPPED : 0;
}
