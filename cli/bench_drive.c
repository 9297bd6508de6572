/* bench_drive: the loads that `plait bench` puts on a subject. They run in the client process.
 *
 * Small messages are timed back to back, one clock reading per batch: a reading costs some
 * 30 ns and, behind a cache miss, three times that, which is half a spinning round trip. Large
 * ones are timed one by one, with the filling and checking of bytes outside the clock.
 */
#include "bench.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    SAMPLES_MAX = 1 << 19,
    TIMED_ONE_BY_ONE = 4097, /* bytes */
    CROWD_PROCESSES = 4,
    STREAM_CHUNK = 400000,
    PAIRS_CHUNK = 100000,
    WARM_NS = 20 * 1000 * 1000,
    SETTLE_NS = 1000 * 1000 * 1000,
};

static void sleep_ns(uint64_t ns)
{
    struct timespec span = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };

    while (nanosleep(&span, &span) < 0 && errno == EINTR)
        ;
}

static int check(struct bench_link *link, const void *body, const void *reply, size_t size)
{
    if (bench_compare_bytes(body, reply, size) == 0) return 0;
    return bench_fail(link, -EBADMSG, "a reply of %zu bytes differs from its request", size);
}

static void release(struct bench_link *link)
{
    if (link->subject->ops->release) link->subject->ops->release(link);
}

static void close_link(struct bench_link *link)
{
    if (link->subject->ops->close) link->subject->ops->close(link);
}

static int call_once(struct bench_link *link, void *body, size_t size, uint64_t sequence)
{
    const void *reply;
    int r;

    bench_fill(body, size, sequence);
    r = link->subject->ops->call(link, body, size, &reply);
    if (r < 0) return r;
    r = check(link, body, reply, size);
    release(link);
    return r;
}

/* ---- a crowd: connections from other processes, which say one thing and then nothing ------- */

struct crowd {
    pid_t children[CROWD_PROCESSES];
    int count;
    int go[2], done[2]; /* pipes: one byte per child and step */
};

static int crowd_member_opens(struct bench_link *link, struct bench_link *links, unsigned count)
{
    char body[64];
    int r = 0;

    memset(body, 0x5a, sizeof(body));
    for (unsigned i = 0; i < count && r == 0; i++) {
        links[i] = *link;
        r = link->subject->ops->open(&links[i]);
        if (r == 0) r = call_once(&links[i], body, sizeof(body), i);
    }
    return r;
}

static void crowd_member(struct bench_link *link, const struct crowd *crowd, unsigned count)
{
    struct bench_link *links = calloc(count, sizeof(*links));
    char byte;

    if (!links || crowd_member_opens(link, links, 1) < 0 || write(crowd->done[1], "", 1) != 1) _exit(1);
    if (read(crowd->go[0], &byte, 1) != 1) _exit(1);
    if (crowd_member_opens(link, links + 1, count - 1) < 0 || write(crowd->done[1], "", 1) != 1) _exit(1);
    if (link->subject->ops->idle) link->subject->ops->idle(&links[0]);
    for (;;) pause();
}

static int crowd_wait(struct bench_link *link, const struct crowd *crowd)
{
    char byte;

    for (int i = 0; i < crowd->count; i++)
        if (read(crowd->done[0], &byte, 1) != 1)
            return link->shared->error[0] ? -EIO : bench_fail(link, -EIO, "one of the crowd's processes ended");
    return 0;
}

/* Each process of the crowd has made its first connection when this returns. */
static int crowd_gather(struct bench_link *link, unsigned connections, struct crowd *crowd)
{
    *crowd = (struct crowd){ 0 };
    if (pipe(crowd->go) < 0 || pipe(crowd->done) < 0) return bench_fail(link, -errno, "pipe: %s", strerror(errno));
    for (int i = 0; i < CROWD_PROCESSES; i++) {
        int r = bench_fork_helper(&crowd->children[i]);
        if (r < 0) return bench_fail(link, r, "fork: %s", strerror(-r));
        if (r == 0) {
            close(crowd->done[0]);
            close(crowd->go[1]);
            crowd_member(link, crowd, connections / CROWD_PROCESSES);
        }
        crowd->count++;
    }
    close(crowd->done[1]); /* the end of the last process is the end of the pipe */
    return crowd_wait(link, crowd);
}

static int crowd_complete(struct bench_link *link, const struct crowd *crowd)
{
    for (int i = 0; i < crowd->count; i++)
        if (write(crowd->go[1], "", 1) != 1) return bench_fail(link, -EPIPE, "one of the crowd's processes ended");
    return crowd_wait(link, crowd);
}

static void crowd_dismiss(struct crowd *crowd)
{
    for (int i = 0; i < crowd->count; i++) {
        kill(crowd->children[i], SIGKILL);
        waitpid(crowd->children[i], NULL, 0);
    }
}

