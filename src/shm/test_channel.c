/* Channels: two mappings of one memory, the mirror, the windows, lies told by a creator, fork. */
#include "harness/test.h"

#include "base/error.h"
#include "shm/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };

static void make_pair(struct pl_channel *server, struct pl_channel *client, uint32_t capacity)
{
    int fd;
    CHECK_INT(pl_channel_create(server, capacity, &fd), 0);
    CHECK_INT(pl_channel_attach(client, fd, capacity), 0);
    close(fd);
}

TEST(both_sides_see_the_same_memory)
{
    struct pl_channel server, client;
    make_pair(&server, &client, PL_RING_CAPACITY);
    CHECK(server.control != client.control);
    for (int ring = 0; ring < 2; ring++) {
        memset(server.ring[ring], 'a' + ring, server.capacity);
        for (uint32_t i = 0; i < 2 * client.capacity; i++) CHECK_INT(client.ring[ring][i], 'a' + ring);
    }
    client.control->returned[1][63] = 7;
    CHECK_INT(server.control->returned[1][63], 7);
    CHECK_INT(server.control->magic, PL_CHANNEL_MAGIC);
    pl_channel_detach(&server);
    CHECK_INT(client.ring[0][5], 'a'); /* its memory lives as long as its last user */
    pl_channel_detach(&client);
}

TEST(each_ring_is_mirrored_behind_itself)
{
    struct pl_channel server, client;
    make_pair(&server, &client, PL_RING_CAPACITY);
    uint32_t n = server.capacity;
    for (int ring = 0; ring < 2; ring++) {
        memcpy(server.ring[ring] + n - 3, "abcdef", 6);
        CHECK_MEM(server.ring[ring], "def", 3);
        CHECK_MEM(client.ring[ring] + n - 3, "abcdef", 6);
        CHECK_MEM(client.ring[ring] + 2 * n - 3, "abc", 3);
        CHECK_INT(server.ring[!ring][n - 3], ring == 0 ? 0 : 'a');
    }
    pl_channel_detach(&server);
    pl_channel_detach(&client);
}

TEST(every_power_of_two_is_a_capacity_and_nothing_else)
{
    for (uint32_t capacity = (uint32_t)pl_page_size(); capacity <= 1 << 22; capacity *= 2) {
        struct pl_channel server, client;
        make_pair(&server, &client, capacity);
        server.ring[1][0] = 9;
        CHECK_INT(client.ring[1][capacity], 9);
        pl_channel_detach(&server);
        pl_channel_detach(&client);
    }
    uint32_t bad[] = { 0, 1, 2048, 65535, 65537, 98304, 1U << 27, 1U << 31, UINT32_MAX };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct pl_channel channel = { 0 };
        int fd = -7;
        CHECK_INT(pl_channel_create(&channel, bad[i], &fd), -EINVAL);
        CHECK_INT(pl_channel_attach(&channel, 0, bad[i]), -EPROTO);
        CHECK(channel.control == NULL);
        CHECK_INT(fd, -7);
    }
}

static size_t allocated(int fd)
{
    struct stat status;
    CHECK_INT(fstat(fd, &status), 0);
    return (size_t)status.st_blocks * 512;
}

TEST(a_fresh_channel_has_the_pages_of_light_traffic_alone)
{
    struct pl_channel server, client;
    int fd;
    CHECK_INT(pl_channel_create(&server, PL_RING_CAPACITY, &fd), 0);
    CHECK_INT(pl_channel_attach(&client, fd, PL_RING_CAPACITY), 0);
    CHECK_INT(allocated(fd), 3 * pl_page_size());
    close(fd);
    pl_channel_detach(&server);
    pl_channel_detach(&client);
}

