/* peer: the same measurements over different libraries, for bench/peers/run.
 *
 * Each program is peer.c and one file that fills in a struct peer: a server process that echoes,
 * one that only takes, and a client that calls and sends; and one that publishes to many.
 * Replies, order and completeness are checked. Addresses are paths
 * in a private directory; both sides are unpinned and use their library's defaults.
 */
#ifndef PEER_H
#define PEER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct peer {
    /* The server processes; never return but on failure. ADDRESS is a path that nobody uses yet. */
    int (*serve_echo)(const char *address);
    int (*serve_sink)(const char *address, int done_fd); /* a byte to DONE_FD after the last message */

    /* The client's side. NULL or negative on failure. */
    void *(*open)(const char *address, int one_way); /* waits for the server */
    int (*call)(void *client, const void *data, size_t size, void *ret_reply);
    int (*send)(void *client, const void *data, size_t size);

    /* One to many. NULL where the library has nothing of the kind that loses nothing. A subscriber's process reads
     * until the last message, then writes a byte to DONE_FD; it may start before the publisher, which waits for COUNT
     * of them.
     */
    int (*subscribe)(const char *address, int done_fd);
    void *(*open_publisher)(const char *address, int count);
    int (*publish)(void *publisher, const void *data, size_t size);
};

extern const struct peer peer;

/* One-way messages begin with a number; this one is the last's. */
#define PEER_LAST UINT64_MAX

/* Behind it stands, in what goes to many, how many messages there were before, whichever it is. */
static inline int peer_is_due(const void *data, uint64_t count)
{
    return memcmp((const char *)data + sizeof(count), &count, sizeof(count)) == 0;
}

static inline int peer_is_last(const void *data)
{
    uint64_t number;

    memcpy(&number, data, sizeof(number));
    return number == PEER_LAST;
}

#endif
