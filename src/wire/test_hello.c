/* Hellos: cut at every byte, lied to in every field, and met with what isn't plait at all. */
#include "base/error.h"
#include "wire/hello.h"
#include "wire/test_guard.h"
#include <errno.h>
#include <unistd.h>

static struct pl_hello_client client_sample(void)
{
    return (struct pl_hello_client){
        .major = PL_PROTOCOL_MAJOR,
        .minor = PL_PROTOCOL_MINOR,
        .abi = 0x11223344,
        .features = PL_FEATURE_SHM | PL_FEATURE_GOAWAY,
        .max_reply = 3u << 20,
        .name = "greeter",
    };
}

static const uint8_t sample_table[] = "\0\5greet\7goodBye";
enum { SAMPLE_TABLE = sizeof(sample_table) - 1 };

static struct pl_hello_server server_sample(void)
{
    return (struct pl_hello_server){
        .major = PL_PROTOCOL_MAJOR,
        .minor = PL_PROTOCOL_MINOR,
        .features = PL_FEATURE_GOAWAY,
        .instance = 0x1122334455667788,
        .max_message = UINT64_C(1) << 30,
        .pid = 4711,
        .outstanding = 1024,
        .concurrency = 4,
        .ring_capacity = 65536,
        .method_count = 3,
        .tail = sample_table,
        .tail_size = SAMPLE_TABLE,
    };
}

static size_t server_bytes(uint8_t bytes[512], const struct pl_hello_server *hello)
{
    pl_hello_server_encode(bytes, hello);
    memcpy(bytes + PL_HELLO_SERVER_HEAD, hello->tail, hello->tail_size);
    return PL_HELLO_SERVER_HEAD + hello->tail_size;
}

static int decode_client(struct pl_hello_client *hello, const void *bytes, size_t size)
{
    size_t consumed;
    return pl_hello_client_decode(hello, guard_end(bytes, size), size, &consumed);
}

static int decode_server(struct pl_hello_server *hello, const void *bytes, size_t size)
{
    size_t consumed;
    return pl_hello_server_decode(hello, guard_end(bytes, size), size, &consumed);
}

TEST(a_client_hello_cut_anywhere_asks_for_more_and_whole_comes_back)
{
    struct pl_hello_client hello = client_sample(), decoded;
    uint8_t bytes[PL_HELLO_CLIENT_MAX + 4];
    size_t size = pl_hello_client_encode(bytes, &hello), consumed = 0;

    CHECK_INT(size, PL_HELLO_CLIENT_HEAD + 7);
    for (size_t cut = 0; cut < size; cut++) CHECK_INT(decode_client(&decoded, bytes, cut), PL_HELLO_MORE);
    memcpy(bytes + size, "next", 4);
    CHECK_INT(pl_hello_client_decode(&decoded, guard_end(bytes, size + 4), size + 4, &consumed), PL_HELLO_OK);
    CHECK_INT(consumed, size);
    CHECK_INT(decoded.major, 1);
    CHECK_INT(decoded.minor, 0);
    CHECK_INT(decoded.abi, 0x11223344);
    CHECK_INT(decoded.features, hello.features);
    CHECK_INT(decoded.max_reply, 3u << 20);
    CHECK_STR(decoded.name, "greeter");
}

TEST(a_client_hello_may_name_no_service_or_one_of_100_bytes)
{
    struct pl_hello_client hello = client_sample(), decoded;
    uint8_t bytes[PL_HELLO_CLIENT_MAX];
    hello.name[0] = '\0';
    CHECK_INT(pl_hello_client_encode(bytes, &hello), PL_HELLO_CLIENT_HEAD);
    CHECK_INT(decode_client(&decoded, bytes, PL_HELLO_CLIENT_HEAD), PL_HELLO_OK);
    CHECK_STR(decoded.name, "");
    memset(hello.name, 'n', PLAIT_NAME_MAX);
    CHECK_INT(pl_hello_client_encode(bytes, &hello), PL_HELLO_CLIENT_MAX);
    CHECK_INT(decode_client(&decoded, bytes, PL_HELLO_CLIENT_MAX), PL_HELLO_OK);
    CHECK_STR(decoded.name, hello.name);
}

