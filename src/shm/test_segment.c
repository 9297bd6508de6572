/* Segments: reuse, who may write, lies of either side, views that outlive everything. */
#include "harness/test.h"

#include "base/error.h"
#include "shm/memory.h"
#include "shm/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KIB = 1024, MIB = 1 << 20, SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };

/* Both sides of one direction, in one process. */
struct rig {
    _Atomic uint32_t returned[PL_SEGMENTS_MAX];
    struct pl_segment_pool *pool;
    struct pl_segment_map *map;
};

static void rig_open(struct rig *rig)
{
    memset(rig, 0, sizeof(*rig));
    CHECK_INT(pl_segment_pool_new(&rig->pool, rig->returned), 0);
    CHECK_INT(pl_segment_map_new(&rig->map, rig->returned), 0);
}

static void rig_close(struct rig *rig)
{
    pl_segment_pool_free(rig->pool);
    pl_segment_map_close(rig->map);
}

/* The announcement, as the socket would carry it. */
static void announce(struct rig *rig, struct pl_segment *segment)
{
    if (segment->fd < 0) return;
    int fd = fcntl(segment->fd, F_DUPFD_CLOEXEC, 0);
    CHECK(fd >= 0);
    CHECK_INT(pl_segment_map_add(rig->map, fd, segment->id, segment->capacity), 0);
    pl_segment_announced(rig->pool, segment);
    CHECK_INT(segment->fd, -1);
}

/* Takes past the first use of a class. */
static struct pl_segment *take(struct rig *rig, size_t size)
{
    struct pl_segment *segment = NULL;
    int r = pl_segment_take(rig->pool, size, &segment);
    if (r == PL_SEGMENT_NONE) r = pl_segment_take(rig->pool, size, &segment);
    CHECK_INT(r, 0);
    CHECK(segment->capacity >= size);
    announce(rig, segment);
    return segment;
}

static struct pl_segment_view view(struct rig *rig, const struct pl_segment *segment, size_t size)
{
    struct pl_segment_view result;
    CHECK_INT(pl_segment_map_view(rig->map, segment->id, segment->generation, size, &result), 0);
    CHECK_INT(result.size, size);
    return result;
}

TEST(a_payload_arrives_and_its_segment_is_reused)
{
    struct rig rig;
    rig_open(&rig);
    uint8_t *memory = NULL;
    for (int i = 0; i < 1000; i++) {
        size_t size = 100 * KIB + (size_t)i * 20;
        struct pl_segment *segment = take(&rig, size);
        CHECK_INT(segment->id, 0);
        CHECK_INT(segment->generation, i + 1);
        CHECK(memory == NULL || memory == segment->data);
        memory = segment->data;
        memset(memory, i, size);
        struct pl_segment_view got = view(&rig, segment, size);
        CHECK_MEM(got.data, memory, size);
        CHECK(got.data != memory);
        pl_segment_view_release(&got);
        CHECK(got.map == NULL);
        pl_segment_view_release(&got);
    }
    rig_close(&rig);
}

TEST(a_size_class_pays_from_its_second_use)
{
    struct rig rig;
    struct pl_segment *segment = NULL;
    rig_open(&rig);
    CHECK_INT(pl_segment_take(rig.pool, 20 * KIB, &segment), PL_SEGMENT_NONE);
    CHECK_INT(pl_segment_take(rig.pool, 33 * KIB, &segment), PL_SEGMENT_NONE);
    CHECK(segment == NULL);
    CHECK_INT(pl_segment_take(rig.pool, 32 * KIB, &segment), 0);
    CHECK_INT(segment->capacity, 32 * KIB);
    CHECK_INT(pl_segment_take(rig.pool, 64 * KIB, &segment), 0);
    CHECK_INT(segment->capacity, 64 * KIB);
    rig_close(&rig);
}

