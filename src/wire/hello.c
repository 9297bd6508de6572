/* hello: who speaks, in which version, and what the two sides allow each other.
 *
 * Foreign bytes are judged while they come: a byte that no hello has at its place ends the
 * conversation at once, and the error says what the bytes look like, since most wrong peers are
 * a browser, a TLS client, or a shell on the wrong port. Two things are judged as a whole, for the
 * sake of their error's text: the version (four bytes) and the method table.
 * Magic and version keep their places in every major version, so that either side can always
 * name both.
 */
#include "wire/hello.h"
#include "base/error.h"
#include "wire/bytes.h"
#include "wire/name.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { AT_MAGIC = 0, AT_MAJOR = 4, AT_MINOR = 6, VERSION_END = 8 };
enum { CLIENT_ABI = 8, CLIENT_MAX_REPLY = 12, CLIENT_FEATURES = 16, CLIENT_NAME_SIZE = 24, CLIENT_ZERO = 25 };
enum {
    SERVER_RESULT = 8,
    SERVER_TAIL_SIZE = 12,
    SERVER_FEATURES = 16,
    SERVER_INSTANCE = 24,
    SERVER_MAX_MESSAGE = 32,
    SERVER_PID = 40,
    SERVER_OUTSTANDING = 44,
    SERVER_CONCURRENCY = 48,
    SERVER_RING_CAPACITY = 52,
    SERVER_METHOD_COUNT = 56,
    SERVER_REACTOR = 60
};
enum { MAGIC_SIZE = 4, ERRNO_MAX = 4095, MIB_SHIFT = 20 };
static const char client_magic[MAGIC_SIZE + 1] = "PLAI";
static const char server_magic[MAGIC_SIZE + 1] = "PLAS";

uint32_t pl_hello_abi(void)
{
    uint32_t order = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? 1 : 2;
    uint32_t page_bits = (uint32_t)__builtin_ctzl((unsigned long)sysconf(_SC_PAGESIZE));
    return order | (uint32_t)sizeof(void *) << 8 | page_bits << 16;
}

/* ---- what wrong bytes look like ------------------------------------------------------ */

static bool begins(const uint8_t *bytes, size_t size, const char *with)
{
    size_t length = strlen(with);
    return size >= length && memcmp(bytes, with, length) == 0;
}

static bool begins_with_any(const uint8_t *bytes, size_t size, const char *const *words)
{
    while (*words != NULL && !begins(bytes, size, *words)) words++;
    return *words != NULL;
}

/* "GET /x" is HTTP, "GET key" is Redis: the target tells. Cut right after the method: HTTP. */
static bool is_http_request(const uint8_t *bytes, size_t size)
{
    static const char *const methods[] = { "GET ",     "POST ",    "PUT ",   "HEAD ",  "DELETE ",
                                           "OPTIONS ", "CONNECT ", "TRACE ", "PATCH ", NULL };
    if (!begins_with_any(bytes, size, methods)) return false;
    if (begins(bytes, size, "CONNECT ")) return true;
    const uint8_t *target = (const uint8_t *)memchr(bytes, ' ', size) + 1;
    size_t left = size - (size_t)(target - bytes);
    return left == 0 || target[0] == '/' || target[0] == '*' || begins(target, left, "http");
}

static bool is_redis(const uint8_t *bytes, size_t size)
{
    static const char *const words[] = { "PING\r\n", "PING\n", "INFO\r\n",  "INFO\n",  "AUTH ",   "SELECT ",
                                         "GET ",     "SET ",   "COMMAND\r", "QUIT\r",  "CONFIG ", "HELLO ",
                                         "+PONG",    "+OK\r",  "-ERR ",     "-NOAUTH", "-WRONG",  NULL };
    if (begins_with_any(bytes, size, words)) return true;
    return size >= 3 && (bytes[0] == '*' || bytes[0] == '$') && bytes[1] >= '0' && bytes[1] <= '9' &&
           (bytes[2] == '\r' || (bytes[2] >= '0' && bytes[2] <= '9'));
}

static bool is_socks(const uint8_t *bytes, size_t size)
{
    if (size >= 3 && bytes[0] == 5) return bytes[1] >= 1 && bytes[1] <= 9 && bytes[2] <= 9;
    return size >= 8 && bytes[0] == 4 && (bytes[1] == 1 || bytes[1] == 2);
}

static bool is_text(const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size && i < 64; i++)
        if ((bytes[i] < ' ' || bytes[i] >= 0x7f) && bytes[i] != '\t' && bytes[i] != '\r' && bytes[i] != '\n')
            return false;
    return size >= 2;
}

