/* transport_udp: a message is a datagram: no framing, no ids, no ends.
 *
 * A server's socket hears every client. Each request carries where it came from (pl_origin, which the frame's
 * `call` points to), so answers may be given in any order, also to requests that were deferred. A server that
 * listens on all addresses answers from the one that was called: else a connected client wouldn't take it.
 *
 * A client's socket is connected: the kernel drops what others send, and tells when nobody listens there. It has
 * one call in flight; what lies in its queue when the next one goes out answers nothing, and is thrown away. (When
 * the next goes out at once, nothing can have come yet, and the look is saved.)
 *
 * Nothing is resent. What the kernel says that it lost is counted where a status page shows it.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "transport/transport.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum {
    BATCH = 8, /* datagrams that one system call brings */
    AT_ONCE_NS = 50000,
    STALE_MAX = 1024, /* leftovers that are thrown away before a call */
    ROOM = 65536,     /* more than a datagram can have */
    TEXT_MAX = 1024   /* of a failure */
};

struct datagram {
    struct pl_origin origin;
    struct iovec iov;
    size_t size;
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(uint32_t))];
};

struct udp_transport {
    struct pl_transport base;
    _Atomic uint64_t moved;
    bool server, readable;
    int error;            /* that the socket told and receive has not */
    uint64_t heard;       /* a client: ticks at its last answer */
    uint32_t overflows;   /* what the kernel has dropped so far, as it counts */
    unsigned count, next; /* datagrams here; the first that nobody has had */
    uint8_t *memory;      /* ROOM bytes for each place; pages are touched as datagrams need them */
    struct datagram places[BATCH];
};

static struct udp_transport *of(struct pl_transport *transport)
{
    return (struct udp_transport *)transport;
}

/* Relaxed: a count that both halves keep; the owner compares two looks at it. */
static void count_moved(struct udp_transport *t, size_t bytes)
{
    atomic_fetch_add_explicit(&t->moved, bytes, memory_order_relaxed);
}

/* ---- receiving ---- */

/* What the kernel tells beside a datagram: how many it has dropped, and which of our addresses was called. */
static void read_control(struct udp_transport *t, struct msghdr *header, struct pl_origin *origin)
{
    origin->to_family = AF_UNSPEC;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c != NULL; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL) {
            uint32_t dropped;
            memcpy(&dropped, CMSG_DATA(c), sizeof(dropped));
            if (t->base.counters) pl_count(&t->base.counters->lost_requests, dropped - t->overflows);
            t->overflows = dropped;
        } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof(info));
            origin->to_family = AF_INET;
            origin->to.v4 = info.ipi_spec_dst;
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof(info));
            if (IN6_IS_ADDR_MULTICAST(&info.ipi6_addr)) continue; /* nobody answers from a group's address */
            origin->to_family = AF_INET6;
            origin->to.v6 = info.ipi6_addr;
        }
    }
}

