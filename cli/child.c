/* child: spawn, then one poll loop over the child's pidfd and its three pipes.
 *
 * The run ends when the child itself has ended and its pipes are drained: a grandchild that keeps standard
 * output open holds nobody up. The child gets descriptors 0, 1 and 2 and no others, no blocked signals and
 * SIGPIPE at its default. Until it is reaped its pid can't be another's, so killing its group is safe.
 */
#include "child.h"
#include "clock.h"
#include "output.h"
#include "runner.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define TICK 50 /* ms between two looks whether the caller still waits: nothing tells us */
#define SLACK                                                                                                          \
    100 /* ms beyond its deadline in which a caller should have cancelled: its time-out is the better answer */

extern char **environ;

struct child {
    pid_t pid;
    int pidfd, in, out, err; /* -1: closed */
    const char *body;
    size_t left;
    char *output;
    size_t size, room;
    char error[RUNNER_ERROR_MAX + 1]; /* the last bytes */
    size_t error_size;
    const char *trouble; /* why it was killed; NULL if it wasn't */
    int64_t kill_at;     /* ms of the monotonic clock: SIGKILL; 0: no SIGTERM yet */
    int64_t over_since;  /* the same: the caller's time was first seen to be over; 0: not yet */
};

/* Output held by all children together. Relaxed: it is a sum, nothing is published by it. */
static atomic_size_t held;

static int64_t now_ms(void)
{
    return now_ns() / 1000000;
}

static void close_fd(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* The environment with PLAIT_METHOD=METHOD; the strings are borrowed. One free() frees it. */
static char **make_environment(const char *method)
{
    static const char key[] = "PLAIT_METHOD=";
    size_t count = 0, kept = 0, size = sizeof(key) + strlen(method);
    char **list, *entry;

    while (environ[count]) count++;
    list = malloc((count + 2) * sizeof(*list) + size);
    if (!list) return NULL;
    entry = (char *)(list + count + 2);
    snprintf(entry, size, "%s%s", key, method);
    for (size_t i = 0; i < count; i++) {
        if (strncmp(environ[i], key, sizeof(key) - 1) != 0) list[kept++] = environ[i];
    }
    list[kept++] = entry;
    list[kept] = NULL;
    return list;
}

static void say(const char *text)
{
    int code = errno;

    (void)!write(2, text, strlen(text));
    errno = code;
}

/* In the new process, which shares our memory until it execs: system calls and nothing else. Should this server
 * be killed, the kernel ends the command: SIGTERM when the thread that drives it is gone. */
static _Noreturn void become(char **command, char **environment, int pipes[3][2], pid_t server)
{
    sigset_t none;

    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != server) _exit(127); /* it died before it could be watched */
    if (dup2(pipes[0][0], 0) == 0 && dup2(pipes[1][1], 1) == 1 && dup2(pipes[2][1], 2) == 2) {
        syscall(SYS_close_range, 3, ~0U, 0); /* what others left open; ours are CLOEXEC anyway */
        signal(SIGPIPE, SIG_DFL);
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        execvpe(command[0], command, environment);
    }
    say(command[0]);
    say(": can't be run: ");
    say(strerrordesc_np(errno));
    _exit(127);
}

/* vfork, since posix_spawn knows no PR_SET_PDEATHSIG; all signals are blocked in this thread, so that no handler of
 * ours can run in the child. PIPES: read and write end for 0, 1, 2. */
static __attribute__((noinline)) int spawn_with(struct child *child, char **command, char **environment,
                                                int pipes[3][2])
{
    pid_t server = getpid(), pid = vfork();

    if (pid == 0) become(command, environment, pipes, server);
    if (pid < 0) return -errno;
    child->pid = pid;
    return 0;
}

static int spawn(struct child *child, char **command, const char *method)
{
    int pipes[3][2] = { { -1, -1 }, { -1, -1 }, { -1, -1 } }, r = 0;
    char **environment = make_environment(method);

    if (!environment) r = -ENOMEM;
    for (int i = 0; i < 3 && r == 0; i++) r = pipe2(pipes[i], O_CLOEXEC) < 0 ? -errno : 0;
    if (r == 0) r = spawn_with(child, command, environment, pipes);
    if (r == 0) {
        child->pidfd = (int)syscall(SYS_pidfd_open, child->pid, 0);
        child->in = pipes[0][1];
        child->out = pipes[1][0];
        child->err = pipes[2][0];
        pipes[0][1] = pipes[1][0] = pipes[2][0] = -1;
        fcntl(child->in, F_SETFL, O_NONBLOCK);
        fcntl(child->out, F_SETFL, O_NONBLOCK);
        fcntl(child->err, F_SETFL, O_NONBLOCK);
    }
    for (int i = 0; i < 3; i++) {
        close_fd(&pipes[i][0]);
        close_fd(&pipes[i][1]);
    }
    free(environment);
    return r;
}

/* TROUBLE: what the caller is told; the first one stands. */
static void stop(struct child *child, const char *trouble)
{
    if (child->kill_at) return;
    child->trouble = trouble;
    child->kill_at = now_ms() + RUNNER_KILL_AFTER;
    kill(-child->pid, SIGTERM);
}

static void feed(struct child *child)
{
    while (child->left > 0) {
        ssize_t n = write(child->in, child->body, child->left);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return;
        if (n < 0) break; /* EPIPE: it doesn't want the rest, which is its right */
        child->body += n;
        child->left -= (size_t)n;
    }
    close_fd(&child->in);
}

