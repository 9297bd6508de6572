/* options: reading a caller's option struct of an older or newer header. */
#ifndef PL_BASE_OPTIONS_H
#define PL_BASE_OPTIONS_H

#include <stddef.h>

/* Copies OPTIONS, a struct that begins with `size_t size` (NULL: all defaults), to KNOWN, SIZE bytes. What the
 * caller's struct has beyond that must be zero: -E2BIG. -EINVAL: its size was not initialised. */
int pl_options_read(void *known, size_t size, const void *options, const char *type);

#endif
