/* futex: FUTEX_WAIT_BITSET, because it takes the absolute deadline that FUTEX_WAIT doesn't. */
#include "base/futex.h"

#include "base/clock.h"
#include <errno.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int wait(_Atomic uint32_t *word, int flag, uint32_t value, uint64_t deadline_ns)
{
    struct timespec deadline = { (time_t)(deadline_ns / 1000000000), (long)(deadline_ns % 1000000000) };
    long r = syscall(SYS_futex, word, FUTEX_WAIT_BITSET | flag, value, deadline_ns == PL_NEVER ? NULL : &deadline, NULL,
                     FUTEX_BITSET_MATCH_ANY);
    if (r == 0 || errno == EAGAIN) return 0;
    return -errno;
}

int pl_futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t deadline_ns)
{
    return wait(word, FUTEX_PRIVATE_FLAG, value, deadline_ns);
}

int pl_futex_wait_shared(_Atomic uint32_t *word, uint32_t value, uint64_t deadline_ns)
{
    return wait(word, 0, value, deadline_ns);
}

void pl_futex_wake_shared(_Atomic uint32_t *word, int count)
{
    syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}

void pl_futex_wake(_Atomic uint32_t *word, int count)
{
    syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, count, NULL, NULL, 0);
}
