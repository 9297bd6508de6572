/* Property: whatever a peer writes into its ring and sends on its socket, at any time, the receiver hands out only
 * messages that lie within what was committed, in its segments or in memory of its own, and within the limit; it
 * never blocks, and leaves no descriptor and no mapping behind.
 *
 * Input: operations of one byte and their operands. The peer's side is played by hand. */
#include "base/error.h"
#include "base/fd.h"
#include "fuzz_wire.h"
#include "shm/channel.h"
#include "shm/doorbell.h"
#include "shm/memory.h"
#include "transport/transport.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LIMIT = 300000, STEPS = 300 };

struct input {
    const uint8_t *data;
    size_t size;
};

struct game {
    struct pl_transport *server;
    struct pl_channel peer;
    int socket, memory;
    uint64_t tail; /* the peer's, as it is published */
    uint64_t most; /* of those that could be believed */
    bool over;
};

static uint64_t number(struct input *input, size_t size)
{
    uint64_t value = 0;
    if (size > input->size) size = input->size;
    memcpy(&value, input->data, size);
    input->data += size;
    input->size -= size;
    return value;
}

static void open_game(struct game *game)
{
    struct pl_channel channel;
    int sockets[2], bells[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sockets) == 0);
    REQUIRE(pl_channel_create(&channel, PL_RING_CAPACITY, &game->memory) == 0);
    REQUIRE(pl_channel_attach(&game->peer, game->memory, PL_RING_CAPACITY) == 0);
    REQUIRE(pl_doorbell_create(&bells[0]) == 0 && pl_doorbell_create(&bells[1]) == 0);
    REQUIRE(pl_transport_shm_new(&game->server, sockets[0], &channel, bells[0], bells[1], PL_SIDE_SERVER) == 0);
    game->server->max_message = LIMIT;
    game->socket = sockets[1];
}

static void close_game(struct game *game)
{
    game->server->ops->close(game->server);
    pl_channel_detach(&game->peer);
    pl_close(&game->memory);
    pl_close(&game->socket);
}

static struct pl_ring_shared *ring_of(struct game *game)
{
    return &game->peer.control->ring[PL_RING_REQUESTS];
}

static void publish(struct game *game, uint64_t tail)
{
    uint64_t head = atomic_load_explicit(&ring_of(game)->head, memory_order_relaxed); /* relaxed: one thread */
    game->tail = tail;
    if (tail - head <= 2 * PL_RING_CAPACITY && tail > game->most) game->most = tail;
    atomic_store_explicit(&ring_of(game)->tail, tail, memory_order_release); /* as RR1 */
}

/* A record with a head made of the input; what is committed may be more or less than it claims. */
static void put_record(struct game *game, struct input *input)
{
    static const uint32_t sizes[] = { 0, 8, 16, 100, 8192, 8193, 70000, UINT32_MAX };
    struct pl_frame frame = { .kind = (uint8_t)number(input, 1) % 10, .flags = (uint8_t)number(input, 1) & 31 };
    uint64_t choice = number(input, 1);
    frame.size = choice & 0x80 ? sizes[choice % 8] : (uint32_t)choice;
    frame.call = number(input, 1);
    uint8_t bytes[PL_FRAME_HEAD + 16];
    pl_frame_encode(bytes, &frame);
    uint64_t size = number(input, 1) & 1 ? 70000 : number(input, 3), claimed = number(input, 1);
    struct pl_frame_segment where = { .id = (uint32_t)number(input, 1) % 70,
                                      .generation = (uint32_t)number(input, 1),
                                      .size = size | (claimed % 4) << 32 };
    if (frame.flags & PL_FRAME_ON_SOCKET) pl_frame_store_u64(bytes + PL_FRAME_HEAD, size);
    else pl_frame_segment_encode(bytes + PL_FRAME_HEAD, &where);
    uint8_t *place = game->peer.ring[PL_RING_REQUESTS] + (game->tail & (PL_RING_CAPACITY - 1));
    memcpy(place, bytes, sizeof(bytes));
    uint64_t committed = (PL_FRAME_HEAD + frame.size + PL_RING_ALIGN - 1) & ~(uint64_t)(PL_RING_ALIGN - 1);
    if (claimed & 0x80 || committed > 9000) committed = (claimed & 3) * PL_RING_ALIGN;
    publish(game, game->tail + committed);
}

