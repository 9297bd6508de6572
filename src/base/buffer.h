/* buffer: bytes that are appended at the end and consumed at the front. */
#ifndef PL_BASE_BUFFER_H
#define PL_BASE_BUFFER_H

#include <stddef.h>
#include <stdint.h>

struct pl_buffer {
    uint8_t *memory;
    size_t start, end, capacity; /* memory[start, end) is what is in it */
};
#define PL_BUFFER_INIT                                                                                                 \
    {                                                                                                                  \
        NULL, 0, 0, 0                                                                                                  \
    }

void pl_buffer_deinit(struct pl_buffer *buffer); /* idempotent */

/* Makes room for SIZE more bytes behind the end (moving or growing). 0 or -ENOMEM. */
int pl_buffer_reserve(struct pl_buffer *buffer, size_t size);
int pl_buffer_append(struct pl_buffer *buffer, const void *data, size_t size);
int pl_buffer_printf(struct pl_buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Forgets SIZE bytes at the front; an empty buffer larger than 64 KiB gives its memory back. */
void pl_buffer_consume(struct pl_buffer *buffer, size_t size);

static inline uint8_t *pl_buffer_data(const struct pl_buffer *buffer)
{
    return buffer->memory ? buffer->memory + buffer->start : NULL;
}

static inline size_t pl_buffer_size(const struct pl_buffer *buffer)
{
    return buffer->end - buffer->start;
}

static inline uint8_t *pl_buffer_tail(const struct pl_buffer *buffer)
{
    return buffer->memory ? buffer->memory + buffer->end : NULL;
}

static inline size_t pl_buffer_room(const struct pl_buffer *buffer)
{
    return buffer->capacity - buffer->end;
}

#endif
