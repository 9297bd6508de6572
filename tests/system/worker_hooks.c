/* worker_hooks: what a program has to do with its workers, and what goes wrong there. */
#include "system/crew.h"

#include <errno.h>
#include <fcntl.h>
#include <plait/worker.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* What a test tells its workers, and what they tell it. */
static struct told {
    _Atomic int32_t fail_forks, exit_with, fail_start, abort_starts, release; /* orders */
    _Atomic int32_t ready, forks, starting, in_handler, ended, attended;      /* news */
} * told;

static void begin(void)
{
    journal_open();
    told = mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(told != MAP_FAILED);
}

static void finish(void)
{
    munmap(told, sizeof(*told));
    journal_close();
}

struct plan {
    plait_server_options options;
    plait_worker_hooks hooks;
    int result; /* of run */
    const char *text;
    const char *more;
};

static void on_number(plait_request *request, void *context)
{
    plait_request_replyf(request, "%d", plait_server_worker(*(plait_server **)context));
}

static void on_exit_now(plait_request *request, void *context)
{
    (void)request;
    (void)context;
    _exit(atomic_load(&told->exit_with));
}

static void on_stay(plait_request *request, void *context)
{
    (void)context;
    atomic_store(&told->in_handler, (int32_t)getpid());
    while (!atomic_load(&told->release)) pause_ms(1);
    plait_request_reply(request, "gone", 4);
}

/* In a process of its own. */
static void run_plan(const struct plan *plan)
{
    plait_server *server = NULL;
    journal_keep();
    size_t fds = test_count_fds(), mappings = test_count_mappings();
    CHECK_INT(plait_server_open(&server, "planned", &plan->options), 0);
    CHECK_INT(plait_server_handle(server, "number", on_number, &server), 0);
    CHECK_INT(plait_server_handle(server, "exit", on_exit_now, NULL), 0);
    CHECK_INT(plait_server_handle(server, "stay", on_stay, NULL), 0);
    CHECK_INT(plait_server_workers(server, &plan->hooks), 0);
    int r = plait_server_run(server);
    CHECK_INT(r, plan->result);
    if (plan->text) CHECK_CONTAINS(plait_error_text(), plan->text);
    if (plan->more) CHECK_CONTAINS(plait_error_text(), plan->more);
    plait_server_close(server);
    CHECK_INT(test_count_fds(), fds);
    CHECK_INT(test_count_mappings(), mappings);
    leave(0);
}

static pid_t start_plan(const struct plan *plan)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) run_plan(plan);
    return pid;
}

static struct plan new_plan(int processes)
{
    return (struct plan){ .options = { .size = sizeof(plait_server_options), .processes = processes },
                          .hooks = PLAIT_WORKER_HOOKS_INIT };
}

static int abort_at_once(plait_server *server, int worker, void *context)
{
    (void)server;
    (void)worker;
    (void)context;
    if (atomic_fetch_sub(&told->abort_starts, 1) > 0) raise(SIGKILL);
    return 0;
}

TEST(workers_that_die_at_once_every_time_end_it_all_with_the_last_one_s_signal)
{
    begin();
    struct plan plan = new_plan(2);
    plan.hooks.start = abort_at_once;
    plan.result = -EOWNERDEAD;
    plan.text = "planned: 5 workers died within 10 s (restart_burst); the last one: worker";
    plan.more = "died: signal 9 (Killed)";
    atomic_store(&told->abort_starts, 1000);
    CHECK_INT(test_wait_child(start_plan(&plan)), 0);
    /* The fifth death brings no other; meanwhile the second place's may have begun, too, or wait for its turn. */
    int starts = 1000 - atomic_load(&told->abort_starts);
    CHECK(starts == 5 || starts == 6);
    CHECK_INT(entries_of_names(), 0);
    finish();
}

TEST(fewer_deaths_than_the_burst_are_survived)
{
    begin();
    struct plan plan = new_plan(1);
    plan.hooks.start = abort_at_once;
    plan.options.restart_burst = 4;
    atomic_store(&told->abort_starts, 3);
    pid_t pid = start_plan(&plan);
    struct crew crew = await_crew("planned", 1, 0);
    CHECK_INT(crew.restarts[0], 3);
    CHECK_INT(kill(pid, SIGTERM), 0);
    CHECK_INT(test_wait_child(pid), 0);
    finish();
}

