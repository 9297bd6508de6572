/* bench_rows: the table of figures that `plait bench` without arguments prints.
 *
 * A row is data: plait in one set-up, one or two raw primitives, a load, which of a round's
 * figures counts and what it must reach. All subjects of a row take turns round by round, so
 * that whatever the machine is doing happens to each of them; medians of the rounds are
 * compared. Where the scheduler is free to put both processes on one CPU or on two, a round
 * trip has two modes that differ fivefold: such rows have more and shorter rounds.
 */
#include "bench.h"

#include <errno.h>
#include <plait/plait.h>
#include <stdlib.h>
#include <string.h>

enum { SUBJECTS_MAX = 4 };

#define MS 1000000u
#define KIB 1024u
#define MIB (1024u * 1024u)

struct row {
    const char *id, *what, *unit, *goal;
    const struct bench_subject *plait, *raw[SUBJECTS_MAX - 1]; /* compared with the better of those not `shown` */
    struct bench_load load;
    double (*figure)(const struct bench_round *round);
    double factor, slack; /* plait <= factor * raw + slack */
    double limit;         /* plait <= limit, or >= for a rate */
    double p99_limit, switches_limit, syscalls_limit;
    unsigned shown;        /* the last so many of `raw` are there to be seen, not to compare with */
    unsigned rounds_times; /* more rounds than asked for; 0: as many */
    bool rate;             /* more is better */
    bool lone_raw;         /* the raw side has no crowd */
    bool small_raw;        /* the raw side sends 64 B, the first of them after writing as much elsewhere */
    bool unjudged;
};

static double p50(const struct bench_round *round)
{
    return round->p50;
}

static double whole_call(const struct bench_round *round)
{
    return round->call;
}

static double faults(const struct bench_round *round)
{
    return round->faults;
}

static double million_per_second(const struct bench_round *round)
{
    return round->per_second / 1e6;
}

static double switches(const struct bench_round *round)
{
    return round->switches;
}

static double kib(const struct bench_round *round)
{
    return round->bytes / KIB;
}

/* ---- subjects: ranges are those of a 2-CPU virtual machine, as in docs/benchmarks.md ---------- */

static const struct bench_subject lines = { .name = "cache lines", .ops = &bench_raw_lines, .low = 0.13, .high = 0.7 };
static const struct bench_subject eventfd = { .name = "eventfd", .ops = &bench_raw_eventfd, .low = 14, .high = 22 };
static const struct bench_subject eventfd_placed = { .name = "eventfd", .ops = &bench_raw_eventfd };
static const struct bench_subject eventfd_poll = { .name = "eventfd+poll", .ops = &bench_raw_eventfd_poll };
static const struct bench_subject futex_sparse = { .name = "futex", .ops = &bench_raw_futex, .low = 9, .high = 21 };
static const struct bench_subject unix_sparse = {
    .name = "Unix stream", .ops = &bench_raw_unix, .low = 15, .high = 33
};
static const struct bench_subject ring = { .name = "bare ring", .ops = &bench_raw_ring, .low = 9.8, .high = 106 };
static const struct bench_subject ring_pairs = { .name = "two bare rings", .ops = &bench_raw_ring };
static const struct bench_subject tcp = { .name = "TCP", .ops = &bench_raw_tcp, .low = 16, .high = 36 };
static const struct bench_subject tcp_placed = { .name = "TCP", .ops = &bench_raw_tcp };
static const struct bench_subject unix_any = { .name = "Unix stream", .ops = &bench_raw_unix };
static const struct bench_subject unix_mib = { .name = "Unix stream", .ops = &bench_raw_unix, .low = 161, .high = 279 };

