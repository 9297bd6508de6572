/* plait serve: a name for a command, or an echo. */
#include "command.h"
#include "holder.h"
#include "message.h"
#include "output.h"
#include "runner.h"
#include <errno.h>
#include <plait/plait.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct option_list urls;
static int64_t threads = 1, processes = -1; /* -1: not given */
static const char *allow;
static bool exclusive, echo, json;

static void echo_handler(plait_request *request, void *context)
{
    plait_bytes body = plait_request_body(request);

    (void)context;
    plait_request_reply_as(request, plait_request_encoding(request), body.data, body.size);
}

static int workers(void)
{
    cpu_set_t set;

    if (processes != 0) return (int)processes;
    return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

static void announce(plait_server *server, const char *name)
{
    const char *url;

    for (size_t i = 0; (url = plait_server_url(server, i)); i++) announce_listener(url, json);
    if (json) {
        json_begin("serving");
        json_text("service", name);
        json_integer("pid", getpid());
        if (processes >= 0) json_integer("processes", workers());
        json_end();
    } else {
        if (processes >= 0) printf("serving %s (pid %d, %d processes)\n", name, (int)getpid(), workers());
        else printf("serving %s (pid %d)\n", name, (int)getpid());
    }
    fflush(stdout);
}

/* All workers serve. */
static void on_ready(plait_server *server, void *name)
{
    announce(server, name);
}

static int prepare_workers(plait_server *server, const char *name)
{
    plait_worker_hooks hooks = PLAIT_WORKER_HOOKS_INIT;

    log_complaints(PLAIT_LOG_INFO); /* what befalls the workers is worth a line */
    hooks.ready = on_ready;
    hooks.context = (void *)name;
    return plait_server_workers(server, &hooks);
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

    if (taken && holder_of(taken, holder, sizeof(holder))) return claim_failed(code, "serve %s: %s", name, holder);
    return claim_failed(code, "serve %s", name);
}

static int serve(const char *name, struct runner *runner)
{
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    plait_server *server = NULL;
    const char *taken = NULL;
    int r, status = STATUS_OK;

    options.threads = threads == 0 ? -1 : (int32_t)threads; /* in C zero is the default, as everywhere */
    options.processes = processes == 0 ? -1 : processes < 0 ? 0 : (int32_t)processes; /* as for threads */
    options.exclusive = exclusive;
    options.allow = allow;
    r = plait_server_open(&server, name, &options);
    if (r == 0) r = handle(server, runner);
    for (int i = 0; i < urls.count && r == 0; i++) {
        r = plait_server_listen(server, urls.items[i]);
        if (r == -EADDRINUSE) taken = urls.items[i];
    }
    if (r == 0 && processes >= 0) r = prepare_workers(server, name);
    else if (r == 0) announce(server, name);
    if (r == 0) r = plait_server_run(server);
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
      .minimum = 0,
      .maximum = 64,
      .help = "threads that handle calls, 1 to 64; 0: as many as there are CPUs\n(default 1)" },
    { .name = "--processes",
      .argument = "N",
      .kind = OPTION_NUMBER,
      .value = &processes,
      .minimum = 0,
      .maximum = PLAIT_PROCESSES_MAX,
      .help = "processes that serve side by side, each with --threads, 1 to 64;\n0: as many as there are CPUs "
              "(default: this one alone)" },
    { .name = "--allow",
      .argument = "WHO",
      .kind = OPTION_TEXT,
      .value = &allow,
      .help = "other users who may call: alice,1001,@group,* (default: yourself\nand root)" },
    { .name = "--exclusive",
      .kind = OPTION_FLAG,
      .value = &exclusive,
      .help = "be the only server of NAME, with its workers, or fail and say who\nis" },
    { .name = "--echo", .kind = OPTION_FLAG, .value = &echo, .help = "answer each call with its own body" },
    { .name = "--json",
      .kind = OPTION_FLAG,
      .value = &json,
      .help = "say what is served as objects, kinds \"listening\" and \"serving\"" },
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
            "With --processes this one is the supervisor: it starts a worker again that died, and says on\n"
            "standard error who died of what; 5 deaths within 10 s end it with exit status 1. SIGHUP replaces the\n"
            "workers one after the other, and no call fails. The listeners are shared by all of them.\n"
            "\n"
            "Examples:\n"
            "  plait serve hello --echo\n"
            "  plait serve hello --echo --processes 4\n"
            "  plait serve upper --listen 'tcp://127.0.0.1:0?framing=lines' -- tr a-z A-Z\n"
            "  plait serve tools -- sh -c 'case $PLAIT_METHOD in date) date ;; *) exit 1 ;; esac'\n",
    .takes_dashes = true,
    .run = run,
};
