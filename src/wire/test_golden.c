/* The wire of protocol 1.0, byte by byte. These bytes are frozen: a change here is a new major version,
 * or a mistake. Peers of one major version interoperate because of this file.
 */
#include "wire/frame.h"
#include "wire/framing.h"
#include "wire/hello.h"
#include "wire/test_guard.h"

/* Bytes as people read them: "50 4c 41 49". */
static const uint8_t *unhex(const char *text, size_t *ret_size)
{
    static uint8_t bytes[512];
    size_t size = 0;
    for (; *text != '\0'; text++) {
        if (*text == ' ') continue;
        unsigned byte = 0;
        for (int i = 0; i < 2; i++, text += i < 2)
            byte = byte << 4 | (unsigned)(*text <= '9' ? *text - '0' : *text - 'a' + 10);
        bytes[size++] = (uint8_t)byte;
    }
    *ret_size = size;
    return bytes;
}

static void check_bytes(const uint8_t *bytes, size_t size, const char *golden)
{
    size_t golden_size;
    const uint8_t *expected = unhex(golden, &golden_size);
    CHECK_INT(size, golden_size);
    CHECK_MEM(bytes, expected, size);
}

static const char golden_client[] = "50 4c 41 49  01 00  00 00  01 08 0c 00  10 00 00 00  03 00 00 00 00 00 00 00"
                                    "07  00 00 00 00 00 00 00  67 72 65 65 74 65 72";

TEST(the_client_hello_is_frozen)
{
    struct pl_hello_client hello = {
        .major = 1, .minor = 0, .abi = 0x000c0801, .features = 3, .max_reply = 16 << 20, .name = "greeter"
    };
    uint8_t bytes[PL_HELLO_CLIENT_MAX];
    check_bytes(bytes, pl_hello_client_encode(bytes, &hello), golden_client);

    struct pl_hello_client decoded;
    size_t size, consumed;
    const uint8_t *golden = unhex(golden_client, &size);
    CHECK_INT(pl_hello_client_decode(&decoded, golden, size, &consumed), PL_HELLO_OK);
    CHECK_INT(decoded.abi, 0x000c0801);
    CHECK_INT(decoded.features, 3);
    CHECK_INT(decoded.max_reply, 16 << 20);
    CHECK_STR(decoded.name, "greeter");
}

static const char golden_server[] = "50 4c 41 53  01 00  00 00  00 00 00 00  07 00 00 00  03 00 00 00 00 00 00 00"
                                    "88 77 66 55 44 33 22 11  00 00 00 40 00 00 00 00  39 30 00 00  00 04 00 00"
                                    "02 00 00 00  00 00 01 00  02 00 00 00  00 00 00 00"
                                    "00  05 67 72 65 65 74";

TEST(the_server_hello_is_frozen)
{
    struct pl_hello_server hello = { .major = 1,
                                     .minor = 0,
                                     .features = 3,
                                     .instance = 0x1122334455667788,
                                     .max_message = 1 << 30,
                                     .pid = 12345,
                                     .outstanding = 1024,
                                     .concurrency = 2,
                                     .ring_capacity = 65536,
                                     .method_count = 2,
                                     .tail = (const uint8_t *)"\0\5greet",
                                     .tail_size = 7 };
    uint8_t bytes[PL_HELLO_SERVER_HEAD + 7];
    pl_hello_server_encode(bytes, &hello);
    memcpy(bytes + PL_HELLO_SERVER_HEAD, hello.tail, 7);
    check_bytes(bytes, sizeof(bytes), golden_server);

    struct pl_hello_server decoded;
    size_t size, consumed;
    const uint8_t *golden = unhex(golden_server, &size);
    CHECK_INT(pl_hello_server_decode(&decoded, golden, size, &consumed), PL_HELLO_OK);
    CHECK_INT(decoded.instance, hello.instance);
    CHECK_INT(decoded.max_message, hello.max_message);
    CHECK_INT(decoded.pid, 12345);
    CHECK_INT(decoded.ring_capacity, 65536);
    CHECK_INT(decoded.method_count, 2);
}