const char *pl_hello_looks_like(const uint8_t *bytes, size_t size)
{
    if (size == 0) return NULL;
    if (begins(bytes, size, client_magic)) return "the hello of a plait client";
    if (begins(bytes, size, server_magic)) return "the hello of a plait server";
    if (begins(bytes, size, "PRI * HTTP/2")) return "an HTTP/2 preface";
    if (is_http_request(bytes, size)) return "an HTTP request";
    if (begins(bytes, size, "HTTP/")) return "an HTTP response";
    if (size >= 2 && bytes[0] == 0x16 && bytes[1] == 3)
        return size >= 6 && bytes[5] == 2 ? "a TLS server hello" : "a TLS client hello";
    if (size >= 2 && (bytes[0] == 0x15 || bytes[0] == 0x17) && bytes[1] == 3) return "a TLS record";
    if (begins(bytes, size, "SSH-")) return "an SSH greeting";
    if (is_socks(bytes, size)) return "a SOCKS request";
    if (is_redis(bytes, size)) return "a Redis message";
    return is_text(bytes, size) ? "plain text" : NULL;
}

static int refuse_foreign(const char *wanted, const uint8_t *bytes, size_t size)
{
    const char *looks = pl_hello_looks_like(bytes, size);
    bool answers = wanted == server_magic;
    const char *remedy = answers
                             ? "connect to a plait listener, or give the target's ?framing=raw, lines or length"
                             : "programs that know nothing of plait need a listener with ?framing=raw, lines or length";
    if (looks != NULL)
        return pl_error(-EPROTO, "the peer's first bytes are %s, not the hello of a plait %s: %s", looks,
                        answers ? "server" : "client", remedy);

    char dump[8 * 3 + 1] = "";
    for (size_t i = 0; i < size && i < 8; i++) snprintf(dump + 3 * i, 4, " %02x", bytes[i]);
    return pl_error(-EPROTO, "the peer's first bytes are%s, not the hello of a plait %s: %s", dump,
                    answers ? "server" : "client", remedy);
}

/* Magic and version of either hello. PL_HELLO_OK: both are there and good. */
static int check_opening(const char *magic, const uint8_t *bytes, size_t size)
{
    if (memcmp(bytes, magic, size < MAGIC_SIZE ? size : MAGIC_SIZE) != 0) return refuse_foreign(magic, bytes, size);
    if (size < VERSION_END) return PL_HELLO_MORE;
    uint16_t major = pl_load_u16(bytes + AT_MAJOR);
    if (major == PL_PROTOCOL_MAJOR) return PL_HELLO_OK;
    return pl_error(-EPROTO,
                    "the peer speaks protocol %u.%u, this is %d.%d: majors must be equal, upgrade the older side",
                    major, pl_load_u16(bytes + AT_MINOR), PL_PROTOCOL_MAJOR, PL_PROTOCOL_MINOR);
}

static int check_zeros(const uint8_t *bytes, size_t size, size_t start, size_t end)
{
    for (size_t i = start; i < end && i < size; i++)
        if (bytes[i] != 0)
            return pl_error(-EPROTO,
                            "the peer's hello has 0x%02x at offset %zu, where protocol %d has 0: it sends "
                            "garbage or breaks the protocol",
                            bytes[i], i, PL_PROTOCOL_MAJOR);
    return 0;
}

/* ---- client hello -------------------------------------------------------------------- */

uint64_t pl_hello_reply_limit(uint64_t max_reply)
{
    uint64_t mib = (max_reply >> MIB_SHIFT) + ((max_reply & ((1u << MIB_SHIFT) - 1)) != 0);
    return (mib > UINT32_MAX ? UINT32_MAX : mib) << MIB_SHIFT; /* the field has 32 bits */
}

size_t pl_hello_client_encode(uint8_t bytes[PL_HELLO_CLIENT_MAX], const struct pl_hello_client *hello)
{
    size_t name_size = strnlen(hello->name, PLAIT_NAME_MAX);
    uint32_t mib = (uint32_t)(pl_hello_reply_limit(hello->max_reply) >> MIB_SHIFT);

    memset(bytes, 0, PL_HELLO_CLIENT_HEAD);
    memcpy(bytes + AT_MAGIC, client_magic, MAGIC_SIZE);
    pl_store_u16(bytes + AT_MAJOR, hello->major);
    pl_store_u16(bytes + AT_MINOR, hello->minor);
    pl_store_u32(bytes + CLIENT_ABI, hello->abi);
    pl_store_u32(bytes + CLIENT_MAX_REPLY, mib);
    pl_store_u64(bytes + CLIENT_FEATURES, hello->features);
    bytes[CLIENT_NAME_SIZE] = (uint8_t)name_size;
    memcpy(bytes + PL_HELLO_CLIENT_HEAD, hello->name, name_size);
    return PL_HELLO_CLIENT_HEAD + name_size;
}