static const struct bench_subject plait = { .name = "plait", .ops = &bench_plait, .transport = "shm" };
static const struct bench_subject spinning = {
    .name = "plait spinning", .ops = &bench_plait, .transport = "shm", .spin_us = BENCH_SPIN_ALWAYS_US
};
static const struct bench_subject spinning_64 = {
    .name = "64 B", .ops = &bench_plait, .transport = "shm", .spin_us = BENCH_SPIN_ALWAYS_US
};
static const struct bench_subject spinning_alone = {
    .name = "64 B, nothing written", .ops = &bench_plait, .transport = "shm", .spin_us = BENCH_SPIN_ALWAYS_US
};
static const struct bench_subject handed = { .name = "a cache line", .ops = &bench_raw_handed };
static const struct bench_subject blocking = {
    .name = "plait blocking", .ops = &bench_plait, .transport = "shm", .spin_us = PLAIT_SPIN_NEVER
};
static const struct bench_subject plait_tcp = { .name = "plait over TCP", .ops = &bench_plait, .transport = "tcp" };
static const struct bench_subject udp = { .name = "UDP", .ops = &bench_raw_udp, .low = 16, .high = 36 };
static const struct bench_subject udp_placed = { .name = "UDP", .ops = &bench_raw_udp };
static const struct bench_subject plait_udp = { .name = "plait over UDP", .ops = &bench_plait, .transport = "udp" };
static const struct bench_subject plait_raw = { .name = "plait raw", .ops = &bench_plait, .transport = "raw-tcp" };
static const struct bench_subject plait_raw_server = { .name = "socket to plait",
                                                       .ops = &bench_plait_raw_server,
                                                       .transport = "raw-tcp" };

static const struct bench_subject topic = { .name = "plait topic", .ops = &bench_topic };
static const struct bench_subject topic_spinning = { .name = "plait topic, spinning",
                                                     .ops = &bench_topic,
                                                     .spin_us = BENCH_SPIN_ALWAYS_US };
static const struct bench_subject topic_loan = { .name = "plait topic",
                                                 .ops = &bench_topic_loan,
                                                 .spin_us = BENCH_SPIN_ALWAYS_US };
static const struct bench_subject topic_loan_64 = { .name = "64 B",
                                                    .ops = &bench_topic_loan,
                                                    .spin_us = BENCH_SPIN_ALWAYS_US };
static const struct bench_subject topic_loan_alone = { .name = "64 B, nothing written",
                                                       .ops = &bench_topic_loan,
                                                       .spin_us = BENCH_SPIN_ALWAYS_US };
static const struct bench_subject copies = { .name = "two memcpys", .ops = &bench_raw_copies };
static const struct bench_subject wake_one = { .name = "waking one thread", .ops = &bench_wake_one };
static const struct bench_subject wake_all = { .name = "one futex", .ops = &bench_wake_all };

/* ---- loads -------------------------------------------------------------------------------------- */

#define CALLS_IN(bytes, where, per_batch, others)                                                                      \
    {                                                                                                                  \
        .size = (bytes), .batch = (per_batch), .warm_calls = 1000, .seconds = 0.15, .crowd = (others),                 \
        .placement = (where), .drive = bench_drive_calls                                                               \
    }
#define CALLS(bytes, where) CALLS_IN(bytes, where, 1, 0)
#define LARGE(bytes, time)                                                                                             \
    {                                                                                                                  \
        .size = (bytes), .batch = 1, .warm_calls = 4, .seconds = (time), .drive = bench_drive_calls                    \
    }

#define SIZE_ROW(name, label, bytes, time, unix_stream)                                                                \
    {                                                                                                                  \
        .id = "size-" name, .what = label ", steady", .unit = "us", .goal = "<= 1.0 x a Unix stream", .plait = &plait, \
        .raw = { unix_stream }, .load = LARGE(bytes, time), .figure = p50, .factor = 1.0                               \
    }

#define HANDED(bytes)                                                                                                  \
    {                                                                                                                  \
        .size = (bytes), .warm_calls = (bytes) > MIB ? 12 : 1000, .seconds = 0.3, .placement = BENCH_TWO_CPUS,         \
        .drive = bench_drive_loans                                                                                     \
    }
#define LOAN_ROWS(name, label, bytes)                                                                                  \
    { .id = "loan-" name,                                                                                              \
      .what = label " by loan, to the handler",                                                                        \
      .unit = "us",                                                                                                    \
      .goal = "<= 1.5 x 64 B, no page faults",                                                                         \
      .plait = &spinning,                                                                                              \
      .raw = { &spinning_64, &spinning_alone, &handed },                                                               \
      .shown = 2,                                                                                                      \
      .load = HANDED(bytes),                                                                                           \
      .figure = p50,                                                                                                   \
      .factor = 1.5,                                                                                                   \
      .small_raw = true },                                                                                             \
    {                                                                                                                  \
        .id = "loan-call-" name, .what = label " by loan, the call", .unit = "us", .goal = "to be seen",               \
        .plait = &spinning, .raw = { &spinning_64, &spinning_alone, &handed }, .shown = 2, .load = HANDED(bytes),      \
        .figure = whole_call, .small_raw = true, .unjudged = true                                                      \
    }

