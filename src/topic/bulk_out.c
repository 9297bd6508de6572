/* bulk_out: messages above PL_BROADCAST_BODY_MAX, at the publisher.
 *
 * Each lies in a segment, a memfd that the publisher alone can write; the ring only says which. A segment is announced
 * to each subscriber once, over its socket, before the first message in it is published. It is used again when
 * nobody needs it: its generation is told anew, so that nobody takes it any more, then (fence) the hazard slots of
 * all subscribers are looked at. Whoever holds it in one keeps it. The last few messages are left alone anyhow, so
 * that a subscriber has the time to take them.
 *
 * When there was no large message for a while, the helper's thread gives up the memory of those that everybody has read
 * and nobody holds. What is left is the history. Where the memory is gone, its place (id, generation) waits for the
 * next.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "shm/memory.h"
#include "topic/topic.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { STEP = 1 << 16 };

uint64_t pl_bulk_idle_ns = 10000000000;

enum { FREE, LENT, ORPHAN }; /* ORPHAN: a loan outlives its publisher and frees it */

struct pl_bulk_segment {
    struct plait_publisher *publisher;
    _Atomic uint32_t state;
    uint8_t *data; /* NULL: given up, or not made yet */
    size_t capacity, populated;
    int fd;
    uint32_t id, generation;
    uint32_t made;      /* how often it got new memory */
    uint64_t used, end; /* when, in large messages; and where its message ends in the ring */
    bool held;          /* by a subscriber, when it was last looked at */
    bool tried;         /* in this search */
};

static void drop_memory(struct pl_bulk_segment *segment)
{
    if (segment->data != NULL) munmap(segment->data, segment->capacity);
    segment->data = NULL;
    segment->capacity = segment->populated = 0;
    pl_close(&segment->fd);
}

static bool is_lent(const struct pl_bulk_segment *segment)
{
    /* AB10: whoever filled it is done, pairs with RB10 in pl_bulk_give_back. */
    return atomic_load_explicit(&segment->state, memory_order_acquire) != FREE;
}

static void segment_free(struct pl_bulk_segment *segment)
{
    drop_memory(segment);
    free(segment);
}

void pl_bulk_free(struct plait_publisher *publisher)
{
    for (uint32_t i = 0; i < publisher->segment_count; i++) {
        uint32_t lent = LENT;
        /* AB11: pairs with RB10. Relaxed where it isn't lent: it is ours. RB11: pairs with AB12 in pl_bulk_give_back.
         */
        if (!atomic_compare_exchange_strong_explicit(&publisher->segments[i]->state, &lent, ORPHAN,
                                                     memory_order_acq_rel, memory_order_acquire))
            segment_free(publisher->segments[i]);
    }
    publisher->segment_count = 0;
}

void pl_bulk_forked(struct plait_publisher *publisher)
{
    for (uint32_t i = 0; i < publisher->segment_count; i++) pl_close(&publisher->segments[i]->fd);
}

/* ---- announcing; the lock is held ---- */

/* Or, without memory, that it is gone. */
static int announce(struct pl_outlet *outlet, uint32_t id, const struct pl_bulk_segment *segment)
{
    uint8_t bytes[PL_FRAME_HEAD + PL_FRAME_SEGMENT_SIZE];
    struct pl_frame frame = { .size = PL_FRAME_SEGMENT_SIZE, .kind = PL_FRAME_SEGMENT };
    struct pl_frame_segment what = { .id = id, .generation = segment->made, .size = segment->capacity };
    pl_frame_encode(bytes, &frame);
    pl_frame_segment_encode(bytes + PL_FRAME_HEAD, &what);
    ssize_t n = pl_fd_send(outlet->stream.fd, bytes, sizeof bytes, &segment->fd, segment->fd >= 0);
    return n == (ssize_t)sizeof bytes ? 0 : -EAGAIN;
}

static void announce_to_all(struct plait_publisher *publisher, const struct pl_bulk_segment *segment)
{
    pl_list_each(item, &publisher->outlets)
    {
        struct pl_outlet *outlet = pl_container_of(item, struct pl_outlet, link);
        /* It doesn't listen: what lies in there is lost to it until it is told. */
        if (outlet->shm && announce(outlet, segment->id, segment) < 0) outlet->untold = true;
    }
}

uint32_t pl_bulk_announcements(const struct plait_publisher *publisher)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < publisher->segment_count; i++) count += publisher->segments[i]->data != NULL;
    return count;
}

