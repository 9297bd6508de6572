/* frame: the head's fields at fixed offsets, and what may stand in them.
 *
 * A head that decode accepts can be used as it is: its kind and flags are known, flags fit the
 * kind, and a payload that is itself a record (GOAWAY, SEGMENT, the flags) has that record's size.
 * Encoding what was decoded gives the same bytes.
 */
#include "wire/frame.h"
#include "base/error.h"
#include "wire/bytes.h"
#include <assert.h>
#include <errno.h>
#include <plait/plait.h>

enum {
    AT_SIZE = 0,
    AT_KIND = 4,
    AT_ENCODING = 5,
    AT_FLAGS = 6,
    AT_RESERVED = 7,
    AT_METHOD = 8,
    AT_TIME_LEFT = 12,
    AT_CALL = 16,
    AT_TRACE = 24
};
static_assert(AT_TRACE + 8 == PL_FRAME_HEAD, "the head's last field ends it");

enum { TIME_UNIT_NS = 10000 };

void pl_frame_encode(uint8_t head[PL_FRAME_HEAD], const struct pl_frame *frame)
{
    pl_store_u32(head + AT_SIZE, frame->size);
    head[AT_KIND] = frame->kind;
    head[AT_ENCODING] = frame->encoding;
    head[AT_FLAGS] = frame->flags;
    head[AT_RESERVED] = 0;
    pl_store_u32(head + AT_METHOD, frame->method);
    pl_store_u32(head + AT_TIME_LEFT, frame->time_left);
    pl_frame_store_u64(head + AT_CALL, frame->call);
    pl_frame_store_u64(head + AT_TRACE, frame->trace);
}

static const char *kind_name(uint8_t kind)
{
    static const char *const names[PL_FRAME_KINDS] = { "?",   "CALL",    "SEND", "REPLY",     "CANCEL",  "GOAWAY",
                                                       "PAD", "SEGMENT", "BODY", "SUBSCRIBE", "MESSAGE", "DROPPED" };
    return names[kind < PL_FRAME_KINDS ? kind : 0];
}

static int check_size(const struct pl_frame *frame, uint64_t max_size)
{
#ifdef PLAIT_PLANT_BUG /* what fuzz_frame must find: a claimed size is believed */
    return 0;
#endif
    if (frame->kind == PL_FRAME_PAD || frame->size <= max_size) return 0;
    return pl_error(-EPROTO, "the peer's frame claims %u bytes of payload: at most %llu are taken here (max_message)",
                    frame->size, (unsigned long long)max_size);
}

/* Flags that say where the body lies: only on kinds that have one, only one of them, and the
 * payload is then the record that the flag names. */
static int check_place(const struct pl_frame *frame)
{
    unsigned place = frame->flags & (PL_FRAME_IN_SEGMENT | PL_FRAME_ON_SOCKET);
    if (place == 0) return 0;
    if (frame->kind != PL_FRAME_CALL && frame->kind != PL_FRAME_SEND && frame->kind != PL_FRAME_REPLY)
        return pl_error(-EPROTO,
                        "the peer's %s frame has flags 0x%02x, which only messages have: it breaks the protocol",
                        kind_name(frame->kind), frame->flags);
    if (place == (PL_FRAME_IN_SEGMENT | PL_FRAME_ON_SOCKET))
        return pl_error(-EPROTO,
                        "the peer's %s frame says that its body lies both in a segment and on the socket: it "
                        "breaks the protocol",
                        kind_name(frame->kind));
    uint32_t record = place == PL_FRAME_IN_SEGMENT ? PL_FRAME_SEGMENT_SIZE : 8;
    if (frame->size == record) return 0;
    return pl_error(-EPROTO,
                    "the peer's %s frame says in %u bytes instead of %u where its body lies: it breaks the "
                    "protocol",
                    kind_name(frame->kind), frame->size, record);
}

/* Flags that say something of a request mean nothing elsewhere. */
static int check_named(const struct pl_frame *frame)
{
    bool request = frame->kind == PL_FRAME_CALL || frame->kind == PL_FRAME_SEND;
    if (request || !(frame->flags & PL_FRAME_NAMED)) return 0;
    return pl_error(-EPROTO,
                    "the peer's %s frame claims to name a method, which only CALL and SEND do: it breaks the protocol",
                    kind_name(frame->kind));
}

static int check_record(const struct pl_frame *frame)
{
    uint32_t record;
    switch (frame->kind) {
    case PL_FRAME_CANCEL:
    case PL_FRAME_SUBSCRIBE:
    case PL_FRAME_DROPPED: record = 0; break;
    case PL_FRAME_GOAWAY: record = 8; break;
    case PL_FRAME_SEGMENT: record = PL_FRAME_SEGMENT_SIZE; break;
    default: return 0;
    }
    if (frame->size == record) return 0;
    return pl_error(-EPROTO, "the peer's %s frame has a payload of %u bytes instead of %u: it breaks the protocol",
                    kind_name(frame->kind), frame->size, record);
}

