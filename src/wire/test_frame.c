/* Frames: every field round, every lie refused with a text that names it. */
#include "base/error.h"
#include "wire/bytes.h"
#include "wire/frame.h"
#include "wire/test_guard.h"
#include <errno.h>
#include <plait/plait.h>

enum { LIMIT = 1 << 24 };

static int decode(struct pl_frame *frame, const uint8_t head[PL_FRAME_HEAD])
{
    return pl_frame_decode(frame, guard_end(head, PL_FRAME_HEAD), LIMIT);
}

/* Encodes FRAME, with byte AT set to VALUE if AT isn't negative, and decodes it. */
static int decode_altered(struct pl_frame frame, int at, uint8_t value)
{
    uint8_t head[PL_FRAME_HEAD];
    struct pl_frame decoded = { .size = 4711 }, untouched = decoded;
    pl_frame_encode(head, &frame);
    if (at >= 0) head[at] = value;
    int r = decode(&decoded, head);
    if (r < 0) CHECK_MEM(&decoded, &untouched, sizeof(decoded));
    return r;
}

TEST(every_kind_comes_back_as_it_was_encoded)
{
    static const uint32_t sizes[PL_FRAME_KINDS] = { [PL_FRAME_GOAWAY] = 8, [PL_FRAME_SEGMENT] = PL_FRAME_SEGMENT_SIZE };
    for (uint8_t kind = PL_FRAME_CALL; kind < PL_FRAME_KINDS; kind++) {
        struct pl_frame frame = { .size = sizes[kind],
                                  .kind = kind,
                                  .encoding = PLAIT_JSON,
                                  .flags = PL_FRAME_IDEMPOTENT,
                                  .method = 0x80000003,
                                  .time_left = 0x01020304,
                                  .call = 0x1122334455667788,
                                  .trace = 0x99aabbccddeeff00 };
        struct pl_frame decoded;
        uint8_t head[PL_FRAME_HEAD], again[PL_FRAME_HEAD];
        pl_frame_encode(head, &frame);
        CHECK_INT(decode(&decoded, head), 0);
        pl_frame_encode(again, &decoded);
        CHECK_MEM(again, head, PL_FRAME_HEAD);
        CHECK_INT(decoded.size, frame.size);
        CHECK_INT(decoded.kind, kind);
        CHECK_INT(decoded.encoding, PLAIT_JSON);
        CHECK_INT(decoded.flags, PL_FRAME_IDEMPOTENT);
        CHECK_INT(decoded.method, frame.method);
        CHECK_INT(decoded.time_left, frame.time_left);
        CHECK_INT(decoded.call, frame.call);
        CHECK_INT(decoded.trace, frame.trace);
    }
}

TEST(memory_of_zeros_is_no_frame)
{
    uint8_t zeros[PL_FRAME_HEAD] = { 0 };
    struct pl_frame frame;
    CHECK_INT(decode(&frame, zeros), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), "unknown kind 0");
    zeros[6] = PL_FRAME_IGNORABLE;
    CHECK_INT(decode(&frame, zeros), -EPROTO);
}

TEST(an_unknown_kind_is_skipped_only_if_it_is_ignorable)
{
    struct pl_frame frame = { .size = 12345, .kind = 77 };
    CHECK_INT(decode_altered(frame, -1, 0), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), "unknown kind 77");

    uint8_t head[PL_FRAME_HEAD];
    frame.flags = PL_FRAME_IGNORABLE | 0xc0; /* flags and fields of a later minor version are its own */
    frame.encoding = 200;
    pl_frame_encode(head, &frame);
    head[7] = 9;
    struct pl_frame decoded;
    CHECK_INT(decode(&decoded, head), PL_FRAME_SKIP);
    CHECK_INT(decoded.size, 12345);
    frame.size = LIMIT + 1;
    CHECK_INT(decode_altered(frame, -1, 0), -EPROTO);
}

TEST(a_size_above_the_limit_is_refused_but_for_padding)
{
    struct pl_frame frame = { .size = LIMIT, .kind = PL_FRAME_CALL };
    CHECK_INT(decode_altered(frame, -1, 0), 0);
    frame.size = LIMIT + 1;
    CHECK_INT(decode_altered(frame, -1, 0), -EPROTO);
    frame.size = UINT32_MAX;
    CHECK_INT(decode_altered(frame, -1, 0), -EPROTO);
    CHECK_CONTAINS(pl_error_text(),
                   "claims 4294967295 bytes of payload: at most 16777216 are taken here (max_message)");
    frame.kind = PL_FRAME_PAD;
    CHECK_INT(decode_altered(frame, -1, 0), 0);
}

