/* The broadcast ring: order, loss, late joiners, writers that lie or die, and memory that nobody else can write. */
#include "harness/test.h"

#include "base/error.h"
#include "base/fd.h"
#include "shm/memory.h"
#include "shm/ring_broadcast.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N = 65536 };

struct rig {
    struct pl_broadcast_writer writer;
    struct pl_broadcast_reader reader;
    int fd;
    uint8_t body[PL_BROADCAST_BODY_MAX];
    struct pl_broadcast_head head;
    uint64_t lost;
};

static void rig_open(struct rig *rig)
{
    *rig = (struct rig){ 0 };
    CHECK_INT(pl_broadcast_create(&rig->writer, N, false, &rig->fd), 0);
    CHECK_INT(pl_broadcast_attach(&rig->reader, rig->fd), 0);
}

static void rig_close(struct rig *rig)
{
    pl_broadcast_destroy(&rig->writer);
    pl_broadcast_detach(&rig->reader);
    pl_close(&rig->fd);
}

static uint8_t byte_of(uint64_t number, size_t at)
{
    return (uint8_t)(number * 37 + at * 11);
}

static void put(struct pl_broadcast_writer *writer, size_t size)
{
    uint8_t body[PL_BROADCAST_BODY_MAX];
    struct pl_broadcast_head head = { .size = (uint32_t)size };
    for (size_t i = 0; i < size; i++) body[i] = byte_of(writer->number + 1, i);
    pl_broadcast_write(writer, &head, body);
}

static void check_body(const struct rig *rig)
{
    for (size_t i = 0; i < rig->head.size; i++)
        if (rig->body[i] != byte_of(rig->head.number, i)) CHECK_INT(rig->body[i], byte_of(rig->head.number, i));
}

static int take(struct rig *rig)
{
    int r = pl_broadcast_read(&rig->reader, &rig->head, rig->body, &rig->lost);
    if (r == 0) check_body(rig);
    return r;
}

TEST(messages_arrive_whole_in_order_and_numbered_from_one)
{
    struct rig rig;
    rig_open(&rig);
    unsigned seed = 3;
    for (uint64_t i = 1; i <= 3000; i++) {
        size_t size = (size_t)rand_r(&seed) % (rand_r(&seed) % 8 == 0 ? PL_BROADCAST_BODY_MAX + 1 : 200);
        put(&rig.writer, size);
        CHECK_INT(take(&rig), 0);
        CHECK_INT(rig.head.number, i);
        CHECK_INT(rig.head.size, size);
        CHECK_INT(take(&rig), PL_BROADCAST_EMPTY);
    }
    CHECK_INT(rig.lost, 0);
    rig_close(&rig);
}

TEST(a_reader_that_is_overrun_loses_the_oldest_and_counts_them_exactly)
{
    struct rig rig;
    rig_open(&rig);
    unsigned seed = 5;
    uint64_t received = 0, most = 0;
    for (int round = 0; round < 200; round++) {
        int burst = rand_r(&seed) % 3000;
        uint64_t before = received;
        for (int i = 0; i < burst; i++) put(&rig.writer, (size_t)rand_r(&seed) % 300);
        while (take(&rig) == 0) received++;
        if (received - before > most) most = received - before;
        CHECK_INT(received + rig.lost, rig.writer.number);
    }
    CHECK(rig.lost > 0);
    /* Half a ring of the newest is still read: messages of 32 + 150 bytes on average. */
    CHECK(most > N / 2 / 200);
    rig_close(&rig);
}

TEST(a_late_joiner_gets_the_last_n_messages)
{
    struct rig rig;
    rig_open(&rig);
    CHECK_INT(pl_broadcast_seek(&rig.reader, 5), 0);
    CHECK_INT(take(&rig), PL_BROADCAST_EMPTY);
    for (int total = 1; total < 4000; total += 37) {
        while (rig.writer.number < (uint64_t)total) put(&rig.writer, 64);
        for (uint64_t history = 0; history < 40; history += 3) {
            CHECK_INT(pl_broadcast_seek(&rig.reader, history), 0);
            uint64_t count = 0, expected = history < (uint64_t)total ? history : (uint64_t)total;
            while (take(&rig) == 0) count++;
            CHECK_INT(count, expected);
            CHECK_INT(rig.lost, 0);
            if (count > 0) CHECK_INT(rig.head.number, total);
        }
    }
    CHECK_INT(pl_broadcast_seek(&rig.reader, UINT64_MAX), 0);
    uint64_t count = 0;
    while (take(&rig) == 0) count++;
    CHECK(count > 500 && count < 700); /* what a ring holds of 96 bytes each */
    CHECK_INT(rig.lost, 0);
    rig_close(&rig);
}

