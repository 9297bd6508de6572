/* framing: where a message ends on a stream that knows nothing of plait.
 *
 * The verdict on a stream depends on its bytes alone, not on how they were cut into pieces (raw is
 * the exception: there the piece is the message), and a limit is judged as soon as it is passed.
 */
#include "wire/framing.h"
#include "base/error.h"
#include <errno.h>
#include <string.h>

enum { LENGTH_HEAD = 4 };

static int too_large(enum pl_framing framing, size_t max_message)
{
    return pl_error(-EMSGSIZE, "a message of framing=%s is larger than %zu bytes: send less, or raise max_message=",
                    pl_framing_name(framing), max_message);
}

static int message(struct pl_framing_message *ret_message, size_t offset, size_t size, size_t consumed)
{
    *ret_message = (struct pl_framing_message){ .offset = offset, .size = size, .consumed = consumed };
    return PL_FRAMING_MESSAGE;
}

static int more(struct pl_framing_message *ret_message, size_t need)
{
    *ret_message = (struct pl_framing_message){ .need = need };
    return PL_FRAMING_MORE;
}

static int decode_raw(size_t size, bool eof, size_t max_message, struct pl_framing_message *ret_message)
{
    if (size == 0) return eof ? PL_FRAMING_END : more(ret_message, 0);
    if (size > max_message) return too_large(PL_FRAMING_RAW, max_message);
    return message(ret_message, 0, size, size);
}

static int decode_lines(const uint8_t *bytes, size_t size, bool eof, size_t max_message, size_t *scanned,
                        struct pl_framing_message *ret_message)
{
    /* The newline of a line within the limit lies in the first max_message + 2 bytes ("\r\n"). */
    size_t window = size > max_message && size - max_message > 2 ? max_message + 2 : size;
    const uint8_t *newline = NULL;
    if (*scanned > window) *scanned = window;
    if (window > *scanned) newline = memchr(bytes + *scanned, '\n', window - *scanned);

    if (newline != NULL) {
        size_t line = (size_t)(newline - bytes), body = line;
#ifdef PLAIT_PLANT_BUG /* what fuzz_framing must find: a look at what lies before an empty line */
        if (bytes[body - 1] == '\r') body--;
#else
        if (body > 0 && bytes[body - 1] == '\r') body--;
#endif
        if (body > max_message) return too_large(PL_FRAMING_LINES, max_message);
        *scanned = 0;
        return message(ret_message, 0, body, line + 1);
    }
    *scanned = window;
    /* One byte above the limit may still be the '\r' of the newline to come. */
    bool perhaps_return = !eof && size > max_message && size - max_message == 1 && bytes[size - 1] == '\r';
    if (size > max_message && !perhaps_return) return too_large(PL_FRAMING_LINES, max_message);
    if (!eof) return more(ret_message, 0);
    if (size == 0) return PL_FRAMING_END;
    *scanned = 0;
    return message(ret_message, 0, size, size);
}

static int decode_length(const uint8_t *bytes, size_t size, bool eof, size_t max_message,
                         struct pl_framing_message *ret_message)
{
    if (size == 0 && eof) return PL_FRAMING_END;
    if (size < LENGTH_HEAD && !eof) return more(ret_message, LENGTH_HEAD - size);
    if (size < LENGTH_HEAD)
        return pl_error(-EPROTO,
                        "the stream ended after %zu of the 4 bytes of a length: framing=length sends u32 "
                        "big-endian, then the message",
                        size);

    size_t body = (size_t)bytes[0] << 24 | (size_t)bytes[1] << 16 | (size_t)bytes[2] << 8 | bytes[3];
    if (body > max_message)
        return pl_error(-EMSGSIZE,
                        "a message of framing=length claims %zu bytes: at most %zu are taken here, raise "
                        "max_message= (or the peer doesn't send u32 big-endian lengths)",
                        body, max_message);
    size_t present = size - LENGTH_HEAD;
    if (present >= body) return message(ret_message, LENGTH_HEAD, body, LENGTH_HEAD + body);
    if (!eof) return more(ret_message, body - present);
    return pl_error(-EPROTO,
                    "the stream ended after %zu of the %zu bytes of a message of framing=length: the peer "
                    "closed too early or sent a wrong length",
                    present, body);
}

int pl_framing_decode(enum pl_framing framing, const uint8_t *bytes, size_t size, bool eof, size_t max_message,
                      size_t *scanned, struct pl_framing_message *ret_message)
{
    switch (framing) {
    case PL_FRAMING_RAW: return decode_raw(size, eof, max_message, ret_message);
    case PL_FRAMING_LINES: return decode_lines(bytes, size, eof, max_message, scanned, ret_message);
    case PL_FRAMING_LENGTH: return decode_length(bytes, size, eof, max_message, ret_message);
    case PL_FRAMING_PLAIT: break;
    }
    return pl_error(-EINVAL, "framing=plait has frames of its own: this decodes raw, lines and length");
}

static int wrap_line(const uint8_t *body, size_t size, struct pl_framing_wrap *ret_wrap)
{
    const uint8_t *newline = size > 0 ? memchr(body, '\n', size) : NULL;
    if (newline != NULL)
        return pl_error(-EINVAL,
                        "the message has a newline at byte %zu, which framing=lines takes for its end: use "
                        "framing=length or plait",
                        (size_t)(newline - body));
    if (size > 0 && body[size - 1] == '\r')
        return pl_error(-EINVAL, "the message ends with a carriage return, which framing=lines takes for a part of the "
                                 "newline: use framing=length or plait");
    *ret_wrap = (struct pl_framing_wrap){ .after = "\n", .after_size = 1 };
    return 0;
}

static int wrap_length(size_t size, struct pl_framing_wrap *ret_wrap)
{
    if (size > UINT32_MAX)
        return pl_error(-EMSGSIZE, "the message has %zu bytes: framing=length can say at most 4294967295", size);
    *ret_wrap = (struct pl_framing_wrap){
        .before = { (uint8_t)(size >> 24), (uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size },
        .before_size = LENGTH_HEAD,
        .after = "",
    };
    return 0;
}

int pl_framing_wrap(enum pl_framing framing, const void *body, size_t size, struct pl_framing_wrap *ret_wrap)
{
    switch (framing) {
    case PL_FRAMING_RAW: *ret_wrap = (struct pl_framing_wrap){ .after = "" }; return 0;
    case PL_FRAMING_LINES: return wrap_line(body, size, ret_wrap);
    case PL_FRAMING_LENGTH: return wrap_length(size, ret_wrap);
    case PL_FRAMING_PLAIT: break;
    }
    return pl_error(-EINVAL, "framing=plait has frames of its own: this wraps raw, lines and length");
}
