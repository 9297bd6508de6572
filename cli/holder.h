/* holder: who listens on the port that one would like to have. */
#ifndef CLI_HOLDER_H
#define CLI_HOLDER_H

#include <stdbool.h>
#include <stddef.h>

/* "port 8888 is held by process 123 (nc)" for the URL of a listener that was refused with -EADDRINUSE. False: nobody
 * listens there (any more), or the URL has no port. Of other users' processes only root sees more than that. */
bool holder_of(const char *url, char *text, size_t size);

#endif
