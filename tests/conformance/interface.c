/* interface: what only C's own interface offers: many calls at once, threads, cancelling, one-way messages, loops. */
#include "conformance/conformance.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { IN_FLIGHT = 64, THREADS = 8 };

static void check_call(const struct cell *cell, plait_client *client, const char *method, const char *text)
{
    plait_reply *reply = NULL;
    int r = plait_client_call(client, method_in(cell, method), text, strlen(text), NULL, &reply);
    if (r < 0) test_fail(__FILE__, __LINE__, "%s: %s", method, plait_error_text());
    CHECK_INT(plait_reply_body(reply).size, strlen(text));
    CHECK_MEM(plait_reply_body(reply).data, text, strlen(text));
    plait_reply_free(reply);
}

/* The reply as text, in static memory. */
static const char *call_text(const struct cell *cell, plait_client *client, const char *method, const char *body,
                             const plait_call_options *options)
{
    static char text[1024];
    plait_reply *reply = NULL;
    int r = plait_client_call(client, method_in(cell, method), body, strlen(body), options, &reply);
    if (r < 0) test_fail(__FILE__, __LINE__, "%s: %s", method, plait_error_text());
    snprintf(text, sizeof(text), "%.*s", (int)plait_reply_body(reply).size, (const char *)plait_reply_body(reply).data);
    plait_reply_free(reply);
    return text;
}

/* Further calls queue: a second one would wait for the first. */
static bool one_at_a_time(const struct cell *cell)
{
    return cell->framing == FRAMING_RAW || cell->framing == FRAMING_DATAGRAM;
}

/* Or the server would wait for what it holds, when it stops. */
static void answer_held(const struct cell *cell, const struct service *service, const char *method)
{
    plait_client *client = open_client(cell, service, method);
    check_call(cell, client, method, "go on");
    plait_client_close(client);
}

/* ---- asynchronous ---- */

struct pending {
    const struct cell *cell;
    char *data;
    size_t size;
    int result;       /* 1: not over */
    int *order, turn; /* how many were over before */
};

static void on_reply(int result, plait_reply *reply, void *context)
{
    struct pending *pending = context;
    CHECK_INT(pending->result, 1); /* told once */
    pending->result = result;
    pending->turn = (*pending->order)++;
    if (result == 0) {
        CHECK_INT(plait_reply_body(reply).size, pending->size);
        CHECK_MEM(plait_reply_body(reply).data, pending->data, pending->size);
    }
    plait_reply_free(reply);
}

static void start(plait_client *client, struct pending *pending, const struct cell *cell, const char *method,
                  size_t size, unsigned seed, int *order, const plait_call_options *options, uint64_t *ret_call)
{
    *pending =
        (struct pending){ .cell = cell, .data = pattern(cell, size, seed), .size = size, .result = 1, .order = order };
    int r = plait_client_call_async(client, method_in(cell, method), pending->data, size, options, on_reply, pending,
                                    ret_call);
    if (r < 0) test_fail(__FILE__, __LINE__, "%s: %s", method, plait_error_text());
}

static void dispatch_until(plait_client *client, const int *order, int count)
{
    while (*order < count) {
        int r = plait_client_dispatch(client, 30000);
        if (r <= 0) test_fail(__FILE__, __LINE__, "dispatch: %d after %d of %d", r, *order, count);
    }
}

static void free_all(struct pending *pending, int count)
{
    for (int i = 0; i < count; i++) free(pending[i].data);
}

/* Of mixed sizes: in the ring, beside it, and large. */
BEHAVIOUR(calls_in_flight_are_answered_each_to_its_own, ALL, API)
{
    static const size_t sizes[] = { 1, 100, 8192, 8193, 50000 };
    struct pending pending[IN_FLIGHT];
    struct service service;
    int order = 0;
    service_start(&service, cell, "echo", NULL);
    plait_client *client = open_client(cell, &service, "echo");
    for (int i = 0; i < IN_FLIGHT; i++)
        start(client, &pending[i], cell, "echo", sizes[cell->framing == FRAMING_RAW ? i % 4 : i % 5], (unsigned)i,
              &order, NULL, NULL);
    dispatch_until(client, &order, IN_FLIGHT);
    for (int i = 0; i < IN_FLIGHT; i++) CHECK_INT(pending[i].result, 0);
    free_all(pending, IN_FLIGHT);
    plait_client_close(client);
    service_stop(&service);
}