/* A client waits for one answer; its connected socket tells when nobody is there to give it. */
static int fill_one(struct udp_transport *t)
{
    struct datagram *place = &t->places[0];
    ssize_t n;
    do n = recv(t->base.socket, t->memory, ROOM, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    t->count = t->next = 0;
    t->readable = false;
    if (n < 0) return errno == EAGAIN ? 0 : (t->error = -errno);
    place->iov.iov_base = t->memory;
    place->size = (size_t)n;
    count_moved(t, place->size);
    t->heard = pl_ticks();
    return (int)(t->count = 1);
}

/* Fills a server's places, or as many as there are datagrams. */
static int fill_many(struct udp_transport *t)
{
    struct mmsghdr headers[BATCH];
    int n;
    for (unsigned i = 0; i < BATCH; i++) {
        struct datagram *place = &t->places[i];
        place->iov = (struct iovec){ t->memory + (size_t)i * ROOM, ROOM };
        headers[i].msg_hdr = (struct msghdr){ .msg_name = &place->origin.from.storage,
                                              .msg_namelen = sizeof(place->origin.from.storage),
                                              .msg_iov = &place->iov,
                                              .msg_iovlen = 1,
                                              .msg_control = place->control,
                                              .msg_controllen = sizeof(place->control) };
    }
    do n = recvmmsg(t->base.socket, headers, BATCH, MSG_DONTWAIT, NULL);
    while (n < 0 && errno == EINTR);
    t->count = t->next = 0;
    t->readable = n == BATCH;
    if (n < 0) return 0; /* it has no peer whose failure this could be: a moment's, and epoll says again */
    for (int i = 0; i < n; i++) {
        struct datagram *place = &t->places[i];
        place->size = headers[i].msg_len;
        place->origin.from.size = headers[i].msg_hdr.msg_namelen;
        place->origin.peer.transport = NULL;
        read_control(t, &headers[i].msg_hdr, &place->origin);
        count_moved(t, place->size);
    }
    return (int)(t->count = (unsigned)n);
}

/* How many came; 0: nothing is there; -errno. */
static int fill(struct udp_transport *t)
{
    return t->server ? fill_many(t) : fill_one(t);
}

static int udp_receive(struct pl_transport *transport, struct pl_message *ret_message)
{
    struct udp_transport *t = of(transport);
    if (t->next == t->count) {
        int n = t->error < 0 ? t->error : t->readable ? fill(t) : 0;
        t->error = 0;
        if (n == 0) return PL_TRANSPORT_EMPTY;
        if (n < 0)
            return pl_error(n, "%s",
                            n == -ECONNREFUSED ? "nobody listens there (is the server running?)" : pl_error_word(n));
    }
    struct datagram *place = &t->places[t->next];
    /* Whether it is longer than it may be is its owner's to judge, who can say so. */
    *ret_message = (struct pl_message){
        .frame = { .size = (uint32_t)place->size,
                   .kind = t->server ? PL_FRAME_CALL : PL_FRAME_REPLY,
                   .call = t->server ? (uintptr_t)&place->origin : 0 },
        .body = place->iov.iov_base,
        .size = place->size,
        .lent = 1,
    };
    return PL_TRANSPORT_OK;
}

static void udp_release(struct pl_transport *transport, size_t lent)
{
    of(transport)->next += (unsigned)lent;
}

static bool udp_ready(struct pl_transport *transport)
{
    struct udp_transport *t = of(transport);
    return t->next < t->count || t->readable || t->error < 0 || fill(t) != 0;
}

static void udp_readable(struct pl_transport *transport)
{
    of(transport)->readable = true;
}

/* ---- sending ---- */

static void answer_from(struct msghdr *header, const struct pl_origin *origin, char *control)
{
    if (origin->to_family == AF_UNSPEC) return;
    bool v4 = origin->to_family == AF_INET;
    struct in_pktinfo info = { .ipi_spec_dst = origin->to.v4 };
    struct in6_pktinfo info6 = { .ipi6_addr = origin->to.v6 };
    size_t size = v4 ? sizeof(info) : sizeof(info6);
    header->msg_control = control;
    header->msg_controllen = CMSG_SPACE(size);
    struct cmsghdr *c = CMSG_FIRSTHDR(header);
    c->cmsg_level = v4 ? IPPROTO_IP : IPPROTO_IPV6;
    c->cmsg_type = v4 ? IP_PKTINFO : IPV6_PKTINFO;
    c->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(c), v4 ? (void *)&info : (void *)&info6, size);
}

/* What the kernel doesn't take is lost, as it could be on its way: the listener goes on for the others. */
static int server_send(struct udp_transport *t, const struct pl_frame *frame, const void *body)
{
    static const char before[] = "error: ";
    const struct pl_origin *origin = (const struct pl_origin *)(uintptr_t)frame->call;
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(struct in6_pktinfo))] = { 0 };
    struct iovec iov[3] = { { (void *)body, frame->size } };
    struct msghdr header = {
        .msg_name = (void *)&origin->from.storage, .msg_namelen = origin->from.size, .msg_iov = iov, .msg_iovlen = 1
    };
    if (frame->method != PL_STATUS_OK) {
        size_t size = frame->size < TEXT_MAX ? frame->size : TEXT_MAX;
        const char *newline = size ? memchr(body, '\n', size) : NULL; /* one line; the rest is for people */
        iov[0] = (struct iovec){ (void *)before, sizeof(before) - 1 };
        iov[1] = (struct iovec){ (void *)body, newline ? (size_t)(newline - (const char *)body) : size };
        iov[2] = (struct iovec){ (void *)"\n", 1 };
        header.msg_iovlen = 3;
    }
    answer_from(&header, origin, control);
    ssize_t n;
    do n = sendmsg(t->base.socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n >= 0) count_moved(t, (size_t)n);
    else if (t->base.counters) pl_count(&t->base.counters->lost_replies, 1);
    return PL_TRANSPORT_OK;
}

