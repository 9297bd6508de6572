/* calls: what every client can see that makes one call after the other. */
#include "conformance/conformance.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check_echo(const struct cell *cell, const char *method, size_t size, bool until_eof)
{
    struct settings settings = { .until_eof = until_eof };
    struct service service;
    struct answer answer;
    service_start(&service, cell, method, NULL);
    void *client = cell->column->open(cell, service_url(&service, method), &settings);
    for (unsigned seed = 0; seed < (size > 100000 || until_eof ? 1 : 2);
         seed++) { /* the second meets what the first left */
        char *data = pattern(cell, size, seed);
        cell->column->call(client, method, data, size, 0, &answer);
        if (answer.result < 0) test_fail(__FILE__, __LINE__, "%s", answer.text);
        CHECK_INT(answer.size, size);
        CHECK_MEM(answer.data, data, size);
        answer_free(&answer);
        free(data);
    }
    cell->column->close(client);
    service_stop(&service);
}

/* ---- bodies: 8192 is what fits into a ring's record ---- */

BEHAVIOUR(echoes_0_bytes, PLAIT | LINES | LENGTH | DATAGRAM, CALLS | SIZES)
{
    check_echo(cell, "echo", 0, false);
}
BEHAVIOUR(echoes_1_byte, ALL, CALLS)
{
    check_echo(cell, "echo", 1, false);
}
BEHAVIOUR(echoes_every_byte_value, ALL, CALLS | SIZES)
{
    check_echo(cell, "echo", 256, false);
}
BEHAVIOUR(echoes_8192_bytes, ALL, CALLS | SIZES)
{
    check_echo(cell, "echo", 8192, false);
}
BEHAVIOUR(echoes_8193_bytes, ALL, CALLS)
{
    check_echo(cell, "echo", 8193, false);
}
BEHAVIOUR(echoes_the_longest_datagram, DATAGRAM, CALLS | SIZES)
{
    check_echo(cell, "echo", PLAIT_DATAGRAM_MAX, false);
}
BEHAVIOUR(echoes_64_KiB, PLAIT | LINES | LENGTH, CALLS | SIZES)
{
    check_echo(cell, "echo", 64 << 10, false);
}
BEHAVIOUR(echoes_1_MiB, PLAIT | LINES | LENGTH, CALLS | SIZES)
{
    check_echo(cell, "echo", 1 << 20, false);
}
BEHAVIOUR(echoes_16_MiB, PLAIT | LINES | LENGTH, CALLS | SIZES)
{
    check_echo(cell, "echo", 16 << 20, false);
}

/* Raw has no ends but the stream's: a longer body is many requests, and their replies together are the body. */
BEHAVIOUR(echoes_1_byte_until_eof, RAW, CALLS | SIZES)
{
    check_echo(cell, "echo", 1, true);
}
BEHAVIOUR(echoes_64_KiB_until_eof, RAW, CALLS | SIZES)
{
    check_echo(cell, "echo", 64 << 10, true);
}
BEHAVIOUR(echoes_1_MiB_until_eof, RAW, CALLS | SIZES)
{
    check_echo(cell, "echo", 1 << 20, true);
}
BEHAVIOUR(echoes_16_MiB_until_eof, RAW, CALLS | SIZES)
{
    check_echo(cell, "echo", 16 << 20, true);
}

static void check_many(const struct cell *cell, bool until_eof, int count)
{
    struct settings settings = { .until_eof = until_eof };
    struct service service;
    struct answer answer;
    char text[64];
    service_start(&service, cell, "echo", NULL);
    void *client = cell->column->open(cell, service_url(&service, "echo"), &settings);
    for (int i = 0; i < count; i++) {
        int size = snprintf(text, sizeof(text), "call %d of %d", i, count);
        cell->column->call(client, "echo", text, (size_t)size, 0, &answer);
        if (answer.result < 0) test_fail(__FILE__, __LINE__, "call %d: %s", i, answer.text);
        CHECK_STR(answer.data, text);
        answer_free(&answer);
    }
    cell->column->close(client);
    service_stop(&service);
}

BEHAVIOUR(many_calls_get_their_own_replies, ALL, CALLS)
{
    check_many(cell, false, cell->column->patience);
}

BEHAVIOUR(calls_until_eof_open_a_connection_each, RAW, CALLS | DEADLINES | SIZES)
{
    check_many(cell, true, cell->column->patience < 20 ? cell->column->patience : 20);
}

BEHAVIOUR(a_reply_in_pieces_is_put_together, LINES | LENGTH, CALLS | PLAIN_SERVER)
{
    check_echo(cell, "pieces", 300, false);
}

/* ---- failures ---- */

