/* column_c: libplait's C interface calls service.c; and (column plain) a server that knows nothing of plait; and
 * (column workers) service.c as two processes, which share the name or the listeners.
 */
#include "conformance/conformance.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct c_client {
    plait_client *client;
    bool named; /* the framing carries methods */
};

static void *c_open(const struct cell *cell, const char *url, const struct settings *settings)
{
    plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
    struct c_client *own = calloc(1, sizeof(*own));
    char target[SERVICE_TEXT + 32];
    CHECK(own != NULL);
    snprintf(target, sizeof(target), "%s", url);
    add_option(target, sizeof(target), settings->until_eof ? "until=eof" : "");
    options.max_message = settings->max_message;
    own->named = cell->framing == FRAMING_PLAIT;
    if (plait_client_open(&own->client, target, &options) < 0)
        test_fail(__FILE__, __LINE__, "%s: %s", target, plait_error_text());
    return own;
}

static void c_call(void *client, const char *method, const void *data, size_t size, int64_t timeout,
                   struct answer *answer)
{
    struct c_client *own = client;
    plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
    plait_reply *reply = NULL;
    options.timeout = timeout;
    *answer = (struct answer){ 0 };
    answer->result = plait_client_call(own->client, own->named ? method : "", data, size, &options, &reply);
    if (answer->result < 0) snprintf(answer->text, sizeof(answer->text), "%s", plait_error_text());
    CHECK((reply != NULL) == (answer->result == 0 || answer->result == -EREMOTEIO));
    if (answer->result == 0) {
        answer->size = plait_reply_body(reply).size;
        answer->data = malloc(answer->size + 1);
        CHECK(answer->data != NULL);
        if (answer->size > 0) memcpy(answer->data, plait_reply_body(reply).data, answer->size);
        answer->data[answer->size] = 0;
    }
    if (answer->result == -EREMOTEIO) {
        answer->status = plait_reply_status(reply);
        snprintf(answer->text, sizeof(answer->text), "%s", plait_reply_text(reply));
    }
    plait_reply_free(reply);
}

static void c_close(void *client)
{
    struct c_client *own = client;
    plait_client_close(own->client);
    free(own);
}

const struct column column_c = {
    .name = "c",
    .framings = ALL,
    .can = CALLS | DEADLINES | LIMITS | API | OWN_SERVICE | ONE_PROCESS | SIZES,
    .patience = 2000,
    .serve = service_run_own,
    .open = c_open,
    .call = c_call,
    .close = c_close,
};

/* What matters is which process a connection meets; what a body may look like, the column above shows. */
const struct column column_workers = {
    .name = "c>two",
    .framings = PLAIT | LINES | DATAGRAM,
    .can = CALLS | API | OWN_SERVICE,
    .patience = 100,
    .serve = service_run_workers,
    .open = c_open,
    .call = c_call,
    .close = c_close,
};

/* ---- against a plain server ---- */

void service_run_plain(const struct cell *cell, const struct service_options *options, int out, int stop)
{
    char listen[SERVICE_TEXT], script[SERVICE_TEXT], out_text[16], stop_text[16];
    const char *source = getenv("PLAIT_SOURCE");
    (void)options;
    snprintf(listen, sizeof(listen), cell->transport->listen, test_directory());
    snprintf(script, sizeof(script), "%s/tests/conformance/plain_server.py", source ? source : ".");
    snprintf(out_text, sizeof(out_text), "%d", dup(out));
    snprintf(stop_text, sizeof(stop_text), "%d", dup(stop));
    close(out);
    close(stop);
    execl("/usr/bin/python3", "python3", script, framing_name(cell->framing), listen, out_text, stop_text,
          (char *)NULL);
    perror("/usr/bin/python3");
    _exit(1);
}

const struct column column_plain = {
    .name = "c>plain",
    .framings = IDLESS,
    .can = CALLS | DEADLINES | LIMITS | PLAIN_SERVER | ONE_PROCESS | SIZES,
    .patience = 500,
    .serve = service_run_plain,
    .open = c_open,
    .call = c_call,
    .close = c_close,
};