static int client_send(struct udp_transport *t, const struct pl_frame *frame, const void *body)
{
    char byte;
    ssize_t n;
    bool at_once = pl_ticks() - t->heard < pl_ticks_of_ns(AT_ONCE_NS);
    /* An answer that came twice, or an error that an earlier call left behind. */
    for (int i = 0; i < STALE_MAX && !at_once; i++)
        if (recv(t->base.socket, &byte, sizeof(byte), MSG_DONTWAIT) < 0 && errno == EAGAIN) break;
    do n = send(t->base.socket, body ? body : "", frame->size, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return pl_error(errno == EAGAIN ? -ENOBUFS : -errno, "a datagram of %u bytes: %s", frame->size,
                        errno == EAGAIN ? "the socket's queue is full" : pl_error_word(errno));
    count_moved(t, (size_t)n);
    return PL_TRANSPORT_OK;
}

static int udp_send(struct pl_transport *transport, const struct pl_frame *frame, const void *body, unsigned how)
{
    struct udp_transport *t = of(transport);
    (void)how; /* a datagram goes at once or not at all */
    return t->server ? server_send(t, frame, body) : client_send(t, frame, body);
}

/* ---- the rest: nothing waits here, and nobody announces anything ---- */

static int udp_flush(struct pl_transport *transport)
{
    (void)transport;
    return PL_TRANSPORT_OK;
}

static bool udp_pending(const struct pl_transport *transport)
{
    (void)transport;
    return false;
}

static bool udp_sleep(struct pl_transport *transport)
{
    (void)transport;
    return true;
}

static void udp_awake(struct pl_transport *transport)
{
    (void)transport;
}

static enum pl_spinning udp_spinning(struct pl_transport *transport)
{
    (void)transport; /* where the peer runs is not known: it must be able to get this CPU */
    return PL_SPINNING_YIELD;
}

static bool udp_cancelled(struct pl_transport *transport, size_t lent, uint64_t call)
{
    (void)transport, (void)lent, (void)call;
    return false;
}

static void udp_close(struct pl_transport *transport)
{
    struct udp_transport *t = of(transport);
    pl_close(&t->base.socket);
    free(t->memory);
    free(t);
}

static void udp_forget(struct pl_transport *transport)
{
    pl_close(&transport->socket);
}

static const struct pl_transport_ops udp_ops = {
    .name = "udp",
    .send = udp_send,
    .flush = udp_flush,
    .pending = udp_pending,
    .own = udp_flush,
    .receive = udp_receive,
    .release = udp_release,
    .ready = udp_ready,
    .sleep = udp_sleep,
    .awake = udp_awake,
    .spinning = udp_spinning,
    .readable = udp_readable,
    .cancelled = udp_cancelled,
    .close = udp_close,
    .forget = udp_forget,
};

/* What a server wants to be told beside its datagrams. */
static void want_control(int socket)
{
    struct pl_address own = { .size = sizeof(own.storage) };
    int one = 1;
    (void)setsockopt(socket, SOL_SOCKET, SO_RXQ_OVFL, &one, sizeof(one));
    if (getsockname(socket, (struct sockaddr *)&own.storage, &own.size) < 0 || !pl_address_any(&own)) return;
    if (own.storage.ss_family == AF_INET6) (void)setsockopt(socket, IPPROTO_IPV6, IPV6_RECVPKTINFO, &one, sizeof(one));
    else (void)setsockopt(socket, IPPROTO_IP, IP_PKTINFO, &one, sizeof(one));
}

int pl_transport_udp_new(struct pl_transport **ret_transport, int socket, bool server)
{
    struct udp_transport *t = calloc(1, sizeof(*t));
    uint8_t *memory = malloc(server ? (size_t)BATCH * ROOM : ROOM);
    if (t == NULL || memory == NULL) {
        free(t);
        free(memory);
        pl_close(&socket);
        return pl_error(-ENOMEM, "no memory for a datagram socket");
    }
    t->base = (struct pl_transport){ .ops = &udp_ops,
                                     .max_message = PLAIT_DATAGRAM_MAX,
                                     .socket = socket,
                                     .bell = -1,
                                     .moved = &t->moved,
                                     .datagrams = true };
    t->server = server;
    t->readable = true;
    t->memory = memory;
    if (server) want_control(socket);
    *ret_transport = &t->base;
    return 0;
}
