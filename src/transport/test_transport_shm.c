#include "transport/test_pair.h"

#include <sched.h>

static int receive(struct pl_transport *transport, struct pl_message *message)
{
    return transport->ops->receive(transport, message);
}

/* What an epoll loop does when the doorbell or the socket rang. */
static int receive_all_of(struct pl_transport *to, struct pl_transport *from, struct pl_message *message)
{
    return receive_pushing(to, from, message);
}

TEST(messages_of_every_size_arrive_whole_and_in_order)
{
    static const size_t sizes[] = { 0,    1,     31,    32,      4000,    8192,    8193, 70000,
                                    8193, 70000, 70001, 1 << 20, 3 << 20, 3 << 20, 5 };
    struct shm_pair pair;
    struct pl_message message;
    shm_pair_open(&pair);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            send_pattern(pair.client, i, sizes[i], i + round);
            CHECK_INT(receive_all_of(pair.server, pair.client, &message), PL_TRANSPORT_OK);
            check_message(&message, i, sizes[i], i + round);
            CHECK_INT(message.frame.flags, 0);
            pl_message_release(pair.server, &message);
            CHECK_INT(receive(pair.server, &message), PL_TRANSPORT_EMPTY);
        }
    }
    shm_pair_close(&pair);
}

TEST(both_directions_carry_large_and_small_at_once)
{
    struct shm_pair pair;
    struct pl_message message;
    shm_pair_open(&pair);
    for (unsigned i = 0; i < 20; i++) {
        size_t size = i % 2 ? 100000 + i : 10;
        send_pattern(pair.client, i, size, i);
        send_pattern(pair.server, i + 100, size, i + 1);
        CHECK_INT(receive_all_of(pair.server, pair.client, &message), PL_TRANSPORT_OK);
        check_message(&message, i, size, i);
        pl_message_release(pair.server, &message);
        CHECK_INT(receive_all_of(pair.client, pair.server, &message), PL_TRANSPORT_OK);
        check_message(&message, i + 100, size, i + 1);
        pl_message_release(pair.client, &message);
    }
    shm_pair_close(&pair);
}

TEST(large_messages_of_one_size_move_into_segments)
{
    struct shm_pair pair;
    struct pl_message message;
    bool in_segment = false;
    shm_pair_open(&pair);
    for (unsigned i = 0; i < 10; i++) {
        send_pattern(pair.client, i, 1 << 20, i);
        CHECK_INT(receive_all_of(pair.server, pair.client, &message), PL_TRANSPORT_OK);
        check_message(&message, i, 1 << 20, i);
        in_segment = message.view.map != NULL;
        pl_message_release(pair.server, &message);
    }
    CHECK(in_segment);
    uint64_t before = pl_transport_moved(pair.client);
    send_pattern(pair.client, 11, 1 << 20, 3);
    CHECK_INT(pl_transport_moved(pair.client), before); /* nothing on the socket */
    CHECK_INT(receive(pair.server, &message), PL_TRANSPORT_OK);
    check_message(&message, 11, 1 << 20, 3);
    pl_message_release(pair.server, &message);
    shm_pair_close(&pair);
}

/* ---- doorbells ---- */

TEST(a_sleeper_is_rung_and_one_that_is_awake_isn_t)
{
    struct shm_pair pair;
    struct pl_message message;
    shm_pair_open(&pair);
    send_pattern(pair.client, 1, 10, 1);
    CHECK(!readable(pair.server->bell, 0));
    CHECK(!pair.server->ops->sleep(pair.server)); /* something has come */
    CHECK(pair.server->ops->ready(pair.server));
    CHECK_INT(receive(pair.server, &message), PL_TRANSPORT_OK);
    pl_message_release(pair.server, &message);
    CHECK(!pair.server->ops->ready(pair.server));
    CHECK(pair.server->ops->sleep(pair.server));
    send_pattern(pair.client, 2, 10, 1);
    CHECK(readable(pair.server->bell, 0));
    CHECK(!readable(pair.client->bell, 0));
    shm_pair_close(&pair);
}

