/* Two threads count to a million each, in one variable: wrong, with a lock, and with an atomic operation. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

enum { TIMES = 1000000 };

static volatile long plain; /* volatile: or the compiler would add a million at once, and hide the race */
static long guarded;
static atomic_long whole;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t start;

static void *count_plain(void *unused)
{
    pthread_barrier_wait(&start);
    for (int i = 0; i < TIMES; i++) plain = plain + 1; /* load, add, store: another thread fits in between */
    return unused;
}

static void *count_guarded(void *unused)
{
    pthread_barrier_wait(&start);
    for (int i = 0; i < TIMES; i++) {
        pthread_mutex_lock(&lock);
        guarded++;
        pthread_mutex_unlock(&lock);
    }
    return unused;
}

static void *count_atomic(void *unused)
{
    pthread_barrier_wait(&start);
    for (int i = 0; i < TIMES; i++) atomic_fetch_add(&whole, 1);
    return unused;
}

static double run(void *(*work)(void *))
{
    struct timespec begin, end;
    pthread_t threads[2];
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, work, NULL);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    clock_gettime(CLOCK_MONOTONIC, &end);
    return (double)(end.tv_sec - begin.tv_sec) * 1e3 + (double)(end.tv_nsec - begin.tv_nsec) / 1e6;
}

int main(void)
{
    double ms;
    int tries = 0;
    pthread_barrier_init(&start, NULL, 2);
    do {
        plain = 0;
        ms = run(count_plain);
    } while (plain == 2 * TIMES && ++tries < 100); /* a race may go well, which makes it worse */
    printf("plain:  %s in %.1f ms\n", plain == 2 * TIMES ? "right, by luck" : "WRONG, some were lost", ms);
    ms = run(count_guarded);
    printf("mutex:  %ld in %.1f ms\n", guarded, ms);
    ms = run(count_atomic);
    printf("atomic: %ld in %.1f ms\n", atomic_load(&whole), ms);
    return 0;
}
