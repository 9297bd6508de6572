/* command: the table of verbs, and the way from a word to its function. */
#include "command.h"
#include "output.h"
#include <errno.h>
#include <plait/plait.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define SOME_VERBS "try plait serve, call, ls or help"

static const struct command *const commands[] = {
    &command_serve,   &command_call,  &command_get,    &command_pub,     &command_sub,  &command_ls,
    &command_threads, &command_bench, &command_doctor, &command_version, &command_help, NULL,
};

const struct command *const *command_list(void)
{
    return commands;
}

const struct command *command_find(const char *name)
{
    for (const struct command *const *p = commands; *p; p++) {
        if (strcmp((*p)->name, name) == 0) return *p;
    }
    return NULL;
}

enum exit_status command_status(int code)
{
    switch (code) {
    case 0: return STATUS_OK;
    case -EINVAL:
    case -EPROTONOSUPPORT: return STATUS_USAGE;
    case -ENOENT:
    case -EOPNOTSUPP: return STATUS_NO_NAME;
    case -ETIMEDOUT: return STATUS_TIMED_OUT;
    case -ECONNREFUSED:
    case -ECONNRESET:
    case -ECONNABORTED:
    case -EPIPE:
    case -EACCES:
    case -EPERM:
    case -EHOSTUNREACH:
    case -ENETUNREACH: return STATUS_REFUSED;
    default: return STATUS_FAILED;
    }
}

static void say_failed(int code, const char *what, va_list list)
{
    char text[2048], place[512];

    snprintf(text, sizeof(text), "%s", plait_error_text()); /* before anything else can change it */
    size_t size = (size_t)vsnprintf(place, sizeof(place), what, list);
    if (size < sizeof(place) && strncmp(text, place, size) == 0 && text[size] == ':') complain("%s", text);
    else complain("%s: %s", place, text[0] ? text : strerror(-code));
}

enum exit_status command_failed(int code, const char *what, ...)
{
    va_list list;

    va_start(list, what);
    say_failed(code, what, list);
    va_end(list);
    return command_status(code);
}

enum exit_status claim_failed(int code, const char *what, ...)
{
    enum exit_status status = command_status(code);
    va_list list;

    va_start(list, what);
    say_failed(code, what, list);
    va_end(list);
    return status == STATUS_NO_NAME ? STATUS_FAILED : status;
}

enum exit_status command_usage(const char *verb, const char *format, ...)
{
    char text[1024];
    va_list list;

    va_start(list, format);
    vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    if (verb) complain("%s: %s (see: plait help %s)", verb, text, verb);
    else complain("%s (see: plait help)", text);
    return STATUS_USAGE;
}

static enum exit_status unknown_verb(const char *name)
{
    const struct command *near = NULL;
    int best = strlen(name) > 2 ? 3 : 1; /* two changes turn any two letters into any others */

    if (!name[0] || strcmp(name, "--") == 0) return command_usage(NULL, "no verb given; " SOME_VERBS);
    if (name[0] == '-')
        return command_usage(NULL, "%s: no such option; without a verb there are --help and --version", name);
    for (const struct command *const *p = commands; *p; p++) {
        int distance = edit_distance(name, (*p)->name, 2);
        if (strncasecmp((*p)->name, name, strlen(name)) == 0) distance = 0; /* "ver": the beginning of a verb */
        if (distance < best) {
            best = distance;
            near = *p;
        }
    }
    if (near) return command_usage(NULL, "%s: no such verb; did you mean plait %s?", name, near->name);
    return command_usage(NULL, "%s: no such verb", name);
}

/* --help and -h mean the same in every verb; behind "--" they are data. */
static bool wants_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return true;
    }
    return false;
}

static int run(const struct command *command, int argc, char **argv)
{
    int literal;

    if (wants_help(argc, argv)) {
        help_command(command);
        return STATUS_OK;
    }
    argc = options_parse(command->options, argc, argv);
    if (argc < 0) return STATUS_USAGE;
    if (!command->takes_dashes) argc = options_drop_dashes(argc, argv, &literal);
    return command->run(argc, argv);
}

/* Options may stand before the verb, too: the first word that is one goes to the front. */
static void put_verb_first(int argc, char **argv)
{
    for (int i = 1; i < argc && argv[1][0] == '-' && strcmp(argv[i], "--") != 0; i++) {
        char *verb = argv[i];
        if (!command_find(verb)) continue;
        memmove(&argv[2], &argv[1], (size_t)(i - 1) * sizeof(*argv));
        argv[1] = verb;
    }
}

int command_main(int argc, char **argv)
{
    const struct command *command;

    output_init();
    if (argc < 2) return command_usage(NULL, "no verb given; " SOME_VERBS);
    put_verb_first(argc, argv);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        help_overview();
        return output_finish(STATUS_OK);
    }
    command = strcmp(argv[1], "--version") == 0 ? &command_version : command_find(argv[1]);
    if (!command) return unknown_verb(argv[1]);
    return output_finish(run(command, argc - 1, argv + 1));
}