TEST(who_is_awake_again_is_rung_no_more)
{
    struct shm_pair pair;
    shm_pair_open(&pair);
    CHECK(pair.server->ops->sleep(pair.server));
    pair.server->ops->awake(pair.server);
    send_pattern(pair.client, 1, 10, 1);
    CHECK(!readable(pair.server->bell, 0));
    shm_pair_close(&pair);
}

static unsigned fill(struct pl_transport *transport)
{
    struct pl_frame frame = frame_of(PL_FRAME_CALL, 0, 1000);
    uint8_t body[1000] = { 0 };
    unsigned count = 0;
    while (transport->ops->send(transport, &frame, body, false) == PL_TRANSPORT_OK && count < 1000) count++;
    CHECK(count > 10 && count < 1000);
    return count;
}

static void take(struct pl_transport *transport, unsigned count)
{
    struct pl_message message;
    for (unsigned i = 0; i < count; i++) {
        CHECK_INT(receive(transport, &message), PL_TRANSPORT_OK);
        pl_message_release(transport, &message);
    }
}

TEST(a_full_ring_says_so_and_its_producer_is_rung_when_the_consumer_sleeps)
{
    struct shm_pair pair;
    shm_pair_open(&pair);
    unsigned count = fill(pair.client);
    take(pair.server, count);
    CHECK(pair.server->ops->sleep(pair.server));
    CHECK(readable(pair.client->bell, 0));
    CHECK_INT(fill(pair.client) > 0, 1);
    shm_pair_close(&pair);
}

/* A reactor that others keep busy doesn't sleep for seconds. */
TEST(a_producer_without_room_is_rung_also_when_the_consumer_never_sleeps)
{
    struct shm_pair pair;
    struct pl_message message;
    shm_pair_open(&pair);
    unsigned count = fill(pair.client);
    take(pair.server, count);
    CHECK_INT(receive(pair.server, &message), PL_TRANSPORT_EMPTY);
    CHECK(readable(pair.client->bell, 0));
    shm_pair_close(&pair);
}

TEST(what_fills_the_ring_is_shown_to_the_consumer_before_anybody_waits)
{
    struct shm_pair pair;
    struct pl_message message;
    shm_pair_open(&pair);
    CHECK(pair.server->ops->sleep(pair.server));
    (void)fill(pair.client); /* no flush */
    CHECK(readable(pair.server->bell, 0));
    CHECK_INT(receive(pair.server, &message), PL_TRANSPORT_OK);
    pl_message_release(pair.server, &message);
    shm_pair_close(&pair);
}

/* ---- bodies on the socket ---- */

static int asked;
static bool allowed;

static bool admit(void *owner, uint64_t size)
{
    (void)owner;
    CHECK_INT(size, 2 << 20);
    asked++;
    return allowed;
}

/* The ring's frame is there before the body: a receiver looks more than once. */
TEST(a_body_on_the_socket_is_reserved_once_however_often_one_looks)
{
    struct shm_pair pair;
    struct pl_message message;
    uint64_t size = 2 << 20, sent = 0;
    uint8_t head[PL_FRAME_HEAD], *body = pattern(size, 1);
    struct pl_frame in_ring = { .kind = PL_FRAME_CALL, .call = 1, .flags = PL_FRAME_ON_SOCKET, .size = sizeof(size) };
    struct pl_frame on_socket = frame_of(PL_FRAME_BODY, 1, size);
    shm_pair_open(&pair);
    pair.server->admit = admit;
    allowed = false;
    CHECK_INT(pair.client->ops->send(pair.client, &in_ring, &size, false), PL_TRANSPORT_OK);
    CHECK(pair.client->ops->flush(pair.client) >= 0);
    for (int i = 0; i < 3; i++) CHECK_INT(receive(pair.server, &message), PL_TRANSPORT_EMPTY);
    CHECK_INT(asked, 3);
    CHECK(pair.server->partial);
    allowed = true;
    for (int i = 0; i < 3; i++) CHECK_INT(receive(pair.server, &message), PL_TRANSPORT_EMPTY);
    CHECK_INT(asked, 4);
    pl_frame_encode(head, &on_socket);
    CHECK_INT(send(pair.client->socket, head, sizeof(head), 0), sizeof(head));
    int r = PL_TRANSPORT_EMPTY;
    while (r == PL_TRANSPORT_EMPTY) {
        ssize_t n = send(pair.client->socket, body + sent, size - sent, MSG_DONTWAIT);
        if (n > 0) sent += (uint64_t)n;
        pair.server->ops->readable(pair.server);
        r = receive(pair.server, &message);
    }
    CHECK_INT(r, PL_TRANSPORT_OK);
    CHECK_INT(asked, 4);
    check_message(&message, 1, size, 1);
    CHECK_INT(message.admitted, size);
    pl_message_release(pair.server, &message);
    free(body);
    shm_pair_close(&pair);
}

