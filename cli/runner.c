/* runner: a queue, and threads that each drive one child at a time (child.c). */
#include "runner.h"
#include "child.h"
#include "output.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

struct waiting {
    struct waiting *next;
    plait_request *request;
};

struct runner {
    char **command;
    int stop_fd; /* an eventfd: readable, and never read, once everything shall end */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct waiting *head, **tail; /* under lock, as all below */
    bool stopping;
    int idle;
    int thread_count;
    pthread_t threads[RUNNER_COMMANDS_MAX];
};

static bool is_program(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

/* Looks where posix_spawnp() will look, so that a misspelt command is told at once and not to each caller. */
static int check_command(const char *name)
{
    const char *path = getenv("PATH");
    char whole[4096];

    if (strchr(name, '/')) {
        if (is_program(name)) return 0;
        complain("serve: %s: %s (give a program that can be run)", name,
                 access(name, F_OK) == 0 ? "not a program" : strerror(errno));
        return access(name, F_OK) == 0 ? -EACCES : -ENOENT;
    }
    for (path = path ? path : "/bin:/usr/bin"; *name; path += strcspn(path, ":") + 1) {
        size_t size = strcspn(path, ":");
        if (size > 0) snprintf(whole, sizeof(whole), "%.*s/%s", (int)size, path, name);
        else snprintf(whole, sizeof(whole), "./%s", name); /* an empty element is the working directory */
        if (is_program(whole)) return 0;
        if (!path[size]) break;
    }
    complain("serve: %s: no such command in PATH (a pipeline needs a shell: -- sh -c '...')", name);
    return -ENOENT;
}

int runner_open(struct runner **ret_runner, char **command)
{
    struct runner *runner;
    int r = check_command(command[0]);

    if (r < 0) return r;
    runner = calloc(1, sizeof(*runner));
    if (!runner) {
        complain("serve: no memory");
        return -ENOMEM;
    }
    runner->command = command;
    runner->tail = &runner->head;
    pthread_mutex_init(&runner->lock, NULL);
    pthread_cond_init(&runner->changed, NULL);
    runner->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (runner->stop_fd < 0) {
        r = -errno;
        complain("serve: eventfd: %s", strerror(-r));
        runner_close(runner);
        return r;
    }
    *ret_runner = runner;
    return 0;
}

static void *work(void *context)
{
    struct runner *runner = context;

    pthread_setname_np(pthread_self(), "plait/command"); /* and not that of the thread that started it */
    pthread_mutex_lock(&runner->lock);
    for (;;) {
        struct waiting *first = runner->head;
        if (!first) {
            if (runner->stopping) break;
            runner->idle++;
            pthread_cond_wait(&runner->changed, &runner->lock);
            runner->idle--;
            continue;
        }
        runner->head = first->next;
        if (!runner->head) runner->tail = &runner->head;
        if (runner->stopping) {
            plait_request_fail(first->request, 1, "the server is stopping");
        } else {
            pthread_mutex_unlock(&runner->lock);
            child_serve(first->request, runner->command, runner->stop_fd);
            pthread_mutex_lock(&runner->lock);
        }
        free(first);
    }
    pthread_mutex_unlock(&runner->lock);
    return NULL;
}

/* One more thread if nobody is free. With none at all, false. All signals are blocked in it: they belong to
 * the server, and the children get a clean mask. */
static bool ensure_thread(struct runner *runner)
{
    sigset_t all, before;

    if (runner->idle > 0 || runner->thread_count == RUNNER_COMMANDS_MAX) return true;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&runner->threads[runner->thread_count], NULL, work, runner) == 0) runner->thread_count++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return runner->thread_count > 0;
}

void runner_handle(plait_request *request, void *context)
{
    struct runner *runner = context;
    struct waiting *entry = malloc(sizeof(*entry));
    bool queued = false;

    if (!entry || plait_request_defer(request, &entry->request) < 0) {
        plait_request_fail(request, 1, "plait serve: no memory for another request");
        free(entry);
        return;
    }
    entry->next = NULL;
    pthread_mutex_lock(&runner->lock);
    if (!runner->stopping && ensure_thread(runner)) {
        *runner->tail = entry;
        runner->tail = &entry->next;
        queued = true;
        pthread_cond_signal(&runner->changed);
    }
    pthread_mutex_unlock(&runner->lock);
    if (queued) return;
    plait_request_fail(entry->request, 1, "plait serve: stopping, or no thread to run a command");
    free(entry);
}

void runner_close(struct runner *runner)
{
    if (!runner) return;
    pthread_mutex_lock(&runner->lock);
    runner->stopping = true;
    if (runner->stop_fd >= 0) (void)eventfd_write(runner->stop_fd, 1);
    pthread_cond_broadcast(&runner->changed);
    pthread_mutex_unlock(&runner->lock);
    for (int i = 0; i < runner->thread_count; i++) pthread_join(runner->threads[i], NULL);
    if (runner->stop_fd >= 0) close(runner->stop_fd);
    pthread_cond_destroy(&runner->changed);
    pthread_mutex_destroy(&runner->lock);
    free(runner);
}