BEHAVIOUR(deferred_replies_may_come_in_reverse_order, PLAIT, API | OWN_SERVICE | ONE_PROCESS)
{
    struct pending pending[IN_FLIGHT + 1];
    struct service service;
    int order = 0;
    service_start(&service, cell, "hold release", NULL);
    plait_client *client = open_client(cell, &service, "hold");
    for (int i = 0; i < IN_FLIGHT; i++)
        start(client, &pending[i], cell, "hold", i % 3 ? 10 : 9000, (unsigned)i, &order, NULL, NULL);
    start(client, &pending[IN_FLIGHT], cell, "release", 4, 1, &order, NULL, NULL);
    dispatch_until(client, &order, IN_FLIGHT + 1);
    for (int i = 0; i < IN_FLIGHT; i++) {
        CHECK_INT(pending[i].result, 0);
        CHECK_INT(pending[i].turn, IN_FLIGHT - 1 - i);
    }
    free_all(pending, IN_FLIGHT + 1);
    plait_client_close(client);
    service_stop(&service);
}

BEHAVIOUR(an_asynchronous_call_has_a_deadline, ALL, API | ONE_PROCESS)
{
    plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
    struct pending pending;
    struct service service;
    int order = 0;
    options.timeout = 200;
    service_start(&service, cell, "late", NULL);
    plait_client *client = open_client(cell, &service, "late");
    pending = (struct pending){ .cell = cell, .data = strdup("first"), .size = 5, .result = 1, .order = &order };
    CHECK_INT(plait_client_call_async(client, method_in(cell, "late"), "first", 5, &options, on_reply, &pending, NULL),
              0);
    dispatch_until(client, &order, 1);
    CHECK_INT(pending.result, -ETIMEDOUT);
    check_call(cell, client, "late", "another"); /* the late reply comes before this one's */
    check_call(cell, client, "late", "and another");
    free(pending.data);
    plait_client_close(client);
    service_stop(&service);
}

BEHAVIOUR(a_cancelled_call_is_told_and_the_server_knows, PLAIT, API | OWN_SERVICE | ONE_PROCESS)
{
    struct pending pending[2];
    struct service service;
    uint64_t call = 0;
    int order = 0;
    service_start(&service, cell, "hold cancelled release echo", NULL);
    plait_client *client = open_client(cell, &service, "hold");
    start(client, &pending[0], cell, "hold", 10, 1, &order, NULL, &call);
    start(client, &pending[1], cell, "hold", 10, 2, &order, NULL, NULL);
    CHECK_INT(plait_client_cancel(client, call), 0);
    CHECK_INT(plait_client_cancel(client, call), -ENOENT);
    dispatch_until(client, &order, 1);
    CHECK_INT(pending[0].result, -ECANCELED);
    CHECK_STR(call_text(cell, client, "cancelled", "", NULL), "1 of 2"); /* frames are taken in order */
    check_call(cell, client, "release", "go"); /* both are answered: the one reply is dropped */
    dispatch_until(client, &order, 2);
    CHECK_INT(pending[1].result, 0);
    check_call(cell, client, "echo", "fine");
    free_all(pending, 2);
    plait_client_close(client);
    service_stop(&service);
}

BEHAVIOUR(a_cancelled_call_answers_no_other, IDLESS, API | ONE_PROCESS)
{
    struct pending pending;
    struct service service;
    uint64_t call = 0;
    int order = 0;
    service_start(&service, cell, "late", NULL);
    plait_client *client = open_client(cell, &service, "late");
    pending = (struct pending){ .cell = cell, .data = strdup("first"), .size = 5, .result = 1, .order = &order };
    CHECK_INT(plait_client_call_async(client, "", "first", 5, NULL, on_reply, &pending, &call), 0);
    CHECK_INT(plait_client_cancel(client, call), 0);
    dispatch_until(client, &order, 1);
    CHECK_INT(pending.result, -ECANCELED);
    check_call(cell, client, "late", "another");
    free(pending.data);
    plait_client_close(client);
    service_stop(&service);
}

