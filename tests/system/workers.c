/* workers: a supervisor and its processes: deaths, restarts, stops, replacements, orphans. */
#include "system/system.h"

#include <errno.h>
#include <plait/worker.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CREW = 3 };

/* ---- what the supervisor says, and what a test may tell its workers ---- */

struct journal {
    _Atomic uint32_t used, ready;
    _Atomic int32_t forks, fail_forks, exit_with, fail_start, abort_starts;
    char text[60000];
};
static struct journal *journal;

static void write_down(plait_log_level level, const char *line, void *context)
{
    (void)level;
    (void)context;
    size_t size = strlen(line);
    uint32_t at = atomic_fetch_add(&journal->used, (uint32_t)size + 1);
    if (at + size + 1 >= sizeof(journal->text)) return;
    memcpy(journal->text + at, line, size);
    journal->text[at + size] = '\n';
}

static void keep_journal(void)
{
    plait_set_log(write_down, NULL);
}

static void open_journal(void)
{
    journal = mmap(NULL, sizeof(*journal), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(journal != MAP_FAILED);
}

static void close_journal(void)
{
    munmap(journal, sizeof(*journal));
}

/* What was written at FROM or later and begins with TEXT; NULL: nothing yet. A line that is just being written, or
 * whose writer was killed, is a gap of zeros: what stands behind it counts as well. */
static const char *written_since(uint32_t from, const char *text)
{
    uint32_t used = atomic_load(&journal->used);
    if (used > sizeof(journal->text)) used = sizeof(journal->text);
    if (from > used) from = used;
    return memmem(journal->text + from, used - from, text, strlen(text));
}

static bool written(const char *text)
{
    return written_since(0, text) != NULL;
}

/* ---- looking ---- */

struct crew {
    size_t count;
    pid_t pids[16];
    uint32_t numbers[16], restarts[16];
    int32_t supervisor[16];
};

static struct crew crew_of(const char *name)
{
    struct crew crew = { 0 };
    plait_watch *watch;
    CHECK_INT(plait_watch_open(&watch, name), 0);
    for (size_t i = 0; i < plait_watch_count(watch) && crew.count < 16; i++) {
        const plait_watch_instance *instance = plait_watch_at(watch, i);
        crew.pids[crew.count] = instance->pid;
        crew.numbers[crew.count] = instance->worker;
        crew.restarts[crew.count] = instance->restarts;
        crew.supervisor[crew.count++] = instance->supervisor;
    }
    plait_watch_close(watch);
    return crew;
}

static bool alive(pid_t pid)
{
    char state = state_of(pid);
    return state != 0 && state != 'Z' && state != 'X';
}

/* The supervisor has heard that PID serves: it has its status page open, and what it holds is what it always holds. */
static bool known_to_serve(pid_t pid)
{
    char serves[40], takes_over[40];
    snprintf(serves, sizeof(serves), "(pid %d) serves\n", (int)pid);
    snprintf(takes_over, sizeof(takes_over), ": pid %d takes over", (int)pid);
    return written(serves) || written(takes_over);
}

/* Until COUNT workers serve, as both those who look and their supervisor see it; none of them NOT. */
static struct crew await_crew(const char *name, size_t count, pid_t not )
{
    struct crew crew;
    int64_t until = now_ms() + PATIENCE_MS;
    for (;;) {
        crew = crew_of(name);
        bool complete = crew.count == count;
        for (size_t i = 0; i < crew.count; i++) complete &= crew.pids[i] != not &&known_to_serve(crew.pids[i]);
        if (complete) return crew;
        if (now_ms() > until)
            test_fail(__FILE__, __LINE__, "%zu workers instead of %zu\n%s", crew.count, count, journal->text);
        pause_ms(1);
    }
}

static struct serve crew_to_serve(const char *name)
{
    return (struct serve){ .name = name,
                           .options = { .size = sizeof(plait_server_options), .processes = CREW, .restart_burst = -1 },
                           .storm = keep_journal };
}

/* ---- the usual ---- */

TEST(every_worker_serves_and_a_stop_ends_them_all)
{
    struct board *board = board_new();
    open_journal();
    struct serve what = crew_to_serve("crew");
    struct started server = serve(board, &what);
    struct crew crew = await_crew("crew", CREW, 0);
    uint32_t numbers = 0;
    for (size_t i = 0; i < CREW; i++) {
        CHECK_INT(crew.supervisor[i], server.pid);
        CHECK_INT(crew.restarts[i], 0);
        numbers |= 1u << crew.numbers[i];
    }
    CHECK_INT(numbers, 2 | 4 | 8);
    pid_t callers[4];
    for (unsigned i = 0; i < 4; i++) callers[i] = caller_start(board, i, i % 2 ? "crew" : "crew?shm=off", false);
    callers_advance(board, 4);
    callers_end(board, callers, 4);
    end_server(&server);
    for (size_t i = 0; i < CREW; i++) CHECK(!alive(crew.pids[i]));
    CHECK_INT(entries_of_names(), 0);
    WAIT_UNTIL(written("worker 1 (pid"));
    WAIT_UNTIL(written("has ended"));
    close_journal();
    board_free(board);
}

/* ---- deaths ---- */

/* A worker dies of NUMBER while it handles a call: what its caller is told, and that the place is filled again. */
static void check_death(const char *target, int number, const char *word, int threads)
{
    struct board *board = board_new();
    open_journal();
    struct serve what = crew_to_serve("crew");
    what.options.threads = threads;
    struct started server = serve(board, &what);
    struct crew crew = await_crew("crew", CREW, 0);
    pid_t caller = fork();
    if (caller == 0) {
        plait_client *client = open_client(target, NULL);
        char text[128];
        int r = plait_client_call(client, "hang", "\0\0\0\0\0\0\0\0", 8, NULL, NULL);
        if (r != -ECONNRESET) test_fail(__FILE__, __LINE__, "%d: %s", r, plait_error_text());
        CHECK_CONTAINS(plait_error_text(), "may have run");
        pid_t victim = atomic_load(&board->in_handler);
        uint32_t place = 0;
        for (size_t i = 0; i < CREW; i++)
            if (crew.pids[i] == victim) place = crew.numbers[i];
        if (strstr(target, "shm=off") == NULL && !test_sanitized()) { /* there the news takes its time */
            snprintf(text, sizeof(text), "worker %u (pid %d) died: signal %d (%s)", place, (int)victim, number, word);
            CHECK_CONTAINS(plait_error_text(), text);
        }
        CHECK_INT(checked_call(board, client, 100, 0, 0), 0); /* the others are there */
        plait_client_close(client);
        caller_forget();
        leave(0);
    }
    WAIT_UNTIL(atomic_load(&board->in_handler) != 0);
    pid_t victim = atomic_load(&board->in_handler);
    CHECK_INT(kill(victim, number), 0);
    CHECK_INT(test_wait_child(caller), 0);
    struct crew after = await_crew("crew", CREW, victim);
    uint32_t restarts = 0;
    for (size_t i = 0; i < CREW; i++) restarts += after.restarts[i];
    CHECK_INT(restarts, 1);
    char text[128];
    snprintf(text, sizeof(text), "(pid %d) died: signal %d (%s), call 1 of crew/hang in progress", (int)victim, number,
             word);
    WAIT_UNTIL(written(text));
    end_server(&server);
    close_journal();
    board_free(board);
}

TEST(a_worker_s_crash_is_told_to_its_caller_with_its_signal)
{
    if (test_sanitized()) SKIP("the sanitizer has a handler of its own");
    check_death("crew", SIGSEGV, "Segmentation fault", 1);
    check_death("crew", SIGABRT, "Aborted", 4);
    check_death("crew?shm=off", SIGBUS, "Bus error", 1);
}

TEST(a_killed_worker_is_told_to_its_caller_as_well)
{
    check_death("crew", SIGKILL, "Killed", 1);
    check_death("crew", SIGKILL, "Killed", 4);
}

TEST(workers_that_die_harm_no_call_but_their_own)
{
    enum { LOAD = 4, KILLS = 12 };
    struct board *board = board_new();
    open_journal();
    struct serve what = crew_to_serve("crew");
    struct started server = serve(board, &what);
    (void)await_crew("crew", CREW, 0);
    pid_t callers[LOAD];
    for (unsigned i = 0; i < LOAD; i++) callers[i] = caller_start(board, i, "crew", true);
    callers_advance(board, LOAD);
    size_t fds = fds_of(server.pid);
    for (int i = 0; i < KILLS; i++) {
        struct crew crew = await_crew("crew", CREW, 0);
        CHECK_INT(kill(crew.pids[i % CREW], SIGKILL), 0);
        (void)await_crew("crew", CREW, crew.pids[i % CREW]);
        callers_advance(board, LOAD);
    }
    uint32_t lost = 0;
    for (unsigned i = 0; i < LOAD; i++) lost += atomic_load(&board->caller[i].lost);
    CHECK(lost <= LOAD * KILLS); /* one call at most of each caller for each death */
    callers_end(board, callers, LOAD);
    await_fds(server.pid, fds);
    end_server(&server);
    close_journal();
    board_free(board);
}

TEST(an_idempotent_call_goes_to_the_next_worker_by_itself)
{
    struct board *board = board_new();
    open_journal();
    struct serve what = crew_to_serve("crew");
    struct started server = serve(board, &what);
    (void)await_crew("crew", CREW, 0);
    pid_t caller = fork();
    if (caller == 0) {
        plait_client *client = open_client("crew", NULL);
        plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
        options.flags = PLAIT_CALL_IDEMPOTENT;
        int r = plait_client_call(client, "hang", "\0\0\0\0\0\0\0\0", 8, &options, NULL);
        if (r < 0) test_fail(__FILE__, __LINE__, "%s", plait_error_text());
        plait_client_close(client);
        leave(0);
    }
    pid_t before = 0;
    for (int i = 0; i < 4; i++) {
        WAIT_UNTIL(atomic_load(&board->in_handler) != before);
        before = atomic_load(&board->in_handler);
        CHECK_INT(kill(before, SIGKILL), 0);
    }
    WAIT_UNTIL(atomic_load(&board->in_handler) != before);
    atomic_store(&board->release, 1);
    CHECK_INT(test_wait_child(caller), 0);
    end_server(&server);
    close_journal();
    board_free(board);
}

/* ---- listeners ---- */

TEST(a_worker_s_death_loses_only_its_own_connections_of_a_shared_listener)
{
    enum { LOAD = 9 };
    struct board *board = board_new();
    open_journal();
    struct serve what = crew_to_serve("crew");
    what.listen[0] = "tcp://127.0.0.1:0";
    struct started server = serve(board, &what);
    struct crew crew = await_crew("crew", CREW, 0);
    plait_client *clients[LOAD];
    for (int i = 0; i < LOAD; i++) clients[i] = open_client(server.url[0], NULL);
    for (int i = 0; i < LOAD; i++) CHECK_INT(checked_call(board, clients[i], 100, 0, 0), 0);
    plait_watch *watch;
    size_t shares[CREW] = { 0 }, connections = 0;
    CHECK_INT(plait_watch_open(&watch, "crew"), 0);
    for (size_t i = 0; i < plait_watch_count(watch); i++)
        for (size_t k = 0; k < CREW; k++)
            if (plait_watch_at(watch, i)->pid == crew.pids[k]) {
                shares[k] = plait_watch_at(watch, i)->connection_count;
                connections += shares[k];
            }
    plait_watch_close(watch);
    CHECK_INT(connections, LOAD);
    size_t victim = 0;
    for (size_t k = 1; k < CREW; k++)
        if (shares[k] > shares[victim]) victim = k;
    CHECK_INT(kill(crew.pids[victim], SIGKILL), 0);
    WAIT_UNTIL(!alive(crew.pids[victim]));
    /* Those of the victim connect again and are served: the listener was never closed. */
    for (int i = 0; i < LOAD; i++) CHECK_INT(checked_call(board, clients[i], 100, PLAIT_CALL_IDEMPOTENT, 0), 0);
    for (int i = 0; i < LOAD; i++) plait_client_close(clients[i]);
    end_server(&server);
    close_journal();
    board_free(board);
}

TEST(a_stopped_worker_holds_up_no_new_connection)
{
    struct board *board = board_new();
    open_journal();
    struct serve what = crew_to_serve("crew");
    what.listen[0] = "tcp://127.0.0.1:0?framing=lines";
    struct started server = serve(board, &what);
    struct crew crew = await_crew("crew", CREW, 0);
    for (size_t i = 0; i + 1 < CREW; i++) {
        CHECK_INT(kill(crew.pids[i], SIGSTOP), 0);
        WAIT_UNTIL(state_of(crew.pids[i]) == 'T');
    }
    for (int i = 0; i < 20; i++) {
        int fd = raw_connect(server.url[0]);
        char byte;
        raw_send(fd, "abcdefgh\n", 9);
        CHECK_INT(raw_read(fd, &byte, 1), 1);
        close(fd);
    }
    for (size_t i = 0; i + 1 < CREW; i++) CHECK_INT(kill(crew.pids[i], SIGCONT), 0);
    end_server(&server);
    close_journal();
    board_free(board);
}

TEST(a_unix_listener_s_file_goes_with_the_supervisor_and_not_with_a_worker)
{
    struct board *board = board_new();
    open_journal();
    char url[300], path[280];
    struct serve what = crew_to_serve("crew");
    snprintf(path, sizeof(path), "%s/shared", test_directory());
    snprintf(url, sizeof(url), "unix://%s", path);
    what.listen[0] = url;
    struct started server = serve(board, &what);
    struct crew crew = await_crew("crew", CREW, 0);
    CHECK_INT(kill(crew.pids[0], SIGTERM), 0); /* it drains, as a stop would make it */
    (void)await_crew("crew", CREW, crew.pids[0]);
    WAIT_UNTIL(written("exit status 0 (nobody had asked it to end)"));
    CHECK_INT(access(path, F_OK), 0);
    plait_client *client = open_client(url, NULL);
    CHECK_INT(checked_call(board, client, 100, 0, 0), 0);
    plait_client_close(client);
    end_server(&server);
    CHECK_INT(access(path, F_OK), -1);
    close_journal();
    board_free(board);
}

/* ---- replacing ---- */

TEST(a_rolling_restart_under_load_fails_no_call)
{
    enum { LOAD = 6, ROUNDS = 3 };
    TEST_TIMEOUT(240);
    struct board *board = board_new();
    open_journal();
    struct serve what = crew_to_serve("crew");
    what.listen[0] = "tcp://127.0.0.1:0";
    struct started server = serve(board, &what);
    struct crew crew = await_crew("crew", CREW, 0);
    static char url[200];
    snprintf(url, sizeof(url), "%s", server.url[0]);
    const char *targets[LOAD] = { "crew", "crew", "crew?shm=off", "crew?shm=off", url, url };
    pid_t callers[LOAD];
    for (unsigned i = 0; i < LOAD; i++) callers[i] = caller_start(board, i, targets[i], false);
    callers_advance(board, LOAD);
    for (int round = 0; round < ROUNDS; round++) {
        char over[64];
        uint32_t before = atomic_load(&journal->used);
        CHECK_INT(kill(server.pid, SIGHUP), 0);
        WAIT_UNTIL(written_since(before, "every worker has been replaced") != NULL);
        struct crew after = await_crew("crew", CREW, crew.pids[0]);
        for (size_t i = 0; i < CREW; i++) {
            for (size_t k = 0; k < CREW; k++) CHECK(after.pids[k] != crew.pids[i]);
            /* The new one serves before the old one has ended: old and new overlap. */
            snprintf(over, sizeof(over), "takes over from pid %d", (int)crew.pids[i]);
            const char *taken = written_since(before, over);
            snprintf(over, sizeof(over), "(pid %d) has ended", (int)crew.pids[i]);
            const char *ended = written_since(before, over);
            CHECK(taken != NULL && ended != NULL && taken < ended);
        }
        crew = after;
        callers_advance(board, LOAD);
    }
    callers_end(board, callers, LOAD);
    end_server(&server);
    CHECK_INT(entries_of_names(), 0);
    close_journal();
    board_free(board);
}

TEST(a_replaced_worker_answers_what_it_had_taken)
{
    struct board *board = board_new();
    open_journal();
    struct serve what = crew_to_serve("crew");
    what.options.processes = 1;
    struct started server = serve(board, &what);
    struct crew crew = await_crew("crew", 1, 0);
    pid_t caller = caller_start(board, 0, "crew", false);
    callers_advance(board, 1);
    caller_order(board, 0, ORDER_DEFER);
    WAIT_UNTIL(atomic_load(&board->deferred) == 1);
    CHECK_INT(kill(server.pid, SIGHUP), 0);
    WAIT_UNTIL(written("takes over from"));
    CHECK(alive(crew.pids[0]));
    atomic_store(&board->release, 1);
    callers_advance(board, 1);
    WAIT_UNTIL(!alive(crew.pids[0]));
    callers_end(board, &caller, 1);
    end_server(&server);
    close_journal();
    board_free(board);
}

/* ---- the supervisor's end ---- */

/* Workers of a supervisor that is killed: idle, with a handler that hangs, and stopped. */
TEST(no_worker_outlives_a_supervisor_that_is_killed)
{
    struct board *board = board_new();
    open_journal();
    struct serve what = crew_to_serve("crew");
    CHECK_INT(prctl(PR_SET_CHILD_SUBREAPER, 1), 0); /* orphans would come to us */
    struct started server = serve(board, &what);
    struct crew crew = await_crew("crew", CREW, 0);
    pid_t caller = fork();
    if (caller == 0) {
        plait_client *client = open_client("crew", NULL);
        CHECK_INT(plait_client_call(client, "hang", "\0\0\0\0\0\0\0\0", 8, NULL, NULL), -ECONNRESET);
        plait_client_close(client);
        leave(0);
    }
    WAIT_UNTIL(atomic_load(&board->in_handler) != 0);
    pid_t hanging = atomic_load(&board->in_handler);
    for (size_t i = 0; i < CREW; i++)
        if (crew.pids[i] != hanging) {
            CHECK_INT(kill(crew.pids[i], SIGSTOP), 0);
            WAIT_UNTIL(state_of(crew.pids[i]) == 'T');
            break;
        }
    kill_process(server.pid);
    for (size_t i = 0; i < CREW; i++) CHECK_INT(waitpid(crew.pids[i], NULL, 0), crew.pids[i]);
    CHECK_INT(test_wait_child(caller), 0);
    CHECK_INT(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
    /* The name is free again for an exclusive one. */
    struct serve next = { .name = "crew", .options = { .size = sizeof(plait_server_options), .exclusive = 1 } };
    server = serve(board, &next);
    end_server(&server);
    close_journal();
    board_free(board);
}

/* ---- servers that are put together here ---- */

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
    _exit(atomic_load(&journal->exit_with));
}

static void on_stay(plait_request *request, void *context)
{
    (void)request;
    (void)context;
    atomic_fetch_add(&journal->forks, 100);
    for (;;) pause();
}

/* In a process of its own. */
static void run_plan(const struct plan *plan)
{
    plait_server *server = NULL;
    keep_journal();
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
                          .hooks = { .size = sizeof(plait_worker_hooks) } };
}

