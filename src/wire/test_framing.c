/* Framings: the same messages however the stream is cut, limits judged at once, nothing read beyond. */
#include "base/error.h"
#include "wire/framing.h"
#include "wire/test_guard.h"
#include <errno.h>
#include <stdio.h>

enum { LIMIT = 8 };

static int decode(enum pl_framing framing, const void *bytes, size_t size, bool eof, struct pl_framing_message *message)
{
    size_t scanned = 0;
    pl_framing_decode(framing, guard_begin(bytes, size), size, eof, LIMIT, &scanned, message);
    scanned = 0;
    return pl_framing_decode(framing, guard_end(bytes, size), size, eof, LIMIT, &scanned, message);
}

/* Feeds STREAM in pieces of STEP bytes as a connection would and writes "[message]..." and the end into TEXT. */
static const char *transcript(enum pl_framing framing, const char *stream, size_t size, size_t step, char text[512])
{
    size_t start = 0, have = 0, scanned = 0, end = 0;
    for (;;) {
        bool eof = have == size;
        struct pl_framing_message message;
        const uint8_t *bytes = guard_end(stream + start, have - start);
        int r = pl_framing_decode(framing, bytes, have - start, eof, LIMIT, &scanned, &message);
        if (r == PL_FRAMING_MESSAGE) {
            end += (size_t)snprintf(text + end, 512 - end, "[%.*s]", (int)message.size, bytes + message.offset);
            CHECK(message.consumed > 0);
            CHECK(message.offset + message.size <= message.consumed);
            CHECK(message.consumed <= have - start);
            start += message.consumed;
        } else if (r == PL_FRAMING_MORE) {
            CHECK(!eof);
            CHECK(message.need <= LIMIT + 4);
            have = have + step < size ? have + step : size;
        } else {
            snprintf(text + end, 512 - end, "%s", r == PL_FRAMING_END ? "." : r == -EMSGSIZE ? "large" : "proto");
            return text;
        }
    }
}

static void check_stream(enum pl_framing framing, const char *stream, size_t size, const char *expected)
{
    char text[512];
    for (size_t step = 1; step <= size + 1; step++) CHECK_STR(transcript(framing, stream, size, step, text), expected);
}

#define CHECK_LINES(stream, expected) check_stream(PL_FRAMING_LINES, stream, sizeof(stream) - 1, expected)
#define CHECK_LENGTH(stream, expected) check_stream(PL_FRAMING_LENGTH, stream, sizeof(stream) - 1, expected)

TEST(lines_end_with_a_newline_wherever_the_stream_is_cut)
{
    CHECK_LINES("", ".");
    CHECK_LINES("one\ntwo\n", "[one][two].");
    CHECK_LINES("one\r\ntwo\r\n", "[one][two].");
    CHECK_LINES("\n\r\n\n", "[][][].");
    CHECK_LINES("a\rb\n", "[a\rb].");
    CHECK_LINES("a\r\r\n", "[a\r].");
}

TEST(the_last_line_may_lack_its_newline)
{
    CHECK_LINES("one\ntwo", "[one][two].");
    CHECK_LINES("one", "[one].");
    CHECK_LINES("12345678", "[12345678].");
}

TEST(a_line_above_the_limit_is_refused_as_soon_as_it_is_seen)
{
    CHECK_LINES("12345678\n", "[12345678].");
    CHECK_LINES("12345678\r\nx", "[12345678][x].");
    CHECK_LINES("123456789\n", "large");
    CHECK_LINES("123456789", "large");
    CHECK_LINES("12345678\r", "large");
    CHECK_LINES("12345678\rx\n", "large");
    CHECK_LINES("ok\n1234567890123456789\n", "[ok]large");
    struct pl_framing_message message;
    CHECK_INT(decode(PL_FRAMING_LINES, "12345678\r", 9, false, &message), PL_FRAMING_MORE);
    CHECK_INT(decode(PL_FRAMING_LINES, "123456789", 9, false, &message), -EMSGSIZE);
    CHECK_STR(pl_error_text(), "a message of framing=lines is larger than 8 bytes: send less, or raise max_message=");
}