int pl_bulk_announce_all(struct pl_outlet *outlet)
{
    struct plait_publisher *publisher = outlet->publisher;
    int r = 0;
    for (uint32_t i = 0; i < publisher->segment_count && r == 0; i++)
        if (publisher->segments[i]->data != NULL) r = announce(outlet, i, publisher->segments[i]);
    return r == 0 ? 0 : pl_error(r, "the subscriber's socket has no room for the announcement of segments");
}

/* Those whose sockets had no room for an announcement hear all of them again. */
static void tell_the_untold(struct plait_publisher *publisher)
{
    pl_list_each(item, &publisher->outlets)
    {
        struct pl_outlet *outlet = pl_container_of(item, struct pl_outlet, link);
        if (outlet->untold) outlet->untold = pl_bulk_announce_all(outlet) < 0;
    }
}

/* ---- taking ---- */

static uint64_t hazard_of(uint32_t id, const struct pl_bulk_segment *segment)
{
    return (uint64_t)segment->generation << 32 | (id + 1);
}

static bool is_held(struct plait_publisher *publisher, uint64_t hazard)
{
    pl_list_each(item, &publisher->outlets)
    {
        const struct pl_subscriber_page *page = pl_container_of(item, struct pl_outlet, link)->page;
        for (int i = 0; i < PL_TOPIC_HAZARDS; i++)
            /* AB7: the holder's reads are done, pairs with RB7 in pl_hazard_clear. */
            if (atomic_load_explicit(&page->hazard[i], memory_order_acquire) == hazard) return true;
    }
    return false;
}

/* Nobody takes what SEGMENT holds from here on. True: nobody has it, either. Lock held. */
static bool revoke(struct plait_publisher *publisher, uint32_t id, struct pl_bulk_segment *segment)
{
    uint64_t hazard = hazard_of(id, segment);
    /* Relaxed: the fence orders it. */
    atomic_store_explicit(&publisher->writer.shared->generation[id], segment->generation + 1, memory_order_relaxed);
    /* FB6: pairs with FB5 in pl_hazard_set: it sees the new generation or we its slot. */
    atomic_thread_fence(memory_order_seq_cst);
    segment->held = is_held(publisher, hazard);
    return !segment->held;
}

static int make_memory(struct pl_bulk_segment *segment, size_t size)
{
    size_t capacity = (size_t)1 << (64 - __builtin_clzll(size - 1));
    PL_AUTO_CLOSE int fd = -1;
    int r = pl_memfd_create("plait-segment", capacity, &fd);
    if (r < 0) return r;
    uint8_t *data = mmap(NULL, capacity, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) return pl_error(-errno, "a segment of %zu bytes: %s", capacity, pl_error_word(errno));
    r = pl_memfd_seal_one_writer(fd);
    if (r < 0) {
        munmap(data, capacity);
        return r;
    }
    drop_memory(segment);
    segment->data = data;
    segment->capacity = capacity;
    segment->fd = fd;
    segment->made++;
    fd = -1;
    return 0;
}

static int populate(struct pl_bulk_segment *segment, size_t size)
{
    if (size <= segment->populated) return 0;
    size_t end = (size + STEP - 1) & ~(size_t)(STEP - 1);
    if (end > segment->capacity) end = segment->capacity;
    int r = pl_memory_populate(segment->data + segment->populated, end - segment->populated, 1);
    if (r == 0) segment->populated = end;
    return r;
}

/* Neither lent nor (reliable) to be read yet by somebody who counts. */
static bool is_over(const struct plait_publisher *publisher, const struct pl_bulk_segment *segment)
{
    /* Relaxed: this thread publishes. */
    uint64_t read = atomic_load_explicit(&publisher->limit, memory_order_relaxed) - publisher->writer.capacity;
    return !is_lent(segment) && (!publisher->reliable || (int64_t)(segment->end - read) <= 0);
}

/* The one that was not used for the longest, of those that are over and not among the last few. */
static struct pl_bulk_segment *oldest(struct plait_publisher *publisher, bool thorough)
{
    struct pl_bulk_segment *found = NULL;
    for (uint32_t i = 0; i < publisher->segment_count; i++) {
        struct pl_bulk_segment *segment = publisher->segments[i];
        if (segment->data == NULL || segment->tried || !is_over(publisher, segment)) continue;
        if (!thorough && segment->used + publisher->kept > publisher->bulk_count) continue;
        if (found == NULL || segment->used < found->used) found = segment;
    }
    if (found != NULL) found->tried = true;
    return found;
}

/* One that gets new memory, in a place that has none. */
static struct pl_bulk_segment *new_segment(struct plait_publisher *publisher)
{
    for (uint32_t i = 0; i < publisher->segment_count; i++)
        if (publisher->segments[i]->data == NULL) return publisher->segments[i];
    if (publisher->segment_count == PL_SEGMENTS_MAX) return NULL;
    struct pl_bulk_segment *segment = calloc(1, sizeof *segment);
    if (segment == NULL) return NULL;
    segment->publisher = publisher;
    segment->fd = -1;
    segment->id = publisher->segment_count;
    segment->generation = 1;
    publisher->segments[publisher->segment_count++] = segment;
    return segment;
}

