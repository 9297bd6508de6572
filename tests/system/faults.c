/* faults: every allocation and every system call that plait makes while it opens, calls and serves fails once: see
 * faulty.h. No crash, no leak, an error with a text; and a server goes on. */
#include "system/faulty.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void echo(plait_request *request, void *context)
{
    plait_bytes body = plait_request_body(request);
    (void)context;
    (void)plait_request_reply(request, body.data, body.size);
}

static void open_serve_close(void)
{
    plait_server *server = NULL;
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    char url[300];
    snprintf(url, sizeof(url), "unix://%s/faulty", test_directory());
    if (bad(plait_server_open(&server, "faulty", &options), "open")) {
        CHECK(server == NULL);
        return;
    }
    bool broken = bad(plait_server_handle(server, "", echo, NULL), "handle");
    broken = broken || bad(plait_server_listen(server, url), "listen");
    broken = broken || bad(plait_server_listen(server, "tcp://127.0.0.1:0?framing=lines"), "listen");
    broken = broken || bad(plait_server_listen(server, "udp://127.0.0.1:0"), "listen");
    broken = broken || bad(plait_server_fd(server), "fd");
    for (int i = 0; i < 3 && !broken; i++) broken = bad(plait_server_dispatch(server, PLAIT_NOW), "dispatch");
    plait_server_close(server);
}

static void told(int result, plait_reply *reply, void *context)
{
    if (result < 0) (void)bad(result, "a call");
    plait_reply_free(reply);
    ++*(int *)context;
}

static const char *target;

static void call_with(plait_client *client)
{
    static char body[300000];
    static const size_t sizes[] = { 8, 9000, sizeof(body), 8 };
    for (int i = 0; i < 4; i++) {
        plait_reply *reply = NULL;
        int r = plait_client_call(client, "", body, sizes[i], NULL, &reply);
        if (!bad(r, "call")) CHECK_INT(plait_reply_body(reply).size, sizes[i]);
        plait_reply_free(reply);
    }
    for (int i = 0; i < 4; i++) {
        plait_loan *loan = NULL;
        size_t size = i % 2 ? 300000 : 20000;
        int r = plait_client_loan(client, size, NULL, &loan);
        if (r == -ENOMEM) { /* the connection lives */
            CHECK(strstr(plait_error_text(), "loan") || strstr(plait_error_text(), "memory"));
            CHECK_INT(plait_client_call(client, "", body, 8, NULL, NULL), 0);
        }
        if (bad(r, "loan")) continue;
        memcpy(plait_loan_data(loan), body, 8);
        (void)bad(plait_client_call_loan(client, "", loan, size, NULL, NULL), "call_loan");
    }
    int over = 0, started = 0;
    (void)bad(plait_client_fd(client), "fd");
    for (int i = 0; i < 10; i++)
        started += !bad(plait_client_call_async(client, "", body, 100, NULL, told, &over, NULL), "call_async");
    for (int i = 0; i < 100 && over < started; i++) (void)bad(plait_client_dispatch(client, 50), "dispatch");
    CHECK_INT(over, started);
    char **names = NULL;
    size_t count = 0;
    if (!bad(plait_client_methods(client, &names, &count), "methods")) free(names);
}

static void open_call_close(void)
{
    plait_client *client = NULL;
    plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
    options.connect_timeout = 300;
    options.timeout = 1000;
    if (bad(plait_client_open(&client, target, &options), "open")) {
        CHECK(client == NULL);
        return;
    }
    call_with(client);
    plait_client_close(client);
}

static void spare(void)
{
    fault = NULL;
}

static void put_client_through(int kind, const char *where)
{
    TEST_TIMEOUT(240);
    fault_new();
    struct board *board = board_new();
    struct started server =
        serve(board, &(struct serve){
                         .name = "faulty", .listen = { "tcp://127.0.0.1:0", "udp://127.0.0.1:0" }, .storm = spare });
    target = strcmp(where, "tcp") == 0 ? server.url[0] : strcmp(where, "udp") == 0 ? server.url[1] : where;
    put_through(kind, open_call_close);
    fault_arm(0, 0);
    end_server(&server);
    board_free(board);
    fault_free();
}