TEST(the_largest_reply_is_sent_in_whole_mebibytes_rounded_up)
{
    static const struct {
        uint64_t said, heard;
    } cases[] = {
        { 0, 0 },
        { 1, 1 << 20 },
        { 1 << 20, 1 << 20 },
        { (1 << 20) + 1, 2 << 20 },
        { UINT64_MAX, (uint64_t)UINT32_MAX << 20 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct pl_hello_client hello = client_sample(), decoded;
        uint8_t bytes[PL_HELLO_CLIENT_MAX];
        hello.max_reply = cases[i].said;
        CHECK_INT(decode_client(&decoded, bytes, pl_hello_client_encode(bytes, &hello)), PL_HELLO_OK);
        CHECK(decoded.max_reply == cases[i].heard);
    }
}

/* For each offset, a byte that can't stand there: refused from that byte on, however much follows. */
TEST(the_first_wrong_byte_of_a_client_hello_is_an_error)
{
    struct pl_hello_client hello = client_sample(), decoded = { .abi = 7 };
    uint8_t good[PL_HELLO_CLIENT_MAX], bad[PL_HELLO_CLIENT_MAX];
    size_t size = pl_hello_client_encode(good, &hello);
    for (size_t at = 0; at < size; at++) {
        bool version = at == 4 || at == 5;
        if (at >= 6 && at <= 23) continue; /* minor, abi, max_reply, features: any value */
        memcpy(bad, good, size);
        bad[at] = 0xfe;
        for (size_t cut = version ? 8 : at + 1; cut <= size; cut++)
            CHECK_INT(decode_client(&decoded, bad, cut), -EPROTO);
    }
    CHECK_INT(decoded.abi, 7);
}

TEST(a_name_too_long_is_refused_before_it_comes)
{
    struct pl_hello_client hello = client_sample();
    uint8_t bytes[PL_HELLO_CLIENT_MAX];
    pl_hello_client_encode(bytes, &hello);
    bytes[24] = PLAIT_NAME_MAX;
    CHECK_INT(decode_client(&hello, bytes, PL_HELLO_CLIENT_HEAD), PL_HELLO_MORE);
    bytes[24] = PLAIT_NAME_MAX + 1;
    CHECK_INT(decode_client(&hello, bytes, PL_HELLO_CLIENT_HEAD), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), "claims a service name of 101 bytes: at most 100");
}

TEST(another_major_version_is_refused_naming_both)
{
    struct pl_hello_client hello = client_sample();
    struct pl_hello_server server = server_sample();
    uint8_t bytes[512];
    hello.major = 2;
    hello.minor = 7;
    CHECK_INT(decode_client(&hello, bytes, pl_hello_client_encode(bytes, &hello)), -EPROTO);
    CHECK_STR(pl_error_text(),
              "the peer speaks protocol 2.7, this is 1.0: majors must be equal, upgrade the older side");
    server.major = 0;
    CHECK_INT(decode_server(&server, bytes, server_bytes(bytes, &server)), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), "the peer speaks protocol 0.0, this is 1.0");
}

TEST(another_minor_version_and_unknown_features_are_welcome)
{
    struct pl_hello_client hello = client_sample(), decoded;
    uint8_t bytes[PL_HELLO_CLIENT_MAX];
    hello.minor = 9;
    hello.features = UINT64_MAX;
    CHECK_INT(decode_client(&decoded, bytes, pl_hello_client_encode(bytes, &hello)), PL_HELLO_OK);
    CHECK_INT(decoded.minor, 9);
    CHECK(decoded.features == UINT64_MAX);
}

TEST(a_bad_service_name_in_a_hello_is_named)
{
    struct pl_hello_client hello = client_sample();
    uint8_t bytes[PL_HELLO_CLIENT_MAX];
    memcpy(hello.name, "Greeter", 8);
    CHECK_INT(decode_client(&hello, bytes, pl_hello_client_encode(bytes, &hello)), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), "in the peer's hello: the service name 'G");
}

