/* claim: a server's hold on a name: locked entries and listening sockets in the runtime directories.
 *
 * In each directory: services/NAME@ID (a topic's: topics/NAME@ID) (a locked regular file of "key value" lines, urls
 * last) and the socket s/ID; ID is 64 random bits in hex, the same in both. Made hidden, locked (OFD), listening, then
 * renamed into place with RENAME_NOREPLACE. In the own directory alone: the name's lock file
 * services/.NAME.lock; `exclusive` takes its write lock, others a read lock. A sweeper takes a dead entry's lock,
 * re-checks the inode, unlinks socket, then entry. A forked child keeps a lock alive, so liveness also compares pid and
 * start time.
 */
#ifndef PL_NAMING_CLAIM_H
#define PL_NAMING_CLAIM_H

#include "naming/allow.h"
#include "naming/kind.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pl_claim {
    uint64_t id;
    int listeners[2];      /* nonblocking listening sockets: own directory, shared directory or -1 */
    const char *directory; /* path of the own directory */
    void *state;           /* private to claim.c */
};

enum pl_claim_mode {
    PL_CLAIM_SHARED,    /* others may serve the name, too */
    PL_CLAIM_EXCLUSIVE, /* nobody else may */
    PL_CLAIM_HELD       /* whoever forked us holds the name's lock */
};

/* Claims NAME; ALLOW (may be empty) decides whether it is offered in the shared directory too (root always
 * is, as far as the directory can be made). Errors as plait_server_open; -EADDRINUSE names pid and process. */
int pl_claim_open_as(struct pl_claim *ret_claim, enum pl_kind kind, const char *name, enum pl_claim_mode mode,
                     const struct pl_allow *allow);
static inline int pl_claim_open(struct pl_claim *ret_claim, const char *name, enum pl_claim_mode mode,
                                const struct pl_allow *allow)
{
    return pl_claim_open_as(ret_claim, PL_KIND_SERVICE, name, mode, allow);
}

/* Holds the name without serving it, for a supervisor whose workers claim: the lock, and a hidden entry that says who
 * holds it, also while no worker lives. Errors as open. */
int pl_claim_hold(struct pl_claim *ret_claim, const char *name, bool exclusive);
/* In a process that the holder forked or passed it to: the lock stays held as long as this descriptor is open. The
 * claim's own, or -1; to be taken (with dup) before pl_claim_forked. */
int pl_claim_lock_fd(const struct pl_claim *claim);

/* What the entries say of URLs, separated by spaces; those beyond 511 bytes are left out. -EINVAL (a control
 * character), -ENOSPC, -ECHILD. */
int pl_claim_set_urls(struct pl_claim *claim, const char *urls);
void pl_claim_withdraw(struct pl_claim *claim); /* takes the entries away; listeners stay open; idempotent */
void pl_claim_close(struct pl_claim *claim);    /* withdraws, closes; idempotent */
void pl_claim_forked(struct pl_claim *claim);   /* in a forked child: closes descriptors, unlinks nothing */

/* Removes what dead processes left in the own directory. Also done by claim_open, as far as
 * no forked child still holds it. Count removed. */
int pl_claim_sweep(void);

#endif
