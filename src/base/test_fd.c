/* Descriptors arrive whole or not at all, and none stays behind; process names hold any byte. The
 * harness counts descriptors, so every test here is a test for leaks too. */
#include "base/fd.h"

#include "base/error.h"
#include "harness/test.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void make_pair(int pair[2])
{
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
}

static void close_both(int pair[2])
{
    pl_close(&pair[0]);
    pl_close(&pair[1]);
}

/* COUNT descriptors in the way that pl_fd_send wouldn't: any number, in GROUPS control messages. */
static void send_rudely(int socket, size_t count, size_t groups)
{
    union {
        struct cmsghdr header;
        char space[4096];
    } control;
    int event = eventfd(0, EFD_CLOEXEC);
    CHECK(event >= 0);
    memset(&control, 0, sizeof control);
    char byte = 1;
    struct iovec vector = { .iov_base = &byte, .iov_len = 1 };
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control
    };
    size_t size = 0;
    struct cmsghdr *item = CMSG_FIRSTHDR(&message);
    for (size_t group = 0; group < groups; group++, item = CMSG_NXTHDR(&message, item)) {
        item->cmsg_level = SOL_SOCKET;
        item->cmsg_type = SCM_RIGHTS;
        item->cmsg_len = CMSG_LEN(count / groups * sizeof(int));
        for (size_t i = 0; i < count / groups; i++) memcpy(CMSG_DATA(item) + i * sizeof(int), &event, sizeof event);
        size += CMSG_SPACE(count / groups * sizeof(int));
    }
    message.msg_controllen = size;
    CHECK_INT(sendmsg(socket, &message, 0), 1);
    close(event);
}

TEST(closing_twice_is_closing_once)
{
    int fd = eventfd(0, EFD_CLOEXEC), other;
    errno = ENOTTY;
    pl_close(&fd);
    CHECK_INT(fd, -1);
    other = eventfd(0, EFD_CLOEXEC); /* takes the number */
    pl_close(&fd);
    CHECK(fcntl(other, F_GETFD) >= 0);
    errno = ENOTTY;
    pl_close(&other);
    CHECK_INT(errno, ENOTTY);
}

TEST(nonblock_keeps_the_other_flags)
{
    char path[600];
    snprintf(path, sizeof path, "%s/file", test_directory());
    int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    CHECK_INT(pl_fd_nonblock(fd), 0);
    CHECK_INT(fcntl(fd, F_GETFL) & (O_NONBLOCK | O_APPEND), O_NONBLOCK | O_APPEND);
    pl_close(&fd);
    CHECK_INT(pl_fd_nonblock(-1), -EBADF);
}

TEST(a_directory_is_opened_and_nothing_else)
{
    int fd = -7;
    CHECK_INT(pl_fd_open_directory(test_directory(), &fd), 0);
    CHECK_INT(fcntl(fd, F_GETFD), FD_CLOEXEC);
    pl_close(&fd);
    fd = -7;
    CHECK_INT(pl_fd_open_directory("/dev/null", &fd), -ENOTDIR);
    CHECK_STR(pl_error_text(), "directory /dev/null: not a directory");
    CHECK_INT(pl_fd_open_directory("/nowhere/at/all", &fd), -ENOENT);
    CHECK_INT(fd, -7);
}

