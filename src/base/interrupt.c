/* interrupt: asking at the end of each slice of a wait. */
#include "base/interrupt.h"

#include "base/clock.h"
#include "base/error.h"
#include <errno.h>
#include <poll.h>
#include <stddef.h>

_Thread_local const struct pl_interrupt *pl_interrupt;

int pl_interrupt_ask(const struct pl_interrupt *interrupt)
{
    if (interrupt == NULL || interrupt->asked == NULL || interrupt->asked(interrupt->context) == 0) return 0;
    return pl_error(-EINTR, "the wait was interrupted, as the client's option `interrupted` asked");
}

uint64_t pl_interrupt_slice(const struct pl_interrupt *interrupt, uint64_t deadline_ns)
{
    if (interrupt == NULL || interrupt->asked == NULL) return deadline_ns;
    uint64_t slice = pl_clock_deadline(PL_INTERRUPT_MS, PL_INTERRUPT_MS);
    return slice < deadline_ns ? slice : deadline_ns;
}

int pl_interrupt_poll(int fd, short events, uint64_t deadline_ns, int first_ms)
{
    const struct pl_interrupt *interrupt = pl_interrupt;
    uint64_t slice = deadline_ns;
    if (interrupt && interrupt->asked) {
        slice = first_ms > 0 ? pl_clock_deadline(first_ms, first_ms) : 0; /* who need not wait isn't asked */
        if (slice > deadline_ns) slice = deadline_ns;
    }
    for (;; slice = pl_interrupt_slice(interrupt, deadline_ns)) {
        struct pollfd poller = { .fd = fd, .events = events };
        int n = poll(&poller, 1, pl_clock_poll_ms(slice));
        if (n > 0) return poller.revents;
        if (n < 0 && errno != EINTR) return -errno;
        int r = pl_interrupt_ask(interrupt);
        if (r < 0) return r;
        if (n == 0 && slice == deadline_ns) return 0;
    }
}
