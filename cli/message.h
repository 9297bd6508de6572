/* message: what the verbs that send or print messages share: DATA, encodings, bodies, listeners, the log. */
#ifndef CLI_MESSAGE_H
#define CLI_MESSAGE_H

#include <plait/plait.h>
#include <stdbool.h>
#include <stddef.h>

/* "bytes", "utf8", ...: each plait_encoding in its place; ends with NULL, as an option's choices do. */
extern const char *const encoding_names[];

struct data {
    const void *bytes;
    size_t size;
    char *owned; /* what was read from standard input, to be freed */
};

/* DATA, the word behind argv[1]: nothing, the word, or for "-" what standard input holds, unless that word stood behind
 * "--" (at LITERAL or later, see options_drop_dashes). STATUS_OK, or the exit status after saying, in VERB's name, what
 * is wrong. */
int data_take(struct data *ret_data, const char *verb, int argc, char **argv, int literal);

/* The bytes as they are; on a terminal a newline follows unless they end with one. Flushes. */
void print_body(plait_bytes body);

/* "size", and "text" or, for what isn't UTF-8, "base64". */
void json_body(plait_bytes body);

/* "listening on URL" and whom that admits, or an object of kind "listening". */
void announce_listener(const char *url, bool json);

/* What the library says of LEVEL, or worse, is said as complaints of this command, unless $PLAIT_LOG asks for it. */
void log_complaints(plait_log_level level);

#endif
