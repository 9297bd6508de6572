/* random: getrandom(2), which doesn't fail once the kernel is up. */
#include "base/random.h"

#include "base/clock.h"
#include <errno.h>
#include <stdatomic.h>
#include <sys/random.h>
#include <unistd.h>

/* Where a sandbox forbids getrandom: unlikely to repeat, but not secret. What needs a secret asks
 * the kernel itself. */
static uint64_t mix(void)
{
    static _Atomic uint64_t calls;
    uint64_t x = pl_clock_ns() ^ (uint64_t)getpid() << 40 ^ (uint64_t)(uintptr_t)&x;
    x += (atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed) + 1) *
         UINT64_C(0x9e3779b97f4a7c15); /* relaxed: a counter */
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

uint64_t pl_random_u64(void)
{
    uint64_t value;
    ssize_t got;
    do {
        got = getrandom(&value, sizeof value, 0);
    } while (got < 0 && errno == EINTR);
    return got == (ssize_t)sizeof value ? value : mix(); /* 256 bytes and less never come short */
}