static int abort_at_once(plait_server *server, int worker, void *context)
{
    (void)server;
    (void)worker;
    (void)context;
    if (atomic_fetch_sub(&journal->abort_starts, 1) > 0) raise(SIGKILL);
    return 0;
}

TEST(workers_that_die_at_once_every_time_end_it_all_with_the_last_one_s_signal)
{
    open_journal();
    struct plan plan = new_plan(2);
    plan.hooks.start = abort_at_once;
    plan.result = -EOWNERDEAD;
    plan.text = "planned: 5 workers died within 10 s (restart_burst); the last one: worker";
    plan.more = "died: signal 9 (Killed)";
    atomic_store(&journal->abort_starts, 1000);
    CHECK_INT(test_wait_child(start_plan(&plan)), 0);
    /* The fifth death brings no other; meanwhile the second place's may have begun, too, or wait for its turn. */
    int starts = 1000 - atomic_load(&journal->abort_starts);
    CHECK(starts == 5 || starts == 6);
    CHECK_INT(entries_of_names(), 0);
    close_journal();
}

TEST(fewer_deaths_than_the_burst_are_survived)
{
    open_journal();
    struct plan plan = new_plan(1);
    plan.hooks.start = abort_at_once;
    plan.options.restart_burst = 4;
    atomic_store(&journal->abort_starts, 3);
    pid_t pid = start_plan(&plan);
    struct crew crew = await_crew("planned", 1, 0);
    CHECK_INT(crew.restarts[0], 3);
    CHECK_INT(kill(pid, SIGTERM), 0);
    CHECK_INT(test_wait_child(pid), 0);
    close_journal();
}

