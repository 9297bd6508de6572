/* load: one page that an instance shows to its clients, read-only for them: how much it has to do. Clients
 * with a choice go to the least loaded.
 */
#ifndef PL_SHM_LOAD_H
#define PL_SHM_LOAD_H

#include <stdatomic.h>
#include <stdint.h>

struct pl_load_page {
    _Atomic uint32_t in_progress; /* requests taken and not answered */
};

/* Server: creates the page; *ret_fd is sealed with FUTURE_WRITE and the caller's. */
int pl_load_create(struct pl_load_page **ret_page, int *ret_fd);

/* Client: checks and maps FD (borrowed) for reading. -EPROTO, -ENOMEM with text. */
int pl_load_attach(const struct pl_load_page **ret_page, int fd);

void pl_load_detach(const struct pl_load_page *page); /* NULL is fine */

/* Relaxed: a hint for choosing; nothing is published by it. */
static inline void pl_load_add(struct pl_load_page *page, int by)
{
    atomic_fetch_add_explicit(&page->in_progress, (uint32_t)by, memory_order_relaxed);
}

static inline uint32_t pl_load_read(const struct pl_load_page *page)
{
    return page ? atomic_load_explicit(&page->in_progress, memory_order_relaxed) : 0;
}

#endif
