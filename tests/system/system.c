/* system: the board, servers, and clients that call; see system.h. */
#include "system/system.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* ---- board ---- */

struct board *board_new(void)
{
    struct board *board =
        mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(board != MAP_FAILED);
    return board;
}

/* The upper bit of a number's count: the call was idempotent. */
enum { MAY_REPEAT = 0x80 };

void board_free(struct board *board)
{
    uint32_t last = atomic_load(&board->next);
    for (uint32_t i = 1; i <= last && i < NUMBERS; i++) {
        uint8_t ran = atomic_load(&board->ran[i]);
        if (!board->strangers && !(ran & MAY_REPEAT) && ran > 1)
            test_fail(__FILE__, __LINE__, "call %u ran %d times", i, ran);
    }
    munmap(board, sizeof(*board));
}

/* ---- time and chance ---- */

int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void pause_ms(int milliseconds)
{
    poll(NULL, 0, milliseconds);
}

uint32_t random_below(uint32_t bound)
{
    static uint64_t state = 0x9e3779b97f4a7c15;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(((state >> 32) * bound) >> 32);
}

/* ---- forking ---- */

extern int __lsan_do_recoverable_leak_check(void) __attribute__((weak));

void leave(int status)
{
    if (status == 0 && __lsan_do_recoverable_leak_check && __lsan_do_recoverable_leak_check())
        test_fail(__FILE__, __LINE__, "process %d leaks memory", (int)getpid());
    fflush(NULL);
    _exit(status);
}

void kill_process(pid_t pid)
{
    kill(pid, SIGKILL);
    CHECK_INT(test_wait_child(pid), 128 + SIGKILL);
}

/* ---- what is asked and answered ---- */

struct asked {
    uint32_t number, size;
};

static uint8_t pattern(uint32_t number, size_t at)
{
    return (uint8_t)(number * 31 + at * 7 + (at >> 8));
}

/* A body of SIZE bytes; reused from call to call. */
static uint8_t *make_body(uint32_t number, size_t size)
{
    static _Thread_local uint8_t *space;
    static _Thread_local size_t room;
    if (size > room) {
        free(space);
        space = malloc(room = size);
        CHECK(space != NULL);
    }
    struct asked asked = { number, (uint32_t)size };
    memcpy(space, &asked, sizeof(asked));
    for (size_t i = sizeof(asked); i < size; i++) space[i] = pattern(number, i);
    if (size > 65536) { /* not for ever by one thread's warm memory */
        uint8_t *large = space;
        space = NULL;
        room = 0;
        return large;
    }
    return space;
}

static void drop_body(uint8_t *body, size_t size)
{
    if (size > 65536) free(body);
}

void caller_forget(void)
{
    drop_body(make_body(0, 65537), 65537);
}

static struct asked note_run(struct board *board, plait_request *request)
{
    struct asked asked = { 0, 0 };
    plait_bytes body = plait_request_body(request);
    if (body.size >= sizeof(asked)) memcpy(&asked, body.data, sizeof(asked));
    if (asked.number > 0 && asked.number < NUMBERS) atomic_fetch_add(&board->ran[asked.number], 1);
    return asked;
}

/* The same bytes, each turned round: nobody answers by echoing a buffer that happens to lie there. */
static void on_check(plait_request *request, void *context)
{
    note_run(context, request);
    plait_bytes body = plait_request_body(request);
    uint8_t *answer = malloc(body.size + 1);
    if (answer == NULL) {
        (void)plait_request_fail(request, 1, "no memory");
        return;
    }
    for (size_t i = 0; i < body.size; i++) answer[i] = (uint8_t)(0xff - ((const uint8_t *)body.data)[i]);
    (void)plait_request_reply(request, answer, body.size);
    free(answer);
}

static void on_hang(plait_request *request, void *context)
{
    struct board *board = context;
    note_run(board, request);
    atomic_store(&board->in_handler, (int32_t)getpid());
    int64_t until = now_ms() + PATIENCE_MS * 2;
    while (!atomic_load(&board->release) && now_ms() < until) pause_ms(1);
    atomic_store(&board->in_handler, 0);
    (void)plait_request_reply(request, "hung", 4);
}

