/* What a thread and a process cost: to create and join one, and in memory while it is there. Times are medians.
 *
 * costs [COUNT [MEGABYTES]]: how many, and how much memory the program has itself. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 1000 };

static pthread_barrier_t here, over;
static pthread_t threads[MOST];
static pid_t children[MOST];
static double times[MOST];
static int count = 100;

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static long field(int pid, const char *name, const char *format)
{
    char path[64], line[256];
    long kib = 0;
    snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, format, &kib) == 1) break;
    if (file) fclose(file);
    return kib;
}

/* KiB that a process has: pages that several share count in parts, and the kernel's tables of pages too. */
static long memory(int pid)
{
    return field(pid, "smaps_rollup", "Pss: %ld") + field(pid, "status", "VmPTE: %ld");
}

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static void *nothing(void *unused)
{
    return unused;
}

static void *stay(void *unused)
{
    pthread_barrier_wait(&here);
    pthread_barrier_wait(&over);
    return unused;
}

static void must(int wrong, const char *what)
{
    if (!wrong) return;
    perror(what);
    exit(1);
}

static void print(const char *name, long kib)
{
    qsort(times, (size_t)count, sizeof(times[0]), compare);
    printf("%-8s created and joined in %8.1f us, has %6.1f KiB\n", name, times[count / 2], (double)kib / count);
}

static void measure_threads(void)
{
    for (int i = 0; i < count; i++) {
        double begun = now_us();
        must(pthread_create(&threads[0], NULL, nothing, NULL) != 0, "pthread_create");
        pthread_join(threads[0], NULL);
        times[i] = now_us() - begun;
    }

    long before = memory(getpid());
    pthread_barrier_init(&here, NULL, (unsigned)count + 1);
    pthread_barrier_init(&over, NULL, (unsigned)count + 1);
    for (int i = 0; i < count; i++) must(pthread_create(&threads[i], NULL, stay, NULL) != 0, "pthread_create");
    pthread_barrier_wait(&here); /* all of them are there */
    long after = memory(getpid());
    pthread_barrier_wait(&over);
    for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
    print("thread", after - before);
}

static void measure_processes(void)
{
    for (int i = 0; i < count; i++) {
        double begun = now_us();
        pid_t child = fork();
        must(child < 0, "fork");
        if (child == 0) _exit(0);
        waitpid(child, NULL, 0);
        times[i] = now_us() - begun;
    }

    int ready[2];
    char byte;
    long before = memory(getpid());
    must(pipe(ready) < 0, "pipe");
    for (int i = 0; i < count; i++) {
        children[i] = fork();
        must(children[i] < 0, "fork");
        if (children[i] == 0) {
            if (write(ready[1], "x", 1) == 1) pause();
            _exit(0);
        }
    }
    for (int i = 0; i < count; i++) must(read(ready[0], &byte, 1) != 1, "read");
    long after = memory(getpid());
    for (int i = 0; i < count; i++) after += memory(children[i]);
    for (int i = 0; i < count; i++) kill(children[i], SIGKILL);
    for (int i = 0; i < count; i++) waitpid(children[i], NULL, 0);
    print("process", after - before);
}

int main(int argc, char **argv)
{
    long megabytes = argc > 2 ? atol(argv[2]) : 0;
    if (argc > 1) count = atoi(argv[1]);
    if (count < 1 || count > MOST || megabytes < 0) {
        fprintf(stderr, "usage: costs [COUNT, to %d [MEGABYTES]]\n", MOST);
        return 2;
    }
    size_t size = (size_t)megabytes << 20;
    volatile char *ballast = malloc(size + 1); /* volatile: or the compiler would see that nobody reads it */
    must(ballast == NULL, "malloc");
    for (size_t i = 0; i < size; i += 4096) ballast[i] = 'x';
    measure_threads();
    measure_processes();
    free((void *)ballast);
    return 0;
}
