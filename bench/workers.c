/* workers: the figures of threads and processes, each beside what it is compared with, in one run.
 *
 *     bench-workers [--json] [--only ROW] [CALLS]          CALLS of the rolling restart, 1000000 by default
 *
 * With --json: lines for bench/table.py. The status is 1 if a goal is missed.
 */
#include <plait/plait.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { IO_MS = 10, IN_FLIGHT = 16, ROUND_MS = 1500, ROUNDS = 3, CRASHES = 11, RESIDENT = 200 << 20 };
enum { CREW = 4, CALLERS = 8, KILLS = 5, WINDOW_MS = 1000, SAMPLES = 1 << 16 };

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

/* ---- what is printed ---- */

struct figure {
    double median, least, most;
};

static struct figure figure(double *values, int count)
{
    qsort(values, (size_t)count, sizeof(*values), compare);
    return (struct figure){ values[count / 2], values[0], values[count - 1] };
}

struct row {
    const char *name, *what, *unit, *beside, *goal; /* beside NULL: nothing is; goal NULL: to be seen */
    struct figure ours, raw;
    bool reached;
};

static bool json, missed;
static const char *only;

static bool wanted_row(const char *name)
{
    return only == NULL || strncmp(name, only, strlen(only)) == 0;
}

static void print_json(const struct row *row)
{
    printf("{\"kind\":\"bench\",\"row\":\"%s\",\"what\":\"%s\",\"unit\":\"%s\","
           "\"plait\":{\"median\":%.4f,\"min\":%.4f,\"max\":%.4f},",
           row->name, row->what, row->unit, row->ours.median, row->ours.least, row->ours.most);
    if (row->beside)
        printf("\"raw\":{\"name\":\"%s\",\"median\":%.4f,\"min\":%.4f,\"max\":%.4f},\"ratio\":%.4f,", row->beside,
               row->raw.median, row->raw.least, row->raw.most, row->ours.median / row->raw.median);
    else printf("\"raw\":null,\"ratio\":null,");
    printf("\"goal\":\"%s\",\"ok\":%s,\"note\":\"\"}\n", row->goal ? row->goal : "",
           row->goal == NULL ? "null"
           : row->reached    ? "true"
                             : "false");
}

static void print_row(const struct row *row)
{
    missed |= row->goal != NULL && !row->reached;
    if (json) {
        print_json(row);
    } else {
        printf("%-66s %9.2f (%.2f...%.2f) %s", row->what, row->ours.median, row->ours.least, row->ours.most, row->unit);
        if (row->beside) printf("; %s %.2f: %.2f x", row->beside, row->raw.median, row->ours.median / row->raw.median);
        if (row->goal) printf("; %s: %s", row->goal, row->reached ? "reached" : "MISSED");
        printf("\n");
    }
    fflush(stdout);
}

/* ---- handlers ---- */

static void wait_10_ms(plait_request *request, void *context)
{
    struct timespec span = { 0, IO_MS * 1000000 };
    (void)context;
    nanosleep(&span, NULL);
    plait_request_reply(request, "x", 1);
}

static void burn_100_us(plait_request *request, void *context)
{
    struct timespec start, now;
    (void)context;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
    do {
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    } while ((now.tv_sec - start.tv_sec) * 1000000000L + now.tv_nsec - start.tv_nsec < 100000);
    plait_request_reply(request, "x", 1);
}

static void echo(plait_request *request, void *context)
{
    plait_bytes body = plait_request_body(request);
    (void)context;
    plait_request_reply(request, body.data, body.size);
}

static char *resident;
static void hang(plait_request *request, void *context)
{
    (void)request;
    (void)context;
    for (;;) pause();
}

static int touch_memory(plait_server *server, int worker, void *context)
{
    (void)server;
    (void)worker;
    (void)context;
    resident = malloc(RESIDENT);
    if (resident) memset(resident, 1, RESIDENT);
    return 0;
}

/* ---- a server in a process of its own, until its pid gets SIGTERM ---- */

static void tell_ready(plait_server *server, void *context)
{
    (void)server;
    (void)!write(*(int *)context, "r", 1);
}