static int refuse_to_start(plait_server *server, int worker, void *context)
{
    (void)worker;
    (void)context;
    plait_client *client;
    plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
    options.connect_timeout = PLAIT_NOW;
    CHECK_INT(plait_server_worker(server), worker);
    return atomic_load(&told->fail_start) ? plait_client_open(&client, "absent", &options) : 0;
}

TEST(a_start_hook_that_fails_ends_the_first_start_with_its_words)
{
    begin();
    struct plan plan = new_plan(2);
    plan.hooks.start = refuse_to_start;
    plan.result = -ENOENT;
    plan.text = "can't serve: start hook:";
    plan.more = "no service 'absent'";
    atomic_store(&told->fail_start, 1);
    CHECK_INT(test_wait_child(start_plan(&plan)), 0);
    finish();
}

static int give_up(plait_server *server, int worker, void *context)
{
    (void)server;
    (void)context;
    CHECK_INT(worker, 1);
    return plait_worker_fail(-EACCES, "the database is locked");
}

TEST(what_a_start_hook_says_by_plait_worker_fail_is_what_run_says)
{
    begin();
    struct plan plan = new_plan(1);
    plan.hooks.start = give_up;
    plan.result = -EACCES;
    plan.text = "planned: worker 1 can't serve: start hook: the database is locked";
    CHECK_INT(test_wait_child(start_plan(&plan)), 0);
    CHECK(written("died: exit status 1: start hook: the database is locked"));
    finish();
}

static int hang_in_start(plait_server *server, int worker, void *context)
{
    (void)server;
    (void)worker;
    (void)context;
    atomic_store(&told->starting, (int32_t)getpid());
    while (!atomic_load(&told->release)) pause_ms(1);
    return 0;
}