static void on_fetch(plait_request *request, void *context)
{
    struct board *board = context;
    struct asked asked = note_run(board, request);
    uint8_t *answer = malloc(BIG);
    CHECK(answer != NULL);
    for (size_t i = 0; i < BIG; i += 4096) answer[i] = pattern(asked.number, i);
    atomic_store(&board->answering, 1);
    (void)plait_request_reply(request, answer, BIG);
    atomic_store(&board->answering, 0);
    free(answer);
}

static void on_upload(plait_request *request, void *context)
{
    struct asked asked = note_run(context, request);
    plait_bytes body = plait_request_body(request);
    CHECK_INT(body.size, asked.size);
    /* Number 0 is a client that is to die over it, and sometimes comes too late for that. */
    for (size_t i = 4096; asked.number != 0 && i < body.size; i += 4096)
        CHECK_INT(((const uint8_t *)body.data)[i], pattern(asked.number, i));
    (void)plait_request_reply(request, "taken", 5);
}

struct later {
    struct board *board;
    plait_request *request;
};

static void *answer_later(void *context)
{
    struct later later = *(struct later *)context;
    free(context);
    int64_t until = now_ms() + PATIENCE_MS * 2;
    while (!atomic_load(&later.board->release) && now_ms() < until) pause_ms(1);
    int r = plait_request_reply(later.request, "late", 4);
    atomic_store(&later.board->answer_result, r);
    atomic_fetch_add(&later.board->answered, 1);
    return NULL;
}

static void on_defer(plait_request *request, void *context)
{
    struct board *board = context;
    pthread_t thread;
    struct later *later = malloc(sizeof(*later));
    note_run(board, request);
    CHECK(later != NULL);
    *later = (struct later){ .board = board };
    CHECK_INT(plait_request_defer(request, &later->request), 0);
    CHECK_INT(pthread_create(&thread, NULL, answer_later, later), 0);
    pthread_detach(thread);
    atomic_fetch_add(&board->deferred, 1);
}

/* ---- servers ---- */

static int open_server(struct board *board, const struct serve *what, plait_server **ret_server)
{
    plait_server_options options = what->options;
    if (options.size == 0) options.size = sizeof(options);
    int r = plait_server_open(ret_server, what->name, &options);
    if (r < 0) return r;
    CHECK_INT(plait_server_handle(*ret_server, "", on_check, board), 0);
    CHECK_INT(plait_server_handle(*ret_server, "hang", on_hang, board), 0);
    CHECK_INT(plait_server_handle(*ret_server, "fetch", on_fetch, board), 0);
    CHECK_INT(plait_server_handle(*ret_server, "upload", on_upload, board), 0);
    CHECK_INT(plait_server_handle(*ret_server, "defer", on_defer, board), 0);
    for (size_t i = 0; r == 0 && i < 6 && what->listen[i]; i++) r = plait_server_listen(*ret_server, what->listen[i]);
    return r;
}

/* In a process of its own. */
static void run_server(struct board *board, const struct serve *what, int out)
{
    struct started told = { .pid = getpid() };
    plait_server *server = NULL;
    if (what->uid) {
        CHECK_INT(setgid(what->uid), 0);
        CHECK_INT(setuid(what->uid), 0);
    }
    size_t fds = test_count_fds(), mappings = test_count_mappings();
    if (what->fd_limit) {
        struct rlimit limit = { (rlim_t)what->fd_limit, (rlim_t)what->fd_limit };
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    }
    if (what->storm) what->storm();
    told.result = open_server(board, what, &server);
    if (told.result < 0) snprintf(told.error, sizeof(told.error), "%s", plait_error_text());
    for (size_t i = 0; told.result == 0 && i < 6 && what->listen[i]; i++)
        snprintf(told.url[i], sizeof(told.url[i]), "%s", plait_server_url(server, i));
    CHECK_INT(write(out, &told, sizeof(told)), sizeof(told));
    if (told.result == 0 && plait_server_run(server) < 0) test_fail(__FILE__, __LINE__, "run: %s", plait_error_text());
    plait_server_close(server);
    CHECK_INT(test_count_fds(), fds);
    CHECK_INT(test_count_mappings(), mappings);
    leave(0);
}