/* Lock held. */
static struct pl_bulk_segment *find(struct plait_publisher *publisher)
{
    for (uint32_t i = 0; i < publisher->segment_count; i++) publisher->segments[i]->tried = false;
    for (int thorough = 0; thorough < 2; thorough++) {
        struct pl_bulk_segment *segment = oldest(publisher, thorough);
        for (; segment != NULL; segment = oldest(publisher, thorough))
            if (revoke(publisher, segment->id, segment)) return segment;
        segment = thorough ? NULL : new_segment(publisher);
        if (segment != NULL) return segment;
    }
    return NULL;
}

static int none_free(const struct plait_publisher *publisher)
{
    uint32_t held = 0, lent = 0;
    for (uint32_t i = 0; i < publisher->segment_count; i++) {
        held += publisher->segments[i]->held;
        lent += is_lent(publisher->segments[i]);
    }
    return pl_error(-ENOBUFS, "topic '%s': all %d segments are out: subscribers hold %u, loans %u", publisher->topic,
                    PL_SEGMENTS_MAX, held, lent);
}

static int fit(struct plait_publisher *publisher, struct pl_bulk_segment *segment, size_t size)
{
    bool fresh = segment->capacity < size || segment->capacity / 8 > size;
    int r = fresh ? make_memory(segment, size) : 0;
    if (r == 0 && fresh) announce_to_all(publisher, segment);
    if (r == 0) r = populate(segment, size);
    if (r < 0)
        return pl_error_in(r == -EMFILE ? r : -ENOMEM, "topic '%s': a message of %zu bytes", publisher->topic, size);
    return 0;
}

/* All are out. Where the first message ends that those who count have yet to read; false: it isn't they who keep them.
 */
static bool unread(const struct plait_publisher *publisher, uint64_t *ret_end)
{
    const struct pl_bulk_segment *first = NULL;
    for (uint32_t i = 0; i < publisher->segment_count; i++) {
        const struct pl_bulk_segment *segment = publisher->segments[i];
        if (!is_lent(segment) && !segment->held && (first == NULL || segment->used < first->used)) first = segment;
    }
    if (first != NULL) *ret_end = first->end;
    return first != NULL;
}

/* For as long as large messages are published, the helper has a timer. Lock held. */
static void note_use(struct plait_publisher *publisher)
{
    publisher->bulk_ns = pl_clock_ns();
    if (publisher->idle_span == pl_bulk_idle_ns) return;
    publisher->idle_span = pl_bulk_idle_ns;
    /* Relaxed: the wake-up, a system call, comes after it. */
    atomic_fetch_or_explicit(&publisher->chores, PL_CHORE_IDLE, memory_order_relaxed);
    pl_wake_up(&publisher->wake);
}

static void lend(struct plait_publisher *publisher, struct pl_bulk_segment *segment)
{
    segment->generation++;
    if (segment->generation == 0) segment->generation = 1;
    /* Relaxed: the tail of the message in it comes later (RB1). */
    atomic_store_explicit(&publisher->writer.shared->generation[segment->id], segment->generation,
                          memory_order_relaxed);
    /* Relaxed: the lock orders it; then it is this thread's until it is given back. */
    atomic_store_explicit(&segment->state, LENT, memory_order_relaxed);
    note_use(publisher);
}

/* As pl_bulk_take would look, but nothing is revoked. */
bool pl_bulk_unread(struct plait_publisher *publisher, uint64_t *ret_end)
{
    if (!publisher->reliable || publisher->segment_count < PL_SEGMENTS_MAX) return false;
    for (uint32_t i = 0; i < publisher->segment_count; i++) {
        struct pl_bulk_segment *segment = publisher->segments[i];
        if (segment->data == NULL) return false; /* a place for new memory */
        if (!is_over(publisher, segment)) continue;
        segment->held = is_held(publisher, hazard_of(i, segment));
        if (!segment->held) return false;
    }
    return unread(publisher, ret_end);
}