#define TOPIC_LOAN_ROW(name, label, bytes)                                                                             \
    {                                                                                                                  \
        .id = "topic-loan-" name, .what = label " by loan, to the subscriber", .unit = "us",                           \
        .goal = "<= 1.5 x 64 B, no page faults", .plait = &topic_loan,                                                 \
        .raw = { &topic_loan_64, &topic_loan_alone, &handed }, .shown = 2, .load = HANDED(bytes), .figure = p50,       \
        .factor = 1.5, .small_raw = true                                                                               \
    }

#define TOPIC_ROW(others)                                                                                              \
    {                                                                                                                  \
        .id = "topic-publish-" #others, .what = "publish 64 B, " #others " registered", .unit = "us",                  \
        .goal = "<= 0.06", .plait = &topic,                                                                            \
        .load = { .size = 64, .crowd = (others), .seconds = 0.2, .drive = bench_drive_publish }, .figure = p50,        \
        .limit = 0.06                                                                                                  \
    }

static const struct row rows[] = {
    { .id = "spinning",
      .what = "64 B call, spinning, two CPUs",
      .unit = "us",
      .goal = "<= 1.3 x raw + 0.15",
      .plait = &spinning,
      .raw = { &lines },
      .load = CALLS_IN(64, BENCH_TWO_CPUS, 16, 0),
      .figure = p50,
      .factor = 1.3,
      .slack = 0.15 },
    { .id = "blocking-two",
      .what = "64 B call, blocking, two CPUs",
      .unit = "us",
      .goal = "<= 1.2 x raw, <= 2.1 switches",
      .plait = &blocking,
      .raw = { &eventfd_placed, &eventfd_poll },
      .shown = 1,
      .load = CALLS(64, BENCH_TWO_CPUS),
      .figure = p50,
      .factor = 1.2,
      .switches_limit = 2.1 },
    { .id = "blocking-free",
      .what = "64 B call, blocking, unpinned",
      .unit = "us",
      .goal = "<= 1.2 x raw, <= 2.1 switches",
      .plait = &blocking,
      .raw = { &eventfd, &eventfd_poll },
      .shown = 1,
      .load = CALLS(64, BENCH_UNPINNED),
      .figure = p50,
      .factor = 1.2,
      .switches_limit = 2.1,
      .rounds_times = 3 },
    { .id = "blocking-one",
      .what = "64 B call, blocking, one CPU",
      .unit = "us",
      .goal = "to be seen",
      .plait = &blocking,
      .raw = { &eventfd_placed, &eventfd_poll },
      .shown = 1,
      .load = CALLS(64, BENCH_ONE_CPU),
      .figure = p50,
      .factor = 1.2,
      .switches_limit = 2.1,
      .unjudged = true },
    { .id = "adaptive-two",
      .what = "64 B call, default, two CPUs",
      .unit = "us",
      .goal = "<= 1.2 x spinning, p99 <= 25",
      .plait = &plait,
      .raw = { &spinning },
      .load = CALLS(64, BENCH_TWO_CPUS),
      .figure = p50,
      .factor = 1.2,
      .p99_limit = 25 },
    { .id = "adaptive-free",
      .what = "64 B call, default, unpinned",
      .unit = "us",
      .goal = "<= 1.2 x spinning, p99 <= 25",
      .plait = &plait,
      .raw = { &spinning },
      .load = CALLS(64, BENCH_UNPINNED),
      .figure = p50,
      .factor = 1.2,
      .p99_limit = 25,
      .rounds_times = 3 },
    { .id = "sparse",
      .what = "64 B call after 1 ms of silence",
      .unit = "us",
      .goal = "<= 1.15 x the better",
      .plait = &plait,
      .raw = { &futex_sparse, &unix_sparse, &eventfd_poll },
      .shown = 1,
      .load = { .size = 64, .batch = 1, .warm_calls = 30, .pause_ns = MS, .seconds = 0.25, .drive = bench_drive_calls },
      .figure = p50,
      .factor = 1.15 },
    { .id = "idle",
      .what = "idle for 10 s: context switches",
      .unit = "",
      .goal = "0",
      .plait = &plait,
      .load = { .size = 64, .seconds = 10, .drive = bench_drive_idle },
      .figure = switches,
      .limit = 0.5 },
    { .id = "oneway",
      .what = "64 B one way, one connection",
      .unit = "M/s",
      .goal = ">= 10 M/s, 0 syscalls",
      .plait = &plait,
      .raw = { &ring },
      .load = { .size = 64, .seconds = 0.3, .placement = BENCH_TWO_CPUS, .drive = bench_drive_stream },
      .figure = million_per_second,
      .limit = 10,
      .syscalls_limit = 0.01,
      .rate = true },
    { .id = "pairs",
      .what = "64 B calls, many in flight",
      .unit = "M/s",
      .goal = ">= 3 M/s, 0 syscalls",
      .plait = &plait,
      .raw = { &ring_pairs },
      .load = { .size = 64, .seconds = 0.3, .placement = BENCH_TWO_CPUS, .drive = bench_drive_pairs },
      .figure = million_per_second,
      .limit = 3,
      .syscalls_limit = 0.01,
      .rate = true },
    { .id = "tcp-two",
      .what = "64 B call, TCP, two CPUs",
      .unit = "us",
      .goal = "<= 1.15 x raw",
      .plait = &plait_tcp,
      .raw = { &tcp_placed },
      .load = CALLS(64, BENCH_TWO_CPUS),
      .figure = p50,
      .factor = 1.15 },
    { .id = "tcp-free",
      .what = "64 B call, TCP, unpinned",
      .unit = "us",
      .goal = "<= 1.15 x raw",
      .plait = &plait_tcp,
      .raw = { &tcp },
      .load = CALLS(64, BENCH_UNPINNED),
      .figure = p50,
      .factor = 1.15,
      .rounds_times = 3 },
    { .id = "raw-tcp-two",
      .what = "64 B call, raw framing, two CPUs",
      .unit = "us",
      .goal = "<= 1.15 x raw",
      .plait = &plait_raw,
      .raw = { &tcp_placed, &plait_raw_server },
      .shown = 1,
      .load = CALLS(64, BENCH_TWO_CPUS),
      .figure = p50,
      .factor = 1.15 },
    { .id = "raw-tcp-free",
      .what = "64 B call, raw framing, unpinned",
      .unit = "us",
      .goal = "<= 1.15 x raw",
      .plait = &plait_raw,
      .raw = { &tcp, &plait_raw_server },
      .shown = 1,
      .load = CALLS(64, BENCH_UNPINNED),
      .figure = p50,
      .factor = 1.15,
      .rounds_times = 3 },
    { .id = "udp-two",
      .what = "64 B call, UDP, two CPUs",
      .unit = "us",
      .goal = "<= 1.15 x raw",
      .plait = &plait_udp,
      .raw = { &udp_placed },
      .load = CALLS(64, BENCH_TWO_CPUS),
      .figure = p50,
      .factor = 1.15 },
    { .id = "udp-free",
      .what = "64 B call, UDP, unpinned",
      .unit = "us",
      .goal = "<= 1.15 x raw",
      .plait = &plait_udp,
      .raw = { &udp },
      .load = CALLS(64, BENCH_UNPINNED),
      .figure = p50,
      .factor = 1.15,
      .rounds_times = 3 },
    SIZE_ROW("1", "1 B", 1, 0.12, &unix_any),
    SIZE_ROW("64", "64 B", 64, 0.12, &unix_any),
    SIZE_ROW("1K", "1 KiB", KIB, 0.12, &unix_any),
    SIZE_ROW("4K", "4 KiB", 4 * KIB, 0.12, &unix_any),
    SIZE_ROW("8K", "8 KiB", 8 * KIB, 0.12, &unix_any),
    SIZE_ROW("16K", "16 KiB", 16 * KIB, 0.12, &unix_any),
    SIZE_ROW("64K", "64 KiB", 64 * KIB, 0.12, &unix_any),
    SIZE_ROW("256K", "256 KiB", 256 * KIB, 0.15, &unix_any),
    SIZE_ROW("1M", "1 MiB", MIB, 0.2, &unix_mib),
    SIZE_ROW("16M", "16 MiB", 16 * MIB, 0.2, &unix_any),
    SIZE_ROW("64M", "64 MiB", 64 * MIB, 0.2, &unix_any),
    { .id = "plain-16M",
      .what = "16 MiB call without a loan",
      .unit = "us",
      .goal = "<= 1.2 x the two memcpys",
      .plait = &plait,
      .raw = { &copies },
      .load = LARGE(16 * MIB, 0.3),
      .figure = p50,
      .factor = 1.2 },
    { .id = "plain-16M-unix",
      .what = "16 MiB call without a loan",
      .unit = "us",
      .goal = "1.5 x faster than a Unix stream",
      .plait = &plait,
      .raw = { &unix_any },
      .load = LARGE(16 * MIB, 0.3),
      .figure = p50,
      .factor = 1 / 1.5 },
    LOAN_ROWS("1M", "1 MiB", MIB),
    LOAN_ROWS("16M", "16 MiB", 16 * MIB),
    LOAN_ROWS("64M", "64 MiB", 64 * MIB),
    TOPIC_ROW(1),
    TOPIC_ROW(10),
    TOPIC_ROW(100),
    TOPIC_ROW(1000),
    { .id = "topic-publish-reliable-100",
      .what = "publish 64 B, reliable, 100 registered",
      .unit = "us",
      .goal = "<= 0.1",
      .plait = &topic,
      .load = { .size = 64, .crowd = 100, .reliable = true, .seconds = 0.2, .drive = bench_drive_publish },
      .figure = p50,
      .limit = 0.1 },
    { .id = "topic-held-100",
      .what = "publish 64 B, 100 asleep",
      .unit = "us",
      .goal = "<= 10",
      .plait = &topic,
      .raw = { &wake_one },
      .load = { .size = 8, .crowd = 100, .seconds = 4, .drive = bench_drive_wake },
      .figure = p50,
      .limit = 10 },
    { .id = "topic-awake-100",
      .what = "until the last of 100 is awake",
      .unit = "us",
      .goal = "<= 1.25 x one bare wake-all",
      .plait = &topic,
      .raw = { &wake_all },
      .load = { .size = 8, .crowd = 100, .seconds = 4, .drive = bench_drive_wake },
      .figure = whole_call,
      .factor = 1.25 },
    { .id = "topic-oneway",
      .what = "64 B to one subscriber, spinning",
      .unit = "M/s",
      .goal = ">= 10 M/s",
      .plait = &topic_spinning,
      .load = { .size = 64, .crowd = 1, .seconds = 0.3, .placement = BENCH_TWO_CPUS, .drive = bench_drive_fanout },
      .figure = million_per_second,
      .limit = 10,
      .rate = true },
    { .id = "topic-reliable-100",
      .what = "64 B to 100 subscribers, reliable",
      .unit = "M/s",
      .goal = "to be seen",
      .plait = &topic,
      .load = { .size = 64, .crowd = 100, .seconds = 0.5, .drive = bench_drive_fanout },
      .figure = million_per_second,
      .limit = 1,
      .rate = true,
      .unjudged = true },
    TOPIC_LOAN_ROW("1M", "1 MiB", MIB),
    TOPIC_LOAN_ROW("16M", "16 MiB", 16 * MIB),
    TOPIC_LOAN_ROW("64M", "64 MiB", 64 * MIB),
    { .id = "first-1M",
      .what = "first 1 MiB, fresh connection",
      .unit = "us",
      .goal = "<= 1.5 x a Unix stream",
      .plait = &plait,
      .raw = { &unix_any },
      .load = { .size = MIB, .most = 25, .pause_ns = 3 * MS, .drive = bench_drive_first },
      .figure = p50,
      .factor = 1.5 },
    { .id = "connect",
      .what = "connect + first call, 200 times",
      .unit = "us",
      .goal = "<= 400",
      .plait = &plait,
      .load = { .size = 64, .most = 200, .drive = bench_drive_connect },
      .figure = p50,
      .limit = 400 },
    { .id = "memory",
      .what = "memory per connection, of 1,000",
      .unit = "KiB",
      .goal = "<= 32",
      .plait = &plait,
      .load = { .size = 64, .crowd = 1000, .pause_ns = 200 * MS, .seconds = 2, .drive = bench_drive_memory },
      .figure = kib,
      .limit = 32 },
    { .id = "crowd",
      .what = "64 B call, 1,000 connected, two CPUs",
      .unit = "us",
      .goal = "<= 1.3 x alone",
      .plait = &plait,
      .raw = { &plait },
      .load = CALLS_IN(64, BENCH_TWO_CPUS, 1, 1000),
      .lone_raw = true,
      .figure = p50,
      .factor = 1.3 },
};