struct started serve(struct board *board, const struct serve *what)
{
    int out[2];
    struct started told = { 0 };
    CHECK_INT(pipe2(out, O_CLOEXEC), 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        close(out[0]);
        run_server(board, what, out[1]);
    }
    close(out[1]);
    ssize_t n = read(out[0], &told, sizeof(told));
    close(out[0]);
    if (n != (ssize_t)sizeof(told))
        test_fail(__FILE__, __LINE__, "a server of %s never said that it was ready", what->name);
    told.pid = pid;
    if (what->fails) {
        CHECK_INT(test_wait_child(pid), 0);
        if (told.result >= 0) test_fail(__FILE__, __LINE__, "a server that had to fail was opened");
    } else if (told.result < 0) {
        test_fail(__FILE__, __LINE__, "server of %s: %s", what->name, told.error);
    }
    return told;
}

/* Whether PID has something to do with SIGTERM but to die: caught or blocked. */
static bool minds_sigterm(pid_t pid)
{
    char line[256];
    unsigned long long both = 0, mask;
    snprintf(line, sizeof(line), "/proc/%d/status", (int)pid);
    FILE *status = fopen(line, "re");
    if (status == NULL) return false;
    while (fgets(line, sizeof(line), status))
        if (sscanf(line, "SigCgt: %llx", &mask) == 1 || sscanf(line, "SigBlk: %llx", &mask) == 1) both |= mask;
    fclose(status);
    return both >> (SIGTERM - 1) & 1;
}

void await_running(const struct started *server)
{
    WAIT_UNTIL(minds_sigterm(server->pid));
}

void end_server(const struct started *server)
{
    await_running(server);
    CHECK_INT(kill(server->pid, SIGTERM), 0);
    CHECK_INT(test_wait_child(server->pid), 0);
}

/* ---- clients ---- */

plait_client *open_client(const char *target, const plait_client_options *options)
{
    plait_client *client = NULL;
    int r = plait_client_open(&client, target, options);
    if (r < 0) test_fail(__FILE__, __LINE__, "open %s: %s", target, plait_error_text());
    return client;
}

static uint32_t next_number(struct board *board, uint32_t flags)
{
    uint32_t number = atomic_fetch_add(&board->next, 1) + 1;
    CHECK(number < NUMBERS);
    if (flags & PLAIT_CALL_IDEMPOTENT) atomic_store(&board->ran[number], MAY_REPEAT);
    return number;
}

int checked_call(struct board *board, plait_client *client, size_t size, uint32_t flags, int64_t timeout)
{
    plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
    plait_reply *reply = NULL;
    options.flags = flags;
    options.timeout = timeout;
    uint32_t number = next_number(board, flags);
    uint8_t *body = make_body(number, size);
    int r = plait_client_call(client, "", body, size, &options, &reply);
    uint8_t ran = atomic_load(&board->ran[number]);
    if (r == 0) {
        plait_bytes got = plait_reply_body(reply);
        CHECK_INT(got.size, size);
        for (size_t i = 0; i < size; i++)
            if (((const uint8_t *)got.data)[i] + body[i] != 0xff)
                test_fail(__FILE__, __LINE__, "call %u: byte %zu of %zu of the answer is wrong", number, i, size);
        if ((ran & ~MAY_REPEAT) == 0) test_fail(__FILE__, __LINE__, "call %u was answered and never ran", number);
    }
    if (!(ran & MAY_REPEAT) && ran > 1) test_fail(__FILE__, __LINE__, "call %u ran %d times", number, ran);
    plait_reply_free(reply);
    drop_body(body, size);
    return r;
}

