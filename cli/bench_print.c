/* bench_print: the figures, as a table for people or as JSON lines (docs/command.md has the schema). */
#include "bench.h"

#include <stdarg.h>
#include <string.h>
#include <sys/utsname.h>

void bench_note(struct bench_result *result, const char *format, ...)
{
    size_t used = strlen(result->note);
    va_list arguments;

    if (used > 0 && used + 2 < sizeof(result->note)) {
        memcpy(result->note + used, "; ", 3);
        used += 2;
    }
    va_start(arguments, format);
    vsnprintf(result->note + used, sizeof(result->note) - used, format, arguments);
    va_end(arguments);
}

/* Three figures that mean something, never an exponent. */
static const char *number(double value, char text[24])
{
    int decimals = value >= 100 ? 0 : value >= 10 ? 1 : 2;

    snprintf(text, 24, "%.*f", decimals, value);
    return text;
}

static const char *spread_text(struct bench_spread spread, char text[80])
{
    char median[24], low[24], high[24];

    snprintf(text, 80, "%s (%s..%s)", number(spread.median, median), number(spread.low, low),
             number(spread.high, high));
    return text;
}

void bench_print_head(const struct bench_options *options)
{
    struct utsname machine = { 0 };

    if (options->json) return;
    uname(&machine);
    printf("%s, %d CPU%s, %u rounds; median (lowest..highest) of the rounds\n", machine.release, bench_cpus(),
           bench_cpus() == 1 ? ": both processes share it, spinning figures mean nothing" : "s", options->rounds);
    printf("%-36s %-27s %-15s %-27s %6s  %-30s\n", "what", "plait", "compared with", "", "ratio", "to reach");
}

static void print_single(const struct bench_result *result)
{
    char text[80];

    printf("%s: %s %s", result->what, spread_text(result->plait, text), result->unit);
    if (result->p99 > 0)
        printf(", p90 %.2f, p99 %.2f, max %.0f, %.0f calls/s", result->p90, result->p99, result->max,
               result->per_second);
    if (result->raw_name)
        printf("\n%s: %s %s, ratio %.2f", result->raw_name, spread_text(result->raw, text), result->unit,
               result->ratio);
    printf("\n");
}

static void print_row(const struct bench_result *result)
{
    static const char *const verdicts[] = { "MISSED", "reached", "", "FAILED" };
    char plait[80] = "not measured", raw[80] = "", ratio[24] = "";

    if (result->verdict != BENCH_FAILED) spread_text(result->plait, plait);
    if (result->raw_name) spread_text(result->raw, raw);
    if (result->ratio > 0) snprintf(ratio, sizeof(ratio), "%.2f", result->ratio);
    printf("%-36s %-27s %-15s %-27s %6s  %-30s %s\n", result->what, plait, result->raw_name ? result->raw_name : "",
           raw, ratio, result->goal, verdicts[result->verdict]);
    if (result->p99 > 0) printf("    p90 %.2f, p99 %.2f, max %.0f us\n", result->p90, result->p99, result->max);
    if (result->note[0]) printf("    %s\n", result->note);
}

static void print_json(const struct bench_result *result)
{
    static const char *const verdicts[] = { "false", "true", "null", "false" };
    const struct bench_spread *own = &result->plait, *raw = &result->raw;

    printf("{\"kind\":\"bench\",\"row\":\"%s\",\"what\":\"%s\",\"unit\":\"%s\",\"plait\":", result->id, result->what,
           result->unit);
    if (result->verdict == BENCH_FAILED) printf("null");
    else printf("{\"median\":%.4f,\"min\":%.4f,\"max\":%.4f", own->median, own->low, own->high);
    if (result->p99 > 0)
        printf(",\"p90\":%.4f,\"p99\":%.4f,\"slowest\":%.4f,\"per_second\":%.0f", result->p90, result->p99, result->max,
               result->per_second);
    printf("%s,\"raw\":", result->verdict == BENCH_FAILED ? "" : "}");
    if (result->raw_name)
        printf("{\"name\":\"%s\",\"median\":%.4f,\"min\":%.4f,\"max\":%.4f}", result->raw_name, raw->median, raw->low,
               raw->high);
    else printf("null");
    if (result->ratio > 0) printf(",\"ratio\":%.4f", result->ratio);
    else printf(",\"ratio\":null");
    printf(",\"goal\":\"%s\",\"ok\":%s,\"note\":\"%s\"}\n", result->goal ? result->goal : "", verdicts[result->verdict],
           result->note);
}

void bench_print(const struct bench_options *options, const struct bench_result *result)
{
    if (options->json) print_json(result);
    else if (!result->goal) print_single(result);
    else print_row(result);
    fflush(stdout);
}

void bench_print_end(const struct bench_options *options, unsigned reached, unsigned judged, double seconds)
{
    if (!options->json) printf("%u of %u reached, in %.0f s\n", reached, judged, seconds);
}