TEST(a_server_hello_cut_anywhere_asks_for_more_and_whole_comes_back)
{
    struct pl_hello_server hello = server_sample(), decoded;
    uint8_t bytes[512];
    size_t size = server_bytes(bytes, &hello), consumed = 0;

    for (size_t cut = 0; cut < size; cut++) CHECK_INT(decode_server(&decoded, bytes, cut), PL_HELLO_MORE);
    bytes[size] = 'x';
    const uint8_t *guarded = guard_end(bytes, size + 1);
    CHECK_INT(pl_hello_server_decode(&decoded, guarded, size + 1, &consumed), PL_HELLO_OK);
    CHECK_INT(consumed, size);
    CHECK_INT(decoded.result, 0);
    CHECK_INT(decoded.features, hello.features);
    CHECK_INT(decoded.instance, hello.instance);
    CHECK_INT(decoded.max_message, hello.max_message);
    CHECK_INT(decoded.pid, 4711);
    CHECK_INT(decoded.outstanding, 1024);
    CHECK_INT(decoded.concurrency, 4);
    CHECK_INT(decoded.ring_capacity, 65536);
    CHECK_INT(decoded.method_count, 3);
    CHECK(decoded.tail == guarded + PL_HELLO_SERVER_HEAD);

    char name[PLAIT_NAME_MAX + 1];
    size_t offset = 0;
    CHECK_INT(pl_hello_method_next(&decoded, &offset, name), 1);
    CHECK_STR(name, "");
    CHECK_INT(pl_hello_method_next(&decoded, &offset, name), 1);
    CHECK_STR(name, "greet");
    CHECK_INT(pl_hello_method_next(&decoded, &offset, name), 1);
    CHECK_STR(name, "goodBye");
    CHECK_INT(pl_hello_method_next(&decoded, &offset, name), 0);
    CHECK_INT(pl_hello_method_next(&decoded, &offset, name), 0);
}

TEST(the_fixed_part_of_a_server_hello_tells_how_much_is_to_come)
{
    struct pl_hello_server hello = server_sample(), decoded = { .tail_size = 4711 };
    uint8_t bytes[512];
    server_bytes(bytes, &hello);
    CHECK_INT(decode_server(&decoded, bytes, PL_HELLO_SERVER_HEAD - 1), PL_HELLO_MORE);
    CHECK_INT(decoded.tail_size, 4711);
    CHECK_INT(decode_server(&decoded, bytes, PL_HELLO_SERVER_HEAD), PL_HELLO_MORE);
    CHECK_INT(decoded.tail_size, SAMPLE_TABLE);
    CHECK(decoded.tail == NULL);
    CHECK_INT(decoded.pid, 4711);
}

TEST(a_refusal_carries_its_errno_and_text)
{
    struct pl_hello_server hello = server_sample(), decoded;
    uint8_t bytes[512];
    char text[64], name[PLAIT_NAME_MAX + 1];
    size_t offset = 0;
    hello.result = -ENOENT;
    hello.method_count = 0;
    hello.tail = (const uint8_t *)"no \033[31mservice\n";
    hello.tail_size = 16;
    CHECK_INT(decode_server(&decoded, bytes, server_bytes(bytes, &hello)), PL_HELLO_OK);
    CHECK_INT(decoded.result, -ENOENT);
    CHECK_STR(pl_hello_text(&decoded, text, sizeof(text)), "no ?[31mservice?");
    CHECK_STR(pl_hello_text(&decoded, text, 5), "no ?");
    CHECK_STR(pl_hello_text(&decoded, text, 1), "");
    CHECK_INT(pl_hello_method_next(&decoded, &offset, name), 0);
}

static int decode_with_table(uint32_t count, const void *table, size_t size)
{
    struct pl_hello_server hello = server_sample(), decoded;
    uint8_t bytes[512];
    hello.method_count = count;
    hello.tail = table;
    hello.tail_size = size;
    return decode_server(&decoded, bytes, server_bytes(bytes, &hello));
}

TEST(a_method_table_that_does_not_add_up_is_refused)
{
    CHECK_INT(decode_with_table(0, "", 0), PL_HELLO_OK);
    CHECK_INT(decode_with_table(2, "\1a\1b", 4), PL_HELLO_OK);
    CHECK_INT(decode_with_table(2, "\1*\1b", 4), PL_HELLO_OK);
    CHECK_INT(decode_with_table(1, "\2*b", 3), -EPROTO);
    CHECK_INT(decode_with_table(3, "\1a\1b", 4), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), "announces 3 methods and lists 2");
    CHECK_INT(decode_with_table(1, "\1a\1b", 4), -EPROTO);
    CHECK_INT(decode_with_table(1, "\2a", 2), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), "ends 1 bytes into a name of 2");
    CHECK_INT(decode_with_table(1, "\377a", 2), -EPROTO);
    CHECK_INT(decode_with_table(1, "\1 ", 2), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), "in the server's method table: the method name ' '");
    char large[1 + PLAIT_NAME_MAX + 1];
    memset(large, 'a', sizeof(large));
    large[0] = PLAIT_NAME_MAX + 1;
    CHECK_INT(decode_with_table(1, large, sizeof(large)), -EPROTO);
}

