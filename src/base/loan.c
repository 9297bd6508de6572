#include "base/loan.h"

#include "base/error.h"
#include "base/list.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

enum { CHUNK = 32, ALIGN = 64 };

struct plait_loan {
    struct pl_list link; /* the free ones, over for the longest first */
    struct pl_loan loan; /* data NULL: over */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct pl_list unused = PL_LIST_INIT(unused);
static pthread_once_t prepared = PTHREAD_ONCE_INIT;

static void lock_table(void)
{
    pthread_mutex_lock(&lock);
}

static void unlock_table(void)
{
    pthread_mutex_unlock(&lock);
}

/* A child of fork() finds the table whole and the lock free. */
static void prepare(void)
{
    (void)pthread_atfork(lock_table, unlock_table, unlock_table);
}

static int grow(void)
{
    if (!pl_list_empty(&unused)) return 0;
    struct plait_loan *chunk = calloc(CHUNK, sizeof(*chunk)); /* for good: see the header */
    if (chunk == NULL) return pl_error(-ENOMEM, "no memory for a loan");
    for (int i = 0; i < CHUNK; i++) pl_list_append(&unused, &chunk[i].link);
    return 0;
}

int pl_loan_new(plait_loan **ret_handle, const struct pl_loan *loan)
{
    pthread_once(&prepared, prepare);
    lock_table();
    int r = grow();
    if (r == 0) {
        struct plait_loan *handle = pl_container_of(pl_list_take(&unused), struct plait_loan, link);
        handle->loan = *loan;
        *ret_handle = handle;
    }
    unlock_table();
    return r;
}

/* Ends HANDLE: false if it was over. */
static bool end(struct plait_loan *handle, struct pl_loan *ret_loan)
{
    lock_table();
    bool lives = handle->loan.data != NULL;
    *ret_loan = handle->loan;
    if (lives) {
        handle->loan = (struct pl_loan){ 0 };
        pl_list_append(&unused, &handle->link);
    }
    unlock_table();
    return lives;
}

int pl_loan_take(plait_loan *handle, size_t size, struct pl_loan *ret_loan)
{
    struct pl_loan loan;
    if (handle == NULL) return pl_error(-EINVAL, "a loan is NULL");
    if (!end(handle, &loan))
        return pl_error(-EINVAL, "this loan is over: it was sent or aborted before (each is for one message)");
    if (size > loan.size) {
        int r = pl_error(-EINVAL, "a message of %zu bytes in a loan of %zu", size, loan.size);
        pl_loan_give_back(&loan);
        return r;
    }
    loan.size = size;
    *ret_loan = loan;
    return 0;
}

static void free_plain(struct pl_loan *loan)
{
    free(loan->data);
}

int pl_loan_plain(struct pl_loan *ret_loan, size_t size)
{
    /* Never 0 bytes, whose address would be nobody's. */
    void *memory = aligned_alloc(ALIGN, (size / ALIGN + 1) * ALIGN);
    if (memory == NULL) return pl_error(-ENOMEM, "no memory for a loan of %zu bytes", size);
    *ret_loan = (struct pl_loan){ .data = memory, .size = size, .give_back = free_plain };
    return 0;
}

void pl_loan_give_back(struct pl_loan *loan)
{
    if (loan->data != NULL) loan->give_back(loan);
    *loan = (struct pl_loan){ 0 };
}

void *plait_loan_data(const plait_loan *loan)
{
    return loan ? loan->loan.data : NULL;
}

size_t plait_loan_size(const plait_loan *loan)
{
    return loan ? loan->loan.size : 0;
}

void plait_loan_abort(plait_loan *handle)
{
    struct pl_loan loan;
    if (handle != NULL && end(handle, &loan)) pl_loan_give_back(&loan);
}
