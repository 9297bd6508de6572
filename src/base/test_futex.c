/* A sleeper sleeps while the word is as it was, and no longer than it may. */
#include "base/futex.h"

#include "base/clock.h"
#include "harness/test.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

TEST(another_value_does_not_sleep)
{
    _Atomic uint32_t word = 5;
    CHECK_INT(pl_futex_wait(&word, 4, PL_NEVER), 0);
}

TEST(the_deadline_ends_the_sleep)
{
    _Atomic uint32_t word = 5;
    uint64_t deadline = pl_clock_ns() + 20000000;
    int r;
    do {
        r = pl_futex_wait(&word, 5, deadline);
    } while (r == 0); /* woken for no reason: allowed */
    CHECK_INT(r, -ETIMEDOUT);
    CHECK(pl_clock_ns() >= deadline);
    CHECK_INT(pl_futex_wait(&word, 5, 0), -ETIMEDOUT);
    CHECK_INT(pl_futex_wait(&word, 5, pl_clock_ns()), -ETIMEDOUT);
}

static void *sleep_on(void *context)
{
    _Atomic uint32_t *word = context;
    while (atomic_load_explicit(word, memory_order_relaxed) == 1) { /* relaxed: nothing else is read */
        CHECK_INT(pl_futex_wait(word, 1, PL_NEVER), 0);
    }
    return NULL;
}

TEST(wake_wakes_all_that_it_is_told_to)
{
    _Atomic uint32_t word = 1;
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) CHECK_INT(pthread_create(&threads[i], NULL, sleep_on, &word), 0);
    atomic_store_explicit(&word, 2, memory_order_relaxed); /* relaxed: nothing else is read */
    pl_futex_wake(&word, 3);
    for (int i = 0; i < 3; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
}

static void ignore(int signal_number)
{
    (void)signal_number;
}

TEST(a_signal_is_told)
{
    _Atomic uint32_t word = 1;
    struct sigaction action = { .sa_handler = ignore }; /* no SA_RESTART */
    sigaction(SIGALRM, &action, NULL);
    ualarm(1000, 1000); /* again and again: the first may come before the sleep */
    CHECK_INT(pl_futex_wait(&word, 1, PL_NEVER), -EINTR);
    ualarm(0, 0);
}
