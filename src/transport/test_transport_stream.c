#include "transport/test_pair.h"

struct ends {
    struct pl_transport *a, *b;
    int sockets[2];
};

static void open_ends(struct ends *ends)
{
    socket_pair(ends->sockets);
    CHECK_INT(pl_transport_stream_new(&ends->a, ends->sockets[0], "unix"), 0);
    CHECK_INT(pl_transport_stream_new(&ends->b, ends->sockets[1], "unix"), 0);
    ends->a->max_message = ends->b->max_message = PLAIT_MESSAGE_MAX;
}

static void close_ends(struct ends *ends)
{
    if (ends->a) ends->a->ops->close(ends->a);
    if (ends->b) ends->b->ops->close(ends->b);
}

/* Bytes that no transport would send. */
static void forge(struct ends *ends, const void *data, size_t size)
{
    CHECK_INT(send(ends->sockets[0], data, size, MSG_NOSIGNAL), (ssize_t)size);
    ends->b->ops->readable(ends->b);
}

static void forge_frame(struct ends *ends, const struct pl_frame *frame)
{
    uint8_t head[PL_FRAME_HEAD];
    pl_frame_encode(head, frame);
    forge(ends, head, sizeof(head));
}

TEST(messages_of_every_size_arrive_whole_and_in_order)
{
    static const size_t sizes[] = { 0, 1, 31, 32, 8191, 8192, 8193, 16384, 65536, 300000, 5 << 20 };
    struct ends ends;
    struct pl_message message;
    open_ends(&ends);
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        send_pattern(ends.a, i + 1, sizes[i], i);
        CHECK_INT(receive_pushing(ends.b, ends.a, &message), PL_TRANSPORT_OK);
        CHECK_INT(message.frame.kind, PL_FRAME_CALL);
        check_message(&message, i + 1, sizes[i], i);
        CHECK((message.lent != 0) != (message.owned != NULL));
        pl_message_release(ends.b, &message);
        CHECK_INT(ends.b->ops->receive(ends.b, &message), PL_TRANSPORT_EMPTY);
        CHECK(!ends.b->partial);
    }
    close_ends(&ends);
}

TEST(many_small_messages_are_received_with_few_looks)
{
    struct ends ends;
    struct pl_message message;
    open_ends(&ends);
    for (unsigned i = 0; i < 100; i++) send_pattern(ends.a, i, 10, i);
    for (unsigned i = 0; i < 100; i++) {
        CHECK_INT(ends.b->ops->receive(ends.b, &message), PL_TRANSPORT_OK);
        check_message(&message, i, 10, i);
        pl_message_release(ends.b, &message);
    }
    CHECK_INT(ends.b->ops->receive(ends.b, &message), PL_TRANSPORT_EMPTY);
    close_ends(&ends);
}

TEST(a_message_in_pieces_is_partial_until_it_is_whole)
{
    struct ends ends;
    struct pl_message message;
    struct pl_frame frame = frame_of(PL_FRAME_CALL, 7, 20000);
    uint8_t bytes[PL_FRAME_HEAD], *body = pattern(20000, 1);
    open_ends(&ends);
    pl_frame_encode(bytes, &frame);
    forge(&ends, bytes, 10);
    CHECK_INT(ends.b->ops->receive(ends.b, &message), PL_TRANSPORT_EMPTY);
    CHECK(ends.b->partial);
    forge(&ends, bytes + 10, sizeof(bytes) - 10);
    CHECK_INT(ends.b->ops->receive(ends.b, &message), PL_TRANSPORT_EMPTY);
    forge(&ends, body, 19999);
    CHECK_INT(ends.b->ops->receive(ends.b, &message), PL_TRANSPORT_EMPTY);
    CHECK(ends.b->partial);
    forge(&ends, body + 19999, 1);
    CHECK_INT(ends.b->ops->receive(ends.b, &message), PL_TRANSPORT_OK);
    CHECK(!ends.b->partial);
    check_message(&message, 7, 20000, 1);
    pl_message_release(ends.b, &message);
    free(body);
    close_ends(&ends);
}

TEST(the_end_in_the_middle_of_a_message_is_the_end)
{
    struct ends ends;
    struct pl_message message;
    struct pl_frame frame = frame_of(PL_FRAME_CALL, 7, 20000);
    open_ends(&ends);
    send_pattern(ends.a, 1, 5, 5);
    forge_frame(&ends, &frame);
    ends.a->ops->close(ends.a);
    ends.a = NULL;
    CHECK_INT(ends.b->ops->receive(ends.b, &message), PL_TRANSPORT_OK);
    pl_message_release(ends.b, &message);
    CHECK_INT(receive_pushing(ends.b, NULL, &message), PL_TRANSPORT_END);
    close_ends(&ends);
}

