/* stream: a socket as two queues of bytes; what both plait frames and messages without ids stand on.
 *
 * Reading remembers whether the kernel's queue can hold more: after a short read nothing is read
 * again before epoll says so, which saves a system call per message. Writing takes everything or
 * nothing: what the kernel doesn't take at once waits in `out`, or, where the caller allows it, stays
 * in the caller's memory.
 */
#ifndef PL_TRANSPORT_STREAM_H
#define PL_TRANSPORT_STREAM_H

#include "base/buffer.h"
#include "base/fd.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

enum { PL_STREAM_OK = 0, PL_STREAM_EMPTY = 1, PL_STREAM_END = 2, PL_STREAM_FULL = 3 };
enum { PL_STREAM_PENDING_MAX = 262144 }; /* bytes waiting to be written above which nothing more is taken */

struct pl_stream {
    int fd;
    bool readable, eof;
    _Atomic uint64_t moved; /* bytes read and written, by a thread each */
    uint64_t came;          /* of those, read */
    bool with_fds;          /* descriptors ride on the bytes */
    int fds[PL_FDS_MAX];
    size_t fd_count;
    struct pl_buffer in, out;
    const uint8_t *borrowed; /* behind `out`, in the caller's memory */
    size_t borrowed_size;
};

void pl_stream_init(struct pl_stream *stream, int fd); /* takes FD; must be nonblocking */
void pl_stream_deinit(struct pl_stream *stream);       /* idempotent */

/* At least MIN contiguous bytes: 0; EMPTY: fewer so far; END: fewer, and no more will come. *ret_data and
 * *ret_size are set in each case. -errno: the connection is over. */
int pl_stream_peek(struct pl_stream *stream, size_t min, const uint8_t **ret_data, size_t *ret_size);
/* Tries to read more than is buffered, whatever epoll said: true if something, or the end, came. */
bool pl_stream_look(struct pl_stream *stream);
void pl_stream_consume(struct pl_stream *stream, size_t size);

/* Up to SIZE bytes straight into MEMORY: count, 0 nothing now, -EPIPE no more will come, -errno. */
ssize_t pl_stream_read(struct pl_stream *stream, void *memory, size_t size);

/* The oldest descriptor that came, the caller's from then on; -1: none. */
int pl_stream_take_fd(struct pl_stream *stream);

/* All of IOV or nothing: 0, FULL, -errno. BORROW: the last element may stay the caller's (see own). */
int pl_stream_write(struct pl_stream *stream, const struct iovec *iov, int count, bool borrow);

/* SIZE bytes with COUNT descriptors (borrowed) riding on the first: 0, FULL (not sent: nothing may be pending), -errno.
 */
int pl_stream_write_fds(struct pl_stream *stream, const void *data, size_t size, const int *fds, size_t count);

int pl_stream_flush(struct pl_stream *stream); /* 0, FULL, -errno */
int pl_stream_own(struct pl_stream *stream);   /* copies what is borrowed: 0, -ENOMEM */
static inline bool pl_stream_pending(const struct pl_stream *stream)
{
    return stream->borrowed_size != 0 || stream->out.end != stream->out.start;
}

/* Gives the input buffer's memory back if nothing is in it. */
void pl_stream_trim(struct pl_stream *stream);

#endif
