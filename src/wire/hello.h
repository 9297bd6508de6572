/* hello: the two opening messages of a plait connection, before the first frame.
 *
 * The client speaks first. Client hello: 32 fixed bytes, then the service's name:
 *   "PLAI" u16 major u16 minor  u32 abi  u32 max_reply_mib  u64 features  u8 name length, 7 zero
 * Server hello: 64 fixed bytes, then the error text or the method table:
 *   "PLAS" u16 major u16 minor  u32 result (0, or a positive errno)  u32 tail length
 *   u64 features  u64 instance id  u64 max_message  u32 pid  u32 outstanding  u32 concurrency
 *   u32 ring capacity  u32 method count  u32 reactor       tail: text, or count × {u8 length, name}
 * Major differs: refused, naming both. Features: the intersection counts. The abi word tells
 * byte order, pointer width and page size; shared memory needs equal words. Each method's number
 * in frames is its place in the table, from 0. Reactor: with that feature, which of the server's threads that handle
 * (from 1 to `concurrency`) serves this connection; else zero.
 */
#ifndef PL_WIRE_HELLO_H
#define PL_WIRE_HELLO_H

#include <plait/plait.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PL_PROTOCOL_MAJOR = 1, PL_PROTOCOL_MINOR = 0 };
enum { PL_HELLO_CLIENT_HEAD = 32, PL_HELLO_SERVER_HEAD = 64 };
enum { PL_HELLO_CLIENT_MAX = PL_HELLO_CLIENT_HEAD + PLAIT_NAME_MAX };
enum { PL_HELLO_TAIL_MAX = PLAIT_METHODS_MAX * (PLAIT_NAME_MAX + 1) };

enum {
    PL_FEATURE_SHM = 1,        /* channel in shared memory */
    PL_FEATURE_GOAWAY = 2,     /* drain with a position */
    PL_FEATURE_ANY_METHOD = 4, /* server: methods beyond the table are welcome, by NAMED frames */
    PL_FEATURE_TOPIC = 8,      /* this is about a topic: a SUBSCRIBE frame follows the client's hello */
    PL_FEATURE_RELIABLE = 16,  /* publisher: it waits for its subscribers */
    PL_FEATURE_REACTOR = 32    /* the server's hello says which of its threads serves this connection */
};

/* Outcomes of the decoders: MORE means that the bytes so far are a valid beginning. */
enum { PL_HELLO_OK = 0, PL_HELLO_MORE = 1 };

struct pl_hello_client {
    uint16_t major, minor;
    uint32_t abi;
    uint64_t features;
    uint64_t max_reply;            /* bytes, sent in MiB (rounded up) */
    char name[PLAIT_NAME_MAX + 1]; /* "" on a listener that serves one name */
};

struct pl_hello_server {
    uint16_t major, minor;
    int result; /* 0 or a negative errno */
    uint64_t features;
    uint64_t instance;
    uint64_t max_message;
    uint32_t pid, outstanding, concurrency, ring_capacity, method_count;
    uint32_t reactor;    /* from 1; 0: not told, and the feature isn't there */
    const uint8_t *tail; /* points into the caller's bytes */
    size_t tail_size;
};

uint32_t pl_hello_abi(void); /* this process's word */

/* What the server takes for max_reply, which is told in MiB: rounded up. */
uint64_t pl_hello_reply_limit(uint64_t max_reply);
/* Returns the number of bytes written. */
size_t pl_hello_client_encode(uint8_t bytes[PL_HELLO_CLIENT_MAX], const struct pl_hello_client *hello);

/* PL_HELLO_OK and *ret_consumed; PL_HELLO_MORE; -EPROTO with a text that says what the bytes look
 * like (an HTTP request, a TLS hello, another major version: "speaks protocol 2.0, this is 1.0").
 * Decides as early as it can: the first wrong byte is an error, not MORE; but the version's four bytes
 * and the method table are judged when they are whole. */
int pl_hello_client_decode(struct pl_hello_client *ret_hello, const uint8_t *bytes, size_t size, size_t *ret_consumed);

/* Writes the fixed part; the caller sends the tail behind it. */
void pl_hello_server_encode(uint8_t bytes[PL_HELLO_SERVER_HEAD], const struct pl_hello_server *hello);

/* As above. With MORE and the 64 fixed bytes there, *ret_hello is filled, but for `tail`, which is NULL: its
 * tail_size (checked against PL_HELLO_TAIL_MAX) says how much is to come. */
int pl_hello_server_decode(struct pl_hello_server *ret_hello, const uint8_t *bytes, size_t size, size_t *ret_consumed);

/* Walks the method table: *offset starts at 0; copies the next name (checked as a method's; "" is the
 * default method, "*" the one for any other name) to NAME. 1: a name; 0: the end; -EPROTO, which can't come of a hello
 * that decode accepted: it has walked the table, and it holds exactly method_count names. */
int pl_hello_method_next(const struct pl_hello_server *hello, size_t *offset, char name[PLAIT_NAME_MAX + 1]);

/* The error text of a hello whose result isn't 0, cut to SIZE, control characters as '?'; returns TEXT. */
const char *pl_hello_text(const struct pl_hello_server *hello, char *text, size_t size);

/* What foreign bytes look like: "an HTTP request", "a TLS client hello", ... or NULL. */
const char *pl_hello_looks_like(const uint8_t *bytes, size_t size);

#endif
