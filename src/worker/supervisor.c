/* supervisor: N places, each to be filled by a worker.
 *
 * It handles no calls and has no threads: it waits for ends (pidfds), news (sockets), pauses (timers) and signals, and
 * decides. A worker's state is where it is: a seat's holder serves, its successor is being born and will take over,
 * and what is in the list alone has been asked to stop.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "loop/signal.h"
#include "worker/worker.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

static const char *name_of(const struct pl_supervisor *supervisor)
{
    return supervisor->server->name;
}

static uint64_t in_ms(int64_t ms)
{
    return pl_clock_ns() + (uint64_t)ms * 1000000;
}

/* ---- stopping ---- */

/* The first reason stays: it is what plait_server_run() will say. */
static void fail(struct pl_supervisor *supervisor, int code, const char *text)
{
    if (supervisor->result < 0) return;
    supervisor->result = code;
    snprintf(supervisor->text, sizeof(supervisor->text), "%s", text);
}

static void on_kill_timer(struct pl_timer *timer)
{
    struct pl_worker *worker = pl_container_of(timer, struct pl_worker, kill_timer);
    struct pl_supervisor *supervisor = worker->supervisor;
    char work[300], text[500];
    pl_worker_tell_work(worker, 0, work, sizeof(work));
    snprintf(text, sizeof(text), "%s: worker %u (pid %d) was killed: it didn't stop within %lld ms%s%s",
             name_of(supervisor), worker->number, (int)worker->pid, (long long)worker->grace_ms, work[0] ? ", " : "",
             work);
    pl_log(PLAIT_LOG_ERROR, "%s", text);
    if (supervisor->stopping) fail(supervisor, -ETIMEDOUT, text);
    worker->killed = true;
    kill(worker->pid, SIGKILL);
}

static void ask_to_stop(struct pl_worker *worker, int64_t grace)
{
    struct pl_worker_order order = { .grace = grace };
    if (worker->asked) return;
    worker->asked = true;
    worker->grace_ms = grace == 0 ? PL_GRACE_MS : grace < 0 ? 0 : grace;
    (void)!send(worker->control.fd, &order, sizeof(order), MSG_NOSIGNAL);
    worker->kill_timer.due = on_kill_timer;
    if (grace != PLAIT_FOREVER)
        (void)pl_timer_set(&worker->supervisor->loop, &worker->kill_timer, in_ms(worker->grace_ms + PL_KILL_MS));
}

static void begin_stop(struct pl_supervisor *supervisor, int64_t grace)
{
    if (supervisor->stopping) return;
    supervisor->stopping = true;
    supervisor->rolling = 0;
    for (unsigned i = 0; i < supervisor->count; i++)
        pl_timer_clear(&supervisor->loop, &supervisor->seats[i].restart_timer);
    pl_list_each(item, &supervisor->workers) ask_to_stop(pl_container_of(item, struct pl_worker, link), grace);
}

/* ---- filling seats ---- */

static void on_process(struct pl_source *source, uint32_t events);
static void on_control(struct pl_source *source, uint32_t events);

static int spawn(struct pl_seat *seat, struct pl_worker **ret_worker)
{
    struct pl_supervisor *supervisor = seat->supervisor;
    struct pl_worker *worker = NULL;
    int r = pl_worker_spawn(seat, &worker);
    if (r < 0) return r;
    worker->process.ready = on_process;
    worker->control.ready = on_control;
    r = pl_loop_add(&supervisor->loop, &worker->process, EPOLLIN);
    if (r == 0) r = pl_loop_add(&supervisor->loop, &worker->control, EPOLLIN);
    if (r < 0) {
        kill(worker->pid, SIGKILL);
        while (waitpid(worker->pid, NULL, 0) < 0 && errno == EINTR) continue;
        pl_worker_free(worker);
        return r;
    }
    *ret_worker = worker;
    return 0;
}

static void fill_later(struct pl_seat *seat)
{
    uint64_t pause = 0;
    if (seat->quick > 1) pause = (uint64_t)PL_RESTART_MS << (seat->quick < 8 ? seat->quick - 2 : 6);
    if (pause > PL_RESTART_MOST_MS) pause = PL_RESTART_MOST_MS;
    (void)pl_timer_set(&seat->supervisor->loop, &seat->restart_timer, in_ms((int64_t)pause));
}