TEST(sizes_have_classes_from_16_kib_to_1_gib)
{
    struct rig rig;
    struct pl_segment *segment = NULL;
    rig_open(&rig);
    struct {
        size_t size, capacity;
    } cases[] = { { 0, 16 * KIB }, { 1, 16 * KIB },      { 16 * KIB, 16 * KIB }, { 16 * KIB + 1, 32 * KIB },
                  { MIB, MIB },    { MIB + 1, 2 * MIB }, { 3 * MIB, 4 * MIB },   { 4 * MIB + 1, 8 * MIB } };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int r = pl_segment_take(rig.pool, cases[i].size, &segment);
        if (r == PL_SEGMENT_NONE) r = pl_segment_take(rig.pool, cases[i].size, &segment);
        CHECK_INT(r, 0);
        CHECK_INT(segment->capacity, cases[i].capacity);
    }
    size_t over[] = { (1UL << 30) + 1, 1UL << 31, 1UL << 40, SIZE_MAX };
    for (int i = 0; i < 4; i++)
        for (int again = 0; again < 3; again++)
            CHECK_INT(pl_segment_take(rig.pool, over[i], &segment), PL_SEGMENT_NONE);
    rig_close(&rig);
}

TEST(segments_come_back_in_any_order)
{
    struct rig rig;
    rig_open(&rig);
    unsigned seed = 1;
    struct pl_segment_view views[20] = { 0 };
    for (int i = 0; i < 20000; i++) {
        struct pl_segment_view *one = &views[rand_r(&seed) % 20];
        if (one->map != NULL) {
            uint8_t expected = (uint8_t)(one->id + one->generation);
            CHECK_INT(one->data[0], expected);
            CHECK_INT(one->data[one->size - 1], expected);
            pl_segment_view_release(one);
        } else {
            size_t size = 1000 + (size_t)rand_r(&seed) % (200 * KIB);
            struct pl_segment *segment = take(&rig, size);
            segment->data[0] = segment->data[size - 1] = (uint8_t)(segment->id + segment->generation);
            *one = view(&rig, segment, size);
        }
    }
    for (int i = 0; i < 20; i++) pl_segment_view_release(&views[i]);
    rig_close(&rig);
}

TEST(at_the_cap_there_is_none_until_one_comes_back)
{
    struct rig rig;
    rig_open(&rig);
    struct pl_segment *segments[PL_SEGMENTS_MAX], *more = NULL;
    for (int i = 0; i < PL_SEGMENTS_MAX; i++) {
        segments[i] = take(&rig, 20 * KIB);
        CHECK_INT(segments[i]->id, i);
    }
    CHECK_INT(pl_segment_take(rig.pool, 20 * KIB, &more), PL_SEGMENT_NONE);
    struct pl_segment_view one = view(&rig, segments[40], 10);
    pl_segment_view_release(&one);
    CHECK_INT(pl_segment_take(rig.pool, 20 * KIB, &more), 0);
    CHECK_INT(more->id, 40);
    CHECK_INT(more->generation, 2);
    CHECK_INT(pl_segment_take(rig.pool, 20 * KIB, &more), PL_SEGMENT_NONE);
    rig_close(&rig);
}

TEST(an_idle_segment_too_small_is_replaced_when_slots_are_short)
{
    struct rig rig;
    rig_open(&rig);
    struct pl_segment *segments[PL_SEGMENTS_MAX];
    for (int i = 0; i < PL_SEGMENTS_MAX; i++) segments[i] = take(&rig, 20 * KIB);
    for (int i = 0; i < 2; i++) {
        struct pl_segment_view one = view(&rig, segments[7 - i], 10);
        pl_segment_view_release(&one);
    }
    struct pl_segment *larger = take(&rig, MIB);
    CHECK_INT(larger->id, 6); /* not used the longest */
    CHECK_INT(larger->generation, 2);
    memset(larger->data, 9, MIB);
    struct pl_segment_view got = view(&rig, larger, MIB);
    CHECK_INT(got.data[MIB - 1], 9);
    pl_segment_view_release(&got);
    CHECK_INT(take(&rig, MIB)->id, 6);
    rig_close(&rig);
}

TEST(a_small_payload_does_not_take_a_huge_segment)
{
    struct rig rig;
    rig_open(&rig);
    struct pl_segment *huge = take(&rig, 8 * MIB);
    struct pl_segment_view one = view(&rig, huge, 10);
    pl_segment_view_release(&one);
    CHECK(take(&rig, 20 * KIB) != huge);
    CHECK(take(&rig, 2 * MIB) == huge);
    rig_close(&rig);
}

