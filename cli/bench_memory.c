/* bench_memory: how much memory a set of processes and the kernel on their behalf use.
 *
 * Best told by a memory control group of their own, which counts their pages, shared memory, page
 * tables and the kernel's objects, and nobody else's. Making one takes root; without it the whole
 * machine is weighed, which is right only while nobody else does anything.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
    const char *base, *usage;
} kinds[] = {
    { "/sys/fs/cgroup/memory", "memory.usage_in_bytes" }, /* version 1 */
    { "/sys/fs/cgroup", "memory.current" },
};

static int write_pid(const char *directory, pid_t pid)
{
    char path[PATH_MAX + 32], text[16];
    int fd, n = snprintf(text, sizeof(text), "%d", (int)pid);
    ssize_t written;

    snprintf(path, sizeof(path), "%s/cgroup.procs", directory);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -errno;
    written = write(fd, text, (size_t)n);
    close(fd);
    return written == n ? 0 : -EIO;
}

bool bench_scale_open(struct bench_scale *scale, const pid_t *pids, unsigned count)
{
    scale->usage_fd = -1;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds) && scale->usage_fd < 0; i++) {
        char path[PATH_MAX];
        int r = 0;
        snprintf(scale->base, sizeof(scale->base), "%s", kinds[i].base);
        snprintf(scale->group, sizeof(scale->group), "%s/plait-bench-%d", kinds[i].base, (int)getpid());
        if (mkdir(scale->group, 0700) < 0) continue;
        snprintf(path, sizeof(path), "%s/%s", scale->group, kinds[i].usage);
        scale->usage_fd = open(path, O_RDONLY | O_CLOEXEC);
        for (unsigned p = 0; p < count && r == 0; p++) r = write_pid(scale->group, pids[p]);
        if (r < 0 || scale->usage_fd < 0) bench_scale_close(scale, pids, count);
    }
    return scale->usage_fd >= 0;
}

/* The processes leave first: a group that holds some can't be removed. */
void bench_scale_close(struct bench_scale *scale, const pid_t *pids, unsigned count)
{
    if (scale->usage_fd >= 0) close(scale->usage_fd);
    scale->usage_fd = -1;
    for (unsigned p = 0; p < count; p++) (void)write_pid(scale->base, pids[p]);
    for (int tries = 0; rmdir(scale->group) < 0 && errno == EBUSY && tries < 100; tries++)
        usleep(10000); /* those who have just died are leaving still */
}

uint64_t bench_scale_read(const struct bench_scale *scale)
{
    char text[32];
    ssize_t n;

    if (scale->usage_fd < 0) return bench_memory_used();
    n = pread(scale->usage_fd, text, sizeof(text) - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    return strtoull(text, NULL, 10);
}
