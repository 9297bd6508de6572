/* test: a runner that catches what C forgets.
 *
 * TEST(name) registers itself; main() is in test.c. Every test runs in a forked child with a time
 * limit, its own temporary directory and a PLAIT_DIR inside it; descriptors, shared mappings and
 * child processes that are left at the end fail it. With a test's name as argument that one test
 * runs unforked and without limits: for a debugger.
 *
 * A failed CHECK ends its process (from any thread); failing in a process that the test forked
 * fails the test, too.
 */
#ifndef TESTS_HARNESS_TEST_H
#define TESTS_HARNESS_TEST_H

#include <stddef.h>
#include <sys/types.h>

struct test_case {
    const char *name;
    void (*run)(void);
    struct test_case *next;
};

#define TEST(name)                                                                                                     \
    static void test_run_##name(void);                                                                                 \
    __attribute__((constructor)) static void test_register_##name(void)                                                \
    {                                                                                                                  \
        static struct test_case test_case = { #name, test_run_##name, NULL };                                          \
        test_register(&test_case);                                                                                     \
    }                                                                                                                  \
    static void test_run_##name(void)

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) test_fail(__FILE__, __LINE__, "%s", #condition);                                             \
    } while (0)
#define CHECK_INT(actual, expected)                                                                                    \
    test_check_int(__FILE__, __LINE__, #actual, (long long)(actual), (long long)(expected))
#define CHECK_STR(actual, expected) test_check_str(__FILE__, __LINE__, #actual, (actual), (expected))
#define CHECK_CONTAINS(text, part) test_check_contains(__FILE__, __LINE__, #text, (text), (part))
#define CHECK_MEM(actual, expected, size) test_check_mem(__FILE__, __LINE__, #actual, (actual), (expected), (size))

/* Ends the test as skipped; `why` goes into the log. */
#define SKIP(why) test_skip(why)

/* Changes the running test's limit, counted from its start; 60 s otherwise. */
#define TEST_TIMEOUT(seconds) test_set_timeout(seconds)

/* The test's temporary directory: exists, is empty at first, is removed afterwards. */
const char *test_directory(void);

/* Waits for a child: its exit status, or 128 + the signal that ended it. */
int test_wait_child(pid_t pid);

/* Descriptors and shared mappings that exist now are no leak: to be called after things that a
 * process keeps for good (one inotify, one status page) have come up. */
void test_settle(void);

/* How many descriptors, and how many shared mappings, this process has. */
size_t test_count_fds(void);
size_t test_count_mappings(void);

/* The test that runs: for tests that are made from a table. */
const struct test_case *test_current(void);

/* 1 under a sanitizer, where time and memory mean little. */
int test_sanitized(void);

void test_register(struct test_case *test);
void test_fail(const char *file, int line, const char *format, ...) __attribute__((noreturn, format(printf, 3, 4)));
void test_skip(const char *why) __attribute__((noreturn));
void test_set_timeout(int seconds);
void test_check_int(const char *file, int line, const char *what, long long actual, long long expected);
void test_check_str(const char *file, int line, const char *what, const char *actual, const char *expected);
void test_check_contains(const char *file, int line, const char *what, const char *text, const char *part);
void test_check_mem(const char *file, int line, const char *what, const void *actual, const void *expected,
                    size_t size);

#endif