TEST(a_newline_is_looked_for_once_per_byte)
{
    static uint8_t bytes[GUARD_ROOM];
    struct pl_framing_message message;
    size_t scanned = 0;
    memset(bytes, 'x', sizeof(bytes));
    CHECK_INT(pl_framing_decode(PL_FRAMING_LINES, bytes, 1000, false, GUARD_ROOM, &scanned, &message), PL_FRAMING_MORE);
    CHECK_INT(scanned, 1000);
    /* What was looked at isn't read again: put a newline there and it isn't found. */
    bytes[500] = '\n';
    CHECK_INT(pl_framing_decode(PL_FRAMING_LINES, bytes, 2000, false, GUARD_ROOM, &scanned, &message), PL_FRAMING_MORE);
    CHECK_INT(scanned, 2000);
    bytes[2000] = '\n';
    CHECK_INT(pl_framing_decode(PL_FRAMING_LINES, bytes, 2001, false, GUARD_ROOM, &scanned, &message),
              PL_FRAMING_MESSAGE);
    CHECK_INT(message.size, 2000);
    CHECK_INT(scanned, 0);
}

TEST(a_wrong_memory_of_what_was_scanned_does_no_harm)
{
    struct pl_framing_message message;
    size_t scanned = 1000;
    CHECK_INT(pl_framing_decode(PL_FRAMING_LINES, guard_end("ab", 2), 2, false, LIMIT, &scanned, &message),
              PL_FRAMING_MORE);
    CHECK_INT(scanned, 2);
}

TEST(length_messages_come_out_wherever_the_stream_is_cut)
{
    CHECK_LENGTH("", ".");
    CHECK_LENGTH("\0\0\0\3abc\0\0\0\0\0\0\0\1x", "[abc][][x].");
    CHECK_LENGTH("\0\0\0\10"
                 "12345678",
                 "[12345678].");
}

TEST(a_length_stream_that_ends_inside_a_message_is_an_error)
{
    CHECK_LENGTH("\0", "proto");
    CHECK_LENGTH("\0\0\0", "proto");
    CHECK_LENGTH("\0\0\0\1a\0\0\0\2b", "[a]proto");
    CHECK_CONTAINS(pl_error_text(), "ended after 1 of the 2 bytes of a message");
}

TEST(a_claimed_length_is_judged_before_its_bytes_come)
{
    struct pl_framing_message message = { .size = 4711 };
    CHECK_LENGTH("\0\0\0\11"
                 "123456789",
                 "large");
    CHECK_INT(decode(PL_FRAMING_LENGTH, "\xff\xff\xff\xff", 4, false, &message), -EMSGSIZE);
    CHECK_CONTAINS(pl_error_text(), "claims 4294967295 bytes: at most 8 are taken here, raise max_message=");
    CHECK_INT(decode(PL_FRAMING_LENGTH, "GET ", 4, false, &message), -EMSGSIZE);
    CHECK_INT(message.size, 4711);
}

TEST(length_tells_how_many_bytes_are_known_to_be_missing)
{
    struct pl_framing_message message;
    CHECK_INT(decode(PL_FRAMING_LENGTH, "", 0, false, &message), PL_FRAMING_MORE);
    CHECK_INT(message.need, 4);
    CHECK_INT(decode(PL_FRAMING_LENGTH, "\0\0", 2, false, &message), PL_FRAMING_MORE);
    CHECK_INT(message.need, 2);
    CHECK_INT(decode(PL_FRAMING_LENGTH, "\0\0\0\7abc", 7, false, &message), PL_FRAMING_MORE);
    CHECK_INT(message.need, 4);
}

