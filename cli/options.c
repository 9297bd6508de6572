/* options: a table walk; unknown ones get the nearest known one suggested. */
#include "options.h"
#include "command.h"
#include <plait/plait.h>
#include <stdio.h>
#include <string.h>

bool number_parse(const char *text, int64_t minimum, int64_t maximum, int64_t *ret_number)
{
    bool negative = *text == '-';
    int64_t number = 0;

    text += negative;
    if (!*text) return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || number > (INT64_MAX - 9) / 10) return false;
        number = number * 10 + (*text - '0');
    }
    if (negative) number = -number;
    if (number < minimum || number > maximum) return false;
    *ret_number = number;
    return true;
}

/* What stands behind the decimal point, in thousandths: 0 to 999, or -1. *at moves behind it; it may be missing. */
static int64_t thousandths_parse(const char **at)
{
    int64_t sum = 0, place = 100;
    const char *p = *at;

    if (*p != '.') return 0;
    if (p[1] < '0' || p[1] > '9') return -1;
    for (p++; *p >= '0' && *p <= '9'; p++, place /= 10) sum += (*p - '0') * place;
    *at = p;
    return sum;
}

static bool decimal_parse(const char *text, int64_t minimum, int64_t maximum, int64_t *ret_thousandths)
{
    char whole[20];
    size_t size = strspn(text, "0123456789");
    const char *rest = text + size;
    int64_t number, thousandths = thousandths_parse(&rest);

    snprintf(whole, sizeof(whole), "%.*s", (int)size, text);
    if (size >= sizeof(whole) || *rest || thousandths < 0 || !number_parse(whole, 0, maximum / 1000, &number))
        return false;
    number = number * 1000 + thousandths;
    if (number < minimum || number > maximum) return false;
    *ret_thousandths = number;
    return true;
}

static int64_t unit_ms(const char *unit)
{
    if (!*unit || strcmp(unit, "ms") == 0) return 1;
    if (strcmp(unit, "s") == 0) return 1000;
    if (strcmp(unit, "m") == 0 || strcmp(unit, "min") == 0) return 60000;
    return strcmp(unit, "h") == 0 ? 3600000 : 0;
}

bool duration_parse(const char *text, int64_t *ret_ms)
{
    static const int64_t day_1000 = (int64_t)1000 * 86400000; /* bounds the sums below */
    int64_t whole = 0, thousandths, unit;
    const char *p = text;

    if (strcmp(text, "forever") == 0) {
        *ret_ms = PLAIT_FOREVER;
        return true;
    }
    if (*p < '0' || *p > '9') return false;
    for (; *p >= '0' && *p <= '9'; p++) {
        whole = whole * 10 + (*p - '0');
        if (whole > day_1000) return false;
    }
    thousandths = thousandths_parse(&p);
    unit = unit_ms(p);
    if (thousandths < 0 || unit == 0 || whole > day_1000 / unit) return false;
    whole = whole * unit + thousandths * unit / 1000;
    if (whole == 0 && thousandths > 0) whole = 1; /* 0.1ms asks for something, and 0 would mean "the default" */
    *ret_ms = whole;
    return true;
}

#define WORD_MAX 64

