/* system: see system.h. */
#include "system/system.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
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

/* ---- looking at others ---- */

static size_t count_entries(const char *path)
{
    size_t count = 0;
    DIR *listing = opendir(path);
    if (listing == NULL) return 0;
    for (struct dirent *entry; (entry = readdir(listing));) count += entry->d_name[0] != '.';
    closedir(listing);
    return count;
}

size_t fds_of(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    return count_entries(path);
}

/* "6 anon_inode:[eventpoll], ..." */
static void list_fds(pid_t pid, char *text, size_t size)
{
    char path[300], target[100];
    size_t used = 0;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *listing = opendir(path);
    if (listing == NULL) return;
    for (struct dirent *entry; (entry = readdir(listing)) && used < size;) {
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)pid, entry->d_name);
        ssize_t n = readlink(path, target, sizeof(target) - 1);
        if (n > 0) used += (size_t)snprintf(text + used, size - used, "%s %.*s, ", entry->d_name, (int)n, target);
    }
    closedir(listing);
}

void await_fds(pid_t pid, size_t most)
{
    char text[900] = "";
    int64_t until = now_ms() + PATIENCE_MS;
    while (fds_of(pid) > most && now_ms() < until) pause_ms(1);
    if (fds_of(pid) <= most) return;
    list_fds(pid, text, sizeof(text));
    test_fail(__FILE__, __LINE__, "process %d should have %zu descriptors and has %s", (int)pid, most, text);
}

size_t mappings_of(pid_t pid)
{
    char line[1024];
    size_t count = 0;
    snprintf(line, sizeof(line), "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(line, "re");
    if (maps == NULL) return 0;
    while (fgets(line, sizeof(line), maps)) {
        const char *mode = strchr(line, ' ');
        count += mode && strlen(mode) > 4 && mode[4] == 's';
    }
    fclose(maps);
    return count;
}

size_t entries_of_names(void)
{
    char path[600];
    snprintf(path, sizeof(path), "%s/services", getenv("PLAIT_DIR"));
    size_t count = count_entries(path);
    snprintf(path, sizeof(path), "%s/s", getenv("PLAIT_DIR"));
    return count + count_entries(path);
}

char state_of(pid_t pid)
{
    char text[512] = "";
    snprintf(text, sizeof(text), "/proc/%d/stat", (int)pid);
    int fd = open(text, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n <= 0) return 0;
    text[n] = 0;
    const char *end = strrchr(text, ')');
    return end && end[1] ? end[2] : 0;
}

uint64_t switches_of(pid_t pid)
{
    char path[400], line[256];
    uint64_t sum = 0;
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    if (tasks == NULL) return 0;
    for (struct dirent *entry; (entry = readdir(tasks));) {
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof(path), "/proc/%d/task/%s/status", (int)pid, entry->d_name);
        FILE *status = fopen(path, "re");
        if (status == NULL) continue;
        unsigned long long value;
        while (fgets(line, sizeof(line), status))
            if (sscanf(line, "voluntary_ctxt_switches: %llu", &value) == 1) sum += value;
        fclose(status);
    }
    closedir(tasks);
    return sum;
}

/* ---- the status page ---- */

static uint64_t u64_at(const uint8_t *bytes, size_t at)
{
    uint64_t value;
    memcpy(&value, bytes + at, sizeof(value));
    return value;
}

static uint32_t u32_at(const uint8_t *bytes, size_t at)
{
    uint32_t value;
    memcpy(&value, bytes + at, sizeof(value));
    return value;
}

/* The sum over the service and its connections in one page. */
static uint64_t counter_in_page(const uint8_t *page, size_t size, const char *service, const char *counter)
{
    size_t place = 0;
    uint64_t sum = 0, id = 0;
    while (place < 16 && strncmp((const char *)page + 160 + place * 24, counter, 24) != 0) place++;
    if (place == 16) return 0;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t at = u32_at(page, 12); at + 64 <= size && u32_at(page, at) != 0;) {
            uint32_t kind = u32_at(page, at), slot_size = u32_at(page, at + 4), count = u32_at(page, at + 8);
            for (uint32_t i = 0; i < count; i++) {
                const uint8_t *slot = page + at + u32_at(page, at + 12) + (size_t)i * slot_size;
                if (kind == 2 && pass == 0 && u64_at(slot, 8) && strcmp((const char *)slot + 48, service) == 0) {
                    id = u64_at(slot, 8);
                    sum += u64_at(slot, 256 + place * 8) + u64_at(slot, 384 + place * 8);
                } else if (kind == 3 && pass == 1 && u64_at(slot, 8) && id && u64_at(slot, 16) == id) {
                    sum += u64_at(slot, 128 + place * 8);
                }
            }
            if (u64_at(page, at + 16) == 0) break;
            at += u64_at(page, at + 16);
        }
    }
    return sum;
}

