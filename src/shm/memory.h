/* memory: memfds, and the pages behind a mapping.
 *
 * A foreign memfd is believed only after pl_memfd_check. Seals keep its size, so that a mapping
 * never reaches beyond the file; populating tells lack of memory as an errno where a first touch
 * would tell it as SIGBUS.
 */
#ifndef PL_SHM_MEMORY_H
#define PL_SHM_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* An empty, unsealed memfd of SIZE bytes, readable and writable by its owner's uid alone. */
int pl_memfd_create(const char *name, uint64_t size, int *ret_fd);
int pl_memfd_seal(int fd, int seals);

/* Makes FD, which its writer has mapped, readable for all others: SHRINK, GROW, SEAL and FUTURE_WRITE, and mode 0400. A
 * kernel before 5.1 doesn't know FUTURE_WRITE: then receivers could write, to their own user's harm. */
int pl_memfd_seal_one_writer(int fd);

/* The checks that both channels and segments make of a foreign memfd, -EPROTO with text: on tmpfs,
 * all of SEALS set, exactly SIZE bytes. Borrows FD. */
int pl_memfd_check(int fd, uint64_t size, int seals);

size_t pl_page_size(void);

/* Gives the pages of [ADDRESS, ADDRESS + SIZE) memory and page-table entries for writing or for
 * reading. ADDRESS is page-aligned. 0 or -ENOMEM with text. A kernel before 5.14 cannot do it by a
 * call: then each page is touched, and lack of memory is SIGBUS after all. */
int pl_memory_populate(void *address, size_t size, int write);

#endif
