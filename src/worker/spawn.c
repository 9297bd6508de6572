/* spawn: a worker is born by fork(), without exec: it has the methods, handlers and listeners of the supervisor, and
 * its load page, which the supervisor made, so that it can note in it what the worker died of. Or the program's hook
 * starts another program, which gets listeners and page by the socket (adopt.c).
 *
 * Siblings' descriptors and pages are closed in the child at once: a socket that lives on in a sibling would hide a
 * death.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "loop/signal.h"
#include "worker/worker.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

void pl_worker_free(struct pl_worker *worker)
{
    if (worker == NULL) return;
    struct pl_loop *loop = &worker->supervisor->loop;
    pl_loop_remove(loop, &worker->process);
    pl_loop_remove(loop, &worker->control);
    pl_timer_clear(loop, &worker->kill_timer);
    pl_close(&worker->process.fd);
    pl_close(&worker->control.fd);
    pl_close(&worker->theirs);
    pl_close(&worker->load_fd);
    pl_close(&worker->page_fd);
    pl_load_detach(worker->load);
    pl_list_remove(&worker->link);
    free(worker);
}

static int prepare(struct pl_seat *seat, struct pl_worker **ret_worker)
{
    int sockets[2];
    struct pl_worker *worker = calloc(1, sizeof(*worker));
    if (worker == NULL) return pl_error(-ENOMEM, "no memory for a worker");
    worker->supervisor = seat->supervisor;
    worker->seat = seat;
    worker->number = seat->number;
    worker->process.fd = worker->control.fd = worker->theirs = worker->load_fd = worker->page_fd = -1;
    pl_list_init(&worker->link);
    int r = seat->supervisor->server->hooks.spawn ? pl_load_create_open(&worker->load, &worker->load_fd)
                                                  : pl_load_create(&worker->load, &worker->load_fd);
    if (r == 0 && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sockets) < 0)
        r = pl_error(-errno, "cannot make a socket: %s", pl_error_word(errno));
    if (r < 0) {
        pl_worker_free(worker);
        return r;
    }
    worker->control.fd = sockets[0];
    worker->theirs = sockets[1];
    worker->load->worker = seat->number;
    worker->load->supervisor = getpid();
    *ret_worker = worker;
    return 0;
}

/* In the child: nothing of the supervisor is left but the server, which becomes an ordinary one. */
static void become_worker(struct pl_worker *worker, pid_t parent)
{
    struct pl_supervisor *supervisor = worker->supervisor;
    struct plait_server *server = supervisor->server;
    sigset_t none;
    pl_signal_release(supervisor->ticket);
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    if (pl_worker_bind(parent) < 0) _exit(1);
    int control = worker->theirs;
    worker->theirs = -1;
    server->load = worker->load;
    server->load_fd = worker->load_fd;
    worker->load = NULL;
    worker->load_fd = -1;
    server->worker = worker->number;
    server->restarts = worker->seat->restarts;
    server->supervisor = parent;
    server->spawning = server->forked = false;
    atomic_store_explicit(&server->stopping, 0, memory_order_relaxed); /* relaxed: one thread is here */
    server->state = PL_SERVER_OPEN;
    pl_close(&server->wake_fd);
    pl_close(&supervisor->loop.epoll_fd); /* first: what is removed from it now would be removed from the parent's */
    pl_worker_free(worker);
    while (!pl_list_empty(&supervisor->workers))
        pl_worker_free(pl_container_of(supervisor->workers.next, struct pl_worker, link));
    pl_loop_deinit(&supervisor->loop);
    free(supervisor->seats);
    free(supervisor->deaths);
    if (pl_fork_add(&server->fork_hook) < 0) _exit(1);
    pl_worker_live(server, control);
}

/* -1 with errno; returns in the supervisor alone. */
static pid_t bear(struct pl_worker *worker)
{
    struct plait_server *server = worker->supervisor->server;
    const plait_worker_hooks *hooks = &server->hooks;
    pid_t own = getpid();
    if (hooks->spawn) return (pid_t)hooks->spawn(server, worker->theirs, hooks->context);
    fflush(NULL); /* or the worker would write it once more */
    server->spawning = true;
    pid_t pid = hooks->fork ? (pid_t)hooks->fork(hooks->context) : fork();
    int error = errno;
    if (pid == 0) become_worker(worker, own);
    server->spawning = false;
    errno = error;
    return pid;
}

int pl_worker_spawn(struct pl_seat *seat, struct pl_worker **ret_worker)
{
    struct plait_server *server = seat->supervisor->server;
    struct pl_worker *worker = NULL;
    int r = prepare(seat, &worker);
    if (r == 0 && server->hooks.spawn) r = pl_worker_send_seed(worker);
    if (r < 0) {
        pl_worker_free(worker);
        return r;
    }
    errno = 0;
    pid_t pid = bear(worker);
    int error = errno;
    pl_close(&worker->theirs);
    pl_close(&worker->load_fd);
    if (pid < 0) {
        pl_worker_free(worker);
        return pl_error(error > 0 ? -error : -EAGAIN, "cannot %s worker %u of %s: %s (ulimit -u, pids.max)",
                        server->hooks.spawn ? "start" : "fork", seat->number, server->name,
                        pl_error_word(error > 0 ? error : EAGAIN));
    }
    worker->pid = pid;
    worker->since = pl_clock_ns();
    worker->process.fd = pl_fd_pidfd(pid);
    if (worker->process.fd < 0) {
        r = pl_error(worker->process.fd, "cannot watch worker %u of %s: %s", seat->number, server->name,
                     pl_error_word(worker->process.fd));
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) continue;
        pl_worker_free(worker);
        return r;
    }
    pl_list_append(&seat->supervisor->workers, &worker->link);
    *ret_worker = worker;
    return 0;
}
