/* signal: SIGINT and SIGTERM as a stop, SIGHUP as a wish to begin anew, for plait_server_run() alone: only where they
 * are at SIG_DFL, and put back afterwards. Several servers of a process may run at once: each registers its wake
 * descriptor.
 */
#ifndef PL_LOOP_SIGNAL_H
#define PL_LOOP_SIGNAL_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

enum { PL_SIGNAL_CATCHERS = 16 };

/* From now on SIGINT and SIGTERM, with HANGUPS also SIGHUP, write to the eventfd WAKE_FD; one that comes when every
 * server has been told of one does what it does by default: it ends a process whose stop a handler holds up. Returns a
 * ticket for release, or -EAGAIN (PL_SIGNAL_CATCHERS servers run already). */
int pl_signal_catch(int wake_fd, bool hangups);
bool pl_signal_caught(int ticket);  /* one came since catch; the server stops then */
bool pl_signal_hung_up(int ticket); /* one SIGHUP or more came since it was asked last */
void pl_signal_release(int ticket); /* afterwards no handler touches wake_fd; negative is fine */

/* Blocks every signal in this thread (library threads do), so that the program's own threads get them. */
void pl_signal_block_all(sigset_t *ret_before);

#endif