TEST(a_worker_whose_start_hook_hangs_dies_with_its_supervisor)
{
    begin();
    struct plan plan = new_plan(1);
    plan.hooks.start = hang_in_start;
    CHECK_INT(prctl(PR_SET_CHILD_SUBREAPER, 1), 0); /* the orphan would come to us */
    pid_t pid = start_plan(&plan);
    WAIT_UNTIL(atomic_load(&told->starting) != 0);
    kill_process(pid);
    CHECK_INT(waitpid(atomic_load(&told->starting), NULL, 0), atomic_load(&told->starting));
    CHECK_INT(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
    finish();
}

TEST(an_exclusive_name_is_its_supervisor_s_while_none_of_its_workers_serves)
{
    char text[128];
    plait_server *other = NULL;
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    begin();
    struct plan plan = new_plan(1);
    plan.options.exclusive = 1;
    plan.hooks.start = hang_in_start;
    pid_t pid = start_plan(&plan);
    WAIT_UNTIL(atomic_load(&told->starting) != 0);
    snprintf(text, sizeof(text), "exclusively served by pid %d (", (int)pid);
    CHECK_INT(plait_server_open(&other, "planned", NULL), -EADDRINUSE);
    CHECK_CONTAINS(plait_error_text(), text);
    CHECK_CONTAINS(plait_error_text(), ", with workers)");
    options.exclusive = 1;
    CHECK_INT(plait_server_open(&other, "planned", &options), -EADDRINUSE);
    snprintf(text, sizeof(text), "already served by pid %d (", (int)pid);
    CHECK_CONTAINS(plait_error_text(), text);
    atomic_store(&told->release, 1);
    (void)await_crew("planned", 1, 0); /* nobody took the name from it */
    CHECK_INT(kill(pid, SIGTERM), 0);
    CHECK_INT(test_wait_child(pid), 0);
    CHECK_INT(plait_server_open(&other, "planned", &options), 0);
    plait_server_close(other);
    finish();
}

TEST(processes_that_share_a_name_keep_an_exclusive_one_away_while_no_worker_serves)
{
    plait_server *other = NULL;
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    begin();
    struct plan plan = new_plan(1);
    plan.hooks.start = hang_in_start;
    pid_t pid = start_plan(&plan);
    WAIT_UNTIL(atomic_load(&told->starting) != 0);
    options.exclusive = 1;
    CHECK_INT(plait_server_open(&other, "planned", &options), -EADDRINUSE);
    CHECK_INT(plait_server_open(&other, "planned", NULL), 0); /* they share with whoever shares */
    plait_server_close(other);
    atomic_store(&told->release, 1);
    (void)await_crew("planned", 1, 0);
    CHECK_INT(kill(pid, SIGTERM), 0);
    CHECK_INT(test_wait_child(pid), 0);
    finish();
}

static int count_or_fail(void *context)
{
    (void)context;
    if (atomic_load(&told->fail_forks) > 0 && atomic_fetch_sub(&told->fail_forks, 1) > 0) {
        errno = EAGAIN;
        return -1;
    }
    atomic_fetch_add(&told->forks, 1);
    return fork();
}

TEST(a_fork_that_fails_at_first_is_told_and_later_is_tried_again)
{
    begin();
    struct plan plan = new_plan(2);
    plan.hooks.fork = count_or_fail;
    plan.result = -EAGAIN;
    plan.text = "cannot fork worker 1 of planned: ";
    plan.more = "ulimit -u";
    atomic_store(&told->fail_forks, 1);
    CHECK_INT(test_wait_child(start_plan(&plan)), 0);

    plan.result = 0;
    plan.text = plan.more = NULL;
    pid_t pid = start_plan(&plan);
    struct crew crew = await_crew("planned", 2, 0);
    atomic_store(&told->fail_forks, 2);
    CHECK_INT(kill(crew.pids[0], SIGKILL), 0);
    (void)await_crew("planned", 2, crew.pids[0]);
    WAIT_UNTIL(written("it is tried again"));
    CHECK_INT(kill(pid, SIGTERM), 0);
    CHECK_INT(test_wait_child(pid), 0);
    CHECK_INT(atomic_load(&told->forks), 3);
    finish();
}

static void note_ready(plait_server *server, void *context)
{
    CHECK_INT(plait_server_worker(server), 0);
    CHECK(context == NULL);
    atomic_fetch_add(&told->ready, 1);
}

TEST(a_worker_that_exits_is_told_with_its_status_and_started_again)
{
    begin();
    struct plan plan = new_plan(2);
    plan.hooks.ready = note_ready;
    plan.options.exclusive = 1; /* beside others, not beside each other */
    pid_t pid = start_plan(&plan);
    WAIT_UNTIL(atomic_load(&told->ready) == 1);
    plait_server *other = NULL;
    CHECK_INT(plait_server_open(&other, "planned", NULL), -EADDRINUSE);
    CHECK_INT(crew_of("planned").count, 2); /* that is what ready means */
    plait_client *client = open_client("planned", NULL);
    plait_reply *reply = NULL;
    CHECK_INT(plait_client_call(client, "number", NULL, 0, NULL, &reply), 0);
    CHECK_INT(plait_reply_body(reply).size, 1);
    int number = ((const char *)plait_reply_body(reply).data)[0] - '0';
    CHECK(number == 1 || number == 2);
    plait_reply_free(reply);
    for (int status = 0; status < 2; status++) {
        char text[64];
        atomic_store(&told->exit_with, status * 3);
        CHECK_INT(plait_client_call(client, "exit", NULL, 0, NULL, NULL), -ECONNRESET);
        snprintf(text, sizeof(text), "died: exit status %d", status * 3);
        if (!test_sanitized()) CHECK_CONTAINS(plait_error_text(), text); /* there the news takes its time */
        WAIT_UNTIL(written(text));
        (void)await_crew("planned", 2, 0);
    }
    WAIT_UNTIL(written("exit status 0 (nobody had asked it to end)"));
    WAIT_UNTIL(written("of planned/exit in progress"));
    CHECK_INT(atomic_load(&told->ready), 1);
    plait_client_close(client);
    CHECK_INT(kill(pid, SIGTERM), 0);
    CHECK_INT(test_wait_child(pid), 0);
    finish();
}

static void ignore(int result, plait_reply *reply, void *context)
{
    (void)result;
    (void)context;
    plait_reply_free(reply);
}

static void note_end(plait_server *server, int worker, void *context)
{
    CHECK_INT(plait_server_worker(server), worker);
    CHECK(context == told);
    CHECK(atomic_load(&told->in_handler) != getpid() || atomic_load(&told->release)); /* its handlers are through */
    atomic_fetch_add(&told->ended, 1 << 8 * worker);
}

TEST(the_end_hook_runs_in_each_worker_that_ends_in_good_order_when_its_handlers_are_through)
{
    begin();
    struct plan plan = new_plan(2);
    plan.hooks.end = note_end;
    plan.hooks.context = told;
    plan.options.threads = 2;
    pid_t pid = start_plan(&plan);
    struct crew crew = await_crew("planned", 2, 0);
    CHECK_INT(kill(crew.pids[0], SIGKILL), 0);
    (void)await_crew("planned", 2, crew.pids[0]);
    CHECK_INT(atomic_load(&told->ended), 0);
    plait_client *client = open_client("planned", NULL);
    CHECK_INT(plait_client_call_async(client, "stay", NULL, 0, NULL, ignore, NULL, NULL), 0);
    WAIT_UNTIL(atomic_load(&told->in_handler) != 0);
    CHECK_INT(kill(pid, SIGTERM), 0);
    WAIT_UNTIL(entries_of_names() == 0); /* both drain, and one of them waits for its handler */
    atomic_store(&told->release, 1);
    CHECK_INT(test_wait_child(pid), 0);
    CHECK_INT(atomic_load(&told->ended), 1 << 8 | 1 << 16);
    plait_client_close(client);
    finish();
}

/* ---- attend ---- */

static int attend_pipe[2];

/* "s": stop. */
static void attend(plait_server *server, void *context)
{
    char byte = 0;
    CHECK_INT(plait_server_worker(server), 0);
    CHECK(context == told);
    if (read(attend_pipe[0], &byte, 1) == 1 && byte == 's') CHECK_INT(plait_server_stop(server, 0), 0);
    atomic_fetch_add(&told->attended, 1);
}

TEST(the_supervisor_attends_to_its_program_s_descriptor_and_whenever_it_woke_up)
{
    begin();
    CHECK_INT(pipe2(attend_pipe, O_CLOEXEC | O_NONBLOCK), 0);
    struct plan plan = new_plan(1);
    plan.hooks.attend = attend;
    plan.hooks.attend_fd = attend_pipe[0];
    plan.hooks.context = told;
    pid_t pid = start_plan(&plan);
    struct crew crew = await_crew("planned", 1, 0);
    int32_t before = atomic_load(&told->attended);
    CHECK_INT(write(attend_pipe[1], "x", 1), 1);
    WAIT_UNTIL(atomic_load(&told->attended) > before);
    before = atomic_load(&told->attended);
    CHECK_INT(kill(crew.pids[0], SIGKILL), 0); /* the supervisor wakes up for that, too */
    (void)await_crew("planned", 1, crew.pids[0]);
    WAIT_UNTIL(atomic_load(&told->attended) > before);
    CHECK_INT(write(attend_pipe[1], "s", 1), 1);
    CHECK_INT(test_wait_child(pid), 0);
    close(attend_pipe[0]);
    close(attend_pipe[1]);
    finish();
}

TEST(a_stop_kills_a_worker_whose_handler_never_returns_and_names_the_handler)
{
    begin();
    struct plan plan = new_plan(1);
    plan.result = -ETIMEDOUT;
    plan.text = "was killed: it didn't stop within 5000 ms, call 1 of planned/stay in progress";
    plan.hooks.end = note_end;
    pid_t pid = start_plan(&plan);
    struct crew crew = await_crew("planned", 1, 0);
    plait_client *client = open_client("planned", NULL);
    CHECK_INT(plait_client_call_async(client, "stay", NULL, 0, NULL, ignore, NULL, NULL), 0);
    WAIT_UNTIL(atomic_load(&told->in_handler) != 0);
    CHECK_INT(kill(pid, SIGTERM), 0);
    CHECK_INT(test_wait_child(pid), 0);
    CHECK(!alive(crew.pids[0]));
    CHECK_INT(atomic_load(&told->ended), 0); /* it didn't end in good order */
    plait_client_close(client);
    finish();
}

/* ---- workers that are programs of their own ---- */

/* As such a program would do it, but for the exec. */
static void be_a_program(int control)
{
    plait_server *server = NULL;
    plait_worker_hooks hooks = PLAIT_WORKER_HOOKS_INIT;
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    options.threads = 2;
    options.processes = 7;
    options.exclusive = 1; /* neither is a worker's affair */
    if (plait_server_open_worker(&server, control, &options) < 0)
        test_fail(__FILE__, __LINE__, "%s", plait_error_text());
    CHECK(plait_server_worker(server) > 0);
    CHECK(plait_server_url(server, 0) != NULL);
    CHECK_INT(plait_server_listen(server, "tcp://127.0.0.1:0"), -EINVAL);
    CHECK_CONTAINS(plait_error_text(), "its supervisor's listeners");
    CHECK_INT(plait_server_handle(server, "number", on_number, &server), 0);
    CHECK_INT(plait_server_handle(server, "stay", on_stay, NULL), 0);
    CHECK_INT(plait_server_start(server), -EINVAL);
    hooks.end = note_end;
    hooks.context = told;
    CHECK_INT(plait_server_workers(server, &hooks), 0);
    if (plait_server_run(server) < 0) test_fail(__FILE__, __LINE__, "%s", plait_error_text());
    CHECK_INT(plait_server_run(server), -EBUSY);
    plait_server_close(server);
    leave(0);
}

static int spawn(plait_server *server, int control, void *context)
{
    CHECK_INT(plait_server_worker(server), 0);
    CHECK(context == told);
    if (atomic_load(&told->fail_forks) > 0 && atomic_fetch_sub(&told->fail_forks, 1) > 0) {
        errno = EAGAIN;
        return -1;
    }
    CHECK_INT(fcntl(control, F_GETFD), FD_CLOEXEC);
    pid_t pid = fork();
    if (pid == 0) be_a_program(control);
    return pid;
}

/* The worker that answers at TARGET. */
static int number_at(const char *target)
{
    plait_reply *reply = NULL;
    plait_client *client = open_client(target, NULL);
    if (plait_client_call(client, "number", NULL, 0, NULL, &reply) < 0)
        test_fail(__FILE__, __LINE__, "%s: %s", target, plait_error_text());
    CHECK_INT(plait_reply_body(reply).size, 1);
    int number = ((const char *)plait_reply_body(reply).data)[0] - '0';
    plait_reply_free(reply);
    plait_client_close(client);
    return number;
}

/* A supervisor of workers that are spawned; its methods are theirs. */
static void supervise_programs(int urls)
{
    char url[128] = "";
    plait_server *server = NULL;
    struct plan plan = new_plan(2);
    journal_keep();
    size_t fds = test_count_fds();
    plan.hooks.spawn = spawn;
    plan.hooks.context = told;
    plan.options.exclusive = 1;
    CHECK_INT(plait_server_open(&server, "planned", &plan.options), 0);
    CHECK_INT(plait_server_listen(server, "tcp://127.0.0.1:0?framing=plait"), 0);
    CHECK_INT(plait_server_workers(server, &plan.hooks), 0);
    snprintf(url, sizeof(url), "%s", plait_server_url(server, 0));
    CHECK_INT(write(urls, url, sizeof(url)), sizeof(url));
    if (plait_server_run(server) < 0) test_fail(__FILE__, __LINE__, "%s", plait_error_text());
    plait_server_close(server);
    CHECK_INT(test_count_fds(), fds);
    leave(0);
}

TEST(a_worker_that_is_a_program_of_its_own_gets_what_it_needs_by_its_socket)
{
    char url[128], text[64];
    int urls[2];
    begin();
    CHECK_INT(pipe2(urls, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) supervise_programs(urls[1]);
    CHECK_INT(read(urls[0], url, sizeof(url)), sizeof(url));
    struct crew crew = await_crew("planned", 2, 0);
    size_t fds = fds_of(pid);
    for (size_t i = 0; i < 2; i++) CHECK_INT(crew.supervisor[i], pid);
    CHECK_INT(crew.numbers[0] + crew.numbers[1], 1 + 2);
    CHECK(number_at("planned") > 0);
    int first = number_at(url); /* the listener is both workers' */
    pid_t stopped = crew.pids[crew.numbers[0] == (uint32_t)first ? 0 : 1];
    CHECK_INT(kill(stopped, SIGSTOP), 0);
    WAIT_UNTIL(state_of(stopped) == 'T');
    CHECK_INT(number_at(url), 3 - first);
    CHECK_INT(kill(stopped, SIGCONT), 0);

    /* A death is told, as of one that was forked, and the next one knows that it is the second. */
    plait_client *client = open_client("planned", NULL);
    CHECK_INT(plait_client_call_async(client, "stay", NULL, 0, NULL, ignore, NULL, NULL), 0);
    WAIT_UNTIL(atomic_load(&told->in_handler) != 0);
    atomic_store(&told->fail_forks, 1); /* and once no program can be started */
    for (size_t i = 0; i < 2; i++) CHECK_INT(kill(crew.pids[i], SIGKILL), 0);
    WAIT_UNTIL(written("cannot start worker "));
    WAIT_UNTIL(written(" of planned/stay in progress"));
    for (size_t i = 0; i < 2; i++) {
        snprintf(text, sizeof(text), "(pid %d) died: signal 9 (Killed)", (int)crew.pids[i]);
        WAIT_UNTIL(written(text));
    }
    plait_client_close(client);
    atomic_store(&told->release, 1);
    (void)await_crew("planned", 2, crew.pids[0]);
    crew = await_crew("planned", 2, crew.pids[1]);
    CHECK(crew.restarts[0] >= 1 && crew.restarts[1] >= 1);
    await_fds(pid, fds);

    uint32_t before = journal_at();
    CHECK_INT(kill(pid, SIGHUP), 0);
    WAIT_UNTIL(written_since(before, "every worker has been replaced") != NULL);
    CHECK_INT(kill(pid, SIGTERM), 0);
    CHECK_INT(test_wait_child(pid), 0);
    CHECK_INT(atomic_load(&told->ended), 2 * (1 << 8 | 1 << 16)); /* the replaced ones, and the last */
    CHECK_INT(entries_of_names(), 0);
    close(urls[0]);
    close(urls[1]);
    finish();
}

TEST(what_is_no_supervisor_s_socket_makes_no_worker)
{
    plait_server *server = NULL;
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    int ends[2];
    size_t fds = test_count_fds();
    CHECK_INT(plait_server_open_worker(&server, -1, NULL), -EPROTO);
    CHECK_CONTAINS(plait_error_text(), "descriptor -1 is no supervisor's socket");
    CHECK_INT(plait_server_open_worker(&server, open("/dev/null", O_RDONLY | O_CLOEXEC), NULL), -EPROTO);
    for (int i = 0; i < 4; i++) {
        static const char zeros[600];
        CHECK_INT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
        if (i == 1) CHECK_INT(send(ends[0], "what?", 5, 0), 5);
        if (i == 2) CHECK_INT(send(ends[0], zeros, sizeof(zeros), 0), sizeof(zeros));
        if (i == 3) close(ends[0]);
        CHECK_INT(plait_server_open_worker(&server, ends[1], &options), i == 3 ? -ECONNRESET : -EPROTO);
        if (i < 3) close(ends[0]);
    }
    options.threads = -5;
    CHECK_INT(plait_server_open_worker(&server, open("/dev/null", O_RDONLY | O_CLOEXEC), &options), -EPROTO);
    CHECK(server == NULL);
    CHECK_INT(test_count_fds(), fds);
}

TEST(what_cannot_be_is_refused_with_words)
{
    plait_server *server = NULL;
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    options.processes = -2;
    CHECK_INT(plait_server_open(&server, "planned", &options), -EINVAL);
    CHECK_CONTAINS(plait_error_text(), "PLAIT_PROCESSES_MAX");
    options.processes = PLAIT_PROCESSES_MAX + 1;
    CHECK_INT(plait_server_open(&server, "planned", &options), -EINVAL);
    options.processes = 2;
    options.restart_burst = -2;
    CHECK_INT(plait_server_open(&server, "planned", &options), -EINVAL);
    CHECK_CONTAINS(plait_error_text(), "restart_burst");
    options.restart_burst = 0;
    CHECK_INT(plait_server_open(&server, "planned", &options), 0);
    CHECK_INT(plait_server_run(server), -EINVAL); /* no methods */
    CHECK_INT(plait_server_handle(server, "", on_stay, NULL), 0);
    CHECK_INT(plait_server_start(server), -EINVAL);
    CHECK_CONTAINS(plait_error_text(), "plait_server_run()");
    CHECK_INT(plait_server_fd(server), -EINVAL);
    CHECK_INT(plait_server_dispatch(server, 0), -EINVAL);
    CHECK_INT(plait_server_worker(server), 0);
    plait_server_close(server);
}
