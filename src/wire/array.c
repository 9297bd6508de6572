/* array: the head of bodies that are arrays, see <plait/array.h> and docs/protocol.md. Heads come from peers and may
 * lie in memory that they can still write: copied once, checked, and only the copy is used.
 */
#include <plait/array.h>

#include "base/error.h"
#include "wire/bytes.h"

#include <assert.h>
#include <errno.h>
#include <plait/plait.h>
#include <stdbool.h>
#include <string.h>

enum { VERSION = 1, AT_DIMENSIONS = 1, AT_DTYPE = 8, AT_SHAPE = 64 };
static_assert(AT_DTYPE + PLAIT_ARRAY_DTYPE_SIZE <= AT_SHAPE, "the type's name ends before the shape");
static_assert(AT_SHAPE + 8 * PLAIT_ARRAY_DIMENSIONS == PLAIT_ARRAY_HEAD, "the shape fills the head");

static bool is_unit(const char *text)
{
    size_t size = strlen(text);
    if (size < 3 || text[0] != '[' || text[size - 1] != ']') return false;
    for (size_t i = 1; i + 1 < size; i++) {
        char c = text[i];
        if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'))) return false;
    }
    return true;
}

static bool fits_kind(char kind, uint64_t size)
{
    switch (kind) {
    case 'b': return size == 1;
    case 'i':
    case 'u': return size == 1 || size == 2 || size == 4 || size == 8;
    case 'f': return size == 2 || size == 4 || size == 8 || size == 12 || size == 16;
    case 'c': return size == 8 || size == 16 || size == 24 || size == 32;
    case 'm':
    case 'M': return size == 8;
    default: return true; /* S, U, V: any */
    }
}

/* The bytes of an element of DTYPE, a terminated string. 0: it is none. */
static uint32_t size_of(const char *dtype)
{
    size_t length = strnlen(dtype, PLAIT_ARRAY_DTYPE_SIZE);
    if (length < 3 || length == PLAIT_ARRAY_DTYPE_SIZE || !strchr("<>|", dtype[0]) || !strchr("biufcmMSUV", dtype[1]))
        return 0;
    const char *at = dtype + 2;
    uint64_t size = 0;
    while (*at >= '0' && *at <= '9' && size < PLAIT_MESSAGE_MAX) size = size * 10 + (uint64_t)(*at++ - '0');
    bool time = dtype[1] == 'm' || dtype[1] == 'M';
    if (time && *at != 0 && !is_unit(at)) return 0;
    if ((!time && *at != 0) || size == 0 || !fits_kind(dtype[1], size)) return 0;
    if (dtype[1] == 'U') size *= 4;
    if (dtype[0] == '|' && dtype[1] != 'S' && dtype[1] != 'V' && size > 1) return 0;
    return size > PLAIT_MESSAGE_MAX ? 0 : (uint32_t)size;
}

/* The bytes of all elements: 0 and *ret_size, -EMSGSIZE. A shape with a 0 in it has none, whatever the rest says. */
static int volume(uint32_t item_size, const uint64_t *shape, size_t dimensions, uint64_t *ret_size)
{
    uint64_t size = item_size;
    for (size_t i = 0; i < dimensions; i++)
        if (shape[i] == 0) size = 0;
    for (size_t i = 0; i < dimensions && size > 0; i++)
        if (__builtin_mul_overflow(size, shape[i], &size) || size > PLAIT_MESSAGE_MAX) return -EMSGSIZE;
    if (size > PLAIT_MESSAGE_MAX - PLAIT_ARRAY_HEAD) return -EMSGSIZE;
    *ret_size = size;
    return 0;
}

