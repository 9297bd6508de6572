/* frame: the 32-byte head of every message of the plait framing, on every transport.
 *
 * Little-endian:  u32 size  u8 kind  u8 encoding  u8 flags  u8 reserved (0)
 *                 u32 method or status  u32 time left (10 µs; 0: none)  u64 call id  u64 trace id
 * `size` counts the payload behind the head, in a ring as on a stream. Heads are copied out of
 * foreign memory, then checked, then used: decode takes bytes and gives a struct.
 */
#ifndef PL_WIRE_FRAME_H
#define PL_WIRE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PL_FRAME_HEAD = 32 };

enum pl_frame_kind {
    PL_FRAME_CALL = 1,      /* method; answered by a REPLY of the same call id */
    PL_FRAME_SEND = 2,      /* method; never answered */
    PL_FRAME_REPLY = 3,     /* status */
    PL_FRAME_CANCEL = 4,    /* call id; no payload */
    PL_FRAME_GOAWAY = 5,    /* payload u64: how many CALL and SEND frames of this connection are taken */
    PL_FRAME_PAD = 6,       /* skipped with its payload; rings only; ours skip by themselves */
    PL_FRAME_SEGMENT = 7,   /* rides on the socket with a descriptor; payload: pl_frame_segment */
    PL_FRAME_BODY = 8,      /* on the socket: the payload of the ring's frame with the flag SOCKET */
    PL_FRAME_SUBSCRIBE = 9, /* method: PL_SUBSCRIBE_; call: how much history, or the number to go on with, and then
                               trace: the instance that counted it; no payload */
    PL_FRAME_MESSAGE = 10,  /* of a topic; call: its number; trace: when it was published, ns of Unix time */
    PL_FRAME_DROPPED = 11,  /* method: after how many ms the publisher went on without its subscriber; no payload */
    PL_FRAME_KINDS
};

enum {
    PL_FRAME_IGNORABLE = 1,  /* skip the frame if its kind is unknown */
    PL_FRAME_IDEMPOTENT = 2, /* the call may run twice */
    PL_FRAME_IN_SEGMENT = 4, /* payload is a pl_frame_segment that says where the body lies */
    PL_FRAME_ON_SOCKET = 8,  /* payload is a u64 size; the body follows on the socket as BODY */
    PL_FRAME_NAMED = 16,     /* the body begins with u8 length and the method's name: for servers that take any */
    PL_FRAME_FLAGS = 31
};
enum {
    PL_SUBSCRIBE_GATES = 1,   /* a reliable publisher waits for this subscriber */
    PL_SUBSCRIBE_GO_ON = 2,   /* call is a number, not a history */
    PL_SUBSCRIBE_RELIABLE = 4 /* refuse me if you aren't reliable */
};
#define PL_METHOD_DEFAULT UINT32_MAX /* in `method`: the caller names none, or NAMED does */

/* Statuses of a reply. 1 to 0x7fffffff are the handler's own; above are the library's. */
enum pl_status {
    PL_STATUS_OK = 0,
    PL_STATUS_NO_METHOD = 0x80000001, /* -EOPNOTSUPP */
    PL_STATUS_NO_REPLY = 0x80000002,  /* -EREMOTEIO: handler neither replied nor deferred */
    PL_STATUS_TOO_LATE = 0x80000003,  /* -ETIMEDOUT: its time was over before it ran */
    PL_STATUS_BUSY = 0x80000004,      /* -EBUSY: a bound of the server, named in the text */
    PL_STATUS_TOO_LARGE = 0x80000005, /* -EMSGSIZE */
    PL_STATUS_CANCELLED = 0x80000006, /* -ECANCELED */
    PL_STATUS_GONE = 0x80000007       /* -ECONNRESET: the server ended before it answered */
};

struct pl_frame {
    uint32_t size;
    uint8_t kind, encoding, flags;
    uint32_t method; /* or status */
    uint32_t time_left;
    uint64_t call;
    uint64_t trace;
};

struct pl_frame_segment { /* 16 bytes on the wire: u32 id, u32 generation, u64 size */
    uint32_t id, generation;
    uint64_t size;
};
enum { PL_FRAME_SEGMENT_SIZE = 16 };

void pl_frame_encode(uint8_t head[PL_FRAME_HEAD], const struct pl_frame *frame);

/* Decodes a head that the caller copied out. 0; PL_FRAME_SKIP: unknown kind, ignorable (the
 * frame's size is valid: skip it); -EPROTO with text: unknown kind that isn't, unknown flags or
 * encoding, reserved byte set, a size above MAX_SIZE where PAD is exempt, a payload of another size than
 * the kind or flag says (CANCEL, SUBSCRIBE and DROPPED 0, GOAWAY 8, SEGMENT and IN_SEGMENT 16, ON_SOCKET 8), IN_SEGMENT
 * or ON_SOCKET on what isn't CALL, SEND or REPLY, or both, NAMED on what isn't CALL or SEND. Kind 0 is never a kind. Of
 * an unknown kind only the size is judged. */
enum { PL_FRAME_SKIP = 1 };
int pl_frame_decode(struct pl_frame *ret_frame, const uint8_t head[PL_FRAME_HEAD], uint64_t max_size);

void pl_frame_segment_encode(uint8_t bytes[PL_FRAME_SEGMENT_SIZE], const struct pl_frame_segment *segment);
void pl_frame_segment_decode(struct pl_frame_segment *ret_segment, const uint8_t bytes[PL_FRAME_SEGMENT_SIZE]);

static inline uint64_t pl_frame_load_u64(const uint8_t *bytes)
{
    uint64_t value;
    __builtin_memcpy(&value, bytes, sizeof(value));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    return value;
}

static inline void pl_frame_store_u64(uint8_t *bytes, uint64_t value)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    __builtin_memcpy(bytes, &value, sizeof(value));
}

/* Milliseconds or deadline to the frame's 10 µs field, and back. 0 stays "none": a time that is
 * almost over becomes 1; more than the field holds becomes 0 (11.9 h; the client's own clock rules). */
uint32_t pl_frame_time_left(uint64_t now_ns, uint64_t deadline_ns);
uint64_t pl_frame_deadline(uint64_t now_ns, uint32_t time_left);

/* The errno and the words for a library status (>= 0x80000000); 0 / NULL if it isn't one we know. */
int pl_status_errno(uint32_t status);
const char *pl_status_text(uint32_t status);

#endif