/* TEXT is a part of what went wrong; STATUS is the handler's, or 0 for the library's own. */
static void check_failure(const struct cell *cell, const struct answer *answer, uint32_t status, const char *text)
{
    if (cell->framing == FRAMING_PLAIT) {
        CHECK_INT(answer->result, -EREMOTEIO);
        if (answer->status && status) CHECK_INT(answer->status, status);
        CHECK_CONTAINS(answer->text, text);
    } else if (cell->framing == FRAMING_LENGTH) {
        CHECK_INT(answer->result, -ECONNRESET);
    } else {
        CHECK_INT(answer->result, 0);
        CHECK(strncmp(answer->data, "error: ", 7) == 0);
        CHECK_CONTAINS(answer->data, text);
        if (cell->framing != FRAMING_LINES) CHECK(answer->data[answer->size - 1] == '\n');
    }
}

BEHAVIOUR(a_handlers_failure_brings_status_and_text, ALL, CALLS | OWN_SERVICE)
{
    struct service service;
    struct answer answer;
    service_start(&service, cell, "fail echo", NULL);
    call_once(cell, &service, "fail", "why", 3, &answer);
    check_failure(cell, &answer, 7, "boom: why");
    answer_free(&answer);
    call_once(cell, &service, "echo", "ok", 2, &answer); /* and it goes on serving */
    CHECK_STR(answer.data, "ok");
    answer_free(&answer);
    service_stop(&service);
}

BEHAVIOUR(a_handler_that_does_not_reply_is_a_failure, ALL, CALLS | OWN_SERVICE)
{
    struct service service;
    struct answer answer;
    service_start(&service, cell, "mute", NULL);
    call_once(cell, &service, "mute", "x", 1, &answer);
    check_failure(cell, &answer, 0, "");
    answer_free(&answer);
    service_stop(&service);
}

BEHAVIOUR(two_lines_are_an_error_where_one_is_a_message, ALL, CALLS | OWN_SERVICE)
{
    struct service service;
    struct answer answer;
    service_start(&service, cell, "two_lines", NULL);
    call_once(cell, &service, "two_lines", "?", 1, &answer);
    CHECK_INT(answer.result, 0);
    if (cell->framing == FRAMING_LINES) CHECK(strncmp(answer.data, "error: ", 7) == 0 && !strchr(answer.data, '\n'));
    else CHECK_STR(answer.data, "two\nlines");
    answer_free(&answer);
    service_stop(&service);
}

BEHAVIOUR(an_unknown_method_is_refused_and_the_known_are_named, PLAIT, CALLS)
{
    struct service service;
    struct answer answer;
    service_start(&service, cell, NULL, NULL);
    call_once(cell, &service, "ecko", "x", 1, &answer);
    CHECK_INT(answer.result, -EOPNOTSUPP);
    CHECK_CONTAINS(answer.text, "ecko");
    CHECK_CONTAINS(answer.text, "echo, fail");
    answer_free(&answer);
    service_stop(&service);
}

BEHAVIOUR(a_deferred_reply_from_another_thread_arrives, ALL, CALLS | OWN_SERVICE)
{
    struct service service;
    struct answer answer;
    service_start(&service, cell, "later", NULL);
    void *client = cell->column->open(cell, service_url(&service, "later"), &(struct settings){ 0 });
    for (int i = 0; i < (cell->column->patience < 50 ? 2 : 50); i++) {
        char *data = pattern(cell, i % 2 ? 20000 : 20, (unsigned)i);
        size_t size = i % 2 && cell->framing != FRAMING_RAW ? 20000 : 20; /* raw could be split */
        cell->column->call(client, "later", data, size, 0, &answer);
        if (answer.result < 0) test_fail(__FILE__, __LINE__, "call %d: %s", i, answer.text);
        CHECK_INT(answer.size, size);
        CHECK_MEM(answer.data, data, size);
        answer_free(&answer);
        free(data);
    }
    cell->column->close(client);
    service_stop(&service);
}

BEHAVIOUR(a_server_that_closes_instead_of_replying_is_known, STREAMED, CALLS | PLAIN_SERVER)
{
    struct service service;
    struct answer answer;
    service_start(&service, cell, "drop", NULL);
    call_once(cell, &service, "drop", "x", 1, &answer);
    CHECK_INT(answer.result, -ECONNRESET);
    CHECK_CONTAINS(answer.text, "may have run");
    answer_free(&answer);
    service_stop(&service);
}

BEHAVIOUR(half_a_reply_is_no_reply, LENGTH, CALLS | PLAIN_SERVER)
{
    struct service service;
    struct answer answer;
    service_start(&service, cell, "cut", NULL);
    call_once(cell, &service, "cut", "twelve bytes", 12, &answer);
    CHECK(answer.result == -ECONNRESET || answer.result == -EPROTO);
    answer_free(&answer);
    service_stop(&service);
}

/* ---- deadlines and limits ---- */

