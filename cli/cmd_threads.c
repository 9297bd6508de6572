/* plait threads: every thread of a process, and what plait knows of it. */
#include "command.h"
#include "output.h"
#include "tasks.h"
#include <errno.h>
#include <plait/plait.h>
#include <stdlib.h>
#include <string.h>

static bool json;
static int64_t interval = 100;

/* What the status page says of TID; where a thread serves several, the one that it is busy with. */
static const plait_watch_thread *known_thread(const plait_watch *watch, int32_t pid, int32_t tid)
{
    const plait_watch_thread *found = NULL;

    for (size_t i = 0; watch && i < plait_watch_thread_count(watch); i++) {
        const plait_watch_thread *thread = plait_watch_thread_at(watch, i);
        if (thread->pid != pid || thread->tid != tid) continue;
        if (!found || (thread->method && !found->method)) found = thread;
    }
    return found;
}

static void json_thread(int32_t pid, const struct task *task, const plait_watch_thread *known)
{
    json_begin("thread");
    json_integer("pid", pid);
    json_integer("tid", task->tid);
    json_text("name", task->name);
    json_text("state", task_state_name(task->state));
    json_number("cpu_us", task->cpu_ns / 1000);
    json_decimal("cpu_percent", task->percent);
    json_integer("cpu", task->cpu);
    if (task->wait[0]) json_text("waits_in", task->wait);
    if (known) {
        json_text("plait_name", known->name);
        json_text("role", known->role);
        json_number("library_id", known->library_id);
        json_number("handled", known->handled);
        if (known->service[0]) json_text("service", known->service);
        if (known->method) {
            json_text("method", known->method);
            json_number("handling_us", known->handling_us);
        }
    }
    json_end();
}

static void add_span(struct table *table, uint64_t us)
{
    if (us < 10000) table_add(table, "%llu us", (unsigned long long)us);
    else if (us < 10000000) table_add(table, "%llu ms", (unsigned long long)(us / 1000));
    else table_add(table, "%llu s", (unsigned long long)(us / 1000000));
}

static void add_task(struct table *table, const struct task *task, const plait_watch_thread *known)
{
    table_add(table, "%d", task->tid);
    table_add(table, "%s", known ? known->name : task->name);
    table_add(table, "%s", task_state_name(task->state));
    table_add(table, "%.3f s", (double)task->cpu_ns / 1e9);
    table_add(table, "%.1f", task->percent);
    table_add(table, "%d", task->cpu);
    table_add(table, "%s", task->wait[0] ? task->wait : "-");
}

static void add_known(struct table *table, const plait_watch_thread *known)
{
    if (!known) {
        for (int i = 0; i < 4; i++) table_add(table, "-");
        return;
    }
    table_add(table, "0x%llx", (unsigned long long)known->library_id);
    table_add(table, "%llu", (unsigned long long)known->handled);
    if (!known->method) {
        table_add(table, "%s",
                  strcmp(known->role, "serves") == 0 || strcmp(known->role, "pool") == 0 ? "idle" : known->role);
        table_add(table, "-");
        return;
    }
    table_add(table, "%s/%s", known->service, known->method);
    add_span(table, known->handling_us);
}

static void print_tasks(const plait_watch *watch, int32_t pid, const struct task *tasks, size_t count)
{
    struct table table;
    bool plait = false;

    for (size_t i = 0; i < count; i++) plait |= known_thread(watch, pid, tasks[i].tid) != NULL;
    table_init(&table, plait ? ">THREAD|NAME|STATE|>CPU TIME|>CPU %|>CPU|WAITS IN|LIBRARY ID|>HANDLED|HANDLING|>FOR"
                             : ">THREAD|NAME|STATE|>CPU TIME|>CPU %|>CPU|WAITS IN");
    for (size_t i = 0; i < count; i++) {
        const plait_watch_thread *known = known_thread(watch, pid, tasks[i].tid);
        add_task(&table, &tasks[i], known);
        if (plait) add_known(&table, known);
    }
    table_print(&table);
}

/* A supervisor's own threads handle nothing: who looks at them mostly wants those of its workers. */
static void print_workers(const plait_watch *watch, int32_t pid)
{
    bool any = false;

    for (size_t i = 0; watch && i < plait_watch_count(watch); i++) {
        const plait_watch_instance *instance = plait_watch_at(watch, i);
        if (instance->supervisor != pid || instance->worker == 0) continue;
        printf("%s%s worker %u: pid %d", any ? ", " : "\nsupervises ", instance->service, instance->worker,
               (int)instance->pid);
        any = true;
    }
    if (any) printf("\n");
}

static int run(int argc, char **argv)
{
    struct task *tasks = NULL;
    plait_watch *watch = NULL;
    size_t count = 0;
    int64_t pid;
    int r;

    if (argc < 2) return command_usage("threads", "of which process? Give its PID (plait ls shows them)");
    if (argc > 2) return command_usage("threads", "%s: one PID at a time", argv[2]);
    if (!number_parse(argv[1], 1, INT32_MAX, &pid))
        return command_usage("threads", "%s: not a process id (plait ls NAME shows those of a name)", argv[1]);
    r = tasks_read((int32_t)pid, interval, &tasks, &count);
    if (r == -ESRCH) {
        complain("threads %d: no such process (plait ls shows those that serve)", (int)pid);
        return STATUS_NO_NAME;
    }
    if (r < 0) {
        complain("threads %d: %s", (int)pid, strerror(-r));
        return command_status(r);
    }
    /* Without the status pages the kernel's half is still worth showing. */
    if (plait_watch_open(&watch, NULL) < 0) complain("threads %d: %s", (int)pid, plait_error_text());
    for (size_t i = 0; json && i < count && !output_failed(); i++)
        json_thread((int32_t)pid, &tasks[i], known_thread(watch, (int32_t)pid, tasks[i].tid));
    if (!json) {
        print_tasks(watch, (int32_t)pid, tasks, count);
        print_workers(watch, (int32_t)pid);
    }
    plait_watch_close(watch);
    free(tasks);
    return STATUS_OK;
}

static const struct option options[] = {
    { .name = "--interval",
      .argument = "T",
      .kind = OPTION_DURATION,
      .value = &interval,
      .help = "how long to watch before saying what share of a CPU each uses\n(default 100ms)" },
    { .name = "--json", .kind = OPTION_FLAG, .value = &json, .help = "an object for each thread, kind \"thread\"" },
    { .name = NULL },
};

const struct command command_threads = {
    .name = "threads",
    .arguments = "PID",
    .summary = "list the threads of any process, and what they handle",
    .options = options,
    .text = "THREAD is the kernel's id, as gettid(2) says; CPU TIME is since the thread began, CPU % within the\n"
            "last --interval, CPU where it ran last, WAITS IN the kernel function that it sleeps in, where the\n"
            "kernel shows that (to you: your own processes, mostly). Of a process that serves by plait also\n"
            "LIBRARY ID, which is pthread_self(), in Python threading.get_ident(); how many requests the thread\n"
            "has HANDLED; what it is HANDLING and since when. That is right also while the process is stopped. A\n"
            "supervisor handles nothing: below its threads stand its workers.\n"
            "\n"
            "Examples:\n"
            "  plait threads 4711\n"
            "  plait threads $(pidof firefox) --interval 1s\n"
            "  plait threads 4711 --json | jq -r 'select(.method) | .tid'\n",
    .run = run,
};
