/* loan: what a plait_loan is: memory for one message, and whoever takes it back.
 *
 * Handles lie in a table of the process that never shrinks, and the one that has been over for the longest is
 * used next: a handle that is used once too often is recognised, and is no access to freed memory.
 */
#ifndef PL_BASE_LOAN_H
#define PL_BASE_LOAN_H

#include <plait/loan.h>

/* A loan as its present holder has it: behind a handle, or with the message that it was sent with. */
struct pl_loan {
    uint8_t *data; /* NULL: none */
    size_t size;
    /* The owner's: takes the memory back, exactly once, from any thread, also after everything else is closed. In a
     * forked child it leaves the parent's memory alone. */
    void (*give_back)(struct pl_loan *loan);
    void *owner; /* what give_back needs to know */
};

/* A handle for LOAN, which is the handle's from then on. -ENOMEM: then it is still the caller's. */
int pl_loan_new(plait_loan **ret_handle, const struct pl_loan *loan);

/* Ends HANDLE: *ret_loan is the caller's, its size reduced to SIZE. -EINVAL with text: NULL, over already, or smaller
 * than SIZE: then it is given back. */
int pl_loan_take(plait_loan *handle, size_t size, struct pl_loan *ret_loan);

/* Memory of SIZE bytes, aligned to 64, from the heap. 0 or -ENOMEM with text. */
int pl_loan_plain(struct pl_loan *ret_loan, size_t size);

void pl_loan_give_back(struct pl_loan *loan); /* idempotent */

#endif
