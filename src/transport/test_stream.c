#include "transport/stream.h"
#include "transport/test_pair.h"

#include <sys/resource.h>

struct ends {
    struct pl_stream a;
    int b;
};

static void open_ends(struct ends *ends)
{
    int fds[2];
    socket_pair(fds);
    pl_stream_init(&ends->a, fds[0]);
    ends->b = fds[1];
}

static void close_ends(struct ends *ends)
{
    pl_stream_deinit(&ends->a);
    pl_close(&ends->b);
}

static void feed(struct ends *ends, const void *data, size_t size)
{
    CHECK_INT(send(ends->b, data, size, MSG_NOSIGNAL), (ssize_t)size);
}

/* Everything that comes, to the end of the connection or COUNT bytes. */
static size_t drain(int fd, uint8_t *bytes, size_t count)
{
    size_t done = 0;
    while (done < count) {
        ssize_t n = recv(fd, bytes + done, count - done, MSG_DONTWAIT);
        if (n <= 0) break;
        done += (size_t)n;
    }
    return done;
}

TEST(peek_gives_what_is_there_and_says_whether_it_is_enough)
{
    struct ends ends;
    const uint8_t *data;
    size_t size;
    open_ends(&ends);
    CHECK_INT(pl_stream_peek(&ends.a, 1, &data, &size), PL_STREAM_EMPTY);
    CHECK_INT(size, 0);
    feed(&ends, "abcdef", 6);
    CHECK_INT(pl_stream_peek(&ends.a, 1, &data, &size), PL_STREAM_EMPTY); /* nobody said that it is readable */
    ends.a.readable = true;
    CHECK_INT(pl_stream_peek(&ends.a, 4, &data, &size), PL_STREAM_OK);
    CHECK_INT(size, 6);
    CHECK_MEM(data, "abcdef", 6);
    pl_stream_consume(&ends.a, 4);
    CHECK_INT(pl_stream_peek(&ends.a, 3, &data, &size), PL_STREAM_EMPTY);
    CHECK_INT(size, 2);
    CHECK_MEM(data, "ef", 2);
    close_ends(&ends);
}

TEST(a_short_read_spares_the_next_system_call)
{
    struct ends ends;
    const uint8_t *data;
    size_t size;
    open_ends(&ends);
    feed(&ends, "x", 1);
    CHECK_INT(pl_stream_peek(&ends.a, 1, &data, &size), PL_STREAM_OK);
    CHECK(!ends.a.readable);
    close_ends(&ends);
}

TEST(the_end_comes_after_the_last_byte)
{
    struct ends ends;
    const uint8_t *data;
    size_t size;
    uint8_t byte;
    open_ends(&ends);
    feed(&ends, "xy", 2);
    pl_close(&ends.b);
    CHECK_INT(pl_stream_peek(&ends.a, 2, &data, &size), PL_STREAM_OK);
    ends.a.readable = true;
    CHECK_INT(pl_stream_peek(&ends.a, 3, &data, &size), PL_STREAM_END);
    CHECK_INT(size, 2);
    CHECK_INT(pl_stream_read(&ends.a, &byte, 1), 1);
    CHECK_INT(pl_stream_read(&ends.a, &byte, 1), 1);
    CHECK_INT(pl_stream_read(&ends.a, &byte, 1), -EPIPE);
    CHECK(pl_stream_look(&ends.a));
    close_ends(&ends);
}

TEST(a_look_reads_whatever_epoll_said)
{
    struct ends ends;
    const uint8_t *data;
    size_t size;
    open_ends(&ends);
    CHECK_INT(pl_stream_peek(&ends.a, 1, &data, &size), PL_STREAM_EMPTY);
    CHECK(!pl_stream_look(&ends.a));
    feed(&ends, "x", 1);
    CHECK(pl_stream_look(&ends.a));
    CHECK_INT(pl_stream_peek(&ends.a, 1, &data, &size), PL_STREAM_OK);
    close_ends(&ends);
}

TEST(a_large_read_goes_past_the_buffer_once_it_is_empty)
{
    struct ends ends;
    const uint8_t *data;
    uint8_t *sent = pattern(60000, 3), *got = malloc(60000);
    size_t size, done = 0;
    open_ends(&ends);
    feed(&ends, sent, 60000);
    CHECK_INT(pl_stream_peek(&ends.a, 32, &data, &size), PL_STREAM_OK);
    while (done < 60000) {
        ssize_t n = pl_stream_read(&ends.a, got + done, 60000 - done);
        CHECK(n > 0);
        done += (size_t)n;
    }
    CHECK_MEM(got, sent, 60000);
    CHECK_INT(ends.a.moved, 60000);
    pl_stream_trim(&ends.a);
    CHECK(ends.a.in.memory == NULL);
    free(sent);
    free(got);
    close_ends(&ends);
}

