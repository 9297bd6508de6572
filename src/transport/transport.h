/* transport: how frames of the plait framing move between two processes.
 *
 * Two ways: a byte stream (transport_stream: Unix or TCP socket) and shared memory (transport_shm: two
 * rings, segments, and a Unix socket for what needs one). The seam lies at the frame and not at the
 * byte, because where a body travels (in the ring, in a segment, on the socket) is the transport's own
 * business and decides its speed.
 *
 * Threads: one thread receives (the reactor, the leader); send, flush and own are called under the
 * connection's send lock. The two halves share nothing else.
 */
#ifndef PL_TRANSPORT_TRANSPORT_H
#define PL_TRANSPORT_TRANSPORT_H

#include "base/address.h"
#include "base/loan.h"
#include "observe/status.h"
#include "shm/segment.h"
#include "wire/frame.h"
#include "wire/framing.h"
#include <netinet/in.h>
#include <plait/plait.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PL_INLINE_MAX = 8192 }; /* bodies up to this travel in the ring, and are received in place */

/* Outcomes: handle, never forward. */
enum {
    PL_TRANSPORT_OK = 0,
    PL_TRANSPORT_EMPTY = 1, /* nothing whole has come */
    PL_TRANSPORT_END = 2,   /* the peer will send no more */
    PL_TRANSPORT_FULL = 3   /* no room; nothing was taken */
};

/* A message that came. The body lies in the transport (lent > 0), in `owned`, or in `view`; all of
 * them live until pl_message_release, which must come before the next receive if lent > 0. */
struct pl_message {
    struct pl_frame frame;
    const uint8_t *body;
    size_t size;
    size_t lent;
    uint8_t *owned;
    bool fresh;        /* none of it was there at the receive before; else it has waited since then at least */
    uint64_t admitted; /* what `admit` was asked for and said yes to: the owner takes it back */
    struct pl_segment_view view;
};

/* Where a datagram came from, and so where its answer goes: a server's frame has its address as `call`, which
 * never leaves this process. Lent as the body is. */
struct pl_origin {
    struct pl_address from;
    sa_family_t to_family; /* of the address of ours that was called, where that matters; else AF_UNSPEC */
    union {
        struct in_addr v4;
        struct in6_addr v6;
    } to;
    plait_peer peer; /* made when somebody asks: transport is NULL before */
    char text[PL_ADDRESS_TEXT];
};

/* How a body may be sent. */
enum {
    PL_BODY_COPY = 0,
    PL_BODY_BORROW = 1, /* it stays where it is until `pending` is false or `own` was called */
    PL_BODY_LOANED = 2  /* it begins a loan: if this transport lent it, it is sent as it lies, and stays the holder's */
};

enum pl_spinning {
    PL_SPINNING_NEVER,
    PL_SPINNING_PAUSE, /* the peer was last seen on another CPU */
    PL_SPINNING_YIELD  /* on ours, or who knows: it must get the CPU between two looks */
};

struct pl_transport;

struct pl_transport_ops {
    const char *name; /* "shm", "unix", "tcp", "udp" */

    /* The opening bytes of the handshake, before the first frame; descriptors (borrowed) ride on them. 0, FULL,
     * -errno. NULL where there is no handshake. */
    int (*greet)(struct pl_transport *transport, const void *data, size_t size, const int *fds, size_t count);

    /* Takes all of FRAME and BODY or nothing: 0, FULL, -errno (the connection is over). A large body
     * that doesn't go out at once is copied, but see HOW, a set of PL_BODY_. Visible to the peer after flush. */
    int (*send)(struct pl_transport *transport, const struct pl_frame *frame, const void *body, unsigned how);

    /* Lets the peer see and know; pushes what is pending: 0, FULL (some is pending), -errno. */
    int (*flush)(struct pl_transport *transport);
    bool (*pending)(const struct pl_transport *transport);
    int (*own)(struct pl_transport *transport); /* copies what is borrowed: 0, -ENOMEM */

    /* The next message: 0, EMPTY, END, -errno. */
    int (*receive)(struct pl_transport *transport, struct pl_message *ret_message);
    void (*release)(struct pl_transport *transport, size_t lent);

    /* Whether receive could find something: for spinning; on a socket each look is a system call. */
    bool (*ready)(struct pl_transport *transport);

    /* Before the receiver sleeps: tells the peer to ring. False: something has come, don't. */
    bool (*sleep)(struct pl_transport *transport);
    void (*awake)(struct pl_transport *transport);

    /* Whether looking again and again can pay, and whether the peer needs this very CPU. */
    enum pl_spinning (*spinning)(struct pl_transport *transport);

    /* Epoll said that the socket is readable: the next receive reads from it. */
    void (*readable)(struct pl_transport *transport);

    /* Whether a CANCEL for CALL has come behind the LENT bytes of the message at hand; may read the socket. */
    bool (*cancelled)(struct pl_transport *transport, size_t lent, uint64_t call);