BEHAVIOUR(closing_a_client_ends_its_calls, ALL, API | OWN_SERVICE | ONE_PROCESS)
{
    struct pending pending[2];
    struct service service;
    int order = 0;
    service_start(&service, cell, "hold release", NULL);
    plait_client *client = open_client(cell, &service, "hold");
    for (int i = 0; i < (one_at_a_time(cell) ? 1 : 2); i++)
        start(client, &pending[i], cell, "hold", 5, 0, &order, NULL, NULL);
    plait_client_close(client);
    CHECK_INT(order, one_at_a_time(cell) ? 1 : 2);
    for (int i = 0; i < order; i++) CHECK_INT(pending[i].result, -ECANCELED);
    free_all(pending, order);
    answer_held(cell, &service, "release");
    service_stop(&service);
}

/* ---- threads ---- */

struct worker {
    const struct cell *cell;
    plait_client *client;
    int number;
    pthread_t thread;
};

static void *call_in_a_row(void *context)
{
    struct worker *worker = context;
    char text[64];
    for (int i = 0; i < (test_sanitized() ? 60 : 300); i++) {
        snprintf(text, sizeof(text), "thread %d, call %d", worker->number, i);
        check_call(worker->cell, worker->client, "echo", text);
    }
    return NULL;
}

static void check_threads(const struct cell *cell, int server_threads)
{
    struct service_options options = { .threads = server_threads };
    struct worker workers[THREADS];
    struct service service;
    service_start(&service, cell, "echo", &options);
    plait_client *client = open_client(cell, &service, "echo");
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){ cell, client, i, 0 };
        CHECK_INT(pthread_create(&workers[i].thread, NULL, call_in_a_row, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) CHECK_INT(pthread_join(workers[i].thread, NULL), 0);
    plait_client_close(client);
    service_stop(&service);
}

BEHAVIOUR(a_reply_lives_until_it_is_freed, ALL, API)
{
    enum { KEPT = 8 };
    struct service service;
    plait_reply *kept[KEPT];
    char text[32];
    service_start(&service, cell, "echo", NULL);
    plait_client *client = open_client(cell, &service, "echo");
    for (int i = 0; i < KEPT; i++) {
        snprintf(text, sizeof(text), "kept %d", i);
        CHECK_INT(plait_client_call(client, method_in(cell, "echo"), text, strlen(text), NULL, &kept[i]), 0);
    }
    for (int i = 0; i < 200; i++) check_call(cell, client, "echo", "what comes after it");
    plait_client_close(client);
    service_stop(&service);
    for (int i = 0; i < KEPT; i++) {
        snprintf(text, sizeof(text), "kept %d", i);
        CHECK_INT(plait_reply_body(kept[i]).size, strlen(text));
        CHECK_MEM(plait_reply_body(kept[i]).data, text, strlen(text));
        plait_reply_free(kept[i]);
    }
}

BEHAVIOUR(threads_share_a_client, ALL, API)
{
    check_threads(cell, 1);
}
BEHAVIOUR(threads_share_a_client_of_a_server_with_threads, ALL, API | OWN_SERVICE)
{
    check_threads(cell, 3);
}

/* ---- one way ---- */

BEHAVIOUR(one_way_messages_come_in_order_and_before_an_ordered_call, PLAIT, API | OWN_SERVICE)
{
    enum { COUNT = 5000 };
    plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
    struct service service;
    service_start(&service, cell, "note noted", NULL);
    plait_client *client = open_client(cell, &service, "note");
    for (unsigned i = 0; i < COUNT; i++) {
        int r = plait_client_send(client, "note", &i, sizeof(i), NULL);
        if (r < 0) test_fail(__FILE__, __LINE__, "send %u: %s", i, plait_error_text());
    }
    options.flags = PLAIT_CALL_ORDERED;
    CHECK_STR(call_text(cell, client, "noted", "", &options), "5000, 0 out of turn");
    plait_client_close(client);
    service_stop(&service);
}

