/* bench_pair: one round of `plait bench` in a fresh pair of processes.
 *
 * The client process forks the server before it opens anything (plait's handles don't survive
 * a fork), each child dies with its parent, and the only way back is one shared page: whatever
 * a subject does, it can neither leak into the next round nor outlive the command.
 */
#include "bench.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t running;     /* the client process of this round, 0: none */
static volatile sig_atomic_t interrupted; /* no further rounds */

int bench_fail(struct bench_link *link, int code, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(link->shared->error, sizeof(link->shared->error), format, arguments);
    va_end(arguments);
    return code;
}

int bench_ready(struct bench_link *link)
{
    if (write(link->ready_fd, "", 1) != 1) return bench_fail(link, -EPIPE, "the server process lost its parent");
    return 0;
}

int bench_fork_helper(pid_t *ret_child)
{
    pid_t parent = getpid(), child;

    fflush(NULL);
    child = fork();
    if (child < 0) return -errno;
    if (child > 0) {
        *ret_child = child;
        return 1;
    }
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it died before prctl could know */
        _exit(1);
    return 0;
}

/* ---- placement -------------------------------------------------------------------------- */

int bench_cpus(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

int bench_place(enum bench_placement placement, int side)
{
    cpu_set_t allowed, one;
    int seen = 0;

    if (placement == BENCH_UNPINNED) return 0;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0) return -errno;
    if (placement == BENCH_ONE_CPU) side = 0;
    if (CPU_COUNT(&allowed) <= side) return 0; /* the table's head says so */
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed) || seen++ != side) continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        return sched_setaffinity(0, sizeof(one), &one) < 0 ? -errno : 0;
    }
    return 0;
}

/* ---- the pair ----------------------------------------------------------------------------- */

static int start_server(struct bench_link *link)
{
    int ends[2], r;
    char byte;
    ssize_t n;

    if (pipe(ends) < 0) return bench_fail(link, -errno, "pipe: %s", strerror(errno));
    r = bench_fork_helper(&link->server);
    if (r < 0) return bench_fail(link, r, "fork: %s", strerror(-r));
    if (r == 0) {
        close(ends[0]);
        link->ready_fd = ends[1];
        r = bench_place(link->load->placement, 1);
        if (r == 0) r = link->subject->ops->serve(link);
        _exit(r < 0);
    }
    close(ends[1]);
    n = read(ends[0], &byte, 1);
    close(ends[0]);
    if (n == 1) return 0;
    if (!link->shared->error[0]) bench_fail(link, -EIO, "the server process ended before it could be called");
    return -EIO;
}

static int run_client(struct bench_link *link)
{
    struct rlimit limit;
    int r = 0;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) { /* a thousand connections want more than 1024 */
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (link->subject->ops->prepare) r = link->subject->ops->prepare(link);
    if (r == 0) r = start_server(link);
    if (r == 0) r = bench_place(link->load->placement, 0);
    if (r == 0) r = link->load->drive(link, link->load);
    if (link->server > 0) {
        kill(link->server, SIGKILL);
        waitpid(link->server, NULL, 0);
    }
    return r;
}

static int report_failure(const struct bench_link *link, int status)
{
    const char *error = link->shared->error;

    if (interrupted) return -EINTR;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        fprintf(stderr, "plait: bench: %s: no progress within the time limit%s%s\n", link->subject->name,
                error[0] ? ": " : "", error);
    else if (WIFSIGNALED(status))
        fprintf(stderr, "plait: bench: %s: the client process died of signal %d\n", link->subject->name,
                WTERMSIG(status));
    else fprintf(stderr, "plait: bench: %s: %s\n", link->subject->name, error[0] ? error : "failed without a reason");
    return -EIO;
}

int bench_round(const struct bench_subject *subject, const struct bench_load *load, struct bench_round *ret_round)
{
    static unsigned pairs;
    struct bench_link link = { .subject = subject, .load = load, .ready_fd = -1 };
    struct bench_shared *shared;
    pid_t child;
    int r, status = 0;

    if (interrupted) return -EINTR;
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return -errno;
    shared->round.syscalls = -1;
    link.shared = shared;
    snprintf(link.name, sizeof(link.name), "bench-%u", ++pairs);
    r = bench_fork_helper(&child);
    if (r == 0) {
        alarm(30 + (unsigned)(4 * load->seconds));
        _exit(run_client(&link) < 0);
    }
    if (r > 0) {
        running = child;
        while (waitpid(child, &status, 0) < 0 && errno == EINTR)
            ;
        running = 0;
        r = status == 0 ? 0 : report_failure(&link, status);
        if (r == 0) *ret_round = shared->round;
    }
    munmap(shared, sizeof(*shared));
    return r;
}

void bench_interrupt(void)
{
    interrupted = 1;
    if (running > 0) kill(running, SIGKILL);
}