TEST(behind_a_body_that_is_not_whole_nothing_is_received)
{
    struct shm_pair pair;
    struct pl_message message;
    uint8_t *body = pattern(3 << 20, 1);
    struct pl_frame large = frame_of(PL_FRAME_CALL, 1, 3 << 20), small = frame_of(PL_FRAME_CALL, 2, 4);
    shm_pair_open(&pair);
    CHECK_INT(pair.client->ops->send(pair.client, &large, body, true), PL_TRANSPORT_OK);
    CHECK(pair.client->ops->pending(pair.client));
    CHECK_INT(pair.client->ops->send(pair.client, &small, "tiny", false), PL_TRANSPORT_OK);
    CHECK_INT(pair.client->ops->flush(pair.client), PL_TRANSPORT_FULL);
    CHECK_INT(pair.client->ops->send(pair.client, &large, body, true), PL_TRANSPORT_FULL);
    for (int i = 0; i < 3; i++) CHECK_INT(receive(pair.server, &message), PL_TRANSPORT_EMPTY);
    CHECK_INT(receive_all_of(pair.server, pair.client, &message), PL_TRANSPORT_OK);
    check_message(&message, 1, 3 << 20, 1);
    pl_message_release(pair.server, &message);
    CHECK_INT(receive(pair.server, &message), PL_TRANSPORT_OK);
    CHECK_INT(message.frame.call, 2);
    pl_message_release(pair.server, &message);
    free(body);
    shm_pair_close(&pair);
}

TEST(a_peer_that_dies_in_the_middle_of_a_body_is_the_end)
{
    struct shm_pair pair;
    struct pl_message message;
    uint8_t *body = pattern(3 << 20, 1);
    struct pl_frame large = frame_of(PL_FRAME_CALL, 1, 3 << 20);
    shm_pair_open(&pair);
    CHECK_INT(pair.client->ops->send(pair.client, &large, body, true), PL_TRANSPORT_OK);
    pair.client->ops->close(pair.client);
    pair.client = NULL;
    free(body);
    CHECK_INT(receive_all_of(pair.server, NULL, &message), PL_TRANSPORT_END);
    shm_pair_close(&pair);
}

TEST(what_was_committed_before_a_death_is_received)
{
    struct shm_pair pair;
    struct pl_message message;
    shm_pair_open(&pair);
    for (unsigned i = 0; i < 5; i++) send_pattern(pair.client, i, 100, i);
    pair.client->ops->close(pair.client);
    pair.client = NULL;
    for (unsigned i = 0; i < 5; i++) {
        CHECK_INT(receive(pair.server, &message), PL_TRANSPORT_OK);
        check_message(&message, i, 100, i);
        pl_message_release(pair.server, &message);
    }
    CHECK_INT(receive(pair.server, &message), PL_TRANSPORT_EMPTY);
    shm_pair_close(&pair);
}

