/* bench_topic_loan: large messages of a topic, by loan, to one subscriber: from the commit to the subscriber's first
 * look. The client process publishes; the server process subscribes, and answers in memory that they share. And what a
 * call without a loan can't do without: two copies, by one process and for nobody.
 */
#include "bench.h"

#include <errno.h>
#include <plait/plait.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LOANS = 6 /* as many segments as steady publishing goes through, and more */, PATIENCE_MS = 20000 };

struct answer {
    _Atomic uint64_t count; /* messages seen so far */
    _Atomic uint64_t ns;    /* the last one's way */
};

struct state {
    struct answer *answer;
    plait_publisher *publisher;
    uint64_t sent;
};

static int fail(struct bench_link *link, int code, const char *what)
{
    return bench_fail(link, code, "%s: %s", what, plait_error_text());
}

static int prepare(struct bench_link *link)
{
    struct state *state = calloc(1, sizeof(*state));
    void *answer = mmap(NULL, sizeof(*state->answer), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (!state || answer == MAP_FAILED) return bench_fail(link, -ENOMEM, "out of memory");
    state->answer = answer;
    link->state = state;
    return 0;
}

/* A message begins with the moment of its commit and ends with its number. */
static void look(struct bench_link *link, plait_message *message)
{
    struct answer *answer = ((struct state *)link->state)->answer;
    uint64_t now = bench_now(), started, number;
    plait_bytes body = plait_message_body(message);

    memcpy(&started, body.data, sizeof(started));
    memcpy(&number, (const char *)body.data + body.size - sizeof(number), sizeof(number));
    /* relaxed: this process alone writes it */
    uint64_t count = atomic_load_explicit(&answer->count, memory_order_relaxed) + 1;
    link->shared->wrong += number != count || plait_message_lost(message, NULL) > 0;
    atomic_store_explicit(&answer->ns, now - started, memory_order_relaxed); /* relaxed: published by the next */
    /* BTR1: pairs with BTA1 in await_answer */
    atomic_store_explicit(&answer->count, count, memory_order_release);
}

static int serve(struct bench_link *link)
{
    plait_subscriber_options options = PLAIT_SUBSCRIBER_OPTIONS_INIT;
    plait_subscriber *subscriber = NULL;
    plait_message *message = NULL;

    options.spin_us = link->subject->spin_us;
    int r = plait_subscriber_open(&subscriber, link->name, &options);
    if (r == 0) r = bench_ready(link);
    while (r == 0 && (r = plait_subscriber_next(subscriber, PLAIT_FOREVER, &message)) == 0) look(link, message);
    return fail(link, r, "subscriber");
}

static int open_publisher(struct bench_link *link)
{
    struct state *state = link->state;
    int r = plait_publisher_open(&state->publisher, link->name, NULL);

    if (r < 0) return fail(link, r, "publisher");
    for (int i = 0; plait_publisher_subscribers(state->publisher) < 1; i++) {
        if (i == PATIENCE_MS) return bench_fail(link, -ETIMEDOUT, "the subscriber doesn't come");
        usleep(1000);
    }
    return 0;
}

static void await_answer(const struct state *state)
{
    /* BTA1: pairs with BTR1 in look */
    while (atomic_load_explicit(&state->answer->count, memory_order_acquire) != state->sent) continue;
}

static int publish(struct bench_link *link, plait_loan *loan, size_t size)
{
    struct state *state = link->state;
    uint64_t commit;

    bench_fill(plait_loan_data(loan), size, ++state->sent);
    commit = bench_now();
    memcpy(plait_loan_data(loan), &commit, sizeof(commit));
    int r = plait_publisher_publish_loan(state->publisher, PLAIT_BYTES, loan, size);
    return r < 0 ? fail(link, r, "publish") : 0;
}

static int make_segments(struct bench_link *link, size_t size)
{
    struct state *state = link->state;
    plait_loan *loans[LOANS];
    int r = 0;

    for (int i = 0; i < LOANS && r == 0; i++) r = plait_publisher_loan(state->publisher, size, &loans[i]);
    if (r < 0) return fail(link, r, "loan");
    for (int i = 0; i < LOANS && r == 0; i++) {
        memset(plait_loan_data(loans[i]), 0, size);
        r = publish(link, loans[i], size);
        if (r == 0) await_answer(state);
    }
    return r;
}

static int hand_over(struct bench_link *link, size_t size, uint64_t sequence, struct bench_hand_over *ret_times)
{
    struct state *state = link->state;
    plait_loan *loan = NULL;
    uint64_t start, lent, committed;

    if (sequence == 1 && make_segments(link, size) < 0) return -EIO;
    start = bench_now();
    int r = plait_publisher_loan(state->publisher, size, &loan);
    if (r < 0) return fail(link, r, "loan");
    lent = bench_now() - start;
    r = publish(link, loan, size);
    if (r < 0) return r;
    committed = bench_now();
    await_answer(state);
    /* relaxed: await_answer saw what came after it */
    ret_times->entry = atomic_load_explicit(&state->answer->ns, memory_order_relaxed);
    ret_times->call = lent + bench_now() - committed;
    return 0;
}

static void close_publisher(struct bench_link *link)
{
    plait_publisher_close(((struct state *)link->state)->publisher);
}

const struct bench_ops bench_topic_loan = {
    .prepare = prepare,
    .serve = serve,
    .open = open_publisher,
    .hand_over = hand_over,
    .close = close_publisher,
};

/* ---- two copies ---------------------------------------------------------------------------- */

struct copies {
    void *there, *back;
};

static int copies_serve(struct bench_link *link)
{
    int r = bench_ready(link);

    while (r == 0) pause();
    return r;
}

static int copies_open(struct bench_link *link)
{
    struct copies *copies = calloc(1, sizeof(*copies));
    size_t size = link->load->size;

    if (!copies) return bench_fail(link, -ENOMEM, "out of memory");
    copies->there = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    copies->back = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (copies->there == MAP_FAILED || copies->back == MAP_FAILED) return bench_fail(link, -ENOMEM, "out of memory");
    link->state = copies;
    return 0;
}

static int copies_call(struct bench_link *link, const void *body, size_t size, const void **ret_reply)
{
    struct copies *copies = link->state;

    memcpy(copies->there, body, size);
    memcpy(copies->back, copies->there, size);
    *ret_reply = copies->back;
    return 0;
}

static void copies_close(struct bench_link *link)
{
    struct copies *copies = link->state;

    munmap(copies->there, link->load->size);
    munmap(copies->back, link->load->size);
    free(copies);
}

const struct bench_ops bench_raw_copies = {
    .serve = copies_serve,
    .open = copies_open,
    .call = copies_call,
    .close = copies_close,
};