int pl_bulk_take(struct plait_publisher *publisher, size_t size, struct pl_bulk_segment **ret_segment)
{
    for (;;) {
        uint64_t target = 0;
        bool wait = false;
        pthread_mutex_lock(&publisher->lock);
        tell_the_untold(publisher);
        struct pl_bulk_segment *segment = find(publisher);
        int r = segment != NULL ? fit(publisher, segment, size) : 0;
        if (segment != NULL && r == 0) lend(publisher, segment);
        if (segment == NULL) {
            wait = publisher->reliable && unread(publisher, &target);
            if (!wait) r = none_free(publisher);
        }
        pthread_mutex_unlock(&publisher->lock);
        if (wait) r = pl_publisher_wait_for(publisher, target, 0);
        if (wait && r == 0) continue;
        if (r == 0) *ret_segment = segment;
        return r;
    }
}

/* Somebody who reads on has not come to it yet. */
static bool is_due(struct plait_publisher *publisher, const struct pl_bulk_segment *segment)
{
    pl_list_each(item, &publisher->outlets)
    {
        const struct pl_outlet *outlet = pl_container_of(item, struct pl_outlet, link);
        /* Relaxed: see slowest in publisher.c. */
        if (atomic_load_explicit(&outlet->page->leaving, memory_order_relaxed) != 0) continue;
        if ((int64_t)(segment->end - pl_broadcast_cursor(outlet->page)) > 0) return true;
    }
    return false;
}

bool pl_bulk_trim(struct plait_publisher *publisher)
{
    bool more = false;
    uint64_t newest = 0, history = publisher->kept - PL_BULK_KEPT;
    if (history == 0) history = 1; /* the last value */
    for (uint32_t i = 0; i < publisher->segment_count; i++)
        if (!is_lent(publisher->segments[i]) && publisher->segments[i]->used > newest)
            newest = publisher->segments[i]->used;
    for (uint32_t i = 0; i < publisher->segment_count; i++) {
        struct pl_bulk_segment *segment = publisher->segments[i];
        if (segment->data == NULL || is_lent(segment)) continue;
        if (segment->used != 0 && segment->used + history > newest) continue;
        if (is_due(publisher, segment) || !revoke(publisher, i, segment)) {
            more = true;
            continue;
        }
        drop_memory(segment);
        announce_to_all(publisher, segment);
    }
    return more;
}

uint8_t *pl_bulk_data(const struct pl_bulk_segment *segment)
{
    return segment->data;
}

void pl_bulk_record(struct plait_publisher *publisher, struct pl_bulk_segment *segment, size_t size,
                    uint8_t record[PL_FRAME_SEGMENT_SIZE])
{
    struct pl_frame_segment where = { .id = segment->id,
                                      .generation = segment->generation,
                                      .size = (uint64_t)segment->made << 32 | size };
    pl_frame_segment_encode(record, &where);
    segment->used = ++publisher->bulk_count;
    segment->end = publisher->writer.tail + pl_broadcast_span(PL_FRAME_SEGMENT_SIZE);
}

void pl_bulk_give_back(struct pl_bulk_segment *segment)
{
    /* RB10: it is filled, or not wanted, pairs with AB10 in is_lent and AB11 in pl_bulk_free; AB12: pairs with RB11. */
    if (atomic_exchange_explicit(&segment->state, FREE, memory_order_acq_rel) == ORPHAN) segment_free(segment);
}

static void loan_give_back(struct pl_loan *loan)
{
    pl_bulk_give_back(loan->owner);
}

void pl_bulk_lend(struct pl_bulk_segment *segment, size_t size, struct pl_loan *ret_loan)
{
    *ret_loan = (struct pl_loan){ .data = segment->data, .size = size, .give_back = loan_give_back, .owner = segment };
}

struct pl_bulk_segment *pl_bulk_of(const struct plait_publisher *publisher, const struct pl_loan *loan)
{
    struct pl_bulk_segment *segment = loan->give_back == loan_give_back ? loan->owner : NULL;
    /* A closed publisher's address may be this one's. Relaxed: the loan holds the state as it is. */
    bool ours = segment != NULL && segment->publisher == publisher &&
                atomic_load_explicit(&segment->state, memory_order_relaxed) == LENT;
    return ours ? segment : NULL;
}

/* ---- for those at sockets: the helper's ---- */

int pl_bulk_view(struct pl_outlet *outlet, const uint8_t record[PL_FRAME_SEGMENT_SIZE], const uint8_t **ret_data,
                 size_t *ret_size)
{
    struct plait_publisher *publisher = outlet->publisher;
    struct pl_frame_segment where;
    pl_frame_segment_decode(&where, record);
    *ret_size = (uint32_t)where.size;
    if (!pl_hazard_set(outlet->page, 0, publisher->writer.shared, &where)) return PL_BULK_GONE;
    pthread_mutex_lock(&publisher->lock); /* the memory stays now; where it is stands in what the publisher changes */
    *ret_data = publisher->segments[where.id]->data;
    pthread_mutex_unlock(&publisher->lock);
    return 0;
}
