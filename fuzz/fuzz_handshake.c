/* Property: whatever bytes and descriptors come instead of a hello, in whatever pieces, either side of the handshake
 * ends with a transport or an error with a text, within its deadline, and leaves no descriptor behind.
 *
 * Input: which side is tested and what rides along, then what the other side says. */
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "connection/handshake.h"
#include "fuzz_wire.h"
#include "shm/channel.h"
#include "shm/doorbell.h"
#include "wire/name.h"

#include <fcntl.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

/* The lowest free number tells of a descriptor that was left behind, mostly, and costs little. */
static int next_free(void)
{
    int fd = dup(0);
    if (fd >= 0) close(fd);
    return fd;
}

static void server_side(int socket, int client, const uint8_t *data, size_t size, unsigned choice)
{
    static const uint8_t table[] = { 3, 'a', 'd', 'd', 0 };
    struct pl_greeting greeting = { .size = 0 };
    struct pl_hello_client hello;
    int r = PL_HELLO_MORE;
    size_t piece = (choice >> 3) + 1;
    while (r == PL_HELLO_MORE && size > 0) {
        size_t n = piece < size ? piece : size;
        REQUIRE(send(client, data, n, MSG_NOSIGNAL) == (ssize_t)n);
        data += n, size -= n;
        r = pl_greeting_read(&greeting, socket, &hello);
        REQUIRE(greeting.size <= sizeof(greeting.bytes));
    }
    if (r == PL_HELLO_MORE) {
        REQUIRE(shutdown(client, SHUT_WR) == 0);
        r = pl_greeting_read(&greeting, socket, &hello);
        REQUIRE(r < 0);
    }
    if (r < 0) {
        REQUIRE(pl_error_text()[0] != '\0');
        pl_handshake_refuse(socket, r, pl_error_text());
        pl_close(&socket);
        return;
    }
    REQUIRE(hello.name[0] == '\0' || pl_name_valid(hello.name, strlen(hello.name)));
    struct pl_terms terms = { .instance = 1,
                              .max_message = 1000,
                              .outstanding = 1,
                              .concurrency = 1,
                              .methods = table,
                              .methods_size = sizeof(table),
                              .method_count = 2,
                              .load_fd = -1,
                              .shm = choice & 2,
                              .transport = "unix" };
    struct pl_transport *transport;
    r = pl_handshake_accept(&transport, socket, &hello, &terms);
    if (r < 0) REQUIRE(pl_error_text()[0] != '\0');
    else transport->ops->close(transport);
}

/* Descriptors as a server would send them, or nearly: the order and the number come from CHOICE. */
static size_t make_fds(int fds[PL_FDS_MAX], unsigned choice)
{
    struct pl_channel channel;
    if (!(choice & 4)) return 0;
    REQUIRE(pl_channel_create(&channel, PL_RING_CAPACITY, &fds[0]) == 0);
    pl_channel_detach(&channel);
    REQUIRE(pl_doorbell_create(&fds[1]) == 0);
    REQUIRE(pl_doorbell_create(&fds[2]) == 0);
    fds[3] = fcntl(fds[choice % 3], F_DUPFD_CLOEXEC, 0);
    if (choice & 32) {
        int first = fds[0];
        fds[0] = fds[choice >> 6 & 3];
        fds[choice >> 6 & 3] = first;
    }
    return choice & 8 ? 4 : 3;
}

static void client_side(int socket, int server, const uint8_t *data, size_t size, unsigned choice)
{
    struct pl_offer offer = { .name = "x", .max_reply = 1000, .shm = choice & 2, .transport = "unix" };
    struct pl_accepted accepted;
    struct pl_transport *transport;
    int fds[PL_FDS_MAX];
    size_t count = make_fds(fds, choice);
    if (size > 60000) size = 60000;
    if (size > 0) REQUIRE(pl_fd_send(server, data, size, fds, count) == (ssize_t)size);
    for (size_t i = 0; i < (choice & 4 ? 4 : 0); i++) pl_close(&fds[i]);
    REQUIRE(shutdown(server, SHUT_WR) == 0);
    int r = pl_handshake_connect(&transport, socket, &offer, pl_clock_ns() + 1000000000, &accepted);
    if (r < 0) {
        REQUIRE(pl_error_text()[0] != '\0');
        return;
    }
    for (uint32_t i = 0; i < accepted.method_count; i++) REQUIRE(strlen(accepted.methods[i]) <= PLAIT_NAME_MAX);
    REQUIRE(accepted.concurrency > 0);
    free(accepted.methods);
    pl_load_detach(accepted.load);
    transport->ops->close(transport);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int sockets[2];
    if (size < 1) return 0;
    unsigned choice = data[0];
    data++, size--;
    int before = next_free();
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sockets) == 0);
    if (choice & 1) server_side(sockets[0], sockets[1], data, size, choice);
    else client_side(sockets[0], sockets[1], data, size, choice);
    close(sockets[1]);
    REQUIRE(next_free() == before);
    return 0;
}