static pid_t start(plait_handler *handler, int threads, int processes, int (*hook)(plait_server *, int, void *))
{
    int ready[2];
    char byte;
    if (pipe(ready) < 0) exit(1);
    pid_t pid = fork();
    if (pid == 0) {
        plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
        plait_worker_hooks hooks = PLAIT_WORKER_HOOKS_INIT;
        plait_server *server;
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        options.threads = threads;
        options.processes = processes;
        options.restart_burst = -1;
        hooks.start = hook;
        hooks.ready = tell_ready;
        hooks.context = &ready[1];
        int r = plait_server_open(&server, "measured", &options);
        if (r == 0) r = plait_server_handle(server, "", handler, NULL);
        if (r == 0 && processes) r = plait_server_workers(server, &hooks);
        if (r == 0 && !processes) (void)!write(ready[1], "r", 1);
        if (r == 0) r = plait_server_run(server);
        if (r < 0) fprintf(stderr, "bench-workers: %s\n", plait_error_text());
        _exit(r < 0);
    }
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 1) exit(1);
    close(ready[0]);
    return pid;
}

static void stop(pid_t pid)
{
    kill(pid, SIGTERM);
    waitpid(pid, NULL, 0);
}

/* ---- clients ---- */

static atomic_bool over;
static atomic_long done, failed, wanted;

static void *call_on(void *unused)
{
    plait_client *client;
    if (plait_client_open(&client, "measured", NULL) < 0) return unused;
    while (!over && (wanted == 0 || done < wanted)) {
        if (plait_client_call(client, "", "12345678", 8, NULL, NULL) < 0) {
            if (failed++ == 0) fprintf(stderr, "bench-workers: %s\n", plait_error_text());
        }
        done++;
    }
    plait_client_close(client);
    return NULL;
}

/* Calls per second of COUNT clients that call one after the other. */
static double many_clients(int count)
{
    pthread_t threads[64];
    over = false;
    wanted = done = failed = 0;
    for (int i = 0; i < count; i++) pthread_create(&threads[i], NULL, call_on, NULL);
    poll(NULL, 0, 300);
    double before = now_ms();
    long calls = done;
    poll(NULL, 0, ROUND_MS);
    double rate = (double)(done - calls) / (now_ms() - before) * 1e3;
    over = true;
    for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
    return rate;
}

static plait_client *asynchronous;
static void again(int result, plait_reply *reply, void *context)
{
    plait_reply_free(reply);
    if (result < 0) failed++;
    done++;
    if (!over) (void)plait_client_call_async(asynchronous, "", "x", 1, NULL, again, context, NULL);
}

/* One client with IN_FLIGHT calls at any time. */
static double one_client(void)
{
    over = false;
    done = failed = 0;
    if (plait_client_open(&asynchronous, "measured", NULL) < 0) return 0;
    for (int i = 0; i < IN_FLIGHT; i++)
        (void)plait_client_call_async(asynchronous, "", "x", 1, NULL, again, NULL, NULL);
    for (double until = now_ms() + 300; now_ms() < until;) (void)plait_client_dispatch(asynchronous, 10);
    double before = now_ms();
    long calls = done;
    while (now_ms() < before + ROUND_MS) (void)plait_client_dispatch(asynchronous, 10);
    double rate = (double)(done - calls) / (now_ms() - before) * 1e3;
    over = true;
    plait_client_close(asynchronous);
    return rate;
}

/* ---- the rows ---- */

static double one_by_async(void)
{
    return one_client();
}
static double sixteen(void)
{
    return many_clients(IN_FLIGHT);
}
static double sixty_four(void)
{
    return many_clients(64);
}

/* The same load on MANY threads and on one, in turn. */
static void threads_row(struct row row, plait_handler *handler, int many, double (*load)(void), double goal)
{
    double with[ROUNDS], without[ROUNDS];
    if (!wanted_row(row.name)) return;
    for (int i = 0; i < ROUNDS; i++) {
        pid_t pid = start(handler, 1, 0, NULL);
        without[i] = load();
        stop(pid);
        pid = start(handler, many, 0, NULL);
        with[i] = load();
        stop(pid);
    }
    row.unit = "calls/s";
    row.beside = "one thread";
    row.ours = figure(with, ROUNDS);
    row.raw = figure(without, ROUNDS);
    row.reached = row.ours.median >= goal * row.raw.median;
    print_row(&row);
}

