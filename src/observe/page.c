/* page: see page.h. The file is made without a name (O_TMPFILE), locked, filled, and only then linked into
 * its directory: nobody ever sees half a page, or a living one without its lock, and dying in between
 * leaves nothing.
 */
#include "observe/page.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/random.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum { TRIES = 16 };

/* How the slots of a kind come: what a chunk takes of the file, and each slot of the chunk. */
static uint32_t chunk_size(enum pl_status_kind kind)
{
    return kind == PL_STATUS_CONNECTIONS ? 16384 : 4096;
}

static uint32_t slot_size(enum pl_status_kind kind)
{
    switch (kind) {
    case PL_STATUS_SERVICES:
    case PL_STATUS_TOPICS: return sizeof(struct pl_status_service_slot);
    case PL_STATUS_POOLS: return sizeof(struct pl_status_pool_slot);
    case PL_STATUS_THREADS: return sizeof(struct pl_status_thread_slot);
    default: return sizeof(struct pl_status_connection_slot);
    }
}

static uint32_t round_up(uint64_t size, uint32_t unit)
{
    return (uint32_t)((size + unit - 1) / unit * unit);
}

void pl_page_begin(_Atomic uint64_t *version)
{
    /* relaxed: the fence orders it; one writer at a time, under status.c's lock */
    atomic_store_explicit(version, atomic_load_explicit(version, memory_order_relaxed) + 1, memory_order_relaxed);
    /* OBR1: pairs with OBA1 in reader.c: whoever sees what we write now sees the odd version afterwards */
    atomic_thread_fence(memory_order_release);
}

void pl_page_end(_Atomic uint64_t *version)
{
    /* OBR2: pairs with OBA2 in reader.c: whoever sees the even version sees all that was written */
    atomic_store_explicit(version, atomic_load_explicit(version, memory_order_relaxed) + 1, memory_order_release);
}

/* ---- growing -------------------------------------------------------------------------- */

/* Allocates and maps SIZE more bytes of the file. */
static int extend(struct pl_page *page, uint32_t size)
{
    struct rlimit limit;
    uint64_t end = (uint64_t)page->used + size;
    int r;
    if (page->fd < 0) return pl_error(-ENOENT, "status page: its file is gone");
    if (end > PL_STATUS_SIZE_MAX)
        return pl_error(-ENOSPC, "status page: full at %d MiB (what is beyond is not shown)", PL_STATUS_SIZE_MAX >> 20);
    /* The kernel would not only refuse it but send SIGXFSZ. */
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < end)
        return pl_error(-EFBIG, "status page: the limit of file sizes is %llu bytes (raise it: ulimit -f)",
                        (unsigned long long)limit.rlim_cur);
    int tries = TRIES;
    do {
        r = fallocate(page->fd, 0, page->used, size) < 0 ? -errno : 0;
    } while (r == -EINTR && tries-- > 0);
    if (r < 0) return pl_error(r, "status page in %s: %s", page->place.path, pl_error_word(r));
    if (mmap(page->memory + page->used, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, page->fd, page->used) ==
        MAP_FAILED)
        return pl_error(-errno, "status page: mmap: %s", pl_error_word(errno));
    madvise(page->memory + page->used, size, MADV_POPULATE_WRITE); /* only saves faults: memory is there by now */
    page->used = (uint32_t)end;
    return 0;
}

static struct pl_status_chunk *chunk_header(const struct pl_page *page, uint32_t index)
{
    return (struct pl_status_chunk *)(page->memory + page->chunks[index].offset);
}

/* Appends a chunk of slots of SLOT bytes; 0: of text, which is not to be seen before its text is. */
static int append_chunk(struct pl_page *page, enum pl_status_kind kind, uint64_t size, uint32_t slot,
                        uint32_t *ret_index)
{
    uint32_t offset = page->used, index = page->chunk_count;
    if (index == PL_PAGE_CHUNKS_MAX) return pl_error(-ENOSPC, "status page: full at %d chunks", PL_PAGE_CHUNKS_MAX);
    if (size > PL_STATUS_SIZE_MAX) return pl_error(-ENOSPC, "status page: full at %d MiB", PL_STATUS_SIZE_MAX >> 20);
    uint32_t rounded = round_up(size, page->unit);
    int r = extend(page, rounded);
    if (r < 0) return r;
    page->chunks[index] = (struct pl_page_chunk){ .offset = offset, .size = rounded, .kind = kind };
    struct pl_status_chunk *header = chunk_header(page, index);
    header->size = rounded;
    if (slot > 0) {
        header->slot_size = slot;
        header->slot_start = slot; /* the first slot's room holds the header */
        uint32_t slots = rounded / slot - 1;
        header->slot_count = slots < 64 ? slots : 64;
        page->chunks[index].free = header->slot_count == 64 ? UINT64_MAX : (UINT64_C(1) << header->slot_count) - 1;
    }
    page->chunk_count++;
    /* OBR3: pairs with OBA2 in reader.c: a chunk with a kind has its sizes */
    atomic_store_explicit(&header->kind, slot > 0 ? kind : PL_STATUS_FREE, memory_order_release);
    *ret_index = index;
    return 0;
}