BEHAVIOUR(one_way_messages_are_refused_where_all_are_answered, IDLESS, API)
{
    struct service service;
    service_start(&service, cell, "echo", NULL);
    plait_client *client = open_client(cell, &service, "echo");
    CHECK_INT(plait_client_send(client, "", "x", 1, NULL), -EOPNOTSUPP);
    CHECK_CONTAINS(plait_error_text(), framing_name(cell->framing));
    check_call(cell, client, "echo", "fine");
    plait_client_close(client);
    service_stop(&service);
}

/* ---- what one knows of the other ---- */

BEHAVIOUR(methods_are_listed, ALL, API | OWN_SERVICE)
{
    struct service service;
    char **names = NULL;
    size_t count = 0;
    service_start(&service, cell, "echo cancelled", NULL);
    plait_client *client = open_client(cell, &service, "echo");
    int r = plait_client_methods(client, &names, &count);
    if (cell->framing == FRAMING_PLAIT) {
        CHECK_INT(r, 0);
        CHECK_INT(count, 18);
        CHECK_STR(names[0], "echo");
        CHECK_STR(names[count - 1], "lend");
    } else {
        CHECK_INT(r, -EOPNOTSUPP);
        CHECK(names == NULL && count == 0);
    }
    free(names);
    plait_client_close(client);
    service_stop(&service);
}

static long long number_after(const char *text, const char *key, int base)
{
    const char *found = strstr(text, key);
    if (found == NULL) test_fail(__FILE__, __LINE__, "\"%s\" lacks %s", text, key);
    return strtoll(found + strlen(key), NULL, base);
}

BEHAVIOUR(a_request_tells_who_calls_how_and_for_how_long, ALL, API | OWN_SERVICE)
{
    plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
    struct service service;
    char part[64];
    bool network = strcmp(cell->transport->shown, "tcp") == 0 || strcmp(cell->transport->shown, "udp") == 0,
         plait = cell->framing == FRAMING_PLAIT;
    options.timeout = 20000;
    options.encoding = plait ? PLAIT_JSON : PLAIT_BYTES;
    options.trace = plait ? 0x1234abcd : 0;
    service_start(&service, cell, "info", NULL);
    plait_client *client = open_client(cell, &service, "info");
    const char *text = call_text(cell, client, "info", "{}", &options);
    snprintf(part, sizeof(part), "transport=%s ", cell->transport->shown);
    CHECK_CONTAINS(text, part);
    CHECK_CONTAINS(text, " method=info ");
    CHECK_INT(number_after(text, " pid=", 10), network ? 0 : getpid());
    CHECK_INT(number_after(text, " uid=", 10), network ? (long long)UINT32_MAX : (long long)getuid());
    CHECK_INT(number_after(text, " encoding=", 10), options.encoding);
    CHECK_INT(number_after(text, " trace=", 16), (long long)options.trace);
    long long left = number_after(text, " left=", 10);
    if (plait) CHECK(left > 0 && left <= 20000);
    else CHECK_INT(left, -1);
    if (network) CHECK_CONTAINS(text, strchr(cell->transport->name, '6') ? "address=[::1]:" : "address=127.0.0.1:");
    else CHECK_CONTAINS(text, "address=pid ");
    options.timeout = PLAIT_FOREVER;
    CHECK_INT(number_after(call_text(cell, client, "info", "{}", &options), " left=", 10), -1);
    CHECK_STR(plait_client_transport(client), cell->transport->shown);
    plait_client_close(client);
    service_stop(&service);
}

BEHAVIOUR(an_encoding_comes_back_as_it_was_sent, PLAIT, API | OWN_SERVICE)
{
    struct service service;
    service_start(&service, cell, "echo", NULL);
    plait_client *client = open_client(cell, &service, "echo");
    for (int encoding = PLAIT_BYTES; encoding <= PLAIT_ARRAY; encoding++) {
        plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
        plait_reply *reply = NULL;
        options.encoding = encoding;
        CHECK_INT(plait_client_call(client, "echo", "[]", 2, &options, &reply), 0);
        CHECK_INT(plait_reply_encoding(reply), encoding);
        plait_reply_free(reply);
    }
    plait_client_close(client);
    service_stop(&service);
}

