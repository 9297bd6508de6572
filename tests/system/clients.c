/* clients: how a client finds its server, and what it spends on connections and threads. */
#include "system/system.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- finding ---- */

/* Whether PID waits for names: it has made its inotify. */
static bool watches_names(pid_t pid)
{
    char path[300], target[64];
    struct dirent *entry;
    bool found = false;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *directory = opendir(path);
    if (directory == NULL) return false;
    while (!found && (entry = readdir(directory)) != NULL) {
        ssize_t size = readlinkat(dirfd(directory), entry->d_name, target, sizeof(target) - 1);
        target[size > 0 ? size : 0] = '\0';
        found = strstr(target, "inotify") != NULL;
    }
    closedir(directory);
    return found;
}

/* From here on this process has no inotify, as where its user's limit is used up. */
static void do_without_inotify(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_inotify_init1, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EMFILE),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        _exit(77);
}

/* A process that calls "late" as soon as it is there. */
static pid_t start_early(struct board *board, void (*before)(void))
{
    pid_t early = fork();
    CHECK(early >= 0);
    if (early > 0) return early;
    plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
    options.connect_timeout = PATIENCE_MS;
    if (before) before();
    plait_client *client = open_client("late", &options);
    CHECK_INT(checked_call(board, client, 100, 0, 0), 0);
    plait_client_close(client);
    leave(0);
}

TEST(without_inotify_a_client_looks_again_and_again_and_finds_a_name_that_comes)
{
    struct board *board = board_new();
    pid_t early = start_early(board, do_without_inotify);
    WAIT_UNTIL(state_of(early) == 'Z' || switches_of(early) > 5); /* it sleeps between its looks */
    CHECK(!watches_names(early));
    struct started server = serve(board, &(struct serve){ .name = "late" });
    int status = test_wait_child(early);
    end_server(&server);
    board_free(board);
    if (status == 77) SKIP("seccomp is not to be had here");
    CHECK_INT(status, 0);
}

TEST(a_client_may_start_before_its_server)
{
    struct board *board = board_new();
    pid_t early = start_early(board, NULL);
    WAIT_UNTIL(watches_names(early));
    struct started server = serve(board, &(struct serve){ .name = "late" });
    CHECK_INT(test_wait_child(early), 0);
    end_server(&server);
    board_free(board);
}

/* ---- threads ---- */

