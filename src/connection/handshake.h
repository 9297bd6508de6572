/* handshake: from a connected socket to a transport, on either side.
 *
 * The client speaks first. Nothing is allocated before its hello is whole and valid. The server creates the
 * shared memory and hands it over: channel, the client's doorbell, the server's doorbell, the load page.
 */
#ifndef PL_CONNECTION_HANDSHAKE_H
#define PL_CONNECTION_HANDSHAKE_H

#include "shm/load.h"
#include "transport/transport.h"
#include "wire/hello.h"

/* ---- server ---- */

struct pl_greeting {
    uint8_t bytes[PL_HELLO_CLIENT_MAX];
    size_t size;
};

/* Reads on SOCKET what is there of the client's hello and not a byte more. PL_HELLO_OK, PL_HELLO_MORE; -EPROTO
 * with a text that says what the bytes look like; -ECONNRESET: the client left. */
int pl_greeting_read(struct pl_greeting *greeting, int socket, struct pl_hello_client *ret_hello);

struct pl_terms {
    uint64_t instance, max_message;
    uint32_t outstanding, concurrency;
    const uint8_t *methods; /* the table as it goes over the wire */
    size_t methods_size;
    uint32_t method_count;
    uint32_t reactor; /* which of CONCURRENCY will serve this connection, from 1; 0: nobody is to know */
    int load_fd;      /* or -1 */
    bool any_method;
    bool shm;              /* shared memory may be used with this client */
    const char *transport; /* the name of the transport where it isn't: "unix", "tcp" */
};

/* Answers a valid hello. Takes SOCKET. 0 and the transport; -EPROTO (major version), ... with text. */
int pl_handshake_accept(struct pl_transport **ret_transport, int socket, const struct pl_hello_client *hello,
                        const struct pl_terms *terms);

/* Tells the client why not, as far as the socket takes it. Borrows SOCKET. */
void pl_handshake_refuse(int socket, int error, const char *text);

/* ---- client ---- */

struct pl_offer {
    const char *name; /* the service, or "" */
    uint64_t max_reply;
    bool shm;              /* ask for shared memory */
    bool reactor;          /* ask which of the server's threads will serve this */
    const char *transport; /* name of the stream otherwise */
};

struct pl_accepted {
    uint64_t instance, max_message, features;
    uint32_t pid, outstanding, concurrency;
    uint32_t reactor; /* which of CONCURRENCY serves this connection, from 1; 0: unknown */
    char **methods;   /* one allocation, free() it; NULL if none */
    uint32_t method_count;
    const struct pl_load_page *load; /* or NULL; pl_load_detach */
};

/* Takes SOCKET; waits until DEADLINE. -ETIMEDOUT, -EPROTO, -ECONNRESET, or what the server says, with text. */
int pl_handshake_connect(struct pl_transport **ret_transport, int socket, const struct pl_offer *offer,
                         uint64_t deadline_ns, struct pl_accepted *ret_accepted);

#endif
