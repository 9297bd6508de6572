#include "harness/test.h"
#include "loop/signal.h"
#include <plait/plait.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void users_own(int number)
{
    (void)number;
}

static uint64_t count_of(int fd)
{
    uint64_t count = 0;
    return read(fd, &count, sizeof(count)) < 0 ? 0 : count;
}

static void (*handler_of(int number))(int)
{
    struct sigaction action;
    CHECK_INT(sigaction(number, NULL, &action), 0);
    return action.sa_handler;
}

TEST(a_signal_wakes_every_catcher_and_is_told_to_each)
{
    int a = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), b = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int first = pl_signal_catch(a, false), second = pl_signal_catch(b, false);
    CHECK(first >= 0 && second >= 0 && first != second);
    CHECK(!pl_signal_caught(first));
    CHECK_INT(raise(SIGTERM), 0);
    CHECK(pl_signal_caught(first));
    CHECK_INT(count_of(a), 1);
    CHECK_INT(count_of(b), 1);
    pl_signal_release(first);
    CHECK_INT(raise(SIGINT), 0);
    CHECK_INT(count_of(a), 0); /* it has let go */
    CHECK_INT(count_of(b), 1);
    CHECK(pl_signal_caught(second));
    pl_signal_release(second);
    close(a);
    close(b);
}

TEST(dispositions_are_put_back_when_the_last_one_lets_go)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int first = pl_signal_catch(fd, false), second = pl_signal_catch(fd, false);
    CHECK(handler_of(SIGINT) != SIG_DFL);
    pl_signal_release(first);
    CHECK(handler_of(SIGINT) != SIG_DFL);
    pl_signal_release(second);
    CHECK(handler_of(SIGINT) == SIG_DFL);
    CHECK(handler_of(SIGTERM) == SIG_DFL);
    close(fd);
}

TEST(a_program_s_own_handlers_stay)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    signal(SIGINT, users_own);
    signal(SIGTERM, SIG_IGN);
    int ticket = pl_signal_catch(fd, false);
    CHECK(handler_of(SIGINT) == users_own);
    CHECK(handler_of(SIGTERM) == SIG_IGN);
    CHECK_INT(raise(SIGINT), 0);
    CHECK(!pl_signal_caught(ticket));
    pl_signal_release(ticket);
    CHECK(handler_of(SIGINT) == users_own);
    CHECK(handler_of(SIGTERM) == SIG_IGN);
    close(fd);
}

TEST(a_handler_installed_meanwhile_is_not_overwritten)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int ticket = pl_signal_catch(fd, false);
    signal(SIGTERM, users_own);
    pl_signal_release(ticket);
    CHECK(handler_of(SIGTERM) == users_own);
    CHECK(handler_of(SIGINT) == SIG_DFL);
    close(fd);
}

TEST(there_is_a_limit_and_it_is_named)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), tickets[PL_SIGNAL_CATCHERS];
    for (int i = 0; i < PL_SIGNAL_CATCHERS; i++) CHECK((tickets[i] = pl_signal_catch(fd, false)) >= 0);
    CHECK_INT(pl_signal_catch(fd, false), -EAGAIN);
    CHECK_CONTAINS(plait_error_text(), "16 servers");
    pl_signal_release(-EAGAIN);
    pl_signal_release(tickets[3]);
    CHECK_INT(pl_signal_catch(fd, false), tickets[3]);
    for (int i = 0; i < PL_SIGNAL_CATCHERS; i++) pl_signal_release(tickets[i]);
    close(fd);
}

static _Atomic int stop;

static void *raise_often(void *unused)
{
    (void)unused;
    while (!stop) pthread_kill(pthread_self(), SIGINT);
    return NULL;
}

/* A handler that still ran after release would write into whatever has the number by then. */
TEST(after_release_no_handler_touches_the_descriptor)
{
    pthread_t thread;
    int outer = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
        keep = pl_signal_catch(outer, false); /* SIGINT never kills us */
    CHECK_INT(pthread_create(&thread, NULL, raise_often, NULL), 0);
    for (int i = 0; i < 2000; i++) {
        int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        int ticket = pl_signal_catch(fd, false);
        CHECK(ticket >= 0);
        pl_signal_release(ticket);
        (void)count_of(fd);
        CHECK_INT(count_of(fd), 0);
        close(fd);
    }
    stop = 1;
    CHECK_INT(pthread_join(thread, NULL), 0);
    pl_signal_release(keep);
    close(outer);
}

TEST(a_second_signal_ends_a_process_whose_stop_is_held_up)
{
    pid_t pid = fork();
    if (pid == 0) {
        int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), ticket = pl_signal_catch(fd, false);
        CHECK(!pl_signal_caught(ticket));
        raise(SIGTERM);
        raise(SIGTERM); /* nobody has been told yet */
        CHECK(pl_signal_caught(ticket));
        raise(SIGTERM);
        _exit(3);
    }
    CHECK_INT(test_wait_child(pid), 128 + SIGTERM);
}

TEST(a_hangup_is_told_once_to_those_who_asked_and_stops_nothing)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int plain = pl_signal_catch(fd, false);
    CHECK(handler_of(SIGHUP) == SIG_DFL);
    int ticket = pl_signal_catch(fd, true);
    CHECK(!pl_signal_hung_up(ticket));
    CHECK_INT(raise(SIGHUP), 0);
    CHECK(count_of(fd) > 0);
    CHECK(pl_signal_hung_up(ticket) && !pl_signal_hung_up(ticket));
    CHECK(!pl_signal_caught(ticket));
    pl_signal_release(ticket);
    pl_signal_release(plain);
    CHECK(handler_of(SIGHUP) == SIG_DFL);
    close(fd);
}

TEST(library_threads_block_every_signal)
{
    sigset_t before, now;
    pl_signal_block_all(&before);
    CHECK_INT(pthread_sigmask(SIG_SETMASK, &before, &now), 0);
    CHECK_INT(sigismember(&now, SIGINT), 1);
    CHECK_INT(sigismember(&now, SIGCHLD), 1);
    CHECK_INT(sigismember(&before, SIGINT), 0);
}
