/* load: one page that an instance shows to its clients, read-only for them: how much it has to do, and, of a worker,
 * who it is and what it died of. Clients with a choice go to the least loaded.
 */
#ifndef PL_SHM_LOAD_H
#define PL_SHM_LOAD_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { PL_LOAD_REACTORS = 64 };

struct pl_load_page {
    _Atomic uint32_t deferred;               /* requests kept to be answered later */
    _Atomic uint32_t busy[PL_LOAD_REACTORS]; /* each reactor's own: 1 while it runs a handler */
    uint32_t worker;                         /* its number; 0: nobody supervises this instance */
    int32_t supervisor;                      /* pid */
    _Atomic uint64_t death;                  /* PL_DEATH_; 0: it lives, or nobody has said yet */
};

static_assert(offsetof(struct pl_load_page, worker) == 260 && offsetof(struct pl_load_page, supervisor) == 264 &&
                  offsetof(struct pl_load_page, death) == 272,
              "as docs/protocol.md says");

/* What a worker died of: PL_DEATH_SIGNAL or PL_DEATH_EXIT, the number in bits 32 to 39, the thread below. Noted by
 * itself in the handler of a crash signal, else by its supervisor. */
#define PL_DEATH_EXIT ((uint64_t)1 << 62)
#define PL_DEATH_SIGNAL ((uint64_t)1 << 63)
static inline unsigned pl_death_number(uint64_t death)
{
    return death >> 32 & 0xff;
}
static inline uint32_t pl_death_thread(uint64_t death)
{
    return (uint32_t)death;
}
static inline uint64_t pl_death_of(uint64_t how, int number, pid_t thread)
{
    return how | (uint64_t)(number & 0xff) << 32 | (uint32_t)thread;
}
/* R_DEATH1: pairs with A_DEATH1 */
static inline void pl_load_note_death(struct pl_load_page *page, uint64_t death)
{
    atomic_store_explicit(&page->death, death, memory_order_release);
}
/* A_DEATH1: pairs with R_DEATH1 */
static inline uint64_t pl_load_death(const struct pl_load_page *page)
{
    return atomic_load_explicit(&page->death, memory_order_acquire);
}

/* "signal 11 (segmentation fault)", "exit status 3"; returns TEXT. */
const char *pl_death_text(uint64_t death, char *text, size_t size);

/* Server: creates the page; *ret_fd is sealed with FUTURE_WRITE and the caller's. */
int pl_load_create(struct pl_load_page **ret_page, int *ret_fd);
/* The same in two steps, for a supervisor and a worker that shares no memory with it: the second maps FD (borrowed) for
 * writing, too, and seals it. */
int pl_load_create_open(struct pl_load_page **ret_page, int *ret_fd);
int pl_load_adopt(struct pl_load_page **ret_page, int fd);

/* Client: checks and maps FD (borrowed) for reading. -EPROTO, -ENOMEM with text. */
int pl_load_attach(const struct pl_load_page **ret_page, int fd);

void pl_load_detach(const struct pl_load_page *page); /* NULL is fine */

/* All relaxed: hints for choosing; nothing is published by them. */
static inline void pl_load_busy(struct pl_load_page *page, unsigned reactor, uint32_t busy)
{
    atomic_store_explicit(&page->busy[reactor], busy, memory_order_relaxed);
}

static inline bool pl_load_is_busy(const struct pl_load_page *page, unsigned reactor)
{
    /* relaxed: a hint */
    return atomic_load_explicit(&page->busy[reactor], memory_order_relaxed) != 0;
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