/* ---- running a row ------------------------------------------------------------------------------- */

int bench_interleave(const struct bench_subject *const *subjects, const struct bench_load *loads, unsigned count,
                     unsigned rounds, struct bench_round *series)
{
    for (unsigned i = 0; i < rounds; i++)
        for (unsigned s = count; s-- > 0;) { /* raw first, plait last */
            int r = bench_round(subjects[s], &loads[s], &series[s * rounds + i]);
            if (r < 0) return r;
        }
    return 0;
}

static struct bench_spread spread_of(const struct bench_round *series, unsigned rounds,
                                     double (*figure)(const struct bench_round *round))
{
    double values[BENCH_ROUNDS_MAX];

    for (unsigned i = 0; i < rounds; i++) values[i] = figure(&series[i]);
    return bench_spread_of(values, rounds);
}

static double p90(const struct bench_round *round)
{
    return round->p90;
}

static double p99(const struct bench_round *round)
{
    return round->p99;
}

static double most(const struct bench_round *round)
{
    return round->max;
}

static double per_second(const struct bench_round *round)
{
    return round->per_second;
}

static double syscalls(const struct bench_round *round)
{
    return round->syscalls;
}

static void remark_raw(const struct bench_subject *subject, struct bench_spread spread, struct bench_result *result)
{
    if (subject->high > 0 && (spread.median < subject->low || spread.median > subject->high))
        bench_note(result, "%s outside its usual %.3g ... %.3g", subject->name, subject->low, subject->high);
    if (spread.high > 2 * spread.low)
        bench_note(result, "%s spreads %.1f-fold: compare with care", subject->name, spread.high / spread.low);
}