TEST(an_aborted_segment_is_free_again_with_a_new_generation)
{
    struct rig rig;
    struct pl_segment *segment = NULL;
    rig_open(&rig);
    CHECK_INT(pl_segment_take(rig.pool, MIB, &segment), PL_SEGMENT_NONE);
    CHECK_INT(pl_segment_take(rig.pool, MIB, &segment), 0);
    CHECK(segment->fd >= 0);
    pl_segment_abort(rig.pool, segment);
    struct pl_segment *again = NULL;
    CHECK_INT(pl_segment_take(rig.pool, MIB, &again), 0);
    CHECK(again == segment);
    CHECK(again->fd >= 0); /* still to be announced */
    CHECK_INT(again->generation, 2);
    announce(&rig, again);
    struct pl_segment_view one = view(&rig, again, 10);
    pl_segment_view_release(&one);
    CHECK_INT(pl_segment_take(rig.pool, MIB, &again), 0);
    CHECK_INT(again->fd, -1);
    rig_close(&rig);
}

TEST(generations_wrap_around_without_zero)
{
    struct rig rig;
    rig_open(&rig);
    struct pl_segment *segment = take(&rig, MIB);
    segment->generation = UINT32_MAX; /* as if it had been used that often */
    struct pl_segment_view one = view(&rig, segment, 10);
    pl_segment_view_release(&one);
    CHECK_INT(take(&rig, MIB)->generation, 1);
    one = view(&rig, segment, 10);
    pl_segment_view_release(&one);
    CHECK_INT(take(&rig, MIB)->generation, 2);
    rig_close(&rig);
}

static size_t allocated(int fd)
{
    struct stat status;
    CHECK_INT(fstat(fd, &status), 0);
    return (size_t)status.st_blocks * 512;
}

TEST(only_what_payloads_need_is_populated)
{
    struct rig rig;
    struct pl_segment *segment = NULL;
    rig_open(&rig);
    CHECK_INT(pl_segment_take(rig.pool, 33 * MIB, &segment), PL_SEGMENT_NONE);
    CHECK_INT(pl_segment_take(rig.pool, 33 * MIB, &segment), 0);
    CHECK_INT(segment->capacity, 64 * MIB);
    int fd = fcntl(segment->fd, F_DUPFD_CLOEXEC, 0);
    CHECK_INT(allocated(fd), 33 * MIB);
    announce(&rig, segment);
    struct pl_segment_view one = view(&rig, segment, 33 * MIB);
    CHECK_INT(allocated(fd), 33 * MIB);
    pl_segment_view_release(&one);
    CHECK_INT(pl_segment_take(rig.pool, 40 * MIB, &segment), 0);
    CHECK_INT(allocated(fd), 40 * MIB);
    close(fd);
    rig_close(&rig);
}

/* Who may write. */

TEST(the_receiver_cannot_get_write_access)
{
    struct rig rig;
    struct pl_segment *segment = NULL;
    rig_open(&rig);
    CHECK_INT(pl_segment_take(rig.pool, MIB, &segment), PL_SEGMENT_NONE);
    CHECK_INT(pl_segment_take(rig.pool, MIB, &segment), 0);
    int fd = fcntl(segment->fd, F_DUPFD_CLOEXEC, 0);
    CHECK_INT(fcntl(fd, F_GET_SEALS) & (SEALS | F_SEAL_FUTURE_WRITE), SEALS | F_SEAL_FUTURE_WRITE);
    CHECK(mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    CHECK_INT(errno, EPERM);
    CHECK_INT(pwrite(fd, "x", 1, 0), -1);
    CHECK_INT(ftruncate(fd, 0), -1);
    CHECK_INT(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), -1);
    uint8_t *read_only = mmap(NULL, MIB, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(read_only != MAP_FAILED);
    CHECK_INT(mprotect(read_only, MIB, PROT_READ | PROT_WRITE), -1);
    memset(segment->data, 3, MIB); /* the sender goes on writing */
    CHECK_INT(read_only[MIB - 1], 3);
    munmap(read_only, MIB);
    close(fd);
    rig_close(&rig);
}

TEST(a_view_is_read_only)
{
    struct rig rig;
    rig_open(&rig);
    struct pl_segment_view one = view(&rig, take(&rig, MIB), MIB);
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL);
        ((volatile uint8_t *)(uintptr_t)one.data)[0] = 1;
        _exit(0);
    }
    if (!test_sanitized()) CHECK_INT(test_wait_child(pid), 128 + SIGSEGV);
    else CHECK(test_wait_child(pid) != 0);
    pl_segment_view_release(&one);
    rig_close(&rig);
}

