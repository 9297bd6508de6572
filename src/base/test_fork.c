/* A child knows what isn't its own, for ever, however it was made. */
#include "base/fork.h"

#include "harness/test.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

struct handle {
    int marked;
    struct pl_fork_hook hook;
    struct handle *also_remove;
};

static void mark(struct pl_fork_hook *hook)
{
    struct handle *handle = pl_container_of(hook, struct handle, hook);
    handle->marked++;
    if (handle->also_remove != NULL) pl_fork_remove(&handle->also_remove->hook);
}

#define HANDLE                                                                                                         \
    {                                                                                                                  \
        0, { .in_child = mark }, NULL                                                                                  \
    }

static pid_t fork_or_fail(void)
{
    pid_t child = fork();
    CHECK(child >= 0);
    return child;
}

TEST(a_handle_is_forked_in_the_child_only)
{
    struct handle handle = HANDLE;
    CHECK_INT(pl_fork_add(&handle.hook), 0);
    CHECK(!pl_forked(&handle.hook));
    pid_t child = fork_or_fail();
    if (child == 0) {
        CHECK(pl_forked(&handle.hook));
        CHECK_INT(handle.marked, 1);
        pl_fork_remove(&handle.hook);
        CHECK(pl_forked(&handle.hook));
        _exit(0);
    }
    CHECK_INT(test_wait_child(child), 0);
    CHECK(!pl_forked(&handle.hook));
    CHECK_INT(handle.marked, 0);
    pl_fork_remove(&handle.hook);
}

TEST(a_new_handle_in_the_child_does_not_revive_the_old)
{
    struct handle old = HANDLE, own = HANDLE, last = HANDLE;
    CHECK_INT(pl_fork_add(&old.hook), 0);
    pid_t child = fork_or_fail();
    if (child == 0) {
        CHECK_INT(pl_fork_add(&own.hook), 0);
        CHECK(!pl_forked(&own.hook));
        CHECK(pl_forked(&old.hook));
        pid_t grandchild = fork_or_fail();
        if (grandchild == 0) {
            CHECK_INT(pl_fork_add(&last.hook), 0);
            CHECK(pl_forked(&own.hook) && pl_forked(&old.hook) && !pl_forked(&last.hook));
            CHECK_INT(own.marked, 1);
            CHECK_INT(old.marked, 1); /* once only */
            _exit(0);
        }
        CHECK_INT(test_wait_child(grandchild), 0);
        CHECK(!pl_forked(&own.hook));
        _exit(0);
    }
    CHECK_INT(test_wait_child(child), 0);
    pl_fork_remove(&old.hook);
}

TEST(removed_hooks_do_not_run)
{
    struct handle handle = HANDLE;
    CHECK_INT(pl_fork_add(&handle.hook), 0);
    pl_fork_remove(&handle.hook);
    pl_fork_remove(&handle.hook);
    pid_t child = fork_or_fail();
    if (child == 0) _exit(handle.marked);
    CHECK_INT(test_wait_child(child), 0);
    struct handle never_added = HANDLE;
    pl_fork_remove(&never_added.hook);
    pl_fork_remove(NULL);
}

TEST(a_hook_may_remove_itself_and_others)
{
    struct handle a = HANDLE, b = HANDLE, c = HANDLE, d = HANDLE;
    a.also_remove = &b;
    c.also_remove = &c;
    d.also_remove = &a;
    CHECK_INT(pl_fork_add(&a.hook), 0);
    CHECK_INT(pl_fork_add(&b.hook), 0);
    CHECK_INT(pl_fork_add(&c.hook), 0);
    CHECK_INT(pl_fork_add(&d.hook), 0);
    pid_t child = fork_or_fail();
    if (child == 0) {
        CHECK_INT(a.marked, 1);
        CHECK_INT(b.marked, 0);
        CHECK_INT(c.marked, 1);
        CHECK_INT(d.marked, 1);
        _exit(0);
    }
    CHECK_INT(test_wait_child(child), 0);
    pl_fork_remove(&a.hook);
    pl_fork_remove(&b.hook);
    pl_fork_remove(&c.hook);
    pl_fork_remove(&d.hook);
}

TEST(a_raw_clone_is_noticed_without_any_handler)
{
    struct handle handle = HANDLE, own = HANDLE;
    CHECK_INT(pl_fork_add(&handle.hook), 0);
    pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    CHECK(child >= 0);
    if (child == 0) {
        bool right = pl_forked(&handle.hook) && handle.marked == 0 && pl_fork_add(&own.hook) == 0 &&
                     !pl_forked(&own.hook) && pl_forked(&handle.hook);
        _exit(right ? 0 : 1);
    }
    CHECK_INT(test_wait_child(child), 0);
    CHECK(!pl_forked(&handle.hook));
    pl_fork_remove(&handle.hook);
}

static _Atomic int stop; /* relaxed throughout: only a request to end */

static void *add_and_remove(void *context)
{
    (void)context;
    struct handle handles[8] = { HANDLE, HANDLE, HANDLE, HANDLE, HANDLE, HANDLE, HANDLE, HANDLE };
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        for (int i = 0; i < 8; i++) CHECK_INT(pl_fork_add(&handles[i].hook), 0);
        for (int i = 0; i < 8; i++) pl_fork_remove(&handles[(i * 3) % 8].hook);
    }
    return NULL;
}

TEST(forks_while_other_threads_add_and_remove_find_a_whole_list)
{
    pthread_t threads[2];
    struct handle handle = HANDLE;
    CHECK_INT(pl_fork_add(&handle.hook), 0);
    for (int i = 0; i < 2; i++) CHECK_INT(pthread_create(&threads[i], NULL, add_and_remove, NULL), 0);
    for (int i = 0; i < 200; i++) {
        pid_t child = fork_or_fail();
        if (child == 0) {
            alarm(20); /* a lock that is held for ever, or a list that bites its tail */
            struct handle own = HANDLE;
            CHECK_INT(handle.marked, 1);
            CHECK_INT(pl_fork_add(&own.hook), 0);
            pl_fork_remove(&handle.hook);
            pl_fork_remove(&own.hook);
            _exit(0);
        }
        CHECK_INT(test_wait_child(child), 0);
    }
    atomic_store_explicit(&stop, 1, memory_order_relaxed);
    for (int i = 0; i < 2; i++) CHECK_INT(pthread_join(threads[i], NULL), 0);
    pl_fork_remove(&handle.hook);
}
