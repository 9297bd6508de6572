/* memory: memfds, and the pages behind a mapping.
 *
 * A foreign memfd is believed only after pl_memfd_check. Seals keep its size, so that a mapping
 * never reaches beyond the file; populating tells lack of memory as an errno where a first touch
 * would tell it as SIGBUS.
 */
#ifndef PL_SHM_MEMORY_H
#define PL_SHM_MEMORY_H

#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>

/* What all shared memory has, so that its size stays and nobody takes that back. */
enum { PL_MEMFD_SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };

/* An empty, unsealed memfd of SIZE bytes, readable and writable by its owner's uid alone. */
int pl_memfd_create(const char *name, uint64_t size, int *ret_fd);
int pl_memfd_seal(int fd, int seals);

/* SIZE bytes that this process alone can write: mapped at *ret_data, and *ret_fd for those who may read, sealed as
 * below.
 */
int pl_memfd_create_one_writer(const char *name, size_t size, uint8_t **ret_data, int *ret_fd);

/* Makes FD, which its writer has mapped, readable for all others: PL_MEMFD_SEALS and FUTURE_WRITE, and mode 0400. A
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

/* The same for the first SIZE of the CAPACITY bytes at DATA, of which *populated are already; some more, so that memory
 * that is used again and again soon is. 0 and *populated; -ENOMEM with text. */
int pl_memory_populate_up_to(void *data, size_t capacity, size_t *populated, size_t size, int write);

#endif