/* Lies of the receiver. */

TEST(a_generation_that_was_never_lent_is_refused)
{
    struct rig rig;
    rig_open(&rig);
    struct pl_segment *segment = NULL;
    take(&rig, MIB);
    struct pl_segment_view one = view(&rig, take(&rig, MIB), 10);
    pl_segment_view_release(&one);
    CHECK_INT(pl_segment_take(rig.pool, MIB, &segment), 0);
    CHECK_INT(segment->id, 1);
    CHECK_INT(segment->generation, 2);
    pl_segment_abort(rig.pool, segment);
    /* Segment 0 is lent with generation 1; 1 is idle and came back with 1; 2 never existed. */
    struct {
        uint32_t id, value;
    } lies[] = { { 0, 2 }, { 0, UINT32_MAX }, { 1, 0 }, { 1, 2 }, { 1, 3 }, { 2, 1 }, { 63, 1 }, { 63, UINT32_MAX } };
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        uint32_t before = rig.returned[lies[i].id];
        rig.returned[lies[i].id] = lies[i].value;
        segment = NULL;
        CHECK_INT(pl_segment_take(rig.pool, MIB, &segment), -EPROTO);
        CHECK_CONTAINS(pl_error_text(), "gives back generation");
        CHECK(segment == NULL);
        rig.returned[lies[i].id] = before;
    }
    CHECK_INT(pl_segment_take(rig.pool, MIB, &segment), 0);
    rig_close(&rig);
}

/* Lies of the sender. */

static int forge(uint64_t size, int seals)
{
    int fd;
    CHECK_INT(pl_memfd_create("forged", size, &fd), 0);
    if (seals != 0) CHECK_INT(pl_memfd_seal(fd, seals), 0);
    return fd;
}

static void refused(struct rig *rig, int fd, uint32_t id, uint64_t size)
{
    CHECK(fd >= 0);
    CHECK_INT(pl_segment_map_add(rig->map, fd, id, size), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), "segment");
    CHECK_INT(fcntl(fd, F_GETFD), -1); /* taken all the same */
}

TEST(a_forged_segment_is_refused)
{
    struct rig rig;
    rig_open(&rig);
    refused(&rig, forge(MIB, SEALS), 64, MIB);
    refused(&rig, forge(MIB, SEALS), UINT32_MAX, MIB);
    refused(&rig, forge(MIB, SEALS), 0, 2 * MIB);
    refused(&rig, forge(MIB, SEALS), 0, MIB / 2);
    refused(&rig, forge(0, SEALS), 0, 0);
    refused(&rig, forge(100, SEALS), 0, 100);
    refused(&rig, forge(MIB, 0), 0, MIB);
    refused(&rig, forge(MIB, SEALS & ~F_SEAL_SHRINK), 0, MIB);
    refused(&rig, forge((1ULL << 30) + 4096, SEALS), 0, (1ULL << 30) + 4096);
    refused(&rig, open("/dev/zero", O_RDWR | O_CLOEXEC), 0, MIB);
    int huge = memfd_create("huge", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);
    if (huge >= 0) {
        CHECK_INT(ftruncate(huge, 2 * MIB), 0);
        CHECK_INT(fcntl(huge, F_ADD_SEALS, SEALS), 0);
        refused(&rig, huge, 0, 2 * MIB);
    }
    struct pl_segment_view one = { 0 };
    CHECK_INT(pl_segment_map_view(rig.map, 0, 1, 10, &one), -EPROTO);
    CHECK(one.map == NULL);
    rig_close(&rig);
}