BEHAVIOUR(a_call_made_in_a_handler_inherits_the_trace_id, PLAIT, API | OWN_SERVICE)
{
    plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
    struct service_options second_options = { .name = "second" };
    struct service service, second;
    service_start(&second, cell, "relay info", &second_options);
    service_start(&service, cell, "relay info", NULL);
    plait_client *client = open_client(cell, &service, "relay");
    options.trace = 0xfeedbeef;
    CHECK_INT(number_after(call_text(cell, client, "relay", service_url(&second, "info"), &options), " trace=", 16),
              0xfeedbeef);
    CHECK_INT(number_after(call_text(cell, client, "relay", service_url(&second, "info"), NULL), " trace=", 16), 0);
    plait_client_close(client);
    service_stop(&service);
    service_stop(&second);
}

BEHAVIOUR(a_handler_that_calls_its_own_single_thread_is_told_so, PLAIT, API | OWN_SERVICE | ONE_PROCESS)
{
    struct service service;
    struct service_options options = { .threads = 1 };
    service_start(&service, cell, "call_self open_self echo", &options);
    plait_client *client = open_client(cell, &service, "call_self");
    check_call(cell, client, "open_self", "");
    int64_t begun = now_ms();
    CHECK_INT(atoi(call_text(cell, client, "call_self", "", NULL)), -EDEADLK);
    CHECK(now_ms() - begun < 10000); /* at once, not at the deadline of 30 s */
    check_call(cell, client, "echo", "fine");
    plait_client_close(client);
    service_stop(&service);
}

BEHAVIOUR(a_handler_that_calls_its_own_server_is_answered_by_another_thread, PLAIT, API | OWN_SERVICE | ONE_PROCESS)
{
    struct service service;
    struct service_options options = { .threads = 2 };
    plait_client *clients[2];
    service_start(&service, cell, "call_self open_self echo", &options);
    for (int i = 0; i < 2; i++) clients[i] = open_client(cell, &service, "call_self"); /* a thread each */
    check_call(cell, clients[0], "open_self", "");
    for (int i = 0; i < 4; i++) CHECK_STR(call_text(cell, clients[i % 2], "call_self", "", NULL), "0 ");
    for (int i = 0; i < 2; i++) plait_client_close(clients[i]);
    service_stop(&service);
}

/* ---- loops ---- */

BEHAVIOUR(a_client_lives_in_a_foreign_loop, ALL, API)
{
    struct pending pending[IN_FLIGHT];
    struct service service;
    int order = 0, started = 0;
    service_start(&service, cell, "echo", NULL);
    plait_client *client = open_client(cell, &service, "echo");
    struct pollfd event = { .fd = plait_client_fd(client), .events = POLLIN };
    CHECK(event.fd >= 0);
    while (order < IN_FLIGHT) {
        int ahead = one_at_a_time(cell) ? 1 : 5;
        while (started < IN_FLIGHT && started < order + ahead) {
            start(client, &pending[started], cell, "echo", started % 7 ? 30 : 8193, (unsigned)started, &order, NULL,
                  NULL);
            started++;
        }
        if (poll(&event, 1, 20000) != 1)
            test_fail(__FILE__, __LINE__, "nothing is readable after %d of %d replies", order, started);
        CHECK(plait_client_dispatch(client, PLAIT_NOW) >= 0);
    }
    for (int i = 0; i < IN_FLIGHT; i++) CHECK_INT(pending[i].result, 0);
    for (int i = 0; poll(&event, 1, 0) != 0; i++) { /* it may wake once too often; then idle is idle */
        CHECK(i < 2);
        CHECK_INT(plait_client_dispatch(client, PLAIT_NOW), 0);
    }
    check_call(cell, client, "echo", "between");
    free_all(pending, IN_FLIGHT);
    plait_client_close(client);
    service_stop(&service);
}

