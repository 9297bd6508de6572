/* Who asked gets whole lines, who didn't gets silence, and nobody gets SIGPIPE. */
#include "base/log.h"

#include "harness/test.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* What write_to_stderr writes there, in TEXT. */
static void capture_stderr(void (*write_to_stderr)(void), char *text, size_t size)
{
    int file = memfd_create("stderr", MFD_CLOEXEC), keep = dup(STDERR_FILENO);
    CHECK(file >= 0 && keep >= 0);
    CHECK(fcntl(file, F_SETFL, O_APPEND) == 0);
    dup2(file, STDERR_FILENO);
    write_to_stderr();
    dup2(keep, STDERR_FILENO);
    close(keep);
    ssize_t got = pread(file, text, size - 1, 0);
    close(file);
    CHECK(got >= 0);
    text[got] = '\0';
}

static void log_all_levels(void)
{
    pl_log(PLAIT_LOG_ERROR, "one %d", 1);
    pl_log(PLAIT_LOG_INFO, "two");
    pl_log(PLAIT_LOG_DEBUG, "three");
}

TEST(nothing_is_said_unless_somebody_asks)
{
    char text[1000];
    unsetenv("PLAIT_LOG");
    capture_stderr(log_all_levels, text, sizeof text);
    CHECK_STR(text, "");
}

TEST(an_unknown_level_asks_for_nothing)
{
    char text[1000];
    setenv("PLAIT_LOG", "loud", 1);
    capture_stderr(log_all_levels, text, sizeof text);
    CHECK_STR(text, "");
}

TEST(stderr_gets_what_the_environment_asks_for)
{
    char text[1000], expected[1000];
    setenv("PLAIT_LOG", "info", 1);
    capture_stderr(log_all_levels, text, sizeof text);
    snprintf(expected, sizeof expected, "plait[%d]: error: one 1\nplait[%d]: info: two\n", (int)getpid(),
             (int)getpid());
    CHECK_STR(text, expected);
}

static void set_environment_and_log(void)
{
    pl_log(PLAIT_LOG_ERROR, "before");
    setenv("PLAIT_LOG", "debug", 1);
    pl_log(PLAIT_LOG_DEBUG, "after");
}

TEST(environment_is_read_once)
{
    char text[1000];
    unsetenv("PLAIT_LOG");
    capture_stderr(set_environment_and_log, text, sizeof text);
    CHECK_STR(text, "");
}

struct heard {
    plait_log_level level;
    int count;
    char line[2000];
};

static void hear(plait_log_level level, const char *line, void *context)
{
    struct heard *heard = context;
    heard->level = level;
    heard->count++;
    snprintf(heard->line, sizeof heard->line, "%s", line);
    errno = EXDEV;
}

TEST(a_function_gets_every_level_until_it_is_taken_back)
{
    struct heard heard = { .count = 0 };
    char text[1000];
    setenv("PLAIT_LOG", "error", 1);
    plait_set_log(hear, &heard);
    capture_stderr(log_all_levels, text, sizeof text);
    CHECK_STR(text, "");
    CHECK_INT(heard.count, 3);
    CHECK_INT(heard.level, PLAIT_LOG_DEBUG);
    CHECK_STR(heard.line, "three");
    plait_set_log(NULL, NULL);
    capture_stderr(log_all_levels, text, sizeof text);
    CHECK_CONTAINS(text, "error: one 1\n");
    CHECK(strstr(text, "two") == NULL);
    CHECK_INT(heard.count, 3);
}

TEST(errno_is_kept)
{
    struct heard heard = { .count = 0 };
    plait_set_log(hear, &heard);
    errno = ENOTTY;
    pl_log(PLAIT_LOG_INFO, "x");
    CHECK_INT(errno, ENOTTY);
    CHECK_INT(heard.count, 1);
}