TEST(unknown_flags_encodings_and_the_reserved_byte_are_refused)
{
    struct pl_frame frame = { .kind = PL_FRAME_CALL };
    for (unsigned value = 1; value < 256; value++) {
        bool known_flags = (value & ~(unsigned)(PL_FRAME_IGNORABLE | PL_FRAME_IDEMPOTENT | PL_FRAME_NAMED)) == 0;
        CHECK_INT(decode_altered(frame, 5, (uint8_t)value), value <= PLAIT_ARRAY ? 0 : -EPROTO);
        CHECK_INT(decode_altered(frame, 6, (uint8_t)value), known_flags ? 0 : -EPROTO);
        CHECK_INT(decode_altered(frame, 7, (uint8_t)value), -EPROTO);
    }
    CHECK_CONTAINS(pl_error_text(), "CALL frame has 0xff in its reserved byte");
    decode_altered(frame, 5, 4);
    CHECK_CONTAINS(pl_error_text(), "unknown encoding 4");
    decode_altered(frame, 6, 0x23);
    CHECK_CONTAINS(pl_error_text(), "unknown flags 0x20");
}

TEST(a_payload_that_is_a_record_has_the_records_size)
{
    static const struct {
        uint8_t kind, flags;
        uint32_t size;
    } records[] = {
        { PL_FRAME_CANCEL, 0, 0 },
        { PL_FRAME_GOAWAY, 0, 8 },
        { PL_FRAME_SEGMENT, 0, 16 },
        { PL_FRAME_CALL, PL_FRAME_IN_SEGMENT, 16 },
        { PL_FRAME_REPLY, PL_FRAME_ON_SOCKET, 8 },
    };
    for (size_t i = 0; i < sizeof(records) / sizeof(records[0]); i++) {
        struct pl_frame frame = { .kind = records[i].kind, .flags = records[i].flags };
        for (frame.size = 0; frame.size < 40; frame.size++)
            CHECK_INT(decode_altered(frame, -1, 0), frame.size == records[i].size ? 0 : -EPROTO);
    }
    struct pl_frame cancel = { .kind = PL_FRAME_CANCEL, .size = 3 };
    decode_altered(cancel, -1, 0);
    CHECK_CONTAINS(pl_error_text(), "CANCEL frame has a payload of 3 bytes instead of 0");
}

TEST(a_body_lies_in_one_place_and_only_messages_have_one)
{
    struct pl_frame frame = { .kind = PL_FRAME_CALL, .flags = PL_FRAME_IN_SEGMENT | PL_FRAME_ON_SOCKET, .size = 16 };
    CHECK_INT(decode_altered(frame, -1, 0), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), "both in a segment and on the socket");
    for (uint8_t kind = PL_FRAME_CANCEL; kind < PL_FRAME_KINDS; kind++) {
        struct pl_frame other = { .kind = kind, .flags = PL_FRAME_ON_SOCKET, .size = 8 };
        CHECK_INT(decode_altered(other, -1, 0), -EPROTO);
        other.flags = PL_FRAME_IN_SEGMENT;
        other.size = 16;
        CHECK_INT(decode_altered(other, -1, 0), -EPROTO);
    }
}

TEST(only_requests_name_their_method)
{
    static const uint32_t sizes[PL_FRAME_KINDS] = { [PL_FRAME_GOAWAY] = 8, [PL_FRAME_SEGMENT] = PL_FRAME_SEGMENT_SIZE };
    for (uint8_t kind = PL_FRAME_CALL; kind < PL_FRAME_KINDS; kind++) {
        struct pl_frame frame = { .kind = kind, .flags = PL_FRAME_NAMED, .size = sizes[kind] };
        CHECK_INT(decode_altered(frame, -1, 0), kind <= PL_FRAME_SEND ? 0 : -EPROTO);
    }
    CHECK_CONTAINS(pl_error_text(), "claims to name a method");
}