/* Finds the better of the raw subjects; the others go into the note. */
static void judge_raw(const struct row *row, const struct bench_round *series, unsigned rounds, unsigned raw_count,
                      struct bench_result *result)
{
    unsigned compared = raw_count - row->shown, best = 0;
    struct bench_spread spreads[SUBJECTS_MAX - 1];

    for (unsigned i = 0; i < raw_count; i++) {
        spreads[i] = spread_of(series + (i + 1) * rounds, rounds, row->figure);
        if (i < compared && spreads[i].median < spreads[best].median) best = i;
    }
    result->raw_name = row->lone_raw ? "alone" : row->raw[best]->name;
    result->raw = spreads[best];
    result->ratio = spreads[best].median > 0 ? result->plait.median / spreads[best].median : 0;
    for (unsigned i = 0; i < raw_count; i++) {
        if (i != best) bench_note(result, "%s %.3g", row->raw[i]->name, spreads[i].median);
        if (row->figure == p50 && row->load.drive != bench_drive_loans && series[(i + 1) * rounds].syscalls >= 0)
            bench_note(result, "%s %.3g system calls", row->raw[i]->name, series[(i + 1) * rounds].syscalls);
        remark_raw(row->raw[i], spreads[i], result);
    }
}

static bool reached(const struct row *row, const struct bench_round *series, unsigned rounds,
                    struct bench_result *result)
{
    double m = result->plait.median;
    bool ok = true;

