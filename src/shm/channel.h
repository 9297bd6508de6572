/* channel: the shared memory of one connection: created and sealed by the server, checked and
 * mapped by the client. Both rings are mapped twice in a row, so that a record is contiguous. Several
 * channels of one process share a 2 MiB window (one page of page table); only the control page and
 * the first PL_RING_LIGHT bytes of each ring are populated, the rings do the rest when they need it.
 */
#ifndef PL_SHM_CHANNEL_H
#define PL_SHM_CHANNEL_H

#include "shm/layout.h"
#include "shm/memory.h"
#include <stddef.h>

struct pl_channel {
    struct pl_channel_control *control;
    uint8_t *ring[2]; /* capacity bytes, mapped twice */
    uint32_t capacity;
    void *window; /* private to channel.c */
};

/* Creates and maps; *ret_fd is the sealed (SHRINK|GROW|SEAL) memfd, the caller's: send it, close it.
 * CAPACITY: a power of two, multiple of the page size, at most PL_RING_CAPACITY_MAX. -ENOMEM, -EMFILE,
 * ... with text. Thread-safe. */
int pl_channel_create(struct pl_channel *ret_channel, uint32_t capacity, int *ret_fd);

/* Maps the peer's FD (borrowed). Refuses, -EPROTO with text: not tmpfs (a hugetlb memfd passes every
 * seal check and SIGBUSes), seals missing, another size than CAPACITY implies, wrong magic or version.
 * Populates, so that lack of memory is an errno and never SIGBUS. Thread-safe. */
int pl_channel_attach(struct pl_channel *ret_channel, int fd, uint32_t capacity);

/* Unmaps: nobody may use control or rings any more. NULL and half-built are fine; idempotent; thread-safe.
 * In a forked child it unmaps the child's copy and nothing else. */
void pl_channel_detach(struct pl_channel *channel);

#endif