int pl_hello_client_decode(struct pl_hello_client *ret_hello, const uint8_t *bytes, size_t size, size_t *ret_consumed)
{
    if (size == 0) return PL_HELLO_MORE;
    int r = check_opening(client_magic, bytes, size);
    if (r != PL_HELLO_OK) return r;
    r = check_zeros(bytes, size, CLIENT_ZERO, PL_HELLO_CLIENT_HEAD);
    if (r < 0) return r;
    if (size <= CLIENT_NAME_SIZE) return PL_HELLO_MORE;
    size_t name_size = bytes[CLIENT_NAME_SIZE];
    if (name_size > PLAIT_NAME_MAX)
        return pl_error(-EPROTO, "the peer's hello claims a service name of %zu bytes: at most %d are allowed",
                        name_size, PLAIT_NAME_MAX);
    if (size < PL_HELLO_CLIENT_HEAD) return PL_HELLO_MORE;

    const char *name = (const char *)bytes + PL_HELLO_CLIENT_HEAD;
    size_t present = size - PL_HELLO_CLIENT_HEAD;
    if (present > name_size) present = name_size;
    if (present > 0) {
        r = pl_name_check("service", name, present);
        if (r < 0) return pl_error_in(-EPROTO, "in the peer's hello");
    }
    if (present < name_size) return PL_HELLO_MORE;

    struct pl_hello_client hello = {
        .major = pl_load_u16(bytes + AT_MAJOR),
        .minor = pl_load_u16(bytes + AT_MINOR),
        .abi = pl_load_u32(bytes + CLIENT_ABI),
        .features = pl_load_u64(bytes + CLIENT_FEATURES),
        .max_reply = (uint64_t)pl_load_u32(bytes + CLIENT_MAX_REPLY) << MIB_SHIFT,
    };
    memcpy(hello.name, name, name_size);
    *ret_hello = hello;
    *ret_consumed = PL_HELLO_CLIENT_HEAD + name_size;
    return PL_HELLO_OK;
}

/* ---- server hello -------------------------------------------------------------------- */

void pl_hello_server_encode(uint8_t bytes[PL_HELLO_SERVER_HEAD], const struct pl_hello_server *hello)
{
    memset(bytes, 0, PL_HELLO_SERVER_HEAD);
    memcpy(bytes + AT_MAGIC, server_magic, MAGIC_SIZE);
    pl_store_u16(bytes + AT_MAJOR, hello->major);
    pl_store_u16(bytes + AT_MINOR, hello->minor);
    pl_store_u32(bytes + SERVER_RESULT, (uint32_t)-hello->result);
    pl_store_u32(bytes + SERVER_TAIL_SIZE, (uint32_t)hello->tail_size);
    pl_store_u64(bytes + SERVER_FEATURES, hello->features);
    pl_store_u64(bytes + SERVER_INSTANCE, hello->instance);
    pl_store_u64(bytes + SERVER_MAX_MESSAGE, hello->max_message);
    pl_store_u32(bytes + SERVER_PID, hello->pid);
    pl_store_u32(bytes + SERVER_OUTSTANDING, hello->outstanding);
    pl_store_u32(bytes + SERVER_CONCURRENCY, hello->concurrency);
    pl_store_u32(bytes + SERVER_RING_CAPACITY, hello->ring_capacity);
    pl_store_u32(bytes + SERVER_METHOD_COUNT, hello->method_count);
    pl_store_u32(bytes + SERVER_REACTOR, hello->reactor);
}

/* Zero, unless it was asked for; then it is one of those that there are. */
static int check_reactor(const uint8_t *bytes, size_t size)
{
    if (size < SERVER_REACTOR || !(pl_load_u64(bytes + SERVER_FEATURES) & PL_FEATURE_REACTOR))
        return check_zeros(bytes, size, SERVER_REACTOR, PL_HELLO_SERVER_HEAD);
    if (size < PL_HELLO_SERVER_HEAD) return 0;
    uint32_t reactor = pl_load_u32(bytes + SERVER_REACTOR), concurrency = pl_load_u32(bytes + SERVER_CONCURRENCY);
    if (reactor >= 1 && reactor <= concurrency) return 0;
    return pl_error(-EPROTO, "the server's hello says that thread %u of %u serves this: it breaks the protocol",
                    reactor, concurrency);
}