    if (row->factor > 0) ok = ok && m <= row->factor * result->raw.median + row->slack;
    if (row->limit > 0) ok = ok && (row->rate ? m >= row->limit : m <= row->limit);
    if (row->p99_limit > 0) ok = ok && result->p99 <= row->p99_limit;
    if (row->switches_limit > 0) {
        struct bench_spread own = spread_of(series, rounds, switches);
        ok = ok && own.median <= row->switches_limit;
        bench_note(result, "%.2f voluntary switches a round trip", own.median);
    }
    if (row->load.drive == bench_drive_loans) {
        struct bench_spread own = spread_of(series, rounds, faults);
        ok = ok && own.median < 0.01;
        bench_note(result, "%.4f page faults a call, both sides", own.median);
    } else if (row->figure == p50 && spread_of(series, rounds, syscalls).low >= 0)
        bench_note(result, "%.3g system calls a round trip, both sides", spread_of(series, rounds, syscalls).median);
    if (row->figure == kib)
        bench_note(result, "%s",
                   series->own_memory ? "weighed in a memory group of its own"
                                      : "weighed with the whole machine, not judged: needs root and memory groups");
    if (row->syscalls_limit > 0) {
        struct bench_spread own = spread_of(series, rounds, syscalls);
        ok = ok && own.median <= row->syscalls_limit;
        if (own.low < 0) bench_note(result, "system calls not counted: that needs root and a mounted tracefs");
        else bench_note(result, "%.4f system calls a message, both sides", own.median);
    }
    return ok;
}

