/* child: one request as one run of a command. */
#ifndef CLI_CHILD_H
#define CLI_CHILD_H

#include <plait/plait.h>

/* Runs COMMAND (searched in PATH) with the body on its standard input and PLAIT_METHOD in its environment,
 * and answers REQUEST, a deferred one: with its standard output, or, if it ends otherwise than with 0, with a
 * failure whose status is the exit status (128 + n for signal n) and whose text is the end of its standard
 * error. Kills it when the caller has gone, its time is over, or STOP_FD becomes readable. */
void child_serve(plait_request *request, char **command, int stop_fd);

#endif