TEST(seven_channels_share_a_window_of_2_mib)
{
    if (pl_page_size() != 4096) SKIP("counted for pages of 4 KiB");
    struct pl_channel channels[15];
    for (int i = 0; i < 15; i++) {
        int fd;
        CHECK_INT(pl_channel_create(&channels[i], PL_RING_CAPACITY, &fd), 0);
        close(fd);
        CHECK_INT((uintptr_t)channels[i].control >> 21,
                  (uintptr_t)(channels[i].ring[1] + 2 * PL_RING_CAPACITY - 1) >> 21);
        CHECK_INT((uintptr_t)channels[i].control >> 21 == (uintptr_t)channels[i - i % 7].control >> 21, 1);
    }
    CHECK(channels[0].window != channels[7].window);
    CHECK(channels[7].window != channels[14].window);
    /* A freed slot is used again, with memory of its own. */
    void *freed = channels[3].control;
    channels[3].ring[0][0] = 1;
    pl_channel_detach(&channels[3]);
    int fd;
    CHECK_INT(pl_channel_create(&channels[3], PL_RING_CAPACITY, &fd), 0);
    close(fd);
    CHECK(channels[3].control == freed);
    CHECK_INT(channels[3].ring[0][0], 0);
    for (int i = 14; i >= 0; i--) pl_channel_detach(&channels[i]);
}

TEST(detach_is_idempotent_and_takes_what_was_never_attached)
{
    struct pl_channel server, client, nothing = { 0 };
    make_pair(&server, &client, PL_RING_CAPACITY);
    for (int i = 0; i < 2; i++) {
        pl_channel_detach(&server);
        pl_channel_detach(&client);
        pl_channel_detach(&nothing);
        pl_channel_detach(NULL);
    }
}

/* A memfd as a hostile server may make it. */
static int forge(uint64_t size, int seals, uint32_t magic, uint32_t version, uint32_t capacity)
{
    int fd;
    CHECK_INT(pl_memfd_create("forged", size, &fd), 0);
    uint32_t words[] = { magic, version, capacity };
    if (size >= sizeof words) CHECK_INT(pwrite(fd, words, sizeof words, 0), sizeof words);
    if (seals != 0) CHECK_INT(pl_memfd_seal(fd, seals), 0);
    return fd;
}

static void refused(int fd, const char *why)
{
    struct pl_channel channel = { 0 };
    CHECK_INT(pl_channel_attach(&channel, fd, PL_RING_CAPACITY), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), why);
    CHECK_CONTAINS(pl_error_text(), "channel");
    CHECK(channel.control == NULL);
    close(fd);
}

TEST(a_forged_channel_is_refused)
{
    enum { MAGIC = PL_CHANNEL_MAGIC, VERSION = PL_CHANNEL_VERSION, N = PL_RING_CAPACITY };
    uint64_t size = 4096 + 2 * (uint64_t)N;
    if (pl_page_size() != 4096) SKIP("sizes for pages of 4 KiB");
    struct pl_channel channel;
    int fine = forge(size, SEALS, MAGIC, VERSION, N);
    CHECK_INT(pl_channel_attach(&channel, fine, N), 0);
    pl_channel_detach(&channel);
    close(fine);
    refused(forge(size, 0, MAGIC, VERSION, N), "seals");
    refused(forge(size, SEALS & ~F_SEAL_SHRINK, MAGIC, VERSION, N), "seals");
    refused(forge(size - 4096, SEALS, MAGIC, VERSION, N), "announced");
    refused(forge(size + N, SEALS, MAGIC, VERSION, N), "announced");
    refused(forge(0, SEALS, MAGIC, VERSION, N), "announced");
    refused(forge(size, SEALS, MAGIC + 1, VERSION, N), "magic");
    refused(forge(size, SEALS, MAGIC, VERSION + 1, N), "version 2");
    refused(forge(size, SEALS, MAGIC, VERSION, N / 2), "capacity 32768");
    refused(forge(size, SEALS | F_SEAL_WRITE, MAGIC, VERSION, N), "mapping");
    refused(forge(size, SEALS | F_SEAL_FUTURE_WRITE, MAGIC, VERSION, N), "mapping");
    refused(open("/dev/zero", O_RDWR | O_CLOEXEC), "not a memfd");
}

TEST(a_read_only_descriptor_is_refused)
{
    struct pl_channel server, client = { 0 };
    int fd;
    CHECK_INT(pl_channel_create(&server, PL_RING_CAPACITY, &fd), 0);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int readable = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(readable >= 0);
    CHECK_INT(pl_channel_attach(&client, readable, PL_RING_CAPACITY), -EPROTO);
    close(readable);
    close(fd);
    pl_channel_detach(&server);
}