static int run_row(const struct row *row, const struct bench_options *options, struct bench_result *result)
{
    const struct bench_subject *subjects[SUBJECTS_MAX] = { row->plait };
    struct bench_load loads[SUBJECTS_MAX];
    struct bench_round *series;
    unsigned raw_count = 0, rounds = options->rounds * (row->rounds_times ? row->rounds_times : 1);
    int r;

    if (row->figure == switches) rounds = 1; /* ten seconds of silence are one observation */
    if (rounds > BENCH_ROUNDS_MAX) rounds = BENCH_ROUNDS_MAX;
    while (raw_count < SUBJECTS_MAX - 1 && row->raw[raw_count]) {
        subjects[raw_count + 1] = row->raw[raw_count];
        raw_count++;
    }
    for (unsigned i = 0; i <= raw_count; i++) {
        loads[i] = row->load;
        if (i > 0 && row->lone_raw) loads[i].crowd = 0;
        if (i > 0 && row->small_raw) loads[i].size = 64;
        if (i == 1 && row->small_raw) loads[i].elsewhere = row->load.size;
    }
    *result = (struct bench_result){ .id = row->id, .what = row->what, .unit = row->unit, .goal = row->goal };
    series = calloc((size_t)(raw_count + 1) * rounds, sizeof(*series));
    if (!series) return -ENOMEM;
    r = bench_interleave(subjects, loads, raw_count + 1, rounds, series);
    if (r == 0) {
        result->plait = spread_of(series, rounds, row->figure);
        if (row->figure == p50) {
            result->p90 = spread_of(series, rounds, p90).median;
            result->p99 = spread_of(series, rounds, p99).median;
            result->max = spread_of(series, rounds, most).median;
            result->per_second = spread_of(series, rounds, per_second).median;
        }
        if (raw_count > 0) judge_raw(row, series, rounds, raw_count, result);
        result->verdict = reached(row, series, rounds, result) ? BENCH_REACHED : BENCH_MISSED;
        if (row->unjudged || (row->figure == kib && !series->own_memory)) result->verdict = BENCH_SHOWN;
    }
    free(series);
    return r;
}

static bool wanted(const struct row *row, const struct bench_options *options)
{
    return !options->only || strncmp(row->id, options->only, strlen(options->only)) == 0;
}

int bench_table(const struct bench_options *options)
{
    unsigned judged = 0, met = 0, failed = 0, printed = 0;
    uint64_t start = bench_now();

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct bench_result result;
        int r;
        if (!wanted(&rows[i], options)) continue;
        if (printed++ == 0) bench_print_head(options);
        r = run_row(&rows[i], options, &result);
        if (r == -EINTR) return r;
        if (r < 0) { /* said on stderr; the other rows are worth having */
            failed++;
            result.verdict = BENCH_FAILED;
        }
        judged += result.verdict != BENCH_SHOWN;
        met += result.verdict == BENCH_REACHED;
        bench_print(options, &result);
    }
    if (printed == 0) return -ENOENT;
    bench_print_end(options, met, judged, (double)(bench_now() - start) / 1e9);
    return failed ? -EIO : met < judged;
}
