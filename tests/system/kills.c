/* kills: kill -9 of either side, at moments that are chosen. Callers keep a verified load going all the time, and
 * nothing is killed before each of them has had a right answer from the present server. Chosen are: idle, in the
 * handler, in the middle of writing a large body (a segment or a socket), and the handshake, through which the
 * victim is stepped by ptrace and killed at the Nth system call boundary.
 */
#include "system/system.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KILLS = 50, LOAD = 2, ATTEMPTS = 12 * KILLS, SOON_MS = 5000 };

static const struct serve victim = { .name = "victim" };

/* Shared memory and a socket, side by side. */
static const char *const targets[LOAD] = { "victim", "victim?shm=off" };

static void start_load(struct board *board, pid_t pids[LOAD], bool servers_die)
{
    for (unsigned i = 0; i < LOAD; i++) pids[i] = caller_start(board, i, targets[i], servers_die);
    callers_advance(board, LOAD);
}

/* What the survivors hold while nothing moves must not grow from the early kills to the late ones. */
struct holdings {
    uint32_t fds[LOAD], mappings[LOAD];
};

static struct holdings look_at_load(struct board *board)
{
    struct holdings holdings;
    callers_pause(board, LOAD, true);
    for (unsigned i = 0; i < LOAD; i++) {
        holdings.fds[i] = atomic_load(&board->caller[i].fds);
        holdings.mappings[i] = atomic_load(&board->caller[i].mappings);
    }
    callers_pause(board, LOAD, false);
    return holdings;
}

static void check_holdings(const struct holdings *early, const struct holdings *late)
{
    for (unsigned i = 0; i < LOAD; i++) {
        if (late->fds[i] > early->fds[i])
            test_fail(__FILE__, __LINE__, "%s: %u descriptors after the first kills, %u after the last", targets[i],
                      early->fds[i], late->fds[i]);
        /* Segments come with use: what is cached for a live connection may differ by some. */
        if (late->mappings[i] > early->mappings[i] + 16)
            test_fail(__FILE__, __LINE__, "%s: %u mappings after the first kills, %u after the last", targets[i],
                      early->mappings[i], late->mappings[i]);
    }
}

/* ---- stepping ---- */

/* Lets the traced PID run to its next system call's beginning or end. False: it ended. */
static bool step(pid_t pid, struct __ptrace_syscall_info *ret_info)
{
    int signal_number = 0, status;
    for (;;) {
        if (ptrace(PTRACE_SYSCALL, pid, NULL, (void *)(long)signal_number) < 0) return false;
        if (waitpid(pid, &status, 0) < 0 || !WIFSTOPPED(status)) return false;
        if (WSTOPSIG(status) == (SIGTRAP | 0x80)) break;
        signal_number = status >> 16 ? 0 : WSTOPSIG(status);
    }
    return ptrace(PTRACE_GET_SYSCALL_INFO, pid, (void *)sizeof(*ret_info), ret_info) > 0;
}

static bool attach(pid_t pid)
{
    int status;
    if (ptrace(PTRACE_SEIZE, pid, NULL, (void *)(long)PTRACE_O_TRACESYSGOOD) < 0) return false;
    CHECK_INT(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL), 0);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    return true;
}

static void need_ptrace(void)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        for (;;) pause();
    }
    bool works = attach(child);
    kill_process(child);
    if (!works) SKIP("ptrace is not allowed here, and the handshake cannot be stepped through");
}

/* ---- the server is killed ---- */

struct tally {
    unsigned kills, attempts, most_ms;
    struct holdings early;
};

static void respawn(struct board *board, struct started *server, struct tally *tally)
{
    *server = serve(board, &victim);
    callers_advance(board, LOAD);
    if (tally->kills == 8) tally->early = look_at_load(board);
}

static void finish_server_kills(struct board *board, const char *state, struct tally *tally, const pid_t pids[LOAD],
                                const struct started *server)
{
    struct holdings late = look_at_load(board);
    check_holdings(&tally->early, &late);
    callers_end(board, pids, LOAD);
    end_server(server);
    CHECK_INT(entries_of_names(), 0);
    printf("# server killed %s: %u times of %u tries; right answers %u and %u, lost %u and %u; told within %u ms\n",
           state, tally->kills, tally->attempts, atomic_load(&board->caller[0].verified),
           atomic_load(&board->caller[1].verified), atomic_load(&board->caller[0].lost),
           atomic_load(&board->caller[1].lost), tally->most_ms);
    CHECK(tally->kills >= KILLS);
    board_free(board);
}

