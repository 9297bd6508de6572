/* Doorbells: every ring wakes an edge-triggered waiter, whatever the peer did to the descriptor. */
#include "harness/test.h"

#include "base/error.h"
#include "shm/doorbell.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <unistd.h>

static int watch(int fd)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    CHECK(epoll >= 0);
    struct epoll_event event = { .events = EPOLLIN | EPOLLET };
    CHECK_INT(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), 0);
    return epoll;
}

static int events(int epoll)
{
    struct epoll_event event;
    return epoll_wait(epoll, &event, 1, 0);
}

TEST(every_ring_is_an_edge_without_any_read)
{
    int bell;
    CHECK_INT(pl_doorbell_create(&bell), 0);
    int epoll = watch(bell);
    CHECK_INT(events(epoll), 0);
    for (int i = 0; i < 1000; i++) {
        pl_doorbell_ring(bell);
        CHECK_INT(events(epoll), 1);
        CHECK_INT(events(epoll), 0);
    }
    close(epoll);
    close(bell);
}

TEST(a_ring_before_the_wait_is_not_lost)
{
    int bell;
    CHECK_INT(pl_doorbell_create(&bell), 0);
    pl_doorbell_ring(bell);
    pl_doorbell_ring(bell);
    int epoll = watch(bell);
    CHECK_INT(events(epoll), 1);
    CHECK_INT(events(epoll), 0);
    close(epoll);
    close(bell);
}

TEST(a_full_counter_neither_blocks_nor_deafens)
{
    int bell;
    CHECK_INT(pl_doorbell_create(&bell), 0);
    int epoll = watch(bell);
    uint64_t most = UINT64_MAX - 1;
    CHECK_INT(write(bell, &most, sizeof most), sizeof most);
    CHECK_INT(events(epoll), 1);
    errno = EDOM;
    pl_doorbell_ring(bell);
    CHECK_INT(errno, EDOM);
    CHECK_INT(events(epoll), 1);
    close(epoll);
    close(bell);
}

TEST(a_doorbell_is_nonblocking_and_closes_on_exec)
{
    int bell;
    CHECK_INT(pl_doorbell_create(&bell), 0);
    CHECK(fcntl(bell, F_GETFL) & O_NONBLOCK);
    CHECK_INT(fcntl(bell, F_GETFD), FD_CLOEXEC);
    close(bell);
}

TEST(a_foreign_eventfd_is_accepted_and_made_nonblocking)
{
    int bell = eventfd(0, EFD_CLOEXEC);
    CHECK(bell >= 0);
    CHECK_INT(pl_doorbell_check(bell), 0);
    CHECK(fcntl(bell, F_GETFL) & O_NONBLOCK);
    close(bell);
}

TEST(what_is_no_eventfd_is_refused)
{
    int ends[2];
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    int others[] = { ends[0],
                     ends[1],
                     epoll_create1(EPOLL_CLOEXEC),
                     timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC),
                     memfd_create("not a bell", MFD_CLOEXEC),
                     open("/dev/null", O_RDWR | O_CLOEXEC) };
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        CHECK(others[i] >= 0);
        CHECK_INT(pl_doorbell_check(others[i]), -EPROTO);
        CHECK_CONTAINS(pl_error_text(), "not an eventfd");
        close(others[i]);
    }
    CHECK_INT(pl_doorbell_check(-1), -EPROTO);
}

TEST(ringing_a_dead_descriptor_does_nothing)
{
    errno = EDOM;
    pl_doorbell_ring(-1);
    CHECK_INT(errno, EDOM);
}
