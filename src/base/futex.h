/* futex: a 32-bit word to wait on. */
#ifndef PL_BASE_FUTEX_H
#define PL_BASE_FUTEX_H

#include <stdatomic.h>
#include <stdint.h>

/* Sleeps while *word == VALUE, at most to DEADLINE (ns of pl_clock_ns, PL_NEVER: none). Returns 0
 * (woken, or the word differs; re-check), -ETIMEDOUT or -EINTR. */
int pl_futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t deadline_ns);
void pl_futex_wake(_Atomic uint32_t *word, int count);

/* The same for a word in memory that processes share. */
int pl_futex_wait_shared(_Atomic uint32_t *word, uint32_t value, uint64_t deadline_ns);
void pl_futex_wake_shared(_Atomic uint32_t *word, int count);

#endif
