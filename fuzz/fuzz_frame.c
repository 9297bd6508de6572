/* Property: a head that is accepted is within the limit (padding aside), says the same bytes when
 * encoded again, and its payload has the size of the record that its kind or flags announce.
 *
 * Input: u32 limit, then the head. */
#include "fuzz_wire.h"
#include "wire/frame.h"

static void require_consistent(const struct pl_frame *frame)
{
    REQUIRE(frame->kind > 0 && frame->kind < PL_FRAME_KINDS);
    REQUIRE((frame->flags & ~PL_FRAME_FLAGS) == 0);
    if (frame->kind == PL_FRAME_CANCEL) REQUIRE(frame->size == 0);
    if (frame->kind == PL_FRAME_GOAWAY) REQUIRE(frame->size == 8);
    if (frame->kind == PL_FRAME_SEGMENT) REQUIRE(frame->size == PL_FRAME_SEGMENT_SIZE);
    if (frame->flags & PL_FRAME_IN_SEGMENT)
        REQUIRE(frame->size == PL_FRAME_SEGMENT_SIZE && frame->kind <= PL_FRAME_REPLY);
    if (frame->flags & PL_FRAME_ON_SOCKET) REQUIRE(frame->size == 8 && frame->kind <= PL_FRAME_REPLY);
    if (frame->flags & PL_FRAME_NAMED) REQUIRE(frame->kind <= PL_FRAME_SEND);
}

static void round_segment(const uint8_t *bytes)
{
    struct pl_frame_segment segment;
    uint8_t again[PL_FRAME_SEGMENT_SIZE];
    pl_frame_segment_decode(&segment, bytes);
    pl_frame_segment_encode(again, &segment);
    REQUIRE(memcmp(again, bytes, sizeof(again)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t limit;
    if (size < sizeof(limit) + PL_FRAME_HEAD) return 0;
    memcpy(&limit, data, sizeof(limit));
    uint8_t *head = exact_copy(data + sizeof(limit), PL_FRAME_HEAD);

    struct pl_frame frame;
    int r = pl_frame_decode(&frame, head, limit);
    if (r >= 0) REQUIRE(frame.size <= limit || frame.kind == PL_FRAME_PAD);
    if (r == PL_FRAME_SKIP) REQUIRE(frame.kind >= PL_FRAME_KINDS && (frame.flags & PL_FRAME_IGNORABLE));
    if (r == 0) {
        uint8_t again[PL_FRAME_HEAD];
        require_consistent(&frame);
        pl_frame_encode(again, &frame);
        REQUIRE(memcmp(again, head, PL_FRAME_HEAD) == 0);
        REQUIRE(pl_frame_deadline(1, frame.time_left) > 1);
    }
    round_segment(head);
    free(head);
    return 0;
}
