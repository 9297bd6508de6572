/* channel: see channel.h. The file is control page, ring, ring; the mapping is
 *
 *     control ring0 | ring0 ring1 | ring1       (three mappings, since file neighbours can be one)
 *
 * and takes one slot of a window. A window is a 2 MiB-aligned reservation that is cut into slots of
 * equal size: a page of page table serves 2 MiB, and a thousand connections would need a thousand of
 * them if each took addresses of its own (seven connections of the usual capacity share one).
 *
 * The reservations of a process are kept by its `arena`. A forked child inherits a copy whose lock
 * may be held for ever, so it makes an arena of its own and never touches the inherited one: slots
 * in that are only unmapped.
 */
#include "shm/channel.h"

#include "base/error.h"
#include "base/list.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { WINDOW = 2 << 20, SLOTS_MAX = 64 };

struct arena {
    pid_t pid;
    struct arena *inherited; /* keeps what a child inherited reachable, for leak checkers */
    pthread_mutex_t lock;
    struct pl_list windows;
};

struct window {
    struct pl_list link;
    struct arena *arena;
    uint8_t *base;
    size_t size, slot_size;
    uint32_t slots;
    uint64_t used; /* one bit per slot */
};

static _Atomic(struct arena *) current;

static struct arena *this_arena(void)
{
    pid_t pid = getpid();
    /* AC1: pairs with RC1 below. */
    struct arena *old = atomic_load_explicit(&current, memory_order_acquire);
    if (old != NULL && old->pid == pid) return old;
    struct arena *fresh = calloc(1, sizeof *fresh);
    if (fresh == NULL) return NULL;
    fresh->pid = pid;
    fresh->inherited = old;
    pthread_mutex_init(&fresh->lock, NULL);
    pl_list_init(&fresh->windows);
    /* RC1: the arena's content, pairs with AC1; if another thread was faster, AC1 again on failure. */
    if (atomic_compare_exchange_strong_explicit(&current, &old, fresh, memory_order_acq_rel, memory_order_acquire))
        return fresh;
    free(fresh);
    return old;
}

static size_t control_size(void)
{
    size_t page = pl_page_size();
    return page > PL_CHANNEL_PAGE ? page : PL_CHANNEL_PAGE;
}

static size_t file_size(uint32_t capacity)
{
    return control_size() + 2 * (size_t)capacity;
}

static size_t slot_size(uint32_t capacity)
{
    return control_size() + 4 * (size_t)capacity;
}

/* Reserves addresses, aligned to WINDOW; nothing is accessible yet. */
static int reserve(size_t size, uint8_t **ret_base)
{
    uint8_t *all = mmap(NULL, size + WINDOW, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED)
        return pl_error(-errno, "channel: no address space for %zu bytes: %s", size, pl_error_word(errno));
    size_t before = -(uintptr_t)all & (WINDOW - 1);
    if (before > 0) munmap(all, before);
    if (before < WINDOW) munmap(all + before + size, WINDOW - before);
    *ret_base = all + before;
    return 0;
}

static int window_new(struct arena *arena, size_t slot, struct window **ret_window)
{
    struct window *window = calloc(1, sizeof *window);
    if (window == NULL) return pl_error(-ENOMEM, "channel: out of memory");
    size_t size = slot <= WINDOW ? WINDOW : slot;
    size_t slots = size / slot;
    *window = (struct window){
        .arena = arena, .size = size, .slot_size = slot, .slots = slots < SLOTS_MAX ? (uint32_t)slots : SLOTS_MAX
    };
    int r = reserve(size, &window->base);
    if (r < 0) {
        free(window);
        return r;
    }
    pl_list_append(&arena->windows, &window->link);
    *ret_window = window;
    return 0;
}

static bool window_full(const struct window *window)
{
    return window->used == UINT64_MAX >> (SLOTS_MAX - window->slots);
}

static int slot_take(size_t size, struct window **ret_window, uint8_t **ret_slot)
{
    struct arena *arena = this_arena();
    if (arena == NULL) return pl_error(-ENOMEM, "channel: out of memory");
    int r = 0;
    struct window *found = NULL;
    pthread_mutex_lock(&arena->lock);
    pl_list_each(item, &arena->windows)
    {
        struct window *window = pl_container_of(item, struct window, link);
        if (window->slot_size != size || window_full(window)) continue;
        found = window;
        break;
    }
    if (found == NULL) r = window_new(arena, size, &found);
    if (r == 0) {
        int slot = __builtin_ctzll(~found->used);
        found->used |= 1ULL << slot;
        *ret_window = found;
        *ret_slot = found->base + (size_t)slot * size;
    }
    pthread_mutex_unlock(&arena->lock);
    return r;
}

