/* child: the life of a worker, from its birth to its end.
 *
 * A thread of its own heeds the supervisor: its order to stop, and its end, whatever the handlers are busy with. It
 * is started after the `start` hook, when forking is over.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "loop/crash.h"
#include "loop/signal.h"
#include "worker/worker.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct plait_server *serving; /* under the lock; NULL: it has ended */
static int control_fd = -1, supervisor_fd = -1;
static struct pl_status_thread *heeding; /* as it is shown; until the process ends */

static void tell(uint32_t news, int code, const char *text)
{
    struct pl_worker_message message = { .news = news, .code = code };
    snprintf(message.text, sizeof(message.text), "%s", text);
    (void)!send(control_fd, &message, sizeof(message), MSG_NOSIGNAL);
}

static void stop(int64_t grace)
{
    pthread_mutex_lock(&lock);
    if (serving != NULL) (void)plait_server_stop(serving, grace);
    pthread_mutex_unlock(&lock);
}

/* Nobody is there to end a worker that doesn't end by itself. */
static void end_as_orphan(void)
{
    stop(PL_ORPHAN_MS);
    (void)poll(NULL, 0, PL_ORPHAN_MS + PL_KILL_MS);
    _exit(1);
}

static void *heed(void *unused)
{
    char name[16];
    (void)unused;
    pthread_mutex_lock(&lock);
    snprintf(name, sizeof(name), "plait/%.7s/w", serving ? serving->name : "");
    if (serving) heeding = pl_status_thread_add(serving->status, PL_STATUS_WATCHES, name);
    pthread_mutex_unlock(&lock);
    pthread_setname_np(pthread_self(), name);
    for (;;) {
        struct pl_worker_order order;
        struct pollfd pollers[2] = { { .fd = control_fd, .events = POLLIN },
                                     { .fd = supervisor_fd, .events = POLLIN } };
        if (poll(pollers, 2, -1) < 0) continue;
        if (recv(control_fd, &order, sizeof(order), MSG_DONTWAIT) == (ssize_t)sizeof(order)) stop(order.grace);
        else if (pollers[1].revents || pollers[0].revents & (POLLHUP | POLLERR)) end_as_orphan();
    }
    return NULL;
}

int pl_worker_bind(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    return getppid() == parent ? 0 : pl_error(-ECONNRESET, "the supervisor (pid %d) is gone", (int)parent);
}

static int start_heeding(struct plait_server *server)
{
    pthread_t thread;
    sigset_t before;
    serving = server;
    supervisor_fd = pl_fd_pidfd(server->supervisor); /* without one the socket's end has to do */
    pl_signal_block_all(&before);
    int error = pthread_create(&thread, NULL, heed, NULL);
    if (error == 0) pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    /* From now on it ends in good order; a signal is still needed to wake who is stopped. */
    if (error == 0) prctl(PR_SET_PDEATHSIG, SIGCONT);
    return error == 0 ? 0 : pl_error(-error, "cannot start a thread: %s", pl_error_word(error));
}

/* In the signal handler: a store. */
static void note_crash(int number, pid_t thread, void *page)
{
    pl_load_note_death(page, pl_death_of(PL_DEATH_SIGNAL, number, thread));
}

static void on_serving(struct plait_server *server)
{
    char name[17];
    (void)server;
    pl_status_page_name(name);
    tell(PL_WORKER_READY, 0, name);
}

static int run(struct plait_server *server)
{
    int r = 0;
    (void)pl_error(0, "%s", ""); /* what the supervisor's text was isn't this worker's */
    if (server->hooks.start) r = server->hooks.start(server, (int)server->worker, server->hooks.context);
    if (r < 0) return pl_error_in(r, "start hook");
    r = pl_server_bring_up(server);
    if (r < 0) return r;
    pl_crash_arm(note_crash, server->load);
    pl_crash_watch(control_fd);
    (void)pl_crash_stack_begin();
    server->serving = on_serving;
    r = start_heeding(server);
    if (r == 0) r = pl_server_serve(server);
    if (server->hooks.end && !server->abandoned) server->hooks.end(server, (int)server->worker, server->hooks.context);
    return r;
}

/* The socket stays open, for the thread that heeds it and for the supervisor, to whom its end is this process's. */
int pl_worker_serve(struct plait_server *server, int control)
{
    char text[1024];
    control_fd = control;
    int r = run(server);
    snprintf(text, sizeof(text), "%s", plait_error_text()[0] ? plait_error_text() : pl_error_word(r));
    if (r < 0) tell(PL_WORKER_FAILED, r, text);
    pthread_mutex_lock(&lock);
    serving = NULL;
    pthread_mutex_unlock(&lock);
    return r < 0 ? pl_error(r, "%s", text) : 0;
}

void pl_worker_live(struct plait_server *server, int control)
{
    int r = pl_worker_serve(server, control);
    plait_server_close(server);
    fflush(NULL);
    _exit(r < 0);
}
