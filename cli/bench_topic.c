/* bench_topic: one to many. The client process publishes; `crowd` subscriber processes are its children, and the
 * server process of the pair has nothing to do. What a wake-up is compared with: one futex that all children wait on,
 * for the last of them; for how long the waker is held, an eventfd on which one thread of its own waits.
 */
#include "bench.h"

#include <errno.h>
#include <linux/futex.h>
#include <plait/plait.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BATCH = 256, RING_MESSAGES = 10 * BATCH, SETTLE_US = 30000, WAKE_ROUNDS = 60, PATIENCE_MS = 20000 };

struct crowd {
    _Atomic uint32_t word;  /* the bare futex */
    _Atomic uint32_t ready; /* children that can be told something */
    _Atomic uint32_t awake; /* children that heard of the present message */
    _Atomic uint32_t done;
    _Atomic uint64_t last; /* ns: when the last one did */
    _Atomic uint64_t wrong;
};

static int serve(struct bench_link *link)
{
    int r = bench_ready(link);
    while (r == 0) pause();
    return r;
}

const struct bench_ops bench_topic = { .serve = serve };
const struct bench_ops bench_wake_all = { .serve = serve };
const struct bench_ops bench_wake_one = { .serve = serve };

static bool is_bare(const struct bench_link *link)
{
    return link->subject->ops == &bench_wake_all;
}

static plait_subscriber *subscribe(const struct bench_link *link)
{
    plait_subscriber_options options = PLAIT_SUBSCRIBER_OPTIONS_INIT;
    plait_subscriber *subscriber = NULL;

    options.spin_us = link->subject->spin_us;
    return plait_subscriber_open(&subscriber, link->name, &options) == 0 ? subscriber : NULL;
}

static void heard(struct crowd *crowd, const struct bench_link *link)
{
    if (atomic_fetch_add(&crowd->awake, 1) + 1 == link->load->crowd) atomic_store(&crowd->last, bench_now());
}

/* ---- what the children do ---- */

static void wait_on_futex(struct crowd *crowd, const struct bench_link *link)
{
    uint32_t seen = 0;

    atomic_fetch_add(&crowd->ready, 1);
    for (;; heard(crowd, link)) {
        while (atomic_load(&crowd->word) == seen) syscall(SYS_futex, &crowd->word, FUTEX_WAIT, seen, NULL, NULL, 0);
        seen++;
    }
}

static void listen_to_topic(struct crowd *crowd, const struct bench_link *link)
{
    plait_subscriber *subscriber = subscribe(link);
    plait_message *message;

    while (subscriber && plait_subscriber_next(subscriber, PLAIT_FOREVER, &message) == 0) heard(crowd, link);
}

static void be_registered(struct crowd *crowd, const struct bench_link *link)
{
    plait_subscriber *subscriber = subscribe(link);
    plait_message *message;

    (void)crowd;
    while (subscriber && plait_subscriber_publishers(subscriber) == 0)
        (void)plait_subscriber_next(subscriber, 10, &message);
    while (subscriber) pause();
}

/* Messages are numbered; 0 is the last. Order and content are checked. */
static void read_all(struct crowd *crowd, const struct bench_link *link)
{
    plait_subscriber *subscriber = subscribe(link);
    plait_message *message;
    uint64_t next = 1;

    while (subscriber && plait_subscriber_next(subscriber, PATIENCE_MS, &message) == 0) {
        uint64_t number;
        memcpy(&number, plait_message_body(message).data, sizeof(number));
        if (number == 0) break;
        if (number != next++ || plait_message_lost(message, NULL)) atomic_fetch_add(&crowd->wrong, 1);
    }
    if (atomic_fetch_add(&crowd->done, 1) + 1 == link->load->crowd) atomic_store(&crowd->last, bench_now());
}

/* ---- the crowd ---- */

