/* test_guard: bytes that end, or begin, at a page that nobody may touch, so that reading one byte
 * too many is a crash and not luck. One place, used again by each call.
 */
#ifndef PL_WIRE_TEST_GUARD_H
#define PL_WIRE_TEST_GUARD_H

#include "harness/test.h"
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

enum { GUARD_ROOM = 1 << 17, GUARD_PAGE = 65536 };

static inline uint8_t *guard_place(void)
{
    static uint8_t *place;
    if (place == NULL) {
        uint8_t *memory = mmap(NULL, GUARD_ROOM + 2 * GUARD_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(memory != MAP_FAILED);
        CHECK(mprotect(memory + GUARD_PAGE, GUARD_ROOM, PROT_READ | PROT_WRITE) == 0);
        place = memory + GUARD_PAGE;
    }
    return place;
}

/* A copy of DATA whose last byte is the last one that may be read. */
static inline const uint8_t *guard_end(const void *data, size_t size)
{
    CHECK(size <= GUARD_ROOM);
    uint8_t *copy = guard_place() + GUARD_ROOM - size;
    if (size > 0) memcpy(copy, data, size);
    return copy;
}

/* A copy of DATA whose first byte is the first one that may be read. */
static inline const uint8_t *guard_begin(const void *data, size_t size)
{
    CHECK(size <= GUARD_ROOM);
    if (size > 0) memcpy(guard_place(), data, size);
    return guard_place();
}

#endif