TEST(claims_of_a_server_hello_are_judged_before_their_bytes_come)
{
    static const struct {
        size_t at, size;
        uint32_t value;
        const char *text;
    } lies[] = {
        { 8, 12, 4096, "result 4096, which is no errno" },
        { 12, 16, PL_HELLO_TAIL_MAX + 1, "claims a method table of 103425 bytes: at most 103424" },
        { 56, 60, PLAIT_METHODS_MAX + 1, "claims 1025 methods: at most 1024" },
        { 60, 64, 0x01000000, "has 0x01 at offset 63" },
    };
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        struct pl_hello_server hello = server_sample(), decoded = { .pid = 99 };
        uint8_t bytes[512];
        server_bytes(bytes, &hello);
        for (int byte = 0; byte < 4; byte++) bytes[lies[i].at + (size_t)byte] = (uint8_t)(lies[i].value >> 8 * byte);
        CHECK_INT(decode_server(&decoded, bytes, lies[i].size - 1), PL_HELLO_MORE);
        CHECK_INT(decode_server(&decoded, bytes, lies[i].size), -EPROTO);
        CHECK_CONTAINS(pl_error_text(), lies[i].text);
        CHECK_INT(decoded.pid, 99);
    }
}

TEST(the_thread_that_serves_a_connection_is_one_of_those_that_there_are)
{
    struct pl_hello_server hello = server_sample(), decoded;
    uint8_t bytes[512];
    hello.features |= PL_FEATURE_REACTOR;
    for (uint32_t reactor = 0; reactor <= hello.concurrency + 1; reactor++) {
        bool known = reactor >= 1 && reactor <= hello.concurrency;
        hello.reactor = reactor;
        size_t size = server_bytes(bytes, &hello);
        CHECK_INT(decode_server(&decoded, bytes, PL_HELLO_SERVER_HEAD - 1), PL_HELLO_MORE);
        CHECK_INT(decode_server(&decoded, bytes, size), known ? PL_HELLO_OK : -EPROTO);
        if (known) CHECK_INT(decoded.reactor, reactor);
        else CHECK_CONTAINS(pl_error_text(), "of 4 serves this");
    }
}

TEST(the_largest_method_table_is_taken)
{
    static uint8_t bytes[PL_HELLO_SERVER_HEAD + PL_HELLO_TAIL_MAX];
    struct pl_hello_server hello = server_sample(), decoded;
    hello.method_count = PLAIT_METHODS_MAX;
    hello.tail_size = PL_HELLO_TAIL_MAX;
    pl_hello_server_encode(bytes, &hello);
    memset(bytes + PL_HELLO_SERVER_HEAD, 'm', PL_HELLO_TAIL_MAX);
    for (size_t i = 0; i < PLAIT_METHODS_MAX; i++)
        bytes[PL_HELLO_SERVER_HEAD + i * (PLAIT_NAME_MAX + 1)] = PLAIT_NAME_MAX;
    CHECK_INT(decode_server(&decoded, bytes, sizeof(bytes)), PL_HELLO_OK);
    CHECK_INT(decode_server(&decoded, bytes, sizeof(bytes) - 1), PL_HELLO_MORE);
}

TEST(the_abi_word_tells_byte_order_pointers_and_pages)
{
    uint32_t abi = pl_hello_abi();
    CHECK_INT(abi & 255, __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? 1 : 2);
    CHECK_INT(abi >> 8 & 255, sizeof(void *));
    CHECK_INT(UINT64_C(1) << (abi >> 16 & 255), getpagesize());
    CHECK_INT(abi >> 24, 0);
}

#define LOOKS(bytes) pl_hello_looks_like(guard_end(bytes, sizeof(bytes) - 1), sizeof(bytes) - 1)

