/* lookup: names to living instances. */
#ifndef PL_NAMING_LOOKUP_H
#define PL_NAMING_LOOKUP_H

#include "naming/kind.h"
#include <plait/plait.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct pl_instance {
    uint64_t id;
    enum pl_kind kind;
    char name[PLAIT_NAME_MAX + 1];
    pid_t pid;
    uid_t uid;
    uint64_t start; /* of the process; with pid it is one process for ever */
    char urls[512];
    char directory[512]; /* where the entry lies */
};

/* The living instances of NAME (NULL: of every name), in random order, each id once. *ret_instances is
 * to be freed. PEER as in the client's options. Dead entries are left out (and swept where ours). */
int pl_lookup_as(enum pl_kind kind, const char *name, const char *peer, struct pl_instance **ret_instances,
                 size_t *ret_count);
static inline int pl_lookup(const char *name, const char *peer, struct pl_instance **ret_instances, size_t *ret_count)
{
    return pl_lookup_as(PL_KIND_SERVICE, name, peer, ret_instances, ret_count);
}

/* Starts a connection to an instance's socket: 0 and *ret_fd, a connected nonblocking Unix socket whose
 * server end was checked by SO_PEERCRED (own uid, root, or PEER: -EACCES names who poses). *ret_uid is
 * the server's. Outcomes: PL_CONNECT_BUSY: backlog full, try again by timer; PL_CONNECT_GONE: dead. */
enum { PL_CONNECT_BUSY = 1, PL_CONNECT_GONE = 2 };
int pl_lookup_connect(const struct pl_instance *instance, const char *peer, int *ret_fd, uid_t *ret_uid);

/* Asks again, without connecting: 1 it lives, 0 not; -EMFILE, -ENOMEM. */
int pl_instance_alive(const struct pl_instance *instance);

/* -ENOENT with a text that lists every directory searched and near names. */
int pl_lookup_missing(const char *name, const char *peer);

/* A number that changes when entries come or go (directories' mtimes); cheap: for "look again?".
 * Within 50 ms of a change it also changes by itself, since directories' times are coarse. */
uint64_t pl_lookup_stamp(const char *peer);

#endif