uint64_t counter_of(const char *service, const char *counter)
{
    char path[900], folder[600];
    struct stat status;
    uint64_t sum = 0;
    snprintf(folder, sizeof(folder), "%s/status", getenv("PLAIT_DIR"));
    DIR *listing = opendir(folder);
    if (listing == NULL) {
        CHECK_INT(stat(getenv("PLAIT_DIR"), &status), 0);
        snprintf(folder, sizeof(folder), "/dev/shm/plait-%llx-%llx", (unsigned long long)status.st_dev,
                 (unsigned long long)status.st_ino);
        listing = opendir(folder);
    }
    if (listing == NULL) return 0;
    for (struct dirent *entry; (entry = readdir(listing));) {
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &status) < 0) continue;
        uint8_t *page = malloc((size_t)status.st_size);
        CHECK(page != NULL);
        if (read(fd, page, (size_t)status.st_size) == status.st_size)
            sum += counter_in_page(page, (size_t)status.st_size, service, counter);
        free(page);
        close(fd);
    }
    closedir(listing);
    return sum;
}

/* ---- raw sockets ---- */

static int connect_path(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    CHECK(strlen(path) < sizeof(address.sun_path));
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        test_fail(__FILE__, __LINE__, "connect %s: %s", path, strerror(errno));
    return fd;
}

int raw_connect(const char *url)
{
    unsigned port = 0;
    char path[200];
    if (sscanf(url, "unix://%199[^?]", path) == 1) return connect_path(path);
    if (sscanf(url, "tcp://127.0.0.1:%u", &port) != 1) test_fail(__FILE__, __LINE__, "what is %s?", url);
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        test_fail(__FILE__, __LINE__, "connect %s: %s", url, strerror(errno));
    return fd;
}

int raw_connect_name(const char *name)
{
    char path[700], id[32] = "";
    snprintf(path, sizeof(path), "%s/services", getenv("PLAIT_DIR"));
    DIR *listing = opendir(path);
    CHECK(listing != NULL);
    for (struct dirent *entry; (entry = readdir(listing));) {
        const char *at = strchr(entry->d_name, '@');
        if (at && (size_t)(at - entry->d_name) == strlen(name) && strncmp(entry->d_name, name, strlen(name)) == 0)
            snprintf(id, sizeof(id), "%.20s", at + 1);
    }
    closedir(listing);
    if (id[0] == 0) test_fail(__FILE__, __LINE__, "no instance of %s", name);
    snprintf(path, sizeof(path), "%s/s/%s", getenv("PLAIT_DIR"), id);
    return connect_path(path);
}

void raw_send(int fd, const void *bytes, size_t size)
{
    const uint8_t *from = bytes;
    while (size > 0) {
        ssize_t n = send(fd, from, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return;
        from += n;
        size -= (size_t)n;
    }
}

size_t raw_read(int fd, void *bytes, size_t size)
{
    size_t done = 0;
    while (done < size) {
        struct pollfd poller = { .fd = fd, .events = POLLIN };
        if (poll(&poller, 1, PATIENCE_MS) <= 0) test_fail(__FILE__, __LINE__, "nothing came");
        ssize_t n = recv(fd, (uint8_t *)bytes + done, size - done, 0);
        if (n <= 0) break;
        done += (size_t)n;
    }
    return done;
}

int raw_closed(int fd, int milliseconds)
{
    int64_t until = now_ms() + milliseconds;
    for (;;) {
        char dropped[4096];
        int64_t left = until - now_ms();
        struct pollfd poller = { .fd = fd, .events = POLLIN };
        if (left < 0 || poll(&poller, 1, (int)left) <= 0) return 0;
        if (recv(fd, dropped, sizeof(dropped), 0) <= 0) return 1;
    }
}

size_t raw_hello(uint8_t bytes[132], const char *name, uint64_t features)
{
    uint8_t page = 0;
    while ((1L << page) < sysconf(_SC_PAGESIZE)) page++;
    memset(bytes, 0, 132);
    memcpy(bytes, "PLAI", 4);
    bytes[4] = 1;
    bytes[8] = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? 1 : 2;
    bytes[9] = sizeof(void *);
    bytes[10] = page;
    bytes[16] = (uint8_t)features;
    bytes[24] = (uint8_t)strlen(name);
    memcpy(bytes + 32, name, strlen(name));
    return 32 + strlen(name);
}

void raw_frame(uint8_t head[32], uint32_t size, uint8_t kind, uint8_t flags, uint32_t method, uint64_t call)
{
    memset(head, 0, 32);
    for (int i = 0; i < 4; i++) {
        head[i] = (uint8_t)(size >> 8 * i);
        head[8 + i] = (uint8_t)(method >> 8 * i);
    }
    head[4] = kind;
    head[6] = flags;
    for (int i = 0; i < 8; i++) head[16 + i] = (uint8_t)(call >> 8 * i);
}
