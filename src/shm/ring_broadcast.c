/* ring_broadcast: see ring_broadcast.h.
 *
 * Orders: the writer's intent comes before its bytes (RB3, a fence) and its bytes before its tail (RB1). A reader
 * that has copied a byte of a later lap has, behind its own fence (AB3), the later intent, too, and drops
 * the copy. The bytes themselves race by design; to ThreadSanitizer they are shown as relaxed words, elsewhere
 * they are copied by memcpy, which is twice as fast and between fences no less right.
 */
#include "shm/ring_broadcast.h"

#include "base/error.h"
#include "base/fd.h"
#include "shm/memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { TRIES = 4, OVERRUNS_MAX = 1000 };

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RACES_SHOW 1
#endif
#endif
#ifdef __SANITIZE_THREAD__
#define RACES_SHOW 1
#endif

#ifdef RACES_SHOW
/* SHARED is aligned to 8 bytes and has room for SIZE rounded up to that. Relaxed, all of them: fences order. */
static void copy_in(uint8_t *shared, const void *from, size_t size)
{
    for (size_t i = 0; i < size; i += 8) {
        uint64_t word = 0;
        memcpy(&word, (const uint8_t *)from + i, size - i < 8 ? size - i : 8);
        atomic_store_explicit((_Atomic uint64_t *)(shared + i), word, memory_order_relaxed);
    }
}

static void copy_out(void *to, const uint8_t *shared, size_t size)
{
    for (size_t i = 0; i < size; i += 8) {
        /* relaxed: as above */
        uint64_t word = atomic_load_explicit((const _Atomic uint64_t *)(shared + i), memory_order_relaxed);
        memcpy((uint8_t *)to + i, &word, size - i < 8 ? size - i : 8);
    }
}
#else
static inline void copy_in(uint8_t *shared, const void *from, size_t size)
{
    memcpy(shared, from, size);
}

static inline void copy_out(void *to, const uint8_t *shared, size_t size)
{
    memcpy(to, shared, size);
}
#endif

/* ---- memory ---- */

static size_t control_size(void)
{
    size_t page = pl_page_size();
    return page > 4096 ? page : 4096;
}

static bool capacity_possible(uint32_t capacity)
{
    return capacity >= pl_page_size() && capacity >= 4 * PL_BROADCAST_BODY_MAX &&
           capacity <= PL_BROADCAST_CAPACITY_MAX && (capacity & (capacity - 1)) == 0;
}