TEST(a_view_outlives_its_connection)
{
    struct shm_pair pair;
    struct pl_message message;
    shm_pair_open(&pair);
    for (unsigned i = 0;; i++) {
        CHECK(i < 20);
        send_pattern(pair.client, i, 1 << 20, 9);
        CHECK_INT(receive_all_of(pair.server, pair.client, &message), PL_TRANSPORT_OK);
        if (message.view.map != NULL) break;
        pl_message_release(pair.server, &message);
    }
    struct pl_segment_view view = message.view;
    shm_pair_close(&pair);
    uint8_t *expected = pattern(1 << 20, 9);
    CHECK_MEM(view.data, expected, 1 << 20);
    free(expected);
    pl_segment_view_release(&view);
}

/* ---- what was taken ---- */

TEST(the_client_sees_how_many_requests_were_taken)
{
    struct shm_pair pair;
    shm_pair_open(&pair);
    CHECK_INT(pl_transport_shm_count_taken(pair.client), 0);
    pl_transport_shm_taken(pair.server, 17);
    CHECK_INT(pl_transport_shm_count_taken(pair.client), 17);
    struct pl_transport *stream;
    int sockets[2];
    socket_pair(sockets);
    CHECK_INT(pl_transport_stream_new(&stream, sockets[0], "unix"), 0);
    pl_transport_shm_taken(stream, 17);
    CHECK_INT(pl_transport_shm_count_taken(stream), UINT64_MAX); /* cannot be known: all may have run */
    stream->ops->close(stream);
    close(sockets[1]);
    shm_pair_close(&pair);
}

/* ---- lies ---- */

TEST(a_claim_beyond_the_limit_is_refused_before_any_memory)
{
    struct shm_pair pair;
    struct pl_message message;
    uint8_t *body = pattern(200000, 1);
    struct pl_frame large = frame_of(PL_FRAME_CALL, 1, 200000);
    shm_pair_open(&pair);
    pair.server->max_message = 100000;
    CHECK_INT(pair.client->ops->send(pair.client, &large, body, true), PL_TRANSPORT_OK);
    CHECK_INT(receive(pair.server, &message), -EPROTO);
    CHECK_CONTAINS(plait_error_text(), "max_message=100000");
    free(body);
    shm_pair_close(&pair);
}

TEST(a_body_on_the_socket_that_isn_t_the_ring_s_breaks_the_protocol)
{
    struct shm_pair pair;
    struct pl_message message;
    uint8_t head[PL_FRAME_HEAD], *body = pattern(70000, 1);
    struct pl_frame other = frame_of(PL_FRAME_BODY, 99, 70000), large = frame_of(PL_FRAME_CALL, 1, 70000);
    shm_pair_open(&pair);
    pl_frame_encode(head, &other);
    CHECK_INT(send(pair.client->socket, head, sizeof(head), 0), sizeof(head));
    CHECK_INT(pair.client->ops->send(pair.client, &large, body, true), PL_TRANSPORT_OK);
    CHECK_INT(receive(pair.server, &message), -EPROTO);
    CHECK_CONTAINS(plait_error_text(), "doesn't match");
    free(body);
    shm_pair_close(&pair);
}

TEST(an_announcement_without_its_descriptor_breaks_the_protocol)
{
    struct shm_pair pair;
    struct pl_message message;
    uint8_t bytes[PL_FRAME_HEAD + PL_FRAME_SEGMENT_SIZE], *body = pattern(70000, 1);
    struct pl_frame segment = frame_of(PL_FRAME_SEGMENT, 0, PL_FRAME_SEGMENT_SIZE),
                    large = frame_of(PL_FRAME_CALL, 1, 70000);
    struct pl_frame_segment where = { .id = 0, .generation = 1, .size = 1 << 20 };
    shm_pair_open(&pair);
    pl_frame_encode(bytes, &segment);
    pl_frame_segment_encode(bytes + PL_FRAME_HEAD, &where);
    CHECK_INT(send(pair.client->socket, bytes, sizeof(bytes), 0), sizeof(bytes));
    CHECK_INT(pair.client->ops->send(pair.client, &large, body, true), PL_TRANSPORT_OK);
    CHECK_INT(receive(pair.server, &message), -EPROTO);
    CHECK_CONTAINS(plait_error_text(), "without its descriptor");
    free(body);
    shm_pair_close(&pair);
}