/* Asks CALLER for an order, and says how long after the death its call ended. */
static void note_end_of_order(struct board *board, unsigned caller, int64_t killed, struct tally *tally)
{
    WAIT_UNTIL(atomic_load(&board->caller[caller].order) == ORDER_CHECKED);
    int64_t took = atomic_load(&board->caller[caller].over_ms) - killed;
    if (took > SOON_MS) test_fail(__FILE__, __LINE__, "a death was known after %lld ms", (long long)took);
    if (took > (int64_t)tally->most_ms) tally->most_ms = (unsigned)took;
}

TEST(a_server_killed_while_idle_harms_nobody)
{
    TEST_TIMEOUT(240); /* under a sanitizer, on a busy machine */
    struct board *board = board_new();
    struct tally tally = { 0 };
    struct started server = serve(board, &victim);
    pid_t pids[LOAD];
    start_load(board, pids, true);
    for (; tally.kills < KILLS; tally.kills++, tally.attempts++) {
        callers_pause(board, LOAD, true);
        WAIT_UNTIL(state_of(server.pid) == 'S');
        kill_process(server.pid);
        callers_pause(board, LOAD, false);
        respawn(board, &server, &tally);
    }
    finish_server_kills(board, "idle", &tally, pids, &server);
}

TEST(a_server_killed_in_its_handler_fails_that_call_and_no_other)
{
    TEST_TIMEOUT(240); /* under a sanitizer, on a busy machine */
    struct board *board = board_new();
    struct tally tally = { 0 };
    struct started server = serve(board, &victim);
    pid_t pids[LOAD];
    start_load(board, pids, true);
    for (; tally.kills < KILLS; tally.kills++, tally.attempts++) {
        unsigned caller = tally.kills % LOAD;
        caller_order(board, caller, ORDER_HANG);
        WAIT_UNTIL(atomic_load(&board->in_handler) == server.pid);
        int64_t killed = now_ms();
        kill_process(server.pid);
        note_end_of_order(board, caller, killed, &tally);
        respawn(board, &server, &tally);
    }
    /* Over shared memory the client knows exactly what ran: only the call in the handler may be lost. */
    CHECK_INT(atomic_load(&board->caller[0].lost), 0);
    finish_server_kills(board, "in its handler", &tally, pids, &server);
}

static void kill_while_writing(struct board *board, struct tally *tally, struct started *server)
{
    unsigned caller = tally->attempts++ % LOAD;
    caller_order(board, caller, ORDER_FETCH);
    WAIT_UNTIL(atomic_load(&board->answering) || atomic_load(&board->caller[caller].order) == ORDER_CHECKED);
    for (uint32_t turns = random_below(20000); turns > 0 && atomic_load(&board->answering); turns--) {
    }
    int64_t killed = now_ms();
    kill_process(server->pid);
    bool writing = atomic_exchange(&board->answering, 0);
    /* The socket takes what it has room for, the rest is written as it is read: then, too, the caller waits. */
    if (caller == 1 && atomic_load(&board->caller[caller].writing)) writing = true;
    note_end_of_order(board, caller, killed, tally);
    tally->kills += writing;
    respawn(board, server, tally);
}

TEST(a_server_killed_in_the_middle_of_a_large_answer_gives_no_wrong_one)
{
    TEST_TIMEOUT(240); /* under a sanitizer, on a busy machine */
    struct board *board = board_new();
    struct tally tally = { 0 };
    struct started server = serve(board, &victim);
    pid_t pids[LOAD];
    start_load(board, pids, true);
    while (tally.kills < KILLS && tally.attempts < ATTEMPTS) kill_while_writing(board, &tally, &server);
    finish_server_kills(board, "while writing", &tally, pids, &server);
}

/* A client that comes while the server dies: it must end up with the next one. */
static pid_t newcomer(struct board *board, const char *target)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid > 0) return pid;
    plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
    options.connect_timeout = PATIENCE_MS;
    plait_client *client = open_client(target, &options);
    CHECK_INT(checked_call(board, client, 64, PLAIT_CALL_IDEMPOTENT, 0), 0);
    plait_client_close(client);
    leave(0);
}

/* True if the server was stopped before its hello had left. */
static bool step_to_handshake(pid_t server, unsigned stops)
{
    struct __ptrace_syscall_info info;
    bool accepting = false, accepted = false, sending = false;
    for (int i = 0; i < 5000; i++) {
        if (!step(server, &info)) return false;
        if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
            accepting = info.entry.nr == SYS_accept4;
            sending = info.entry.nr == SYS_sendmsg;
        } else if (info.op == PTRACE_SYSCALL_INFO_EXIT && accepting) {
            accepted = accepted || !info.exit.is_error;
        }
        if (accepted && stops-- == 0) return true;
        if (accepted && sending && info.op == PTRACE_SYSCALL_INFO_EXIT) return true;
    }
    return false;
}

