#include "transport/stream.h"

#include "base/clock.h"
#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { CHUNK = 16384 };

/* A reader that keeps up empties a socket in tens of microseconds: trying that long before copying
 * the rest of a large message is cheaper than the copy. */
enum { PATIENCE_NS = 50000 };

void pl_stream_init(struct pl_stream *stream, int fd)
{
    *stream = (struct pl_stream){ .fd = fd, .readable = true };
}

void pl_stream_deinit(struct pl_stream *stream)
{
    for (size_t i = 0; i < stream->fd_count; i++) pl_close(&stream->fds[i]);
    stream->fd_count = 0;
    pl_buffer_deinit(&stream->in);
    pl_buffer_deinit(&stream->out);
    stream->borrowed = NULL;
    stream->borrowed_size = 0;
    pl_close(&stream->fd);
}

/* Relaxed: a count that both halves keep; the owner compares two looks at it. */
static void count_moved(struct pl_stream *stream, ssize_t bytes)
{
    atomic_fetch_add_explicit(&stream->moved, (uint64_t)bytes, memory_order_relaxed);
}

/* ---- reading ---- */

static ssize_t receive_with_fds(struct pl_stream *stream, void *memory, size_t room)
{
    int fds[PL_FDS_MAX];
    size_t count = PL_FDS_MAX;
    ssize_t n = pl_fd_receive(stream->fd, memory, room, fds, &count);
    if (n < 0) return n;
    if (stream->fd_count + count > PL_FDS_MAX) {
        for (size_t i = 0; i < count; i++) pl_close(&fds[i]);
        return pl_error(-EPROTO, "the peer sent more than %d descriptors at once", PL_FDS_MAX);
    }
    memcpy(stream->fds + stream->fd_count, fds, count * sizeof(int));
    stream->fd_count += count;
    return n;
}

/* One recv into MEMORY; keeps `readable` and `eof`. Count, 0 for nothing now or the end, -errno. */
static ssize_t receive_once(struct pl_stream *stream, void *memory, size_t room)
{
    ssize_t n;
    if (stream->with_fds) {
        n = receive_with_fds(stream, memory, room);
    } else {
        do n = recv(stream->fd, memory, room, MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
        if (n < 0) n = -errno;
    }
    if (n == -EAGAIN) {
        stream->readable = false;
        return 0;
    }
    if (n < 0) return n == -EPROTO ? n : pl_error((int)n, "receive: %s", pl_error_word((int)n));
    if (n == 0) stream->eof = true;
    stream->came += (uint64_t)n;
    count_moved(stream, n);
    /* With descriptors a recvmsg may end early at the message that carries them. */
    if ((size_t)n < room && !stream->with_fds) stream->readable = false;
    return n;
}

int pl_stream_peek(struct pl_stream *stream, size_t min, const uint8_t **ret_data, size_t *ret_size)
{
    int r = PL_STREAM_OK;
    while (pl_buffer_size(&stream->in) < min) {
        if (stream->eof) {
            r = PL_STREAM_END;
            break;
        }
        if (!stream->readable) {
            r = PL_STREAM_EMPTY;
            break;
        }
        size_t missing = min - pl_buffer_size(&stream->in);
        int e = pl_buffer_reserve(&stream->in, missing > CHUNK ? missing : CHUNK);
        if (e < 0) return e;
        ssize_t n = receive_once(stream, pl_buffer_tail(&stream->in), pl_buffer_room(&stream->in));
        if (n < 0) return (int)n;
        stream->in.end += (size_t)n;
    }
    *ret_data = pl_buffer_data(&stream->in);
    *ret_size = pl_buffer_size(&stream->in);
    return r;
}

bool pl_stream_look(struct pl_stream *stream)
{
    const uint8_t *data;
    size_t size;
    if (stream->readable || stream->eof) return true;
    stream->readable = true;
    return pl_stream_peek(stream, pl_buffer_size(&stream->in) + 1, &data, &size) != PL_STREAM_EMPTY;
}

void pl_stream_consume(struct pl_stream *stream, size_t size)
{
    pl_buffer_consume(&stream->in, size);
}

ssize_t pl_stream_read(struct pl_stream *stream, void *memory, size_t size)
{
    size_t buffered = pl_buffer_size(&stream->in);
    if (buffered > 0) {
        size_t n = buffered < size ? buffered : size;
        memcpy(memory, pl_buffer_data(&stream->in), n);
        pl_buffer_consume(&stream->in, n);
        return (ssize_t)n;
    }
    if (!stream->eof && stream->readable) {
        ssize_t n = receive_once(stream, memory, size);
        if (n != 0) return n;
    }
    return stream->eof ? -EPIPE : 0;
}

int pl_stream_take_fd(struct pl_stream *stream)
{
    if (stream->fd_count == 0) return -1;
    int fd = stream->fds[0];
    stream->fd_count--;
    memmove(stream->fds, stream->fds + 1, stream->fd_count * sizeof(int));
    return fd;
}

void pl_stream_trim(struct pl_stream *stream)
{
    if (stream->in.memory != NULL && pl_buffer_size(&stream->in) == 0) pl_buffer_deinit(&stream->in);
}

/* ---- writing ---- */

static ssize_t write_some(struct pl_stream *stream, const struct iovec *iov, int count)
{
    struct msghdr message = { .msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)count };
    ssize_t n;
    do n = sendmsg(stream->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n >= 0) {
        count_moved(stream, n);
        return n;
    }
    if (errno == EAGAIN) return 0;
    return pl_error(-errno, "send: %s", pl_error_word(errno));
}

