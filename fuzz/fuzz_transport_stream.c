/* Property: whatever bytes come on a socket, in whatever pieces, the transports hand out messages that lie in their
 * own memory and keep to the limit, say EMPTY, END or an error, and after an error or the end stay there.
 *
 * Input: what the transport is (plait frames or a framing without ids, server or client), then pieces: a
 * byte that says what follows and how much, and the bytes. */
#include "base/error.h"
#include "fuzz_wire.h"
#include "transport/transport.h"

#include <sys/socket.h>
#include <unistd.h>

enum { LIMIT = 100000 };

static uint64_t asked, given;

static bool admit(void *owner, uint64_t size)
{
    (void)owner;
    asked++;
    if (asked % 3 == 0) return false;
    given += size;
    return true;
}

static void use(struct pl_transport *transport, struct pl_message *message)
{
    unsigned sum = 0;
    REQUIRE(message->size <= LIMIT);
    REQUIRE(message->size == 0 || message->body != NULL);
    for (size_t i = 0; i < message->size; i++) sum += message->body[i];
    volatile unsigned seen = sum;
    (void)seen;
    (void)transport->ops->cancelled(transport, message->lent, message->frame.call);
    REQUIRE(message->admitted <= given);
    given -= message->admitted;
}

/* Receives until nothing is left. 0: more may come. */
static int receive_all(struct pl_transport *transport)
{
    for (int i = 0; i < 10000; i++) {
        struct pl_message message = { .size = 0 };
        uint64_t before = pl_transport_moved(transport);
        transport->ops->readable(transport); /* level-triggered, as in epoll */
        int r = transport->ops->receive(transport, &message);
        if (r == PL_TRANSPORT_EMPTY && pl_transport_moved(transport) != before) continue;
        if (r == PL_TRANSPORT_EMPTY) return 0;
        if (r == PL_TRANSPORT_END) return r;
        if (r < 0) {
            REQUIRE(pl_error_text()[0] != '\0');
            return r;
        }
        REQUIRE(r == PL_TRANSPORT_OK);
        use(transport, &message);
        pl_message_release(transport, &message);
    }
    return 0;
}

static struct pl_transport *make(int socket, unsigned choice)
{
    struct pl_transport *transport = NULL;
    if (choice % 4 == 0) {
        REQUIRE(pl_transport_stream_new(&transport, socket, "unix") == 0);
    } else {
        struct pl_idless_options options = { .framing = PL_FRAMING_RAW + choice % 4 - 1, .server = choice & 4 };
        options.until_eof = options.framing == PL_FRAMING_RAW && !options.server && choice & 8;
        REQUIRE(pl_transport_idless_new(&transport, socket, "unix", &options) == 0);
    }
    transport->max_message = LIMIT;
    transport->admit = choice & 16 ? admit : NULL;
    return transport;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int sockets[2];
    if (size < 1) return 0;
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sockets) == 0);
    asked = given = 0;
    struct pl_transport *transport = make(sockets[0], data[0]);
    data++, size--;
    int r = 0;
    while (size > 0 && r == 0) {
        uint8_t what = data[0];
        size_t piece = what & 0x80 ? size - 1 : what & 0x3f;
        data++, size--;
        if (piece > size) piece = size;
        ssize_t sent = piece > 0 ? send(sockets[1], data, piece, MSG_NOSIGNAL) : 0;
        if (sent < (ssize_t)piece) break; /* the socket is full of pieces that nobody received */
        data += piece, size -= piece;
        if (!(what & 0x40)) r = receive_all(transport);
        if (what == 1) (void)transport->ops->ready(transport);
        if (what == 2) (void)transport->ops->sleep(transport);
    }
    if (r == 0) {
        REQUIRE(shutdown(sockets[1], SHUT_WR) == 0);
        r = receive_all(transport);
        if (transport->admit == NULL) REQUIRE(r != 0);
    }
    if (r == PL_TRANSPORT_END) REQUIRE(receive_all(transport) == PL_TRANSPORT_END);
    transport->ops->close(transport);
    close(sockets[1]);
    return 0;
}