TEST(a_server_killed_at_any_system_call_of_the_handshake_harms_nobody)
{
    need_ptrace();
    TEST_TIMEOUT(240); /* under a sanitizer, on a busy machine */
    struct board *board = board_new();
    struct tally tally = { 0 };
    struct started server = serve(board, &victim);
    pid_t pids[LOAD];
    start_load(board, pids, true);
    while (tally.kills < KILLS && tally.attempts < ATTEMPTS) {
        CHECK(attach(server.pid));
        pid_t guest = newcomer(board, targets[tally.attempts % LOAD]);
        tally.kills += step_to_handshake(server.pid, tally.attempts++ % 25);
        kill_process(server.pid);
        respawn(board, &server, &tally);
        CHECK_INT(test_wait_child(guest), 0);
    }
    finish_server_kills(board, "in the handshake", &tally, pids, &server);
}

/* ---- the client is killed ---- */

/* A client that calls once, verified, and then does as ORDER says. PLACE on the board behind the load's. */
enum { VICTIM = LOAD };

static pid_t doomed(struct board *board, const char *target, enum order order)
{
    struct caller *self = &board->caller[VICTIM];
    atomic_store(&self->verified, 0);
    atomic_store(&self->writing, 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid > 0) {
        WAIT_UNTIL(atomic_load(&self->verified) == 1);
        return pid;
    }
    plait_client *client = open_client(target, NULL);
    CHECK_INT(checked_call(board, client, 64, 0, 0), 0);
    uint8_t *body = calloc(1, BIG);
    CHECK(body != NULL);
    atomic_store(&self->verified, 1);
    if (order == ORDER_CHECKED)
        for (;;) pause();
    memcpy(body + 4, &(uint32_t){ BIG }, 4); /* number 0: not counted */
    static const char *const methods[] = { "", "hang", "fetch", "upload", "defer" };
    for (;;) {
        atomic_store(&self->writing, 1);
        (void)plait_client_call(client, methods[order], body, order == ORDER_UPLOAD ? BIG : 8, NULL, NULL);
        atomic_store(&self->writing, 0);
    }
}

struct server_holdings {
    size_t fds, mappings;
};

static struct server_holdings holdings_of(const struct started *server)
{
    return (struct server_holdings){ fds_of(server->pid), mappings_of(server->pid) };
}

/* All that the dead client had is given back. Segments of living connections may come in the meantime. */
static void check_server(const struct started *server, struct server_holdings before)
{
    await_fds(server->pid, before.fds);
    WAIT_UNTIL(mappings_of(server->pid) <= before.mappings + 8);
}

static void begin_client_kills(struct board *board, struct started *server, pid_t pids[LOAD],
                               struct server_holdings *before)
{
    *server = serve(board, &(struct serve){ .name = "victim",
                                            .options = { .size = sizeof(plait_server_options), .threads = 2 } });
    start_load(board, pids, false);
    for (unsigned i = 0; i < 8; i++) callers_advance(board, LOAD);
    callers_pause(board, LOAD, true);
    *before = holdings_of(server);
    callers_pause(board, LOAD, false);
}

static void finish_client_kills(struct board *board, const char *state, struct started *server, const pid_t pids[LOAD],
                                struct server_holdings before, unsigned kills, unsigned attempts)
{
    callers_advance(board, LOAD);
    check_server(server, before);
    callers_end(board, pids, LOAD);
    plait_watch *watch = NULL;
    WAIT_UNTIL(plait_watch_open(&watch, "victim") == 0 && plait_watch_count(watch) == 1 &&
               (plait_watch_at(watch, 0)->connection_count == 0 || (plait_watch_close(watch), false)));
    plait_watch_close(watch);
    CHECK_INT(entries_of_names(), 2);
    CHECK_INT(counter_of("victim", "protocol_errors"), 0);
    end_server(server);
    CHECK_INT(entries_of_names(), 0);
    printf("# client killed %s: %u times of %u tries; right answers to others %u and %u\n", state, kills, attempts,
           atomic_load(&board->caller[0].verified), atomic_load(&board->caller[1].verified));
    CHECK(kills >= KILLS);
    board_free(board);
}