/* ---- calls, one after the other ------------------------------------------------------------- */

static int warm_up(struct bench_link *link, const struct bench_load *load, void *body)
{
    uint64_t end = bench_now() + (load->pause_ns ? 0 : WARM_NS), sequence = 1u << 30;
    int r = 0;

    for (unsigned i = 0; r == 0 && (i < load->warm_calls || bench_now() < end); i++) {
        if (load->pause_ns) sleep_ns(load->pause_ns);
        r = call_once(link, body, load->size, sequence++);
    }
    return r;
}

static int measure_batches(struct bench_link *link, const struct bench_load *load, void *body,
                           struct bench_samples *samples)
{
    uint64_t start = bench_now(), end = start + (uint64_t)(load->seconds * 1e9), sequence = 0;

    while (start < end && samples->count < samples->room) {
        uint64_t now;
        for (unsigned i = 0; i < load->batch; i++) {
            int r = call_once(link, body, load->size, ++sequence);
            if (r < 0) return r;
        }
        now = bench_now();
        samples->us[samples->count++] = (float)((double)(now - start) / 1e3 / load->batch);
        start = now;
    }
    link->shared->round.calls = sequence;
    return 0;
}

static int timed_call(struct bench_link *link, void *body, size_t size, uint64_t sequence, uint64_t *ret_ns)
{
    const void *reply;
    uint64_t spent, start;
    int r;

    bench_fill(body, size, sequence);
    start = bench_now();
    r = link->subject->ops->call(link, body, size, &reply);
    spent = bench_now() - start;
    if (r < 0) return r;
    r = check(link, body, reply, size);
    start = bench_now(); /* giving the reply back belongs to the call */
    release(link);
    *ret_ns = spent + bench_now() - start;
    return r;
}

static int measure_single(struct bench_link *link, const struct bench_load *load, void *body,
                          struct bench_samples *samples)
{
    uint64_t end = bench_now() + (uint64_t)(load->seconds * 1e9), most = load->most ? load->most : samples->room;
    uint64_t sequence = 0;

    while ((bench_now() < end || sequence < 5) && sequence < most && samples->count < samples->room) {
        uint64_t ns;
        int r;
        if (load->pause_ns) sleep_ns(load->pause_ns);
        r = timed_call(link, body, load->size, ++sequence, &ns);
        if (r < 0) return r;
        samples->us[samples->count++] = (float)((double)ns / 1e3);
    }
    link->shared->round.calls = sequence;
    return 0;
}

static int measure(struct bench_link *link, const struct bench_load *load, void *body, struct bench_samples *samples)
{
    struct bench_round *round = &link->shared->round;
    struct bench_switches before[2] = { 0 }, after[2] = { 0 };
    uint64_t start;
    int r;

    bench_switches_of(link->server, &before[1]);
    bench_switches_of(getpid(), &before[0]);
    start = bench_now();
    if (load->pause_ns || load->size >= TIMED_ONE_BY_ONE) r = measure_single(link, load, body, samples);
    else r = measure_batches(link, load, body, samples);
    if (r < 0) return r;
    round->per_second = (double)round->calls * 1e9 / (double)(bench_now() - start);
    bench_switches_of(getpid(), &after[0]);
    bench_switches_of(link->server, &after[1]);
    round->server_switches = (double)(after[1].voluntary - before[1].voluntary) / (double)round->calls;
    round->switches =
        round->server_switches + (double)(after[0].voluntary - before[0].voluntary) / (double)round->calls;
    bench_samples_summarise(samples, round);
    return 0;
}

/* After the clock has stopped: the tracepoint makes every system call slower. */
static int count_syscalls(struct bench_link *link, const struct bench_load *load, void *body)
{
    int counters[2] = { bench_syscalls_open(getpid()), bench_syscalls_open(link->server) }, r = 0;
    unsigned calls = load->size > 1 << 20 ? 4 : load->pause_ns ? 60 : 2000;
    uint64_t start, count;

    if (counters[0] < 0 || counters[1] < 0) return 0;
    start = bench_syscalls_read(counters[0]) + bench_syscalls_read(counters[1]);
    for (unsigned i = 0; r == 0 && i < calls; i++) {
        if (load->pause_ns) sleep_ns(load->pause_ns);
        r = call_once(link, body, load->size, i);
    }
    count = bench_syscalls_read(counters[0]) + bench_syscalls_read(counters[1]) - start;
    link->shared->round.syscalls = (double)count / calls - (load->pause_ns ? 1 : 0); /* the pause is none of theirs */
    close(counters[0]);
    close(counters[1]);
    return r;
}