TEST(a_view_that_cannot_be_is_refused)
{
    struct rig rig;
    struct pl_segment_view bad = { 0 };
    rig_open(&rig);
    struct pl_segment *segment = take(&rig, MIB);
    uint32_t ids[] = { 1, 63, 64, UINT32_MAX };
    for (int i = 0; i < 4; i++) {
        CHECK_INT(pl_segment_map_view(rig.map, ids[i], 1, 10, &bad), -EPROTO);
        CHECK_CONTAINS(pl_error_text(), "never announced");
    }
    uint64_t sizes[] = { MIB + 1, 1ULL << 32, UINT64_MAX };
    for (int i = 0; i < 3; i++) {
        CHECK_INT(pl_segment_map_view(rig.map, 0, 1, sizes[i], &bad), -EPROTO);
        CHECK_CONTAINS(pl_error_text(), "in segment 0 of 1048576");
    }
    struct pl_segment_view one = view(&rig, segment, MIB);
    CHECK_INT(pl_segment_map_view(rig.map, 0, 2, 10, &bad), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), "still in use");
    CHECK_INT(pl_segment_map_add(rig.map, forge(MIB, SEALS), 0, MIB), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), "still in use");
    CHECK(bad.map == NULL);
    pl_segment_view_release(&one);
    CHECK_INT(pl_segment_map_add(rig.map, forge(MIB, SEALS), 0, MIB), 0);
    rig_close(&rig);
}

TEST(never_written_pages_are_an_allocation_and_no_signal)
{
    struct rig rig;
    rig_open(&rig);
    int fd = forge(64 * MIB, SEALS), mine = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    CHECK_INT(pl_segment_map_add(rig.map, fd, 0, 64 * MIB), 0);
    CHECK_INT(allocated(mine), 0);
    struct pl_segment_view one;
    CHECK_INT(pl_segment_map_view(rig.map, 0, 1, 100 * KIB, &one), 0);
    CHECK(allocated(mine) <= 128 * KIB);
    CHECK_INT(one.data[100 * KIB - 1], 0);
    pl_segment_view_release(&one);
    close(mine);
    rig_close(&rig);
}

/* Lifetimes. */

TEST(views_outlive_map_pool_and_table)
{
    struct rig rig;
    rig_open(&rig);
    struct pl_segment *segments[2] = { take(&rig, MIB), take(&rig, MIB) };
    memset(segments[0]->data, 1, MIB);
    memset(segments[1]->data, 2, MIB);
    struct pl_segment_view first = view(&rig, segments[0], MIB), second = view(&rig, segments[1], MIB);
    rig_close(&rig);
    memset(&rig, 0xee, sizeof(rig)); /* the channel is gone: no store may hit this */
    CHECK_INT(first.data[MIB - 1], 1);
    pl_segment_view_release(&first);
    CHECK_INT(second.data[0], 2);
    pl_segment_view_release(&second);
    for (int i = 0; i < PL_SEGMENTS_MAX; i++) CHECK_INT(rig.returned[i], 0xeeeeeeee);
}

TEST(a_closed_map_takes_nothing_more)
{
    struct rig rig;
    rig_open(&rig);
    struct pl_segment_view one = view(&rig, take(&rig, MIB), MIB), bad = { 0 };
    pl_segment_map_close(rig.map);
    CHECK_INT(pl_segment_map_view(rig.map, 0, 1, 1, &bad), -ECONNRESET);
    CHECK_INT(pl_segment_map_add(rig.map, forge(MIB, SEALS), 1, MIB), -ECONNRESET);
    CHECK(bad.map == NULL);
    pl_segment_view_release(&one);
    pl_segment_pool_free(rig.pool);
}

TEST(destructors_take_nothing)
{
    struct pl_segment_view nothing = { 0 };
    pl_segment_pool_free(NULL);
    pl_segment_map_close(NULL);
    pl_segment_view_release(NULL);
    pl_segment_view_release(&nothing);
}

TEST(a_forked_child_reads_its_views_and_tells_nobody)
{
    struct rig rig;
    rig_open(&rig);
    struct pl_segment *segment = take(&rig, MIB);
    memset(segment->data, 7, MIB);
    struct pl_segment_view one = view(&rig, segment, MIB);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK_INT(one.data[MIB - 1], 7);
        pl_segment_view_release(&one);
        CHECK_INT(rig.returned[0], 0);
        rig_close(&rig);
        CHECK_INT(rig.returned[0], 0);
        _exit(0);
    }
    CHECK_INT(test_wait_child(pid), 0);
    CHECK_INT(one.data[MIB - 1], 7);
    pl_segment_view_release(&one);
    CHECK_INT(rig.returned[0], 1);
    rig_close(&rig);
}

