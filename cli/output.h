/* output: what goes to standard output and standard error: tables for people, JSON lines for programs.
 *
 * A reader that has gone away (`| head -1`) is no error: output_failed() then says so quietly and the command
 * ends with 0. Any other failure to write is one. Names that come from other processes are shown with their
 * control characters replaced, so that nobody can drive the terminal through a process name.
 */
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Once, first of all: closed standard descriptors are filled, so that no socket becomes descriptor 1; SIGPIPE
 * is ignored in favour of EPIPE. */
void output_init(void);

/* "plait: MESSAGE\n" on standard error. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* True once standard output can't be written any more. */
bool output_failed(void);

/* Flushes; the command's exit status given that it would be STATUS. */
int output_finish(int status);

/* ---- JSON: one object per line ---- */

void json_begin(const char *kind);
void json_text(const char *key, const char *value);              /* invalid UTF-8 becomes U+FFFD; NULL is null */
void json_bytes(const char *key, const void *data, size_t size); /* as text; must be valid UTF-8 */
void json_base64(const char *key, const void *data, size_t size);
void json_number(const char *key, uint64_t value);
void json_integer(const char *key, int64_t value);
void json_decimal(const char *key, double value); /* one decimal place */
void json_bool(const char *key, bool value);
void json_id(const char *key, uint64_t value); /* 16 hex digits as text: more than a double holds */
void json_array(const char *key);
void json_item(const char *data, size_t size); /* a string in the array */
void json_array_end(void);
void json_words(const char *key, const char *words); /* separated by spaces; an array of strings */
void json_end(void);                                 /* and the newline; flushes */

bool utf8_valid(const void *data, size_t size);

/* ---- tables ---- */

#define TABLE_COLUMNS_MAX 12

struct table {
    int columns;
    bool right[TABLE_COLUMNS_MAX]; /* numbers */
    char **cells;
    size_t count, room;
};

/* HEADS: words separated by '|'; one that begins with '>' is a right-aligned column. */
void table_init(struct table *table, const char *heads);
void table_add(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3))); /* a cell */
void table_print(struct table *table);                                                              /* and frees */
void table_free(struct table *table);

/* "3 s", "5 min", "2 h", "4 d" since MS (Unix time); returns TEXT. */
const char *age_text(uint64_t ms, char text[16]);

/* TEXT with control characters replaced by '?', on standard output. */
void print_clean(FILE *file, const char *text);

#endif