int bench_drive_calls(struct bench_link *link, const struct bench_load *load)
{
    struct bench_samples samples = { 0 };
    struct crowd crowd = { 0 };
    void *body = malloc(load->size + 1);
    int r = 0;

    if (!body || bench_samples_init(&samples, SAMPLES_MAX) < 0) r = bench_fail(link, -ENOMEM, "out of memory");
    else memset(body, 0x5a, load->size);
    if (r == 0 && load->crowd) r = crowd_gather(link, load->crowd, &crowd);
    if (r == 0 && load->crowd) r = crowd_complete(link, &crowd);
    if (r == 0) r = link->subject->ops->open(link);
    if (r == 0) r = warm_up(link, load, body);
    if (r == 0) r = measure(link, load, body, &samples);
    if (r == 0) r = count_syscalls(link, load, body);
    if (r == 0) close_link(link);
    crowd_dismiss(&crowd);
    bench_samples_deinit(&samples);
    free(body);
    return r;
}

/* ---- many in flight -------------------------------------------------------------------------- */

static int drive_flow(struct bench_link *link, const struct bench_load *load,
                      int (*flow)(struct bench_link *link, size_t size, uint64_t count), uint64_t chunk)
{
    struct bench_round *round = &link->shared->round;
    int counters[2] = { bench_syscalls_open(getpid()), bench_syscalls_open(link->server) };
    uint64_t start, now, end, syscalls;
    int r;

    r = link->subject->ops->open(link);
    if (r == 0) r = flow(link, load->size, chunk / 10);
    if (r < 0) return r;
    syscalls = bench_syscalls_read(counters[0]) + bench_syscalls_read(counters[1]);
    start = now = bench_now();
    end = start + (uint64_t)(load->seconds * 1e9);
    while (now < end) {
        r = flow(link, load->size, chunk);
        if (r < 0) return r;
        round->calls += chunk;
        now = bench_now();
    }
    round->per_second = (double)round->calls * 1e9 / (double)(now - start);
    if (counters[0] >= 0 && counters[1] >= 0) {
        syscalls = bench_syscalls_read(counters[0]) + bench_syscalls_read(counters[1]) - syscalls;
        round->syscalls = (double)syscalls / (double)round->calls;
    }
    if (link->shared->wrong)
        return bench_fail(link, -EBADMSG, "the server found %llu wrong messages",
                          (unsigned long long)link->shared->wrong);
    close_link(link);
    return 0;
}

int bench_drive_stream(struct bench_link *link, const struct bench_load *load)
{
    return drive_flow(link, load, link->subject->ops->stream, STREAM_CHUNK);
}

int bench_drive_pairs(struct bench_link *link, const struct bench_load *load)
{
    return drive_flow(link, load, link->subject->ops->pairs, PAIRS_CHUNK);
}

/* ---- loans --------------------------------------------------------------------------------------- */

int bench_drive_loans(struct bench_link *link, const struct bench_load *load)
{
    const struct bench_ops *ops = link->subject->ops;
    struct bench_round *round = &link->shared->round;
    struct bench_samples entries = { 0 }, calls = { 0 };
    struct bench_hand_over times;
    void *elsewhere = calloc(1, load->elsewhere + 1);
    uint64_t sequence = 0, end = 0, faults = 0, start = 0;
    int r = ops->open(link);

    if (r == 0 &&
        (!elsewhere || bench_samples_init(&entries, SAMPLES_MAX) < 0 || bench_samples_init(&calls, SAMPLES_MAX) < 0))
        r = bench_fail(link, -ENOMEM, "out of memory");
    while (r == 0 && entries.count < entries.room) {
        if (sequence == load->warm_calls) {
            faults = bench_faults_of(getpid()) + bench_faults_of(link->server);
            start = bench_now();
            end = start + (uint64_t)(load->seconds * 1e9);
        }
        if (load->elsewhere) bench_fill(elsewhere, load->elsewhere, sequence);
        r = ops->hand_over(link, load->size, ++sequence, &times);
        if (r < 0 || sequence <= load->warm_calls) continue;
        entries.us[entries.count++] = (float)((double)times.entry / 1e3);
        calls.us[calls.count++] = (float)((double)times.call / 1e3);
        if (bench_now() > end && calls.count > 4) break;
    }
    if (r == 0 && link->shared->wrong)
        r = bench_fail(link, -EBADMSG, "the server found %llu wrong messages", (unsigned long long)link->shared->wrong);
    if (r == 0) {
        faults = bench_faults_of(getpid()) + bench_faults_of(link->server) - faults;
        round->calls = calls.count;
        round->per_second = (double)calls.count * 1e9 / (double)(bench_now() - start);
        bench_samples_summarise(&calls, round);
        round->call = round->p50;
        bench_samples_summarise(&entries, round);
        round->faults = (double)faults / (double)calls.count;
        close_link(link);
    }
    free(elsewhere);
    bench_samples_deinit(&entries);
    bench_samples_deinit(&calls);
    return r;
}

