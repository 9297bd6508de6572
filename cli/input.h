/* input: standard input as one message. */
#ifndef CLI_INPUT_H
#define CLI_INPUT_H

#include <stddef.h>

/* Reads standard input to its end: 0 and *ret_data, to be freed; -1 after saying what is wrong. */
int input_read(char **ret_data, size_t *ret_size);

#endif
