/* peer: the same three measurements over different libraries, for bench/peers/run.
 *
 * Each program is peer.c and one file that fills in a struct peer: a server process that echoes,
 * one that counts, and a client that calls and sends. Replies are checked. Addresses are paths
 * in a private directory; both sides are unpinned and use their library's defaults.
 */
#ifndef PEER_H
#define PEER_H

#include <stddef.h>
#include <stdint.h>

struct peer {
    /* The server processes; never return but on failure. ADDRESS is a path that nobody uses yet. */
    int (*serve_echo)(const char *address);
    int (*serve_count)(const char *address, uint64_t count, int done_fd); /* a byte to DONE_FD after COUNT messages */

    /* The client's side. NULL or negative on failure. */
    void *(*open)(const char *address, int one_way); /* waits for the server */
    int (*call)(void *client, const void *data, size_t size, void *ret_reply);
    int (*send)(void *client, const void *data, size_t size);
};

extern const struct peer peer;

#endif
