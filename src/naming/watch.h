/* watch: tells when entries come or go. One inotify per process, however many watchers.
 *
 * Any watcher whose fd is readable calls pl_name_watch_clear, which drains the shared inotify under
 * a lock and rings the eventfds of the other watchers. Watch first, then look up.
 */
#ifndef PL_NAMING_WATCH_H
#define PL_NAMING_WATCH_H

#include "naming/kind.h"

struct pl_name_watch;

/* 0; PL_NAME_WATCH_NONE: no inotify to be had (EMFILE: instances per user): poll with back-off. Missing
 * directories are handled by watching their parents. */
enum { PL_NAME_WATCH_NONE = 1 };
int pl_name_watch_open_as(struct pl_name_watch **ret_watch, enum pl_kind kind, const char *peer);
static inline int pl_name_watch_open(struct pl_name_watch **ret_watch, const char *peer)
{
    return pl_name_watch_open_as(ret_watch, PL_KIND_SERVICE, peer);
}
int pl_name_watch_fd(const struct pl_name_watch *watch); /* readable: something changed */
void pl_name_watch_clear(struct pl_name_watch *watch);
void pl_name_watch_close(struct pl_name_watch *watch); /* NULL is fine */

/* Closing an inotify waits for the kernel to have done with its watches: 10 ms, and a second on a busy machine.
 * Nobody who has just found a name should pay for that. So whoever may watch again (a client) holds the inotify; the
 * last to let go closes it, mostly long after its last watch, when it costs nothing. */
void pl_name_watch_hold(void);
void pl_name_watch_release(void);

#endif