static size_t own_threads(void)
{
    struct dirent *entry;
    size_t count = 0;
    DIR *directory = opendir("/proc/self/task");
    CHECK(directory != NULL);
    while ((entry = readdir(directory)) != NULL) count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

static void count_replies(int result, plait_reply *reply, void *context)
{
    CHECK_INT(result, 0);
    plait_reply_free(reply);
    ++*(int *)context;
}

/* Publishes once somebody is there, and ends when the other end of STOP is closed. */
static pid_t publish_once(int stop[2])
{
    char byte;
    CHECK_INT(pipe2(stop, O_CLOEXEC), 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid > 0) {
        close(stop[0]);
        return pid;
    }
    close(stop[1]);
    plait_publisher *publisher = NULL;
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    options.wait_subscribers = 1;
    options.timeout = PATIENCE_MS;
    CHECK_INT(plait_publisher_open(&publisher, "news", &options), 0);
    CHECK_INT(plait_publisher_publish(publisher, "once", 4), 0);
    while (read(stop[0], &byte, 1) < 0 && errno == EINTR) continue;
    plait_publisher_close(publisher);
    close(stop[0]);
    leave(0);
}

TEST(neither_a_client_nor_a_subscriber_starts_a_thread)
{
    struct board *board = board_new();
    struct started server = serve(board, &(struct serve){ .name = "plain" });
    int stop[2], replies = 0;
    pid_t publisher = publish_once(stop);
    size_t before = own_threads(); /* a sanitizer may have one */
    plait_client *client = open_client("plain", NULL);
    CHECK_INT(checked_call(board, client, 100, 0, 0), 0);
    CHECK_INT(checked_call(board, client, 1 << 20, 0, 0), 0);
    static const char body[8];
    CHECK_INT(plait_client_call_async(client, "", body, sizeof(body), NULL, count_replies, &replies, NULL), 0);
    WAIT_UNTIL(plait_client_dispatch(client, 10) >= 0 && replies == 1);
    plait_subscriber *subscriber = NULL;
    plait_message *message = NULL;
    CHECK_INT(plait_subscriber_open(&subscriber, "news", NULL), 0);
    CHECK_INT(plait_subscriber_next(subscriber, PATIENCE_MS, &message), 0);
    CHECK_INT(own_threads(), before);
    plait_subscriber_close(subscriber);
    close(stop[1]);
    CHECK_INT(test_wait_child(publisher), 0);
    caller_forget();
    plait_client_close(client);
    end_server(&server);
    board_free(board);
}

/* ---- connections ---- */

enum { THREADS = 3, NOTES = 300 };

struct server {
    plait_server *server;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int hanging, released;
    uint32_t notes[NOTES];
    int noted;
};

static void tell_thread(plait_request *request, void *context)
{
    int32_t thread = (int32_t)syscall(SYS_gettid);
    (void)context;
    plait_request_reply(request, &thread, sizeof(thread));
}

static void hang(plait_request *request, void *context)
{
    struct server *server = context;
    pthread_mutex_lock(&server->lock);
    server->hanging++;
    pthread_cond_broadcast(&server->changed);
    while (!server->released) pthread_cond_wait(&server->changed, &server->lock);
    pthread_mutex_unlock(&server->lock);
    plait_request_reply(request, NULL, 0);
}

static void note(plait_request *request, void *context)
{
    struct server *server = context;
    pthread_mutex_lock(&server->lock);
    CHECK(server->noted < NOTES);
    CHECK_INT(plait_request_body(request).size, sizeof(uint32_t));
    memcpy(&server->notes[server->noted++], plait_request_body(request).data, sizeof(uint32_t));
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
    plait_request_reply(request, NULL, 0);
}

static void open_server(struct server *server)
{
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    *server = (struct server){ .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
    options.threads = THREADS;
    CHECK_INT(plait_server_open(&server->server, "several", &options), 0);
    CHECK_INT(plait_server_handle(server->server, "thread", tell_thread, server), 0);
    CHECK_INT(plait_server_handle(server->server, "hang", hang, server), 0);
    CHECK_INT(plait_server_handle(server->server, "note", note, server), 0);
    CHECK_INT(plait_server_start(server->server), 0);
}

static size_t connections_of(const char *name)
{
    plait_watch *watch = NULL;
    size_t count = 0;
    CHECK_INT(plait_watch_open(&watch, name), 0);
    for (size_t i = 0; i < plait_watch_count(watch); i++) count += plait_watch_at(watch, i)->connection_count;
    plait_watch_close(watch);
    return count;
}

static int32_t thread_that_answers(plait_client *client)
{
    plait_reply *reply = NULL;
    int32_t thread;
    CHECK_INT(plait_client_call(client, "thread", NULL, 0, NULL, &reply), 0);
    memcpy(&thread, plait_reply_body(reply).data, sizeof(thread));
    plait_reply_free(reply);
    return thread;
}

TEST(a_client_opens_a_further_connection_only_when_a_call_would_queue_behind_its_own)
{
    static struct server server;
    int replies = 0;
    open_server(&server);
    plait_client *client = open_client("several", NULL);
    for (int i = 0; i < 1000; i++) (void)thread_that_answers(client);
    CHECK_INT(connections_of("several"), 1);
    for (int i = 0; i < THREADS; i++)
        CHECK_INT(plait_client_call_async(client, "hang", NULL, 0, NULL, count_replies, &replies, NULL), 0);
    pthread_mutex_lock(&server.lock);
    while (server.hanging < THREADS) pthread_cond_wait(&server.changed, &server.lock);
    server.released = 1;
    pthread_cond_broadcast(&server.changed);
    pthread_mutex_unlock(&server.lock);
    WAIT_UNTIL(plait_client_dispatch(client, 10) >= 0 && replies == THREADS);
    CHECK_INT(connections_of("several"), THREADS);
    plait_client_close(client);
    plait_server_close(server.server);
}

TEST(a_new_connection_goes_to_the_thread_with_the_fewest)
{
    enum { EACH = 3 };
    static struct server server;
    plait_client *clients[THREADS * EACH];
    int32_t threads[THREADS] = { 0 };
    int served[THREADS] = { 0 };
    open_server(&server);
    for (int i = 0; i < THREADS * EACH; i++) {
        clients[i] = open_client("several", NULL);
        int32_t thread = thread_that_answers(clients[i]);
        int place = 0;
        while (place < THREADS && threads[place] != thread && threads[place] != 0) place++;
        CHECK(place < THREADS);
        threads[place] = thread;
        served[place]++;
    }
    for (int i = 0; i < THREADS; i++) CHECK_INT(served[i], EACH);
    for (int i = 0; i < THREADS * EACH; i++) plait_client_close(clients[i]);
    plait_server_close(server.server);
}

TEST(sends_and_ordered_calls_arrive_in_order_while_other_calls_spread_over_the_threads)
{
    static struct server server;
    plait_call_options ordered = PLAIT_CALL_OPTIONS_INIT;
    int replies = 0, calls = 0;
    open_server(&server);
    plait_client *client = open_client("several", NULL);
    ordered.flags = PLAIT_CALL_ORDERED;
    for (uint32_t i = 0; i < NOTES; i++) {
        if (i % 100 == 50) { /* keeps a thread from serving: the next one has to be another's */
            CHECK_INT(plait_client_call_async(client, "hang", NULL, 0, NULL, count_replies, &replies, NULL), 0);
            calls++;
        }
        if (i % 3 != 0) {
            CHECK_INT(plait_client_send(client, "note", &i, sizeof(i), NULL), 0);
            continue;
        }
        CHECK_INT(plait_client_call_async(client, "note", &i, sizeof(i), &ordered, count_replies, &replies, NULL), 0);
        calls++;
    }
    pthread_mutex_lock(&server.lock);
    server.released = 1;
    pthread_cond_broadcast(&server.changed);
    while (server.noted < NOTES) pthread_cond_wait(&server.changed, &server.lock);
    pthread_mutex_unlock(&server.lock);
    for (uint32_t i = 0; i < NOTES; i++) CHECK_INT(server.notes[i], i);
    WAIT_UNTIL(plait_client_dispatch(client, 10) >= 0 && replies == calls);
    plait_client_close(client);
    plait_server_close(server.server);
}

/* ---- limits of the network ---- */

static void tell_size(plait_request *request, void *context)
{
    uint64_t size = plait_request_body(request).size;
    (void)context;
    plait_request_reply(request, &size, sizeof(size));
}

static int send_bytes(const char *url, const char *option, size_t size)
{
    char target[300];
    uint8_t *body = calloc(1, size);
    plait_reply *reply = NULL;
    CHECK(body != NULL);
    snprintf(target, sizeof(target), "%s%s", url, option);
    plait_client *client = open_client(target, NULL);
    int r = plait_client_call(client, "", body, size, NULL, &reply);
    if (r == 0) CHECK(*(const uint64_t *)plait_reply_body(reply).data == size);
    plait_reply_free(reply);
    plait_client_close(client);
    free(body);
    return r;
}

TEST(over_the_network_a_message_above_16_MiB_needs_max_message)
{
    enum { LIMIT = 16 << 20 };
    plait_server *server = NULL;
    CHECK_INT(plait_server_open(&server, "network", NULL), 0);
    CHECK_INT(plait_server_handle(server, "", tell_size, NULL), 0);
    CHECK_INT(plait_server_listen(server, "tcp://127.0.0.1:0"), 0);
    CHECK_INT(plait_server_listen(server, "tcp://127.0.0.1:0?max_message=17M"), 0);
    CHECK_INT(plait_server_start(server), 0);
    CHECK_INT(send_bytes(plait_server_url(server, 0), "", LIMIT), 0);
    CHECK_INT(send_bytes(plait_server_url(server, 0), "", LIMIT + 1), -EMSGSIZE);
    CHECK_CONTAINS(plait_error_text(), "max_message=16777216");
    CHECK_INT(send_bytes(plait_server_url(server, 1), "", LIMIT + 1), 0);
    CHECK_INT(send_bytes("network", "", LIMIT + 1), 0); /* on this machine there is more room */
    plait_server_close(server);
}

/* ---- two libraries in one process ---- */

static const char *library_path(void)
{
    static char path[4096];
    Dl_info info;
    CHECK(dladdr((void *)(uintptr_t)plait_version, &info) != 0);
    CHECK(realpath(info.dli_fname, path) != NULL);
    return path;
}

/* A library of its own, with its own state: the same file would be the same library. */
static void *load_copy(void)
{
    char path[600], block[1 << 16];
    snprintf(path, sizeof(path), "%s/another.so", test_directory());
    int from = open(library_path(), O_RDONLY | O_CLOEXEC), to = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
    CHECK(from >= 0 && to >= 0);
    ssize_t n;
    while ((n = read(from, block, sizeof(block))) > 0) CHECK_INT(write(to, block, (size_t)n), n);
    close(from);
    close(to);
    void *copy = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (copy == NULL) test_fail(__FILE__, __LINE__, "%s", dlerror());
    return copy;
}

/* The functions that a server and a client need, of one library. */
struct library {
    int (*server_open)(plait_server **, const char *, const plait_server_options *);
    int (*server_handle)(plait_server *, const char *, plait_handler *, void *);
    int (*server_start)(plait_server *);
    void (*server_close)(plait_server *);
    plait_bytes (*request_body)(const plait_request *);
    int (*request_reply)(plait_request *, const void *, size_t);
    int (*client_open)(plait_client **, const char *, const plait_client_options *);
    int (*client_call)(plait_client *, const char *, const void *, size_t, const plait_call_options *, plait_reply **);
    plait_bytes (*reply_body)(const plait_reply *);
    void (*reply_free)(plait_reply *);
    void (*client_close)(plait_client *);
};

static void find_functions(struct library *library, void *handle)
{
    static const char *const names[] = { "plait_server_open",  "plait_server_handle", "plait_server_start",
                                         "plait_server_close", "plait_request_body",  "plait_request_reply",
                                         "plait_client_open",  "plait_client_call",   "plait_reply_body",
                                         "plait_reply_free",   "plait_client_close" };
    void **functions = (void **)library; /* as dlsym(3) wants it */
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        CHECK((functions[i] = dlsym(handle, names[i])) != NULL);
}

static void echo_by(plait_request *request, void *context)
{
    const struct library *library = context;
    plait_bytes body = library->request_body(request);
    library->request_reply(request, body.data, body.size);
}

static void call_across(struct library *serving, const struct library *calling)
{
    static uint8_t body[300000];
    plait_server *server = NULL;
    plait_client *client = NULL;
    memset(body, 'x', sizeof(body));
    CHECK_INT(serving->server_open(&server, "across", NULL), 0);
    CHECK_INT(serving->server_handle(server, "", echo_by, serving), 0);
    CHECK_INT(serving->server_start(server), 0);
    CHECK_INT(calling->client_open(&client, "across", NULL), 0);
    for (int i = 0; i < 20; i++) {
        size_t size = (size_t[]){ 3, 8000, sizeof(body) }[i % 3];
        plait_reply *reply = NULL;
        CHECK_INT(calling->client_call(client, "", body, size, NULL, &reply), 0);
        CHECK_INT(calling->reply_body(reply).size, size);
        CHECK_MEM(calling->reply_body(reply).data, body, size);
        calling->reply_free(reply);
    }
    calling->client_close(client);
    serving->server_close(server);
}

TEST(two_copies_of_the_library_in_one_process_call_each_other)
{
    struct library here, there;
    find_functions(&here, RTLD_DEFAULT);
    find_functions(&there, load_copy());
    CHECK(here.client_call != there.client_call);
    call_across(&here, &there);
    call_across(&there, &here);
}
