/* crash: an experiment. One of four workers is killed in the middle of a load: what do the callers see before, during
 * and after?
 *
 *     crash-experiment [SIGNAL [FILE.svg]]        11 (SIGSEGV) by default; the plot is written where FILE says
 *
 * Eight callers call without a pause; each call takes its worker a millisecond. After a second one worker gets the
 * signal. "during" lasts until four workers serve again.
 */
#include <errno.h>
#include <math.h>
#include <plait/plait.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WORKERS = 4, CALLERS = 8, BEFORE_MS = 1000, AFTER_MS = 1000, CALLS_MAX = 20000 };

struct sample {
    double at_ms, took_ms; /* at: since the start */
    int result;
};

struct caller {
    pthread_t thread;
    struct sample *samples;
    size_t count;
    char error[512]; /* the last one */
};

static struct caller callers[CALLERS];
static atomic_bool stopping;
static double start_ms;

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* ---- the service ---- */

static void work(plait_request *request, void *context)
{
    struct timespec millisecond = { 0, 1000000 };
    (void)context;
    nanosleep(&millisecond, NULL);
    plait_request_reply(request, "done", 4);
}

static void tell_ready(plait_server *server, void *ready)
{
    (void)server;
    (void)!write(*(int *)ready, "r", 1);
}

static int serve(int ready)
{
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    plait_worker_hooks hooks = PLAIT_WORKER_HOOKS_INIT;
    plait_server *server = NULL;
    struct rlimit no_core = { 0, 0 };
    setrlimit(RLIMIT_CORE, &no_core); /* no file is left behind */
    options.processes = WORKERS;
    hooks.ready = tell_ready;
    hooks.context = &ready;
    int r = plait_server_open(&server, "experiment", &options);
    if (r == 0) r = plait_server_handle(server, "work", work, NULL);
    if (r == 0) r = plait_server_workers(server, &hooks);
    if (r == 0) r = plait_server_run(server);
    if (r < 0) fprintf(stderr, "crash-experiment: %s\n", plait_error_text());
    plait_server_close(server);
    return r < 0;
}

/* The pids of the workers that serve now; how many there are. */
static int look(int pids[WORKERS])
{
    plait_watch *watch;
    int count = 0;
    if (plait_watch_open(&watch, "experiment") < 0) return 0;
    for (size_t i = 0; i < plait_watch_count(watch) && count < WORKERS; i++)
        pids[count++] = plait_watch_at(watch, i)->pid;
    plait_watch_close(watch);
    return count;
}

/* ---- the load ---- */

static void *call_on(void *context)
{
    struct caller *self = context;
    plait_client *client = NULL;
    if (plait_client_open(&client, "experiment", NULL) < 0) return NULL;
    while (!stopping && self->count < CALLS_MAX) {
        double before = now_ms();
        int r = plait_client_call(client, "work", NULL, 0, NULL, NULL);
        self->samples[self->count++] = (struct sample){ before - start_ms, now_ms() - before, r };
        if (r < 0) snprintf(self->error, sizeof(self->error), "%s", plait_error_text());
    }
    plait_client_close(client);
    return NULL;
}

/* ---- the answer ---- */

struct phase {
    const char *name;
    double from, to;
    size_t calls, failed;
    double p50, p99, most;
};

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

/* Calls that ended in the phase. */
static void measure(struct phase *phase)
{
    double *times = malloc(sizeof(double) * CALLERS * CALLS_MAX);
    for (int i = 0; times && i < CALLERS; i++) {
        for (size_t k = 0; k < callers[i].count; k++) {
            const struct sample *sample = &callers[i].samples[k];
            double end = sample->at_ms + sample->took_ms;
            if (end < phase->from || end >= phase->to) continue;
            if (sample->result < 0) phase->failed++;
            else times[phase->calls++] = sample->took_ms;
        }
    }
    if (times && phase->calls > 0) {
        qsort(times, phase->calls, sizeof(double), compare);
        phase->p50 = times[phase->calls / 2];
        phase->p99 = times[phase->calls - 1 - phase->calls / 100];
        phase->most = times[phase->calls - 1];
    }
    free(times);
}

static void print_phases(const struct phase *phases, int count)
{
    printf("%-8s %10s %8s %8s %10s %9s %9s %9s\n", "PHASE", "LASTED ms", "CALLS", "FAILED", "CALLS/s", "p50 ms",
           "p99 ms", "MOST ms");
    for (int i = 0; i < count; i++) {
        const struct phase *p = &phases[i];
        printf("%-8s %10.1f %8zu %8zu %10.0f %9.2f %9.2f %9.2f\n", p->name, p->to - p->from, p->calls, p->failed,
               (double)p->calls / (p->to - p->from) * 1e3, p->p50, p->p99, p->most);
    }
}

/* ---- the plot: each call a point at its end, log scale; failures red; the phases as bands ---- */

enum { WIDTH = 900, HEIGHT = 420, LEFT = 60, TOP = 50, RIGHT = 20, BOTTOM = 50 };

static double x_of(double ms, double from, double to)
{
    return LEFT + (ms - from) / (to - from) * (WIDTH - LEFT - RIGHT);
}

static double y_of(double took)
{
    double low = log10(0.5), high = log10(100.0), value = log10(took < 0.5 ? 0.5 : took > 100 ? 100 : took);
    return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM);
}

