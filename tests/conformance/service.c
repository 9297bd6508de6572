/* service: the server that most columns call, in a process of its own: one method per thing that a test wants to see.
 * Framings that carry no method get a listener for each.
 *
 * Everything here runs on the server's one reactor thread, but for the threads that answer deferred requests.
 */
#include "conformance/conformance.h"

#include <errno.h>
#include <inttypes.h>
#include <plait/worker.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int __lsan_do_recoverable_leak_check(void) __attribute__((weak));

enum { HELD_MAX = 256 };

static plait_request *held[HELD_MAX];
static size_t held_count;
static unsigned notes, disorder;        /* one-way messages: how many came, how many not in their turn */
static _Atomic(plait_client *) to_self; /* set by a thread, read by the reactor and at the end: seq_cst will do */
static char self_target[SERVICE_TEXT];

static void echo(plait_request *request, void *context)
{
    plait_bytes body = plait_request_body(request);
    (void)context;
    plait_request_reply_as(request, plait_request_encoding(request), body.data, body.size);
}

/* Echoes by a loan. */
static void lend(plait_request *request, void *context)
{
    plait_bytes body = plait_request_body(request);
    plait_loan *loan = NULL;
    (void)context;
    if (plait_request_reply_loan(request, body.size, &loan) < 0) abort();
    if (body.size) memcpy(plait_loan_data(loan), body.data, body.size);
    plait_request_reply_loaned(request, plait_request_encoding(request), loan, body.size);
}

static void fail(plait_request *request, void *context)
{
    plait_bytes body = plait_request_body(request);
    (void)context;
    plait_request_fail(request, 7, "boom: %.*s", (int)body.size, (const char *)body.data);
}

/* Fails, except at "good", which a thread answers. */
static void later(plait_request *request, void *context);
static void sometimes(plait_request *request, void *context)
{
    plait_bytes body = plait_request_body(request);
    if (body.size == 4 && memcmp(body.data, "good", 4) == 0) later(request, context);
    else fail(request, context);
}

static void mute(plait_request *request, void *context)
{
    (void)request, (void)context;
}

static void hold(plait_request *request, void *context)
{
    (void)context;
    if (held_count < HELD_MAX && plait_request_defer(request, &held[held_count]) == 0) held_count++;
}

/* ---- deferred requests, answered from another thread ---- */

struct batch {
    size_t count;
    plait_request *requests[HELD_MAX + 1];
};

static void *answer_batch(void *argument)
{
    struct batch *batch = argument;
    while (batch->count > 0) echo(batch->requests[--batch->count], NULL);
    free(batch);
    return NULL;
}

static void in_a_thread(struct batch *batch)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, answer_batch, batch) != 0) abort();
    pthread_detach(thread);
}

/* Answered by a thread of its own. */
static void later(plait_request *request, void *context)
{
    struct batch *batch = calloc(1, sizeof(*batch));
    (void)context;
    if (batch == NULL || plait_request_defer(request, &batch->requests[0]) < 0) abort();
    batch->count = 1;
    in_a_thread(batch);
}

/* Answers what is held, the last one first, and itself at the end. */
static void release(plait_request *request, void *context)
{
    struct batch *batch = calloc(1, sizeof(*batch));
    (void)context;
    if (batch == NULL || plait_request_defer(request, &batch->requests[0]) < 0) abort();
    memcpy(&batch->requests[1], held, held_count * sizeof(held[0]));
    batch->count = held_count + 1;
    held_count = 0;
    in_a_thread(batch);
}

/* "first" is held; whatever comes next answers it, and only then itself. */
static void late(plait_request *request, void *context)
{
    plait_bytes body = plait_request_body(request);
    if (body.size == 5 && memcmp(body.data, "first", 5) == 0) {
        hold(request, context);
        return;
    }
    while (held_count > 0) echo(held[--held_count], NULL);
    echo(request, NULL);
}

/* How many of the held ones nobody waits for. */
static void cancelled(plait_request *request, void *context)
{
    int count = 0;
    (void)context;
    for (size_t i = 0; i < held_count; i++) count += plait_request_cancelled(held[i]);
    plait_request_replyf(request, "%d of %zu", count, held_count);
}

/* ---- what requests say ---- */

/* The body is a number of bytes; that many come back. */
static void bytes(plait_request *request, void *context)
{
    plait_bytes body = plait_request_body(request);
    char text[32] = "";
    (void)context;
    memcpy(text, body.data, body.size < sizeof(text) ? body.size : sizeof(text) - 1);
    size_t size = strtoull(text, NULL, 10);
    char *data = malloc(size + 1);
    if (data == NULL) abort();
    memset(data, 'b', size);
    plait_request_reply(request, data, size);
    free(data);
}