/* Control and data, and behind them the data once more. */
static int map(int fd, uint32_t capacity, int protection, uint8_t **ret_base)
{
    size_t control = control_size(), once = control + capacity, all = once + capacity;
    uint8_t *base = mmap(NULL, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return pl_error(-errno, "topic: no address space for %zu bytes", all);
    if (mmap(base, once, protection, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED ||
        mmap(base + once, capacity, protection, MAP_SHARED | MAP_FIXED, fd, (off_t)control) == MAP_FAILED) {
        int r = pl_error(-errno, "topic: mapping a ring of %u bytes: %s", capacity, pl_error_word(errno));
        munmap(base, all);
        return r;
    }
    int r = pl_memory_populate(base, all, (protection & PROT_WRITE) != 0);
    if (r < 0) {
        munmap(base, all);
        return pl_error_in(r, "topic");
    }
    *ret_base = base;
    return 0;
}

int pl_broadcast_create(struct pl_broadcast_writer *ret_writer, uint32_t capacity, bool reliable, int *ret_fd)
{
    if (!capacity_possible(capacity)) return pl_error(-EINVAL, "topic: a ring of %u bytes", capacity);
    PL_AUTO_CLOSE int fd = -1;
    uint8_t *base = NULL;
    int r = pl_memfd_create("plait-topic", control_size() + capacity, &fd);
    if (r == 0) r = map(fd, capacity, PROT_READ | PROT_WRITE, &base);
    if (r < 0) return r;
    r = pl_memfd_seal_one_writer(fd);
    if (r < 0) {
        munmap(base, control_size() + 2 * (size_t)capacity);
        return r;
    }
    struct pl_broadcast_shared *shared = (struct pl_broadcast_shared *)base;
    shared->capacity = capacity;
    shared->reliable = reliable;
    shared->version = PL_BROADCAST_VERSION;
    shared->magic = PL_BROADCAST_MAGIC;
    pl_broadcast_writer_init(ret_writer, shared, base + control_size(), capacity);
    *ret_fd = fd;
    fd = -1;
    return 0;
}

void pl_broadcast_destroy(struct pl_broadcast_writer *writer)
{
    if (writer->shared != NULL) munmap(writer->shared, control_size() + 2 * (size_t)writer->capacity);
    writer->shared = NULL;
}

int pl_broadcast_attach(struct pl_broadcast_reader *ret_reader, int fd)
{
    struct stat status;
    uint8_t *base = NULL;
    if (fstat(fd, &status) < 0) return pl_error(-EPROTO, "topic: its memory can't be examined");
    uint64_t size = (uint64_t)status.st_size;
    uint32_t capacity = size > control_size() && size - control_size() <= PL_BROADCAST_CAPACITY_MAX
                            ? (uint32_t)(size - control_size())
                            : 0;
    if (!capacity_possible(capacity))
        return pl_error(-EPROTO, "topic: the publisher's memory has an impossible size, %llu bytes",
                        (unsigned long long)size);
    int r = pl_memfd_check(fd, size, PL_MEMFD_SEALS);
    if (r < 0) return pl_error_in(r, "topic");
    r = map(fd, capacity, PROT_READ, &base);
    if (r < 0) return r;
    const volatile struct pl_broadcast_shared *shared = (const struct pl_broadcast_shared *)base;
    uint32_t magic = shared->magic, version = shared->version, claimed = shared->capacity;
    if (magic != PL_BROADCAST_MAGIC || version != PL_BROADCAST_VERSION || claimed != capacity) {
        munmap(base, control_size() + 2 * (size_t)capacity);
        return pl_error(-EPROTO,
                        "topic: the publisher's memory says magic 0x%x, version %u, capacity %u; expected 0x%x, %d, %u",
                        magic, version, claimed, (unsigned)PL_BROADCAST_MAGIC, PL_BROADCAST_VERSION, capacity);
    }
    pl_broadcast_reader_init(ret_reader, (const struct pl_broadcast_shared *)base, base + control_size(), capacity);
    return 0;
}

void pl_broadcast_detach(struct pl_broadcast_reader *reader)
{
    if (reader->shared != NULL)
        munmap((void *)(uintptr_t)reader->shared, control_size() + 2 * (size_t)reader->capacity);
    reader->shared = NULL;
}

static int map_page(int fd, void **ret_page)
{
    void *page = mmap(NULL, pl_page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        return pl_error(errno == EACCES || errno == EPERM ? -EPROTO : -errno, "topic: mapping a page: %s",
                        pl_error_word(errno));
    int r = pl_memory_populate(page, pl_page_size(), 1);
    if (r < 0) munmap(page, pl_page_size());
    else *ret_page = page;
    return r;
}

int pl_topic_page_create(void **ret_page, int *ret_fd)
{
    PL_AUTO_CLOSE int fd = -1;
    int r = pl_memfd_create("plait-subscriber", pl_page_size(), &fd);
    if (r == 0) r = pl_memfd_seal(fd, PL_MEMFD_SEALS);
    if (r == 0) r = map_page(fd, ret_page);
    if (r < 0) return r;
    *ret_fd = fd;
    fd = -1;
    return 0;
}

int pl_topic_page_attach(void **ret_page, int fd)
{
    int r = pl_memfd_check(fd, pl_page_size(), PL_MEMFD_SEALS);
    return r < 0 ? pl_error_in(r, "topic") : map_page(fd, ret_page);
}

void pl_topic_page_detach(void *page)
{
    if (page != NULL) munmap(page, pl_page_size());
}

/* ---- writing ---- */

void pl_broadcast_writer_init(struct pl_broadcast_writer *writer, struct pl_broadcast_shared *shared, uint8_t *data,
                              uint32_t capacity)
{
    *writer = (struct pl_broadcast_writer){
        .shared = shared, .data = data, .capacity = capacity, .slice = capacity / PL_BROADCAST_MARKS
    };
}

static void set_mark(struct pl_broadcast_writer *writer)
{
    uint64_t part = writer->tail / writer->slice;
    /* Relaxed: the tail that follows publishes it (RB1); who sees it early checks it. */
    atomic_store_explicit(&writer->shared->mark[part % PL_BROADCAST_MARKS], writer->tail, memory_order_relaxed);
    writer->mark_due = (part + 1) * writer->slice;
}

void pl_broadcast_write(struct pl_broadcast_writer *writer, struct pl_broadcast_head *head, const void *body)
{
    struct pl_broadcast_shared *shared = writer->shared;
    uint64_t end = writer->tail + pl_broadcast_span(head->size);
    uint8_t *at = writer->data + (writer->tail & (writer->capacity - 1));
    if (writer->tail >= writer->mark_due) set_mark(writer);
    /* Relaxed: the fence orders it. */
    atomic_store_explicit(&shared->intent, end, memory_order_relaxed);
    /* RB3: the intent before the bytes, pairs with AB3 in overwritten. */
    atomic_thread_fence(memory_order_release);
    head->number = ++writer->number;
    copy_in(at, head, sizeof *head);
    if (head->size > 0) copy_in(at + sizeof *head, body, head->size); /* an empty body may be NULL */
    writer->tail = end;
    /* RB1: the bytes, pairs with AB1 in look. */
    atomic_store_explicit(&shared->tail, end, memory_order_release);
}

/* ---- reading ---- */

void pl_broadcast_reader_init(struct pl_broadcast_reader *reader, const struct pl_broadcast_shared *shared,
                              const uint8_t *data, uint32_t capacity)
{
    *reader = (struct pl_broadcast_reader){ .shared = shared, .data = data, .capacity = capacity, .number = 1 };
}

static int lie(const struct pl_broadcast_reader *reader, const char *what, uint64_t value)
{
    return pl_error(-EPROTO, "topic: the publisher lies: %s %llu at position %llu", what, (unsigned long long)value,
                    (unsigned long long)reader->position);
}

/* Whether what was copied from POSITION may have been overwritten meanwhile. */
static inline bool overwritten(const struct pl_broadcast_reader *reader, uint64_t position)
{
    /* AB3: what we copied before the intent, pairs with RB3 in pl_broadcast_write. */
    atomic_thread_fence(memory_order_acquire);
    /* Relaxed: after the fence. */
    return atomic_load_explicit(&reader->shared->intent, memory_order_relaxed) - position > reader->capacity;
}

/* The writer's tail, checked: 0, or a lie. */
static inline int look(struct pl_broadcast_reader *reader)
{
    /* AB1: pairs with RB1 in pl_broadcast_write. */
    uint64_t tail = atomic_load_explicit(&reader->shared->tail, memory_order_acquire);
    if (__builtin_expect((int64_t)(tail - reader->position) < 0 || tail % PL_BROADCAST_ALIGN != 0, 0))
        return lie(reader, "it says that it wrote up to", tail);
    reader->tail = tail;
    return 0;
}

/* Moves to the oldest mark that will last for a while: a quarter of the ring. Without one, to the end. */
static int resync(struct pl_broadcast_reader *reader)
{
    int r = look(reader);
    if (r < 0) return r;
    uint64_t best = 0; /* all as distances from the tail */
    for (int i = 0; i < PL_BROADCAST_MARKS; i++) {
        /* Relaxed: what lies there is checked when it is read. */
        uint64_t mark = reader->tail - atomic_load_explicit(&reader->shared->mark[i], memory_order_relaxed);
        if (mark % PL_BROADCAST_ALIGN == 0 && mark > best && mark <= reader->capacity / 4 * 3 &&
            mark <= reader->tail - reader->position)
            best = mark;
    }
    reader->skipped = true;
    reader->position = reader->tail - best;
    if (++reader->overruns < OVERRUNS_MAX) return 0;
    return lie(reader, "nothing can be read of what it wrote up to", reader->tail);
}

/* Copies the head at POSITION: true if it is whole. Whether it makes sense is another question. */
static inline bool copy_head(const struct pl_broadcast_reader *reader, uint64_t position,
                             struct pl_broadcast_head *head)
{
    copy_out(head, reader->data + (position & (reader->capacity - 1)), sizeof *head);
    return !overwritten(reader, position);
}

/* A head says how far its message reaches: at most to the tail that we know. */
static inline bool head_fits(const struct pl_broadcast_head *head, uint64_t room)
{
#ifdef PLAIT_PLANT_BUG /* what fuzz_broadcast must find: a length is compared with the wrong limit */
    return head->size <= 4 * PL_BROADCAST_BODY_MAX && room > 0;
#else
    return head->size <= PL_BROADCAST_BODY_MAX && pl_broadcast_span(head->size) <= room;
#endif
}

int pl_broadcast_read(struct pl_broadcast_reader *reader, struct pl_broadcast_head *head, void *body, uint64_t *lost)
{
    for (int attempt = 0; attempt < TRIES; attempt++) {
        if (reader->tail == reader->position) {
            int r = look(reader);
            if (r < 0) return r;
            if (reader->tail == reader->position) return PL_BROADCAST_EMPTY;
        }
        const uint8_t *at = reader->data + (reader->position & (reader->capacity - 1));
        copy_out(head, at, sizeof *head);
        bool fits = head_fits(head, reader->tail - reader->position);
        if (fits) copy_out(body, at + sizeof *head, head->size);
        if (__builtin_expect(overwritten(reader, reader->position), 0)) {
            int r = resync(reader);
            if (r < 0) return r;
            continue;
        }
        if (!fits) return lie(reader, "a message of size", head->size);
        if (head->number != reader->number) {
            if (reader->number == 0) reader->number = head->number;
            if (head->number < reader->number || !reader->skipped)
                return lie(reader, "a message numbered", head->number);
            *lost += head->number - reader->number;
        }
        reader->number = head->number + 1;
        reader->position += pl_broadcast_span(head->size);
        reader->skipped = false;
        reader->overruns = 0;
        return PL_BROADCAST_OK;
    }
    return PL_BROADCAST_EMPTY;
}

/* ---- where to begin ---- */

/* Goes from the reader's position over heads alone, to the message WANTED or to the tail. 0: there; 1: overrun. */
static int walk(struct pl_broadcast_reader *reader, uint64_t wanted, uint64_t *ret_last)
{
    struct pl_broadcast_head head;
    while (reader->position != reader->tail) {
        if (!copy_head(reader, reader->position, &head)) return 1;
        if (!head_fits(&head, reader->tail - reader->position)) return lie(reader, "a message of size", head.size);
        if (head.number >= wanted) {
            reader->number = head.number;
            return 0;
        }
        *ret_last = head.number;
        reader->number = head.number + 1;
        reader->position += pl_broadcast_span(head.size);
    }
    return 0;
}

/* To the newest mark at or before the message WANTED, or the oldest there is; UINT64_MAX: the newest. */
static void to_mark(struct pl_broadcast_reader *reader, uint64_t wanted)
{
    uint64_t tail = reader->tail, best = tail, oldest = tail;
    for (int i = 0; i < PL_BROADCAST_MARKS; i++) {
        struct pl_broadcast_head head;
        /* Relaxed: what lies there is checked here. */
        uint64_t mark = atomic_load_explicit(&reader->shared->mark[i], memory_order_relaxed);
        if (mark % PL_BROADCAST_ALIGN != 0 || mark >= tail || tail - mark > reader->capacity) continue;
        if (!copy_head(reader, mark, &head)) continue;
        if (mark < oldest) oldest = mark;
        if (head.number <= wanted && (best == tail || mark > best)) best = mark;
    }
    reader->position = best == tail ? oldest : best;
}

int pl_broadcast_begin(struct pl_broadcast_reader *reader, uint64_t position, uint64_t number)
{
    if (position % PL_BROADCAST_ALIGN != 0) return lie(reader, "it says to begin at", position);
    reader->position = position;
    reader->number = number;
    reader->skipped = number == 0;
    return look(reader);
}

int pl_broadcast_seek(struct pl_broadcast_reader *reader, uint64_t history)
{
    uint64_t last = 0;
    int r = 1;
    for (int attempt = 0; attempt < TRIES && r == 1; attempt++) {
        reader->position = 0;
        reader->number = 1;
        reader->skipped = false;
        r = look(reader);
        if (r < 0) return r;
        if (reader->tail == 0) return 0;
        to_mark(reader, UINT64_MAX);
        r = walk(reader, UINT64_MAX, &last);
        if (r != 0 || history == 0) continue;
        to_mark(reader, last >= history ? last - history + 1 : 1);
        r = walk(reader, last >= history ? last - history + 1 : 1, &last);
    }
    if (r < 0) return r;
    if (r == 1) { /* it writes faster than we walk */
        reader->position = reader->tail;
        reader->number = 0;
        reader->skipped = true;
    }
    return 0;
}