static void on_restart(struct pl_timer *timer)
{
    struct pl_seat *seat = pl_container_of(timer, struct pl_seat, restart_timer);
    if (seat->supervisor->stopping || seat->holder != NULL) return;
    seat->restarts++;
    if (spawn(seat, &seat->holder) == 0) return;
    pl_log(PLAIT_LOG_ERROR, "%s: %s; it is tried again", name_of(seat->supervisor), pl_error_text());
    seat->quick++;
    fill_later(seat);
}

/* ---- rolling ---- */

/* Goes on with the next seat, or ends. */
static void roll(struct pl_supervisor *supervisor)
{
    while (supervisor->rolling > 0 && supervisor->rolling <= supervisor->count) {
        struct pl_seat *seat = &supervisor->seats[supervisor->rolling - 1];
        if (seat->holder != NULL && spawn(seat, &seat->successor) == 0) return;
        if (seat->holder != NULL) {
            pl_log(PLAIT_LOG_ERROR, "%s: the workers stay as they are: %s", name_of(supervisor), pl_error_text());
            supervisor->rolling = 0;
            return;
        }
        supervisor->rolling++; /* nobody is there: whoever comes is a new one anyway */
    }
    if (supervisor->rolling > 0) pl_log(PLAIT_LOG_INFO, "%s: every worker has been replaced", name_of(supervisor));
    supervisor->rolling = 0;
}

static void begin_rolling(struct pl_supervisor *supervisor)
{
    if (supervisor->stopping || supervisor->rolling > 0) return;
    pl_log(PLAIT_LOG_INFO, "%s: SIGHUP: the workers are replaced one after the other", name_of(supervisor));
    supervisor->rolling = 1;
    roll(supervisor);
}

/* The worker serves: the one before it, if there is one, stops. */
static void on_ready(struct pl_worker *worker)
{
    struct pl_supervisor *supervisor = worker->supervisor;
    struct pl_seat *seat = worker->seat;
    worker->ready = true;
    if (seat->successor == worker) {
        pl_log(PLAIT_LOG_INFO, "%s: worker %u: pid %d takes over from pid %d", name_of(supervisor), worker->number,
               (int)worker->pid, seat->holder ? (int)seat->holder->pid : 0);
        if (seat->holder) ask_to_stop(seat->holder, 0);
        seat->holder = worker;
        seat->successor = NULL;
    } else {
        pl_log(PLAIT_LOG_INFO, "%s: worker %u (pid %d) serves", name_of(supervisor), worker->number, (int)worker->pid);
    }
    for (unsigned i = 0; i < supervisor->count; i++)
        if (supervisor->seats[i].holder == NULL || !supervisor->seats[i].holder->ready) return;
    const plait_worker_hooks *hooks = &supervisor->server->hooks;
    if (!supervisor->up && hooks->ready) hooks->ready(supervisor->server, hooks->context);
    supervisor->up = true;
}

/* ---- news ---- */