static int check_known(const struct pl_frame *frame, uint8_t reserved)
{
    if (frame->flags & ~PL_FRAME_FLAGS)
        return pl_error(-EPROTO, "the peer's %s frame has unknown flags 0x%02x: it breaks protocol 1",
                        kind_name(frame->kind), frame->flags & ~PL_FRAME_FLAGS);
    if (frame->encoding > PLAIT_ARRAY)
        return pl_error(-EPROTO, "the peer's %s frame has the unknown encoding %u: protocol 1 has 0 to %d",
                        kind_name(frame->kind), frame->encoding, PLAIT_ARRAY);
    if (reserved != 0)
        return pl_error(-EPROTO, "the peer's %s frame has 0x%02x in its reserved byte: protocol 1 has 0 there",
                        kind_name(frame->kind), reserved);
    return 0;
}

/* What most frames are: messages of which no check below has anything to say. */
static bool is_plain(const struct pl_frame *frame, uint8_t reserved, uint64_t max_size)
{
    bool message = frame->kind == PL_FRAME_CALL || frame->kind == PL_FRAME_SEND || frame->kind == PL_FRAME_REPLY;
    unsigned odd = (frame->flags & ~(unsigned)PL_FRAME_IDEMPOTENT) | reserved;
    return message && odd == 0 && frame->encoding <= PLAIT_ARRAY && frame->size <= max_size;
}

int pl_frame_decode(struct pl_frame *ret_frame, const uint8_t head[PL_FRAME_HEAD], uint64_t max_size)
{
    struct pl_frame frame = {
        .size = pl_load_u32(head + AT_SIZE),
        .kind = head[AT_KIND],
        .encoding = head[AT_ENCODING],
        .flags = head[AT_FLAGS],
        .method = pl_load_u32(head + AT_METHOD),
        .time_left = pl_load_u32(head + AT_TIME_LEFT),
        .call = pl_frame_load_u64(head + AT_CALL),
        .trace = pl_frame_load_u64(head + AT_TRACE),
    };
    if (__builtin_expect(is_plain(&frame, head[AT_RESERVED], max_size), 1)) {
        *ret_frame = frame;
        return 0;
    }

    /* Kind 0 is no kind, also with the flag: memory full of zeros, or of one bit, is not a frame. */
    bool known = frame.kind > 0 && frame.kind < PL_FRAME_KINDS;
    if (!known && (frame.kind == 0 || !(frame.flags & PL_FRAME_IGNORABLE)))
        return pl_error(-EPROTO,
                        "the peer sent a frame of unknown kind %u: it doesn't speak protocol 1, or sent garbage",
                        frame.kind);

    int r = check_size(&frame, max_size);
    if (r == 0 && known) r = check_known(&frame, head[AT_RESERVED]);
    if (r == 0 && known) r = check_record(&frame);
    if (r == 0 && known) r = check_place(&frame);
    if (r == 0 && known) r = check_named(&frame);
    if (r < 0) return r;

    *ret_frame = frame;
    return known ? 0 : PL_FRAME_SKIP;
}

void pl_frame_segment_encode(uint8_t bytes[PL_FRAME_SEGMENT_SIZE], const struct pl_frame_segment *segment)
{
    pl_store_u32(bytes, segment->id);
    pl_store_u32(bytes + 4, segment->generation);
    pl_frame_store_u64(bytes + 8, segment->size);
}

void pl_frame_segment_decode(struct pl_frame_segment *ret_segment, const uint8_t bytes[PL_FRAME_SEGMENT_SIZE])
{
    ret_segment->id = pl_load_u32(bytes);
    ret_segment->generation = pl_load_u32(bytes + 4);
    ret_segment->size = pl_frame_load_u64(bytes + 8);
}

uint32_t pl_frame_time_left(uint64_t now_ns, uint64_t deadline_ns)
{
    if (deadline_ns == UINT64_MAX) return 0;
    if (deadline_ns <= now_ns) return 1;
    uint64_t units = (deadline_ns - now_ns - 1) / TIME_UNIT_NS + 1;
    return units > UINT32_MAX ? 0 : (uint32_t)units;
}

uint64_t pl_frame_deadline(uint64_t now_ns, uint32_t time_left)
{
    uint64_t span = (uint64_t)time_left * TIME_UNIT_NS;
    if (time_left == 0 || now_ns > UINT64_MAX - span) return UINT64_MAX;
    return now_ns + span;
}

static const struct {
    uint32_t status;
    int code;
    const char *text;
} statuses[] = {
    { PL_STATUS_NO_METHOD, -EOPNOTSUPP, "no such method" },
    { PL_STATUS_NO_REPLY, -EREMOTEIO, "the handler neither replied nor deferred" },
    { PL_STATUS_TOO_LATE, -ETIMEDOUT, "its time was over before the server could run it" },
    { PL_STATUS_BUSY, -EBUSY, "the server is at one of its bounds" },
    { PL_STATUS_TOO_LARGE, -EMSGSIZE, "the message is too large" },
    { PL_STATUS_CANCELLED, -ECANCELED, "cancelled" },
    { PL_STATUS_GONE, -ECONNRESET, "the server ended before it answered" },
};
enum { STATUSES = sizeof(statuses) / sizeof(statuses[0]) };

int pl_status_errno(uint32_t status)
{
    for (int i = 0; i < STATUSES; i++)
        if (statuses[i].status == status) return statuses[i].code;
    return 0;
}

const char *pl_status_text(uint32_t status)
{
    for (int i = 0; i < STATUSES; i++)
        if (statuses[i].status == status) return statuses[i].text;
    return NULL;
}