TEST(foreign_bytes_stay_on_one_line)
{
    struct heard heard = { .count = 0 };
    plait_set_log(hear, &heard);
    pl_log(PLAIT_LOG_ERROR, "name %s", "a\nplait: error: b\x1b[2J\x7f\xc3\xa9");
    CHECK_STR(heard.line, "name a plait: error: b [2J?\xc3\xa9");
    char longer[3000];
    memset(longer, 'y', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    pl_log(PLAIT_LOG_ERROR, "%s", longer);
    CHECK_INT(strlen(heard.line), 1023);
}

static void log_again(plait_log_level level, const char *line, void *context)
{
    (void)level;
    (void)line;
    plait_set_log(hear, context);
    pl_log(PLAIT_LOG_INFO, "from inside");
}

TEST(the_function_may_log_and_replace_itself)
{
    struct heard heard = { .count = 0 };
    plait_set_log(log_again, &heard);
    pl_log(PLAIT_LOG_INFO, "outside");
    CHECK_STR(heard.line, "from inside");
}

static void log_into_a_closed_pipe(void)
{
    int ends[2], keep = dup(STDERR_FILENO);
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
    pl_log(PLAIT_LOG_ERROR, "nobody reads this");
    dup2(keep, STDERR_FILENO);
    close(keep);
}

TEST(a_closed_stderr_raises_no_signal)
{
    setenv("PLAIT_LOG", "error", 1);
    signal(SIGPIPE, SIG_DFL);
    log_into_a_closed_pipe();
    sigset_t pending, blocked;
    sigpending(&pending);
    CHECK_INT(sigismember(&pending, SIGPIPE), 0);
    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    CHECK_INT(sigismember(&blocked, SIGPIPE), 0);
}

TEST(a_signal_that_was_pending_before_stays)
{
    setenv("PLAIT_LOG", "error", 1);
    signal(SIGPIPE, SIG_DFL);
    sigset_t pipe_signal, pending;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, NULL);
    raise(SIGPIPE);
    log_into_a_closed_pipe();
    sigpending(&pending);
    CHECK_INT(sigismember(&pending, SIGPIPE), 1);
}

#define THREADS 4
#define LINES 200

static void *log_many(void *context)
{
    for (int i = 0; i < LINES; i++) pl_log(PLAIT_LOG_INFO, "begin %ld end", (long)(intptr_t)context);
    return NULL;
}

static void log_in_threads(void)
{
    pthread_t threads[THREADS];
    for (long i = 0; i < THREADS; i++) CHECK_INT(pthread_create(&threads[i], NULL, log_many, (void *)i), 0);
    for (long i = 0; i < THREADS; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
}

TEST(lines_of_many_threads_stay_whole)
{
    static char text[THREADS * LINES * 64];
    int lines = 0;
    setenv("PLAIT_LOG", "info", 1);
    capture_stderr(log_in_threads, text, sizeof text);
    for (char *rest = text, *line = strsep(&rest, "\n"); rest != NULL; line = strsep(&rest, "\n"), lines++) {
        int pid = 0, thread = -1, length = 0;
        CHECK_INT(sscanf(line, "plait[%d]: info: begin %d end%n", &pid, &thread, &length), 2);
        CHECK_INT(pid, getpid());
        CHECK_INT(length, strlen(line));
    }
    CHECK_INT(lines, THREADS * LINES);
}

static void count(plait_log_level level, const char *line, void *context)
{
    (void)level;
    (void)line;
    /* relaxed: a counter, read after join */
    atomic_fetch_add_explicit((_Atomic int *)context, 1, memory_order_relaxed);
}

static _Atomic int stop; /* relaxed throughout: only a request to end */

static void *log_until_stopped(void *context)
{
    (void)context;
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) pl_log(PLAIT_LOG_INFO, "x");
    return NULL;
}

TEST(a_forked_child_can_log_whatever_the_parent_was_doing)
{
    static _Atomic int counter;
    pthread_t thread;
    plait_set_log(count, &counter);
    CHECK_INT(pthread_create(&thread, NULL, log_until_stopped, NULL), 0);
    for (int i = 0; i < 100; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            alarm(20); /* a lock that is held for ever shows as death by SIGALRM */
            pl_log(PLAIT_LOG_INFO, "child");
            _exit(0);
        }
        CHECK_INT(test_wait_child(child), 0);
    }
    atomic_store_explicit(&stop, 1, memory_order_relaxed);
    CHECK_INT(pthread_join(thread, NULL), 0);
}
