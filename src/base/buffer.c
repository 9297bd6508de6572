/* buffer: bytes move to the front only when at least as many were consumed as must move, so
 * that appending stays linear whatever the pattern; else the memory grows by doubling.
 */
#include "base/buffer.h"

#include "base/error.h"
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SMALLEST 256
#define KEPT_WHEN_EMPTY ((size_t)64 << 10)

void pl_buffer_deinit(struct pl_buffer *buffer)
{
    if (buffer == NULL) return;
    free(buffer->memory);
    *buffer = (struct pl_buffer)PL_BUFFER_INIT;
}

static void move_to_front(struct pl_buffer *buffer)
{
    if (buffer->start == 0) return;
    memmove(buffer->memory, pl_buffer_data(buffer), pl_buffer_size(buffer));
    buffer->end -= buffer->start;
    buffer->start = 0;
}

int pl_buffer_reserve(struct pl_buffer *buffer, size_t size)
{
    if (pl_buffer_room(buffer) >= size) return 0;
    size_t used = pl_buffer_size(buffer), needed;
    bool too_large = __builtin_add_overflow(used, size, &needed) || needed > PTRDIFF_MAX;
    if (!too_large && needed <= buffer->capacity && buffer->start >= used) {
        move_to_front(buffer);
        return 0;
    }
    if (too_large) return pl_error(-ENOMEM, "a buffer of %zu bytes cannot take %zu more: out of memory", used, size);

    size_t capacity = buffer->capacity < SMALLEST ? SMALLEST : buffer->capacity;
    while (capacity < needed) capacity = capacity > PTRDIFF_MAX / 2 ? needed : capacity * 2;
    if (capacity <= buffer->capacity) capacity = buffer->capacity * 2; /* room enough, but moving would not pay */
    move_to_front(buffer);
    uint8_t *memory = realloc(buffer->memory, capacity);
    if (memory == NULL && needed < capacity) memory = realloc(buffer->memory, capacity = needed);
    if (memory == NULL) return pl_error(-ENOMEM, "no memory for %zu bytes more in a buffer of %zu", size, used);
    buffer->memory = memory;
    buffer->capacity = capacity;
    return 0;
}

int pl_buffer_append(struct pl_buffer *buffer, const void *data, size_t size)
{
    if (size == 0) return 0; /* DATA may be NULL then, and memcpy must not see that */
    int r = pl_buffer_reserve(buffer, size);
    if (r < 0) return r;
    memcpy(pl_buffer_tail(buffer), data, size);
    buffer->end += size;
    return 0;
}

int pl_buffer_printf(struct pl_buffer *buffer, const char *format, ...)
{
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    int r =
        length < 0 ? pl_error(-EINVAL, "a format that printf refuses") : pl_buffer_reserve(buffer, (size_t)length + 1);
    if (r == 0) {
        vsnprintf((char *)pl_buffer_tail(buffer), (size_t)length + 1, format, again);
        buffer->end += (size_t)length; /* the NUL behind it is no part of it */
    }
    va_end(again);
    return r;
}

void pl_buffer_consume(struct pl_buffer *buffer, size_t size)
{
    buffer->start += size;
    if (buffer->start < buffer->end) return;
    buffer->start = buffer->end = 0;
    if (buffer->capacity > KEPT_WHEN_EMPTY) pl_buffer_deinit(buffer);
}
