/* bench_single: one transport, one size, one pattern, beside the raw stream that it competes with. */
#include "bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The raw side of a pattern; NULL: none that carries it. */
static const struct bench_ops *raw_ops(const struct bench_options *options)
{
    if (strcmp(options->pattern, "oneway") == 0 || strcmp(options->pattern, "async") == 0)
        return strcmp(options->transport, "shm") == 0 ? &bench_raw_ring : NULL;
    if (strcmp(options->transport, "udp") == 0) return &bench_raw_udp;
    return strstr(options->transport, "tcp") ? &bench_raw_tcp : &bench_raw_unix;
}

static const char *raw_name(const struct bench_ops *ops)
{
    if (ops == &bench_raw_ring) return "bare ring of 64 B";
    return ops == &bench_raw_tcp ? "TCP" : ops == &bench_raw_udp ? "UDP" : "Unix stream";
}

static struct bench_load make_load(const struct bench_options *options)
{
    struct bench_load load = {
        .size = options->size,
        .batch = 1,
        .warm_calls = options->size > (1u << 20) ? 4 : 200,
        .seconds = 0.4,
        .drive = bench_drive_calls,
    };

    if (strcmp(options->pattern, "oneway") == 0) load.drive = bench_drive_stream;
    if (strcmp(options->pattern, "async") == 0) load.drive = bench_drive_pairs;
    if (load.drive != bench_drive_calls)
        load.placement = BENCH_TWO_CPUS; /* two busy sides on one CPU measure the scheduler */
    if (strcmp(options->pattern, "sparse") == 0) {
        load.pause_ns = 1000000;
        load.warm_calls = 30;
    }
    return load;
}

static struct bench_spread spread_at(const struct bench_round *series, unsigned rounds, size_t offset)
{
    double values[BENCH_ROUNDS_MAX];

    for (unsigned i = 0; i < rounds; i++) memcpy(&values[i], (const char *)&series[i] + offset, sizeof(values[i]));
    return bench_spread_of(values, rounds);
}

int bench_single(const struct bench_options *options)
{
    const struct bench_ops *ops = raw_ops(options);
    struct bench_subject plait = {
        .name = "plait", .ops = &bench_plait, .transport = options->transport, .spin_us = options->spin_us
    };
    struct bench_subject raw = { .name = ops ? raw_name(ops) : NULL, .ops = ops };
    const struct bench_subject *subjects[] = { &plait, &raw };
    struct bench_load loads[] = { make_load(options), make_load(options) };
    struct bench_round series[2 * BENCH_ROUNDS_MAX];
    unsigned n = options->rounds;
    bool flow = loads[0].drive != bench_drive_calls;
    struct bench_result result = { .id = options->pattern, .unit = flow ? "M/s" : "us", .verdict = BENCH_SHOWN };
    char what[64];
    int r;

    snprintf(what, sizeof(what), "%zu B %s, %s", options->size, options->pattern, options->transport);
    result.what = what;
    r = bench_interleave(subjects, loads, ops ? 2 : 1, n, series);
    if (r < 0) return r;
    result.p90 = spread_at(series, n, offsetof(struct bench_round, p90)).median;
    result.p99 = spread_at(series, n, offsetof(struct bench_round, p99)).median;
    result.max = spread_at(series, n, offsetof(struct bench_round, max)).median;
    result.per_second = spread_at(series, n, offsetof(struct bench_round, per_second)).median;
    for (unsigned i = 0; i < 2 * n; i++) series[i].per_second /= 1e6;
    result.plait =
        spread_at(series, n, flow ? offsetof(struct bench_round, per_second) : offsetof(struct bench_round, p50));
    if (ops) {
        result.raw_name = raw.name;
        result.raw = spread_at(series + n, n,
                               flow ? offsetof(struct bench_round, per_second) : offsetof(struct bench_round, p50));
        result.ratio = result.plait.median / result.raw.median;
    }
    bench_print(options, &result);
    return 0;
}
