/* Arrays: bodies of the encoding PLAIT_ARRAY, which say themselves what they hold.
 *
 * Such a body is a head of PLAIT_ARRAY_HEAD bytes, then the elements: without gaps, the last index running
 * fastest (C order). The head names the element's type and the shape, so a reader needs no arguments.
 * The elements of a body that lies in a segment are aligned to 64 bytes; elsewhere to 16.
 *
 * Types are written as numpy writes dtype.str: byte order (< little, > big, | where it means nothing), kind
 * (b bool, i signed, u unsigned, f float, c complex, m M time, S bytes, U UCS-4, V raw), size in bytes (U:
 * in characters), and for m and M the unit: "<f4", "|u1", "<M8[ns]". Plait doesn't convert elements.
 */
#ifndef PLAIT_ARRAY_H
#define PLAIT_ARRAY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PLAIT_ARRAY_HEAD 128      /* bytes */
#define PLAIT_ARRAY_DIMENSIONS 8  /* at most; 0 is a single element */
#define PLAIT_ARRAY_DTYPE_SIZE 24 /* bytes, the terminating NUL included */

typedef struct plait_array {
    char dtype[PLAIT_ARRAY_DTYPE_SIZE];
    uint32_t dimensions;
    uint32_t item_size; /* bytes of one element */
    uint64_t shape[PLAIT_ARRAY_DIMENSIONS];
    const void *data; /* the elements, in the body */
    size_t size;      /* bytes of all elements */
} plait_array;

/* How many bytes a body needs for such an array, its head included: for plait_client_loan and the like. -EINVAL: the
 * type or the number of dimensions (the text says what is wrong); -EMSGSIZE: beyond PLAIT_MESSAGE_MAX. */
int plait_array_measure(const char *dtype, const uint64_t *shape, size_t dimensions, size_t *ret_size);

/* Writes the head into BODY, memory of at least the measured size; the elements are to be written at *ret_data, right
 * behind it. Errors as measure; -EMSGSIZE also when SIZE is too small. */
int plait_array_write(void *body, size_t size, const char *dtype, const uint64_t *shape, size_t dimensions,
                      void **ret_data);

/* What BODY says that it is; ret_array->data points into it. -EBADMSG: it is no array, or its type and shape disagree
 * with SIZE. Looks at the head once: also where its sender could still change it, all in *ret_array is checked. */
int plait_array_read(const void *body, size_t size, plait_array *ret_array);

#ifdef __cplusplus
}
#endif

#endif