    void (*close)(struct pl_transport *transport);  /* frees; closes its descriptors */
    void (*forget)(struct pl_transport *transport); /* in a forked child: closes descriptors, no more */
};

struct pl_transport {
    const struct pl_transport_ops *ops;
    uint64_t max_message; /* larger incoming ones break the protocol */

    /* Asked before memory for a body above PL_ADMIT_ABOVE is taken; false: not now, receive says
     * EMPTY and asks again. NULL: always. */
    bool (*admit)(void *owner, uint64_t size);
    void *owner;

    /* What the epoll set watches: socket always; bell (or -1) with EPOLLET, never read. */
    int socket, bell;
    const _Atomic uint64_t *moved; /* bytes through the socket so far: progress */
    bool partial;                  /* receive said EMPTY in the middle of a message */
    bool hung_up;                 /* set by the owner when epoll says so; what was committed before is still received */
    bool datagrams;               /* no connection: nothing that epoll says ends it */
    struct pl_counters *counters; /* the owner's: where a transport counts what it loses; NULL: nowhere */
};

enum { PL_ADMIT_ABOVE = 1 << 20 };

/* Walks SIZE bytes of whole frames for a CANCEL of CALL. */
bool pl_transport_find_cancel(const uint8_t *bytes, size_t size, size_t align, uint64_t call);

/* Relaxed: two looks are compared, and nothing else depends on it. */
static inline uint64_t pl_transport_moved(const struct pl_transport *transport)
{
    return atomic_load_explicit(transport->moved, memory_order_relaxed);
}

/* MESSAGE is FRAME with its body behind the head at BYTES, lent until release. */
static inline void pl_message_lend(struct pl_message *message, const struct pl_frame *frame, const uint8_t *bytes)
{
    message->frame = *frame;
    message->body = bytes + PL_FRAME_HEAD;
    message->size = frame->size;
    message->lent = PL_FRAME_HEAD + frame->size;
    message->owned = NULL;
    message->fresh = true;
    message->admitted = 0;
    message->view.map = NULL;
}

/* Frees what MESSAGE holds. */
static inline void pl_message_release(struct pl_transport *transport, struct pl_message *message)
{
    if (message->lent) {
        transport->ops->release(transport, message->lent);
        message->lent = 0;
    }
    if (__builtin_expect(message->owned != NULL, 0)) {
        __builtin_free(message->owned);
        message->owned = NULL;
    }
    if (__builtin_expect(message->view.map != NULL, 0)) pl_segment_view_release(&message->view);
}

/* Shared memory: SOCKET (taken) is the Unix socket of the handshake; CHANNEL, BELL_IN (ours to wait on) and BELL_OUT
 * are taken too, also on failure. SIDE: PL_SIDE_CLIENT or PL_SIDE_SERVER. */
struct pl_channel;
int pl_transport_shm_new(struct pl_transport **ret_transport, int socket, struct pl_channel *channel, int bell_in,
                         int bell_out, int side);

/* Server: says that the request frame number COUNT is about to run (R_TAKEN1). Client: how many were. What
 * lies beyond when the server is gone provably never ran. No-ops (0) on a stream. */
void pl_transport_shm_taken(struct pl_transport *transport, uint64_t count);
uint64_t pl_transport_shm_count_taken(struct pl_transport *transport);

/* Loans: under the send lock, as send; what isn't shared memory, or fits a ring, lends plain memory. ASK: the bell
 * tells when a segment comes back. 0; FULL: all segments are out; -EPROTO (the connection is over), -ENOMEM, -EMFILE
 * (it isn't), with text. */
int pl_transport_loan(struct pl_transport *transport, size_t size, bool ask, struct pl_loan *ret_loan);
int pl_transport_loan_populate(struct pl_loan *loan); /* no lock: it can take milliseconds. -ENOMEM: give it back */
/* Whether LOAN can be sent here without a copy. */
bool pl_transport_lent(struct pl_transport *transport, const struct pl_loan *loan);
void pl_transport_loan_census(struct pl_transport *transport, unsigned *ret_held, unsigned *ret_lent);

/* Messages without ids on SOCKET (taken, as below): every incoming message becomes a CALL (server) or a
 * REPLY (client); an outgoing REPLY with a status becomes what the framing has for failures: the line
 * "error: TEXT", or for length -ECONNABORTED: close. */
struct pl_idless_options {
    enum pl_framing framing;
    bool server;
    bool until_eof; /* client, raw: half-close after the request, the reply is all up to EOF */
};
int pl_transport_idless_new(struct pl_transport **ret_transport, int socket, const char *name,
                            const struct pl_idless_options *options);

/* Datagrams on SOCKET (taken, as above): bound, each is a CALL and may be answered in any order; or (client)
 * connected, the next is the REPLY. A send is never FULL: a reply that the kernel doesn't take is lost and counted. */
int pl_transport_udp_new(struct pl_transport **ret_transport, int socket, bool server);

/* A plait connection on SOCKET (taken, closed on close; also on failure). NAME is static. */
int pl_transport_stream_new(struct pl_transport **ret_transport, int socket, const char *name);

#endif