TEST(a_client_survives_every_failing_allocation_over_shared_memory)
{
    put_client_through(FAULT_ALLOCATIONS, "faulty");
}
TEST(a_client_survives_every_failing_allocation_over_a_socket)
{
    put_client_through(FAULT_ALLOCATIONS, "faulty?shm=off");
}
TEST(a_client_survives_every_failing_allocation_over_tcp)
{
    put_client_through(FAULT_ALLOCATIONS, "tcp");
}
TEST(a_client_survives_every_failing_allocation_over_udp)
{
    put_client_through(FAULT_ALLOCATIONS, "udp");
}
TEST(a_client_survives_every_failing_system_call_over_shared_memory)
{
    put_client_through(FAULT_SYSTEM_CALLS, "faulty");
}
TEST(a_client_survives_every_failing_system_call_over_a_socket)
{
    put_client_through(FAULT_SYSTEM_CALLS, "faulty?shm=off");
}
TEST(a_client_survives_every_failing_system_call_over_tcp)
{
    put_client_through(FAULT_SYSTEM_CALLS, "tcp");
}
TEST(a_client_survives_every_failing_system_call_over_udp)
{
    put_client_through(FAULT_SYSTEM_CALLS, "udp");
}

TEST(a_server_opens_or_says_why_when_an_allocation_fails)
{
    fault_new();
    put_through(FAULT_ALLOCATIONS, open_serve_close);
    fault_free();
}

TEST(a_server_opens_or_says_why_when_a_system_call_fails)
{
    fault_new();
    put_through(FAULT_SYSTEM_CALLS, open_serve_close);
    fault_free();
}

/* The server fails at its Nth call from here on; whoever suffers, the next client doesn't. */
static void put_serving_through(int kind)
{
    static const char *const targets[] = { "faulty", "faulty?shm=off" };
    TEST_TIMEOUT(240);
    fault_new();
    fault_arm(0, 0);
    struct board *board = board_new();
    struct started server = serve(board, &(struct serve){ .name = "faulty" });
    plait_client_close(open_client("faulty", NULL)); /* it runs */
    int nth = 1, quiet = 0;
    for (; quiet < 2; nth++) {
        CHECK(nth < FAULTS_MOST);
        fault_arm(kind, nth);
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            fault = NULL; /* ours don't fail */
            plait_client *client = NULL;
            plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
            options.connect_timeout = 300;
            options.timeout = 300;
            if (plait_client_open(&client, targets[nth % 2], &options) == 0)
                for (int i = 0; i < 4; i++)
                    (void)checked_call(board, client, (size_t[]){ 8, 9000, 300000, 8 }[i], 0, 0);
            plait_client_close(client);
            _exit(0);
        }
        CHECK_INT(test_wait_child(pid), 0);
        bool fired = atomic_load(&fault->fired);
        fault_arm(0, 0);
        quiet = fired ? 0 : quiet + 1;
        int status = 0;
        plait_client *client = NULL;
        if (plait_client_open(&client, targets[nth % 2], NULL) < 0)
            test_fail(__FILE__, __LINE__, "after %s failed, the %dth call, the server (wait status %d, 0x%x): %s",
                      fault->name, nth, (int)waitpid(server.pid, &status, WNOHANG), (unsigned)status,
                      plait_error_text());
        CHECK_INT(checked_call(board, client, 9000, 0, 0), 0);
        plait_client_close(client);
    }
    printf("# %d %s failed in turn\n", nth - 3, kind == FAULT_ALLOCATIONS ? "allocations" : "system calls");
    CHECK(nth > 10);
    end_server(&server);
    board_free(board);
    fault_free();
}

TEST(a_server_goes_on_after_every_failing_allocation)
{
    put_serving_through(FAULT_ALLOCATIONS);
}
TEST(a_server_goes_on_after_every_failing_system_call)
{
    put_serving_through(FAULT_SYSTEM_CALLS);
}
