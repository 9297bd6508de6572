/* memory: see memory.h. Constants that older C libraries lack are defined here. */
#include "shm/memory.h"

#include "base/error.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

int pl_memfd_create(const char *name, uint64_t size, int *ret_fd)
{
    PL_AUTO_CLOSE int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    /* Kernels before 6.3 don't know NOEXEC_SEAL; nothing depends on it. */
    if (fd < 0 && errno == EINVAL) fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return pl_error(-errno, "memfd_create of shared memory: %s", pl_error_word(errno));
    /* 0600: no other uid reopens it through /proc. */
    if (ftruncate(fd, (off_t)size) != 0 || fchmod(fd, 0600) != 0)
        return pl_error(-errno, "shared memory of %llu bytes: %s", (unsigned long long)size, pl_error_word(errno));
    *ret_fd = fd;
    fd = -1;
    return 0;
}

int pl_memfd_seal(int fd, int seals)
{
    if (fcntl(fd, F_ADD_SEALS, seals) != 0)
        return pl_error(-errno, "sealing shared memory (seals 0x%x): %s", (unsigned)seals, pl_error_word(errno));
    return 0;
}

int pl_memfd_seal_one_writer(int fd)
{
    int r = pl_memfd_seal(fd, PL_MEMFD_SEALS | F_SEAL_FUTURE_WRITE);
    if (r == -EINVAL) r = pl_memfd_seal(fd, PL_MEMFD_SEALS);
    if (r == 0 && fchmod(fd, 0400) != 0) r = pl_error(-errno, "shared memory: chmod: %s", pl_error_word(errno));
    return r;
}

/* Mapped first and sealed then: FUTURE_WRITE spares only mappings that exist. */
int pl_memfd_create_one_writer(const char *name, size_t size, uint8_t **ret_data, int *ret_fd)
{
    PL_AUTO_CLOSE int fd = -1;
    int r = pl_memfd_create(name, size, &fd);
    if (r < 0) return r;
    uint8_t *data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED)
        return pl_error(-errno, "mapping shared memory of %zu bytes: %s", size, pl_error_word(errno));
    r = pl_memfd_seal_one_writer(fd);
    if (r < 0) {
        munmap(data, size);
        return r;
    }
    *ret_data = data;
    *ret_fd = fd;
    fd = -1;
    return 0;
}

int pl_memfd_check(int fd, uint64_t size, int seals)
{
    struct statfs filesystem;
    struct stat status;
    if (fstatfs(fd, &filesystem) != 0 || fstat(fd, &status) != 0)
        return pl_error(-EPROTO, "shared memory from the peer: its descriptor cannot be examined: %s",
                        pl_error_word(errno));
    /* A hugetlb memfd passes every seal check and then faults with SIGBUS: the file system decides. */
    if (filesystem.f_type != TMPFS_MAGIC || !S_ISREG(status.st_mode))
        return pl_error(-EPROTO, "shared memory from the peer: not a memfd on tmpfs (file system 0x%llx)",
                        (unsigned long long)filesystem.f_type);
    int present = fcntl(fd, F_GET_SEALS);
    if (present < 0 || (present & seals) != seals)
        return pl_error(-EPROTO, "shared memory from the peer: seals 0x%x where 0x%x are needed",
                        present < 0 ? 0U : (unsigned)present, (unsigned)seals);
    if (status.st_size < 0 || (uint64_t)status.st_size != size)
        return pl_error(-EPROTO, "shared memory from the peer: %lld bytes where %llu were announced",
                        (long long)status.st_size, (unsigned long long)size);
    return 0;
}

size_t pl_page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static void touch(uint8_t *memory, size_t size, int write)
{
    size_t page = pl_page_size();
    for (size_t at = 0; at < size; at += page) {
        /* Adding nothing is a write that harms no peer. Relaxed: it carries no news. */
        if (write) atomic_fetch_or_explicit((_Atomic uint8_t *)(memory + at), 0, memory_order_relaxed);
        else (void)*(volatile uint8_t *)(memory + at);
    }
}

int pl_memory_populate(void *address, size_t size, int write)
{
    if (size == 0) return 0;
    while (madvise(address, size, write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) != 0) {
        if (errno == EINTR) continue;
        if (errno == EINVAL) {
            touch(address, size, write);
            return 0;
        }
        /* EFAULT is how a full tmpfs or memory cgroup shows; it would have been SIGBUS. */
        return pl_error(-ENOMEM, "shared memory: no pages for %zu bytes (%s); free memory or raise the memory limit",
                        size, pl_error_word(errno));
    }
    return 0;
}

int pl_memory_populate_up_to(void *data, size_t capacity, size_t *populated, size_t size, int write)
{
    enum { STEP = 1 << 16 };
    if (size <= *populated) return 0;
    size_t end = (size + STEP - 1) & ~(size_t)(STEP - 1);
    if (end > capacity) end = capacity;
    int r = pl_memory_populate((uint8_t *)data + *populated, end - *populated, write);
    if (r == 0) *populated = end;
    return r;
}