TEST(a_reader_cannot_get_to_write_the_ring)
{
    struct rig rig;
    char path[64];
    rig_open(&rig);
    put(&rig.writer, 100);
    size_t page = pl_page_size();
    CHECK(mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, rig.fd, 0) == MAP_FAILED);
    CHECK(mprotect((void *)(uintptr_t)rig.reader.shared, page, PROT_READ | PROT_WRITE) < 0);
    CHECK_INT(errno, EACCES);
    CHECK(pwrite(rig.fd, "x", 1, 0) < 0);
    CHECK(ftruncate(rig.fd, 0) < 0);
    CHECK(fallocate(rig.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)page) < 0);
    CHECK(fcntl(rig.fd, F_ADD_SEALS, 0) < 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", rig.fd);
    int again = open(path, O_RDWR | O_CLOEXEC);
    if (again >= 0) { /* opening is allowed to the owner, and to root; writing is not */
        CHECK(mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0) == MAP_FAILED);
        CHECK(pwrite(again, "x", 1, 0) < 0);
        close(again);
    }
    int memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
    CHECK(memory >= 0);
    CHECK(pwrite(memory, "x", 1, (off_t)(uintptr_t)rig.reader.data) < 0);
    close(memory);
    CHECK_INT(take(&rig), 0);
    CHECK_INT(rig.writer.shared->magic, PL_BROADCAST_MAGIC);
    rig_close(&rig);
}

static void check_lie(struct rig *rig, const char *text)
{
    CHECK_INT(take(rig), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), text);
    rig_close(rig);
}

TEST(a_tail_that_goes_back_or_is_odd_is_a_lie)
{
    struct rig rig;
    rig_open(&rig);
    put(&rig.writer, 64);
    CHECK_INT(take(&rig), 0);
    rig.writer.shared->tail = 0;
    check_lie(&rig, "the publisher lies: it says that it wrote up to 0");
    rig_open(&rig);
    rig.writer.shared->tail = 17;
    check_lie(&rig, "up to 17");
}

TEST(a_head_that_cannot_be_is_a_lie)
{
    struct rig rig;
    rig_open(&rig);
    put(&rig.writer, 64);
    ((struct pl_broadcast_head *)rig.writer.data)->size = 4000; /* more than was published */
    check_lie(&rig, "a message of size 4000");
    rig_open(&rig);
    put(&rig.writer, 64);
    ((struct pl_broadcast_head *)rig.writer.data)->size = UINT32_MAX;
    check_lie(&rig, "a message of size 4294967295");
    rig_open(&rig);
    put(&rig.writer, 64);
    ((struct pl_broadcast_head *)rig.writer.data)->number = 7;
    check_lie(&rig, "a message numbered 7");
}

TEST(a_writer_that_always_overruns_is_found_out)
{
    struct rig rig;
    int r = 0;
    rig_open(&rig);
    put(&rig.writer, 64);
    rig.writer.shared->intent = UINT64_MAX;
    for (int i = 0; i < 10000 && r != -EPROTO; i++) {
        r = take(&rig);
        CHECK(r == PL_BROADCAST_EMPTY || r == -EPROTO);
    }
    CHECK_INT(r, -EPROTO);
    rig_close(&rig);
}

TEST(memory_that_is_not_a_sealed_ring_is_refused)
{
    struct pl_broadcast_writer writer;
    struct pl_broadcast_reader reader = { 0 };
    void *page = NULL;
    int fd = -1, r;
    CHECK_INT(pl_memfd_create("unsealed", 4096 + N, &fd), 0);
    CHECK_INT(pl_broadcast_attach(&reader, fd), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), "seals");
    CHECK_INT(pl_memfd_seal(fd, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
    CHECK_INT(pl_broadcast_attach(&reader, fd), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), "magic 0x0");
    CHECK_INT(pl_topic_page_attach(&page, fd), -EPROTO);
    pl_close(&fd);
    CHECK_INT(pl_memfd_create("odd", 4096 + N + 1, &fd), 0);
    CHECK_INT(pl_broadcast_attach(&reader, fd), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), "impossible size");
    pl_close(&fd);
    r = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK_INT(pl_broadcast_attach(&reader, r), -EPROTO);
    CHECK_INT(pl_topic_page_attach(&page, r), -EPROTO);
    pl_close(&r);
    CHECK_INT(pl_broadcast_create(&writer, 12345, false, &fd), -EINVAL);
    CHECK_INT(pl_broadcast_create(&writer, PL_BROADCAST_CAPACITY_MAX * 2u, false, &fd), -EINVAL);
}

