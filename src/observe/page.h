/* page: the file and the memory of our own status page: chunks, slots in them, texts. No locks: status.c holds
 * one. The mapping is a reservation that the file grows into, so addresses stay. Every byte is
 * allocated before it is mapped: a full tmpfs is an errno, never SIGBUS.
 */
#ifndef PL_OBSERVE_PAGE_H
#define PL_OBSERVE_PAGE_H

#include "base/list.h"
#include "observe/place.h"
#include "observe/status_layout.h"

enum { PL_PAGE_CHUNKS_MAX = 1100 };

struct pl_page_chunk {
    uint32_t offset, size;
    uint32_t kind;
    uint64_t free; /* a bit for each slot that is */
};

struct pl_page {
    struct pl_list link; /* status.c's */
    int users;           /* status.c's: objects that point in here */
    int services;        /* status.c's: of those, services to be seen */
    bool forgotten;      /* in a forked child: the page is the parent's */
    int fd;              /* locked; -1 once unlinked */
    struct pl_place place;
    char name[17];
    uint8_t *memory;
    uint32_t used; /* bytes of the file */
    uint32_t unit; /* chunk sizes are multiples: the system's page size */
    uint32_t chunk_count;
    struct pl_page_chunk chunks[PL_PAGE_CHUNKS_MAX];
};

struct pl_page_slot {
    void *memory;
    uint32_t chunk, index;
};

/* Makes the own directory's page, with room for some services and connections. -ENOSPC, -EFBIG, -ENOENT (no
 * tmpfs), -ENOMEM, -EMFILE, ... with text. */
int pl_page_open(struct pl_page **ret_page);

/* Takes the file away; the memory stays until free. Idempotent; nothing to do for a forgotten page. */
void pl_page_unlink(struct pl_page *page);
void pl_page_free(struct pl_page *page); /* NULL is fine */

/* In a forked child: lets go of file and lock, and puts private memory where the parent's page was. */
void pl_page_forget(struct pl_page *page);

/* A free slot in a chunk of KIND, growing the page where it must. The slot's version is even, its id 0. -ENOSPC,
 * -EFBIG, -ENOMEM with text. */
int pl_page_slot(struct pl_page *page, enum pl_status_kind kind, struct pl_page_slot *ret_slot);
void pl_page_slot_free(struct pl_page *page, const struct pl_page_slot *slot);

/* Writes a text chunk: 0 and the word for the service slot. The old word's chunk is freed by the caller after
 * the slot has the new one. */
int pl_page_text(struct pl_page *page, const char *const texts[PL_STATUS_TEXTS], uint64_t *ret_word);
void pl_page_text_free(struct pl_page *page, uint64_t word);

/* The two halves of every change: the version is odd in between. */
void pl_page_begin(_Atomic uint64_t *version);
void pl_page_end(_Atomic uint64_t *version);

#endif
