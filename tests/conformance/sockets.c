/* sockets: what a program with a bare socket sees of a listener with raw, lines or length. */
#include "conformance/conformance.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void send_all(int fd, const void *data, size_t size)
{
    const char *next = data;
    while (size > 0) {
        ssize_t n = send(fd, next, size, MSG_NOSIGNAL);
        CHECK(n > 0);
        next += n;
        size -= (size_t)n;
    }
}

/* Exactly SIZE bytes, or what comes until the end; returns how many. */
static size_t receive(int fd, char *data, size_t size)
{
    size_t received = 0;
    while (received < size) {
        struct pollfd event = { .fd = fd, .events = POLLIN };
        CHECK_INT(poll(&event, 1, 30000), 1);
        ssize_t n = recv(fd, data + received, size - received, 0);
        if (n == 0 || (n < 0 && errno == ECONNRESET)) break;
        CHECK(n > 0);
        received += (size_t)n;
    }
    return received;
}

/* TEXT as a message; *RET_SIZE its size. */
static const char *framed(const struct cell *cell, const char *text, size_t *ret_size)
{
    static char bytes[256];
    size_t size = strlen(text);
    if (cell->framing == FRAMING_LENGTH) {
        memcpy(bytes, (char[]){ 0, 0, 0, (char)size }, 4);
        memcpy(bytes + 4, text, size);
        *ret_size = size + 4;
    } else {
        *ret_size = (size_t)snprintf(bytes, sizeof(bytes), "%s%s", text, cell->framing == FRAMING_LINES ? "\n" : "");
    }
    return bytes;
}

/* The next reply is TEXT. */
static void expect(const struct cell *cell, int fd, const char *text)
{
    char got[256] = "";
    size_t size;
    const char *expected = framed(cell, text, &size);
    CHECK_INT(receive(fd, got, size), size);
    CHECK_MEM(got, expected, size);
}

static void expect_end(int fd)
{
    char more[64];
    CHECK_INT(receive(fd, more, sizeof(more)), 0);
}

static void send_message(const struct cell *cell, int fd, const char *text)
{
    size_t size;
    const char *bytes = framed(cell, text, &size);
    send_all(fd, bytes, size);
}

BEHAVIOUR(a_request_before_fin_is_answered_then_the_server_closes, STREAMED, SOCKETS)
{
    struct service service;
    service_start(&service, cell, "echo", NULL);
    int fd = connect_to(service_url(&service, "echo"));
    send_message(cell, fd, "last words");
    shutdown(fd, SHUT_WR);
    expect(cell, fd, "last words");
    expect_end(fd);
    close(fd);
    service_stop(&service);
}

BEHAVIOUR(a_deferred_request_before_fin_is_answered_too, STREAMED, SOCKETS)
{
    struct service service;
    service_start(&service, cell, "later", NULL);
    int fd = connect_to(service_url(&service, "later"));
    send_message(cell, fd, "last words");
    shutdown(fd, SHUT_WR);
    expect(cell, fd, "last words");
    expect_end(fd);
    close(fd);
    service_stop(&service);
}

BEHAVIOUR(a_last_line_may_lack_its_newline, LINES, SOCKETS)
{
    struct service service;
    service_start(&service, cell, "echo", NULL);
    int fd = connect_to(service_url(&service, "echo"));
    send_all(fd, "one\r\ntwo", 8);
    shutdown(fd, SHUT_WR);
    expect(cell, fd, "one");
    expect(cell, fd, "two");
    expect_end(fd);
    close(fd);
    service_stop(&service);
}

BEHAVIOUR(fin_without_data_is_no_request, STREAMED, SOCKETS)
{
    struct service service;
    struct answer answer;
    service_start(&service, cell, "note noted", NULL);
    int fd = connect_to(service_url(&service, "note"));
    shutdown(fd, SHUT_WR);
    expect_end(fd);
    close(fd);
    call_once(cell, &service, "noted", "?", 1, &answer);
    CHECK_STR(answer.data, "0, 0 out of turn");
    answer_free(&answer);
    service_stop(&service);
}

BEHAVIOUR(an_end_inside_a_message_closes_without_a_reply, LENGTH, SOCKETS)
{
    struct service service;
    service_start(&service, cell, "echo", NULL);
    int fd = connect_to(service_url(&service, "echo"));
    send_all(fd, "\0\0\0\7half", 8);
    shutdown(fd, SHUT_WR);
    expect_end(fd);
    close(fd);
    service_stop(&service);
}

BEHAVIOUR(pipelined_requests_are_answered_in_order, LINES | LENGTH, SOCKETS)
{
    enum { COUNT = 500 };
    struct service service;
    char text[32];
    service_start(&service, cell, "later echo", NULL);
    for (int way = 0; way < 2; way++) { /* answered in the handler, and by threads: still one after the other */
        int fd = connect_to(service_url(&service, way ? "later" : "echo"));
        for (int i = 0; i < COUNT; i++) {
            snprintf(text, sizeof(text), "request %d", i);
            send_message(cell, fd, text);
        }
        for (int i = 0; i < COUNT; i++) {
            snprintf(text, sizeof(text), "request %d", i);
            expect(cell, fd, text);
        }
        close(fd);
    }
    service_stop(&service);
}

BEHAVIOUR(a_failure_comes_after_earlier_replies, LINES | LENGTH, SOCKETS)
{
    struct service service;
    service_start(&service, cell, "sometimes", NULL);
    int fd = connect_to(service_url(&service, "sometimes"));
    send_message(cell, fd, "good");
    send_message(cell, fd, "a");
    expect(cell, fd, "good");
    if (cell->framing == FRAMING_LINES) {
        send_message(cell, fd, "b");
        expect(cell, fd, "error: boom: a");
        expect(cell, fd, "error: boom: b");
    } else {
        expect_end(fd);
    }
    close(fd);
    service_stop(&service);
}

BEHAVIOUR(a_slow_sender_is_served_and_holds_up_nobody, STREAMED, SOCKETS)
{
    struct service service;
    size_t size;
    service_start(&service, cell, "echo", NULL);
    int fd = connect_to(service_url(&service, "echo")), other = connect_to(service_url(&service, "echo"));
    const char *bytes = framed(cell, "byte by byte", &size);
    char copy[64]; /* framed() has one place for its bytes */
    CHECK(size <= sizeof(copy));
    memcpy(copy, bytes, size);
    for (size_t i = 0; i < size; i++) {
        send_all(fd, copy + i, 1);
        send_message(cell, other, "quick"); /* its answer shows that the server has been there */
        expect(cell, other, "quick");
    }
    expect(cell, fd, "byte by byte");
    close(fd);
    close(other);
    service_stop(&service);
}

/* A client that never reads: its replies pile up to a bound, then nothing more is read from it. */
BEHAVIOUR(a_client_that_does_not_read_harms_nobody, LINES | LENGTH, SOCKETS)
{
    struct service service;
    struct answer answer;
    size_t sent = 0, size;
    service_start(&service, cell, "bytes echo", NULL);
    int fd = connect_to(service_url(&service, "bytes"));
    const char *bytes = framed(cell, "1000000", &size);
    while (sent < 1000) { /* until the socket is full, or enough */
        ssize_t n = send(fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) break;
        sent++;
    }
    call_once(cell, &service, "echo", "ok", 2, &answer);
    CHECK_STR(answer.data, "ok");
    answer_free(&answer);
    close(fd);
    service_stop(&service);
}