TEST(descriptors_arrive_with_their_bytes)
{
    int pair[2], events[PL_FDS_MAX], fds[PL_FDS_MAX];
    char data[16];
    make_pair(pair);
    for (size_t count = 0; count <= PL_FDS_MAX; count++) {
        for (size_t i = 0; i < count; i++) events[i] = eventfd((unsigned)i + 10, EFD_CLOEXEC);
        CHECK_INT(pl_fd_send(pair[0], "bytes", 5, events, count), 5);
        size_t got = PL_FDS_MAX;
        CHECK_INT(pl_fd_receive(pair[1], data, sizeof data, fds, &got), 5);
        CHECK_MEM(data, "bytes", 5);
        CHECK_INT(got, count);
        for (size_t i = 0; i < count; i++) {
            uint64_t value = 0;
            CHECK_INT(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
            CHECK_INT(read(fds[i], &value, sizeof value), sizeof value);
            CHECK_INT(value, i + 10); /* in order */
            pl_close(&fds[i]);
            pl_close(&events[i]); /* sending only borrowed it */
        }
    }
    close_both(pair);
}

TEST(surplus_descriptors_are_closed_and_told)
{
    int pair[2], fds[PL_FDS_MAX] = { -7, -7, -7, -7 };
    char data[16];
    make_pair(pair);
    for (size_t count = 1; count <= 250; count = count * 2 + 1) {
        for (size_t room = 0; room <= PL_FDS_MAX && room < count; room++) {
            size_t before = test_count_fds(), got = room;
            send_rudely(pair[0], count, 1);
            CHECK_INT(pl_fd_receive(pair[1], data, sizeof data, fds, &got), -EPROTO);
            CHECK_CONTAINS(pl_error_text(), "descriptors");
            CHECK_INT(got, room); /* out-parameters are untouched */
            CHECK_INT(fds[0], -7);
            CHECK_INT(test_count_fds(), before);
        }
    }
    close_both(pair);
}

TEST(several_control_messages_are_one_count)
{
    int pair[2], fds[PL_FDS_MAX];
    char data[16];
    make_pair(pair);
    size_t before = test_count_fds(), got = PL_FDS_MAX;
    send_rudely(pair[0], 4, 2);
    CHECK_INT(pl_fd_receive(pair[1], data, sizeof data, fds, &got), 1);
    CHECK_INT(got, 4);
    for (size_t i = 0; i < got; i++) pl_close(&fds[i]);
    send_rudely(pair[0], 6, 3);
    CHECK_INT(pl_fd_receive(pair[1], data, sizeof data, fds, &got), -EPROTO);
    CHECK_INT(test_count_fds(), before);
    close_both(pair);
}

TEST(descriptors_that_do_not_fit_the_limit_are_told)
{
    int pair[2], fds[PL_FDS_MAX];
    char data[16];
    size_t got = PL_FDS_MAX, before;
    make_pair(pair);
    send_rudely(pair[0], 4, 1);
    before = test_count_fds();
    int highest = dup(0); /* the lowest free number: one more will fit below the limit */
    struct rlimit old, low;
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &old), 0);
    low = old;
    low.rlim_cur = (rlim_t)highest + 1;
    pl_close(&highest);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &low), 0);
    ssize_t r = pl_fd_receive(pair[1], data, sizeof data, fds, &got);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &old), 0);
    CHECK_INT(r, -EPROTO);
    CHECK_CONTAINS(pl_error_text(), "ulimit -n");
    CHECK_INT(test_count_fds(), before);
    close_both(pair);
}

TEST(an_end_and_an_empty_socket_differ)
{
    int pair[2], fds[PL_FDS_MAX];
    char data[16];
    size_t got = PL_FDS_MAX;
    make_pair(pair);
    CHECK_INT(pl_fd_receive(pair[1], data, sizeof data, fds, &got), -EAGAIN);
    pl_close(&pair[0]);
    got = PL_FDS_MAX;
    CHECK_INT(pl_fd_receive(pair[1], data, sizeof data, fds, &got), 0);
    CHECK_INT(got, 0);
    pl_close(&pair[1]);
    CHECK_INT(pl_fd_receive(-1, data, sizeof data, fds, &got), -EBADF);
}

TEST(sending_to_the_gone_raises_no_signal)
{
    int pair[2];
    signal(SIGPIPE, SIG_DFL);
    make_pair(pair);
    pl_close(&pair[1]);
    CHECK_INT(pl_fd_send(pair[0], "x", 1, NULL, 0), -EPIPE);
    close_both(pair);
}

TEST(sending_never_blocks)
{
    int pair[2], event = eventfd(0, EFD_CLOEXEC);
    static char data[65536];
    ssize_t r = 0;
    make_pair(pair);
    for (int i = 0; i < 1000 && r >= 0; i++) r = pl_fd_send(pair[0], data, sizeof data, NULL, 0);
    CHECK_INT(r, -EAGAIN);
    CHECK_INT(pl_fd_send(pair[0], data, sizeof data, &event, 1), -EAGAIN);
    close_both(pair);
    pl_close(&event);
}

TEST(what_cannot_be_sent_is_refused)
{
    int pair[2], fds[PL_FDS_MAX + 1] = { 0 };
    make_pair(pair);
    CHECK_INT(pl_fd_send(pair[0], "x", 1, fds, PL_FDS_MAX + 1), -EINVAL);
    CHECK_INT(pl_fd_send(pair[0], "", 0, fds, 1), -EINVAL); /* they ride on a byte */
    fds[0] = -1;
    CHECK_INT(pl_fd_send(pair[0], "x", 1, fds, 1), -EBADF);
    close_both(pair);
}