TEST(a_segment_record_comes_back_as_it_was_encoded)
{
    struct pl_frame_segment segment = { .id = 63, .generation = 0xfffffffe, .size = 0x123456789a }, decoded;
    uint8_t bytes[PL_FRAME_SEGMENT_SIZE];
    pl_frame_segment_encode(bytes, &segment);
    pl_frame_segment_decode(&decoded, guard_end(bytes, sizeof(bytes)));
    CHECK_INT(decoded.id, segment.id);
    CHECK_INT(decoded.generation, segment.generation);
    CHECK_INT(decoded.size, segment.size);
}

TEST(time_left_rounds_up_and_never_becomes_none_by_being_short)
{
    CHECK_INT(pl_frame_time_left(0, UINT64_MAX), 0);
    CHECK_INT(pl_frame_time_left(1000, 1000), 1);
    CHECK_INT(pl_frame_time_left(2000, 1000), 1);
    CHECK_INT(pl_frame_time_left(1000, 1001), 1);
    CHECK_INT(pl_frame_time_left(0, 10000), 1);
    CHECK_INT(pl_frame_time_left(0, 10001), 2);
    CHECK_INT(pl_frame_time_left(0, UINT64_C(30000000000)), 3000000);
    CHECK_INT(pl_frame_time_left(0, UINT64_C(10000) * UINT32_MAX), UINT32_MAX);
    CHECK_INT(pl_frame_time_left(0, UINT64_C(10000) * UINT32_MAX + 1), 0);
    CHECK_INT(pl_frame_time_left(0, UINT64_MAX - 1), 0);
}

TEST(a_deadline_without_time_left_is_never_and_none_wraps_round)
{
    CHECK(pl_frame_deadline(5, 0) == UINT64_MAX);
    CHECK_INT(pl_frame_deadline(5, 1), 10005);
    CHECK(pl_frame_deadline(UINT64_MAX - 9999, 1) == UINT64_MAX);
    CHECK(pl_frame_deadline(UINT64_MAX - 5, UINT32_MAX) == UINT64_MAX);
    CHECK(pl_frame_deadline(UINT64_MAX - 10000, 1) == UINT64_MAX);
}

TEST(library_statuses_have_errnos_and_words_and_others_have_none)
{
    CHECK_INT(pl_status_errno(PL_STATUS_NO_METHOD), -EOPNOTSUPP);
    CHECK_INT(pl_status_errno(PL_STATUS_NO_REPLY), -EREMOTEIO);
    CHECK_INT(pl_status_errno(PL_STATUS_TOO_LATE), -ETIMEDOUT);
    CHECK_INT(pl_status_errno(PL_STATUS_BUSY), -EBUSY);
    CHECK_INT(pl_status_errno(PL_STATUS_TOO_LARGE), -EMSGSIZE);
    CHECK_INT(pl_status_errno(PL_STATUS_CANCELLED), -ECANCELED);
    CHECK_INT(pl_status_errno(PL_STATUS_GONE), -ECONNRESET);
    for (uint32_t status = PL_STATUS_NO_METHOD; status <= PL_STATUS_GONE; status++)
        CHECK(pl_status_text(status) != NULL && pl_status_text(status)[0] != '\0');
    CHECK_INT(pl_status_errno(PL_STATUS_OK), 0);
    CHECK_INT(pl_status_errno(1), 0);
    CHECK_INT(pl_status_errno(PL_STATUS_GONE + 1), 0);
    CHECK(pl_status_text(0x80000000) == NULL);
    CHECK(pl_status_text(UINT32_MAX) == NULL);
}

TEST(words_are_little_endian_at_any_address)
{
    const uint8_t bytes[] = { 0xff, 1, 2, 3, 4, 5, 6, 7, 8 };
    uint8_t out[9] = { 0xff };
    CHECK_INT(pl_load_u16(bytes + 1), 0x0201);
    CHECK_INT(pl_load_u32(bytes + 1), 0x04030201);
    CHECK_INT(pl_load_u64(guard_end(bytes + 1, 8)), 0x0807060504030201);
    CHECK_INT(pl_frame_load_u64(guard_end(bytes + 1, 8)), 0x0807060504030201);
    pl_store_u64(out + 1, 0x0807060504030201);
    CHECK_MEM(out, bytes, 9);
    memset(out + 1, 0, 8);
    pl_frame_store_u64(out + 1, 0x0807060504030201);
    CHECK_MEM(out, bytes, 9);
}
