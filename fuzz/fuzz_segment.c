/* Property: whatever a receiver stores into the table of returned segments, and whatever a sender announces,
 * the other side reads and writes nothing but its segments, lends none twice, and says what segment.h says.
 *
 * Input: operations of one byte and their operands. */
#include "base/clock.h"
#include "fuzz_wire.h"
#include "shm/memory.h"
#include "shm/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum { VIEWS = 8, TAKEN = 8, HELD = 8, SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };

struct input {
    const uint8_t *data;
    size_t size;
};

struct game {
    _Atomic uint32_t returned[PL_SEGMENTS_MAX];
    struct pl_segment_pool *pool;
    struct pl_segment_map *map;
    struct pl_segment_view views[VIEWS];
    struct pl_segment *taken[TAKEN];
    struct pl_segment *held[HELD];
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

/* Sizes that cost little: up to 256 KiB, and a few that cannot be. */
static uint64_t some_size(struct input *input)
{
    uint64_t choice = number(input, 1);
    return choice < 250 ? number(input, 3) & 0x3ffff : number(input, 8) | 1ULL << 31;
}

static void take(struct game *game, struct input *input)
{
    struct pl_segment **place = &game->taken[number(input, 1) % TAKEN], *segment = NULL;
    uint64_t size = some_size(input);
    int r = pl_segment_take(game->pool, size, &segment);
    REQUIRE(r == 0 || r == PL_SEGMENT_NONE || r == -EPROTO);
    REQUIRE((r == 0) == (segment != NULL));
    if (r != 0) return;
    REQUIRE(segment->capacity >= size && segment->id < PL_SEGMENTS_MAX);
    for (int i = 0; i < HELD; i++) REQUIRE(game->held[i] != segment);
    /* Lent twice only after the table gave it back. */
    for (int i = 0; i < TAKEN; i++) {
        if (game->taken[i] != segment) continue;
        REQUIRE(game->returned[segment->id] == segment->generation - 1);
        game->taken[i] = NULL;
    }
    memset(segment->data, 1, size);
    *place = segment;
}

/* Announces what was taken, as an honest sender does. */
static void announce(struct game *game, struct pl_segment *segment)
{
    if (segment == NULL || segment->fd < 0) return;
    int fd = fcntl(segment->fd, F_DUPFD_CLOEXEC, 0);
    int r = pl_segment_map_add(game->map, fd, segment->id, segment->capacity);
    REQUIRE(r == 0 || r == -EPROTO);
    pl_segment_announced(game->pool, segment);
}

/* A loan: nobody else gets it, whatever the table says, until it is let go. */
static void hold(struct game *game, struct input *input)
{
    struct pl_segment **place = &game->held[number(input, 1) % HELD], *segment = NULL;
    uint64_t size = some_size(input);
    if (*place != NULL) {
        pl_segment_release(*place);
        *place = NULL;
    }
    int r = pl_segment_hold(game->pool, size, &segment);
    REQUIRE(r == 0 || r == PL_SEGMENT_NONE || r == -EPROTO);
    if (r != 0) return;
    for (int i = 0; i < HELD; i++) REQUIRE(game->held[i] != segment);
    REQUIRE(pl_segment_populate(segment, size) == 0);
    memset(segment->data, 2, size);
    *place = segment;
}

static void send_held(struct game *game, struct pl_segment *segment)
{
    if (segment == NULL || pl_segment_held_at(game->pool, segment->data) != segment) return;
    announce(game, segment);
    pl_segment_send(game->pool, segment);
    REQUIRE(pl_segment_held_at(game->pool, segment->data) == NULL);
}

static void trim(struct game *game)
{
    struct pl_segment *segment;
    while ((segment = pl_segment_idle(game->pool, pl_ticks() + 1)) != NULL) {
        for (int i = 0; i < HELD; i++) REQUIRE(game->held[i] != segment);
        if (segment->fd < 0) (void)pl_segment_map_drop(game->map, segment->id);
        for (int i = 0; i < TAKEN; i++)
            if (game->taken[i] == segment) game->taken[i] = NULL;
        pl_segment_drop(game->pool, segment);
    }
}

static void abort_one(struct game *game, struct pl_segment **place)
{
    if (*place != NULL && (*place)->fd >= 0) pl_segment_abort(game->pool, *place);
    *place = NULL;
}

static void announce_forged(struct game *game, struct input *input)
{
    int fd;
    uint64_t real = number(input, 1) * 1024, claimed = number(input, 1) & 1 ? real : some_size(input);
    if (pl_memfd_create("forged", real, &fd) < 0) return;
    int seals = number(input, 1) & 3 ? SEALS : (int)number(input, 1) & 0x1f;
    (void)fcntl(fd, F_ADD_SEALS, seals);
    int r = pl_segment_map_add(game->map, fd, (uint32_t)number(input, 1), claimed);
    REQUIRE(r == -EPROTO || (r == 0 && real == claimed && (seals & SEALS) == SEALS));
}

static void view(struct game *game, struct input *input)
{
    struct pl_segment_view *place = &game->views[number(input, 1) % VIEWS];
    uint64_t size = some_size(input);
    pl_segment_view_release(place);
    uint32_t id = (uint32_t)number(input, 1) % (PL_SEGMENTS_MAX + 2);
    int r = pl_segment_map_view(game->map, id, (uint32_t)number(input, 1), size, place);
    REQUIRE(r == 0 || r == -EPROTO);
    REQUIRE((r == 0) == (place->map != NULL));
    if (r != 0 || size == 0) return;
    volatile uint8_t first = place->data[0], last = place->data[size - 1];
    (void)first, (void)last;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = { data, size };
    struct game game = { 0 };
    pl_segment_idle_ns = 0;
    REQUIRE(pl_segment_pool_new(&game.pool, game.returned) == 0);
    REQUIRE(pl_segment_map_new(&game.map, game.returned) == 0);
    for (int step = 0; step < 200 && input.size > 0; step++) {
        switch (number(&input, 1) % 13) {
        case 0:
        case 1: take(&game, &input); break;
        case 2: announce(&game, game.taken[number(&input, 1) % TAKEN]); break;
        case 3: announce_forged(&game, &input); break;
        case 4:
        case 5: view(&game, &input); break;
        case 6: pl_segment_view_release(&game.views[number(&input, 1) % VIEWS]); break;
        case 7: abort_one(&game, &game.taken[number(&input, 1) % TAKEN]); break;
        case 8: hold(&game, &input); break;
        case 9: send_held(&game, game.held[number(&input, 1) % HELD]); break;
        case 10: trim(&game); break;
        case 11: REQUIRE(pl_segment_map_drop(game.map, (uint32_t)number(&input, 1)) <= 0); break;
        default: game.returned[number(&input, 1) % PL_SEGMENTS_MAX] = (uint32_t)number(&input, 1); break;
        }
    }
    pl_segment_pool_free(game.pool);
    pl_segment_map_close(game.map);
    for (int i = 0; i < HELD; i++) {
        if (game.held[i] == NULL) continue;
        memset(game.held[i]->data, 3, game.held[i]->capacity);
        pl_segment_release(game.held[i]);
    }
    memset(game.returned, 0xee, sizeof(game.returned));
    for (int i = 0; i < VIEWS; i++) pl_segment_view_release(&game.views[i]);
    for (int i = 0; i < PL_SEGMENTS_MAX; i++) REQUIRE(game.returned[i] == 0xeeeeeeee);
    return 0;
}
