/* bulk_in: messages above PL_BROADCAST_BODY_MAX, at the subscriber.
 *
 * A message is taken by a hazard slot in the subscriber's page: say what is held, fence, ask whether the segment still
 * holds that message. A held message keeps the page, the mappings and the socket, so that the publisher goes on to
 * respect its slot when the subscriber itself is closed. With all slots taken a message is copied.
 */
#include "base/error.h"
#include "base/fd.h"
#include "base/futex.h"
#include "shm/memory.h"
#include "topic/topic.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct pl_view {
    struct pl_view *next; /* of those that were replaced or given up while somebody held something in them */
    uint8_t *data;
    size_t size, populated;
    uint32_t made; /* which announcement it came with */
    _Atomic uint32_t holders;
};

struct pl_intake {
    struct pl_fork_hook fork;
    bool inherited;              /* a forked child's copy: the page is the parent's to write */
    _Atomic uint32_t references; /* the inlet's, and one for each message */
    const struct pl_broadcast_shared *shared;
    struct pl_subscriber_page *page;
    struct pl_view *views[PL_SEGMENTS_MAX], *retired;
    int socket; /* -1: the inlet's still */
};

bool pl_hazard_set(struct pl_subscriber_page *page, int slot, const struct pl_broadcast_shared *shared,
                   const struct pl_frame_segment *where)
{
    if (where->id >= PL_SEGMENTS_MAX) return false;
    /* Relaxed, as is the load: the fence is between them. */
    atomic_store_explicit(&page->hazard[slot], (uint64_t)where->generation << 32 | (where->id + 1),
                          memory_order_relaxed);
    /* FB5: pairs with FB6 in revoke: the publisher sees the slot or we the new generation. */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&shared->generation[where->id], memory_order_relaxed) == where->generation) return true;
    pl_hazard_clear(page, slot);
    return false;
}

void pl_hazard_clear(struct pl_subscriber_page *page, int slot)
{
    /* RB7: our reads are done, pairs with AB7 in is_held. */
    atomic_store_explicit(&page->hazard[slot], 0, memory_order_release);
}

static void forget_in_child(struct pl_fork_hook *hook)
{
    struct pl_intake *intake = pl_container_of(hook, struct pl_intake, fork);
    intake->inherited = true;
    pl_close(&intake->socket);
}

int pl_intake_new(struct pl_intake **ret_intake, const struct pl_broadcast_shared *shared,
                  struct pl_subscriber_page *page)
{
    struct pl_intake *intake = calloc(1, sizeof *intake);
    if (intake == NULL) return pl_error(-ENOMEM, "no memory for a publisher");
    /* Relaxed: nobody else has it. */
    atomic_store_explicit(&intake->references, 1, memory_order_relaxed);
    intake->shared = shared;
    intake->page = page;
    intake->socket = -1;
    intake->fork.in_child = forget_in_child;
    int r = pl_fork_add(&intake->fork);
    if (r < 0) free(intake);
    else *ret_intake = intake;
    return r;
}

/* Unmaps what was retired and is held no more. */
static void sweep(struct pl_intake *intake)
{
    for (struct pl_view **at = &intake->retired, *view; (view = *at) != NULL;) {
        /* AB13: the last holder's reads are done, pairs with RB13 in pl_intake_let_go. */
        if (atomic_load_explicit(&view->holders, memory_order_acquire) != 0) {
            at = &view->next;
            continue;
        }
        *at = view->next;
        munmap(view->data, view->size);
        free(view);
    }
}

static void retire(struct pl_intake *intake, uint32_t id)
{
    struct pl_view *view = intake->views[id];
    if (view == NULL) return;
    intake->views[id] = NULL;
    view->next = intake->retired;
    intake->retired = view;
    sweep(intake);
}

static void unref(struct pl_intake *intake)
{
    /* RB8: what this holder did, pairs with AB8. */
    if (atomic_fetch_sub_explicit(&intake->references, 1, memory_order_release) != 1) return;
    /* AB8: the last one sees what the others did, pairs with RB8. */
    atomic_thread_fence(memory_order_acquire);
    for (uint32_t i = 0; i < PL_SEGMENTS_MAX; i++) retire(intake, i);
    sweep(intake);
    pl_fork_remove(&intake->fork);
    pl_topic_page_detach(intake->page);
    pl_close(&intake->socket);
    free(intake);
}

