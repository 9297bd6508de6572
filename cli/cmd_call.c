/* plait call: one call, or the same one several times; the reply's bytes on standard output as they are. */
#include "clock.h"
#include "command.h"
#include "message.h"
#include "output.h"
#include "target.h"
#include <errno.h>
#include <plait/plait.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CONNECT_DEFAULT 5000 /* ms that an absent name is waited for */
#define PATIENCE 300         /* ms until a waiting person is told what we wait for */

static int64_t timeout;
static int64_t repeat = 1;
static int encoding;
static bool json, idempotent;

struct job {
    struct target target;
    const char *name; /* as typed, for messages */
    struct data data;
};

/* Opens the client. A person at a terminal who waits for an absent name is told so after a moment; what is
 * left of --timeout goes to the first call. */
static int connect_to(const struct job *job, plait_client **ret_client, int64_t *ret_left)
{
    plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
    int64_t total = timeout && timeout < CONNECT_DEFAULT ? timeout : CONNECT_DEFAULT;
    int64_t begun = now_ns(), spent;
    bool person = isatty(STDERR_FILENO) && !json && total > 2 * PATIENCE;
    int r;

    if (timeout == PLAIT_FOREVER) total = PLAIT_FOREVER;
    options.connect_timeout = person ? PATIENCE : total;
    r = plait_client_open(ret_client, job->target.address, &options);
    if (r == -ENOENT && person) {
        fprintf(stderr, "plait: waiting for %s to be served\n", job->name);
        options.connect_timeout = total == PLAIT_FOREVER ? total : total - PATIENCE;
        r = plait_client_open(ret_client, job->target.address, &options);
    }
    if (r < 0) return r;
    spent = (now_ns() - begun) / 1000000;
    *ret_left = timeout == 0 || timeout == PLAIT_FOREVER ? timeout : timeout > spent ? timeout - spent : 1;
    return 0;
}

static void print_json(const plait_reply *reply, const char *transport, int64_t time_ns)
{
    uint32_t status = plait_reply_status(reply);

    json_begin("reply");
    json_number("status", status);
    json_text("encoding", encoding_names[plait_reply_encoding(reply) & 3]);
    json_text("transport", transport);
    json_decimal("time_us", (double)time_ns / 1000);
    if (status) {
        json_number("size", 0);
        json_text("error", plait_reply_text(reply));
    } else {
        json_body(plait_reply_body(reply));
    }
    json_end();
}

static int call_once(plait_client *client, const struct job *job, int64_t limit)
{
    plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
    plait_reply *reply = NULL;
    int64_t begun;
    int r, status = STATUS_OK;

    options.timeout = limit;
    options.encoding = encoding;
    options.flags = idempotent ? PLAIT_CALL_IDEMPOTENT : 0;
    begun = now_ns();
    r = plait_client_call(client, job->target.method, job->data.bytes, job->data.size, &options, &reply);
    begun = now_ns() - begun;
    if (r < 0 && r != -EREMOTEIO) return command_failed(r, "%s", job->name);
    if (json) print_json(reply, plait_client_transport(client), begun);
    if (r == -EREMOTEIO) {
        complain("%s: %s", job->name, plait_reply_text(reply));
        status = STATUS_FAILED;
    } else if (!json) {
        print_body(plait_reply_body(reply));
    }
    plait_reply_free(reply);
    return status;
}

static int call_all(const struct job *job)
{
    plait_client *client = NULL;
    int64_t left = 0;
    int status = STATUS_OK, r = connect_to(job, &client, &left);

    if (r < 0) return (int)command_failed(r, "%s", job->name);
    for (int64_t i = 0; i < repeat && status == STATUS_OK && !output_failed(); i++)
        status = call_once(client, job, i == 0 ? left : timeout);
    plait_client_close(client);
    return status;
}

static int run(int argc, char **argv)
{
    struct job job = { .name = NULL };
    int literal, status;

    argc = options_drop_dashes(argc, argv, &literal);
    if (argc < 2 || !argv[1][0]) return command_usage("call", "whom? Give a TARGET");
    if (argc > 3)
        return command_usage("call",
                             "%s: only one DATA; a method goes behind a slash, as in %s/METHOD, and data that has "
                             "spaces into quotes",
                             argv[3], argv[1]);
    job.name = argv[1];
    if (target_parse(&job.target, "call", argv[1]) < 0) return STATUS_USAGE;
    status = data_take(&job.data, "call", argc, argv, literal);
    if (status == STATUS_OK) status = call_all(&job);
    free(job.data.owned);
    return status;
}

static const struct option options[] = {
    { .name = "--timeout",
      .argument = "T",
      .kind = OPTION_DURATION,
      .value = &timeout,
      .help = "give up after T: 300ms, 5s, 2m, forever, or milliseconds. Without it\n"
              "an absent name is waited for 5 s and a call may take 30 s" },
    { .name = "--repeat",
      .argument = "N",
      .kind = OPTION_NUMBER,
      .value = &repeat,
      .minimum = 1,
      .maximum = INT64_MAX,
      .help = "call N times over one connection; T is for each" },
    { .name = "--encoding",
      .argument = "E",
      .kind = OPTION_CHOICE,
      .value = &encoding,
      .choices = encoding_names,
      .help = "what DATA is said to be: bytes (the default), utf8, json, array" },
    { .name = "--idempotent",
      .kind = OPTION_FLAG,
      .value = &idempotent,
      .help = "the call may run twice: try another instance when one dies" },
    { .name = "--json",
      .kind = OPTION_FLAG,
      .value = &json,
      .help = "an object for each reply, kind \"reply\": status, encoding, transport,\n"
              "time_us, size, and text or base64, or error" },
    { .name = NULL },
};

const struct command command_call = {
    .name = "call",
    .arguments = "TARGET [DATA | -]",
    .summary = "call a service and print its reply",
    .options = options,
    .text = "TARGET is a name, a name and a method (greeter/greet), or a URL: see plait help targets.\n"
            "Without DATA the body is empty; - reads it from standard input; behind -- it may begin\n"
            "with a dash. Any bytes are fine.\n"
            "\n"
            "The reply goes to standard output as it is. A newline follows only on a terminal, so\n"
            "replies of --repeat stand side by side in a file. A handler's failure goes to standard\n"
            "error and the exit status is 1; see plait help exit for the others.\n"
            "\n"
            "Examples:\n"
            "  plait call greeter/greet Ada\n"
            "  plait call store/put - --timeout 5s < picture.png\n"
            "  plait call 'tcp://127.0.0.1:8888?framing=raw' hello\n"
            "  plait call counter --json | jq .time_us\n",
    .takes_dashes = true,
    .run = run,
};
