/* column_socket: a program that has a socket and knows where its messages end, and nothing else. */
#include "conformance/conformance.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct plain_client {
    int fd;
    enum framing framing;
    bool until_eof;
    bool received; /* a datagram, which may be empty */
};

static void *socket_open(const struct cell *cell, const char *url, const struct settings *settings)
{
    struct plain_client *own = calloc(1, sizeof(*own));
    CHECK(own != NULL);
    *own = (struct plain_client){ connect_to(url), cell->framing, settings->until_eof, false };
    return own;
}

/* The request as bytes; to be freed. */
static char *frame(const struct plain_client *own, const void *data, size_t size, size_t *ret_size)
{
    size_t before = own->framing == FRAMING_LENGTH ? 4 : 0, after = own->framing == FRAMING_LINES;
    char *bytes = malloc(before + size + after + 1);
    CHECK(bytes != NULL);
    for (size_t i = 0; i < before; i++) bytes[i] = (char)(size >> (24 - 8 * i));
    if (size > 0) memcpy(bytes + before, data, size);
    if (after) bytes[before + size] = '\n';
    *ret_size = before + size + after;
    return bytes;
}

/* Whether DATA is a whole reply, whose body is then *RET_BODY. */
static bool whole(const struct plain_client *own, const char *data, size_t size, size_t *ret_offset, size_t *ret_size)
{
    const unsigned char *head = (const unsigned char *)data;
    *ret_offset = own->framing == FRAMING_LENGTH ? 4 : 0;
    *ret_size = size;
    if (own->framing == FRAMING_RAW) return !own->until_eof && size > 0;
    if (own->framing == FRAMING_DATAGRAM) return own->received;
    if (own->framing == FRAMING_LINES) {
        if (size == 0 || data[size - 1] != '\n') return false;
        *ret_size = size - 1;
        return true;
    }
    if (size < 4) return false;
    *ret_size = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
    return size >= *ret_size + 4;
}

/* Sends and receives at once, as one must when both are large. */
static void socket_call(void *client, const char *method, const void *data, size_t size, int64_t timeout,
                        struct answer *answer)
{
    struct plain_client *own = client;
    size_t left, received = 0, room = 1 << 16, offset = 0, body = 0;
    char *request = frame(own, data, size, &left), *next = request, *reply = malloc(room + 1);
    ssize_t n = 1;
    bool unsent = own->framing == FRAMING_DATAGRAM; /* an empty one goes out, too */
    own->received = false;
    (void)method, (void)timeout;
    *answer = (struct answer){ .result = -ECONNRESET };
    if (left == 0 && own->until_eof) shutdown(own->fd, SHUT_WR);
    while (n > 0 && (left > 0 || unsent || !whole(own, reply, received, &offset, &body))) {
        struct pollfd event = { .fd = own->fd, .events = (short)(POLLIN | (left > 0 || unsent ? POLLOUT : 0)) };
        CHECK(reply != NULL);
        CHECK_INT(poll(&event, 1, 30000), 1);
        if (event.revents & POLLOUT) {
            ssize_t sent = send(own->fd, next, left, MSG_NOSIGNAL | MSG_DONTWAIT);
            unsent = false;
            if (sent > 0) {
                next += sent;
                left -= (size_t)sent;
                if (left == 0 && own->until_eof) shutdown(own->fd, SHUT_WR);
            }
        }
        if (!(event.revents & (POLLIN | POLLHUP | POLLERR))) continue;
        if (room - received < 1 << 16) reply = realloc(reply, 1 + (room *= 2));
        n = recv(own->fd, reply + received, room - received, 0);
        if (n > 0) received += (size_t)n;
        if (own->framing == FRAMING_DATAGRAM) {
            CHECK(n >= 0);
            own->received = true;
            break;
        }
    }
    bool complete = own->until_eof ? n == 0 : whole(own, reply, received, &offset, &body);
    if (complete) {
        if (own->until_eof) body = received;
        memmove(reply, reply + offset, body);
        reply[body] = 0;
        *answer = (struct answer){ .data = reply, .size = body };
        reply = NULL;
    }
    free(reply);
    free(request);
}

static void socket_close(void *client)
{
    struct plain_client *own = client;
    close(own->fd);
    free(own);
}

const struct column column_socket = {
    .name = "socket",
    .framings = IDLESS,
    .can = CALLS | SOCKETS | OWN_SERVICE | ONE_PROCESS | SIZES,
    .patience = 2000,
    .serve = service_run_own,
    .open = socket_open,
    .call = socket_call,
    .close = socket_close,
};
