/* Fails in every way that the runner promises to notice; test_harness.c reads what it says. */
#include "harness/test.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

TEST(passes)
{
    CHECK(1);
    CHECK_INT(2, 2);
    CHECK_STR("a", "a");
    CHECK_CONTAINS("abc", "b");
    CHECK_MEM("ab", "ab", 2);
    CHECK(access(test_directory(), W_OK) == 0);
    CHECK(access(getenv("PLAIT_DIR"), W_OK) == 0);
}

TEST(wrong_int)
{
    CHECK_INT(1 + 1, 3);
}

TEST(wrong_bytes)
{
    CHECK_MEM("abc", "abd", 3);
}

TEST(leaks_a_descriptor)
{
    CHECK(open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0);
}

TEST(leaks_a_mapping)
{
    CHECK(mmap(NULL, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
}

TEST(keeps_what_it_settled_for)
{
    CHECK(open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0);
    test_settle();
}

TEST(skips)
{
    SKIP("no reason");
}

TEST(crashes)
{
    signal(SIGSEGV, SIG_DFL); /* a sanitizer would make an exit status of it */
    raise(SIGSEGV);
}

TEST(is_too_slow)
{
    TEST_TIMEOUT(1);
    for (;;) pause();
}

TEST(leaves_a_process)
{
    if (fork() == 0)
        for (;;) pause();
}

TEST(leaves_a_process_of_another_session)
{
    if (fork() == 0) {
        setsid();
        for (;;) pause();
    }
}

TEST(leaves_a_process_that_ends_by_itself)
{
    if (fork() == 0) {
        usleep(50000);
        _exit(0);
    }
}

TEST(fails_in_a_child)
{
    pid_t child = fork();
    if (child == 0) CHECK_STR("x", "y");
    test_wait_child(child);
}

static void *fail(void *context)
{
    (void)context;
    CHECK(0 && "in a thread");
    return NULL;
}

TEST(fails_in_a_thread)
{
    pthread_t thread;
    CHECK_INT(pthread_create(&thread, NULL, fail, NULL), 0);
    pthread_join(thread, NULL);
}
