/* random: bytes from the kernel. */
#ifndef PL_BASE_RANDOM_H
#define PL_BASE_RANDOM_H

#include <stdint.h>

uint64_t pl_random_u64(void);

#endif
