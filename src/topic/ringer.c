/* ringer: the publisher's thread that wakes many sleepers, and those that fall asleep again at once.
 *
 * It does nothing else, so it can wait on a futex: waking it holds the publisher up for about 6 µs, where a thread in
 * epoll_wait takes 8 to 9. Whoever asks for a ring while one is due has nothing to do.
 */
#include "base/clock.h"
#include "base/futex.h"
#include "shm/doorbell.h"
#include "topic/topic.h"

#include <sys/prctl.h>
#include <time.h>

enum { RING = 1, STOP = 2 };

/* Not sooner after the last time than waking so many takes: sleepers that wake for each message would leave no time
 * for anything else. Until then more of them may have something to read. */
static void ring_all(struct plait_publisher *publisher)
{
    uint64_t now = pl_clock_ns();
    /* Relaxed: AB14 in run orders it. */
    uint64_t span = (uint64_t)atomic_exchange_explicit(&publisher->asleep, 0, memory_order_relaxed) * PL_TOPIC_WAKE_NS;
    if (publisher->ring_due > now) {
        struct timespec due = { .tv_nsec = (long)(publisher->ring_due - now) };
        nanosleep(&due, NULL);
        now = publisher->ring_due;
    }
    publisher->ring_due = now + (span < PL_TOPIC_WAKE_MAX_NS ? span : PL_TOPIC_WAKE_MAX_NS);
    if (pl_ringer_take(publisher)) pl_doorbell_ring(publisher->bell);
}

static void *run(void *context)
{
    struct plait_publisher *publisher = context;
    prctl(PR_SET_TIMERSLACK, 1); /* of this thread */
    for (;;) {
        /* AB14: the message, pairs with RB14 in pl_ringer_ask. */
        uint32_t word = atomic_load_explicit(&publisher->ringer_word, memory_order_acquire);
        if (word & RING) ring_all(publisher);
        else if (word & STOP) return NULL;
        else pl_futex_wait(&publisher->ringer_word, 0, PL_NEVER);
    }
}

bool pl_ringer_take(struct plait_publisher *publisher)
{
    /* AB14: as above. */
    return atomic_fetch_and_explicit(&publisher->ringer_word, ~(uint32_t)RING, memory_order_acquire) & RING;
}

static void ask(struct plait_publisher *publisher, uint32_t what)
{
    /* RB14: the message, pairs with AB14 in run. */
    if (atomic_fetch_or_explicit(&publisher->ringer_word, what, memory_order_release) & what) return;
    pl_futex_wake(&publisher->ringer_word, 1);
}

void pl_ringer_ask(struct plait_publisher *publisher, uint32_t sleepers)
{
    /* Relaxed: RB14 orders it. */
    atomic_fetch_add_explicit(&publisher->asleep, sleepers, memory_order_relaxed);
    ask(publisher, RING);
}

int pl_ringer_start(struct plait_publisher *publisher)
{
    int r = pl_topic_thread(publisher, &publisher->ringer, run, "plait-ringer");
    publisher->ringing = r == 0;
    return r;
}

void pl_ringer_stop(struct plait_publisher *publisher)
{
    if (!publisher->ringing) return;
    ask(publisher, STOP);
    pthread_join(publisher->ringer, NULL);
    publisher->ringing = false;
}