int plait_array_measure(const char *dtype, const uint64_t *shape, size_t dimensions, size_t *ret_size)
{
    uint64_t size;
    if (dimensions > PLAIT_ARRAY_DIMENSIONS)
        return pl_error(-EINVAL, "an array of %zu dimensions; the limit is PLAIT_ARRAY_DIMENSIONS, %d", dimensions,
                        PLAIT_ARRAY_DIMENSIONS);
    if (dtype == NULL || (dimensions > 0 && shape == NULL)) return pl_error(-EINVAL, "an array without type or shape");
    uint32_t item_size = size_of(dtype);
    if (item_size == 0)
        return pl_error(
            -EINVAL,
            "'%.*s' is no type of an array's elements: write it as numpy's dtype.str does, such as <f4, |u1 "
            "or <M8[ns] (records and objects can't travel)",
            PLAIT_ARRAY_DTYPE_SIZE, dtype);
    int r = volume(item_size, shape, dimensions, &size);
    if (r < 0)
        return pl_error(r, "an array of this shape is larger than a message: PLAIT_MESSAGE_MAX, %u", PLAIT_MESSAGE_MAX);
    *ret_size = PLAIT_ARRAY_HEAD + size;
    return 0;
}

int plait_array_write(void *body, size_t size, const char *dtype, const uint64_t *shape, size_t dimensions,
                      void **ret_data)
{
    size_t needed;
    uint8_t head[PLAIT_ARRAY_HEAD] = { VERSION, (uint8_t)dimensions };
    int r = plait_array_measure(dtype, shape, dimensions, &needed);
    if (r < 0) return r;
    if (size < needed) return pl_error(-EMSGSIZE, "this array needs %zu bytes, and there are %zu", needed, size);
    memcpy(head + AT_DTYPE, dtype, strlen(dtype));
    for (size_t i = 0; i < dimensions; i++) pl_store_u64(head + AT_SHAPE + 8 * i, shape[i]);
    memcpy(body, head, sizeof(head));
    if (ret_data) *ret_data = (uint8_t *)body + PLAIT_ARRAY_HEAD;
    return 0;
}

static bool all_zero(const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != 0) return false;
    return true;
}

int plait_array_read(const void *body, size_t size, plait_array *ret_array)
{
    uint8_t head[PLAIT_ARRAY_HEAD];
    plait_array array = { .data = NULL };
    uint64_t claimed;
    if (size < sizeof(head))
        return pl_error(-EBADMSG, "a body of %zu bytes is no array: its head has %zu", size, sizeof(head));
    memcpy(head, body, sizeof(head));
    array.dimensions = head[AT_DIMENSIONS];
    if (head[0] != VERSION || array.dimensions > PLAIT_ARRAY_DIMENSIONS)
        return pl_error(-EBADMSG,
                        "this body is no array that is known here: version %u (known: %d), %u dimensions (at "
                        "most PLAIT_ARRAY_DIMENSIONS, %d)",
                        head[0], VERSION, array.dimensions, PLAIT_ARRAY_DIMENSIONS);
    memcpy(array.dtype, head + AT_DTYPE, sizeof(array.dtype));
    array.item_size = size_of(array.dtype);
    size_t named = strnlen(array.dtype, sizeof(array.dtype)), shaped = AT_SHAPE + 8 * (size_t)array.dimensions;
    if (array.item_size == 0) return pl_error(-EBADMSG, "this array's type is none that is known");
    if (!all_zero(head + 2, AT_DTYPE - 2) || !all_zero(head + AT_DTYPE + named, AT_SHAPE - AT_DTYPE - named) ||
        !all_zero(head + shaped, sizeof(head) - shaped))
        return pl_error(-EBADMSG, "this array's head has bytes set that must be zero");
    for (uint32_t i = 0; i < array.dimensions; i++) array.shape[i] = pl_load_u64(head + AT_SHAPE + 8 * i);
#ifdef PLAIT_PLANT_BUG /* what fuzz_array must find: nobody compares what is claimed with what is there */
    if (volume(array.item_size, array.shape, array.dimensions, &claimed) < 0) claimed = size - sizeof(head);
#else
    if (volume(array.item_size, array.shape, array.dimensions, &claimed) < 0 || claimed != size - sizeof(head))
        return pl_error(-EBADMSG,
                        "this array's type and shape disagree with its size: %s with %u dimensions in %zu bytes",
                        array.dtype, array.dimensions, size - sizeof(head));
#endif
    array.data = (const uint8_t *)body + sizeof(head);
    array.size = claimed;
    *ret_array = array;
    return 0;
}
