/* bench_table: measures and judges rows.
 *
 * All subjects of a row take turns round by round, so that whatever the machine is doing happens to each of them;
 * medians of the rounds are compared.
 */
#include "bench_rows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

double bench_p50(const struct bench_round *round)
{
    return round->p50;
}

double bench_whole_call(const struct bench_round *round)
{
    return round->call;
}

double bench_faults(const struct bench_round *round)
{
    return round->faults;
}

double bench_million_per_second(const struct bench_round *round)
{
    return round->per_second / 1e6;
}

double bench_switches(const struct bench_round *round)
{
    return round->switches;
}

double bench_kib(const struct bench_round *round)
{
    return round->bytes / 1024;
}

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
static void judge_raw(const struct bench_row *row, const struct bench_round *series, unsigned rounds,
                      unsigned raw_count, struct bench_result *result)
{
    unsigned compared = raw_count - row->shown, best = 0;
    struct bench_spread spreads[BENCH_SUBJECTS_MAX - 1];

    for (unsigned i = 0; i < raw_count; i++) {
        spreads[i] = spread_of(series + (i + 1) * rounds, rounds, row->figure);
        if (i < compared && spreads[i].median < spreads[best].median) best = i;
    }
    result->raw_name = row->lone_raw ? "alone" : row->raw[best]->name;
    result->raw = spreads[best];
    result->ratio = spreads[best].median > 0 ? result->plait.median / spreads[best].median : 0;
    for (unsigned i = 0; i < raw_count; i++) {
        if (i != best) bench_note(result, "%s %.3g", row->raw[i]->name, spreads[i].median);
        if (row->figure == bench_p50 && row->load.drive != bench_drive_loans && series[(i + 1) * rounds].syscalls >= 0)
            bench_note(result, "%s %.3g system calls", row->raw[i]->name, series[(i + 1) * rounds].syscalls);
        remark_raw(row->raw[i], spreads[i], result);
    }
}

static bool reached(const struct bench_row *row, const struct bench_round *series, unsigned rounds,
                    struct bench_result *result)
{
    double m = result->plait.median;
    bool ok = true;

    if (row->factor > 0) ok = ok && m <= row->factor * result->raw.median + row->slack;
    if (row->limit > 0) ok = ok && (row->rate ? m >= row->limit : m <= row->limit);
    if (row->p99_limit > 0) ok = ok && result->p99 <= row->p99_limit;
    if (row->switches_limit > 0) {
        struct bench_spread own = spread_of(series, rounds, bench_switches);
        ok = ok && own.median <= row->switches_limit;
        bench_note(result, "%.2f voluntary switches a round trip", own.median);
    }
    if (row->load.drive == bench_drive_loans) {
        struct bench_spread own = spread_of(series, rounds, bench_faults);
        ok = ok && own.median < 0.01;
        bench_note(result, "%.4f page faults a call, both sides", own.median);
    } else if (row->figure == bench_p50 && spread_of(series, rounds, syscalls).low >= 0)
        bench_note(result, "%.3g system calls a round trip, both sides", spread_of(series, rounds, syscalls).median);
    if (row->figure == bench_kib)
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

static int run_row(const struct bench_row *row, const struct bench_options *options, struct bench_result *result)
{
    const struct bench_subject *subjects[BENCH_SUBJECTS_MAX] = { row->plait };
    struct bench_load loads[BENCH_SUBJECTS_MAX];
    struct bench_round *series;
    unsigned raw_count = 0, rounds = options->rounds * (row->rounds_times ? row->rounds_times : 1);
    int r;

    if (row->figure == bench_switches) rounds = 1; /* ten seconds of silence are one observation */
    if (rounds > BENCH_ROUNDS_MAX) rounds = BENCH_ROUNDS_MAX;
    while (raw_count < BENCH_SUBJECTS_MAX - 1 && row->raw[raw_count]) {
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
        if (row->figure == bench_p50) {
            result->p90 = spread_of(series, rounds, p90).median;
            result->p99 = spread_of(series, rounds, p99).median;
            result->max = spread_of(series, rounds, most).median;
            result->per_second = spread_of(series, rounds, per_second).median;
        }
        if (raw_count > 0) judge_raw(row, series, rounds, raw_count, result);
        result->verdict = reached(row, series, rounds, result) ? BENCH_REACHED : BENCH_MISSED;
        if (row->unjudged || (row->figure == bench_kib && !series->own_memory)) result->verdict = BENCH_SHOWN;
    }
    free(series);
    return r;
}

static bool wanted(const struct bench_row *row, const struct bench_options *options)
{
    return !options->only || strncmp(row->id, options->only, strlen(options->only)) == 0;
}

int bench_table(const struct bench_options *options)
{
    unsigned judged = 0, met = 0, failed = 0, printed = 0;
    uint64_t start = bench_now();

    for (size_t i = 0; i < bench_row_count; i++) {
        struct bench_result result;
        int r;
        if (!wanted(&bench_rows[i], options)) continue;
        if (printed++ == 0) bench_print_head(options);
        r = run_row(&bench_rows[i], options, &result);
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