static void read_news(struct pl_worker *worker)
{
    struct pl_worker_message message;
    for (;;) {
        ssize_t n = recv(worker->control.fd, &message, sizeof(message), MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return;
        if (n != (ssize_t)sizeof(message)) { /* its end; the pidfd tells the rest */
            pl_loop_remove(&worker->supervisor->loop, &worker->control);
            return;
        }
        message.text[sizeof(message.text) - 1] = 0;
        if (message.news == PL_WORKER_READY && !worker->ready) {
            if (message.text[0]) (void)pl_status_page_open(message.text, &worker->page_fd);
            on_ready(worker);
        } else if (message.news == PL_WORKER_FAILED) {
            worker->failure = message;
        }
    }
}

static void on_control(struct pl_source *source, uint32_t events)
{
    (void)events;
    read_news(pl_container_of(source, struct pl_worker, control));
}

/* ---- deaths ---- */

static uint64_t reap(struct pl_worker *worker)
{
    siginfo_t info = { 0 };
    while (waitid((idtype_t)P_PIDFD, (id_t)worker->process.fd, &info, WEXITED) < 0 && errno == EINTR) continue;
    uint64_t how = info.si_code == CLD_KILLED || info.si_code == CLD_DUMPED ? PL_DEATH_SIGNAL : PL_DEATH_EXIT;
    /* Which thread, if it could still say so. */
    return pl_death_of(how, info.si_status, (pid_t)pl_death_thread(pl_load_death(worker->load)));
}

/* True if there were too many of them lately. */
static bool too_many(struct pl_supervisor *supervisor)
{
    int burst = supervisor->server->restart_burst;
    if (burst < 0) return false;
    uint64_t now = pl_clock_ns();
    unsigned place = supervisor->death_count++ % (unsigned)burst;
    supervisor->deaths[place] = now;
    if (supervisor->death_count < (unsigned)burst) return false;
    uint64_t oldest = supervisor->deaths[supervisor->death_count % (unsigned)burst];
    return now - oldest <= (uint64_t)PLAIT_RESTART_WINDOW_MS * 1000000;
}

/* WORKER ended and nobody had asked it to. */
static void on_death(struct pl_worker *worker, uint64_t death)
{
    struct pl_supervisor *supervisor = worker->supervisor;
    struct pl_seat *seat = worker->seat;
    char text[1000], all[1400];
    pl_worker_tell_death(worker, death, text, sizeof(text));
    pl_log(PLAIT_LOG_ERROR, "%s: %s", name_of(supervisor), text);
    if (supervisor->stopping) return;
    if (seat->successor == worker) {
        seat->successor = NULL;
        supervisor->rolling = 0;
        pl_log(PLAIT_LOG_ERROR, "%s: the workers stay as they are: the new one could not serve", name_of(supervisor));
        return;
    }
    if (seat->holder != worker) return;
    seat->holder = NULL;
    if (!supervisor->up && worker->failure.code < 0) {
        snprintf(all, sizeof(all), "%s: worker %u can't serve: %s", name_of(supervisor), worker->number,
                 worker->failure.text);
        fail(supervisor, worker->failure.code, all);
    } else if (too_many(supervisor)) {
        snprintf(all, sizeof(all), "%s: %d workers died within %d s (restart_burst); the last one: %s",
                 name_of(supervisor), supervisor->server->restart_burst, PLAIT_RESTART_WINDOW_MS / 1000, text);
        fail(supervisor, -EOWNERDEAD, all);
    }
    if (supervisor->result < 0) {
        begin_stop(supervisor, 0);
        return;
    }
    bool quick = pl_clock_ns() - worker->since < (uint64_t)PLAIT_RESTART_WINDOW_MS * 1000000;
    seat->quick = quick ? seat->quick + 1 : 1;
    fill_later(seat);
}

static void on_process(struct pl_source *source, uint32_t events)
{
    struct pl_worker *worker = pl_container_of(source, struct pl_worker, process);
    struct pl_supervisor *supervisor = worker->supervisor;
    struct pl_seat *seat = worker->seat;
    (void)events;
    read_news(worker);
    uint64_t death = reap(worker);
    pl_load_note_death(worker->load, death); /* for its clients, first of all */
    bool gracefully = worker->asked && death == pl_death_of(PL_DEATH_EXIT, 0, (pid_t)pl_death_thread(death));
    if (gracefully || worker->killed) {
        pl_log(PLAIT_LOG_INFO, "%s: worker %u (pid %d) has ended", name_of(supervisor), worker->number,
               (int)worker->pid);
    } else {
        if (worker->asked && worker->failure.code < 0 && supervisor->stopping)
            fail(supervisor, worker->failure.code, worker->failure.text);
        on_death(worker, death);
    }
    if (seat->holder == worker) seat->holder = NULL;
    if (seat->successor == worker) seat->successor = NULL;
    bool replaced = worker->asked && !supervisor->stopping;
    pl_worker_free(worker);
    if (replaced && supervisor->rolling > 0) {
        supervisor->rolling++;
        roll(supervisor);
    }
}

/* ---- the loop ---- */

static void on_wake(struct pl_source *source, uint32_t events)
{
    uint64_t count;
    (void)events;
    (void)!read(source->fd, &count, sizeof(count));
}

/* The hook that runs after each wait reads it. */
static void on_attended(struct pl_source *source, uint32_t events)
{
    (void)source;
    (void)events;
}

static void heed_signals(struct pl_supervisor *supervisor)
{
    struct plait_server *server = supervisor->server;
    /* A_STOP2: pairs with R_STOP1 in server/run.c */
    bool stopping = atomic_load_explicit(&server->stopping, memory_order_acquire);
    if (pl_signal_caught(supervisor->ticket)) begin_stop(supervisor, 0);
    else if (stopping) begin_stop(supervisor, atomic_load_explicit(&server->grace, memory_order_relaxed)); /* A_STOP2 */
    if (pl_signal_hung_up(supervisor->ticket)) begin_rolling(supervisor);
}

static void warn_of_threads(const struct pl_supervisor *supervisor)
{
    int threads = 0;
    DIR *tasks = opendir("/proc/self/task");
    if (tasks == NULL) return;
    for (struct dirent *item; (item = readdir(tasks)) != NULL;) threads += item->d_name[0] != '.';
    closedir(tasks);
    if (threads > 1 && supervisor->server->hooks.spawn == NULL)
        pl_log(PLAIT_LOG_ERROR,
               "%s: %d threads run where workers are forked: what another one has locked stays locked in the workers "
               "(start threads in the `start` hook)",
               name_of(supervisor), threads - 1);
}

static int set_up(struct pl_supervisor *supervisor)
{
    struct plait_server *server = supervisor->server;
    unsigned burst = server->restart_burst > 0 ? (unsigned)server->restart_burst : 1;
    supervisor->count = (unsigned)server->processes;
    supervisor->seats = calloc(supervisor->count, sizeof(*supervisor->seats));
    supervisor->deaths = calloc(burst, sizeof(*supervisor->deaths));
    if (supervisor->seats == NULL || supervisor->deaths == NULL)
        return pl_error(-ENOMEM, "no memory for %u workers", supervisor->count);
    for (unsigned i = 0; i < supervisor->count; i++)
        supervisor->seats[i] =
            (struct pl_seat){ .supervisor = supervisor, .number = i + 1, .restart_timer = { .due = on_restart } };
    int r = pl_loop_init(&supervisor->loop, PL_LOOP_EVENTS);
    supervisor->wake = PL_SOURCE(server->wake_fd, on_wake);
    supervisor->attended = PL_SOURCE(server->hooks.attend ? server->hooks.attend_fd : -1, on_attended);
    if (r == 0) r = pl_loop_add(&supervisor->loop, &supervisor->wake, EPOLLIN);
    if (r == 0 && supervisor->attended.fd >= 0) r = pl_loop_add(&supervisor->loop, &supervisor->attended, EPOLLIN);
    if (r == 0) r = supervisor->ticket = pl_signal_catch(server->wake_fd, true);
    return r < 0 ? r : 0;
}

static void serve(struct pl_supervisor *supervisor)
{
    struct plait_server *server = supervisor->server;
    for (unsigned i = 0; i < supervisor->count && supervisor->result == 0; i++) {
        int r = spawn(&supervisor->seats[i], &supervisor->seats[i].holder);
        if (r < 0) fail(supervisor, r, pl_error_text());
    }
    if (supervisor->result < 0) begin_stop(supervisor, 0);
    while (!supervisor->stopping || !pl_list_empty(&supervisor->workers)) {
        heed_signals(supervisor);
        if (supervisor->stopping && pl_list_empty(&supervisor->workers)) break;
        if (pl_loop_wait(&supervisor->loop, PL_NEVER) < 0) {
            fail(supervisor, -EIO, pl_error_text());
            begin_stop(supervisor, PLAIT_NOW);
        }
        pl_loop_run_ready(&supervisor->loop);
        if (server->hooks.attend) server->hooks.attend(server, server->hooks.context);
    }
}

int pl_supervise(struct plait_server *server)
{
    struct pl_supervisor supervisor = { .server = server, .ticket = -1, .loop = { .epoll_fd = -1 } };
    int r = pl_server_check(server);
    if (r == 0 && server->state != PL_SERVER_OPEN)
        r = pl_error(-EBUSY, "%s %s", server->name,
                     server->state == PL_SERVER_RUNNING ? "runs already" : "has run and ended: open another");
    /* With either of these hooks the methods may be the workers' own affair. */
    if (r == 0) r = server->hooks.start || server->hooks.spawn ? 0 : pl_server_resolve(server);
    if (r < 0) return r;
    pl_list_init(&supervisor.workers);
    r = set_up(&supervisor);
    if (r == 0) {
        server->state = PL_SERVER_RUNNING;
        warn_of_threads(&supervisor);
        serve(&supervisor);
        server->state = PL_SERVER_ENDED;
        if (supervisor.result < 0) r = pl_error(supervisor.result, "%s", supervisor.text);
    }
    pl_signal_release(supervisor.ticket);
    pl_loop_deinit(&supervisor.loop);
    free(supervisor.seats);
    free(supervisor.deaths);
    return r;
}
