/* What the kernel offers and limits. Each feature is tried, not looked up by version: containers and
 * sandboxes forbid what the kernel could do. */
#include "doctor.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define SHM_ROOM 16    /* MiB of /dev/shm below which we warn */
#define FILES_LOW 1024 /* descriptors below which we warn */

static void check_memory(void)
{
    int fd = memfd_create("plait-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING), code = 0;
    long page = sysconf(_SC_PAGESIZE);
    void *memory = MAP_FAILED;

    if (fd < 0 || ftruncate(fd, page) < 0) code = errno;
    if (!code) {
        memory = mmap(NULL, (size_t)page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (memory == MAP_FAILED ||
            fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0)
            code = errno;
    }
    if (code)
        doctor_report(VERDICT_FAIL, "memory", "needs Linux 5.1; in a container, allow memfd_create and fcntl seals",
                      "sealed shared memory doesn't work: %s", strerror(code));
    else if (madvise(memory, (size_t)page, MADV_POPULATE_WRITE) < 0)
        doctor_report(VERDICT_WARN, "memory", "Linux 5.14 or later makes the first messages faster",
                      "sealed shared memory works, but can't be populated ahead: %s", strerror(errno));
    else doctor_report(VERDICT_OK, "memory", NULL, "sealed shared memory works");
    if (memory != MAP_FAILED) munmap(memory, (size_t)page);
    if (fd >= 0) close(fd);
}

static void check_wakeups(void)
{
    int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), pidfd;

    if (event < 0)
        doctor_report(VERDICT_FAIL, "eventfd", "in a container, allow eventfd2; otherwise raise ulimit -n",
                      "eventfd doesn't work: %s", strerror(errno));
    else doctor_report(VERDICT_OK, "eventfd", NULL, "eventfd works");
    if (event >= 0) close(event);
    pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (pidfd < 0)
        doctor_report(VERDICT_WARN, "pidfd", "needs Linux 5.3; in a container, allow pidfd_open",
                      "pidfd_open doesn't work: %s; the death of a peer that forked may be noticed late",
                      strerror(errno));
    else doctor_report(VERDICT_OK, "pidfd", NULL, "pidfd works: the death of a peer is noticed at once");
    if (pidfd >= 0) close(pidfd);
}

static long read_number(const char *path)
{
    char text[32] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

    if (fd >= 0) close(fd);
    return n > 0 ? atol(text) : -1;
}

static void check_inotify(void)
{
    long limit = read_number("/proc/sys/fs/inotify/max_user_instances");
    int fd = inotify_init1(IN_CLOEXEC);

    if (fd < 0 && errno == EMFILE)
        doctor_report(VERDICT_WARN, "inotify", "sysctl fs.inotify.max_user_instances=1024, as root",
                      "all %ld inotify instances of this user are taken: absent names are looked for by polling",
                      limit);
    else if (fd < 0)
        doctor_report(VERDICT_WARN, "inotify", "absent names are looked for by polling, which is slower",
                      "inotify doesn't work: %s", strerror(errno));
    else if (limit > 0 && limit < 64)
        doctor_report(VERDICT_WARN, "inotify", "sysctl fs.inotify.max_user_instances=1024, as root",
                      "only %ld instances for each user; a process that waits for a name takes one", limit);
    else doctor_report(VERDICT_OK, "inotify", NULL, "%ld instances for each user", limit);
    if (fd >= 0) close(fd);
}

static void check_shm(void)
{
    struct statfs fs;
    long long room;

    if (statfs("/dev/shm", &fs) < 0 || fs.f_type != TMPFS_MAGIC) {
        doctor_report(VERDICT_WARN, "/dev/shm", "mount -t tmpfs tmpfs /dev/shm",
                      "is no tmpfs: where the runtime directory is none either, plait ls can't show figures");
        return;
    }
    room = (long long)fs.f_bavail * (long long)fs.f_bsize / (1 << 20);
    if (access("/dev/shm", W_OK) < 0)
        doctor_report(VERDICT_WARN, "/dev/shm", "chmod 1777 /dev/shm, as root", "can't be written: %s",
                      strerror(errno));
    else if (room < SHM_ROOM)
        doctor_report(VERDICT_WARN, "/dev/shm", "remove files there, or mount -o remount,size=256M /dev/shm",
                      "only %lld MiB are free", room);
    else doctor_report(VERDICT_OK, "/dev/shm", NULL, "tmpfs, %lld MiB free", room);
}

static void check_limits(void)
{
    struct rlimit limit;
    cpu_set_t set;
    int cpus;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < FILES_LOW)
        doctor_report(VERDICT_WARN, "descriptors", "ulimit -n 4096", "only %llu; a connection takes up to 5",
                      (unsigned long long)limit.rlim_cur);
    else
        doctor_report(VERDICT_OK, "descriptors", NULL, "%llu, enough for about %llu connections",
                      (unsigned long long)limit.rlim_cur, (unsigned long long)limit.rlim_cur / 5);
    CPU_ZERO(&set);
    cpus = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
    if (cpus == 1)
        doctor_report(VERDICT_WARN, "CPUs", "give this process a second CPU, if low latency matters",
                      "1: nothing spins, every call sleeps and wakes");
    else doctor_report(VERDICT_OK, "CPUs", NULL, "%d", cpus);
}

void doctor_kernel(void)
{
    struct utsname name;

    uname(&name);
    doctor_report(VERDICT_OK, "kernel", NULL, "%s %s, %s", name.sysname, name.release, name.machine);
    check_memory();
    check_wakeups();
    check_inotify();
    check_shm();
    check_limits();
}
