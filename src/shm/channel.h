/* channel: the shared memory of one connection: created and sealed by the server, checked and
 * mapped by the client. Both rings are mapped twice in a row, so that a frame is contiguous; all
 * of it lies in one 2 MiB window (one page of page table); only the control page and the first
 * PL_RING_LIGHT bytes of each ring are populated.
 */
#ifndef PL_SHM_CHANNEL_H
#define PL_SHM_CHANNEL_H

#include "shm/layout.h"
#include <stddef.h>

struct pl_channel {
    struct pl_channel_control *control;
    uint8_t *ring[2];   /* capacity bytes, mapped twice */
    uint32_t capacity;
    void *window;       /* private to channel.c */
};

/* Creates and maps; *ret_fd is the sealed (SHRINK|GROW|SEAL) memfd, the caller's: send it, close it.
 * CAPACITY: a power of two, multiple of the page size. -ENOMEM, -EMFILE, ... with text. */
int pl_channel_create(struct pl_channel *ret_channel, uint32_t capacity, int *ret_fd);

/* Maps the peer's FD (borrowed). Refuses, -EPROTO with text: not tmpfs (a hugetlb memfd passes every
 * seal check and SIGBUSes), seals missing, another size than CAPACITY implies, wrong magic or version.
 * Populates, so that lack of memory is an errno and never SIGBUS. */
int pl_channel_attach(struct pl_channel *ret_channel, int fd, uint32_t capacity);

void pl_channel_detach(struct pl_channel *channel); /* idempotent; after fork() harmless */

/* The checks that both channels and segments make of a foreign memfd. SEALS: those needed. */
int pl_memfd_check(int fd, uint64_t size, int seals);

#endif
