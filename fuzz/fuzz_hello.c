/* Property: whether bytes are a hello doesn't depend on how they arrive: what is accepted whole asks
 * for more at every cut before its end; what is refused at a cut stays refused; what is accepted says
 * the same bytes when encoded again, and its method table holds as many valid names as it announces.
 */
#include "base/error.h"
#include "fuzz_wire.h"
#include "wire/hello.h"
#include "wire/name.h"

enum { CUTS_MAX = 200 };
typedef int decode_fn(const uint8_t *bytes, size_t size, size_t *ret_consumed);

static int decode_client(const uint8_t *bytes, size_t size, size_t *ret_consumed)
{
    struct pl_hello_client hello;
    uint8_t again[PL_HELLO_CLIENT_MAX];
    int r = pl_hello_client_decode(&hello, bytes, size, ret_consumed);
    if (r != PL_HELLO_OK) return r;
    REQUIRE(hello.name[0] == '\0' || pl_name_valid(hello.name, strlen(hello.name)));
    REQUIRE(pl_hello_client_encode(again, &hello) == *ret_consumed);
    REQUIRE(memcmp(again, bytes, *ret_consumed) == 0);
    return r;
}

static void walk_methods(const struct pl_hello_server *hello)
{
    char name[PLAIT_NAME_MAX + 1];
    size_t offset = 0;
    uint32_t count = 0;
    int r;
    while ((r = pl_hello_method_next(hello, &offset, name)) == 1) {
        REQUIRE(name[0] == '\0' || strcmp(name, "*") == 0 || pl_name_valid_method(name, strlen(name)));
        count++;
    }
    REQUIRE(r == 0 && (hello->result != 0 || count == hello->method_count));
}

static int decode_server(const uint8_t *bytes, size_t size, size_t *ret_consumed)
{
    struct pl_hello_server hello;
    uint8_t again[PL_HELLO_SERVER_HEAD];
    char text[64];
    int r = pl_hello_server_decode(&hello, bytes, size, ret_consumed);
    if (r != PL_HELLO_OK) return r;
    REQUIRE(hello.tail == bytes + PL_HELLO_SERVER_HEAD && hello.tail_size == *ret_consumed - PL_HELLO_SERVER_HEAD);
    pl_hello_server_encode(again, &hello);
    REQUIRE(memcmp(again, bytes, PL_HELLO_SERVER_HEAD) == 0);
    walk_methods(&hello);
    for (const char *c = pl_hello_text(&hello, text, sizeof(text)); *c != '\0'; c++) REQUIRE((unsigned char)*c >= ' ');
    return r;
}

/* DECODE on the whole input and on all that it can be cut to. */
static void cut_everywhere(decode_fn *decode, const uint8_t *data, size_t size)
{
    size_t consumed = 0, ignored, first = size > CUTS_MAX ? size - CUTS_MAX : 0;
    uint8_t *whole = exact_copy(data, size);
    int r = decode(whole, size, &consumed);
    bool refused = false;
    REQUIRE(r <= PL_HELLO_MORE);
    if (r == PL_HELLO_OK) REQUIRE(consumed <= size);
    if (r < 0) REQUIRE(pl_error_text()[0] != '\0');
    for (size_t cut = first; cut < size; cut++) {
        uint8_t *part = exact_copy(data, cut);
        int early = decode(part, cut, &ignored);
        free(part);
        REQUIRE(!refused || early < 0);
        refused = early < 0;
        if (r == PL_HELLO_OK) REQUIRE(early == (cut < consumed ? PL_HELLO_MORE : PL_HELLO_OK));
        if (r == PL_HELLO_MORE) REQUIRE(early == PL_HELLO_MORE);
    }
    REQUIRE(!refused || r < 0);
    free(whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cut_everywhere(decode_client, data, size);
    cut_everywhere(decode_server, data, size);
    uint8_t *copy = exact_copy(data, size);
    pl_hello_looks_like(copy, size);
    free(copy);
    return 0;
}