BEHAVIOUR(a_deadline_ends_a_call_and_its_late_reply_answers_no_other, ALL, CALLS | DEADLINES | ONE_PROCESS)
{
    struct service service;
    struct answer answer;
    service_start(&service, cell, "late", NULL);
    void *client = cell->column->open(cell, service_url(&service, "late"), &(struct settings){ 0 });
    int64_t begun = now_ms();
    cell->column->call(client, "late", "first", 5, 200, &answer);
    int64_t took = now_ms() - begun;
    CHECK_INT(answer.result, -ETIMEDOUT);
    CHECK(answer.text[0] != 0);
    CHECK(took >= 190);
    answer_free(&answer);
    for (int i = 0; i < 3; i++) { /* the first of these makes the server answer what is late */
        char text[32];
        int size = snprintf(text, sizeof(text), "another %d", i);
        cell->column->call(client, "late", text, (size_t)size, 20000, &answer);
        if (answer.result < 0) test_fail(__FILE__, __LINE__, "call %d: %s", i, answer.text);
        CHECK_STR(answer.data, text);
        answer_free(&answer);
    }
    cell->column->close(client);
    service_stop(&service);
}

BEHAVIOUR(a_request_at_the_servers_limit_passes_and_one_byte_more_does_not, PLAIT | LINES | LENGTH, CALLS | OWN_SERVICE)
{
    enum { LIMIT = 100000 };
    struct service_options options = { .max_message = LIMIT };
    struct service service;
    struct answer answer;
    char *data = pattern(cell, LIMIT + 1, 1);
    service_start(&service, cell, "echo", &options);
    memset(data, 'x', LIMIT + 1);
    call_once(cell, &service, "echo", data, LIMIT, &answer);
    if (answer.result < 0) test_fail(__FILE__, __LINE__, "%s", answer.text);
    CHECK_INT(answer.size, LIMIT);
    answer_free(&answer);
    call_once(cell, &service, "echo", data, LIMIT + 1, &answer);
    CHECK(answer.result < 0);
    if (cell->framing != FRAMING_PLAIT) CHECK_INT(answer.result, -ECONNRESET); /* nobody said what the limit is */
    else CHECK_CONTAINS(answer.text, "takes max_message=100000");
    answer_free(&answer);
    call_once(cell, &service, "echo", "ok", 2, &answer);
    CHECK_STR(answer.data, "ok");
    answer_free(&answer);
    free(data);
    service_stop(&service);
}

BEHAVIOUR(a_datagram_at_the_servers_limit_passes_and_one_byte_more_does_not, DATAGRAM, CALLS | OWN_SERVICE)
{
    struct service_options options = { .max_message = 1000 };
    struct service service;
    struct answer answer;
    char *data = pattern(cell, 1001, 1);
    service_start(&service, cell, "echo", &options);
    call_once(cell, &service, "echo", data, 1000, &answer);
    CHECK_INT(answer.size, 1000);
    answer_free(&answer);
    call_once(cell, &service, "echo", data, 1001, &answer);
    CHECK_INT(answer.result, 0);
    CHECK_STR(answer.data, "error: the request has 1001 bytes; this listener's max_message is 1000\n");
    answer_free(&answer);
    free(data);
    service_stop(&service);
}

BEHAVIOUR(a_message_beyond_a_datagram_names_the_limit, DATAGRAM, CALLS | DEADLINES)
{
    struct service service;
    struct answer answer;
    char *data = pattern(cell, PLAIT_DATAGRAM_MAX + 1, 1);
    service_start(&service, cell, "echo", NULL);
    call_once(cell, &service, "echo", data, PLAIT_DATAGRAM_MAX + 1, &answer);
    CHECK(answer.result < 0);
    CHECK_CONTAINS(answer.text, "PLAIT_DATAGRAM_MAX, 65507");
    answer_free(&answer);
    free(data);
    service_stop(&service);
}

static void refuse_beyond(const struct cell *cell, const struct service *service, unsigned limit)
{
    struct settings settings = { .max_message = limit };
    struct answer answer;
    char size[16], text[16];
    void *client = cell->column->open(cell, service_url(service, "bytes"), &settings);
    snprintf(text, sizeof(text), "%u", limit);
    cell->column->call(client, "bytes", text, strlen(text), 0, &answer);
    if (answer.result < 0) test_fail(__FILE__, __LINE__, "%s", answer.text);
    CHECK_INT(answer.size, limit);
    answer_free(&answer);
    snprintf(size, sizeof(size), "%u", limit + 1);
    cell->column->call(client, "bytes", size, strlen(size), 0, &answer);
    CHECK_INT(answer.result, -EMSGSIZE);
    CHECK_CONTAINS(answer.text, "max_message");
    CHECK_CONTAINS(answer.text, text);
    answer_free(&answer);
    cell->column->call(client, "bytes", "3", 1, 0, &answer); /* and goes on */
    CHECK_INT(answer.result, 0);
    CHECK_STR(answer.data, "bbb");
    answer_free(&answer);
    cell->column->close(client);
}

BEHAVIOUR(a_reply_beyond_the_clients_limit_is_refused_by_name, PLAIT | LINES | LENGTH | DATAGRAM, CALLS | LIMITS)
{
    struct service service;
    service_start(&service, cell, "bytes", NULL);
    if (cell->framing != FRAMING_DATAGRAM)
        refuse_beyond(cell, &service, 1 << 20); /* the hello tells it in MiB, the server refuses */
    refuse_beyond(cell, &service, 1000);        /* rounded up there, the client refuses */
    service_stop(&service);
}