TEST(a_refusing_server_hello_is_frozen)
{
    struct pl_hello_server hello = { .major = 1, .result = -2, .tail = (const uint8_t *)"gone", .tail_size = 4 };
    uint8_t bytes[PL_HELLO_SERVER_HEAD + 4];
    pl_hello_server_encode(bytes, &hello);
    memcpy(bytes + PL_HELLO_SERVER_HEAD, hello.tail, 4);
    check_bytes(bytes, sizeof(bytes),
                "50 4c 41 53  01 00  00 00  02 00 00 00  04 00 00 00  00 00 00 00 00 00 00 00"
                "00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  00 00 00 00  00 00 00 00"
                "00 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00  67 6f 6e 65");
}

static const struct {
    struct pl_frame frame;
    const char *golden;
} golden_frames[] = {
    { { .kind = PL_FRAME_CALL,
        .size = 3,
        .encoding = 1,
        .flags = PL_FRAME_IDEMPOTENT,
        .method = 5,
        .time_left = 3000000,
        .call = 0x0000000700000001,
        .trace = 0xaabbccddeeff0011 },
      "03 00 00 00  01  01  02  00  05 00 00 00  c0 c6 2d 00  01 00 00 00 07 00 00 00  11 00 ff ee dd cc bb aa" },
    { { .kind = PL_FRAME_SEND, .size = 65536, .encoding = 2, .method = 1023 },
      "00 00 01 00  02  02  00  00  ff 03 00 00  00 00 00 00  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00" },
    { { .kind = PL_FRAME_CALL, .flags = PL_FRAME_NAMED, .size = 8, .method = PL_METHOD_DEFAULT, .call = 8 },
      "08 00 00 00  01  00  10  00  ff ff ff ff  00 00 00 00  08 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00" },
    { { .kind = PL_FRAME_REPLY, .size = 0, .encoding = 3, .method = 0x80000007, .call = 9 },
      "00 00 00 00  03  03  00  00  07 00 00 80  00 00 00 00  09 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00" },
    { { .kind = PL_FRAME_REPLY, .size = 16, .flags = PL_FRAME_IN_SEGMENT, .call = 10 },
      "10 00 00 00  03  00  04  00  00 00 00 00  00 00 00 00  0a 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00" },
    { { .kind = PL_FRAME_CALL, .size = 8, .flags = PL_FRAME_ON_SOCKET, .call = 11 },
      "08 00 00 00  01  00  08  00  00 00 00 00  00 00 00 00  0b 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00" },
    { { .kind = PL_FRAME_CANCEL, .call = 12 },
      "00 00 00 00  04  00  00  00  00 00 00 00  00 00 00 00  0c 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00" },
    { { .kind = PL_FRAME_GOAWAY, .size = 8 },
      "08 00 00 00  05  00  00  00  00 00 00 00  00 00 00 00  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00" },
    { { .kind = PL_FRAME_PAD, .size = 61408 },
      "e0 ef 00 00  06  00  00  00  00 00 00 00  00 00 00 00  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00" },
    { { .kind = PL_FRAME_SEGMENT, .size = 16 },
      "10 00 00 00  07  00  00  00  00 00 00 00  00 00 00 00  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00" },
    { { .kind = PL_FRAME_BODY, .size = 0x01020304, .call = 11 },
      "04 03 02 01  08  00  00  00  00 00 00 00  00 00 00 00  0b 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00" },
    { { .kind = PL_FRAME_SUBSCRIBE, .method = PL_SUBSCRIBE_GO_ON, .call = 13, .trace = 0x1122334455667788 },
      "00 00 00 00  09  00  00  00  02 00 00 00  00 00 00 00  0d 00 00 00 00 00 00 00  88 77 66 55 44 33 22 11" },
    { { .kind = PL_FRAME_MESSAGE, .size = 4, .encoding = 1, .call = 14, .trace = 0x17f1f1f1f1f1f1f1 },
      "04 00 00 00  0a  01  00  00  00 00 00 00  00 00 00 00  0e 00 00 00 00 00 00 00  f1 f1 f1 f1 f1 f1 f1 17" },
    { { .kind = PL_FRAME_DROPPED, .method = 1000, .call = 2 },
      "00 00 00 00  0b  00  00  00  e8 03 00 00  00 00 00 00  02 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00" },
};