static int gather(struct bench_link *link, void (*child)(struct crowd *, const struct bench_link *),
                  struct crowd **ret_crowd, pid_t **ret_pids)
{
    unsigned count = link->load->crowd;
    struct crowd *crowd = mmap(NULL, sizeof(*crowd), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t *pids = calloc(count, sizeof(*pids));

    if (crowd == MAP_FAILED || !pids) return bench_fail(link, -ENOMEM, "no memory for a crowd");
    for (unsigned i = 0; i < count; i++) {
        int r = bench_fork_helper(&pids[i]);
        if (r < 0) return bench_fail(link, r, "fork: %s", strerror(-r));
        if (r == 0) {
            r = bench_place(link->load->placement, 1);
            if (r == 0) child(crowd, link);
            _exit(r < 0);
        }
    }
    *ret_crowd = crowd;
    *ret_pids = pids;
    return 0;
}

static void dismiss(const struct bench_link *link, struct crowd *crowd, pid_t *pids)
{
    for (unsigned i = 0; i < link->load->crowd; i++) kill(pids[i], SIGKILL);
    for (unsigned i = 0; i < link->load->crowd; i++) waitpid(pids[i], NULL, 0);
    munmap(crowd, sizeof(*crowd));
    free(pids);
}

static int publisher_of(struct bench_link *link, bool reliable, plait_publisher **ret_publisher)
{
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;

    options.reliable = reliable;
    options.timeout = PATIENCE_MS;
    int r = plait_publisher_open(ret_publisher, link->name, &options);
    for (int i = 0; r == 0 && plait_publisher_subscribers(*ret_publisher) < link->load->crowd; i++) {
        if (i == PATIENCE_MS) return bench_fail(link, -ETIMEDOUT, "the subscribers don't come");
        usleep(1000);
    }
    return r < 0 ? bench_fail(link, r, "publisher: %s", plait_error_text()) : 0;
}

/* ---- the loads ---- */

/* What a message costs its publisher while nobody waits for it. RELIABLE: as many as the ring holds for those who don't
 * read, since then it would wait for them. */
int bench_drive_publish(struct bench_link *link, const struct bench_load *load)
{
    struct bench_round *round = &link->shared->round;
    struct bench_samples samples;
    plait_publisher *publisher = NULL;
    struct crowd *crowd;
    pid_t *pids;
    char body[64] = "";
    int r = gather(link, be_registered, &crowd, &pids);

    if (r == 0) r = publisher_of(link, load->reliable, &publisher);
    if (r == 0) r = bench_samples_init(&samples, load->reliable ? RING_MESSAGES / BATCH : 1 << 16);
    if (r < 0) return r;
    uint64_t begin = bench_now(), now = begin;
    while (r == 0 && (double)(now - begin) < load->seconds * 1e9 && samples.count < samples.room) {
        for (int i = 0; i < BATCH && r == 0; i++) r = plait_publisher_publish(publisher, body, load->size);
        uint64_t end = bench_now();
        samples.us[samples.count++] = (float)((double)(end - now) / 1000 / BATCH);
        now = end;
    }
    round->calls = samples.count * BATCH;
    bench_samples_summarise(&samples, round);
    bench_samples_deinit(&samples);
    dismiss(link, crowd, pids);
    plait_publisher_close(publisher);
    return r < 0 ? bench_fail(link, r, "publish: %s", plait_error_text()) : 0;
}

static int tell_sleepers(struct bench_link *link, plait_publisher *publisher, struct crowd *crowd, uint64_t sequence)
{
    if (!is_bare(link)) return plait_publisher_publish(publisher, &sequence, sizeof(sequence));
    atomic_fetch_add(&crowd->word, 1);
    syscall(SYS_futex, &crowd->word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
    return 0;
}

static void *hear_bell(void *context)
{
    struct epoll_event event;

    while (epoll_wait(*(int *)context, &event, 1, -1) >= 0 || errno == EINTR) continue;
    return NULL;
}

/* The least that anybody is held who lets another thread do the waking: it is woken as the publisher's helper is. */
static int wake_one(struct bench_link *link)
{
    struct bench_samples held;
    struct epoll_event event = { .events = EPOLLIN | EPOLLET };
    int bell = eventfd(0, EFD_CLOEXEC), set = epoll_create1(EPOLL_CLOEXEC);
    pthread_t thread;
    uint64_t one = 1;

    if (bell < 0 || set < 0 || epoll_ctl(set, EPOLL_CTL_ADD, bell, &event) < 0)
        return bench_fail(link, -errno, "eventfd: %s", strerror(errno));
    if (bench_samples_init(&held, WAKE_ROUNDS) < 0 || pthread_create(&thread, NULL, hear_bell, &set) != 0)
        return bench_fail(link, -ENOMEM, "no memory for a thread");
    for (int i = 0; i < WAKE_ROUNDS; i++) {
        usleep(SETTLE_US);
        uint64_t before = bench_now();
        if (write(bell, &one, sizeof(one)) < 0) return bench_fail(link, -errno, "write: %s", strerror(errno));
        held.us[held.count++] = (float)((double)(bench_now() - before) / 1000);
    }
    bench_samples_summarise(&held, &link->shared->round);
    link->shared->round.calls = WAKE_ROUNDS;
    bench_samples_deinit(&held);
    pthread_cancel(thread);
    pthread_join(thread, NULL);
    close(set);
    close(bell);
    return 0;
}

/* Everybody sleeps. p50: how long the publisher is held; call: until the last one is awake. */
int bench_drive_wake(struct bench_link *link, const struct bench_load *load)
{
    struct bench_samples held, last;
    plait_publisher *publisher = NULL;
    struct crowd *crowd;
    pid_t *pids;

    if (link->subject->ops == &bench_wake_one) return wake_one(link);
    int r = gather(link, is_bare(link) ? wait_on_futex : listen_to_topic, &crowd, &pids);

    if (r == 0 && !is_bare(link)) r = publisher_of(link, false, &publisher);
    if (r == 0) r = bench_samples_init(&held, WAKE_ROUNDS);
    if (r == 0) r = bench_samples_init(&last, WAKE_ROUNDS);
    if (r < 0) return r;
    for (int i = 0; is_bare(link) && i < PATIENCE_MS && atomic_load(&crowd->ready) < load->crowd; i++) usleep(1000);
    for (uint64_t i = 0; i < WAKE_ROUNDS && r == 0; i++) {
        usleep(SETTLE_US); /* so that they sleep, and the machine is calm */
        atomic_store(&crowd->awake, 0);
        atomic_store(&crowd->last, 0);
        uint64_t before = bench_now();
        r = tell_sleepers(link, publisher, crowd, i);
        uint64_t after = bench_now();
        for (int t = 0; t < PATIENCE_MS && atomic_load(&crowd->last) == 0; t++) usleep(1000);
        if (atomic_load(&crowd->last) == 0) r = bench_fail(link, -ETIMEDOUT, "not everybody woke");
        held.us[held.count++] = (float)((double)(after - before) / 1000);
        last.us[last.count++] = (float)((double)(atomic_load(&crowd->last) - before) / 1000);
    }
    struct bench_round whole = { 0 };
    bench_samples_summarise(&last, &whole);
    bench_samples_summarise(&held, &link->shared->round);
    link->shared->round.call = whole.p50;
    link->shared->round.calls = WAKE_ROUNDS;
    bench_samples_deinit(&held);
    bench_samples_deinit(&last);
    dismiss(link, crowd, pids);
    plait_publisher_close(publisher);
    return r;
}

/* Everybody reads everything: messages delivered per second; p50: what one costs the publisher, waits included. */
int bench_drive_fanout(struct bench_link *link, const struct bench_load *load)
{
    struct bench_round *round = &link->shared->round;
    plait_publisher *publisher = NULL;
    struct crowd *crowd;
    pid_t *pids;
    uint64_t body[8] = { 0 };
    int r = gather(link, read_all, &crowd, &pids);

    if (r == 0) r = publisher_of(link, true, &publisher);
    if (r < 0) return r;
    uint64_t begin = bench_now(), end = begin;
    while (r == 0 && (double)(end - begin) < load->seconds * 1e9) {
        for (int i = 0; i < BATCH && r == 0; i++) {
            body[0]++;
            r = plait_publisher_publish(publisher, body, load->size);
        }
        end = bench_now();
    }
    round->calls = body[0];
    round->p50 = (double)(end - begin) / 1000 / (double)body[0];
    body[0] = 0;
    if (r == 0) r = plait_publisher_publish(publisher, body, load->size);
    for (int i = 0; r == 0 && i < PATIENCE_MS && atomic_load(&crowd->last) == 0; i++) usleep(1000);
    if (r == 0 && (atomic_load(&crowd->last) == 0 || atomic_load(&crowd->wrong) > 0))
        r = bench_fail(link, -EIO, "%llu messages were lost or out of order", (unsigned long long)crowd->wrong);
    round->per_second = (double)round->calls * load->crowd * 1e9 / (double)(atomic_load(&crowd->last) - begin);
    dismiss(link, crowd, pids);
    plait_publisher_close(publisher);
    return r;
}