static void two_lines(plait_request *request, void *context)
{
    (void)context;
    plait_request_reply(request, "two\nlines", 9);
}

static void note(plait_request *request, void *context)
{
    unsigned number = 0;
    (void)context;
    if (plait_request_body(request).size == sizeof(number))
        memcpy(&number, plait_request_body(request).data, sizeof(number));
    if (number != notes) disorder++;
    notes++;
}

static void noted(plait_request *request, void *context)
{
    (void)context;
    plait_request_replyf(request, "%u, %u out of turn", notes, disorder);
}

static void info(plait_request *request, void *context)
{
    const plait_peer *peer = plait_request_peer(request);
    int64_t left = plait_request_time_left(request);
    (void)context;
    plait_request_replyf(request,
                         "transport=%s pid=%d uid=%u left=%" PRId64 " method=%s encoding=%d trace=%" PRIx64
                         " address=%s",
                         peer->transport, peer->pid, peer->uid, left == PLAIT_FOREVER ? (int64_t)-1 : left,
                         plait_request_method(request), (int)plait_request_encoding(request),
                         plait_request_trace(request), peer->address);
}

/* Calls info of the service whose target is the body; says what that said. */
static void relay(plait_request *request, void *context)
{
    plait_bytes body = plait_request_body(request);
    plait_client *client = NULL;
    plait_reply *reply = NULL;
    char target[SERVICE_TEXT];
    (void)context;
    snprintf(target, sizeof(target), "%.*s", (int)body.size, (const char *)body.data);
    int r = plait_client_open(&client, target, NULL);
    if (r == 0) r = plait_client_call(client, "info", "", 0, NULL, &reply);
    if (r < 0) plait_request_fail(request, 1, "%s", plait_error_text());
    else plait_request_reply(request, plait_reply_body(reply).data, plait_reply_body(reply).size);
    plait_reply_free(reply);
    plait_client_close(client);
}

/* ---- a service that calls itself ---- */

static void *open_self(void *argument)
{
    plait_request *request = argument;
    plait_client *client = NULL;
    int r = plait_client_open(&client, self_target, NULL);
    to_self = client;
    if (r < 0) plait_request_fail(request, 1, "%s", plait_error_text());
    else plait_request_reply(request, "", 0);
    return NULL;
}

static void open_self_elsewhere(plait_request *request, void *context)
{
    pthread_t thread;
    plait_request *deferred;
    (void)context;
    if (plait_request_defer(request, &deferred) < 0 || pthread_create(&thread, NULL, open_self, deferred) != 0) abort();
    pthread_detach(thread);
}

static void call_self(plait_request *request, void *context)
{
    (void)context;
    int r = plait_client_call(to_self, "echo", "", 0, NULL, NULL);
    plait_request_replyf(request, "%d %s", r, r < 0 ? plait_error_text() : "");
}

/* ---- the process ---- */

static const struct method {
    const char *name;
    plait_handler *handler;
} methods[] = {
    { "echo", echo },           { "fail", fail },
    { "mute", mute },           { "sometimes", sometimes },
    { "hold", hold },           { "later", later },
    { "late", late },           { "release", release },
    { "bytes", bytes },         { "note", note },
    { "noted", noted },         { "info", info },
    { "relay", relay },         { "open_self", open_self_elsewhere },
    { "call_self", call_self }, { "two_lines", two_lines },
    { "cancelled", cancelled }, { "lend", lend },
};
enum { METHODS = sizeof(methods) / sizeof(methods[0]) };

static void must(int r, const char *what)
{
    if (r >= 0) return;
    fprintf(stderr, "conformance service: %s: %s\n", what, plait_error_text());
    fflush(stderr);
    _exit(1);
}

void service_listen_url(char url[SERVICE_TEXT], const struct cell *cell, const struct service_options *options,
                        const char *method)
{
    char limit[64] = "";
    int used = snprintf(url, SERVICE_TEXT, cell->transport->listen, test_directory());
    if (strncmp(url, "unix", 4) == 0) /* a socket for each */
        used += snprintf(url + used, SERVICE_TEXT - (size_t)used, "%s-%s", options->name ? options->name : "", method);
    if (options->max_message) snprintf(limit, sizeof(limit), "&max_message=%" PRIu64, options->max_message);
    if (cell->framing == FRAMING_PLAIT) snprintf(url + used, SERVICE_TEXT - (size_t)used, "?framing=plait%s", limit);
    else
        snprintf(url + used, SERVICE_TEXT - (size_t)used, "?framing=%s&method=%s%s",
                 framing_name(cell->framing == FRAMING_DATAGRAM ? FRAMING_RAW : cell->framing), method, limit);
}