TEST(every_frame_is_frozen)
{
    for (size_t i = 0; i < sizeof(golden_frames) / sizeof(golden_frames[0]); i++) {
        uint8_t head[PL_FRAME_HEAD];
        struct pl_frame decoded;
        size_t size;
        pl_frame_encode(head, &golden_frames[i].frame);
        check_bytes(head, PL_FRAME_HEAD, golden_frames[i].golden);
        CHECK_INT(pl_frame_decode(&decoded, unhex(golden_frames[i].golden, &size), 1 << 30), 0);
        pl_frame_encode(head, &decoded);
        check_bytes(head, PL_FRAME_HEAD, golden_frames[i].golden);
    }
}

TEST(the_records_inside_frames_are_frozen)
{
    struct pl_frame_segment segment = { .id = 5, .generation = 0x01020304, .size = 0x100000000 };
    uint8_t bytes[PL_FRAME_SEGMENT_SIZE];
    pl_frame_segment_encode(bytes, &segment);
    check_bytes(bytes, sizeof(bytes), "05 00 00 00  04 03 02 01  00 00 00 00 01 00 00 00");
    pl_frame_store_u64(bytes, 0x1122334455667788);
    check_bytes(bytes, 8, "88 77 66 55 44 33 22 11");
}

TEST(statuses_features_and_limits_are_frozen)
{
    CHECK_INT(PL_STATUS_NO_METHOD, 0x80000001);
    CHECK_INT(PL_STATUS_NO_REPLY, 0x80000002);
    CHECK_INT(PL_STATUS_TOO_LATE, 0x80000003);
    CHECK_INT(PL_STATUS_BUSY, 0x80000004);
    CHECK_INT(PL_STATUS_TOO_LARGE, 0x80000005);
    CHECK_INT(PL_STATUS_CANCELLED, 0x80000006);
    CHECK_INT(PL_STATUS_GONE, 0x80000007);
    CHECK_INT(PL_FEATURE_SHM, 1);
    CHECK_INT(PL_FEATURE_GOAWAY, 2);
    CHECK_INT(PL_FEATURE_ANY_METHOD, 4);
    CHECK_INT(PL_FEATURE_TOPIC, 8);
    CHECK_INT(PL_FEATURE_RELIABLE, 16);
    CHECK_INT(PL_SUBSCRIBE_GATES, 1);
    CHECK_INT(PL_SUBSCRIBE_GO_ON, 2);
    CHECK_INT(PL_SUBSCRIBE_RELIABLE, 4);
    CHECK_INT(PL_METHOD_DEFAULT, 0xffffffff);
    CHECK_INT(PL_PROTOCOL_MAJOR, 1);
    CHECK_INT(PL_PROTOCOL_MINOR, 0);
    CHECK_INT(PLAIT_NAME_MAX, 100);
    CHECK_INT(PLAIT_METHODS_MAX, 1024);
}

TEST(the_framings_are_frozen)
{
    struct pl_framing_wrap wrap;
    CHECK_INT(pl_framing_wrap(PL_FRAMING_LENGTH, "x", 0x01020304, &wrap), 0);
    check_bytes(wrap.before, wrap.before_size, "01 02 03 04");
    CHECK_INT(wrap.after_size, 0);
    CHECK_INT(pl_framing_wrap(PL_FRAMING_LINES, "x", 1, &wrap), 0);
    CHECK_INT(wrap.before_size, 0);
    check_bytes((const uint8_t *)wrap.after, wrap.after_size, "0a");
}