static void obey(struct board *board, struct caller *self, plait_client *client, enum order order, bool servers_die)
{
    static const char *const methods[] = { "", "hang", "fetch", "upload", "defer" };
    size_t size = order == ORDER_UPLOAD ? BIG : sizeof(struct asked);
    plait_reply *reply = NULL;
    uint32_t number = next_number(board, 0);
    uint8_t *body = make_body(number, size);
    atomic_store(&self->writing, 1);
    int r = plait_client_call(client, methods[order], body, size, NULL, &reply);
    atomic_store(&self->writing, 0);
    if (r == 0 && order == ORDER_FETCH) {
        CHECK_INT(plait_reply_body(reply).size, BIG);
        for (size_t i = 0; i < BIG; i += 4096)
            CHECK_INT(((const uint8_t *)plait_reply_body(reply).data)[i], pattern(number, i));
    }
    if (r < 0 && !(servers_die && r == -ECONNRESET))
        test_fail(__FILE__, __LINE__, "%s: %s", methods[order], plait_error_text());
    if (r == -ECONNRESET) CHECK_CONTAINS(plait_error_text(), "may have run");
    plait_reply_free(reply);
    drop_body(body, size);
    atomic_store(&self->over_ms, now_ms());
    atomic_store(&self->order, ORDER_CHECKED);
}

static void call_on(struct board *board, struct caller *self, plait_client *client, bool servers_die)
{
    static const size_t sizes[] = { 8, 64, 1000, 8192, 8, 9000, 8, 200000 };
    for (unsigned turn = 0; !atomic_load(&board->stop); turn++) {
        if (atomic_load(&board->pause)) {
            atomic_store(&self->fds, (uint32_t)test_count_fds());
            atomic_store(&self->mappings, (uint32_t)test_count_mappings());
            atomic_store(&self->paused, 1);
            while (atomic_load(&board->pause) && !atomic_load(&board->stop)) pause_ms(1);
            atomic_store(&self->paused, 0);
        }
        uint32_t order = atomic_load(&self->order);
        if (order != ORDER_CHECKED) {
            obey(board, self, client, order, servers_die);
            continue;
        }
        uint32_t flags = turn % 3 == 0 ? PLAIT_CALL_IDEMPOTENT : 0;
        int r = checked_call(board, client, sizes[turn % 8], flags, 0);
        if (r == 0) {
            atomic_fetch_add(&self->verified, 1);
        } else if (servers_die && r == -ECONNRESET && flags == 0) {
            atomic_fetch_add(&self->lost, 1);
        } else {
            test_fail(__FILE__, __LINE__, "a call failed: %s", plait_error_text());
        }
    }
}

pid_t caller_start(struct board *board, unsigned place, const char *target, bool servers_die)
{
    CHECK(place < CALLERS);
    struct caller *self = &board->caller[place];
    atomic_store(&self->order, ORDER_CHECKED);
    atomic_store(&self->writing, 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid > 0) return pid;
    plait_client_close(open_client(target, NULL)); /* what a process keeps for good is there */
    size_t fds = test_count_fds(), mappings = test_count_mappings();
    plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
    options.connect_timeout = PATIENCE_MS;
    plait_client *client = open_client(target, &options);
    call_on(board, self, client, servers_die);
    plait_client_close(client);
    CHECK_INT(test_count_fds(), fds);
    CHECK_INT(test_count_mappings(), mappings);
    caller_forget();
    leave(0);
}

void caller_order(struct board *board, unsigned place, enum order order)
{
    atomic_store(&board->caller[place].order, order);
}

void callers_pause(struct board *board, unsigned count, bool pause)
{
    atomic_store(&board->pause, pause);
    for (unsigned i = 0; i < count; i++) WAIT_UNTIL(atomic_load(&board->caller[i].paused) == pause);
}

void callers_end(struct board *board, const pid_t *pids, unsigned count)
{
    atomic_store(&board->stop, 1);
    for (unsigned i = 0; i < count; i++) CHECK_INT(test_wait_child(pids[i]), 0);
    atomic_store(&board->stop, 0);
}

void callers_advance(struct board *board, unsigned count)
{
    uint32_t before[CALLERS];
    for (unsigned i = 0; i < count; i++) before[i] = atomic_load(&board->caller[i].verified);
    for (unsigned i = 0; i < count; i++) WAIT_UNTIL(atomic_load(&board->caller[i].verified) != before[i]);
}
