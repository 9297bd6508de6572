/* observed: what `plait threads` and `plait ls` say of processes, also of those that are stuck or stopped. */
#include "system/system.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void run(const char *command, char *text, size_t size)
{
    FILE *list = popen(command, "re");
    CHECK(list != NULL);
    size_t n = fread(text, 1, size - 1, list);
    text[n] = 0;
    CHECK_INT(pclose(list), 0);
}

/* The thread of PID that handles something; NULL method: none does. *ret_watch owns it. */
static const plait_watch_thread *busy_thread(pid_t pid, plait_watch **ret_watch)
{
    CHECK_INT(plait_watch_open(ret_watch, NULL), 0);
    for (size_t i = 0; i < plait_watch_thread_count(*ret_watch); i++) {
        const plait_watch_thread *thread = plait_watch_thread_at(*ret_watch, i);
        if (thread->pid == pid && thread->method) return thread;
    }
    plait_watch_close(*ret_watch);
    *ret_watch = NULL;
    return NULL;
}

TEST(a_handler_that_hangs_is_seen_with_its_age_also_while_its_process_is_stopped)
{
    struct board *board = board_new();
    struct started server =
        serve(board,
              &(struct serve){ .name = "observed", .options = { .size = sizeof(plait_server_options), .threads = 3 } });
    pid_t caller = caller_start(board, 0, "observed", false);
    callers_advance(board, 1);
    caller_order(board, 0, ORDER_HANG);
    WAIT_UNTIL(atomic_load(&board->in_handler) == server.pid);
    int64_t hangs_since = now_ms();
    plait_watch *watch;
    const plait_watch_thread *thread = busy_thread(server.pid, &watch);
    CHECK(thread != NULL);
    CHECK_STR(thread->service, "observed");
    CHECK_STR(thread->method, "hang");
    uint64_t before = thread->handling_us;
    plait_watch_close(watch);

    CHECK_INT(kill(server.pid, SIGSTOP), 0);
    WAIT_UNTIL(state_of(server.pid) == 'T');
    WAIT_UNTIL(now_ms() - hangs_since > 60);
    thread = busy_thread(server.pid, &watch);
    CHECK(thread != NULL);
    CHECK_STR(thread->method, "hang");
    CHECK(thread->handling_us > before && thread->handling_us >= 50000);
    CHECK(thread->handling_us < 1000 * (uint64_t)(now_ms() - hangs_since + 1000));
    plait_watch_close(watch);

    static char text[65536];
    char command[64], wanted[64];
    snprintf(command, sizeof(command), "plait threads %d --json", (int)server.pid);
    run(command, text, sizeof(text));
    CHECK_CONTAINS(text, "\"method\":\"hang\"");
    CHECK_CONTAINS(text, "\"state\":\"stopped\"");
    CHECK_CONTAINS(text, "plait/observed/0");
    CHECK_CONTAINS(text, "plait/observed/2");
    CHECK_CONTAINS(text, "plait/observed/accept");
    snprintf(wanted, sizeof(wanted), "\"tid\":%d", (int)server.pid);
    CHECK_CONTAINS(text, wanted);
    snprintf(command, sizeof(command), "plait threads %d", (int)server.pid);
    run(command, text, sizeof(text));
    CHECK_CONTAINS(text, "observed/hang");
    CHECK_INT(kill(server.pid, SIGCONT), 0);
    atomic_store(&board->release, 1);
    callers_advance(board, 1);
    callers_end(board, &caller, 1);
    end_server(&server);
    board_free(board);
}

static _Atomic int spinning;
static void *spin(void *unused)
{
    pthread_setname_np(pthread_self(), "odd ) name (x");
    while (atomic_load(&spinning)) {
    }
    return unused;
}

TEST(the_threads_of_any_process_are_listed_with_their_use_of_the_cpu)
{
    pthread_t thread;
    char command[64], text[8192];
    atomic_store(&spinning, 1);
    CHECK_INT(pthread_create(&thread, NULL, spin, NULL), 0);
    snprintf(command, sizeof(command), "plait threads %d --json --interval 300ms", (int)getpid());
    run(command, text, sizeof(text));
    const char *line = strstr(text, "odd ) name (x");
    CHECK(line != NULL);
    CHECK_CONTAINS(line, "\"state\":\"running\"");
    const char *percent = strstr(line, "\"cpu_percent\":");
    CHECK(percent != NULL && strtod(percent + strlen("\"cpu_percent\":"), NULL) > 1);
    CHECK(strstr(text, "plait_name") == NULL);
    atomic_store(&spinning, 0);
    CHECK_INT(pthread_join(thread, NULL), 0);
}

static _Atomic int pooled, let_go;
static void wait_in_pool(plait_request *request, void *context)
{
    (void)context;
    atomic_fetch_add(&pooled, 1);
    while (!atomic_load(&let_go)) pause_ms(1);
    plait_request_reply(request, "done", 4);
}

static void count_reply(int result, plait_reply *reply, void *context)
{
    CHECK_INT(result, 0);
    plait_reply_free(reply);
    ++*(int *)context;
}

TEST(the_queue_of_a_pool_is_listed_with_its_length_and_age)
{
    plait_pool *pool = NULL;
    plait_server *server = NULL;
    plait_pool_options options = PLAIT_POOL_OPTIONS_INIT;
    char text[8192];
    int over = 0;
    options.threads = 1;
    CHECK_INT(plait_pool_open(&pool, &options), 0);
    CHECK_INT(plait_server_open(&server, "queued", NULL), 0);
    CHECK_INT(plait_pool_handle(pool, server, "", wait_in_pool, NULL), 0);
    CHECK_INT(plait_server_start(server), 0);
    plait_client *client = open_client("queued", NULL);
    for (int i = 0; i < 4; i++)
        CHECK_INT(plait_client_call_async(client, "", "x", 1, NULL, count_reply, &over, NULL), 0);
    WAIT_UNTIL(atomic_load(&pooled) == 1);
    do {
        run("plait ls queued --json", text, sizeof(text));
    } while (strstr(text, "\"waiting\":3") == NULL);
    CHECK_CONTAINS(text, "\"kind\":\"pool\"");
    CHECK_CONTAINS(text, "\"capacity\":1024");
    CHECK(strstr(text, "\"oldest_us\":0") == NULL);
    run("plait ls queued", text, sizeof(text));
    CHECK_CONTAINS(text, "WAITING");
    atomic_store(&let_go, 1);
    WAIT_UNTIL(plait_client_dispatch(client, 10) >= 0 && over == 4);
    plait_client_close(client);
    plait_server_close(server);
    plait_pool_close(pool);
}