TEST(a_raw_message_is_what_came_at_once)
{
    struct pl_framing_message message;
    CHECK_INT(decode(PL_FRAMING_RAW, "a\nb", 3, false, &message), PL_FRAMING_MESSAGE);
    CHECK_INT(message.offset, 0);
    CHECK_INT(message.size, 3);
    CHECK_INT(message.consumed, 3);
    CHECK_INT(decode(PL_FRAMING_RAW, "a", 1, true, &message), PL_FRAMING_MESSAGE);
    CHECK_INT(decode(PL_FRAMING_RAW, "", 0, false, &message), PL_FRAMING_MORE);
    CHECK_INT(decode(PL_FRAMING_RAW, "", 0, true, &message), PL_FRAMING_END);
    CHECK_INT(decode(PL_FRAMING_RAW, "12345678", 8, false, &message), PL_FRAMING_MESSAGE);
    CHECK_INT(decode(PL_FRAMING_RAW, "123456789", 9, false, &message), -EMSGSIZE);
    CHECK_CONTAINS(pl_error_text(), "framing=raw is larger than 8 bytes");
}

/* Wraps BODY and decodes what would stand on the wire: the same body. */
static void check_wrapped(enum pl_framing framing, const char *body, size_t size)
{
    struct pl_framing_wrap wrap;
    struct pl_framing_message message;
    char wire[64];
    CHECK_INT(pl_framing_wrap(framing, guard_end(body, size), size, &wrap), 0);
    CHECK(wrap.before_size <= 4 && wrap.after_size <= 1);
    memcpy(wire, wrap.before, wrap.before_size);
    memcpy(wire + wrap.before_size, body, size);
    memcpy(wire + wrap.before_size + size, wrap.after, wrap.after_size);
    CHECK_INT(decode(framing, wire, wrap.before_size + size + wrap.after_size, false, &message), PL_FRAMING_MESSAGE);
    CHECK_INT(message.size, size);
    CHECK_INT(message.consumed, wrap.before_size + size + wrap.after_size);
    CHECK_MEM(wire + message.offset, body, size);
}

TEST(what_is_wrapped_is_what_is_decoded)
{
    check_wrapped(PL_FRAMING_RAW, "abc", 3);
    check_wrapped(PL_FRAMING_LINES, "", 0);
    check_wrapped(PL_FRAMING_LINES, "a\rc", 3);
    check_wrapped(PL_FRAMING_LENGTH, "", 0);
    check_wrapped(PL_FRAMING_LENGTH, "a\n\0\r", 4);
}

TEST(lines_refuse_what_would_not_come_out_as_it_went_in)
{
    struct pl_framing_wrap wrap = { .before_size = 3 };
    CHECK_INT(pl_framing_wrap(PL_FRAMING_LINES, "ab\nc", 4, &wrap), -EINVAL);
    CHECK_CONTAINS(pl_error_text(), "newline at byte 2");
    CHECK_CONTAINS(pl_error_text(), "use framing=length or plait");
    CHECK_INT(pl_framing_wrap(PL_FRAMING_LINES, "ab\r", 3, &wrap), -EINVAL);
    CHECK_CONTAINS(pl_error_text(), "carriage return");
    CHECK_INT(wrap.before_size, 3);
}

TEST(length_says_at_most_32_bits)
{
    struct pl_framing_wrap wrap;
    CHECK_INT(pl_framing_wrap(PL_FRAMING_LENGTH, NULL, 0, &wrap), 0);
    CHECK_INT(pl_framing_wrap(PL_FRAMING_LENGTH, "", UINT32_MAX, &wrap), 0);
    CHECK_MEM(wrap.before, "\xff\xff\xff\xff", 4);
    CHECK_INT(pl_framing_wrap(PL_FRAMING_LENGTH, "", (size_t)UINT32_MAX + 1, &wrap), -EMSGSIZE);
    CHECK_CONTAINS(pl_error_text(), "at most 4294967295");
}

TEST(plait_frames_are_not_decoded_as_a_framing)
{
    struct pl_framing_wrap wrap;
    struct pl_framing_message message;
    CHECK_INT(decode(PL_FRAMING_PLAIT, "x", 1, false, &message), -EINVAL);
    CHECK_INT(pl_framing_wrap(PL_FRAMING_PLAIT, "x", 1, &wrap), -EINVAL);
}
