/* command: the verbs of `plait`, each a struct in its own cmd_<verb>.c, listed in command.c.
 *
 * Help, usage lines, option parsing and suggestions all come from these structs, so they cannot part.
 * The command uses the public headers alone: it is the first proof that they suffice.
 */
#ifndef CLI_COMMAND_H
#define CLI_COMMAND_H

#include "options.h"
#include <stddef.h>

/* Exit statuses, the same for every verb. */
enum exit_status {
    STATUS_OK = 0,
    STATUS_FAILED = 1,
    STATUS_USAGE = 2,
    STATUS_NO_NAME = 3,
    STATUS_TIMED_OUT = 4,
    STATUS_REFUSED = 5 /* or the peer died */
};

struct command {
    const char *name;
    const char *arguments;        /* "TARGET [DATA | -]", for the usage line; the options are added to it */
    const char *summary;          /* one line for `plait help` */
    const struct option *options; /* ends with a NULL name */
    const char *text;             /* the rest of `plait help VERB` */
    bool takes_dashes;            /* what stands behind "--" means something else than before it */

    /* argv[0] is the verb; options are parsed and taken out of argv, and so is "--" unless `takes_dashes`. Returns an
     * exit status. */
    int (*run)(int argc, char **argv);
};

/* A page of `plait help` that belongs to no verb. */
struct topic {
    const char *name, *summary, *text;
};

extern const struct command command_serve, command_call, command_get, command_pub, command_sub, command_ls,
    command_threads, command_bench, command_doctor, command_version, command_help;

const struct command *const *command_list(void);      /* ends with NULL */
const struct topic *topic_list(void);                 /* ends with a NULL name */
const struct command *command_find(const char *name); /* or NULL */

/* `plait help`, `plait help VERB`, `plait help TOPIC` on standard output. */
void help_overview(void);
void help_command(const struct command *command);

int command_main(int argc, char **argv);

/* The exit status that CODE, a negative errno from a plait function, means. */
enum exit_status command_status(int code);

/* Says "plait: WHAT: <the library's text>" and returns command_status(CODE). */
enum exit_status command_failed(int code, const char *what, ...) __attribute__((format(printf, 2, 3)));

/* The same where a name could not be offered: a directory that isn't there is no absent service. */
enum exit_status claim_failed(int code, const char *what, ...) __attribute__((format(printf, 2, 3)));

/* Says "plait: MESSAGE (see: plait help VERB)" and returns STATUS_USAGE. */
enum exit_status command_usage(const char *verb, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