TEST(a_descriptor_that_is_no_sealed_memory_is_refused_and_closed)
{
    struct shm_pair pair;
    struct pl_message message;
    uint8_t bytes[PL_FRAME_HEAD + PL_FRAME_SEGMENT_SIZE], *body = pattern(70000, 1);
    struct pl_frame segment = frame_of(PL_FRAME_SEGMENT, 0, PL_FRAME_SEGMENT_SIZE),
                    large = frame_of(PL_FRAME_CALL, 1, 70000);
    struct pl_frame_segment where = { .id = 0, .generation = 1, .size = 1 << 20 };
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    shm_pair_open(&pair);
    pl_frame_encode(bytes, &segment);
    pl_frame_segment_encode(bytes + PL_FRAME_HEAD, &where);
    CHECK_INT(pl_fd_send(pair.client->socket, bytes, sizeof(bytes), &fd, 1), sizeof(bytes));
    close(fd);
    CHECK_INT(pair.client->ops->send(pair.client, &large, body, true), PL_TRANSPORT_OK);
    CHECK_INT(receive(pair.server, &message), -EPROTO);
    free(body);
    shm_pair_close(&pair);
}

TEST(a_cancel_behind_the_message_at_hand_is_found)
{
    struct shm_pair pair;
    struct pl_message message;
    struct pl_frame cancel = frame_of(PL_FRAME_CANCEL, 11, 0);
    shm_pair_open(&pair);
    send_pattern(pair.client, 11, 100, 1);
    CHECK_INT(receive(pair.server, &message), PL_TRANSPORT_OK);
    CHECK(!pair.server->ops->cancelled(pair.server, message.lent, 11));
    send_pattern(pair.client, 12, 60, 1);
    CHECK_INT(pair.client->ops->send(pair.client, &cancel, NULL, false), PL_TRANSPORT_OK);
    CHECK(pair.client->ops->flush(pair.client) >= 0);
    CHECK(pair.server->ops->cancelled(pair.server, message.lent, 11));
    CHECK(!pair.server->ops->cancelled(pair.server, message.lent, 12));
    pl_message_release(pair.server, &message);
    shm_pair_close(&pair);
}

TEST(spinning_knows_whether_the_peer_needs_our_cpu)
{
    struct shm_pair pair;
    shm_pair_open(&pair);
    CHECK_INT(pair.server->ops->spinning(pair.server), PL_SPINNING_PAUSE); /* unknown yet */
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    CHECK_INT(sched_setaffinity(0, sizeof(one), &one), 0);
    (void)pair.server->ops->spinning(pair.server);
    CHECK_INT(pair.client->ops->spinning(pair.client), PL_SPINNING_YIELD);
    CHECK_INT(pair.server->ops->spinning(pair.server), PL_SPINNING_YIELD);
    shm_pair_close(&pair);
}

/* ---- loans ---- */

static struct pl_message lend_and_receive(struct shm_pair *pair, size_t size, uint64_t call, struct pl_loan *loan)
{
    struct pl_frame frame = frame_of(PL_FRAME_CALL, call, size);
    struct pl_message message;
    uint8_t *body = pattern(size, (unsigned)call);
    CHECK_INT(pl_transport_loan(pair->client, size, false, loan), 0);
    CHECK_INT(pl_transport_loan_populate(loan), 0);
    memcpy(loan->data, body, size);
    free(body);
    CHECK(pl_transport_lent(pair->client, loan));
    CHECK_INT(pair->client->ops->send(pair->client, &frame, loan->data, PL_BODY_LOANED), PL_TRANSPORT_OK);
    CHECK(!pl_transport_lent(pair->client, loan)); /* not a second time */
    CHECK(pair->client->ops->flush(pair->client) >= 0);
    CHECK_INT(receive_all_of(pair->server, pair->client, &message), PL_TRANSPORT_OK);
    check_message(&message, call, size, (unsigned)call);
    return message;
}

