/* fork: what must not survive into a forked child.
 *
 * A process-wide generation word lies in a MADV_WIPEONFORK page: nonzero in the process that
 * set it, zero in any child, also after a raw clone(2). Handles compare it at each entry; that
 * costs a load. An atfork handler moreover runs every registered hook in the child, so that
 * descriptors are closed there (a forked child that holds a socket hides a death).
 */
#ifndef PL_BASE_FORK_H
#define PL_BASE_FORK_H

#include "base/list.h"
#include <stdbool.h>
#include <stdint.h>

struct pl_fork_hook {
    struct pl_list link;
    void (*in_child)(struct pl_fork_hook *hook); /* one thread runs; may close and mark, not lock */
};

/* Registers HOOK (the caller's, until remove); thread-safe. 0, -ENOMEM. The first call sets up the page. */
int pl_fork_add(struct pl_fork_hook *hook);
void pl_fork_remove(struct pl_fork_hook *hook);

extern const volatile uint32_t *pl_fork_word; /* NULL before the first pl_fork_add */

/* True in a process other than the one in which the handle was made. */
static inline bool pl_forked(void)
{
    return pl_fork_word != NULL && *pl_fork_word == 0;
}

#endif