int edit_distance(const char *a, const char *b, int limit)
{
    int row[3][WORD_MAX + 1], *before = row[0], *last = row[1], *now = row[2], *free_row;
    size_t na = strlen(a), nb = strlen(b);

    if (na > WORD_MAX || nb > WORD_MAX) return limit + 1;
    for (size_t j = 0; j <= nb; j++) last[j] = (int)j;
    for (size_t i = 1; i <= na; i++) {
        now[0] = (int)i;
        for (size_t j = 1; j <= nb; j++) {
            int best = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (last[j] + 1 < best) best = last[j] + 1;
            if (now[j - 1] + 1 < best) best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
        free_row = before;
        before = last;
        last = now;
        now = free_row;
    }
    return last[nb] > limit ? limit + 1 : last[nb];
}

static const struct option *find(const struct option *options, const char *name, size_t size)
{
    for (; options->name; options++) {
        if (strlen(options->name) == size && strncmp(options->name, name, size) == 0) return options;
    }
    return NULL;
}

static void say_unknown(const struct option *options, const char *verb, const char *word)
{
    const struct option *near = NULL;
    int best = 3;

    for (; options->name; options++) {
        int distance = edit_distance(word, options->name, 2);
        if (distance < best) {
            best = distance;
            near = options;
        }
    }
    if (near) command_usage(verb, "%s: no such option; did you mean %s?", word, near->name);
    else command_usage(verb, "%s: no such option; words behind -- are never options", word);
}

static bool store_choice(const struct option *option, const char *text)
{
    for (int i = 0; option->choices[i]; i++) {
        if (strcmp(option->choices[i], text) == 0) {
            *(int *)option->value = i;
            return true;
        }
    }
    return false;
}

static bool store_list(const struct option *option, const char *text)
{
    struct option_list *list = option->value;

    if (list->count == OPTION_LIST_MAX) return false;
    list->items[list->count++] = text;
    return true;
}

static bool store_duration(const struct option *option, const char *text)
{
    int64_t ms;

    if (!duration_parse(text, &ms) || ms == 0) return false;
    *(int64_t *)option->value = ms;
    return true;
}

static void say_wrong(const struct option *option, const char *verb, const char *text)
{
    char known[200];
    size_t used = 0;

    switch (option->kind) {
    case OPTION_NUMBER:
        command_usage(verb, "%s %s: not a number from %lld to %lld", option->name, text, (long long)option->minimum,
                      (long long)option->maximum);
        break;
    case OPTION_DECIMAL:
        command_usage(verb, "%s %s: not a number from %.15g to %.15g", option->name, text,
                      (double)option->minimum / 1000, (double)option->maximum / 1000);
        break;
    case OPTION_DURATION:
        command_usage(verb, "%s %s: not a time span; write 300ms, 5s, 2m, 1h, forever, or milliseconds, more than 0",
                      option->name, text);
        break;
    case OPTION_CHOICE:
        known[0] = 0;
        for (int i = 0; option->choices[i] && used < sizeof(known) - 32; i++)
            used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s", i ? ", " : "", option->choices[i]);
        command_usage(verb, "%s %s: not one of %s", option->name, text, known);
        break;
    case OPTION_LIST: command_usage(verb, "%s: given more than %d times", option->name, OPTION_LIST_MAX); break;
    default: command_usage(verb, "%s %s: not understood", option->name, text);
    }
}

static bool store(const struct option *option, const char *verb, const char *text)
{
    bool good = true;

    switch (option->kind) {
    case OPTION_FLAG: *(bool *)option->value = true; break;
    case OPTION_TEXT: *(const char **)option->value = text; break;
    case OPTION_LIST: good = store_list(option, text); break;
    case OPTION_NUMBER: good = number_parse(text, option->minimum, option->maximum, option->value); break;
    case OPTION_DECIMAL: good = decimal_parse(text, option->minimum, option->maximum, option->value); break;
    case OPTION_DURATION: good = store_duration(option, text); break;
    case OPTION_CHOICE: good = store_choice(option, text); break;
    }
    if (!good) say_wrong(option, verb, text);
    return good;
}

int options_parse(const struct option *options, int argc, char **argv)
{
    int kept = 1, i;

    for (i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        const char *word = argv[i], *value = strchr(word, '=');
        size_t size = value ? (size_t)(value - word) : strlen(word);
        const struct option *option;

        if (word[0] != '-' || !word[1]) {
            argv[kept++] = argv[i];
            continue;
        }
        option = find(options, word, size);
        if (!option) {
            say_unknown(options, argv[0], word);
            return -1;
        }
        if (option->kind == OPTION_FLAG && value) {
            command_usage(argv[0], "%s: takes no value", option->name);
            return -1;
        }
        if (value) value++;
        else if (option->kind != OPTION_FLAG && i + 1 < argc && strcmp(argv[i + 1], "--") != 0) value = argv[++i];
        if (option->kind != OPTION_FLAG && !value) {
            command_usage(argv[0], "%s: needs a value, %s", option->name, option->argument);
            return -1;
        }
        if (!store(option, argv[0], value)) return -1;
    }
    for (; i < argc; i++) argv[kept++] = argv[i];
    argv[kept] = NULL;
    return kept;
}

int options_drop_dashes(int argc, char **argv, int *ret_literal)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--") != 0) continue;
        memmove(&argv[i], &argv[i + 1], (size_t)(argc - i) * sizeof(*argv));
        *ret_literal = i;
        return argc - 1;
    }
    *ret_literal = argc;
    return argc;
}