static int worker_pid(void)
{
    plait_watch *watch;
    int pid = 0;
    if (plait_watch_open(&watch, "measured") < 0) return 0;
    for (size_t i = 0; i < plait_watch_thread_count(watch); i++)
        if (plait_watch_thread_at(watch, i)->method) pid = plait_watch_thread_at(watch, i)->pid;
    plait_watch_close(watch);
    return pid;
}

static _Atomic double ended_ms;
static void *call_once(void *client)
{
    (void)plait_client_call(client, "", "x", 1, NULL, NULL);
    ended_ms = now_ms();
    return NULL;
}

/* Sets the limit of cores for the rest of this program. */
static void crash_row(struct row row, int number, bool cores)
{
    double took[CRASHES];
    struct rlimit limit;
    if (!wanted_row(row.name)) return;
    getrlimit(RLIMIT_CORE, &limit);
    limit.rlim_cur = cores ? limit.rlim_max : 0;
    setrlimit(RLIMIT_CORE, &limit);
    pid_t server = start(hang, 1, 2, touch_memory);
    for (int i = 0; i < CRASHES; i++) {
        plait_client *client;
        pthread_t thread;
        int victim = 0;
        if (plait_client_open(&client, "measured", NULL) < 0) exit(1);
        pthread_create(&thread, NULL, call_once, client);
        while ((victim = worker_pid()) == 0) poll(NULL, 0, 1);
        double before = now_ms();
        kill(victim, number);
        pthread_join(thread, NULL);
        took[i] = ended_ms - before;
        plait_client_close(client);
        poll(NULL, 0, 400);
    }
    stop(server);
    row.unit = "ms";
    row.ours = figure(took, CRASHES);
    row.reached = row.ours.median <= 2;
    print_row(&row);
}

/* ---- a worker is killed under load: the others' calls ---- */

static struct caller {
    pthread_t thread;
    atomic_size_t count;
    double ended[SAMPLES], took[SAMPLES]; /* of calls that were answered */
} callers[CALLERS];

static void wait_1_ms(plait_request *request, void *context)
{
    struct timespec span = { 0, 1000000 };
    (void)context;
    nanosleep(&span, NULL);
    plait_request_reply(request, "x", 1);
}

static void *sample_on(void *context)
{
    struct caller *self = context;
    plait_client *client;
    if (plait_client_open(&client, "measured", NULL) < 0) return NULL;
    for (size_t i = 0; !over && i < SAMPLES;) {
        double begun = now_ms();
        if (plait_client_call(client, "", "12345678", 8, NULL, NULL) < 0) {
            failed++;
            continue;
        }
        self->ended[i] = now_ms();
        self->took[i] = self->ended[i] - begun;
        self->count = ++i;
    }
    plait_client_close(client);
    return NULL;
}

/* The 99th percentile of what ended within WINDOW_MS of FROM. */
static double p99(double from)
{
    static double times[CALLERS * SAMPLES];
    int count = 0;
    for (int i = 0; i < CALLERS; i++)
        for (size_t k = 0; k < callers[i].count; k++)
            if (callers[i].ended[k] >= from && callers[i].ended[k] < from + WINDOW_MS)
                times[count++] = callers[i].took[k];
    if (count == 0) return 0;
    qsort(times, (size_t)count, sizeof(*times), compare);
    return times[count - 1 - count / 100];
}

/* True if CREW workers serve, none of them NOT; *ret_pid is one of them. */
static bool complete(int not, int *ret_pid)
{
    plait_watch *watch;
    bool found = false;
    if (plait_watch_open(&watch, "measured") < 0) return false;
    size_t count = plait_watch_count(watch);
    for (size_t i = 0; i < count; i++) {
        *ret_pid = plait_watch_at(watch, i)->pid;
        found |= *ret_pid == not ;
    }
    plait_watch_close(watch);
    return count == CREW && !found;
}

/* One worker is killed; a fresh supervisor for each, since one whose workers die again and again waits a little longer
 * each time. */