TEST(small_files_are_read_with_a_nul)
{
    char path[600], text[8];
    snprintf(path, sizeof path, "%s/file", test_directory());
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    CHECK_INT(write(fd, "0123456789", 10), 10);
    pl_close(&fd);
    CHECK_INT(pl_fd_read_text(AT_FDCWD, path, text, sizeof text), 7);
    CHECK_STR(text, "0123456");
    CHECK_INT(pl_fd_read_text(AT_FDCWD, path, text, 1), 0);
    CHECK_STR(text, "");
    CHECK_INT(pl_fd_read_text(AT_FDCWD, "/nowhere", text, sizeof text), -ENOENT);
    CHECK_INT(pl_fd_read_text(AT_FDCWD, "/", text, sizeof text), -EISDIR);
}

TEST(links_and_fifos_in_a_directory_neither_mislead_nor_block)
{
    char text[64];
    int directory = -1;
    CHECK_INT(pl_fd_open_directory(test_directory(), &directory), 0);
    CHECK_INT(symlinkat("/etc/passwd", directory, "link"), 0);
    CHECK_INT(mkfifoat(directory, "fifo", 0600), 0);
    CHECK_INT(pl_fd_read_text(directory, "link", text, sizeof text), -ELOOP);
    CHECK_INT(pl_fd_read_text(directory, "fifo", text, sizeof text), 0);
    pl_close(&directory);
}

TEST(a_pidfd_tells_the_end)
{
    pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    int fd = pl_fd_pidfd(child);
    CHECK(fd >= 0);
    CHECK_INT(fcntl(fd, F_GETFD), FD_CLOEXEC);
    struct pollfd waiter = { .fd = fd, .events = POLLIN };
    CHECK_INT(poll(&waiter, 1, 0), 0);
    kill(child, SIGKILL);
    CHECK_INT(poll(&waiter, 1, 10000), 1);
    pl_close(&fd);
    CHECK_INT(test_wait_child(child), 128 + SIGKILL);
    CHECK_INT(pl_fd_pidfd(child), -ESRCH);
    CHECK_INT(pl_fd_pidfd(-1), -EINVAL);
}

TEST(a_process_has_a_start_and_a_name_whatever_it_is_called)
{
    static const char *const names[] = { "plain", "a b", ") R 1 2 3", "((", "))) 1 2", " ", ")", "x\ny" };
    char text[64];
    uint64_t start = pl_process_start(getpid());
    CHECK(start > 0);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        CHECK_INT(prctl(PR_SET_NAME, names[i]), 0);
        CHECK_INT(pl_process_start(getpid()), start);
        CHECK_STR(pl_process_name(getpid(), text, sizeof text), names[i]);
    }
    CHECK_INT(prctl(PR_SET_NAME, "0123456789abcdef"), 0);
    CHECK_STR(pl_process_name(getpid(), text, 5), "0123");
}

TEST(a_later_process_started_later)
{
    uint64_t first = pl_process_start(1), own = pl_process_start(getpid());
    CHECK(first > 0 && own > first);
}

TEST(a_process_that_ended_is_gone_even_as_a_zombie)
{
    char text[16];
    pid_t child = fork();
    if (child == 0) _exit(0);
    siginfo_t info;
    CHECK_INT(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
    CHECK_INT(pl_process_start(child), 0);
    CHECK_INT(test_wait_child(child), 0);
    CHECK_INT(pl_process_start(child), 0);
    CHECK_STR(pl_process_name(child, text, sizeof text), "?");
    CHECK_INT(pl_process_start(0), 0);
    CHECK_INT(pl_process_start(-1), 0);
}

static void *live_on(void *context)
{
    int *ends = context;
    char byte;
    /* The first thread ends on its own time: only /proc can tell when. */
    for (char text[1024] = "", *state = text; state[0] == '\0' || state[2] != 'Z';) {
        CHECK(pl_fd_read_text(AT_FDCWD, "/proc/self/stat", text, sizeof text) > 0);
        state = strrchr(text, ')');
    }
    CHECK_INT(write(ends[1], "z", 1), 1);
    CHECK_INT(read(ends[2], &byte, 1), 0);
    _exit(0);
}

TEST(a_process_whose_first_thread_ended_is_not_gone)
{
    int told[2], hold[2];
    char byte;
    CHECK_INT(pipe2(told, O_CLOEXEC), 0);
    CHECK_INT(pipe2(hold, O_CLOEXEC), 0);
    pid_t child = fork();
    if (child == 0) {
        int ends[3] = { told[0], told[1], hold[0] };
        pthread_t thread;
        close(hold[1]);
        CHECK_INT(pthread_create(&thread, NULL, live_on, ends), 0);
        syscall(SYS_exit, 0); /* this thread alone; its stack stays */
    }
    CHECK_INT(read(told[0], &byte, 1), 1);
    CHECK(pl_process_start(child) > 0);
    close_both(hold);
    CHECK_INT(test_wait_child(child), 0);
    close_both(told);
}
