/* workers: the figures of threads and processes, each beside what it is compared with, in one run.
 *
 *     bench-workers [CALLS]          CALLS of the rolling restart, 1000000 by default
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

static double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof(*values), compare);
    return values[count / 2];
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

static void row(const char *what, double got, double than, const char *unit, double ratio, const char *goal)
{
    printf("%-58s %10.2f %10.2f %-8s %7.2f   %s\n", what, got, than, unit, ratio, goal);
    fflush(stdout);
}

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
static void threads_row(const char *what, plait_handler *handler, int many, double (*load)(void), const char *goal)
{
    double with[ROUNDS], without[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        pid_t pid = start(handler, 1, 0, NULL);
        without[i] = load();
        stop(pid);
        pid = start(handler, many, 0, NULL);
        with[i] = load();
        stop(pid);
    }
    double a = median(with, ROUNDS), b = median(without, ROUNDS);
    row(what, a, b, "calls/s", a / b, goal);
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

static void crash_row(const char *what, int number, bool cores)
{
    double took[CRASHES];
    struct rlimit limit = { cores ? RLIM_INFINITY : 0, cores ? RLIM_INFINITY : 0 };
    pid_t pid = fork(); /* the limit is the children's */
    if (pid != 0) {
        waitpid(pid, NULL, 0);
        return;
    }
    setrlimit(RLIMIT_CORE, &limit);
    pid_t server = start(hang, 1, 2, touch_memory);
    for (int i = 0; i < CRASHES; i++) {
        plait_client *client;
        pthread_t thread;
        int victim = 0;
        if (plait_client_open(&client, "measured", NULL) < 0) _exit(1);
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
    double most = 0, middle = median(took, CRASHES);
    for (int i = 0; i < CRASHES; i++) most = took[i] > most ? took[i] : most;
    row(what, middle, most, "ms", middle / most, cores ? "<= 2 ms (2nd: the longest)" : "(2nd: the longest)");
    fflush(NULL);
    _exit(0);
}

static void rolling_row(long calls)
{
    pthread_t threads[8];
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
    row("rolling restart under load: failed of calls", (double)failed, (double)done, "calls", (double)restarts,
        "0 failed (3rd: SIGHUPs)");
}

int main(int argc, char **argv)
{
    long calls = argc > 1 ? atol(argv[1]) : 1000000;
    printf("%-58s %10s %10s %-8s %7s   %s\n", "WHAT", "GOT", "BESIDE", "UNIT", "RATIO", "TO REACH");
    threads_row("handlers wait 10 ms, 16 clients: 16 threads, 1 thread", wait_10_ms, 16, sixteen, ">= 14");
    threads_row("the same, one asynchronous client, 16 in flight", wait_10_ms, 16, one_by_async, ">= 14");
    threads_row("handlers use 100 us of CPU, 64 clients: 2 threads, 1", burn_100_us, 2, sixty_four, ">= 1.6");
    crash_row("SIGSEGV in a worker of 200 MB, core written: error told", SIGSEGV, true);
    crash_row("the same, no core", SIGSEGV, false);
    crash_row("kill -9 of the same worker", SIGKILL, false);
    rolling_row(calls);
    return 0;
}
