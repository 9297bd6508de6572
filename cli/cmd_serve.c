/* plait serve: a name for a command, or an echo. */
#include "command.h"
#include "holder.h"
#include "output.h"
#include "runner.h"
#include <errno.h>
#include <plait/plait.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct option_list urls;
static int64_t threads = 1;
static const char *allow, *processes;
static bool exclusive, echo, json;

static void echo_handler(plait_request *request, void *context)
{
    plait_bytes body = plait_request_body(request);

    (void)context;
    plait_request_reply_as(request, plait_request_encoding(request), body.data, body.size);
}

/* What somebody who starts a listener may not have thought of. */
static const char *remark(const char *url)
{
    const char *host = strstr(url, "://");

    if ((strncmp(url, "tcp:", 4) != 0 && strncmp(url, "udp:", 4) != 0) || !host) return "";
    host += 3;
    if (strncmp(host, "127.", 4) == 0 || strncmp(host, "[::1]", 5) == 0 || strncmp(host, "localhost", 9) == 0)
        return " (admits every local user)";
    return " (admits everybody who can reach it, unencrypted)";
}

static void announce(plait_server *server, const char *name)
{
    const char *url;

    for (size_t i = 0; (url = plait_server_url(server, i)); i++) {
        if (json) {
            json_begin("listening");
            json_text("url", url);
            json_end();
        } else {
            printf("listening on %s%s\n", url, remark(url));
        }
    }
    if (json) {
        json_begin("serving");
        json_text("service", name);
        json_integer("pid", getpid());
        json_end();
    } else {
        printf("serving %s (pid %d)\n", name, (int)getpid());
    }
    fflush(stdout);
}

/* "" as well as "*": a caller that names no method is served whatever the library makes of one method. */
static int handle(plait_server *server, struct runner *runner)
{
    plait_handler *handler = runner ? runner_handle : echo_handler;
    int r = plait_server_handle(server, "", handler, runner);

    return r == 0 ? plait_server_handle(server, "*", handler, runner) : r;
}

/* TAKEN: the URL whose port somebody else has, or NULL. */
static int failed(int code, const char *name, const char *taken)
{
    char holder[160];
    int status;

    if (taken && holder_of(taken, holder, sizeof(holder))) return command_failed(code, "serve %s: %s", name, holder);
    status = command_failed(code, "serve %s", name);
    return status == STATUS_NO_NAME ? STATUS_FAILED : status; /* a directory that isn't there is no absent service */
}

static int serve(const char *name, struct runner *runner)
{
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    plait_server *server = NULL;
    const char *taken = NULL;
    int r, status = STATUS_OK;

    options.threads = (int32_t)threads;
    options.exclusive = exclusive;
    options.allow = allow;
    r = plait_server_open(&server, name, &options);
    if (r == 0) r = handle(server, runner);
    for (int i = 0; i < urls.count && r == 0; i++) {
        r = plait_server_listen(server, urls.items[i]);
        if (r == -EADDRINUSE) taken = urls.items[i];
    }
    if (r == 0) {
        announce(server, name);
        r = plait_server_run(server);
    }
    if (r < 0) status = failed(r, name, taken);
    runner_close(runner);
    plait_server_close(server);
    return status;
}

static int run(int argc, char **argv)
{
    struct runner *runner = NULL;
    int dashes = 1;

    while (dashes < argc && strcmp(argv[dashes], "--") != 0) dashes++;
    if (processes)
        return command_usage("serve",
                             "--processes is not in this version; use --threads %s, or start several servers "
                             "of the same name, which share the calls",
                             processes);
    if (dashes < 2) return command_usage("serve", "under which NAME?");
    if (dashes > 2) return command_usage("serve", "%s: only one NAME; a command goes behind --", argv[2]);
    if (echo && dashes < argc) return command_usage("serve", "--echo or -- CMD, not both");
    if (!echo && dashes + 1 >= argc)
        return command_usage("serve", "what shall answer? Give --echo, or -- CMD [ARG]...");
    if (!echo && runner_open(&runner, argv + dashes + 1) < 0) return STATUS_FAILED;
    return serve(argv[1], runner);
}

static const struct option options[] = {
    { .name = "--listen",
      .argument = "URL",
      .kind = OPTION_LIST,
      .value = &urls,
      .help = "also listen on URL, such as 'tcp://127.0.0.1:8888?framing=raw' or\n"
              "unix:///tmp/s; may be given several times; see plait help targets" },
    { .name = "--threads",
      .argument = "N",
      .kind = OPTION_NUMBER,
      .value = &threads,
      .minimum = -1,
      .maximum = 64,
      .help = "reactor threads, 1 to 64; -1: one for each CPU (default 1)" },
    { .name = "--allow",
      .argument = "WHO",
      .kind = OPTION_TEXT,
      .value = &allow,
      .help = "other users who may call: alice,1001,@group,* (default: yourself\nand root)" },
    { .name = "--exclusive",
      .kind = OPTION_FLAG,
      .value = &exclusive,
      .help = "be the only instance of NAME, or fail and say who is" },
    { .name = "--echo", .kind = OPTION_FLAG, .value = &echo, .help = "answer each call with its own body" },
    { .name = "--json",
      .kind = OPTION_FLAG,
      .value = &json,
      .help = "say what is served as objects, kinds \"listening\" and \"serving\"" },
    { .name = "--processes", .argument = "N", .kind = OPTION_TEXT, .value = &processes, .help = "not in this version" },
    { .name = NULL },
};

const struct command command_serve = {
    .name = "serve",
    .arguments = "NAME (--echo | -- CMD [ARG]...)",
    .summary = "claim a name and answer its calls, by a command or an echo",
    .options = options,
    .text = "CMD runs once for each call, without a shell: the body is its standard input, the method that\n"
            "was called is in $PLAIT_METHOD (empty if none was named), its standard output is the reply. If\n"
            "it ends with another status than 0, the caller gets that status and the end of its standard\n"
            "error, 4 KiB at most. Every method is accepted. 64 commands run at once, further calls wait\n"
            "their turn. A command whose caller has gone, or whose time is over, gets SIGTERM, and SIGKILL\n"
            "a second later.\n"
            "\n"
            "Serves until Ctrl-C or SIGTERM, then answers what it has taken, for at most 5 s. Several\n"
            "servers may serve the same name; calls go to the one with the least to do.\n"
            "\n"
            "Examples:\n"
            "  plait serve hello --echo\n"
            "  plait serve upper --listen 'tcp://127.0.0.1:0?framing=lines' -- tr a-z A-Z\n"
            "  plait serve tools -- sh -c 'case $PLAIT_METHOD in date) date ;; *) exit 1 ;; esac'\n",
    .run = run,
};