/* ---- making and ending ------------------------------------------------------------------ */

static void fill_head(struct pl_page *page, uint64_t id)
{
    struct pl_status_head *head = (struct pl_status_head *)page->memory;
    *head = (struct pl_status_head){
        .magic = PL_STATUS_MAGIC,
        .version = PL_STATUS_VERSION,
        .size = page->unit,
        .id = id,
        .created_ms = pl_clock_unix_ms(),
        .process_start = pl_process_start(getpid()),
        .pid_namespace = pl_place_pid_namespace(),
        .pid = getpid(),
        .uid = geteuid(),
        .counter_count = PL_COUNTERS,
        .language = "c",
        .library = PLAIT_VERSION,
    };
    pl_process_name(head->pid, head->process, sizeof head->process);
    for (int i = 0; i < PL_COUNTERS; i++)
        snprintf(head->counter_names[i], PL_STATUS_COUNTER_NAME, "%s", pl_counter_table[i].name);
}

static int lock_file(int fd)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? pl_error(-errno, "status page: lock: %s", pl_error_word(errno)) : 0;
}

/* Opens the directory, and in it a file that has no name yet. -ENOENT also where the directory was tidied away
 * under us. */
static int open_file(struct pl_page *page)
{
    struct pl_directory directory = PL_DIRECTORY_NONE;
    int r = pl_directory_own(&directory, true);
    if (r < 0) return r;
    r = pl_place_open(&page->place, &directory, true);
    pl_directory_close(&directory);
    if (r < 0) return r;
    page->fd = openat(page->place.fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0400);
    if (page->fd < 0) return pl_error(-errno, "status page in %s: %s", page->place.path, pl_error_word(errno));
    return 0;
}

static int link_file(struct pl_page *page, uint64_t id)
{
    char self[64];
    snprintf(self, sizeof self, "/proc/self/fd/%d", page->fd);
    snprintf(page->name, sizeof page->name, "%016llx", (unsigned long long)id);
    if (linkat(AT_FDCWD, self, page->place.fd, page->name, AT_SYMLINK_FOLLOW) == 0) return 0;
    int r = -errno;
    return pl_error(r, "status page %s/%s: %s", page->place.path, page->name, pl_error_word(r));
}

static int append_slots(struct pl_page *page, enum pl_status_kind kind, uint32_t *ret_index)
{
    return append_chunk(page, kind, chunk_size(kind), slot_size(kind), ret_index);
}

static int fill_file(struct pl_page *page, uint64_t id)
{
    uint32_t index;
    int r = lock_file(page->fd);
    if (r == 0) r = extend(page, page->unit);
    if (r == 0) fill_head(page, id);
    if (r == 0) r = append_slots(page, PL_STATUS_SERVICES, &index);
    if (r == 0) r = append_slots(page, PL_STATUS_CONNECTIONS, &index);
    return r < 0 ? r : link_file(page, id);
}

int pl_page_open(struct pl_page **ret_page)
{
    struct pl_page *page = calloc(1, sizeof *page);
    if (page == NULL) return pl_error(-ENOMEM, "status page: out of memory");
    page->fd = -1;
    page->place.fd = -1;
    page->unit = (uint32_t)sysconf(_SC_PAGESIZE);
    if (page->unit < PL_STATUS_ALIGN) page->unit = PL_STATUS_ALIGN;
    void *memory = mmap(NULL, PL_STATUS_SIZE_MAX, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        free(page);
        return pl_error(-ENOMEM, "status page: no room for %d MiB of addresses", PL_STATUS_SIZE_MAX >> 20);
    }
    page->memory = memory;
    int r = -ENOENT;
    for (int tries = 0; r == -ENOENT && tries < TRIES; tries++) {
        page->used = page->chunk_count = 0;
        pl_close(&page->fd);
        pl_place_close(&page->place);
        r = open_file(page);
        if (r == 0) r = fill_file(page, pl_random_u64());
    }
    if (r < 0) {
        pl_place_tidy(&page->place);
        pl_page_free(page);
        return r;
    }
    pl_place_sweep(&page->place);
    *ret_page = page;
    return 0;
}

