/* bench_measure: clocks, counters and statistics of `plait bench`.
 *
 * Counters are read from outside, out of /proc, so that a raw primitive and a library that
 * never returns from its run function are counted alike.
 */
#include "bench.h"
#include "clock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

uint64_t bench_now(void)
{
    return (uint64_t)now_ns();
}

/* The sequence number stands at both ends and in each page, so that a stale, shifted or
 * truncated message shows; the rest of the body was filled once and needs no rewriting. */
void bench_fill(void *body, size_t size, uint64_t sequence)
{
    unsigned char *bytes = body;

    if (size < sizeof(sequence)) {
        memset(bytes, (int)(sequence & 0xff), size);
        return;
    }
    for (size_t at = 0; at + sizeof(sequence) <= size; at += 4096) memcpy(bytes + at, &sequence, sizeof(sequence));
    memcpy(bytes + size - sizeof(sequence), &sequence, sizeof(sequence));
}

int bench_compare_bytes(const void *a, const void *b, size_t size)
{
    return size > 0 && memcmp(a, b, size) != 0;
}

int bench_samples_init(struct bench_samples *samples, size_t room)
{
    float *us = malloc(room * sizeof(*us));

    if (!us) return -ENOMEM;
    memset(us, 0xff, room * sizeof(*us)); /* a first touch costs 10 us: not while the clock runs */
    *samples = (struct bench_samples){ .us = us, .room = room };
    return 0;
}

void bench_samples_deinit(struct bench_samples *samples)
{
    free(samples->us);
    *samples = (struct bench_samples){ 0 };
}

static int by_float(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

static int by_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

void bench_samples_summarise(struct bench_samples *samples, struct bench_round *round)
{
    size_t n = samples->count;

    if (n == 0) return;
    qsort(samples->us, n, sizeof(*samples->us), by_float);
    round->p50 = (double)samples->us[n / 2];
    round->p90 = (double)samples->us[n * 9 / 10];
    round->p99 = (double)samples->us[n * 99 / 100];
    round->max = (double)samples->us[n - 1];
}

struct bench_spread bench_spread_of(const double *values, size_t count)
{
    double sorted[64];
    struct bench_spread spread;

    if (count > 64) count = 64;
    memcpy(sorted, values, count * sizeof(*sorted));
    qsort(sorted, count, sizeof(*sorted), by_double);
    spread.median = count % 2 ? sorted[count / 2] : (sorted[count / 2 - 1] + sorted[count / 2]) / 2;
    spread.low = sorted[0];
    spread.high = sorted[count - 1];
    return spread;
}

/* ---- /proc ------------------------------------------------------------------------------ */

static int read_small_file(const char *path, char *buffer, size_t room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0) return -errno;
    n = read(fd, buffer, room - 1);
    close(fd);
    if (n < 0) return -EIO;
    buffer[n] = '\0';
    return 0;
}

static uint64_t number_after(const char *text, const char *label)
{
    const char *at = strstr(text, label);

    return at ? strtoull(at + strlen(label), NULL, 10) : 0;
}

int bench_switches_of(pid_t pid, struct bench_switches *ret_switches)
{
    char path[sizeof("/proc//task//status") + 11 + 256], text[4096];
    struct bench_switches sum = { 0 };
    struct dirent *entry;
    DIR *tasks;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    tasks = opendir(path);
    if (!tasks) return -errno;
    while ((entry = readdir(tasks)) != NULL) {
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof(path), "/proc/%d/task/%s/status", (int)pid, entry->d_name);
        if (read_small_file(path, text, sizeof(text)) < 0) continue; /* the thread has just ended */
        sum.voluntary += number_after(text, "\nvoluntary_ctxt_switches:");
        sum.involuntary += number_after(text, "\nnonvoluntary_ctxt_switches:");
    }
    closedir(tasks);
    *ret_switches = sum;
    return 0;
}

uint64_t bench_faults_of(pid_t pid)
{
    char path[32], text[1024];
    unsigned long long minor = 0, major = 0;
    const char *rest;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (read_small_file(path, text, sizeof(text)) < 0) return 0;
    rest = strrchr(text, ')'); /* the name may hold anything */
    if (rest) (void)sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %llu %*u %llu", &minor, &major);
    return minor + major;
}

/* Everything that is not free and not page cache of files: process memory, shared memory,
 * page tables, slabs (sockets, descriptors, inodes). Of the whole machine, hence the need for
 * a quiet one and many connections. */
uint64_t bench_memory_used(void)
{
    char text[8192];

    if (read_small_file("/proc/meminfo", text, sizeof(text)) < 0) return 0;
    return 1024 * (number_after(text, "MemTotal:") - number_after(text, "\nMemFree:") -
                   number_after(text, "\nBuffers:") - number_after(text, "\nCached:") + number_after(text, "\nShmem:"));
}

/* ---- system calls ------------------------------------------------------------------------- */

int bench_syscalls_open(pid_t pid)
{
    static const char *const places[] = {
        "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id",
        "/sys/kernel/debug/tracing/events/raw_syscalls/sys_enter/id",
    };
    struct perf_event_attr attr = { .type = PERF_TYPE_TRACEPOINT, .size = sizeof(attr), .inherit = 1 };
    char text[32];
    long fd;
    int r;

    r = read_small_file(places[0], text, sizeof(text));
    if (r < 0) r = read_small_file(places[1], text, sizeof(text));
    if (r < 0) return r;
    attr.config = strtoull(text, NULL, 10);
    fd = syscall(SYS_perf_event_open, &attr, pid, -1, -1, PERF_FLAG_FD_CLOEXEC);
    return fd < 0 ? -errno : (int)fd;
}

uint64_t bench_syscalls_read(int fd)
{
    uint64_t count = 0;

    return fd >= 0 && read(fd, &count, sizeof(count)) == (ssize_t)sizeof(count) ? count : 0;
}
