/* Property: whatever a publisher sends over its socket, in pieces of any size and with any descriptors, its subscriber
 * comes to an end, hands out bodies of the size that it says, and leaves no descriptor behind.
 *
 * Input: one byte (odd: a real hello comes first; 2: descriptors of a ring ride on it), one byte (size of the pieces),
 * then the bytes. */
#include "fuzz_wire.h"
#include "topic/topic.h"

#include "base/fd.h"
#include "shm/doorbell.h"
#include <sys/socket.h>
#include <unistd.h>

enum { ROUNDS = 64 };

static struct plait_subscriber *new_subscriber(void)
{
    struct plait_subscriber *subscriber = aligned_alloc(_Alignof(struct plait_subscriber), sizeof *subscriber);
    REQUIRE(subscriber != NULL);
    memset(subscriber, 0, sizeof *subscriber);
    pl_list_init(&subscriber->inlets);
    subscriber->url.scheme = PL_SCHEME_UNIX;
    static char target[] = "fuzz";
    subscriber->target = target;
    subscriber->max_message = 1 << 20;
    REQUIRE(pl_loop_init(&subscriber->loop, 4) == 0);
    return subscriber;
}

/* What a publisher that means well begins with. */
static void send_hello(int socket, bool with_ring)
{
    uint8_t bytes[PL_HELLO_SERVER_HEAD + 2] = { 0 };
    struct pl_hello_server hello = { .major = PL_PROTOCOL_MAJOR,
                                     .minor = PL_PROTOCOL_MINOR,
                                     .features = PL_FEATURE_TOPIC | (with_ring ? PL_FEATURE_SHM : 0),
                                     .instance = 7,
                                     .max_message = 1 << 20,
                                     .method_count = 1,
                                     .tail = bytes + PL_HELLO_SERVER_HEAD,
                                     .tail_size = 2 };
    bytes[PL_HELLO_SERVER_HEAD] = 1;
    bytes[PL_HELLO_SERVER_HEAD + 1] = 't';
    pl_hello_server_encode(bytes, &hello);
    bytes[PL_HELLO_SERVER_HEAD] = 1;
    struct pl_broadcast_writer writer;
    int fds[PL_TOPIC_FDS] = { -1, -1, -1, -1 };
    if (!with_ring) {
        REQUIRE(send(socket, bytes, sizeof bytes, 0) == sizeof bytes);
        return;
    }
    void *pages[2];
    REQUIRE(pl_broadcast_create(&writer, 32768, false, &fds[PL_TOPIC_FD_RING]) == 0);
    REQUIRE(pl_topic_page_create(&pages[0], &fds[PL_TOPIC_FD_WAITERS]) == 0);
    REQUIRE(pl_topic_page_create(&pages[1], &fds[PL_TOPIC_FD_PAGE]) == 0);
    REQUIRE(pl_doorbell_create(&fds[PL_TOPIC_FD_BELL]) == 0);
    ((struct pl_subscriber_page *)pages[1])->number = 1;
    /* One message that lies in a segment which the bytes that follow may announce. */
    uint8_t record[PL_FRAME_SEGMENT_SIZE];
    struct pl_frame_segment where = { .id = 0, .generation = 0, .size = 10000 };
    struct pl_broadcast_head head = { .size = sizeof record, .kind = PL_BULK_SEGMENT };
    pl_frame_segment_encode(record, &where);
    pl_broadcast_write(&writer, &head, record);
    REQUIRE(pl_fd_send(socket, bytes, sizeof bytes, fds, PL_TOPIC_FDS) == sizeof bytes);
    for (int i = 0; i < PL_TOPIC_FDS; i++) pl_close(&fds[i]);
    for (int i = 0; i < 2; i++) pl_topic_page_detach(pages[i]);
    pl_broadcast_destroy(&writer);
}

static void take_all(struct plait_subscriber *subscriber)
{
    for (int i = 0; i < ROUNDS && !pl_list_empty(&subscriber->inlets); i++) {
        struct pl_inlet *inlet = pl_container_of(subscriber->inlets.next, struct pl_inlet, link);
        int r = pl_inlet_take(inlet);
        if (r == PL_INLET_DONE) pl_inlet_free(inlet);
        if (r != 0) return;
        uint8_t sum = 0;
        plait_bytes body = plait_message_body(&subscriber->message);
        for (size_t at = 0; at < body.size; at++) sum ^= ((const volatile uint8_t *)body.data)[at];
        (void)sum;
        REQUIRE(plait_message_lost_text(&subscriber->message) != NULL);
        free(subscriber->message.memory);
        subscriber->message.memory = NULL;
        pl_intake_let_go(&subscriber->message);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    int pair[2], real = data[0] & 1, with_ring = data[0] & 2;
    size_t piece = data[1] == 0 ? 1 : data[1];
    struct pl_instance instance = { .kind = PL_KIND_TOPIC };
    struct plait_subscriber *subscriber = new_subscriber();
    struct pl_inlet *inlet;
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    REQUIRE(pl_inlet_new(&inlet, subscriber, &instance, pair[0]) == 0);
    if (real) send_hello(pair[1], with_ring);
    data += 2;
    size -= 2;
    for (int i = 0; i < ROUNDS && !pl_list_empty(&subscriber->inlets); i++) {
        size_t n = i + 1 == ROUNDS || size < piece ? size : piece;
        ssize_t sent = n > 0 ? send(pair[1], data, n, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
        if (sent > 0) {
            data += sent;
            size -= (size_t)sent;
        }
        if (size == 0 || sent < 0) shutdown(pair[1], SHUT_WR);
        REQUIRE(pl_loop_wait(&subscriber->loop, 0) >= 0);
        pl_loop_run_ready(&subscriber->loop);
        take_all(subscriber);
    }
    if (!pl_list_empty(&subscriber->inlets))
        pl_inlet_free(pl_container_of(subscriber->inlets.next, struct pl_inlet, link));
    close(pair[1]);
    pl_loop_deinit(&subscriber->loop);
    free(subscriber);
    return 0;
}
