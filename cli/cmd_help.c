/* plait help: printed from the tables that the command itself uses. */
#include "command.h"
#include "output.h"
#include <plait/plait.h>
#include <stdio.h>
#include <string.h>

static const struct topic topics[] = {
    {
        "targets",
        "how to say whom to call and where to listen",
        "A target, for plait call and plait_client_open():\n"
        "  NAME                       a service on this machine, by shared memory where possible\n"
        "  NAME/METHOD                one of its methods\n"
        "  NAME?shm=off               the same over its Unix socket, without shared memory\n"
        "  tcp://HOST:PORT            a listener; [::1] for IPv6\n"
        "  tcp://HOST:PORT/NAME       the service NAME, should several stand behind that port\n"
        "  udp://HOST:PORT            a datagram for each call and each reply; they may be lost\n"
        "  unix:///PATH               a listener on a Unix socket of its own\n"
        "\n"
        "A listener, for plait serve --listen and plait_server_listen():\n"
        "  tcp://HOST:PORT            port 0 asks the kernel for a free one; beyond loopback it needs\n"
        "                             ?insecure=1, since nothing is encrypted\n"
        "  udp://HOST:PORT            each datagram is a request: at most 65507 bytes, and no framing=\n"
        "  unix:///PATH               a Unix socket at PATH\n"
        "\n"
        "Options of both, behind a ? and joined by &; quote them, the shell reads both signs:\n"
        "  framing=plait              (the default) calls in parallel, methods, deadlines, errors\n"
        "  framing=raw                what one recv() brings is a request: for nc and plain sockets\n"
        "  framing=lines              a line is a request, a line is the reply\n"
        "  framing=length             a 32-bit big-endian length before each message\n"
        "  method=NAME                the method that raw, lines, length and udp:// requests mean\n"
        "  max_message=SIZE           the largest message taken: bytes, or with k, M, G\n"
        "  until=eof                  (raw, calling) the reply is everything up to the end\n"
        "\n"
        "Names: a-z, 0-9, and behind the first character also . _ - ; at most 100 bytes. Methods may have\n"
        "capitals, too, and begin with _ .\n",
    },
    {
        "environment",
        "variables that the command and the library read",
        "  PLAIT_DIR                  the directory in which names are claimed and looked up; what is shared\n"
        "                             with other users lies in its subdirectory shared. Without it,\n"
        "                             $XDG_RUNTIME_DIR/plait, or /run/user/UID/plait, or /tmp/plait-UID, and\n"
        "                             the shared /run/plait\n"
        "  PLAIT_LOG                  error, info or debug: the library says on standard error what it does\n"
        "  XDG_RUNTIME_DIR            see PLAIT_DIR\n"
        "\n"
        "A command that plait serve runs finds in its environment:\n"
        "  PLAIT_METHOD               the method that was called, empty if none was named\n",
    },
    {
        "exit",
        "what the exit status says",
        "  0  ok\n"
        "  1  failed: the handler said so, or anything that is not below\n"
        "  2  wrong usage: an unknown option or verb, a bad name or URL\n"
        "  3  no such name: no such service, or the service has no such method\n"
        "  4  timed out\n"
        "  5  refused, or the peer died\n"
        "\n"
        "Errors go to standard error as `plait: what: why (what to do)`. A reader that goes away, as in\n"
        "`plait ls | head -1`, is not an error.\n",
    },
    { NULL, NULL, NULL },
};

const struct topic *topic_list(void)
{
    return topics;
}

void help_overview(void)
{
    printf("plait %s: programs on this machine and beyond call each other by name\n\n", PLAIT_VERSION);
    for (const struct command *const *p = command_list(); *p; p++)
        printf("  plait %-9s %s\n", (*p)->name, (*p)->summary);
    printf("\nAlso:\n");
    for (const struct topic *topic = topics; topic->name; topic++)
        printf("  plait help %-13s %s\n", topic->name, topic->summary);
    printf("\nTo try it, in two terminals:\n"
           "  plait serve hello --echo\n"
           "  plait call hello world\n");
}

static void print_option(const struct option *option)
{
    char left[64];
    const char *text = option->help;

    snprintf(left, sizeof(left), "%s%s%s", option->name, option->argument ? " " : "",
             option->argument ? option->argument : "");
    while (*text) {
        size_t size = strcspn(text, "\n");
        printf("  %-20s %.*s\n", left, (int)size, text);
        text += size + (text[size] == '\n');
        left[0] = 0;
    }
}

void help_command(const struct command *command)
{
    printf("usage: plait %s [OPTION]...%s%s\n", command->name, command->arguments[0] ? " " : "", command->arguments);
    printf("\n%c%s.\n\n", command->summary[0] - 'a' + 'A', command->summary + 1);
    for (const struct option *option = command->options; option->name; option++) print_option(option);
    printf("  %-20s %s\n\n", "--help", "this page");
    fputs(command->text, stdout);
}

static int run(int argc, char **argv)
{
    const struct command *command;

    if (argc < 2) {
        help_overview();
        return STATUS_OK;
    }
    if (argc > 2) return command_usage("help", "%s: one verb at a time", argv[2]);
    command = command_find(argv[1]);
    if (command) {
        help_command(command);
        return STATUS_OK;
    }
    for (const struct topic *topic = topics; topic->name; topic++) {
        if (strcmp(topic->name, argv[1]) != 0) continue;
        printf("plait help %s: %s\n\n%s", topic->name, topic->summary, topic->text);
        return STATUS_OK;
    }
    return command_usage(NULL, "help: %s: neither a verb nor one of targets, environment, exit", argv[1]);
}

static const struct option options[] = { { .name = NULL } };

const struct command command_help = {
    .name = "help",
    .arguments = "[VERB | targets | environment | exit]",
    .summary = "explain a verb, or one of the topics",
    .options = options,
    .text = "Every verb also takes --help.\n",
    .run = run,
};
