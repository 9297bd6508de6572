#include "loop/wake.h"

#include "base/error.h"
#include "base/fd.h"
#include "base/list.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void on_ready(struct pl_source *source, uint32_t events)
{
    struct pl_wake *wake = pl_container_of(source, struct pl_wake, source);
    uint64_t count;
    (void)events;
    (void)!read(source->fd, &count, sizeof(count));
    wake->woken(wake);
}

int pl_wake_init(struct pl_wake *wake, struct pl_loop *loop, void (*woken)(struct pl_wake *wake))
{
    *wake = (struct pl_wake){ .source = PL_SOURCE(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), on_ready), .woken = woken };
    if (wake->source.fd < 0) return pl_error(-errno, "no eventfd: %s", pl_error_word(errno));
    int r = pl_loop_add(loop, &wake->source, EPOLLIN);
    if (r < 0) pl_close(&wake->source.fd);
    return r;
}

void pl_wake_deinit(struct pl_wake *wake, struct pl_loop *loop)
{
    if (wake->source.ready == NULL) return;
    pl_loop_remove(loop, &wake->source);
    pl_close(&wake->source.fd);
}

void pl_wake_up(struct pl_wake *wake)
{
    uint64_t one = 1;
    (void)!write(wake->source.fd, &one, sizeof(one));
}