TEST(a_write_that_the_kernel_takes_leaves_nothing_pending)
{
    struct ends ends;
    uint8_t got[8];
    struct iovec iov[2] = { { (void *)"head", 4 }, { (void *)"body", 4 } };
    open_ends(&ends);
    CHECK_INT(pl_stream_write(&ends.a, iov, 2, true), PL_STREAM_OK);
    CHECK(!pl_stream_pending(&ends.a));
    CHECK_INT(drain(ends.b, got, 8), 8);
    CHECK_MEM(got, "headbody", 8);
    close_ends(&ends);
}

enum { HUGE_SIZE = 3 << 20 };

static void check_all_arrives(struct ends *ends, const uint8_t *sent, size_t size)
{
    uint8_t *got = malloc(size);
    size_t done = 0;
    for (int i = 0; done < size && i < 100000; i++) {
        done += drain(ends->b, got + done, size - done);
        CHECK(pl_stream_flush(&ends->a) >= 0);
    }
    CHECK_INT(done, size);
    CHECK_MEM(got, sent, size);
    CHECK(!pl_stream_pending(&ends->a));
    free(got);
}

TEST(what_the_kernel_doesn_t_take_waits_in_order)
{
    struct ends ends;
    uint8_t *body = pattern(HUGE_SIZE, 5);
    struct iovec iov[2] = { { body, 32 }, { body + 32, HUGE_SIZE - 32 - 4 } }, last = { body + HUGE_SIZE - 4, 4 };
    open_ends(&ends);
    CHECK_INT(pl_stream_write(&ends.a, iov, 2, false), PL_STREAM_OK);
    CHECK(pl_stream_pending(&ends.a));
    CHECK_INT(ends.a.borrowed_size, 0);
    CHECK_INT(pl_stream_write(&ends.a, &last, 1, false), PL_STREAM_FULL); /* enough waits already */
    uint8_t *scratch = malloc(HUGE_SIZE);
    size_t done = 0;
    while (done < HUGE_SIZE - 4) {
        done += drain(ends.b, scratch + done, HUGE_SIZE - done);
        CHECK(pl_stream_flush(&ends.a) >= 0);
    }
    CHECK_INT(pl_stream_write(&ends.a, &last, 1, false), PL_STREAM_OK);
    CHECK_INT(drain(ends.b, scratch + done, 4), 4);
    CHECK_MEM(scratch, body, HUGE_SIZE);
    free(scratch);
    free(body);
    close_ends(&ends);
}

TEST(little_may_wait_behind_little)
{
    struct ends ends;
    uint8_t *body = pattern(HUGE_SIZE, 6);
    size_t sent = 0;
    open_ends(&ends);
    /* Until the kernel is full, and on, up to what may wait. */
    for (;;) {
        struct iovec iov = { body + sent, 1000 };
        int r = pl_stream_write(&ends.a, &iov, 1, false);
        if (r == PL_STREAM_FULL) break;
        CHECK_INT(r, PL_STREAM_OK);
        sent += 1000;
    }
    CHECK(pl_buffer_size(&ends.a.out) > PL_STREAM_PENDING_MAX);
    CHECK(pl_buffer_size(&ends.a.out) <= PL_STREAM_PENDING_MAX + 1000);
    check_all_arrives(&ends, body, sent);
    free(body);
    close_ends(&ends);
}

TEST(a_borrowed_body_stays_the_caller_s_until_it_is_out)
{
    struct ends ends;
    uint8_t *body = pattern(HUGE_SIZE, 7);
    struct iovec iov[2] = { { body, 32 }, { body + 32, HUGE_SIZE - 32 } };
    open_ends(&ends);
    CHECK_INT(pl_stream_write(&ends.a, iov, 2, true), PL_STREAM_OK);
    CHECK(ends.a.borrowed >= body && ends.a.borrowed < body + HUGE_SIZE);
    CHECK_INT(pl_buffer_size(&ends.a.out), 0);
    CHECK_INT(pl_stream_write(&ends.a, iov, 1, false), PL_STREAM_FULL);
    check_all_arrives(&ends, body, HUGE_SIZE);
    CHECK(ends.a.borrowed == NULL);
    free(body);
    close_ends(&ends);
}

TEST(what_is_owned_needs_the_caller_no_more)
{
    struct ends ends;
    uint8_t *body = pattern(HUGE_SIZE, 8), *copy = pattern(HUGE_SIZE, 8);
    struct iovec iov = { body, HUGE_SIZE };
    open_ends(&ends);
    CHECK_INT(pl_stream_own(&ends.a), 0);
    CHECK_INT(pl_stream_write(&ends.a, &iov, 1, true), PL_STREAM_OK);
    CHECK_INT(pl_stream_own(&ends.a), 0);
    CHECK_INT(ends.a.borrowed_size, 0);
    memset(body, 0, HUGE_SIZE);
    free(body);
    check_all_arrives(&ends, copy, HUGE_SIZE);
    free(copy);
    close_ends(&ends);
}

