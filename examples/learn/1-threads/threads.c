/* A main thread and two workers: who they are, seen from inside; and from outside, by a command.
 *
 * threads [COMMAND]: while all three are there, the shell runs the command, in which $PID is our process id. */
#define _GNU_SOURCE
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static pthread_barrier_t met;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t next = PTHREAD_COND_INITIALIZER;
static int turn; /* who may speak: 0 main, 1 first, 2 second */

static void tell(const char *who)
{
    printf("%s: ident %#lx, native id %d\n", who, (unsigned long)pthread_self(), (int)gettid());
}

static void *work(void *argument)
{
    const int *number = argument;
    pthread_mutex_lock(&lock);
    while (turn != *number) pthread_cond_wait(&next, &lock);
    tell(*number == 1 ? "first" : "second");
    turn++;
    pthread_cond_broadcast(&next);
    pthread_mutex_unlock(&lock);
    pthread_barrier_wait(&met); /* both are here, and the main thread may look */
    pthread_barrier_wait(&met); /* until it has */
    return NULL;
}

static int count_threads(void)
{
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *entry; tasks && (entry = readdir(tasks));) count += entry->d_name[0] != '.';
    if (tasks) closedir(tasks);
    return count;
}

static void look(const char *command)
{
    char pid[16];
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    setenv("PID", pid, 1);
    fflush(stdout); /* what we said comes before what the command says */
    if (system(command) != 0) fprintf(stderr, "threads: %s failed\n", command);
}

int main(int argc, char **argv)
{
    static const int numbers[] = { 1, 2 };
    static const char *const names[] = { "first", "second" };
    pthread_t workers[2];
    pthread_barrier_init(&met, NULL, 3);
    for (int i = 0; i < 2; i++) {
        if (pthread_create(&workers[i], NULL, work, (void *)&numbers[i]) != 0) return 1;
        pthread_setname_np(workers[i], names[i]);
    }
    tell("main");
    printf("the main thread's native id is the process's id: %s\n", gettid() == getpid() ? "yes" : "no");
    pthread_mutex_lock(&lock);
    turn = 1;
    pthread_cond_broadcast(&next);
    pthread_mutex_unlock(&lock);
    pthread_barrier_wait(&met);
    printf("the kernel shows %d threads\n", count_threads());
    if (argc > 1) look(argv[1]);
    pthread_barrier_wait(&met);
    for (int i = 0; i < 2; i++) pthread_join(workers[i], NULL);
    while (count_threads() > 1) usleep(1000); /* they are done; the kernel takes a moment to clear away */
    printf("joined: %d thread\n", count_threads());
    return 0;
}