TEST(frames_that_belong_elsewhere_break_the_protocol)
{
    static const struct pl_frame forged[] = {
        { .kind = PL_FRAME_PAD, .size = 0 },
        { .kind = PL_FRAME_CALL, .flags = PL_FRAME_IN_SEGMENT, .size = PL_FRAME_SEGMENT_SIZE },
        { .kind = PL_FRAME_CALL, .flags = PL_FRAME_ON_SOCKET, .size = 8 },
        { .kind = 99 },
    };
    for (size_t i = 0; i < sizeof(forged) / sizeof(forged[0]); i++) {
        struct ends ends;
        struct pl_message message;
        open_ends(&ends);
        forge_frame(&ends, &forged[i]);
        CHECK_INT(ends.b->ops->receive(ends.b, &message), -EPROTO);
        CHECK(plait_error_text()[0] != 0);
        close_ends(&ends);
    }
}

TEST(an_unknown_frame_that_may_be_ignored_is_skipped_with_its_payload)
{
    struct ends ends;
    struct pl_message message;
    struct pl_frame unknown = { .kind = 99, .flags = PL_FRAME_IGNORABLE, .size = 40000 };
    uint8_t *payload = pattern(40000, 9);
    open_ends(&ends);
    forge_frame(&ends, &unknown);
    CHECK_INT(ends.b->ops->receive(ends.b, &message), PL_TRANSPORT_EMPTY);
    CHECK(ends.b->partial);
    forge(&ends, payload, 40000);
    send_pattern(ends.a, 3, 100, 1);
    CHECK_INT(receive_pushing(ends.b, NULL, &message), PL_TRANSPORT_OK);
    check_message(&message, 3, 100, 1);
    pl_message_release(ends.b, &message);
    free(payload);
    close_ends(&ends);
}

TEST(a_message_beyond_the_limit_ends_the_connection_before_its_body_is_read)
{
    struct ends ends;
    struct pl_message message;
    struct pl_frame large = frame_of(PL_FRAME_CALL, 1, 100001);
    open_ends(&ends);
    ends.b->max_message = 100000;
    forge_frame(&ends, &large);
    CHECK_INT(ends.b->ops->receive(ends.b, &message), -EPROTO);
    CHECK_CONTAINS(plait_error_text(), "100000");
    close_ends(&ends);
}

/* ---- admission ---- */

static int asked, answer_yes;

static bool admit(void *owner, uint64_t size)
{
    CHECK(owner == &asked);
    CHECK_INT(size, 2 << 20);
    asked++;
    return answer_yes;
}

TEST(a_large_body_is_received_once_it_is_admitted_and_reserved_once)
{
    struct ends ends;
    struct pl_message message;
    open_ends(&ends);
    ends.b->admit = admit;
    ends.b->owner = &asked;
    send_pattern(ends.a, 1, 2 << 20, 2);
    CHECK_INT(ends.b->ops->receive(ends.b, &message), PL_TRANSPORT_EMPTY);
    CHECK_INT(ends.b->ops->receive(ends.b, &message), PL_TRANSPORT_EMPTY);
    CHECK_INT(asked, 2);
    answer_yes = 1;
    CHECK_INT(receive_pushing(ends.b, ends.a, &message), PL_TRANSPORT_OK);
    CHECK_INT(asked, 3);
    CHECK_INT(message.admitted, 2 << 20);
    check_message(&message, 1, 2 << 20, 2);
    pl_message_release(ends.b, &message);
    close_ends(&ends);
}

/* ---- cancelling ---- */