void pl_intake_close(struct pl_intake *intake, int *socket)
{
    if (intake == NULL) return;
    /* Relaxed: who waits for us is woken after it; the number of references only grows in this thread. */
    if (atomic_load_explicit(&intake->references, memory_order_relaxed) > 1 && *socket >= 0 && !intake->inherited) {
        atomic_store_explicit(&intake->page->leaving, 1, memory_order_relaxed);
        if (atomic_exchange_explicit(&intake->page->waiting, 0, memory_order_relaxed) != 0)
            pl_futex_wake_shared(&intake->page->waiting, 1);
        intake->socket = *socket;
        *socket = -1;
    }
    unref(intake);
}

int pl_intake_add(struct pl_intake *intake, int fd, const struct pl_frame_segment *what)
{
    PL_AUTO_CLOSE int owned = fd;
    uint32_t id = what->id;
    uint64_t size = what->size;
    if (id >= PL_SEGMENTS_MAX || size == 0 || size > PLAIT_MESSAGE_MAX || size % pl_page_size() != 0)
        return pl_error(-EPROTO, "the publisher announces segment %u of %llu bytes (ids end at %d, sizes at 1 GiB)", id,
                        (unsigned long long)size, PL_SEGMENTS_MAX - 1);
    int r = pl_memfd_check(owned, size, PL_MEMFD_SEALS);
    if (r < 0) return pl_error_in(r, "segment %u", id);
    struct pl_view *view = calloc(1, sizeof *view);
    if (view == NULL) return pl_error(-ENOMEM, "no memory for a segment");
    view->data = mmap(NULL, size, PROT_READ, MAP_SHARED, owned, 0);
    if (view->data == MAP_FAILED) {
        r = -errno;
        free(view);
        return pl_error(r, "segment %u: mapping %llu bytes: %s", id, (unsigned long long)size, pl_error_word(r));
    }
    view->size = size;
    view->made = what->generation;
    retire(intake, id);
    intake->views[id] = view;
    return 0;
}

void pl_intake_drop(struct pl_intake *intake, uint32_t id)
{
    if (id < PL_SEGMENTS_MAX) retire(intake, id);
}

/* All slots are taken: a copy, whole if nobody revoked it meanwhile. */
static int copy(struct pl_intake *intake, const struct pl_frame_segment *where, const struct pl_view *view,
                struct plait_message *message)
{
    uint32_t size = (uint32_t)where->size;
    uint8_t *memory = malloc(size);
    if (memory == NULL) return pl_error(-ENOMEM, "no memory to copy a message of %u bytes", size);
    memcpy(memory, view->data, size);
    /* FB5: as in pl_hazard_set. */
    atomic_thread_fence(memory_order_seq_cst);
    /* Relaxed: after the fence. */
    if (atomic_load_explicit(&intake->shared->generation[where->id], memory_order_relaxed) != where->generation) {
        free(memory);
        return PL_BULK_GONE;
    }
    message->body = message->memory = memory;
    return 0;
}

int pl_intake_take(struct pl_intake *intake, const struct pl_frame_segment *where, struct plait_message *message)
{
    struct pl_view *view = where->id < PL_SEGMENTS_MAX ? intake->views[where->id] : NULL;
    uint32_t size = (uint32_t)where->size;
    if (view == NULL || view->made != where->size >> 32) return PL_BULK_GONE;
    if (size > view->size)
        return pl_error(-EPROTO, "the publisher claims %u bytes in segment %u of %zu", size, where->id, view->size);
    int r = pl_memory_populate_up_to(view->data, view->size, &view->populated, size, 0);
    if (r < 0) return pl_error_in(r, "a message of %u bytes", size);
    int slot = 0;
    /* Relaxed: this thread takes slots; others only clear them. */
    while (slot < PL_TOPIC_HAZARDS && atomic_load_explicit(&intake->page->hazard[slot], memory_order_relaxed) != 0)
        slot++;
    message->head.size = size;
    if (slot == PL_TOPIC_HAZARDS) return copy(intake, where, view, message);
    if (!pl_hazard_set(intake->page, slot, intake->shared, where)) return PL_BULK_GONE;
    /* Relaxed: as in pl_intake_close. */
    atomic_fetch_add_explicit(&intake->references, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&view->holders, 1, memory_order_relaxed);
    message->body = view->data;
    message->intake = intake;
    message->view = view;
    message->slot = slot;
    return 0;
}

void pl_intake_let_go(struct plait_message *message)
{
    struct pl_intake *intake = message->intake;
    if (intake == NULL) return;
    message->intake = NULL;
    if (!intake->inherited && !pl_forked(&intake->fork)) pl_hazard_clear(intake->page, message->slot);
    /* RB13: our reads are done, pairs with AB13 in sweep. */
    atomic_fetch_sub_explicit(&message->view->holders, 1, memory_order_release);
    unref(intake);
}
