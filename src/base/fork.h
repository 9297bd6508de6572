/* fork: what must not survive into a forked child.
 *
 * A process-wide generation word lies in a MADV_WIPEONFORK page: it is zero in any child, also
 * after a raw clone(2), until the child registers a hook of its own, which makes a new
 * generation. A handle embeds a hook, which remembers its generation; comparing the two at each
 * entry costs two loads. An atfork handler moreover runs every registered hook in the child, so
 * that descriptors are closed there (a forked child that holds a socket hides a death).
 */
#ifndef PL_BASE_FORK_H
#define PL_BASE_FORK_H

#include "base/list.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct pl_fork_hook {
    struct pl_list link;
    /* In the child, where one thread runs: may close, mark and remove hooks, not lock. It runs once:
     * the hook is out of the list by then, so that remove is allowed but not needed. */
    void (*in_child)(struct pl_fork_hook *hook);
    uint32_t generation; /* set by add */
};

/* Registers HOOK, with in_child set (the caller's, until remove); thread-safe. 0, -ENOMEM. */
int pl_fork_add(struct pl_fork_hook *hook);
void pl_fork_remove(struct pl_fork_hook *hook); /* a second time does no harm; a zeroed hook neither */

extern _Atomic uint32_t *pl_fork_word; /* never NULL */

/* True in a process other than the one in which HOOK was added, for ever. */
static inline bool pl_forked(const struct pl_fork_hook *hook)
{
    /* relaxed: a thread's own process wrote the word before it could have the handle */
    return atomic_load_explicit(pl_fork_word, memory_order_relaxed) != hook->generation;
}

#endif
