/* bench_rows: the rows of the table that `plait bench` without arguments prints: data alone.
 *
 * A row is plait in one set-up, one or two raw primitives, a load, which of a round's figures counts and what it must
 * reach. Where the scheduler is free to put both processes on one CPU or on two, a round trip has two modes that differ
 * fivefold: such rows have more and shorter rounds.
 */
#include "bench_rows.h"

#include <plait/plait.h>

#define MS 1000000u
#define KIB 1024u
#define MIB (1024u * 1024u)

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
        .raw = { unix_stream }, .load = LARGE(bytes, time), .figure = bench_p50, .factor = 1.0                         \
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
      .figure = bench_p50,                                                                                             \
      .factor = 1.5,                                                                                                   \
      .small_raw = true },                                                                                             \
    {                                                                                                                  \
        .id = "loan-call-" name, .what = label " by loan, the call", .unit = "us", .goal = "to be seen",               \
        .plait = &spinning, .raw = { &spinning_64, &spinning_alone, &handed }, .shown = 2, .load = HANDED(bytes),      \
        .figure = bench_whole_call, .small_raw = true, .unjudged = true                                                \
    }

#define TOPIC_LOAN_ROW(name, label, bytes)                                                                             \
    {                                                                                                                  \
        .id = "topic-loan-" name, .what = label " by loan, to the subscriber", .unit = "us",                           \
        .goal = "<= 1.5 x 64 B, no page faults", .plait = &topic_loan,                                                 \
        .raw = { &topic_loan_64, &topic_loan_alone, &handed }, .shown = 2, .load = HANDED(bytes), .figure = bench_p50, \
        .factor = 1.5, .small_raw = true                                                                               \
    }

#define TOPIC_ROW(others)                                                                                              \
    {                                                                                                                  \
        .id = "topic-publish-" #others, .what = "publish 64 B, " #others " registered", .unit = "us",                  \
        .goal = "<= 0.06", .plait = &topic,                                                                            \
        .load = { .size = 64, .crowd = (others), .seconds = 0.2, .drive = bench_drive_publish }, .figure = bench_p50,  \
        .limit = 0.06                                                                                                  \
    }