TEST(a_child_without_fork_handlers_tells_nobody_either)
{
    struct rig rig;
    rig_open(&rig);
    struct pl_segment_view one = view(&rig, take(&rig, MIB), MIB);
    pid_t pid = _Fork();
    if (pid == 0) {
        pl_segment_view_release(&one);
        pl_segment_map_close(rig.map);
        _exit(rig.returned[0] != 0);
    }
    CHECK_INT(test_wait_child(pid), 0);
    pl_segment_view_release(&one);
    rig_close(&rig);
}

TEST(no_descriptors_left_is_another_way_and_no_failure)
{
    struct rig rig;
    struct rlimit before, tight = { 0 };
    struct pl_segment *segment = NULL;
    rig_open(&rig);
    CHECK_INT(pl_segment_take(rig.pool, MIB, &segment), PL_SEGMENT_NONE);
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &before), 0);
    tight.rlim_max = before.rlim_max;
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &tight), 0);
    for (int i = 0; i < 100; i++) CHECK_INT(pl_segment_take(rig.pool, MIB, &segment), PL_SEGMENT_NONE);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &before), 0);
    CHECK_INT(pl_segment_take(rig.pool, MIB, &segment), 0);
    CHECK_INT(segment->id, 0); /* the failures took no slots */
    rig_close(&rig);
}

TEST(no_memory_left_is_another_way_and_no_failure)
{
    struct rig rig;
    struct rlimit before, tight = { 0 };
    struct pl_segment *segment = NULL;
    if (test_sanitized()) SKIP("sanitizers need the address space");
    rig_open(&rig);
    CHECK_INT(pl_segment_take(rig.pool, 64 * MIB, &segment), PL_SEGMENT_NONE);
    CHECK_INT(getrlimit(RLIMIT_AS, &before), 0);
    tight = (struct rlimit){ .rlim_cur = 32 * MIB, .rlim_max = before.rlim_max };
    CHECK_INT(setrlimit(RLIMIT_AS, &tight), 0);
    CHECK_INT(pl_segment_take(rig.pool, 64 * MIB, &segment), PL_SEGMENT_NONE);
    int r = pl_segment_map_add(rig.map, forge(64 * MIB, SEALS), 0, 64 * MIB);
    CHECK_INT(setrlimit(RLIMIT_AS, &before), 0);
    CHECK_INT(r, -ENOMEM);
    CHECK_INT(pl_segment_take(rig.pool, 64 * MIB, &segment), 0);
    rig_close(&rig);
}

/* Views are released by other threads while the reader makes new ones and finally closes. */

enum { SHARED_VIEWS = 32, ROUNDS = 20000 };

struct crowd {
    struct rig rig;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct pl_segment_view views[SHARED_VIEWS];
    int count;
    bool over;
};

static void *release_some(void *context)
{
    struct crowd *crowd = context;
    for (;;) {
        pthread_mutex_lock(&crowd->lock);
        while (crowd->count == 0 && !crowd->over) pthread_cond_wait(&crowd->changed, &crowd->lock);
        if (crowd->count == 0) break;
        struct pl_segment_view one = crowd->views[--crowd->count];
        pthread_cond_broadcast(&crowd->changed);
        pthread_mutex_unlock(&crowd->lock);
        CHECK_INT(one.data[0], one.data[one.size - 1]);
        pl_segment_view_release(&one);
    }
    pthread_mutex_unlock(&crowd->lock);
    return NULL;
}

TEST(threads_release_while_the_reader_goes_on_and_closes)
{
    static struct crowd crowd = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
    rig_open(&crowd.rig);
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) CHECK_INT(pthread_create(&threads[i], NULL, release_some, &crowd), 0);
    for (int i = 0; i < ROUNDS; i++) {
        struct pl_segment *segment = take(&crowd.rig, 20 * KIB);
        segment->data[0] = segment->data[20 * KIB - 1] = (uint8_t)i;
        struct pl_segment_view one = view(&crowd.rig, segment, 20 * KIB);
        pthread_mutex_lock(&crowd.lock);
        while (crowd.count == SHARED_VIEWS) pthread_cond_wait(&crowd.changed, &crowd.lock);
        crowd.views[crowd.count++] = one;
        pthread_cond_broadcast(&crowd.changed);
        pthread_mutex_unlock(&crowd.lock);
    }
    rig_close(&crowd.rig);
    pthread_mutex_lock(&crowd.lock);
    crowd.over = true;
    pthread_cond_broadcast(&crowd.changed);
    pthread_mutex_unlock(&crowd.lock);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
}