/* What is left of IOV behind its first DONE bytes goes to `out`, the last element perhaps to `borrowed`. */
static int keep_rest(struct pl_stream *stream, const struct iovec *iov, int count, size_t done, bool borrow)
{
    int r = 0;
    for (int i = 0; i < count; i++) {
        if (done >= iov[i].iov_len) {
            done -= iov[i].iov_len;
            continue;
        }
        const uint8_t *rest = (const uint8_t *)iov[i].iov_base + done;
        size_t size = iov[i].iov_len - done;
        done = 0;
        if (borrow && i == count - 1) {
            stream->borrowed = rest;
            stream->borrowed_size = size;
        } else {
            r = pl_buffer_append(&stream->out, rest, size);
            if (r < 0) break;
        }
    }
    if (r == 0) return PL_STREAM_OK;
    /* A piece of the message may be out: nothing that follows it would be understood. */
    (void)shutdown(stream->fd, SHUT_RDWR);
    return pl_error(-ECONNABORTED, "no memory to keep what the socket doesn't take yet: the connection ends");
}

static size_t total_size(const struct iovec *iov, int count)
{
    size_t total = 0;
    for (int i = 0; i < count; i++) total += iov[i].iov_len;
    return total;
}

/* The body of a large message, while the reader keeps up. Bytes of IOV sent in all, or -errno. */
static ssize_t write_patiently(struct pl_stream *stream, const struct iovec *iov, int count, size_t done, size_t total)
{
    uint64_t patience = pl_ticks_of_ns(PATIENCE_NS), since = pl_ticks();
    while (done < total && pl_ticks() - since < patience) {
        struct iovec rest = { NULL, 0 };
        size_t skip = done;
        for (int i = 0; i < count && rest.iov_len == 0; i++) {
            if (skip < iov[i].iov_len)
                rest = (struct iovec){ (uint8_t *)iov[i].iov_base + skip, iov[i].iov_len - skip };
            else skip -= iov[i].iov_len;
        }
        ssize_t n = write_some(stream, &rest, 1);
        if (n < 0) return n;
        if (n > 0) since = pl_ticks();
        else pl_pause();
        done += (size_t)n;
    }
    return (ssize_t)done;
}

int pl_stream_write(struct pl_stream *stream, const struct iovec *iov, int count, bool borrow)
{
    if (pl_stream_pending(stream)) {
        if (stream->borrowed_size || pl_buffer_size(&stream->out) > PL_STREAM_PENDING_MAX) return PL_STREAM_FULL;
        int r = keep_rest(stream, iov, count, 0, borrow);
        if (r < 0) return r;
        r = pl_stream_flush(stream);
        return r < 0 ? r : PL_STREAM_OK;
    }
    ssize_t n = write_some(stream, iov, count);
    if (n < 0) return (int)n;
    size_t total = total_size(iov, count);
    if (__builtin_expect((size_t)n == total, 1)) return PL_STREAM_OK;
    if (!borrow && total > PL_STREAM_PENDING_MAX / 4 && pl_cpu_online() > 1) {
        n = write_patiently(stream, iov, count, (size_t)n, total);
        if (n < 0) return (int)n;
        if ((size_t)n == total) return PL_STREAM_OK;
    }
    return keep_rest(stream, iov, count, (size_t)n, borrow);
}

int pl_stream_write_fds(struct pl_stream *stream, const void *data, size_t size, const int *fds, size_t count)
{
    if (pl_stream_pending(stream)) return PL_STREAM_FULL;
    ssize_t n = pl_fd_send(stream->fd, data, size, fds, count);
    if (n == -EAGAIN) return PL_STREAM_FULL;
    if (n < 0) return pl_error((int)n, "send: %s", pl_error_word((int)n));
    if ((size_t)n == size) return PL_STREAM_OK;
    int r = pl_buffer_append(&stream->out, (const uint8_t *)data + n, size - (size_t)n);
    return r < 0 ? r : PL_STREAM_OK;
}

int pl_stream_flush(struct pl_stream *stream)
{
    while (pl_buffer_size(&stream->out) > 0 || stream->borrowed_size > 0) {
        struct iovec iov[2];
        int count = 0;
        size_t own = pl_buffer_size(&stream->out);
        if (own > 0) iov[count++] = (struct iovec){ pl_buffer_data(&stream->out), own };
        if (stream->borrowed_size > 0) iov[count++] = (struct iovec){ (void *)stream->borrowed, stream->borrowed_size };
        ssize_t n = write_some(stream, iov, count);
        if (n < 0) return (int)n;
        if (n == 0) return PL_STREAM_FULL;
        size_t from_own = (size_t)n < own ? (size_t)n : own;
        pl_buffer_consume(&stream->out, from_own);
        if ((size_t)n > from_own) {
            stream->borrowed += (size_t)n - from_own;
            stream->borrowed_size -= (size_t)n - from_own;
        }
    }
    pl_buffer_deinit(&stream->out);
    stream->borrowed = NULL;
    return PL_STREAM_OK;
}

int pl_stream_own(struct pl_stream *stream)
{
    if (stream->borrowed_size == 0) return 0;
    int r = pl_buffer_append(&stream->out, stream->borrowed, stream->borrowed_size);
    if (r < 0) (void)shutdown(stream->fd, SHUT_RDWR); /* the owner takes it away: the message stays a piece */
    stream->borrowed = NULL;
    stream->borrowed_size = 0;
    return r;
}