TEST(descriptors_run_out_with_an_errno_and_advice)
{
    struct rlimit before, tight = { 0 };
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &before), 0);
    tight.rlim_max = before.rlim_max;
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &tight), 0);
    struct pl_channel channel = { 0 };
    int fd = -7;
    CHECK_INT(pl_channel_create(&channel, PL_RING_CAPACITY, &fd), -EMFILE);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &before), 0);
    CHECK_CONTAINS(pl_error_text(), "ulimit -n");
    CHECK_INT(fd, -7);
}

TEST(a_forked_child_detaches_without_harm_and_makes_channels_of_its_own)
{
    struct pl_channel server, client;
    make_pair(&server, &client, PL_RING_CAPACITY);
    pid_t pid = fork();
    if (pid == 0) {
        struct pl_channel own, peer;
        make_pair(&own, &peer, PL_RING_CAPACITY);
        CHECK(own.window != server.window);
        pl_channel_detach(&server);
        own.ring[0][0] = 3;
        CHECK_INT(peer.ring[0][0], 3);
        CHECK_INT(client.ring[0][0], 0);
        pl_channel_detach(&own);
        pl_channel_detach(&peer);
        pl_channel_detach(&client);
        _exit(0);
    }
    CHECK_INT(test_wait_child(pid), 0);
    server.ring[0][0] = 5;
    CHECK_INT(client.ring[0][0], 5);
    struct pl_channel third;
    int fd;
    CHECK_INT(pl_channel_create(&third, PL_RING_CAPACITY, &fd), 0);
    CHECK(third.window == server.window);
    close(fd);
    pl_channel_detach(&third);
    pl_channel_detach(&server);
    pl_channel_detach(&client);
}

static long address_space_kib(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    CHECK(file != NULL && fscanf(file, "%ld", &pages) == 1);
    fclose(file);
    return pages * (long)pl_page_size() / 1024;
}

TEST(windows_are_given_back_with_their_last_channel)
{
    long before = address_space_kib();
    for (int i = 0; i < 200; i++) {
        struct pl_channel server, client;
        make_pair(&server, &client, i % 2 == 0 ? PL_RING_CAPACITY : 1 << 20);
        pl_channel_detach(&server);
        pl_channel_detach(&client);
    }
    CHECK(address_space_kib() - before < 100 * 1024); /* a window each would be 600 MiB */
}

static _Atomic bool over;

static void *keep_busy(void *context)
{
    while (!over) {
        struct pl_channel channel;
        int fd;
        CHECK_INT(pl_channel_create(&channel, *(uint32_t *)context, &fd), 0);
        close(fd);
        pl_channel_detach(&channel);
    }
    return NULL;
}

TEST(a_child_forked_amid_other_threads_work_is_not_stuck)
{
    struct pl_channel server, client;
    uint32_t capacity = 1 << 20; /* a window each: the lock is held while the kernel makes it */
    pthread_t threads[2];
    make_pair(&server, &client, PL_RING_CAPACITY);
    for (int i = 0; i < 2; i++) CHECK_INT(pthread_create(&threads[i], NULL, keep_busy, &capacity), 0);
    for (int i = 0; i < 100; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            alarm(20);
            pl_channel_detach(&server);
            pl_channel_detach(&client);
            make_pair(&server, &client, PL_RING_CAPACITY);
            _exit(0);
        }
        CHECK_INT(test_wait_child(pid), 0);
    }
    over = true;
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    pl_channel_detach(&server);
    pl_channel_detach(&client);
}

static void *come_and_go(void *context)
{
    unsigned seed = (unsigned)(uintptr_t)context;
    for (int i = 0; i < 200; i++) {
        struct pl_channel channel;
        int fd;
        uint32_t capacity = (uint32_t)pl_page_size() << (rand_r(&seed) % 4);
        CHECK_INT(pl_channel_create(&channel, capacity, &fd), 0);
        close(fd);
        CHECK_INT(channel.ring[0][0], 0);
        channel.ring[0][0] = 1;
        pl_channel_detach(&channel);
    }
    return NULL;
}

TEST(threads_make_and_drop_channels_at_once)
{
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++) CHECK_INT(pthread_create(&threads[i], NULL, come_and_go, (void *)(i + 1)), 0);
    for (size_t i = 0; i < 4; i++) pthread_join(threads[i], NULL);
}
