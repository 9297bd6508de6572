/* bench_rows: what a row of `plait bench`'s table is. bench_rows.c has the rows, bench_table.c measures and judges
 * them. */
#ifndef PLAIT_CLI_BENCH_ROWS_H
#define PLAIT_CLI_BENCH_ROWS_H

#include "bench.h"

enum { BENCH_SUBJECTS_MAX = 4 };

struct bench_row {
    const char *id, *what, *unit, *goal;
    const struct bench_subject *plait, *raw[BENCH_SUBJECTS_MAX - 1]; /* compared with the better of those not `shown` */
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

/* Figures of a round that a row may be about. */
double bench_p50(const struct bench_round *round);
double bench_whole_call(const struct bench_round *round);
double bench_faults(const struct bench_round *round);
double bench_million_per_second(const struct bench_round *round);
double bench_switches(const struct bench_round *round);
double bench_kib(const struct bench_round *round);

extern const struct bench_row bench_rows[];
extern const size_t bench_row_count;

#endif