void pl_page_unlink(struct pl_page *page)
{
    if (page->fd < 0) return;
    unlinkat(page->place.fd, page->name, 0);
    pl_close(&page->fd);
    pl_place_tidy(&page->place);
    pl_place_close(&page->place);
}

void pl_page_free(struct pl_page *page)
{
    if (page == NULL) return;
    munmap(page->memory, PL_STATUS_SIZE_MAX);
    pl_close(&page->fd);
    pl_place_close(&page->place);
    free(page);
}

void pl_page_forget(struct pl_page *page)
{
    page->forgotten = true;
    pl_close(&page->fd);
    pl_place_close(&page->place);
    if (mmap(page->memory, page->used, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
        MAP_FAILED)
        mprotect(page->memory, page->used, PROT_NONE); /* better no child than one that writes there */
}

/* ---- slots and texts -------------------------------------------------------------------- */

int pl_page_slot(struct pl_page *page, enum pl_status_kind kind, struct pl_page_slot *ret_slot)
{
    uint32_t index = 0;
    while (index < page->chunk_count && (page->chunks[index].kind != kind || page->chunks[index].free == 0)) index++;
    if (index == page->chunk_count) {
        int r = append_slots(page, kind, &index);
        if (r < 0) return r;
    }
    struct pl_page_chunk *chunk = &page->chunks[index];
    struct pl_status_chunk *header = chunk_header(page, index);
    uint32_t slot = (uint32_t)__builtin_ctzll(chunk->free);
    chunk->free &= chunk->free - 1;
    ret_slot->memory = page->memory + chunk->offset + header->slot_start + (size_t)slot * header->slot_size;
    ret_slot->chunk = index;
    ret_slot->index = slot;
    return 0;
}

void pl_page_slot_free(struct pl_page *page, const struct pl_page_slot *slot)
{
    page->chunks[slot->chunk].free |= UINT64_C(1) << slot->index;
}

int pl_page_text(struct pl_page *page, const char *const texts[PL_STATUS_TEXTS], uint64_t *ret_word)
{
    size_t sizes[PL_STATUS_TEXTS], size = sizeof(struct pl_status_chunk);
    uint32_t index = 0;
    for (int i = 0; i < PL_STATUS_TEXTS; i++) size += sizes[i] = strnlen(texts[i], PL_STATUS_SIZE_MAX / 4);
    while (index < page->chunk_count &&
           !(page->chunks[index].kind == PL_STATUS_FREE && page->chunks[index].size >= size))
        index++;
    if (index == page->chunk_count) {
        int r = append_chunk(page, PL_STATUS_TEXT, size, 0, &index);
        if (r < 0) return r;
    }
    struct pl_page_chunk *chunk = &page->chunks[index];
    struct pl_status_chunk *header = chunk_header(page, index);
    uint8_t *to = (uint8_t *)(header + 1);
    chunk->kind = PL_STATUS_TEXT;
    header->generation = header->generation % INT32_MAX + 1; /* never 0, so that no word is */
    for (int i = 0; i < PL_STATUS_TEXTS; i++) {
        header->text_size[i] = (uint32_t)sizes[i];
        memcpy(to, texts[i], sizes[i]);
        to += sizes[i];
    }
    /* relaxed: the word that leads here is what publishes it */
    atomic_store_explicit(&header->kind, PL_STATUS_TEXT, memory_order_relaxed);
    *ret_word = (uint64_t)header->generation << 32 | chunk->offset / PL_STATUS_ALIGN;
    return 0;
}

void pl_page_text_free(struct pl_page *page, uint64_t word)
{
    for (uint32_t i = 0; word != 0 && i < page->chunk_count; i++) {
        if (page->chunks[i].offset != (uint32_t)word * PL_STATUS_ALIGN) continue;
        page->chunks[i].kind = PL_STATUS_FREE;
        /* relaxed: no reader follows a word that its slot no longer holds */
        atomic_store_explicit(&chunk_header(page, i)->kind, PL_STATUS_FREE, memory_order_relaxed);
    }
}