/* ---- fresh connections ------------------------------------------------------------------------ */

int bench_drive_first(struct bench_link *link, const struct bench_load *load)
{
    struct bench_samples samples = { 0 };
    void *body = malloc(load->size);
    int r = 0;

    if (!body || bench_samples_init(&samples, load->most) < 0) r = bench_fail(link, -ENOMEM, "out of memory");
    else memset(body, 0x5a, load->size);
    for (uint64_t i = 0; i < load->most && r == 0; i++) {
        uint64_t ns = 0;
        r = link->subject->ops->open(link);
        if (r == 0) r = timed_call(link, body, load->size, i, &ns);
        if (r == 0) close_link(link);
        samples.us[samples.count++] = (float)((double)ns / 1e3);
        sleep_ns(load->pause_ns); /* the server takes the old connection down meanwhile */
    }
    link->shared->round.calls = samples.count;
    if (r == 0) bench_samples_summarise(&samples, &link->shared->round);
    bench_samples_deinit(&samples);
    free(body);
    return r;
}

/* All connections stay open until the last was measured: closing one is not part of this. */
int bench_drive_connect(struct bench_link *link, const struct bench_load *load)
{
    struct bench_samples samples = { 0 };
    struct bench_link *links = calloc(load->most, sizeof(*links));
    char body[4096];
    int r = 0;

    if (!links || load->size > sizeof(body) || bench_samples_init(&samples, load->most) < 0)
        r = bench_fail(link, -ENOMEM, "out of memory");
    memset(body, 0x5a, sizeof(body));
    for (uint64_t i = 0; i < load->most && r == 0; i++) {
        uint64_t start;
        links[i] = *link;
        start = bench_now();
        r = link->subject->ops->open(&links[i]);
        if (r == 0) r = call_once(&links[i], body, load->size, i);
        samples.us[samples.count++] = (float)((double)(bench_now() - start) / 1e3);
    }
    for (uint64_t i = 0; i < samples.count && r == 0; i++) close_link(&links[i]);
    link->shared->round.calls = samples.count;
    if (r == 0) bench_samples_summarise(&samples, &link->shared->round);
    bench_samples_deinit(&samples);
    free(links);
    return r;
}

/* ---- silence and weight ------------------------------------------------------------------------- */

/* This process watches; an idle client is another one. Leaves the context switches of both sides
 * over load->seconds, voluntary or not. */
int bench_drive_idle(struct bench_link *link, const struct bench_load *load)
{
    struct bench_switches before[2], after[2];
    struct bench_round *round = &link->shared->round;
    struct crowd crowd;
    int r;

    r = crowd_gather(link, CROWD_PROCESSES, &crowd);
    if (r == 0) r = crowd_complete(link, &crowd);
    if (r < 0) return r;
    sleep_ns(SETTLE_NS); /* adaptive spinning ends long before */
    r = bench_switches_of(crowd.children[0], &before[0]);
    if (r == 0) r = bench_switches_of(link->server, &before[1]);
    sleep_ns((uint64_t)(load->seconds * 1e9));
    if (r == 0) r = bench_switches_of(crowd.children[0], &after[0]);
    if (r == 0) r = bench_switches_of(link->server, &after[1]);
    crowd_dismiss(&crowd);
    if (r < 0) return bench_fail(link, r, "a process of the idle pair ended");
    round->server_switches =
        (double)(after[1].voluntary + after[1].involuntary - before[1].voluntary - before[1].involuntary);
    round->switches = round->server_switches +
                      (double)(after[0].voluntary + after[0].involuntary - before[0].voluntary - before[0].involuntary);
    return 0;
}

/* Weighs before and after: what the kernel holds for a connection counts too. */
int bench_drive_memory(struct bench_link *link, const struct bench_load *load)
{
    struct bench_round *round = &link->shared->round;
    const pid_t pids[] = { getpid(), link->server };
    struct bench_scale scale;
    struct crowd crowd;
    uint64_t before = 0;
    int r;

    round->own_memory = bench_scale_open(&scale, pids, 2); /* the crowd is born into it */
    r = crowd_gather(link, load->crowd, &crowd);
    if (r == 0) {
        sleep_ns(load->pause_ns);
        before = bench_scale_read(&scale);
        r = crowd_complete(link, &crowd);
    }
    if (r == 0) {
        sleep_ns(load->pause_ns);
        round->bytes = ((double)bench_scale_read(&scale) - (double)before) / (load->crowd - CROWD_PROCESSES);
    }
    crowd_dismiss(&crowd);
    bench_scale_close(&scale, pids, 2);
    return r;
}
