/* udp://: a server with a listener for datagrams, and clients of libplait or with bare sockets. */
#include "system/system.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void echo(plait_request *request, void *context)
{
    plait_bytes body = plait_request_body(request);
    (void)context;
    plait_request_reply(request, body.data, body.size);
}

/* Requests that a handler keeps, for the test to answer. */
struct kept {
    pthread_mutex_t lock;
    pthread_cond_t more;
    plait_request *requests[64];
    size_t first, count;
};
#define KEPT_INIT                                                                                                      \
    {                                                                                                                  \
        .lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER                                            \
    }

static void keep(plait_request *request, void *context)
{
    struct kept *kept = context;
    plait_request *deferred;
    CHECK_INT(plait_request_defer(request, &deferred), 0);
    pthread_mutex_lock(&kept->lock);
    kept->requests[kept->count++ % 64] = deferred;
    pthread_cond_signal(&kept->more);
    pthread_mutex_unlock(&kept->lock);
}

static plait_request *kept_request(struct kept *kept)
{
    pthread_mutex_lock(&kept->lock);
    while (kept->first == kept->count) pthread_cond_wait(&kept->more, &kept->lock);
    plait_request *request = kept->requests[kept->first++ % 64];
    pthread_mutex_unlock(&kept->lock);
    return request;
}

static size_t kept_count(struct kept *kept)
{
    pthread_mutex_lock(&kept->lock);
    size_t count = kept->count - kept->first;
    pthread_mutex_unlock(&kept->lock);
    return count;
}