TEST(a_cancel_behind_the_message_at_hand_is_found)
{
    struct ends ends;
    struct pl_message message;
    struct pl_frame cancel = frame_of(PL_FRAME_CANCEL, 11, 0);
    open_ends(&ends);
    send_pattern(ends.a, 11, 100, 1);
    CHECK_INT(ends.b->ops->receive(ends.b, &message), PL_TRANSPORT_OK);
    CHECK(!ends.b->ops->cancelled(ends.b, message.lent, 11));
    send_pattern(ends.a, 12, 50, 1);
    CHECK_INT(ends.a->ops->send(ends.a, &cancel, NULL, false), PL_TRANSPORT_OK);
    CHECK(ends.b->ops->cancelled(ends.b, message.lent, 11));
    CHECK(!ends.b->ops->cancelled(ends.b, message.lent, 12));
    check_message(&message, 11, 100, 1); /* nothing moved */
    pl_message_release(ends.b, &message);
    CHECK_INT(ends.b->ops->receive(ends.b, &message), PL_TRANSPORT_OK);
    check_message(&message, 12, 50, 1);
    pl_message_release(ends.b, &message);
    CHECK_INT(ends.b->ops->receive(ends.b, &message), PL_TRANSPORT_OK);
    CHECK_INT(message.frame.kind, PL_FRAME_CANCEL);
    pl_message_release(ends.b, &message);
    close_ends(&ends);
}

TEST(a_walk_for_a_cancel_stops_at_pieces_and_lies)
{
    uint8_t bytes[3 * PL_FRAME_HEAD];
    struct pl_frame call = frame_of(PL_FRAME_CALL, 1, 32), cancel = frame_of(PL_FRAME_CANCEL, 1, 0);
    pl_frame_encode(bytes, &call);
    memset(bytes + PL_FRAME_HEAD, 0xff, PL_FRAME_HEAD);
    pl_frame_encode(bytes + 2 * PL_FRAME_HEAD, &cancel);
    CHECK(pl_transport_find_cancel(bytes, sizeof(bytes), 32, 1));
    CHECK(!pl_transport_find_cancel(bytes, sizeof(bytes) - 1, 32, 1));
    CHECK(!pl_transport_find_cancel(bytes, PL_FRAME_HEAD + 31, 32, 1));
    CHECK(!pl_transport_find_cancel(bytes + PL_FRAME_HEAD, 2 * PL_FRAME_HEAD, 32, 1));
    CHECK(!pl_transport_find_cancel(bytes, 0, 32, 1));
}

/* ---- the other operations ---- */

TEST(a_body_that_may_be_borrowed_is_not_copied)
{
    struct ends ends;
    struct pl_message message;
    size_t size = 4 << 20;
    struct pl_frame frame = frame_of(PL_FRAME_CALL, 5, size);
    uint8_t *body = pattern(size, 4);
    open_ends(&ends);
    CHECK_INT(ends.a->ops->send(ends.a, &frame, body, true), PL_TRANSPORT_OK);
    CHECK(ends.a->ops->pending(ends.a));
    CHECK_INT(ends.a->ops->send(ends.a, &frame, body, true), PL_TRANSPORT_FULL);
    CHECK_INT(ends.a->ops->flush(ends.a), PL_TRANSPORT_FULL);
    CHECK_INT(ends.a->ops->own(ends.a), 0);
    free(body);
    CHECK_INT(receive_pushing(ends.b, ends.a, &message), PL_TRANSPORT_OK);
    check_message(&message, 5, size, 4);
    pl_message_release(ends.b, &message);
    CHECK(!ends.a->ops->pending(ends.a));
    close_ends(&ends);
}

TEST(progress_shows_in_what_moved)
{
    struct ends ends;
    struct pl_message message;
    open_ends(&ends);
    CHECK_INT(ends.b->ops->receive(ends.b, &message), PL_TRANSPORT_EMPTY);
    CHECK(!ends.b->ops->ready(ends.b));
    CHECK_INT(pl_transport_moved(ends.a), 0);
    send_pattern(ends.a, 1, 100, 1);
    CHECK_INT(pl_transport_moved(ends.a), 132);
    CHECK(ends.b->ops->ready(ends.b));
    CHECK_INT(pl_transport_moved(ends.b), 132);
    close_ends(&ends);
}

TEST(a_forked_child_forgets_without_a_word_to_the_peer)
{
    struct ends ends;
    struct pl_message message;
    open_ends(&ends);
    pid_t child = fork();
    if (child == 0) {
        ends.a->ops->forget(ends.a);
        ends.b->ops->forget(ends.b);
        close_ends(&ends);
        _exit(0);
    }
    CHECK_INT(test_wait_child(child), 0);
    CHECK_INT(ends.b->ops->receive(ends.b, &message), PL_TRANSPORT_EMPTY);
    send_pattern(ends.a, 1, 1, 1);
    CHECK_INT(receive_pushing(ends.b, NULL, &message), PL_TRANSPORT_OK);
    pl_message_release(ends.b, &message);
    close_ends(&ends);
}