static void slot_give_back(struct window *window, uint8_t *slot)
{
    if (window->arena->pid != getpid()) {
        munmap(slot, window->slot_size);
        return;
    }
    struct arena *arena = window->arena;
    /* Addresses stay reserved, so that nobody else's mapping gets between. If that fails, for lack of
     * kernel memory, at least the memory goes; the slot counts as used for good, since its addresses may be
     * anybody's now. */
    if (mmap(slot, window->slot_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) ==
        MAP_FAILED) {
        munmap(slot, window->slot_size);
        return;
    }
    pthread_mutex_lock(&arena->lock);
    window->used &= ~(1ULL << ((size_t)(slot - window->base) / window->slot_size));
    bool last = window->used == 0;
    if (last) pl_list_remove(&window->link);
    pthread_mutex_unlock(&arena->lock);
    if (!last) return;
    munmap(window->base, window->size);
    free(window);
}

/* -EACCES and -EPERM: the descriptor or a seal forbids writing. */
static int map_one(uint8_t *at, size_t size, int fd, size_t offset)
{
    if (mmap(at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, (off_t)offset) != MAP_FAILED) return 0;
    int code = errno == EACCES || errno == EPERM ? EPROTO : errno;
    return pl_error(-code, "channel: mapping its memory: %s", pl_error_word(errno));
}

static int map(struct pl_channel *ret_channel, int fd, uint32_t capacity)
{
    struct window *window = NULL;
    uint8_t *slot = NULL;
    int r = slot_take(slot_size(capacity), &window, &slot);
    if (r < 0) return r;
    size_t control = control_size(), n = capacity;
    r = map_one(slot, control + n, fd, 0);
    if (r == 0) r = map_one(slot + control + n, 2 * n, fd, control);
    if (r == 0) r = map_one(slot + control + 3 * n, n, fd, control + n);
    /* The first page of each ring through its first mapping: light traffic uses no other address. */
    size_t light = control_size() > PL_RING_LIGHT ? control_size() : PL_RING_LIGHT;
    if (r == 0) r = pl_memory_populate(slot, control + light, 1);
    if (r == 0) r = pl_memory_populate(slot + control + 2 * n, light, 1);
    if (r < 0) {
        slot_give_back(window, slot);
        return r;
    }
    *ret_channel = (struct pl_channel){ .control = (struct pl_channel_control *)slot,
                                        .ring = { slot + control, slot + control + 2 * n },
                                        .capacity = capacity,
                                        .window = window };
    return 0;
}

static bool capacity_possible(uint32_t capacity)
{
    return capacity >= control_size() && capacity <= PL_RING_CAPACITY_MAX && (capacity & (capacity - 1)) == 0;
}

int pl_channel_create(struct pl_channel *ret_channel, uint32_t capacity, int *ret_fd)
{
    if (!capacity_possible(capacity))
        return pl_error(-EINVAL, "channel: a ring of %u bytes: use a power of two from %zu to %d", capacity,
                        control_size(), PL_RING_CAPACITY_MAX);
    struct pl_channel channel;
    int fd;
    int r = pl_memfd_create("plait-channel", file_size(capacity), &fd);
    if (r < 0) return r;
    r = pl_memfd_seal(fd, PL_MEMFD_SEALS);
    if (r == 0) r = map(&channel, fd, capacity);
    if (r < 0) {
        close(fd);
        return r;
    }
    channel.control->capacity = capacity;
    channel.control->version = PL_CHANNEL_VERSION;
    channel.control->magic = PL_CHANNEL_MAGIC;
    *ret_channel = channel;
    *ret_fd = fd;
    return 0;
}

int pl_channel_attach(struct pl_channel *ret_channel, int fd, uint32_t capacity)
{
    if (!capacity_possible(capacity))
        return pl_error(-EPROTO, "channel: the peer announced rings of %u bytes, not a power of two from %zu to %d",
                        capacity, control_size(), PL_RING_CAPACITY_MAX);
    int r = pl_memfd_check(fd, file_size(capacity), PL_MEMFD_SEALS);
    if (r < 0) return pl_error_in(r, "channel");
    struct pl_channel channel;
    r = map(&channel, fd, capacity);
    if (r < 0) return r;
    const volatile struct pl_channel_control *control = channel.control;
    uint32_t magic = control->magic, version = control->version, claimed = control->capacity;
    if (magic != PL_CHANNEL_MAGIC || version != PL_CHANNEL_VERSION || claimed != capacity) {
        pl_channel_detach(&channel);
        return pl_error(-EPROTO,
                        "channel: the peer's memory says magic 0x%x, version %u, capacity %u; expected 0x%x, %d, %u",
                        magic, version, claimed, (unsigned)PL_CHANNEL_MAGIC, PL_CHANNEL_VERSION, capacity);
    }
    *ret_channel = channel;
    return 0;
}

void pl_channel_detach(struct pl_channel *channel)
{
    if (channel == NULL || channel->control == NULL) return;
    slot_give_back(channel->window, (uint8_t *)channel->control);
    *channel = (struct pl_channel){ 0 };
}