TEST(a_loan_is_received_from_its_own_pages)
{
    struct shm_pair pair;
    struct pl_loan loan;
    shm_pair_open(&pair);
    for (uint64_t i = 0; i < 5; i++) {
        struct pl_message message = lend_and_receive(&pair, 1 << 20, i, &loan);
        loan.data[77] ^= 0xff; /* the holder can still write, and that shows there */
        CHECK_INT(message.body[77], loan.data[77]);
        pl_message_release(pair.server, &message);
        pl_loan_give_back(&loan);
    }
    shm_pair_close(&pair);
}

TEST(a_loan_sent_as_a_plain_body_is_copied_and_stays_a_loan)
{
    struct shm_pair pair;
    struct pl_loan loan;
    struct pl_message message;
    shm_pair_open(&pair);
    CHECK_INT(pl_transport_loan(pair.client, 1 << 20, false, &loan), 0);
    memset(loan.data, 5, 1 << 20);
    for (int i = 0; i < 3; i++) {
        struct pl_frame frame = frame_of(PL_FRAME_CALL, 1, 1 << 20);
        CHECK_INT(pair.client->ops->send(pair.client, &frame, loan.data, PL_BODY_COPY), PL_TRANSPORT_OK);
        CHECK(pair.client->ops->flush(pair.client) >= 0);
        CHECK_INT(receive_all_of(pair.server, pair.client, &message), PL_TRANSPORT_OK);
        memset(loan.data, 6, 100);
        CHECK_INT(message.body[0], 5);
        memset(loan.data, 5, 100);
        pl_message_release(pair.server, &message);
        CHECK(pl_transport_lent(pair.client, &loan));
    }
    pl_loan_give_back(&loan);
    shm_pair_close(&pair);
}

TEST(idle_memory_goes_on_both_sides_with_the_next_message_that_wakes)
{
    struct shm_pair pair;
    struct pl_loan loan;
    struct pl_message message;
    uint64_t usual = pl_segment_idle_ns;
    shm_pair_open(&pair);
    size_t before = test_count_mappings();
    message = lend_and_receive(&pair, 4 << 20, 1, &loan);
    pl_message_release(pair.server, &message);
    pl_loan_give_back(&loan);
    CHECK_INT(test_count_mappings(), before + 2);
    for (int i = 0; i < 2; i++) {
        pl_segment_idle_ns = i == 0 ? usual : 0;
        CHECK_INT(receive(pair.server, &message), PL_TRANSPORT_EMPTY);
        CHECK(pair.server->ops->sleep(pair.server));
        send_pattern(pair.client, 2, 10, 2);
        pair.server->ops->awake(pair.server);
        CHECK_INT(receive(pair.server, &message), PL_TRANSPORT_OK);
        pl_message_release(pair.server, &message);
        if (i == 1) CHECK(readable(pair.server->socket, 1000)); /* its receiver is told */
        pair.server->ops->readable(pair.server);
        CHECK_INT(receive(pair.server, &message), PL_TRANSPORT_EMPTY);
        CHECK_INT(test_count_mappings(), before + (i == 0 ? 2 : 0));
    }
    for (uint64_t i = 3; i < 6; i++) { /* and it is made again */
        message = lend_and_receive(&pair, 4 << 20, i, &loan);
        pl_message_release(pair.server, &message);
        pl_loan_give_back(&loan);
    }
    pl_segment_idle_ns = usual;
    shm_pair_close(&pair);
}

TEST(a_loan_outlives_its_transport)
{
    struct shm_pair pair;
    struct pl_loan loan;
    shm_pair_open(&pair);
    struct pl_message message = lend_and_receive(&pair, 1 << 20, 1, &loan);
    shm_pair_close(&pair);
    memset(loan.data, 9, 1 << 20);
    CHECK_INT(message.body[0], 9);
    pl_loan_give_back(&loan);
    pl_segment_view_release(&message.view);
}