static int refuse_to_start(plait_server *server, int worker, void *context)
{
    (void)worker;
    (void)context;
    plait_client *client;
    plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
    options.connect_timeout = PLAIT_NOW;
    CHECK_INT(plait_server_worker(server), worker);
    return atomic_load(&journal->fail_start) ? plait_client_open(&client, "absent", &options) : 0;
}

TEST(a_start_hook_that_fails_ends_the_first_start_with_its_words)
{
    open_journal();
    struct plan plan = new_plan(2);
    plan.hooks.start = refuse_to_start;
    plan.result = -ENOENT;
    plan.text = "can't serve: start hook:";
    plan.more = "no service 'absent'";
    atomic_store(&journal->fail_start, 1);
    CHECK_INT(test_wait_child(start_plan(&plan)), 0);
    close_journal();
}

static int count_or_fail(void *context)
{
    (void)context;
    if (atomic_load(&journal->fail_forks) > 0 && atomic_fetch_sub(&journal->fail_forks, 1) > 0) {
        errno = EAGAIN;
        return -1;
    }
    atomic_fetch_add(&journal->forks, 1);
    return fork();
}

TEST(a_fork_that_fails_at_first_is_told_and_later_is_tried_again)
{
    open_journal();
    struct plan plan = new_plan(2);
    plan.hooks.fork = count_or_fail;
    plan.result = -EAGAIN;
    plan.text = "cannot fork worker 1 of planned: ";
    plan.more = "ulimit -u";
    atomic_store(&journal->fail_forks, 1);
    CHECK_INT(test_wait_child(start_plan(&plan)), 0);

    plan.result = 0;
    plan.text = plan.more = NULL;
    pid_t pid = start_plan(&plan);
    struct crew crew = await_crew("planned", 2, 0);
    atomic_store(&journal->fail_forks, 2);
    CHECK_INT(kill(crew.pids[0], SIGKILL), 0);
    (void)await_crew("planned", 2, crew.pids[0]);
    WAIT_UNTIL(written("it is tried again"));
    CHECK_INT(kill(pid, SIGTERM), 0);
    CHECK_INT(test_wait_child(pid), 0);
    CHECK_INT(atomic_load(&journal->forks), 3);
    close_journal();
}