static void strike(double *before, double *after, double *short_ms)
{
    int victim = 0, other;
    pid_t pid = start(wait_1_ms, 1, CREW, NULL);
    over = false;
    for (int i = 0; i < CALLERS; i++) {
        callers[i].count = 0;
        pthread_create(&callers[i].thread, NULL, sample_on, &callers[i]);
    }
    poll(NULL, 0, WINDOW_MS + 200);
    while (!complete(0, &victim)) poll(NULL, 0, 1);
    double struck = now_ms();
    kill(victim, SIGKILL);
    while (!complete(victim, &other)) poll(NULL, 0, 1);
    *short_ms = now_ms() - struck;
    while (now_ms() < struck + WINDOW_MS) poll(NULL, 0, 1);
    over = true;
    for (int i = 0; i < CALLERS; i++) pthread_join(callers[i].thread, NULL);
    stop(pid);
    *before = p99(struck - WINDOW_MS);
    *after = p99(struck);
}

static void survivors_rows(struct row latency, struct row strength)
{
    double before[KILLS], after[KILLS], short_ms[KILLS];
    if (!wanted_row(latency.name)) return;
    failed = 0;
    for (int i = 0; i < KILLS; i++) strike(&before[i], &after[i], &short_ms[i]);
    latency.unit = strength.unit = "ms";
    latency.beside = "before";
    latency.ours = figure(after, KILLS);
    latency.raw = figure(before, KILLS);
    latency.reached = latency.ours.median <= 3 * latency.raw.median && failed <= KILLS; /* the victims' own calls */
    print_row(&latency);
    strength.ours = figure(short_ms, KILLS);
    strength.reached = strength.ours.median <= 200;
    print_row(&strength);
}

static void rolling_row(struct row row, long calls)
{
    char text[64];
    pthread_t threads[8];
    if (!wanted_row(row.name)) return;
    pid_t pid = start(echo, 1, 3, NULL);
    int restarts = 0;
    over = false;
    done = failed = 0;
    wanted = calls;
    for (int i = 0; i < 8; i++) pthread_create(&threads[i], NULL, call_on, NULL);
    for (; done < calls; restarts++) {
        kill(pid, SIGHUP);
        poll(NULL, 0, 300);
    }
    for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
    stop(pid);
    snprintf(text, sizeof(text), "failed of %ld calls, %d SIGHUPs", (long)done, restarts);
    row.unit = text;
    row.ours = (struct figure){ (double)failed, (double)failed, (double)failed };
    row.reached = failed == 0;
    print_row(&row);
}

int main(int argc, char **argv)
{
    long calls = 1000000;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) json = true;
        else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc) only = argv[++i];
        else if (atol(argv[i]) > 0) calls = atol(argv[i]);
        else return fprintf(stderr, "usage: bench-workers [--json] [--only ROW] [CALLS]\n"), 2;
    }
    threads_row((struct row){ .name = "threads-io",
                              .what = "handlers that wait 10 ms, 16 clients: 16 threads",
                              .goal = ">= 14 x" },
                wait_10_ms, IN_FLIGHT, sixteen, 14);
    threads_row((struct row){ .name = "threads-async",
                              .what = "the same, one asynchronous client with 16 in flight",
                              .goal = ">= 14 x" },
                wait_10_ms, IN_FLIGHT, one_by_async, 14);
    threads_row((struct row){ .name = "threads-cpu",
                              .what = "handlers that use 100 us of CPU, 64 clients: 2 threads",
                              .goal = ">= 1.6 x" },
                burn_100_us, 2, sixty_four, 1.6);
    crash_row((struct row){ .name = "crash-core",
                            .what = "SIGSEGV in a worker with 200 MB resident, core written, to its caller's error",
                            .goal = "<= 2 ms" },
              SIGSEGV, true);
    crash_row((struct row){ .name = "crash-bare", .what = "the same without a core", .goal = "<= 2 ms" }, SIGSEGV,
              false);
    crash_row((struct row){ .name = "crash-kill", .what = "kill -9 of the same worker" }, SIGKILL, false);
    survivors_rows(
        (struct row){ .name = "survivors",
                      .what = "kill -9 of one of 4 workers under load: p99 of all answers in the second after it",
                      .goal = "<= 3 x, none but the victim's call fails" },
        (struct row){ .name = "strength", .what = "the same: until 4 workers serve again", .goal = "<= 200 ms" });
    rolling_row((struct row){ .name = "rolling",
                              .what = "replacing 3 workers by SIGHUP again and again under 8 callers",
                              .goal = "0 failed" },
                calls);
    return missed;
}