/* A connected datagram socket to the server's first listener, which is on 127.0.0.1. */
static int dial(plait_server *server)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    const char *url = plait_server_url(server, 0);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && strncmp(url, "udp://127.0.0.1:", 16) == 0);
    to.sin_port = htons((uint16_t)atoi(url + 16));
    CHECK_INT(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

static bool wait_for(int fd, short events)
{
    struct pollfd poller = { .fd = fd, .events = events };
    return poll(&poller, 1, PATIENCE_MS) == 1;
}

static plait_server *open_udp(const char *url, plait_handler *handler, void *context,
                              const plait_server_options *options)
{
    plait_server *server = NULL;
    CHECK_INT(plait_server_open(&server, "datagrams", options), 0);
    int r = plait_server_listen(server, url);
    if (r < 0) test_fail(__FILE__, __LINE__, "%s", plait_error_text());
    CHECK_INT(plait_server_handle(server, "", handler, context), 0);
    CHECK_INT(plait_server_start(server), 0);
    return server;
}

static void tell(int fd, const char *text)
{
    CHECK_INT(send(fd, text, strlen(text), 0), (ssize_t)strlen(text));
}

static void expect(int fd, const char *text)
{
    char got[2048] = "";
    CHECK(wait_for(fd, POLLIN));
    CHECK(recv(fd, got, sizeof(got) - 1, 0) >= 0);
    CHECK_STR(got, text);
}

TEST(a_deferred_datagram_holds_up_nobody_and_each_gets_its_own_answer)
{
    static struct kept kept = KEPT_INIT;
    plait_request *requests[3];
    int fds[3];
    char text[32];
    plait_server *server = open_udp("udp://127.0.0.1:0", keep, &kept, NULL);
    for (int i = 0; i < 3; i++) {
        fds[i] = dial(server);
        snprintf(text, sizeof(text), "client %d", i);
        tell(fds[i], text);
        requests[i] = kept_request(&kept); /* the earlier ones are still held */
    }
    for (int i = 2; i >= 0; i--) {
        struct sockaddr_in own;
        socklen_t size = sizeof(own);
        char name[64];
        plait_bytes body = plait_request_body(requests[i]);
        CHECK_INT(getsockname(fds[i], (struct sockaddr *)&own, &size), 0);
        snprintf(name, sizeof(name), "127.0.0.1:%u", ntohs(own.sin_port));
        CHECK_STR(plait_request_peer(requests[i])->address, name);
        CHECK_STR(plait_request_peer(requests[i])->transport, "udp");
        CHECK_INT(plait_request_peer(requests[i])->pid, 0);
        CHECK_INT(plait_request_reply(requests[i], body.data, body.size), 0);
    }
    for (int i = 0; i < 3; i++) {
        snprintf(text, sizeof(text), "client %d", i);
        expect(fds[i], text);
        close(fds[i]);
    }
    plait_server_close(server);
}

TEST(a_datagram_beyond_the_listeners_limit_is_refused_by_name)
{
    plait_server *server = open_udp("udp://127.0.0.1:0?max_message=10", echo, NULL, NULL);
    int fd = dial(server);
    tell(fd, "ten bytes!");
    expect(fd, "ten bytes!");
    tell(fd, "eleven byte");
    expect(fd, "error: the request has 11 bytes; this listener's max_message is 10\n");
    tell(fd, "");
    expect(fd, "");
    close(fd);
    plait_server_close(server);
}

static void answer_largest(plait_request *request, void *context)
{
    static char bytes[PLAIT_DATAGRAM_MAX + 1];
    int extra = plait_request_body(request).size > 0;
    (void)context;
    int r = plait_request_reply(request, bytes, PLAIT_DATAGRAM_MAX + (size_t)extra);
    CHECK_INT(r, extra ? -EMSGSIZE : 0);
    if (r < 0) CHECK_CONTAINS(plait_error_text(), "PLAIT_DATAGRAM_MAX=65507");
}

TEST(an_answer_of_65507_bytes_passes_and_one_more_is_told_to_both)
{
    plait_client *client = NULL;
    plait_reply *reply = NULL;
    plait_server *server = open_udp("udp://127.0.0.1:0", answer_largest, NULL, NULL);
    CHECK_INT(plait_client_open(&client, plait_server_url(server, 0), NULL), 0);
    CHECK_INT(plait_client_call(client, "", "", 0, NULL, &reply), 0);
    CHECK_INT(plait_reply_body(reply).size, PLAIT_DATAGRAM_MAX);
    plait_reply_free(reply);
    CHECK_INT(plait_client_call(client, "", "x", 1, NULL, &reply), 0);
    CHECK(plait_reply_body(reply).size < 200);
    CHECK_CONTAINS(plait_reply_body(reply).data,
                   "error: the answer has 65508 bytes; a datagram's limit, PLAIT_DATAGRAM");
    plait_reply_free(reply);
    plait_client_close(client);
    plait_server_close(server);
}

TEST(a_request_of_65507_bytes_passes_and_one_more_names_the_limit)
{
    plait_client *client = NULL;
    plait_reply *reply = NULL;
    char *bytes = calloc(1, PLAIT_DATAGRAM_MAX + 1);
    plait_server *server = open_udp("udp://[::1]:0", echo, NULL, NULL);
    CHECK_INT(plait_client_open(&client, plait_server_url(server, 0), NULL), 0);
    CHECK_INT(plait_client_call(client, "", bytes, PLAIT_DATAGRAM_MAX, NULL, &reply), 0);
    CHECK_INT(plait_reply_body(reply).size, PLAIT_DATAGRAM_MAX);
    CHECK_STR(plait_client_transport(client), "udp");
    plait_reply_free(reply);
    CHECK_INT(plait_client_call(client, "", bytes, PLAIT_DATAGRAM_MAX + 1, NULL, NULL), -EMSGSIZE);
    CHECK_CONTAINS(plait_error_text(), "PLAIT_DATAGRAM_MAX, 65507");
    CHECK_INT(plait_client_call(client, "", "go on", 5, NULL, NULL), 0);
    free(bytes);
    plait_client_close(client);
    plait_server_close(server);
}

static void on_reply(int result, plait_reply *reply, void *context)
{
    *(int *)context = result;
    plait_reply_free(reply);
}

TEST(a_call_that_meets_nobody_is_refused_at_once_and_the_client_goes_on)
{
    plait_call_options idempotent = PLAIT_CALL_OPTIONS_INIT;
    plait_client *client = NULL;
    char url[1400];
    int result = 1;
    idempotent.flags = PLAIT_CALL_IDEMPOTENT;
    plait_server *server = open_udp("udp://127.0.0.1:0", echo, NULL, NULL);
    snprintf(url, sizeof(url), "%s", plait_server_url(server, 0));
    CHECK_INT(plait_client_open(&client, url, NULL), 0);
    CHECK_INT(plait_client_call(client, "", "x", 1, NULL, NULL), 0);
    plait_server_close(server);
    CHECK_INT(plait_client_call(client, "", "x", 1, NULL, NULL), -ECONNREFUSED);
    CHECK_CONTAINS(plait_error_text(), url);
    CHECK_CONTAINS(plait_error_text(), "nobody listens there");
    CHECK_INT(plait_client_call(client, "", "x", 1, &idempotent, NULL), -ECONNREFUSED);
    CHECK_INT(plait_client_call_async(client, "", "x", 1, &idempotent, on_reply, &result, NULL), 0);
    while (result == 1) CHECK(plait_client_dispatch(client, PATIENCE_MS) > 0);
    CHECK_INT(result, -ECONNREFUSED);
    server = open_udp(url, echo, NULL, NULL);
    CHECK_INT(plait_client_call(client, "", "x", 1, NULL, NULL), 0);
    plait_client_close(client);
    plait_server_close(server);
}

TEST(a_stopping_server_answers_the_datagrams_that_it_has_taken)
{
    static struct kept kept = KEPT_INIT;
    plait_server *server = open_udp("udp://127.0.0.1:0", keep, &kept, NULL);
    int fd = dial(server);
    tell(fd, "taken");
    plait_request *request = kept_request(&kept);
    CHECK_INT(plait_server_stop(server, PATIENCE_MS), 0);
    CHECK_INT(plait_request_reply(request, "answered", 8), 0);
    expect(fd, "answered");
    plait_server_close(server);
    close(fd);
}

TEST(a_flood_of_datagrams_does_not_hold_up_the_end)
{
    plait_server *server = open_udp("udp://127.0.0.1:0", echo, NULL, NULL);
    int fd = dial(server);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
        for (;;) (void)!send(fd, "flood", 5, MSG_DONTWAIT);
    expect(fd, "flood");
    int64_t begun = now_ms();
    plait_server_close(server);
    CHECK(now_ms() - begun < 5000); /* the grace that it would get otherwise */
    kill(child, SIGKILL);
    CHECK_INT(waitpid(child, NULL, 0), child);
    close(fd);
}

TEST(outstanding_bounds_deferred_datagrams_and_the_kernel_keeps_the_rest)
{
    static struct kept kept = KEPT_INIT;
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    char text[16];
    options.outstanding = 2;
    plait_server *server = open_udp("udp://127.0.0.1:0", keep, &kept, &options);
    int fd = dial(server);
    for (int i = 0; i < 6; i++) {
        snprintf(text, sizeof(text), "%d", i);
        tell(fd, text);
    }
    for (int i = 0; i < 6; i++) {
        plait_request *request = kept_request(&kept);
        CHECK(kept_count(&kept) <= 1);
        CHECK_INT(plait_request_reply(request, plait_request_body(request).data, 1), 0);
        snprintf(text, sizeof(text), "%d", i);
        expect(fd, text);
    }
    close(fd);
    plait_server_close(server);
}

TEST(what_is_lost_shows_on_the_status_page)
{
    enum { SENT = 5000 };
    static struct kept kept = KEPT_INIT;
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    char body[1000] = "";
    options.outstanding = 1;
    plait_server *server = open_udp("udp://127.0.0.1:0", keep, &kept, &options);
    int fd = dial(server);
    tell(fd, "held");
    plait_request *held = kept_request(&kept); /* from now on nothing is read */
    for (int i = 0; i < SENT; i++) CHECK_INT(send(fd, body, sizeof(body), 0), sizeof(body));
    for (uint64_t seen = 1; seen + counter_of("datagrams", "lost_requests") < SENT + 1; seen++) {
        CHECK_INT(plait_request_reply(held, "", 0), 0);
        if (seen % 16 == 0) tell(fd, "news come with what comes later");
        held = kept_request(&kept);
        CHECK(seen < 2 * SENT);
    }
    CHECK(counter_of("datagrams", "lost_requests") > 0);
    CHECK_INT(plait_request_reply(held, "", 0), 0);
    close(fd);
    plait_server_stop(server, PLAIT_NOW);
    plait_server_close(server);
    while (kept_count(&kept) > 0) plait_request_reply(kept_request(&kept), "", 0);
}

TEST(a_killed_server_harms_no_client_of_its_datagrams)
{
    struct board *board = board_new();
    struct serve what = { .name = "datagrams", .listen = { "udp://127.0.0.1:0" } };
    for (int i = 0; i < 5; i++) {
        plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
        struct started server = serve(board, &what);
        plait_client *client = open_client(server.url[0], NULL);
        options.timeout = 200;
        CHECK_INT(checked_call(board, client, 100, 0, 0), 0);
        kill_process(server.pid);
        int r = plait_client_call(client, "", "12345678", 8, &options, NULL);
        CHECK(r == -ECONNREFUSED || r == -ETIMEDOUT);
        plait_client_close(client);
    }
    caller_forget();
    board_free(board);
}