static void note_ready(plait_server *server, void *context)
{
    CHECK_INT(plait_server_worker(server), 0);
    CHECK(context == NULL);
    atomic_fetch_add(&journal->ready, 1);
}

TEST(a_worker_that_exits_is_told_with_its_status_and_started_again)
{
    open_journal();
    struct plan plan = new_plan(2);
    plan.hooks.ready = note_ready;
    plan.options.exclusive = 1; /* beside others, not beside each other */
    pid_t pid = start_plan(&plan);
    WAIT_UNTIL(atomic_load(&journal->ready) == 1);
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
        atomic_store(&journal->exit_with, status * 3);
        CHECK_INT(plait_client_call(client, "exit", NULL, 0, NULL, NULL), -ECONNRESET);
        snprintf(text, sizeof(text), "died: exit status %d", status * 3);
        if (!test_sanitized()) CHECK_CONTAINS(plait_error_text(), text); /* there the news takes its time */
        WAIT_UNTIL(written(text));
        (void)await_crew("planned", 2, 0);
    }
    WAIT_UNTIL(written("exit status 0 (nobody had asked it to end)"));
    WAIT_UNTIL(written("of planned/exit in progress"));
    CHECK_INT(atomic_load(&journal->ready), 1);
    plait_client_close(client);
    CHECK_INT(kill(pid, SIGTERM), 0);
    CHECK_INT(test_wait_child(pid), 0);
    close_journal();
}

static void ignore(int result, plait_reply *reply, void *context)
{
    (void)result;
    (void)context;
    plait_reply_free(reply);
}

TEST(a_stop_kills_a_worker_whose_handler_never_returns_and_names_the_handler)
{
    open_journal();
    struct plan plan = new_plan(1);
    plan.result = -ETIMEDOUT;
    plan.text = "was killed: it didn't stop within 5000 ms, call 1 of planned/stay in progress";
    pid_t pid = start_plan(&plan);
    struct crew crew = await_crew("planned", 1, 0);
    plait_client *client = open_client("planned", NULL);
    CHECK_INT(plait_client_call_async(client, "stay", NULL, 0, NULL, ignore, NULL, NULL), 0);
    WAIT_UNTIL(atomic_load(&journal->forks) == 100);
    CHECK_INT(kill(pid, SIGTERM), 0);
    CHECK_INT(test_wait_child(pid), 0);
    CHECK(!alive(crew.pids[0]));
    plait_client_close(client);
    close_journal();
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