const struct bench_row bench_rows[] = {
    { .id = "spinning",
      .what = "64 B call, spinning, two CPUs",
      .unit = "us",
      .goal = "<= 1.3 x raw + 0.15",
      .plait = &spinning,
      .raw = { &lines },
      .load = CALLS_IN(64, BENCH_TWO_CPUS, 16, 0),
      .figure = bench_p50,
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
      .figure = bench_p50,
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
      .figure = bench_p50,
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
      .figure = bench_p50,
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
      .figure = bench_p50,
      .factor = 1.2,
      .p99_limit = 25 },
    { .id = "adaptive-free",
      .what = "64 B call, default, unpinned",
      .unit = "us",
      .goal = "<= 1.2 x spinning, p99 <= 25",
      .plait = &plait,
      .raw = { &spinning },
      .load = CALLS(64, BENCH_UNPINNED),
      .figure = bench_p50,
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
      .figure = bench_p50,
      .factor = 1.15 },
    { .id = "idle",
      .what = "idle for 10 s: context switches",
      .unit = "",
      .goal = "0",
      .plait = &plait,
      .load = { .size = 64, .seconds = 10, .drive = bench_drive_idle },
      .figure = bench_switches,
      .limit = 0.5 },
    { .id = "oneway",
      .what = "64 B one way, one connection",
      .unit = "M/s",
      .goal = ">= 10 M/s, 0 syscalls",
      .plait = &plait,
      .raw = { &ring },
      .load = { .size = 64, .seconds = 0.3, .placement = BENCH_TWO_CPUS, .drive = bench_drive_stream },
      .figure = bench_million_per_second,
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
      .figure = bench_million_per_second,
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
      .figure = bench_p50,
      .factor = 1.15 },
    { .id = "tcp-free",
      .what = "64 B call, TCP, unpinned",
      .unit = "us",
      .goal = "<= 1.15 x raw",
      .plait = &plait_tcp,
      .raw = { &tcp },
      .load = CALLS(64, BENCH_UNPINNED),
      .figure = bench_p50,
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
      .figure = bench_p50,
      .factor = 1.15 },
    { .id = "raw-tcp-free",
      .what = "64 B call, raw framing, unpinned",
      .unit = "us",
      .goal = "<= 1.15 x raw",
      .plait = &plait_raw,
      .raw = { &tcp, &plait_raw_server },
      .shown = 1,
      .load = CALLS(64, BENCH_UNPINNED),
      .figure = bench_p50,
      .factor = 1.15,
      .rounds_times = 3 },
    { .id = "udp-two",
      .what = "64 B call, UDP, two CPUs",
      .unit = "us",
      .goal = "<= 1.15 x raw",
      .plait = &plait_udp,
      .raw = { &udp_placed },
      .load = CALLS(64, BENCH_TWO_CPUS),
      .figure = bench_p50,
      .factor = 1.15 },
    { .id = "udp-free",
      .what = "64 B call, UDP, unpinned",
      .unit = "us",
      .goal = "<= 1.15 x raw",
      .plait = &plait_udp,
      .raw = { &udp },
      .load = CALLS(64, BENCH_UNPINNED),
      .figure = bench_p50,
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
      .figure = bench_p50,
      .factor = 1.2 },
    { .id = "plain-16M-unix",
      .what = "16 MiB call without a loan",
      .unit = "us",
      .goal = "1.5 x faster than a Unix stream",
      .plait = &plait,
      .raw = { &unix_any },
      .load = LARGE(16 * MIB, 0.3),
      .figure = bench_p50,
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
      .figure = bench_p50,
      .limit = 0.1 },
    { .id = "topic-held-100",
      .what = "publish 64 B, 100 asleep",
      .unit = "us",
      .goal = "<= 10",
      .plait = &topic,
      .raw = { &wake_one },
      .load = { .size = 8, .crowd = 100, .seconds = 4, .drive = bench_drive_wake },
      .figure = bench_p50,
      .limit = 10 },
    { .id = "topic-awake-100",
      .what = "until the last of 100 is awake",
      .unit = "us",
      .goal = "<= 1.25 x one bare wake-all",
      .plait = &topic,
      .raw = { &wake_all },
      .load = { .size = 8, .crowd = 100, .seconds = 4, .drive = bench_drive_wake },
      .figure = bench_whole_call,
      .factor = 1.25 },
    { .id = "topic-oneway",
      .what = "64 B to one subscriber, spinning",
      .unit = "M/s",
      .goal = ">= 10 M/s",
      .plait = &topic_spinning,
      .load = { .size = 64, .crowd = 1, .seconds = 0.3, .placement = BENCH_TWO_CPUS, .drive = bench_drive_fanout },
      .figure = bench_million_per_second,
      .limit = 10,
      .rate = true },
    { .id = "topic-reliable-100",
      .what = "64 B to 100 subscribers, reliable",
      .unit = "M/s",
      .goal = "to be seen",
      .plait = &topic,
      .load = { .size = 64, .crowd = 100, .seconds = 0.5, .drive = bench_drive_fanout },
      .figure = bench_million_per_second,
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
      .figure = bench_p50,
      .factor = 1.5 },
    { .id = "connect",
      .what = "connect + first call, 200 times",
      .unit = "us",
      .goal = "<= 400",
      .plait = &plait,
      .load = { .size = 64, .most = 200, .drive = bench_drive_connect },
      .figure = bench_p50,
      .limit = 400 },
    { .id = "memory",
      .what = "memory per connection, of 1,000",
      .unit = "KiB",
      .goal = "<= 32",
      .plait = &plait,
      .load = { .size = 64, .crowd = 1000, .pause_ns = 200 * MS, .seconds = 2, .drive = bench_drive_memory },
      .figure = bench_kib,
      .limit = 32 },
    { .id = "crowd",
      .what = "64 B call, 1,000 connected, two CPUs",
      .unit = "us",
      .goal = "<= 1.3 x alone",
      .plait = &plait,
      .raw = { &plait },
      .load = CALLS_IN(64, BENCH_TWO_CPUS, 1, 1000),
      .lone_raw = true,
      .figure = bench_p50,
      .factor = 1.3 },
};

const size_t bench_row_count = sizeof(bench_rows) / sizeof(*bench_rows);
