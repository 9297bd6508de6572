/* Property: lines and length give the same messages and the same end however the stream is cut, every
 * message lies inside the bytes given and within the limit, and what is wrapped is what is decoded.
 *
 * Input: framing, limit, size of the pieces (a byte each), then the stream. */
#include "fuzz_wire.h"
#include "wire/framing.h"

/* A stream as a connection sees it: fed in pieces, consumed message by message. */
struct feed {
    enum pl_framing framing;
    const uint8_t *stream;
    size_t size, step, limit;
    size_t start, have, scanned;
};

/* The next message of FEED; *ret_body is an offset into the stream. MESSAGE, END or an error. */
static int feed_next(struct feed *feed, size_t *ret_body, size_t *ret_size)
{
    for (;;) {
        struct pl_framing_message message;
        size_t given = feed->have - feed->start;
        bool eof = feed->have == feed->size;
        uint8_t *bytes = exact_copy(feed->stream + feed->start, given);
        int r = pl_framing_decode(feed->framing, bytes, given, eof, feed->limit, &feed->scanned, &message);
        free(bytes);
        if (r == PL_FRAMING_MORE) {
            REQUIRE(!eof && message.need <= feed->limit + 4);
            size_t left = feed->size - feed->have;
            feed->have += feed->step < left ? feed->step : left;
            continue;
        }
        if (r != PL_FRAMING_MESSAGE) return r;
        REQUIRE(message.consumed > 0 && message.consumed <= given);
        REQUIRE(message.offset <= message.consumed && message.size <= message.consumed - message.offset);
        REQUIRE(message.size <= feed->limit);
        *ret_body = feed->start + message.offset;
        *ret_size = message.size;
        feed->start += message.consumed;
        return r;
    }
}

static void wrap_and_decode(enum pl_framing framing, const uint8_t *body, size_t size)
{
    struct pl_framing_wrap wrap;
    struct pl_framing_message message;
    size_t scanned = 0;
    if (pl_framing_wrap(framing, body, size, &wrap) < 0) {
        REQUIRE(framing == PL_FRAMING_LINES && size > 0 && (memchr(body, '\n', size) || body[size - 1] == '\r'));
        return;
    }
    size_t total = wrap.before_size + size + wrap.after_size;
    uint8_t *bytes = malloc(total + 1);
    REQUIRE(bytes != NULL && wrap.before_size <= 4 && wrap.after_size <= 1);
    memcpy(bytes, wrap.before, wrap.before_size);
    if (size > 0) memcpy(bytes + wrap.before_size, body, size);
    memcpy(bytes + wrap.before_size + size, wrap.after, wrap.after_size);
    int r = pl_framing_decode(framing, bytes, total, false, size, &scanned, &message);
    REQUIRE(r == (total == 0 ? PL_FRAMING_MORE : PL_FRAMING_MESSAGE));
    if (total > 0) REQUIRE(message.consumed == total && message.size == size);
    if (total > 0 && size > 0) REQUIRE(memcmp(bytes + message.offset, body, size) == 0);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3 || size > 1000) return 0;
    enum pl_framing framing = (enum pl_framing)(PL_FRAMING_RAW + data[0] % 3);
    struct feed whole = { .framing = framing, .stream = data + 3, .size = size - 3, .limit = data[1] };
    struct feed pieces = whole;
    whole.step = size;
    pieces.step = data[2] % 16 + 1u;
    wrap_and_decode(framing, data + 3, size - 3);

    int r, s;
    do {
        size_t body = 0, body_size = 0, other = 0, other_size = 0;
        r = feed_next(&whole, &body, &body_size);
        s = feed_next(&pieces, &other, &other_size);
        if (framing == PL_FRAMING_RAW) continue; /* there the piece is the message */
        REQUIRE(r == s && body == other && body_size == other_size);
    } while (r == PL_FRAMING_MESSAGE && s == PL_FRAMING_MESSAGE);
    return 0;
}
