/* Property: whatever a publisher stores into its ring, at any moment, a reader reads nothing but the ring, writes
 * nothing but its own buffer, comes to an end, and says 0, empty or -EPROTO. While nobody lies, each message is
 * read whole or counted as lost.
 *
 * Input: one byte (odd: the publisher lies), then operations of one byte and their operands. */
#include "fuzz_wire.h"
#include "shm/ring_broadcast.h"

#include <errno.h>

enum { CAPACITY = 32768 };

struct input {
    const uint8_t *data;
    size_t size;
};

struct game {
    struct pl_broadcast_shared *shared;
    uint8_t *data, *body;
    struct pl_broadcast_writer writer;
    struct pl_broadcast_reader reader;
    uint64_t received, lost, before; /* before: messages that a seek left out */
    bool lies;
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

/* Any word of the control page or of the ring: to anything, or to something near what an honest one would say. */
static void lie(struct game *game, struct input *input)
{
    uint64_t choice = number(input, 1), near = number(input, 2), value = number(input, 8);
    if (choice & 0x80) value = game->reader.position + (uint64_t)(int16_t)near * (choice & 0x40 ? 32 : 1);
    switch (choice & 7) {
    case 0: game->shared->tail = value; break;
    case 1: game->shared->intent = value; break;
    case 2: game->shared->mark[near % PL_BROADCAST_MARKS] = value; break;
    case 3: game->shared->tail = game->reader.position + 32 * (near & 0x3ff); break;
    default: { /* a head where the reader is, or anywhere */
        struct pl_broadcast_head head = { .size = (uint32_t)(choice & 8 ? near : value),
                                          .number = game->reader.number };
        uint64_t at = choice & 16 ? game->reader.position : near * 32;
        memcpy(game->data + (at & (CAPACITY - 1)), &head, sizeof head);
    }
    }
}

static void put(struct game *game, size_t size)
{
    struct pl_broadcast_head head = { .size = (uint32_t)size };
    uint8_t body[PL_BROADCAST_BODY_MAX];
    memset(body, (uint8_t)(game->writer.number + 1), size);
    pl_broadcast_write(&game->writer, &head, body);
}

static int take(struct game *game)
{
    struct pl_broadcast_head head;
    int r = pl_broadcast_read(&game->reader, &head, game->body, &game->lost);
    REQUIRE(r == 0 || r == PL_BROADCAST_EMPTY || (r == -EPROTO && game->lies));
    if (r != 0) return r;
    game->received++;
    REQUIRE(head.size <= PL_BROADCAST_BODY_MAX);
    for (uint32_t i = 0; i < head.size && !game->lies; i++) REQUIRE(game->body[i] == (uint8_t)head.number);
    return 0;
}

static void seek(struct game *game, uint64_t history)
{
    int r = pl_broadcast_seek(&game->reader, history);
    REQUIRE(r == 0 || (r == -EPROTO && game->lies));
    game->received = game->lost = 0;
    game->before = game->reader.number - 1;
    if (!game->lies) REQUIRE(game->writer.number - game->before <= history);
}

static void play(struct game *game, struct input *input)
{
    while (input->size > 0) {
        switch (number(input, 1) % 8) {
        case 0:
        case 1:
            if (game->lies) lie(game, input);
            break;
        case 2: put(game, number(input, 1)); break;
        case 3: put(game, number(input, 2) % (PL_BROADCAST_BODY_MAX + 1)); break;
        case 4:
            for (uint64_t count = number(input, 1); count > 0; count--) put(game, 300);
            break;
        case 5: take(game); break;
        case 6: seek(game, number(input, 1)); break;
        default:
            for (int i = 0; i < 2000 && take(game) == 0; i++) continue;
            break;
        }
    }
    if (game->lies) return;
    while (take(game) == 0) continue;
    REQUIRE(game->before + game->received + game->lost == game->writer.number);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = { data, size };
    struct game game = { .lies = number(&input, 1) & 1 };
    /* Exactly the two halves and one body: the sanitizer sees one byte too many. */
    game.shared = aligned_alloc(64, sizeof *game.shared);
    game.data = aligned_alloc(4096, 2 * CAPACITY);
    game.body = malloc(PL_BROADCAST_BODY_MAX);
    REQUIRE(game.shared != NULL && game.data != NULL && game.body != NULL);
    memset(game.shared, 0, sizeof *game.shared);
    memset(game.data, 0, 2 * CAPACITY);
    pl_broadcast_writer_init(&game.writer, game.shared, game.data, CAPACITY);
    pl_broadcast_reader_init(&game.reader, game.shared, game.data, CAPACITY);
    play(&game, &input);
    free(game.shared);
    free(game.data);
    free(game.body);
    return 0;
}
