/* The checks of foreign memfds, and populating. */
#include "harness/test.h"

#include "base/error.h"
#include "shm/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SIZE = 1 << 16, SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };

static int make(uint64_t size, int seals)
{
    int fd = -1;
    CHECK_INT(pl_memfd_create("test", size, &fd), 0);
    if (seals != 0) CHECK_INT(pl_memfd_seal(fd, seals), 0);
    return fd;
}

static void refused(int fd, uint64_t size, const char *why)
{
    CHECK_INT(pl_memfd_check(fd, size, SEALS), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), why);
    close(fd);
}

TEST(a_sealed_memfd_of_the_announced_size_is_accepted)
{
    int fd = make(SIZE, SEALS);
    CHECK_INT(pl_memfd_check(fd, SIZE, SEALS), 0);
    CHECK_INT(pl_memfd_check(fd, SIZE, F_SEAL_SHRINK), 0);
    close(fd);
}

TEST(a_memfd_is_private_to_its_uid_and_closes_on_exec)
{
    int fd = make(SIZE, 0);
    struct stat status;
    CHECK_INT(fstat(fd, &status), 0);
    CHECK_INT(status.st_mode & 07777, 0600);
    CHECK_INT(fcntl(fd, F_GETFD), FD_CLOEXEC);
    close(fd);
}

TEST(missing_seals_are_refused)
{
    refused(make(SIZE, 0), SIZE, "seals");
    refused(make(SIZE, F_SEAL_GROW | F_SEAL_SEAL), SIZE, "seals");
    refused(make(SIZE, F_SEAL_SHRINK | F_SEAL_SEAL), SIZE, "seals");
    refused(make(SIZE, F_SEAL_SHRINK | F_SEAL_GROW), SIZE, "seals");
}

TEST(another_size_than_announced_is_refused)
{
    refused(make(SIZE - 4096, SEALS), SIZE, "61440 bytes where 65536");
    refused(make(SIZE + 4096, SEALS), SIZE, "69632 bytes where 65536");
    refused(make(0, SEALS), SIZE, "0 bytes where");
    refused(make(SIZE, SEALS), UINT64_MAX, "were announced");
}

TEST(a_file_on_disk_is_refused)
{
    char path[512];
    snprintf(path, sizeof path, "%s/file", test_directory());
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    CHECK_INT(ftruncate(fd, SIZE), 0);
    refused(fd, SIZE, "peer");
}

TEST(a_file_on_tmpfs_that_is_no_memfd_is_refused)
{
    int fd = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) SKIP("no temporary files in /dev/shm");
    CHECK_INT(ftruncate(fd, SIZE), 0);
    refused(fd, SIZE, "peer");
}

TEST(pipes_sockets_and_closed_descriptors_are_refused)
{
    int ends[2];
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    refused(ends[0], SIZE, "not a memfd");
    refused(ends[1], SIZE, "not a memfd");
    CHECK_INT(pl_memfd_check(-1, SIZE, SEALS), -EPROTO);
    CHECK_INT(pl_memfd_check(ends[0], SIZE, SEALS), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), "descriptor");
}

TEST(a_hugetlb_memfd_is_refused)
{
    int fd = memfd_create("huge", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);
    if (fd < 0) SKIP("this kernel makes no hugetlb memfd");
    CHECK_INT(ftruncate(fd, 2 << 20), 0);
    CHECK_INT(fcntl(fd, F_ADD_SEALS, SEALS), 0);
    CHECK_INT(pl_memfd_check(fd, 2 << 20, SEALS), -EPROTO);
    CHECK_CONTAINS(pl_error_text(), "not a memfd on tmpfs");
    close(fd);
}

TEST(a_sealed_memfd_cannot_change_its_size)
{
    int fd = make(SIZE, SEALS);
    CHECK_INT(ftruncate(fd, SIZE / 2), -1);
    CHECK_INT(errno, EPERM);
    CHECK_INT(ftruncate(fd, SIZE * 2), -1);
    CHECK_INT(pl_memfd_seal(fd, F_SEAL_WRITE), -EPERM);
    close(fd);
}

static size_t allocated(int fd)
{
    struct stat status;
    CHECK_INT(fstat(fd, &status), 0);
    return (size_t)status.st_blocks * 512;
}

TEST(populating_allocates_exactly_what_was_asked_for)
{
    int fd = make(SIZE, 0);
    size_t page = pl_page_size();
    uint8_t *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(memory != MAP_FAILED);
    CHECK_INT(allocated(fd), 0);
    CHECK_INT(pl_memory_populate(memory, 0, 1), 0);
    CHECK_INT(allocated(fd), 0);
    CHECK_INT(pl_memory_populate(memory, page, 1), 0);
    CHECK_INT(allocated(fd), page);
    CHECK_INT(pl_memory_populate(memory, SIZE, 0), 0);
    CHECK_INT(allocated(fd), SIZE);
    munmap(memory, SIZE);
    close(fd);
}

TEST(populating_keeps_what_is_there)
{
    int fd = make(SIZE, 0);
    uint8_t *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(memory != MAP_FAILED);
    memset(memory, 0x5a, SIZE);
    CHECK_INT(pl_memory_populate(memory, SIZE, 1), 0);
    /* A read-only mapping for writing is EINVAL, as every populate is on an old kernel: touched. */
    CHECK_INT(pl_memory_populate(memory, SIZE, 0), 0);
    for (size_t i = 0; i < SIZE; i++) CHECK_INT(memory[i], 0x5a);
    munmap(memory, SIZE);
    close(fd);
}

TEST(populating_what_lies_beyond_the_file_is_an_error_and_no_signal)
{
    int fd = make(SIZE, 0);
    uint8_t *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(memory != MAP_FAILED);
    CHECK_INT(ftruncate(fd, SIZE / 2), 0);
    CHECK_INT(pl_memory_populate(memory, SIZE, 1), -ENOMEM);
    CHECK_CONTAINS(pl_error_text(), "no pages");
    CHECK_INT(pl_memory_populate(memory, SIZE, 0), -ENOMEM);
    munmap(memory, SIZE);
    close(fd);
}
