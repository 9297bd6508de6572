/* runner: `plait serve NAME -- CMD`: a request is a run of CMD, without a shell.
 *
 * The handler only defers and queues, so a slow command delays nobody but its callers. Threads of the runner,
 * started as needed and at most RUNNER_COMMANDS_MAX, take a request each, run CMD in a process group of its
 * own and answer. A command whose caller has gone, or whose time is over, is killed with its group.
 */
#ifndef CLI_RUNNER_H
#define CLI_RUNNER_H

#include <plait/plait.h>

#define RUNNER_COMMANDS_MAX 64              /* commands that run at once; further requests queue */
#define RUNNER_OUTPUT_MAX PLAIT_MESSAGE_MAX /* bytes of one command's standard output */
#define RUNNER_HELD_MAX 0x80000000u         /* bytes of output held for all commands together: 2 GiB */
#define RUNNER_ERROR_MAX 4096               /* the last bytes of standard error that make the error's text */
#define RUNNER_KILL_AFTER 1000              /* ms between SIGTERM and SIGKILL */

struct runner;

/* COMMAND ends with NULL, is borrowed. -ENOENT, -EACCES (said on stderr): CMD can't be run. */
int runner_open(struct runner **ret_runner, char **command);

/* A plait_handler; CONTEXT is the runner. */
void runner_handle(plait_request *request, void *context);

/* Kills what runs, fails what waits, joins. After the server's run, before its close; NULL is fine. */
void runner_close(struct runner *runner);

#endif