/* One for each method where the framing carries none. */
static void listen_for(plait_server *server, const struct cell *cell, const struct service_options *options, int out)
{
    char names[256], url[SERVICE_TEXT], *rest = NULL;
    snprintf(names, sizeof(names), "%s", cell->framing == FRAMING_PLAIT ? "*" : options->methods);
    size_t index = 0;
    for (char *method = strtok_r(names, " ", &rest); method; method = strtok_r(NULL, " ", &rest)) {
        service_listen_url(url, cell, options, method);
        must(plait_server_listen(server, url), url);
        snprintf(self_target, sizeof(self_target), "%s", plait_server_url(server, index++));
        if (cell->framing == FRAMING_PLAIT) add_option(self_target, sizeof(self_target), cell->transport->option);
        dprintf(out, "%s %s\n", method, self_target);
    }
}

/* As a program with a loop of its own would do it. */
static void loop(plait_server *server, int stop)
{
    int r, stopping = 0;
    do {
        struct pollfd events[2] = { { .fd = plait_server_fd(server), .events = POLLIN },
                                    { .fd = stopping ? -1 : stop, .events = POLLIN } };
        must(events[0].fd, "plait_server_fd");
        poll(events, 2, -1);
        if (events[1].revents) must(plait_server_stop(server, 0), "stop");
        stopping |= events[1].revents;
        r = plait_server_dispatch(server, PLAIT_NOW);
    } while (r >= 0);
    if (r != -ESHUTDOWN) must(r, "plait_server_dispatch");
}

/* With all methods and listeners; the URLs go to OUT. */
static plait_server *open_server(const struct cell *cell, const struct service_options *options, int processes, int out)
{
    const char *name = options->name ? options->name : SERVICE_NAME;
    plait_server_options server_options = PLAIT_SERVER_OPTIONS_INIT;
    plait_server *server = NULL;
    server_options.max_message = cell->transport->listen ? 0 : options->max_message;
    server_options.threads = options->threads;
    server_options.processes = processes;
    must(plait_server_open(&server, name, &server_options), "open");
    for (size_t i = 0; i < METHODS; i++)
        must(plait_server_handle(server, methods[i].name, methods[i].handler, NULL), methods[i].name);
    if (cell->transport->listen) {
        listen_for(server, cell, options, out);
    } else {
        snprintf(self_target, sizeof(self_target), "%s", name);
        add_option(self_target, sizeof(self_target), cell->transport->option);
        dprintf(out, "* %s\n", self_target);
    }
    return server;
}

static void end_service(size_t fds_before)
{
    if (test_count_fds() != fds_before) {
        fprintf(stderr, "conformance service: %zu descriptors were left open\n", test_count_fds() - fds_before);
        _exit(3);
    }
    if (__lsan_do_recoverable_leak_check && __lsan_do_recoverable_leak_check()) _exit(2);
    _exit(0);
}

void service_run_own(const struct cell *cell, const struct service_options *options, int out, int stop)
{
    char end;
    size_t before = test_count_fds() - 1; /* OUT gets closed */
    plait_server *server = open_server(cell, options, 0, out);
    if (!options->foreign_loop) must(plait_server_start(server), "start");
    else must(plait_server_fd(server), "fd");
    dprintf(out, "\n");
    close(out);
    if (options->foreign_loop) loop(server, stop);
    else
        while (read(stop, &end, 1) > 0) continue;
    plait_client_close(to_self);
    to_self = NULL;
    plait_server_close(server);
    while (held_count > 0) echo(held[--held_count], NULL); /* into nowhere */
    end_service(before);
}

/* ---- the same by two workers ---- */

struct ends {
    int out, stop;
};

static void tell_ready(plait_server *server, void *context)
{
    struct ends *ends = context;
    (void)server;
    dprintf(ends->out, "\n");
    close(ends->out);
}

/* Nothing comes by the stop pipe but its end. */
static void attend(plait_server *server, void *context)
{
    struct ends *ends = context;
    struct pollfd event = { .fd = ends->stop, .events = POLLIN };
    if (poll(&event, 1, 0) == 1) must(plait_server_stop(server, 0), "stop");
}

void service_run_workers(const struct cell *cell, const struct service_options *options, int out, int stop)
{
    plait_worker_hooks hooks = PLAIT_WORKER_HOOKS_INIT;
    struct ends ends = { out, stop };
    size_t before = test_count_fds() - 1; /* OUT gets closed */
    plait_server *server = open_server(cell, options, 2, out);
    hooks.ready = tell_ready;
    hooks.attend = attend;
    hooks.attend_fd = stop;
    hooks.context = &ends;
    must(plait_server_workers(server, &hooks), "workers");
    must(plait_server_run(server), "run");
    plait_server_close(server);
    end_service(before);
}