/* Twice the room, which never exceeds RUNNER_OUTPUT_MAX: both are powers of two. */
static bool grow(struct child *child)
{
    size_t room = child->room ? child->room * 2 : 65536, more = room - child->room;
    char *output;

    if (atomic_fetch_add_explicit(&held, more, memory_order_relaxed) + more > RUNNER_HELD_MAX) {
        atomic_fetch_sub_explicit(&held, more, memory_order_relaxed);
        stop(child, "all commands together hold too much output (RUNNER_HELD_MAX, 2 GiB)");
        return false;
    }
    output = realloc(child->output, room);
    if (!output) {
        atomic_fetch_sub_explicit(&held, more, memory_order_relaxed);
        stop(child, "no memory for its output");
        return false;
    }
    child->output = output;
    child->room = room;
    return true;
}

static void read_output(struct child *child)
{
    for (;;) {
        char surplus;
        bool full = child->size == RUNNER_OUTPUT_MAX;
        ssize_t n;
        if (!full && child->size == child->room && !grow(child)) break;
        n = full ? read(child->out, &surplus, 1)
                 : read(child->out, child->output + child->size, child->room - child->size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) break;
        if (full) {
            stop(child, "its output is longer than a reply may be (RUNNER_OUTPUT_MAX, 1 GiB)");
            break;
        }
        child->size += (size_t)n;
    }
    close_fd(&child->out);
}

/* Keeps the last RUNNER_ERROR_MAX bytes: what a program says last is mostly why it ended. */
static void read_error(struct child *child)
{
    char chunk[RUNNER_ERROR_MAX];

    for (;;) {
        ssize_t n = read(child->err, chunk, sizeof(chunk));
        size_t size, over;
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) break;
        size = (size_t)n;
        over = child->error_size + size > RUNNER_ERROR_MAX ? child->error_size + size - RUNNER_ERROR_MAX : 0;
        memmove(child->error, child->error + over, child->error_size - over);
        child->error_size -= over;
        memcpy(child->error + child->error_size, chunk, size);
        child->error_size += size;
    }
    close_fd(&child->err);
}

static void look_at_caller(struct child *child, const plait_request *request)
{
    int64_t now = now_ms();

    /* In this order: what is out of time counts as cancelled, too. */
    if (plait_request_time_left(request) <= 0) {
        if (!child->over_since) child->over_since = now;
        if (now - child->over_since >= SLACK) stop(child, "its caller's time is over");
    } else if (plait_request_cancelled(request)) {
        stop(child, "nobody waits for it any more");
    }
    if (child->kill_at && now >= child->kill_at) kill(-child->pid, SIGKILL);
}

/* Until the child has ended. */
static void drive(struct child *child, const plait_request *request, int stop_fd)
{
    bool stopping = false, ended = false;

    while (!ended) {
        struct pollfd fds[] = {
            { child->pidfd, POLLIN, 0 }, { stopping ? -1 : stop_fd, POLLIN, 0 },
            { child->in, POLLOUT, 0 },   { child->out, POLLIN, 0 },
            { child->err, POLLIN, 0 },
        };
        if (poll(fds, 5, TICK) < 0) continue; /* EINTR */
        ended = fds[0].revents != 0;
        if (fds[1].revents) {
            stopping = true;
            stop(child, "the server is stopping");
        }
        if (fds[2].revents) feed(child);
        if (fds[3].revents || (ended && child->out >= 0)) read_output(child);
        if (fds[4].revents || (ended && child->err >= 0)) read_error(child);
        if (!ended) look_at_caller(child, request);
    }
}

static void answer(struct child *child, plait_request *request, const char *name, int status)
{
    int signal_number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    int code = signal_number ? 128 + signal_number : WEXITSTATUS(status);
    char *text = child->error;

    while (child->error_size > 0 && strchr("\n\r\t ", text[child->error_size - 1])) child->error_size--;
    text[child->error_size] = 0;
    if (child->trouble)
        plait_request_fail(request, (uint32_t)(code ? code : 1), "%s: killed: %s", name, child->trouble);
    else if (code != 0 && child->error_size > 0) plait_request_fail(request, (uint32_t)code, "%s", text);
    else if (signal_number)
        plait_request_fail(request, (uint32_t)code, "%s: killed by signal %d, %s", name, signal_number,
                           strsignal(signal_number));
    else if (code != 0) plait_request_fail(request, (uint32_t)code, "%s: ended with exit status %d", name, code);
    else if (plait_request_reply(request, child->output, child->size) < 0)
        complain("serve: a reply of %zu bytes did not reach its caller: %s", child->size, plait_error_text());
    if (code == 0 && child->error_size > 0)
        fprintf(stderr, "%s\n", text); /* remarks of a run that went well are for whoever runs the server */
}

void child_serve(plait_request *request, char **command, int stop_fd)
{
    struct child child = { .pidfd = -1, .in = -1, .out = -1, .err = -1 };
    plait_bytes body = plait_request_body(request);
    int status = 0, r;

    if (plait_request_cancelled(request)) {
        plait_request_fail(request, 1, "%s: not run: nobody waits for it any more", command[0]);
        return;
    }
    r = spawn(&child, command, plait_request_method(request));
    if (r < 0) {
        plait_request_fail(request, 127, "%s: can't be run: %s%s", command[0], strerror(-r),
                           r == -EMFILE ? " (raise ulimit -n)" : "");
        return;
    }
    child.body = body.data;
    child.left = body.size;
    feed(&child);
    if (child.pidfd >= 0) {
        drive(&child, request, stop_fd);
    } else {
        child.trouble = "no descriptor to watch it by (raise ulimit -n)";
        kill(-child.pid, SIGKILL);
    }
    close_fd(&child.in);
    while (waitpid(child.pid, &status, 0) < 0 && errno == EINTR) continue;
    close_fd(&child.pidfd);
    close_fd(&child.out);
    close_fd(&child.err);
    answer(&child, request, command[0], status);
    atomic_fetch_sub_explicit(&held, child.room, memory_order_relaxed);
    free(child.output);
}