static void plot_axes(FILE *file, const struct phase *during, double from, double to)
{
    static const double ticks[] = { 0.5, 1, 2, 5, 10, 20, 50, 100 };
    double left = x_of(during->from, from, to), right = x_of(during->to, from, to);
    fprintf(file, "<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"#fde0dc\"/>\n", left, TOP,
            right - left < 1 ? 1 : right - left, HEIGHT - TOP - BOTTOM);
    for (size_t i = 0; i < sizeof(ticks) / sizeof(*ticks); i++) {
        fprintf(file, "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", LEFT, WIDTH - RIGHT,
                y_of(ticks[i]), y_of(ticks[i]));
        fprintf(file, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%g ms</text>\n", LEFT - 6, y_of(ticks[i]) + 4,
                ticks[i]);
    }
    for (double ms = -200; ms <= 300; ms += 50)
        fprintf(file, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%+.0f</text>\n",
                x_of(during->from + ms, from, to), HEIGHT - BOTTOM + 18, ms);
    fprintf(file,
            "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">ms since the signal; shaded: one worker short</text>\n",
            (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10);
}

static int plot(const char *path, const struct phase *during, int signal_number)
{
    double from = during->from - 200, to = during->from + 300;
    FILE *file = fopen(path, "we");
    if (file == NULL) {
        fprintf(stderr, "crash-experiment: %s: %s\n", path, strerror(errno));
        return 1;
    }
    fprintf(file,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" "
            "font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
            "<text x=\"%d\" y=\"24\" font-size=\"15\">One of %d workers gets signal %d: how long each of %d callers' "
            "calls took (red: failed)</text>\n",
            WIDTH, HEIGHT, LEFT, WORKERS, signal_number, CALLERS);
    plot_axes(file, during, from, to);
    for (int i = 0; i < CALLERS; i++) {
        for (size_t k = 0; k < callers[i].count; k++) {
            const struct sample *sample = &callers[i].samples[k];
            double end = sample->at_ms + sample->took_ms;
            if (end < from || end > to) continue;
            fprintf(file, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%s\" fill=\"%s\"/>\n", x_of(end, from, to),
                    y_of(sample->took_ms), sample->result < 0 ? "4" : "1.5",
                    sample->result < 0 ? "#d32f2f" : "#1565c0");
        }
    }
    fprintf(file, "</svg>\n");
    return fclose(file) == 0 ? 0 : 1;
}

/* ---- the experiment ---- */

/* Sends the signal, waits until all serve again: when that was. */
static double strike(int victim, int number)
{
    int pids[WORKERS];
    kill(victim, number);
    for (double until = now_ms() + 20000; now_ms() < until; poll(NULL, 0, 1)) {
        bool gone = true;
        int count = look(pids);
        for (int i = 0; i < count; i++) gone &= pids[i] != victim;
        if (gone && count == WORKERS) break;
    }
    return now_ms() - start_ms;
}

static int experiment(int number, const char *svg)
{
    int pids[WORKERS];
    if (look(pids) != WORKERS) return fprintf(stderr, "crash-experiment: not every worker serves\n"), 1;
    start_ms = now_ms();
    for (int i = 0; i < CALLERS; i++) {
        callers[i].samples = calloc(CALLS_MAX, sizeof(struct sample));
        if (callers[i].samples == NULL || pthread_create(&callers[i].thread, NULL, call_on, &callers[i]) != 0)
            return fprintf(stderr, "crash-experiment: no memory or thread for a caller\n"), 1;
    }
    poll(NULL, 0, BEFORE_MS);
    double struck = now_ms() - start_ms, whole = strike(pids[1], number);
    poll(NULL, 0, AFTER_MS);
    stopping = true;
    for (int i = 0; i < CALLERS; i++) pthread_join(callers[i].thread, NULL);

    struct phase phases[] = { { .name = "before", .from = 100, .to = struck },
                              { .name = "during", .from = struck, .to = whole },
                              { .name = "after", .from = whole, .to = now_ms() - start_ms } };
    for (int i = 0; i < 3; i++) measure(&phases[i]);
    printf("signal %d to worker pid %d of %d, %d callers\n\n", number, pids[1], WORKERS, CALLERS);
    print_phases(phases, 3);
    printf("\nback to full strength after %.1f ms\n", whole - struck);
    for (int i = 0; i < CALLERS; i++) {
        for (size_t k = 0; k < callers[i].count; k++) {
            const struct sample *sample = &callers[i].samples[k];
            if (sample->result < 0)
                printf("failed %.2f ms after the signal: %s\n", sample->at_ms + sample->took_ms - struck,
                       callers[i].error);
        }
    }
    int r = svg ? plot(svg, &phases[1], number) : 0;
    if (svg && r == 0) printf("plotted in %s\n", svg);
    for (int i = 0; i < CALLERS; i++) free(callers[i].samples);
    return r;
}

int main(int argc, char **argv)
{
    int number = argc > 1 ? atoi(argv[1]) : SIGSEGV, ready[2], status = 1;
    char byte;
    if (number < 1 || number > 31)
        return fprintf(stderr, "usage: crash-experiment [SIGNAL [FILE.svg]], such as: crash-experiment 9 plot.svg\n"),
               2;
    if (pipe(ready) < 0) return 1;
    pid_t supervisor = fork();
    if (supervisor < 0) return 1;
    if (supervisor == 0) {
        close(ready[0]);
        prctl(PR_SET_PDEATHSIG, SIGTERM); /* whatever becomes of the experiment */
        _exit(serve(ready[1]));
    }
    close(ready[1]);
    if (read(ready[0], &byte, 1) == 1) status = experiment(number, argc > 2 ? argv[2] : NULL);
    kill(supervisor, SIGTERM);
    waitpid(supervisor, NULL, 0);
    return status;
}