/* Half a message must never be followed by another one. */
TEST(without_memory_for_the_rest_the_connection_ends)
{
    if (test_sanitized()) SKIP("a sanitizer needs its address space");
    struct ends ends;
    size_t huge = 256 << 20;
    uint8_t *body = calloc(1, huge);
    struct iovec iov = { body, huge };
    struct rlimit before, tight;
    open_ends(&ends);
    CHECK_INT(getrlimit(RLIMIT_AS, &before), 0);
    tight = before;
    tight.rlim_cur = huge + (64 << 20);
    CHECK_INT(setrlimit(RLIMIT_AS, &tight), 0);
    int r = pl_stream_write(&ends.a, &iov, 1, false);
    CHECK_INT(setrlimit(RLIMIT_AS, &before), 0);
    CHECK_INT(r, -ECONNABORTED);
    CHECK_CONTAINS(plait_error_text(), "the connection ends");
    CHECK(pl_stream_write(&ends.a, &iov, 1, false) < 0);
    /* Borrowed first, and to be owned then: the same. */
    close_ends(&ends);
    open_ends(&ends);
    CHECK_INT(pl_stream_write(&ends.a, &iov, 1, true), PL_STREAM_OK);
    CHECK_INT(setrlimit(RLIMIT_AS, &tight), 0);
    r = pl_stream_own(&ends.a);
    CHECK_INT(setrlimit(RLIMIT_AS, &before), 0);
    CHECK_INT(r, -ENOMEM);
    CHECK(!pl_stream_pending(&ends.a)); /* nothing reads the caller's memory any more */
    iov.iov_len = 1;
    CHECK(pl_stream_write(&ends.a, &iov, 1, false) < 0);
    free(body);
    close_ends(&ends);
}

TEST(a_write_to_nobody_is_an_error_and_no_signal)
{
    struct ends ends;
    struct iovec iov = { (void *)"x", 1 };
    open_ends(&ends);
    pl_close(&ends.b);
    CHECK_INT(pl_stream_write(&ends.a, &iov, 1, false), -EPIPE);
    CHECK_CONTAINS(plait_error_text(), "send");
    close_ends(&ends);
}

TEST(descriptors_come_in_the_order_of_their_bytes)
{
    struct ends ends;
    const uint8_t *data;
    size_t size;
    int pipes[2][2];
    open_ends(&ends);
    ends.a.with_fds = true;
    for (int i = 0; i < 2; i++) {
        CHECK_INT(pipe2(pipes[i], O_CLOEXEC), 0);
        CHECK_INT(pl_fd_send(ends.b, "ab", 2, pipes[i], 1), 2);
    }
    CHECK_INT(pl_stream_take_fd(&ends.a), -1);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(pl_stream_peek(&ends.a, 2, &data, &size), PL_STREAM_OK);
        int fd = pl_stream_take_fd(&ends.a);
        CHECK_INT(write(pipes[i][1], i ? "2" : "1", 1), 1);
        char byte;
        CHECK_INT(read(fd, &byte, 1), 1);
        CHECK_INT(byte, i ? '2' : '1');
        close(fd);
        pl_stream_consume(&ends.a, 2);
    }
    for (int i = 0; i < 4; i++) close(pipes[i / 2][i % 2]);
    close_ends(&ends);
}

TEST(descriptors_that_nobody_takes_are_closed_and_too_many_end_the_connection)
{
    struct ends ends;
    const uint8_t *data;
    size_t size;
    int fds[PL_FDS_MAX] = { 0, 0, 0, 0 };
    open_ends(&ends);
    ends.a.with_fds = true;
    for (int i = 0; i < 2; i++) CHECK_INT(pl_fd_send(ends.b, "x", 1, fds, PL_FDS_MAX), 1);
    int r = pl_stream_peek(&ends.a, 2, &data, &size);
    CHECK_INT(r, -EPROTO);
    CHECK_CONTAINS(plait_error_text(), "descriptors");
    close_ends(&ends); /* the runner counts what is left */
}

TEST(descriptors_ride_on_the_first_byte_or_not_at_all)
{
    struct ends ends;
    struct iovec iov = { calloc(1, HUGE_SIZE), HUGE_SIZE };
    uint8_t got[3];
    int fds[PL_FDS_MAX], zero = 0;
    size_t count = PL_FDS_MAX;
    open_ends(&ends);
    CHECK_INT(pl_stream_write_fds(&ends.a, "abc", 3, &zero, 1), PL_STREAM_OK);
    CHECK_INT(pl_fd_receive(ends.b, got, 3, fds, &count), 3);
    CHECK_INT(count, 1);
    close(fds[0]);
    CHECK_INT(pl_stream_write(&ends.a, &iov, 1, true), PL_STREAM_OK);
    CHECK(pl_stream_pending(&ends.a));
    CHECK_INT(pl_stream_write_fds(&ends.a, "abc", 3, &zero, 1), PL_STREAM_FULL);
    free(iov.iov_base);
    close_ends(&ends);
}
