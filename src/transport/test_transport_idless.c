#include "transport/test_pair.h"

/* A transport on one end, plain bytes on the other. */
struct end {
    struct pl_transport *transport;
    int plain;
};

static void open_end(struct end *end, enum pl_framing framing, bool server, bool until_eof)
{
    int sockets[2];
    struct pl_idless_options options = { .framing = framing, .server = server, .until_eof = until_eof };
    socket_pair(sockets);
    CHECK_INT(pl_transport_idless_new(&end->transport, sockets[0], "tcp", &options), 0);
    end->plain = sockets[1];
    end->transport->max_message = 1 << 20;
}

static void close_end(struct end *end)
{
    end->transport->ops->close(end->transport);
    pl_close(&end->plain);
}

static void say(struct end *end, const char *text)
{
    CHECK_INT(send(end->plain, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
    end->transport->ops->readable(end->transport);
}

static void check_next(struct end *end, enum pl_frame_kind kind, const char *text)
{
    struct pl_message message;
    CHECK_INT(end->transport->ops->receive(end->transport, &message), PL_TRANSPORT_OK);
    CHECK_INT(message.frame.kind, kind);
    CHECK_INT(message.size, strlen(text));
    CHECK_MEM(message.body, text, strlen(text));
    pl_message_release(end->transport, &message);
}

static void check_outcome(struct end *end, int outcome)
{
    struct pl_message message;
    CHECK_INT(end->transport->ops->receive(end->transport, &message), outcome);
}

static int answer(struct end *end, uint32_t status, const char *text)
{
    struct pl_frame frame = { .kind = PL_FRAME_REPLY, .method = status, .size = (uint32_t)strlen(text) };
    return end->transport->ops->send(end->transport, &frame, text, false);
}

static void check_plain(struct end *end, const char *bytes, size_t size)
{
    char got[256];
    CHECK_INT(recv(end->plain, got, sizeof(got), MSG_DONTWAIT), (ssize_t)size);
    CHECK_MEM(got, bytes, size);
}

TEST(each_line_is_a_call_and_each_answer_a_line)
{
    struct end end;
    open_end(&end, PL_FRAMING_LINES, true, false);
    say(&end, "one\ntwo\nthr");
    check_next(&end, PL_FRAME_CALL, "one");
    check_next(&end, PL_FRAME_CALL, "two");
    check_outcome(&end, PL_TRANSPORT_EMPTY);
    CHECK(end.transport->partial);
    say(&end, "ee\n");
    check_next(&end, PL_FRAME_CALL, "three");
    CHECK_INT(answer(&end, 0, "eins"), PL_TRANSPORT_OK);
    check_plain(&end, "eins\n", 5);
    close_end(&end);
}

TEST(an_answer_with_a_newline_is_refused_and_nothing_is_sent)
{
    struct end end;
    char byte;
    open_end(&end, PL_FRAMING_LINES, true, false);
    CHECK_INT(answer(&end, 0, "a\nb"), -EINVAL);
    CHECK_INT(recv(end.plain, &byte, 1, MSG_DONTWAIT), -1);
    close_end(&end);
}

TEST(a_failure_is_one_line_in_raw_and_lines)
{
    for (int framing = PL_FRAMING_RAW; framing <= PL_FRAMING_LINES; framing++) {
        struct end end;
        open_end(&end, framing, true, false);
        CHECK_INT(answer(&end, 5, "no such file\nline 2"), PL_TRANSPORT_OK);
        check_plain(&end, "error: no such file\n", 20);
        close_end(&end);
    }
}

TEST(a_failure_has_no_words_in_length)
{
    struct end end;
    open_end(&end, PL_FRAMING_LENGTH, true, false);
    CHECK_INT(answer(&end, 5, "no"), -ECONNABORTED);
    CHECK_CONTAINS(plait_error_text(), "length");
    close_end(&end);
}

TEST(length_carries_any_bytes)
{
    struct end end;
    open_end(&end, PL_FRAMING_LENGTH, true, false);
    CHECK_INT(send(end.plain, "\0\0\0\3a\nb\0\0\0\0", 11, 0), 11);
    check_next(&end, PL_FRAME_CALL, "a\nb");
    check_next(&end, PL_FRAME_CALL, "");
    CHECK_INT(answer(&end, 0, "x\ny"), PL_TRANSPORT_OK);
    check_plain(&end, "\0\0\0\3x\ny", 7);
    close_end(&end);
}

TEST(a_length_beyond_the_limit_ends_the_connection_at_once)
{
    struct end end;
    struct pl_message message;
    open_end(&end, PL_FRAMING_LENGTH, true, false);
    CHECK_INT(send(end.plain, "\x7f\xff\xff\xff", 4, 0), 4);
    CHECK(end.transport->ops->receive(end.transport, &message) < 0);
    CHECK_CONTAINS(plait_error_text(), "max_message");
    close_end(&end);
}

TEST(what_came_at_once_is_one_raw_call)
{
    struct end end;
    open_end(&end, PL_FRAMING_RAW, true, false);
    say(&end, "GET /\n\n");
    check_next(&end, PL_FRAME_CALL, "GET /\n\n");
    check_outcome(&end, PL_TRANSPORT_EMPTY);
    CHECK_INT(answer(&end, 0, "hello"), PL_TRANSPORT_OK);
    check_plain(&end, "hello", 5);
    close_end(&end);
}

TEST(the_end_of_the_client_without_bytes_is_no_call)
{
    for (int framing = PL_FRAMING_RAW; framing <= PL_FRAMING_LENGTH; framing++) {
        struct end end;
        open_end(&end, framing, true, false);
        CHECK_INT(shutdown(end.plain, SHUT_WR), 0);
        check_outcome(&end, PL_TRANSPORT_END);
        check_outcome(&end, PL_TRANSPORT_END);
        close_end(&end);
    }
}

TEST(a_client_s_raw_reply_is_all_that_is_there)
{
    struct end end;
    struct pl_frame call = frame_of(PL_FRAME_CALL, 1, 2);
    open_end(&end, PL_FRAMING_RAW, false, false);
    CHECK_INT(end.transport->ops->send(end.transport, &call, "hi", false), PL_TRANSPORT_OK);
    check_plain(&end, "hi", 2);
    check_outcome(&end, PL_TRANSPORT_EMPTY);
    say(&end, "part one, ");
    say(&end, "part two");
    check_next(&end, PL_FRAME_REPLY, "part one, part two");
    close_end(&end);
}

TEST(until_eof_half_closes_after_the_request_and_takes_all)
{
    struct end end;
    struct pl_frame call = frame_of(PL_FRAME_CALL, 1, 2);
    char byte;
    open_end(&end, PL_FRAMING_RAW, false, true);
    CHECK_INT(end.transport->ops->send(end.transport, &call, "hi", false), PL_TRANSPORT_OK);
    check_plain(&end, "hi", 2);
    CHECK_INT(recv(end.plain, &byte, 1, 0), 0); /* our end of it */
    say(&end, "a");
    check_outcome(&end, PL_TRANSPORT_EMPTY);
    say(&end, "b\n");
    check_outcome(&end, PL_TRANSPORT_EMPTY);
    pl_close(&end.plain);
    end.transport->ops->readable(end.transport);
    check_next(&end, PL_FRAME_REPLY, "ab\n");
    check_outcome(&end, PL_TRANSPORT_END);
    close_end(&end);
}

TEST(until_eof_without_a_byte_is_an_empty_reply)
{
    struct end end;
    struct pl_frame call = frame_of(PL_FRAME_CALL, 1, 0);
    open_end(&end, PL_FRAMING_RAW, false, true);
    CHECK_INT(end.transport->ops->send(end.transport, &call, NULL, false), PL_TRANSPORT_OK);
    pl_close(&end.plain);
    check_next(&end, PL_FRAME_REPLY, "");
    check_outcome(&end, PL_TRANSPORT_END);
    close_end(&end);
}

TEST(until_eof_has_a_limit)
{
    struct end end;
    struct pl_message message;
    open_end(&end, PL_FRAMING_RAW, false, true);
    end.transport->max_message = 10;
    say(&end, "more than ten");
    CHECK_INT(end.transport->ops->receive(end.transport, &message), -EMSGSIZE);
    CHECK_CONTAINS(plait_error_text(), "max_message=10");
    close_end(&end);
}

/* The half-close waits for the bytes that the kernel didn't take. */
TEST(until_eof_closes_after_what_is_pending)
{
    struct end end;
    size_t size = 3 << 20, done = 0;
    uint8_t *body = pattern(size, 1), *got = malloc(size);
    struct pl_frame call = frame_of(PL_FRAME_CALL, 1, size);
    open_end(&end, PL_FRAMING_RAW, false, true);
    CHECK_INT(end.transport->ops->send(end.transport, &call, body, true), PL_TRANSPORT_OK);
    CHECK(end.transport->ops->pending(end.transport));
    ssize_t n = 1;
    while (n != 0) {
        n = recv(end.plain, got + done, size - done + 1 > size ? size : size - done + 1, MSG_DONTWAIT);
        if (n > 0) done += (size_t)n;
        else if (n < 0) CHECK_INT(errno, EAGAIN);
        CHECK(end.transport->ops->flush(end.transport) >= 0);
    }
    CHECK_INT(done, size);
    CHECK_MEM(got, body, size);
    free(got);
    free(body);
    close_end(&end);
}

static uint64_t reserved;

static bool admit(void *owner, uint64_t size)
{
    (void)owner;
    reserved += size;
    return true;
}

TEST(a_growing_message_is_reserved_once_and_told)
{
    struct end end;
    struct pl_message message;
    size_t size = (2 << 20) + 4, done = 0;
    uint8_t *bytes = calloc(1, size);
    open_end(&end, PL_FRAMING_LENGTH, true, false);
    end.transport->max_message = 4 << 20;
    end.transport->admit = admit;
    bytes[1] = 0x20; /* 2 MiB */
    int r = PL_TRANSPORT_EMPTY;
    while (r == PL_TRANSPORT_EMPTY) {
        ssize_t n = done < size ? send(end.plain, bytes + done, size - done, MSG_DONTWAIT) : 0;
        if (n > 0) done += (size_t)n;
        end.transport->ops->readable(end.transport);
        r = end.transport->ops->receive(end.transport, &message);
    }
    CHECK_INT(r, PL_TRANSPORT_OK);
    CHECK_INT(message.size, 2 << 20);
    CHECK_INT(message.admitted, reserved);
    pl_message_release(end.transport, &message);
    free(bytes);
    close_end(&end);
}

TEST(nothing_here_can_be_cancelled)
{
    struct end end;
    open_end(&end, PL_FRAMING_LINES, true, false);
    say(&end, "one\n");
    CHECK(!end.transport->ops->cancelled(end.transport, 4, 0));
    CHECK_INT(end.transport->bell, -1);
    CHECK_STR(end.transport->ops->name, "tcp");
    close_end(&end);
}