BEHAVIOUR(a_deadline_makes_a_foreign_loop_readable, ALL, API | ONE_PROCESS)
{
    plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
    struct pending pending;
    struct service service;
    int order = 0;
    options.timeout = 150;
    service_start(&service, cell, "late", NULL);
    plait_client *client = open_client(cell, &service, "late");
    struct pollfd event = { .fd = plait_client_fd(client), .events = POLLIN };
    pending = (struct pending){ .cell = cell, .data = strdup("first"), .size = 5, .result = 1, .order = &order };
    CHECK_INT(plait_client_call_async(client, method_in(cell, "late"), "first", 5, &options, on_reply, &pending, NULL),
              0);
    CHECK_INT(plait_client_fd(client), event.fd); /* told again: what changed is noted */
    while (order == 0) {
        CHECK_INT(poll(&event, 1, 20000), 1);
        CHECK(plait_client_dispatch(client, PLAIT_NOW) >= 0);
    }
    CHECK_INT(pending.result, -ETIMEDOUT);
    free(pending.data);
    plait_client_close(client);
    answer_held(cell, &service, "late");
    service_stop(&service);
}

BEHAVIOUR(a_server_lives_in_a_foreign_loop, ALL, CALLS | OWN_SERVICE | ONE_PROCESS)
{
    struct service_options options = { .foreign_loop = true };
    struct service service;
    struct answer answer;
    service_start(&service, cell, "later echo", &options);
    for (int i = 0; i < 3; i++) { /* a connection each */
        size_t size = i == 2 && !one_at_a_time(cell) ? 300000 : 1000;
        char *data = pattern(cell, size, (unsigned)i);
        call_once(cell, &service, i == 1 ? "later" : "echo", data, size, &answer);
        if (answer.result < 0) test_fail(__FILE__, __LINE__, "%s", answer.text);
        CHECK_INT(answer.size, size);
        CHECK_MEM(answer.data, data, size);
        answer_free(&answer);
        free(data);
    }
    void *client = cell->column->open(cell, service_url(&service, "echo"), &(struct settings){ 0 });
    service_stop(&service); /* ends the connection that is left, and notices that it was the last */
    cell->column->close(client);
}

BEHAVIOUR(threads_share_a_client_of_a_server_in_a_foreign_loop, ALL, API | OWN_SERVICE | ONE_PROCESS)
{
    struct service_options options = { .foreign_loop = true };
    struct worker workers[2];
    struct service service;
    service_start(&service, cell, "echo", &options);
    plait_client *client = open_client(cell, &service, "echo");
    for (int i = 0; i < 2; i++) {
        workers[i] = (struct worker){ cell, client, i, 0 };
        CHECK_INT(pthread_create(&workers[i].thread, NULL, call_in_a_row, &workers[i]), 0);
    }
    for (int i = 0; i < 2; i++) CHECK_INT(pthread_join(workers[i].thread, NULL), 0);
    plait_client_close(client);
    service_stop(&service);
}

/* ---- the largest ---- */

void pass_1_GiB(void)
{
    static const struct transport shm = { "shm", "shm", PLAIT, NULL, "" };
    const struct cell cell = { &shm, FRAMING_PLAIT, &column_c };
    struct service service;
    plait_reply *reply = NULL;
    if (test_sanitized()) SKIP("a sanitizer's own memory comes on top of 4 GiB, and its checks take minutes");
    if (sysconf(_SC_AVPHYS_PAGES) * (sysconf(_SC_PAGESIZE) >> 10) < 6L << 20)
        SKIP("less than 6 GiB of memory are free");
    TEST_TIMEOUT(120);
    size_t size = PLAIT_MESSAGE_MAX;
    uint64_t *data = malloc(size);
    CHECK(data != NULL);
    for (size_t i = 0; i < size / sizeof(*data); i++) data[i] = i * 0x9e3779b97f4a7c15;
    service_start(&service, &cell, "echo", NULL);
    plait_client *client = open_client(&cell, &service, "echo");
    int r = plait_client_call(client, "echo", data, size, NULL, &reply);
    if (r < 0) test_fail(__FILE__, __LINE__, "%s", plait_error_text());
    CHECK_INT(plait_reply_body(reply).size, size);
    CHECK(memcmp(plait_reply_body(reply).data, data, size) == 0);
    CHECK_INT(plait_client_call(client, "echo", data, size + 1, NULL, NULL), -EMSGSIZE);
    CHECK_CONTAINS(plait_error_text(), "PLAIT_MESSAGE_MAX");
    plait_reply_free(reply);
    free(data);
    plait_client_close(client);
    service_stop(&service);
}
