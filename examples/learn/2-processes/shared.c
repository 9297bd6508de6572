/* A global that two threads add to, and two processes: who sees what. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static atomic_int plain;
static atomic_int *shared; /* lies in memory that the children share */

static void *add(void *unused)
{
    atomic_fetch_add(&plain, 1);
    atomic_fetch_add(shared, 1);
    return unused;
}

static void add_in_threads(void)
{
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, add, NULL);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
}

static void add_in_processes(void)
{
    for (int i = 0; i < 2; i++) {
        fflush(stdout);
        if (fork() == 0) {
            add(NULL);
            printf("  a child sees %d, at address %p\n", plain, (void *)&plain);
            fflush(stdout);
            _exit(0);
        }
        wait(NULL); /* one after the other, so that they don't speak at once */
    }
}

static void run(void (*work)(void), const char *name)
{
    plain = *shared = 0;
    work();
    printf("after two %s: the global is %d, the shared one is %d, at address %p\n", name, plain, *shared,
           (void *)&plain);
}

int main(void)
{
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    run(add_in_threads, "threads");
    run(add_in_processes, "processes");
    return 0;
}
