/* options: options anywhere before "--", from a table that help is printed from too. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum option_kind {
    OPTION_FLAG,     /* bool */
    OPTION_TEXT,     /* const char * */
    OPTION_LIST,     /* struct option_list */
    OPTION_NUMBER,   /* int64_t, minimum to maximum */
    OPTION_DECIMAL,  /* int64_t, thousandths, minimum to maximum: "0.5" is 500 */
    OPTION_DURATION, /* int64_t, milliseconds, more than 0, or PLAIT_FOREVER */
    OPTION_CHOICE,   /* int: index into choices */
};

#define OPTION_LIST_MAX 32

struct option_list {
    const char *items[OPTION_LIST_MAX];
    int count;
};

struct option {
    const char *name;     /* "--timeout" */
    const char *argument; /* "T", or NULL for a flag */
    const char *help;
    enum option_kind kind;
    void *value; /* where it goes; borrowed */
    int64_t minimum, maximum;
    const char *const *choices; /* ends with NULL */
};

/* Takes the options out of argv (argv[0] is the verb) and stores their values; stops at "--", which stays.
 * Returns the new argc, or -1 after saying on stderr what is wrong. */
int options_parse(const struct option *options, int argc, char **argv);

/* Removes the first "--"; returns the new argc and, in *ret_literal, the index of the first word that stood
 * behind it (argc if there was none): such a word is never taken for "-". */
int options_drop_dashes(int argc, char **argv, int *ret_literal);

/* "300ms", "5s", "1.5m", "2h", "forever"; a bare number is ms. False: not a duration. */
bool duration_parse(const char *text, int64_t *ret_ms);

/* Whole decimal numbers only. */
bool number_parse(const char *text, int64_t minimum, int64_t maximum, int64_t *ret_number);

/* The number of edits (insert, delete, replace, swap neighbours) from A to B, at most LIMIT + 1. */
int edit_distance(const char *a, const char *b, int limit);

#endif