TEST(foreign_bytes_are_named)
{
    CHECK_STR(LOOKS("GET / HTTP/1.1\r\n"), "an HTTP request");
    CHECK_STR(LOOKS("POST http://x/ HTTP/1.1\r\n"), "an HTTP request");
    CHECK_STR(LOOKS("OPTIONS * HTTP/1.1\r\n"), "an HTTP request");
    CHECK_STR(LOOKS("CONNECT host:443 HTTP/1.1\r\n"), "an HTTP request");
    CHECK_STR(LOOKS("PATCH /"), "an HTTP request");
    CHECK_STR(LOOKS("DELETE "), "an HTTP request");
    CHECK_STR(LOOKS("HTTP/1.1 200 OK\r\n"), "an HTTP response");
    CHECK_STR(LOOKS("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "an HTTP/2 preface");
    CHECK_STR(LOOKS("\x16\x03\x01\x02\0\x01"), "a TLS client hello");
    CHECK_STR(LOOKS("\x16\x03\x03\x02\0\x02"), "a TLS server hello");
    CHECK_STR(LOOKS("\x15\x03\x01\0\x02\x02\x46"), "a TLS record");
    CHECK_STR(LOOKS("SSH-2.0-OpenSSH_9.2\r\n"), "an SSH greeting");
    CHECK_STR(LOOKS("\x05\x01\0"), "a SOCKS request");
    CHECK_STR(LOOKS("\x04\x01\0\x50\x7f\0\0\x01\0"), "a SOCKS request");
    CHECK_STR(LOOKS("*1\r\n$4\r\nPING\r\n"), "a Redis message");
    CHECK_STR(LOOKS("PING\r\n"), "a Redis message");
    CHECK_STR(LOOKS("GET key\r\n"), "a Redis message");
    CHECK_STR(LOOKS("-ERR unknown command\r\n"), "a Redis message");
    CHECK_STR(LOOKS("PLAI\1\0\0\0"), "the hello of a plait client");
    CHECK_STR(LOOKS("PLAS\1\0\0\0"), "the hello of a plait server");
    CHECK_STR(LOOKS("Ada\n"), "plain text");
    CHECK(LOOKS("\x7f"
                "ELF\2\1\1") == NULL);
    CHECK(LOOKS("") == NULL);
}

TEST(foreign_bytes_are_named_safely_at_every_cut)
{
    static const char *const samples[] = { "GET / HTTP/1.1\r\n", "PRI * HTTP/2.0", "\x16\x03\x01\x02x\x01",
                                           "SSH-2.0-x",          "\x05\x01\x01",   "\x04\x01yyyyyyy",
                                           "*1\r\n$4\r\nPING",   "SELECT 1",       "HTTP/1.1 200" };
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++)
        for (size_t size = 0; size <= strlen(samples[i]); size++)
            pl_hello_looks_like(guard_end(samples[i], size), size);
}

TEST(a_wrong_peer_is_told_what_it_looks_like_and_what_to_do)
{
    struct pl_hello_client client;
    struct pl_hello_server server;
    CHECK_INT(decode_client(&client, "GET / HTTP/1.1\r\n", 16), -EPROTO);
    CHECK_STR(pl_error_text(),
              "the peer's first bytes are an HTTP request, not the hello of a plait client: programs that "
              "know nothing of plait need a listener with ?framing=raw, lines or length");
    CHECK_INT(decode_client(&client, "\x16\x03\x01\x02\0\x01", 6), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), "a TLS client hello");
    CHECK_INT(decode_client(&client,
                            "\x7f"
                            "ELF\2\1\1\0\0",
                            9),
              -EPROTO);
    CHECK_CONTAINS(pl_error_text(), "first bytes are 7f 45 4c 46 02 01 01 00, not");
    CHECK_INT(decode_client(&client, "PLAS\1\0\0\0", 8), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), "the hello of a plait server, not the hello of a plait client");
    CHECK_INT(decode_server(&server, "HTTP/1.1 400 Bad Request\r\n", 26), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), "an HTTP response, not the hello of a plait server: connect to a plait listener");
    CHECK_INT(decode_server(&server, "PLAI\1\0\0\0", 8), -EPROTO);
    CHECK_INT(decode_server(&server, "hello, Ada", 10), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), "plain text");
}
