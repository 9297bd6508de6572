/* fuzz_wire: what the targets for the wire share. */
#ifndef FUZZ_WIRE_H
#define FUZZ_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The property that the target states; a violation is what the fuzzer looks for. */
#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) abort();                                                                                     \
    } while (0)

/* A copy in memory of exactly that size, so that the sanitizer sees one byte too many. Free it. */
static inline uint8_t *exact_copy(const void *data, size_t size)
{
    uint8_t *copy = malloc(size + (size == 0));
    REQUIRE(copy != NULL);
    if (size > 0) memcpy(copy, data, size);
    return copy;
}

/* The same with a NUL behind it. Free it. */
static inline char *exact_text(const void *data, size_t size)
{
    char *text = malloc(size + 1);
    REQUIRE(text != NULL);
    if (size > 0) memcpy(text, data, size);
    text[size] = '\0';
    return text;
}

#endif