static void put_on_socket(struct game *game, struct input *input)
{
    uint8_t bytes[PL_FRAME_HEAD + PL_FRAME_SEGMENT_SIZE];
    bool segment = number(input, 1) & 1;
    uint64_t choice = number(input, 1);
    struct pl_frame frame = { .kind = choice & 0x80 ? (uint8_t)(choice & 15)
                                      : segment     ? PL_FRAME_SEGMENT
                                                    : PL_FRAME_BODY,
                              .size = segment                ? PL_FRAME_SEGMENT_SIZE
                                      : number(input, 1) & 1 ? 70000
                                                             : (uint32_t)number(input, 3),
                              .call = number(input, 1) };
    uint64_t real = (number(input, 1) + 1) * 4096;
    struct pl_frame_segment where = { .id = (uint32_t)number(input, 1) % 70,
                                      .generation = (uint32_t)number(input, 1) % 4,
                                      .size = choice & 0x40 ? number(input, 4) : real };
    bool gone = (choice & 0x44) == 0x44; /* the segment has no memory any more */
    if (gone) where.size = 0;
    pl_frame_encode(bytes, &frame);
    pl_frame_segment_encode(bytes + PL_FRAME_HEAD, &where);
    int fds[PL_FDS_MAX], count = choice & 0x20 ? (int)(choice & 3) + 1 : segment && !gone;
    for (int i = 0; i < count; i++) {
        REQUIRE(pl_memfd_create("forged", real, &fds[i]) == 0);
        if (!(choice & 0x10)) (void)fcntl(fds[i], F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    }
    size_t size = segment ? sizeof(bytes) : PL_FRAME_HEAD;
    if (choice & 8) size = choice & 31;
    if (size > 0) (void)pl_fd_send(game->socket, bytes, size, fds, (size_t)count);
    for (int i = 0; i < count; i++) pl_close(&fds[i]);
}

static void put_bytes(struct game *game, struct input *input)
{
    static const uint8_t zeros[70000];
    size_t size = number(input, 1) & 1 ? sizeof(zeros) : number(input, 2);
    (void)!send(game->socket, zeros, size, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void use(struct game *game, struct pl_message *message)
{
    unsigned sum = 0;
    REQUIRE(message->size <= LIMIT);
    REQUIRE((message->lent != 0) + (message->owned != NULL) + (message->view.map != NULL) <= 1);
    if (message->lent) {
        const uint8_t *ring = game->server->ops == NULL ? NULL : message->body - PL_FRAME_HEAD;
        REQUIRE(ring != NULL && message->lent == PL_FRAME_HEAD + message->size);
        REQUIRE(message->lent <= PL_FRAME_HEAD + PL_INLINE_MAX);
        /* What was committed and not yet given back. */
        uint64_t head = atomic_load_explicit(&ring_of(game)->head, memory_order_relaxed); /* relaxed: one thread */
        REQUIRE(message->lent <= game->most - head);
    }
    for (size_t i = 0; i < message->size; i++) sum += message->body[i];
    volatile unsigned seen = sum;
    (void)seen;
    (void)game->server->ops->cancelled(game->server, message->lent, message->frame.call);
}

static void receive(struct game *game, bool keep_view)
{
    for (int i = 0; i < 100 && !game->over; i++) {
        struct pl_message message = { .size = 0 };
        game->server->ops->readable(game->server);
        int r = game->server->ops->receive(game->server, &message);
        if (r == PL_TRANSPORT_EMPTY) return;
        if (r < 0) REQUIRE(pl_error_text()[0] != '\0');
        game->over = r != PL_TRANSPORT_OK;
        if (game->over) return;
        use(game, &message);
        (void)keep_view;
        pl_message_release(game->server, &message);
    }
}

static void answer(struct game *game, struct input *input)
{
    static const uint8_t body[100000];
    struct pl_frame frame = { .kind = PL_FRAME_REPLY,
                              .size = number(input, 1) & 1 ? sizeof(body) : (uint32_t)number(input, 1) };
    int r = game->server->ops->send(game->server, &frame, body, false);
    if (r == 0) r = game->server->ops->flush(game->server);
    if (r < 0) game->over = true;
}

/* A loan, which stays its holder's whatever the peer says about it; sent or not. */
static void lend(struct game *game, struct input *input)
{
    struct pl_loan loan = { .data = NULL };
    size_t size = 8193 + number(input, 2);
    bool sent = number(input, 1) & 1;
    int r = pl_transport_loan(game->server, size, number(input, 1) & 1, &loan);
    if (r == 0) {
        REQUIRE(pl_transport_loan_populate(&loan) == 0);
        memset(loan.data, 5, size);
        struct pl_frame frame = { .kind = PL_FRAME_REPLY, .size = (uint32_t)size };
        if (sent) r = game->server->ops->send(game->server, &frame, loan.data, PL_BODY_LOANED);
        if (sent && r == 0) r = game->server->ops->flush(game->server);
        for (size_t i = 0; i < size; i++) REQUIRE(loan.data[i] == 5);
    }
    pl_loan_give_back(&loan);
    if (r < 0) game->over = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = { data, size };
    struct game game = { .tail = 0 };
    pl_segment_idle_ns = 0;
    open_game(&game);
    for (int step = 0; step < STEPS && input.size > 0 && !game.over; step++) {
        switch (number(&input, 1) % 14) {
        case 0:
        case 1:
        case 2: put_record(&game, &input); break;
        case 3:
        case 4: put_on_socket(&game, &input); break;
        case 5: put_bytes(&game, &input); break;
        case 6: /* a lie about the tail */ publish(&game, number(&input, 8)); break;
        case 7: /* relaxed: one thread */
            atomic_store_explicit(&ring_of(&game)->skip, number(&input, 4), memory_order_relaxed);
            atomic_store_explicit(&ring_of(&game)->starved, 1, memory_order_relaxed);
            break;
        case 8: answer(&game, &input); break;
        case 10: lend(&game, &input); break;
        case 11: { /* relaxed, both: one thread */
            struct pl_channel_control *control = game.peer.control;
            uint32_t value = (uint32_t)number(&input, 1);
            atomic_store_explicit(&control->wanted[value & 1], value & 2, memory_order_relaxed);
            atomic_store_explicit(&control->returned[PL_RING_REPLIES][value % 8], value >> 4, memory_order_relaxed);
            break;
        }
        case 9:
            if (game.server->ops->sleep(game.server)) game.server->ops->awake(game.server);
            (void)game.server->ops->ready(game.server);
            break;
        default: receive(&game, false); break;
        }
    }
    receive(&game, false);
    close_game(&game);
    return 0;
}
