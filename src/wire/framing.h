/* framing: messages on a stream without ids: raw, lines, length. Pure: bytes in, verdict out.
 *
 * raw: a message is what one recv() gave. lines: bytes up to '\n' (a '\r' before it goes too; the last
 * line before EOF may lack it). length: u32 big-endian, then as many bytes.
 */
#ifndef PL_WIRE_FRAMING_H
#define PL_WIRE_FRAMING_H

#include "wire/url.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PL_FRAMING_MESSAGE = 0, PL_FRAMING_MORE = 1, PL_FRAMING_END = 2 };

struct pl_framing_message {
    size_t offset, size; /* the body inside the bytes given */
    size_t consumed;     /* the bytes that it took, delimiters included */
    size_t need;         /* with MORE: bytes known to be missing, 0 if unknown (length: to size a buffer
                            only as bytes come, never by the claim) */
};

/* Looks at BYTES; EOF: the peer will send no more. `scanned` is the caller's memory of how far a
 * newline was looked for already (0 at first; the function keeps it), so that a slow sender costs
 * linear time. PL_FRAMING_MESSAGE, MORE, END (EOF and nothing left), -EMSGSIZE (names the
 * limit and max_message=), -EPROTO (length: EOF inside a message). */
int pl_framing_decode(enum pl_framing framing, const uint8_t *bytes, size_t size, bool eof, size_t max_message,
                      size_t *scanned, struct pl_framing_message *ret_message);

/* What to put before and after BODY on the wire: at most 4 bytes before, 1 after. -EINVAL with text: a
 * newline inside a line, or a '\r' at its end, which the receiver would drop. -EMSGSIZE: above what the framing can
 * say. */
struct pl_framing_wrap {
    uint8_t before[4];
    size_t before_size;
    const char *after;
    size_t after_size;
};
int pl_framing_wrap(enum pl_framing framing, const void *body, size_t size, struct pl_framing_wrap *ret_wrap);

#endif