TEST(sleepers_are_counted_and_forgotten_when_they_are_woken)
{
    struct rig rig;
    struct pl_waiters_page waiters = { 0 };
    rig_open(&rig);
    CHECK_INT(pl_broadcast_sleepers(&waiters), 0);
    CHECK(pl_broadcast_sleep(&rig.reader, &waiters));
    CHECK(pl_broadcast_sleep(&rig.reader, &waiters));
    put(&rig.writer, 1);
    CHECK_INT(pl_broadcast_sleepers(&waiters), 2);
    CHECK_INT(pl_broadcast_sleepers(&waiters), 0);
    CHECK(!pl_broadcast_sleep(&rig.reader, &waiters)); /* something is there */
    CHECK_INT(take(&rig), 0);
    CHECK(pl_broadcast_sleep(&rig.reader, &waiters));
    rig_close(&rig);
}

TEST(a_starving_writer_is_woken_by_the_reader_that_has_come_far_enough)
{
    struct pl_subscriber_page page = { 0 };
    CHECK(!pl_broadcast_tell_cursor(&page, 10));
    CHECK(!pl_broadcast_starve(&page, 10));
    page.waiting = 0;
    CHECK(pl_broadcast_starve(&page, 100));
    CHECK(!pl_broadcast_tell_cursor(&page, 99));
    CHECK(pl_broadcast_tell_cursor(&page, 100));
    CHECK(!pl_broadcast_tell_cursor(&page, 200));
    CHECK_INT(pl_broadcast_cursor(&page), 200);
}

/* ---- two threads on one mapping, which ThreadSanitizer can follow ---- */

struct race {
    struct pl_broadcast_shared *shared;
    uint8_t *data;
    uint64_t messages;
    _Atomic int done;
};

static void *write_all(void *context)
{
    struct race *race = context;
    struct pl_broadcast_writer writer;
    unsigned seed = 11;
    pl_broadcast_writer_init(&writer, race->shared, race->data, N);
    for (uint64_t i = 0; i < race->messages; i++) {
        put(&writer, (size_t)rand_r(&seed) % (rand_r(&seed) % 16 == 0 ? 4000 : 100));
        if (rand_r(&seed) % 256 == 0) sched_yield();
    }
    race->done = 1;
    return NULL;
}

static void *read_all(void *context)
{
    struct race *race = context;
    struct rig rig = { 0 };
    uint64_t received = 0, spins = 0;
    unsigned seed = 12;
    pl_broadcast_reader_init(&rig.reader, race->shared, race->data, N);
    for (;;) {
        int done = race->done, r = take(&rig);
        if (r == PL_BROADCAST_EMPTY && done && !pl_broadcast_ready(&rig.reader)) break;
        if (r == PL_BROADCAST_EMPTY) {
            if (++spins % 64 == 0) sched_yield();
            continue;
        }
        CHECK_INT(r, 0);
        received++;
        if (rand_r(&seed) % 2000 == 0) usleep(300); /* so that it is overrun now and then */
    }
    CHECK_INT(received + rig.lost, race->messages);
    return NULL;
}

TEST(threads_read_whole_messages_or_count_them_as_lost)
{
    enum { READERS = 3 };
    struct race race = { .messages = test_sanitized() ? 60000 : 600000 };
    pthread_t writer, readers[READERS];
    race.data = aligned_alloc(4096, 2 * N);
    race.shared = aligned_alloc(64, sizeof *race.shared);
    CHECK(race.data != NULL && race.shared != NULL);
    memset(race.shared, 0, sizeof *race.shared);
    memset(race.data, 0, 2 * N);
    for (int i = 0; i < READERS; i++) CHECK_INT(pthread_create(&readers[i], NULL, read_all, &race), 0);
    CHECK_INT(pthread_create(&writer, NULL, write_all, &race), 0);
    CHECK_INT(pthread_join(writer, NULL), 0);
    for (int i = 0; i < READERS; i++) CHECK_INT(pthread_join(readers[i], NULL), 0);
    free(race.data);
    free(race.shared);
}

TEST(what_a_killed_writer_published_is_read_whole)
{
    struct rig rig;
    unsigned seed = 21;
    for (int round = 0; round < 100; round++) {
        rig_open(&rig);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0)
            for (;;) put(&rig.writer, 100);
        usleep((unsigned)rand_r(&seed) % 800);
        kill(child, SIGKILL);
        CHECK_INT(waitpid(child, NULL, 0), child);
        uint64_t received = 0;
        while (take(&rig) == 0) received++;
        CHECK(!pl_broadcast_ready(&rig.reader));
        uint64_t spans = rig.reader.position / pl_broadcast_span(100);
        CHECK_INT(received + rig.lost, spans);
        rig_close(&rig);
    }
}
