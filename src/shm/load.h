/* load: one page that an instance shows to its clients, read-only for them: how much it has to do. Clients
 * with a choice go to the least loaded.
 */
#ifndef PL_SHM_LOAD_H
#define PL_SHM_LOAD_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum { PL_LOAD_REACTORS = 64 };

struct pl_load_page {
    _Atomic uint32_t deferred;               /* requests kept to be answered later */
    _Atomic uint32_t busy[PL_LOAD_REACTORS]; /* each reactor's own: 1 while it runs a handler */
};

/* Server: creates the page; *ret_fd is sealed with FUTURE_WRITE and the caller's. */
int pl_load_create(struct pl_load_page **ret_page, int *ret_fd);

/* Client: checks and maps FD (borrowed) for reading. -EPROTO, -ENOMEM with text. */
int pl_load_attach(const struct pl_load_page **ret_page, int fd);

void pl_load_detach(const struct pl_load_page *page); /* NULL is fine */

/* All relaxed: hints for choosing; nothing is published by them. */
static inline void pl_load_busy(struct pl_load_page *page, unsigned reactor, uint32_t busy)
{
    atomic_store_explicit(&page->busy[reactor], busy, memory_order_relaxed);
}

static inline void pl_load_defer(struct pl_load_page *page, int by)
{
    /* relaxed: a hint */
    atomic_fetch_add_explicit(&page->deferred, (uint32_t)by, memory_order_relaxed);
}

/* The sum over REACTORS reactors; a liar's numbers make it unattractive or busy, no more. */
static inline uint32_t pl_load_read(const struct pl_load_page *page, unsigned reactors)
{
    if (page == NULL) return 0;
    /* relaxed: hints */
    uint32_t sum = atomic_load_explicit(&page->deferred, memory_order_relaxed);
    for (unsigned i = 0; i < reactors && i < PL_LOAD_REACTORS; i++)
        sum += /* relaxed: a hint */ atomic_load_explicit(&page->busy[i], memory_order_relaxed);
    return sum;
}

#endif