static int check_server_head(const uint8_t *bytes, size_t size)
{
    if (size >= SERVER_RESULT + 4 && pl_load_u32(bytes + SERVER_RESULT) > ERRNO_MAX)
        return pl_error(-EPROTO, "the server's hello has the result %u, which is no errno: it breaks the protocol",
                        pl_load_u32(bytes + SERVER_RESULT));
    if (size >= SERVER_TAIL_SIZE + 4 && pl_load_u32(bytes + SERVER_TAIL_SIZE) > PL_HELLO_TAIL_MAX)
        return pl_error(-EPROTO, "the server's hello claims a method table of %u bytes: at most %d are taken",
                        pl_load_u32(bytes + SERVER_TAIL_SIZE), PL_HELLO_TAIL_MAX);
    if (size >= SERVER_METHOD_COUNT + 4 && pl_load_u32(bytes + SERVER_METHOD_COUNT) > PLAIT_METHODS_MAX)
        return pl_error(-EPROTO, "the server's hello claims %u methods: at most %d are taken (PLAIT_METHODS_MAX)",
                        pl_load_u32(bytes + SERVER_METHOD_COUNT), PLAIT_METHODS_MAX);
    return check_reactor(bytes, size);
}

/* Walks the whole table once, so that nobody behind this has to doubt it. */
static int check_table(const struct pl_hello_server *hello)
{
    char name[PLAIT_NAME_MAX + 1];
    size_t offset = 0;
    uint32_t count = 0;
    int r;

    while ((r = pl_hello_method_next(hello, &offset, name)) == 1) count++;
    if (r < 0) return r;
    if (count == hello->method_count) return 0;
    return pl_error(-EPROTO, "the server's hello announces %u methods and lists %u: it breaks the protocol",
                    hello->method_count, count);
}

int pl_hello_server_decode(struct pl_hello_server *ret_hello, const uint8_t *bytes, size_t size, size_t *ret_consumed)
{
    if (size == 0) return PL_HELLO_MORE;
    int r = check_opening(server_magic, bytes, size);
    if (r != PL_HELLO_OK) return r;
    r = check_server_head(bytes, size);
    if (r < 0) return r;
    if (size < PL_HELLO_SERVER_HEAD) return PL_HELLO_MORE;
    size_t tail_size = pl_load_u32(bytes + SERVER_TAIL_SIZE);
    struct pl_hello_server hello = {
        .major = pl_load_u16(bytes + AT_MAJOR),
        .minor = pl_load_u16(bytes + AT_MINOR),
        .result = -(int)pl_load_u32(bytes + SERVER_RESULT),
        .features = pl_load_u64(bytes + SERVER_FEATURES),
        .instance = pl_load_u64(bytes + SERVER_INSTANCE),
        .max_message = pl_load_u64(bytes + SERVER_MAX_MESSAGE),
        .pid = pl_load_u32(bytes + SERVER_PID),
        .outstanding = pl_load_u32(bytes + SERVER_OUTSTANDING),
        .concurrency = pl_load_u32(bytes + SERVER_CONCURRENCY),
        .ring_capacity = pl_load_u32(bytes + SERVER_RING_CAPACITY),
        .method_count = pl_load_u32(bytes + SERVER_METHOD_COUNT),
        .reactor = pl_load_u32(bytes + SERVER_REACTOR),
        .tail = bytes + PL_HELLO_SERVER_HEAD,
        .tail_size = tail_size,
    };
    if (size - PL_HELLO_SERVER_HEAD < tail_size) {
        hello.tail = NULL;
        *ret_hello = hello;
        return PL_HELLO_MORE;
    }
    r = hello.result == 0 ? check_table(&hello) : 0;
    if (r < 0) return r;
    *ret_hello = hello;
    *ret_consumed = PL_HELLO_SERVER_HEAD + tail_size;
    return PL_HELLO_OK;
}

int pl_hello_method_next(const struct pl_hello_server *hello, size_t *offset, char name[PLAIT_NAME_MAX + 1])
{
    if (hello->result != 0 || *offset >= hello->tail_size) return 0;
    const uint8_t *entry = hello->tail + *offset;
    size_t left = hello->tail_size - *offset - 1, name_size = entry[0];

#ifndef PLAIT_PLANT_BUG /* what fuzz_hello must find: an entry that claims more than the table holds */
    if (name_size > left)
        return pl_error(-EPROTO, "the server's method table ends %zu bytes into a name of %zu: it breaks the protocol",
                        left, name_size);
#else
    (void)left;
#endif
    /* Length 0 is the method "", which callers get that name none; "*" takes what has no other. */
    bool special = name_size == 0 || (name_size == 1 && entry[1] == '*');
    if (!special && pl_name_check_method((const char *)entry + 1, name_size) < 0)
        return pl_error_in(-EPROTO, "in the server's method table");
    memcpy(name, entry + 1, name_size);
    name[name_size] = '\0';
    *offset += 1 + name_size;
    return 1;
}

const char *pl_hello_text(const struct pl_hello_server *hello, char *text, size_t size)
{
    if (size == 0) return "";
    size_t length = hello->tail_size < size - 1 ? hello->tail_size : size - 1;
    for (size_t i = 0; i < length; i++)
        text[i] = hello->tail[i] < ' ' || hello->tail[i] == 0x7f ? '?' : (char)hello->tail[i];
    text[length] = '\0';
    return text;
}