TEST(a_client_killed_while_idle_leaves_nothing_behind)
{
    TEST_TIMEOUT(240); /* under a sanitizer, on a busy machine */
    struct board *board = board_new();
    struct started server;
    struct server_holdings before;
    pid_t pids[LOAD];
    begin_client_kills(board, &server, pids, &before);
    for (unsigned i = 0; i < KILLS; i++) {
        pid_t client = doomed(board, targets[i % LOAD], ORDER_CHECKED);
        WAIT_UNTIL(state_of(client) == 'S');
        kill_process(client);
        if (i % 10 == 0) callers_advance(board, LOAD);
    }
    finish_client_kills(board, "while idle", &server, pids, before, KILLS, KILLS);
}

TEST(a_client_killed_while_its_call_is_in_the_handler_leaves_nothing_behind)
{
    TEST_TIMEOUT(240); /* under a sanitizer, on a busy machine */
    struct board *board = board_new();
    struct started server;
    struct server_holdings before;
    pid_t pids[LOAD];
    begin_client_kills(board, &server, pids, &before);
    for (unsigned i = 0; i < KILLS; i++) {
        atomic_store(&board->release, 0);
        bool deferring = i % 4 >= 2;
        uint32_t answered = atomic_load(&board->answered), deferred = atomic_load(&board->deferred);
        pid_t client = doomed(board, targets[i % LOAD], deferring ? ORDER_DEFER : ORDER_HANG);
        if (deferring) WAIT_UNTIL(atomic_load(&board->deferred) > deferred);
        else WAIT_UNTIL(atomic_load(&board->in_handler) == server.pid);
        kill_process(client);
        atomic_store(&board->release, 1);
        if (deferring) WAIT_UNTIL(atomic_load(&board->answered) > answered);
        else WAIT_UNTIL(atomic_load(&board->in_handler) == 0);
    }
    finish_client_kills(board, "while in the handler", &server, pids, before, KILLS, KILLS);
}

TEST(a_client_killed_in_the_middle_of_a_large_request_leaves_nothing_behind)
{
    TEST_TIMEOUT(240); /* under a sanitizer, on a busy machine */
    struct board *board = board_new();
    struct started server;
    struct server_holdings before;
    pid_t pids[LOAD];
    unsigned kills = 0, attempts = 0;
    begin_client_kills(board, &server, pids, &before);
    while (kills < KILLS && attempts < ATTEMPTS) {
        pid_t client = doomed(board, targets[attempts++ % LOAD], ORDER_UPLOAD);
        WAIT_UNTIL(atomic_load(&board->caller[VICTIM].writing));
        for (uint32_t turns = random_below(20000); turns > 0; turns--) (void)atomic_load(&board->stop);
        kill_process(client);
        kills += atomic_load(&board->caller[VICTIM].writing) == 1;
    }
    finish_client_kills(board, "while writing", &server, pids, before, kills, attempts);
}

/* Calls once, verified; then opens and closes clients until it is killed. */
static pid_t knocker(struct board *board, const char *target)
{
    struct caller *self = &board->caller[VICTIM];
    atomic_store(&self->verified, 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid > 0) {
        WAIT_UNTIL(atomic_load(&self->verified) == 1);
        return pid;
    }
    plait_client *client = open_client(target, NULL);
    CHECK_INT(checked_call(board, client, 64, 0, 0), 0);
    atomic_store(&self->verified, 1);
    for (;;) {
        int r = plait_client_open(&client, target, NULL);
        if (r == 0) plait_client_close(client);
    }
}

/* From the client's next connect() on; true if it was stopped before its epoll knew the connection. */
static bool step_to_hello(pid_t client, unsigned stops)
{
    struct __ptrace_syscall_info info;
    bool connecting = false, connected = false;
    for (int i = 0; i < 5000; i++) {
        if (!step(client, &info)) return false;
        if (info.op == PTRACE_SYSCALL_INFO_ENTRY) connecting = info.entry.nr == SYS_connect;
        if (connecting && info.op == PTRACE_SYSCALL_INFO_EXIT && !info.exit.is_error) connected = true;
        if (connected && stops-- == 0) return true;
    }
    return false;
}

TEST(a_client_killed_at_any_system_call_of_the_handshake_leaves_nothing_behind)
{
    need_ptrace();
    TEST_TIMEOUT(240); /* under a sanitizer, on a busy machine */
    struct board *board = board_new();
    struct started server;
    struct server_holdings before;
    pid_t pids[LOAD];
    unsigned kills = 0, attempts = 0;
    begin_client_kills(board, &server, pids, &before);
    while (kills < KILLS && attempts < ATTEMPTS) {
        pid_t client = knocker(board, targets[attempts % LOAD]);
        CHECK(attach(client));
        kills += step_to_hello(client, attempts++ / LOAD % 25);
        kill_process(client);
    }
    finish_client_kills(board, "in the handshake", &server, pids, before, kills, attempts);
}
