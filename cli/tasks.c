/* tasks: two looks at /proc/PID/task, an interval apart: the difference of the CPU times is what each uses now. */
#include "tasks.h"
#include "clock.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct list {
    struct task *tasks;
    size_t count, room;
};

/* /proc/PID/task/TID/NAME into TEXT; false if it can't be read. */
static bool read_file(int folder, int32_t tid, const char *name, char *text, size_t size)
{
    char path[64];
    ssize_t n;
    int fd;

    snprintf(path, sizeof(path), "%d/%s", (int)tid, name);
    fd = openat(folder, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    n = read(fd, text, size - 1);
    close(fd);
    if (n < 0) return false;
    text[n] = 0;
    return true;
}

/* The fields of "stat" behind the name, which may hold blanks and brackets: state is field 3 of proc(5). */
static bool parse_stat(const char *text, struct task *task)
{
    const char *name = strchr(text, '('), *end = strrchr(text, ')');
    unsigned long long user, system, ticks = (unsigned long long)sysconf(_SC_CLK_TCK);

    if (!name || !end || end < name || end[1] != ' ') return false;
    snprintf(task->name, sizeof(task->name), "%.*s", (int)(end - name - 1), name + 1);
    if (sscanf(end + 2,
               "%c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu %llu %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
               "%*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %d",
               &task->state, &user, &system, &task->cpu) != 4)
        return false;
    task->cpu_ns = (user + system) * (1000000000 / (ticks ? ticks : 100));
    return true;
}

static bool read_task(int folder, int32_t tid, struct task *task)
{
    char text[1024];
    unsigned long long ns;

    *task = (struct task){ .tid = tid };
    if (!read_file(folder, tid, "stat", text, sizeof(text)) || !parse_stat(text, task)) return false;
    /* In nanoseconds, where the kernel counts them: "stat" has hundredths of a second. */
    if (read_file(folder, tid, "schedstat", text, sizeof(text)) && sscanf(text, "%llu", &ns) == 1 && ns > 0)
        task->cpu_ns = ns;
    if (read_file(folder, tid, "wchan", text, sizeof(text)) && strcmp(text, "0") != 0)
        snprintf(task->wait, sizeof(task->wait), "%s", text);
    return true;
}

static int compare(const void *a, const void *b)
{
    const struct task *left = a, *right = b;

    return (left->tid > right->tid) - (left->tid < right->tid);
}

static int look(int folder, struct list *list)
{
    int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = fd < 0 ? NULL : fdopendir(fd);
    struct task task;

    if (!listing) {
        int r = -errno;
        if (fd >= 0) close(fd);
        return r;
    }
    for (struct dirent *entry; (entry = readdir(listing));) {
        int32_t tid = (int32_t)strtol(entry->d_name, NULL, 10);
        if (tid <= 0 || !read_task(folder, tid, &task)) continue;
        if (list->count == list->room) {
            size_t room = list->room ? list->room * 2 : 16;
            struct task *more = realloc(list->tasks, room * sizeof(*more));
            if (!more) {
                closedir(listing);
                return -ENOMEM;
            }
            list->tasks = more;
            list->room = room;
        }
        list->tasks[list->count++] = task;
    }
    closedir(listing);
    if (list->count > 0) qsort(list->tasks, list->count, sizeof(*list->tasks), compare);
    return 0;
}

static void note_shares(struct list *now, const struct list *before, uint64_t span_ns)
{
    for (size_t i = 0; i < now->count && span_ns > 0; i++) {
        struct task *task = &now->tasks[i];
        const struct task *old =
            before->count ? bsearch(task, before->tasks, before->count, sizeof(*task), compare) : NULL;
        uint64_t used = task->cpu_ns - (old ? old->cpu_ns : 0);
        if (old && old->cpu_ns > task->cpu_ns) used = 0; /* another thread by now */
        task->percent = 100.0 * (double)used / (double)span_ns;
        if (task->percent > 100) task->percent = 100; /* the two clocks aren't read at the same moment */
    }
}

int tasks_read(int32_t pid, int64_t interval, struct task **ret_tasks, size_t *ret_count)
{
    struct list before = { NULL, 0, 0 }, now = { NULL, 0, 0 };
    char path[32];
    uint64_t start;
    int folder, r;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return errno == ENOENT ? -ESRCH : -errno;
    start = (uint64_t)now_ns();
    r = look(folder, &before);
    (void)poll(NULL, 0, interval > 0 && interval < 60000 ? (int)interval : 0);
    if (r == 0) r = look(folder, &now);
    close(folder);
    if (r == -ENOENT || (r == 0 && now.count == 0)) r = -ESRCH; /* it ended meanwhile */
    if (r == 0) {
        note_shares(&now, &before, (uint64_t)now_ns() - start);
        *ret_tasks = now.tasks;
        *ret_count = now.count;
        now.tasks = NULL;
    }
    free(before.tasks);
    free(now.tasks);
    return r;
}

const char *task_state_name(char state)
{
    switch (state) {
    case 'R': return "running";
    case 'S': return "sleeping";
    case 'D': return "waiting"; /* for a disk, mostly: no signal wakes it */
    case 'T': return "stopped";
    case 't': return "traced";
    case 'Z': return "zombie";
    case 'X': return "dead";
    case 'I': return "idle";
    default: return "?";
    }
}
