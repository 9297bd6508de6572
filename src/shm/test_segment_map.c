/* The receiver's half: who may write, lies of the sender, views that outlive everything. */
#include "base/error.h"
#include "shm/memory.h"
#include "shm/test_segment_rig.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>

TEST(the_receiver_cannot_get_write_access)
{
    struct rig rig;
    struct pl_segment *segment = NULL;
    rig_open(&rig);
    CHECK_INT(pl_segment_take(rig.pool, MIB, &segment), PL_SEGMENT_NONE);
    CHECK_INT(pl_segment_take(rig.pool, MIB, &segment), 0);
    int fd = fcntl(segment->fd, F_DUPFD_CLOEXEC, 0);
    CHECK_INT(fcntl(fd, F_GET_SEALS) & (PL_MEMFD_SEALS | F_SEAL_FUTURE_WRITE), PL_MEMFD_SEALS | F_SEAL_FUTURE_WRITE);
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
    refused(&rig, forge(MIB, PL_MEMFD_SEALS), 64, MIB);
    refused(&rig, forge(MIB, PL_MEMFD_SEALS), UINT32_MAX, MIB);
    refused(&rig, forge(MIB, PL_MEMFD_SEALS), 0, 2 * MIB);
    refused(&rig, forge(MIB, PL_MEMFD_SEALS), 0, MIB / 2);
    refused(&rig, forge(0, PL_MEMFD_SEALS), 0, 0);
    refused(&rig, forge(100, PL_MEMFD_SEALS), 0, 100);
    refused(&rig, forge(MIB, 0), 0, MIB);
    refused(&rig, forge(MIB, PL_MEMFD_SEALS & ~F_SEAL_SHRINK), 0, MIB);
    refused(&rig, forge((1ULL << 30) + 4096, PL_MEMFD_SEALS), 0, (1ULL << 30) + 4096);
    refused(&rig, open("/dev/zero", O_RDWR | O_CLOEXEC), 0, MIB);
    int huge = memfd_create("huge", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);
    if (huge >= 0) {
        CHECK_INT(ftruncate(huge, 2 * MIB), 0);
        CHECK_INT(fcntl(huge, F_ADD_SEALS, PL_MEMFD_SEALS), 0);
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
    CHECK_INT(pl_segment_map_add(rig.map, forge(MIB, PL_MEMFD_SEALS), 0, MIB), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), "still in use");
    CHECK(bad.map == NULL);
    pl_segment_view_release(&one);
    CHECK_INT(pl_segment_map_add(rig.map, forge(MIB, PL_MEMFD_SEALS), 0, MIB), 0);
    rig_close(&rig);
}

TEST(never_written_pages_are_an_allocation_and_no_signal)
{
    struct rig rig;
    rig_open(&rig);
    int fd = forge(64 * MIB, PL_MEMFD_SEALS), mine = fcntl(fd, F_DUPFD_CLOEXEC, 0);
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
    CHECK_INT(pl_segment_map_add(rig.map, forge(MIB, PL_MEMFD_SEALS), 1, MIB), -ECONNRESET);
    CHECK(bad.map == NULL);
    pl_segment_view_release(&one);
    pl_segment_pool_free(rig.pool);
    close(rig.bell);
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
    int r = pl_segment_map_add(rig.map, forge(64 * MIB, PL_MEMFD_SEALS), 0, 64 * MIB);
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
