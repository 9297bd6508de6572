/* Property: what is accepted has one canonical text: formatting it gives a URL that is accepted, is
 * field for field the same, and formats to itself; what is refused says why in printable words.
 */
#include "base/error.h"
#include "fuzz_wire.h"
#include "wire/name.h"
#include "wire/url.h"
#include <errno.h>

enum { TEXT_ROOM = 8192 };

static void require_sane(const struct pl_url *url)
{
    bool inet = url->scheme == PL_SCHEME_TCP || url->scheme == PL_SCHEME_UDP;
    REQUIRE(url->scheme == PL_SCHEME_NAME || url->scheme == PL_SCHEME_UNIX || inet);
    REQUIRE((url->scheme == PL_SCHEME_UNIX) == (url->path[0] == '/'));
    REQUIRE(inet == (url->host[0] != '\0'));
    REQUIRE(url->scheme != PL_SCHEME_UDP || (url->framing == PL_FRAMING_RAW && !url->until_eof));
    REQUIRE(url->name[0] == '\0' || pl_name_valid(url->name, strlen(url->name)));
    REQUIRE(url->scheme != PL_SCHEME_NAME || url->name[0] != '\0');
    REQUIRE(url->method[0] == '\0' || pl_name_valid_method(url->method, strlen(url->method)));
    REQUIRE(url->max_message <= (url->scheme == PL_SCHEME_UDP ? PLAIT_DATAGRAM_MAX : PLAIT_MESSAGE_MAX));
}

static void require_equal(const struct pl_url *a, const struct pl_url *b)
{
    REQUIRE(a->scheme == b->scheme && a->framing == b->framing && a->port == b->port);
    REQUIRE(strcmp(a->host, b->host) == 0 && strcmp(a->path, b->path) == 0);
    REQUIRE(strcmp(a->name, b->name) == 0 && strcmp(a->method, b->method) == 0);
    REQUIRE(a->max_message == b->max_message && a->until_eof == b->until_eof);
    REQUIRE(a->shm_off == b->shm_off && a->insecure == b->insecure);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char canonical[TEXT_ROOM], again[TEXT_ROOM];
    struct pl_url url, second;
    char *text = exact_text(data, size);

    int r = pl_url_parse(&url, text);
    free(text);
    if (r < 0) {
        REQUIRE(r == -EINVAL || r == -EPROTONOSUPPORT);
        REQUIRE(pl_error_text()[0] != '\0');
        for (const char *c = pl_error_text(); *c != '\0'; c++) REQUIRE((unsigned char)*c >= ' ' && *c != 0x7f);
        return 0;
    }
    require_sane(&url);
    pl_url_format(&url, canonical, sizeof(canonical));
    REQUIRE(pl_url_parse(&second, canonical) == 0);
    require_equal(&url, &second);
    REQUIRE(strcmp(pl_url_format(&second, again, sizeof(again)), canonical) == 0);
    return 0;
}
