/* Loans as handles: each ends once, and one that is over is known to be. */
#include "base/loan.h"
#include "base/error.h"

#include "harness/test.h"
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

static _Atomic int given_back;

static void count(struct pl_loan *loan)
{
    (void)loan;
    given_back++;
}

static plait_loan *lend(size_t size)
{
    static uint8_t memory[64];
    struct pl_loan loan = { .data = memory, .size = size, .give_back = count };
    plait_loan *handle;
    CHECK_INT(pl_loan_new(&handle, &loan), 0);
    return handle;
}

TEST(an_abort_gives_back_once_and_a_second_is_nothing)
{
    plait_loan *handle = lend(64);
    CHECK(plait_loan_data(handle) != NULL);
    CHECK_INT(plait_loan_size(handle), 64);
    plait_loan_abort(handle);
    plait_loan_abort(handle);
    plait_loan_abort(NULL);
    CHECK_INT(given_back, 1);
    CHECK(plait_loan_data(handle) == NULL && plait_loan_size(handle) == 0);
    CHECK(plait_loan_data(NULL) == NULL && plait_loan_size(NULL) == 0);
}

TEST(a_loan_is_taken_once)
{
    plait_loan *handle = lend(64);
    struct pl_loan loan;
    CHECK_INT(pl_loan_take(handle, 10, &loan), 0);
    CHECK_INT(loan.size, 10);
    CHECK_INT(given_back, 0);
    struct pl_loan again;
    CHECK_INT(pl_loan_take(handle, 10, &again), -EINVAL);
    CHECK_CONTAINS(plait_error_text(), "this loan is over");
    CHECK_INT(pl_loan_take(NULL, 0, &again), -EINVAL);
    pl_loan_give_back(&loan);
    pl_loan_give_back(&loan);
    CHECK_INT(given_back, 1);
}

TEST(more_than_was_lent_is_refused_and_given_back)
{
    plait_loan *handle = lend(8);
    struct pl_loan loan;
    CHECK_INT(pl_loan_take(handle, 9, &loan), -EINVAL);
    CHECK_CONTAINS(plait_error_text(), "9 bytes in a loan of 8");
    CHECK_INT(given_back, 1);
    CHECK_INT(pl_loan_take(handle, 1, &loan), -EINVAL);
    CHECK_INT(given_back, 1);
}

TEST(a_handle_that_is_over_is_the_last_to_be_used_again)
{
    plait_loan *old = lend(1), *others[20];
    plait_loan_abort(old);
    for (int i = 0; i < 20; i++) CHECK((others[i] = lend(1)) != old);
    CHECK(plait_loan_data(old) == NULL);
    for (int i = 0; i < 20; i++) plait_loan_abort(others[i]);
    CHECK_INT(given_back, 21);
}

TEST(plain_memory_is_aligned_and_never_null)
{
    for (size_t size = 0; size < 300; size += 7) {
        struct pl_loan loan;
        CHECK_INT(pl_loan_plain(&loan, size), 0);
        CHECK((uintptr_t)loan.data % 64 == 0);
        memset(loan.data, 1, size);
        pl_loan_give_back(&loan);
        CHECK(loan.data == NULL);
    }
}

static void *churn(void *unused)
{
    (void)unused;
    for (int i = 0; i < 2000; i++) {
        plait_loan *some[40];
        for (int k = 0; k < 40; k++) some[k] = lend(1);
        for (int k = 0; k < 40; k++) plait_loan_abort(some[k]);
    }
    return NULL;
}

TEST(threads_lend_and_give_back_at_once)
{
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) CHECK_INT(pthread_create(&threads[i], NULL, churn, NULL), 0);
    for (int i = 0; i < 4; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
    CHECK_INT(given_back, 4 * 2000 * 40);
}

TEST(a_child_may_abort_what_it_inherited_while_the_parent_s_threads_lend)
{
    pthread_t thread;
    plait_loan *handle = lend(1);
    CHECK_INT(pthread_create(&thread, NULL, churn, NULL), 0);
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            plait_loan_abort(handle);
            plait_loan_abort(lend(1));
            _exit(0);
        }
        CHECK_INT(test_wait_child(child), 0);
    }
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK(plait_loan_data(handle) != NULL);
    plait_loan_abort(handle);
}
