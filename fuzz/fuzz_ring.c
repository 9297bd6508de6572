/* Property: whatever a peer stores into the shared words, at any moment, an end of a ring reads and writes
 * nothing but the ring's bytes, and says 0, full, empty, -EPROTO or -EMSGSIZE. While nobody lies, records
 * arrive whole and in order, and nobody is called a liar.
 *
 * Input: one byte (odd: a peer lies), then operations of one byte and their operands. */
#include "fuzz_wire.h"
#include "shm/ring_spsc.h"

#include <errno.h>

enum { CAPACITY = 8192, WORDS = 5 };

struct input {
    const uint8_t *data;
    size_t size;
};

struct game {
    struct pl_ring_shared shared;
    struct pl_ring_producer producer;
    struct pl_ring_consumer consumer;
    uint8_t *data;
    bool lies;
    uint8_t sent, received; /* records are numbered and have sizes that follow from it */
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

static size_t size_of(uint8_t record)
{
    return 32 + (size_t)record * record % 3000;
}

/* The peer stores a word: anywhere near its honest value, or anything at all. */
static void lie(struct game *game, struct input *input)
{
    uint64_t choice = number(input, 1), near = choice & 0x80 ? number(input, 2) : 0;
    uint64_t value = choice & 0x80 ? (uint64_t)(int16_t)near : number(input, 8);
    _Atomic uint64_t *positions[] = { &game->shared.tail, &game->shared.head, &game->shared.skip };
    unsigned which = (unsigned)(choice & 0x7f) % WORDS;
    if (which < 3) {
        uint64_t base = which == 1 ? game->producer.head : game->consumer.head;
        *positions[which] = choice & 0x80 ? base + value * (choice & 0x40 ? 32 : 1) : value;
    } else if (which == 3) {
        game->shared.sleeping = (uint32_t)value;
    } else {
        game->shared.starved = (uint32_t)value;
    }
}

static void check_inside(const struct game *game, const void *data, size_t size)
{
    size_t offset = (size_t)((const uint8_t *)data - game->data);
    REQUIRE(offset < CAPACITY && size <= CAPACITY);
}

static void reserve(struct game *game, size_t size, bool commit)
{
    void *data;
    int r = pl_ring_reserve(&game->producer, size, &data);
    REQUIRE(r == 0 || r == PL_RING_FULL || (r == -EPROTO && game->lies) || (r == -EMSGSIZE && size > CAPACITY));
    if (r != 0) return;
    check_inside(game, data, size);
    memset(data, game->sent, size);
    if (commit) pl_ring_commit(&game->producer, size);
    REQUIRE(game->producer.tail - game->producer.head <= CAPACITY);
}

static void put(struct game *game)
{
    uint64_t before = game->producer.tail;
    reserve(game, size_of(game->sent), true);
    uint64_t step = game->producer.tail - before;
    /* Either it was full, or the record is in, perhaps behind a skip. */
    if (step >= pl_ring_round(size_of(game->sent))) game->sent++;
}

static void read_all(const struct game *game, const uint8_t *data, size_t size)
{
    uint8_t sum = 0;
    check_inside(game, data, size);
    REQUIRE(size > 0 && size % PL_RING_ALIGN == 0);
    for (size_t i = 0; i < size; i += PL_RING_ALIGN) sum ^= ((const volatile uint8_t *)data)[i + PL_RING_ALIGN - 1];
    (void)sum;
}

static void take(struct game *game, size_t claimed)
{
    const uint8_t *data;
    size_t size;
    if (pl_ring_ahead(&game->consumer, claimed, &data, &size)) read_all(game, data, size);
    int r = pl_ring_peek(&game->consumer, &data, &size);
    REQUIRE(r == 0 || r == PL_RING_EMPTY || (r == -EPROTO && game->lies));
    if (r == 0) read_all(game, data, size);
    else size = 0;
    if (game->lies) {
        r = pl_ring_consume(&game->consumer, claimed);
        REQUIRE(r == (claimed <= size ? 0 : -EPROTO));
    } else if (size > 0) {
        REQUIRE(size >= size_of(game->received) && data[0] == game->received);
        REQUIRE(data[size_of(game->received) - 1] == game->received);
        REQUIRE(pl_ring_consume(&game->consumer, size_of(game->received)) == 0);
        game->received++;
    }
}

static void play(struct game *game, struct input *input)
{
    while (input->size > 0) {
        switch (number(input, 1) % 12) {
        case 0:
        case 1:
            if (game->lies) lie(game, input);
            break;
        case 2:
        case 3: put(game); break;
        case 4:
            if (game->lies) reserve(game, number(input, 2), true);
            break;
        case 5: reserve(game, number(input, 8), false); break;
        case 6: pl_ring_publish(&game->producer); break;
        case 7:
        case 8: take(game, number(input, 2)); break;
        case 9: pl_ring_give_back(&game->consumer); break;
        case 10:
            if (!pl_ring_sleep(&game->consumer)) pl_ring_awake(&game->consumer);
            break;
        default:
            if (!pl_ring_starve(&game->producer, number(input, 2))) pl_ring_fed(&game->producer);
            break;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = { data, size };
    struct game game = { .lies = number(&input, 1) & 1 };
    /* Exactly the two halves: the sanitizer sees one byte too many. */
    game.data = aligned_alloc(4096, 2 * CAPACITY);
    REQUIRE(game.data != NULL);
    pl_ring_producer_init(&game.producer, &game.shared, game.data, CAPACITY);
    pl_ring_consumer_init(&game.consumer, &game.shared, game.data, CAPACITY);
    play(&game, &input);
    free(game.data);
    return 0;
}
