#include "connection/handshake.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/interrupt.h"
#include "shm/channel.h"
#include "shm/doorbell.h"
#include "wire/name.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FD_CHANNEL, FD_CLIENT_BELL, FD_SERVER_BELL, FD_LOAD, FD_COUNT };
enum { HELLO_SOON_MS = 5 }; /* a living server answers sooner: who must not wait long waits so long */

/* ---- server ---- */

int pl_greeting_read(struct pl_greeting *greeting, int socket, struct pl_hello_client *ret_hello)
{
    for (;;) {
        size_t consumed, want = PL_HELLO_CLIENT_HEAD;
        if (greeting->size > 0) {
            int r = pl_hello_client_decode(ret_hello, greeting->bytes, greeting->size, &consumed);
            if (r != PL_HELLO_MORE) return r;
        }
        if (greeting->size >= PL_HELLO_CLIENT_HEAD) want = PL_HELLO_CLIENT_HEAD + greeting->bytes[24];
        if (want <= greeting->size || want > sizeof(greeting->bytes))
            return pl_error(-EPROTO, "a hello of an impossible length");
        ssize_t n = recv(socket, greeting->bytes + greeting->size, want - greeting->size, MSG_DONTWAIT);
        if (n == 0) return pl_error(-ECONNRESET, "the client left before its hello was whole");
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return PL_HELLO_MORE;
        if (n < 0) return pl_error(-errno, "receive: %s", pl_error_word(errno));
        greeting->size += (size_t)n;
    }
}

static void fill_hello(struct pl_hello_server *hello, const struct pl_terms *terms, uint64_t features)
{
    *hello = (struct pl_hello_server){
        .major = PL_PROTOCOL_MAJOR,
        .minor = PL_PROTOCOL_MINOR,
        .features = features,
        .instance = terms->instance,
        .max_message = terms->max_message,
        .pid = (uint32_t)getpid(),
        .outstanding = terms->outstanding,
        .concurrency = terms->concurrency,
        .ring_capacity = features & PL_FEATURE_SHM ? PL_RING_CAPACITY : 0,
        .method_count = terms->method_count,
        .reactor = features & PL_FEATURE_REACTOR ? terms->reactor : 0,
        .tail = terms->methods,
        .tail_size = terms->methods_size,
    };
}

/* Makes the shared memory and the transport over it. FDS gets what the client is to have: the doorbells
 * are the transport's, the channel's descriptor is the caller's. */
static int make_shm(struct pl_transport **ret_transport, int socket, int fds[FD_COUNT])
{
    struct pl_channel channel;
    int r = pl_channel_create(&channel, PL_RING_CAPACITY, &fds[FD_CHANNEL]);
    if (r < 0) {
        pl_close(&socket);
        return r;
    }
    r = pl_doorbell_create(&fds[FD_CLIENT_BELL]);
    if (r == 0) r = pl_doorbell_create(&fds[FD_SERVER_BELL]);
    if (r < 0) {
        pl_close(&fds[FD_CLIENT_BELL]);
        pl_channel_detach(&channel);
        pl_close(&socket);
        return r;
    }
    return pl_transport_shm_new(ret_transport, socket, &channel, fds[FD_SERVER_BELL], fds[FD_CLIENT_BELL],
                                PL_SIDE_SERVER);
}

int pl_handshake_accept(struct pl_transport **ret_transport, int socket, const struct pl_hello_client *hello,
                        const struct pl_terms *terms)
{
    struct pl_transport *transport = NULL;
    int fds[FD_COUNT] = { -1, -1, -1, -1 };
    uint64_t features = hello->features & (PL_FEATURE_SHM | PL_FEATURE_GOAWAY | PL_FEATURE_REACTOR);
    if (terms->reactor == 0) features &= ~(uint64_t)PL_FEATURE_REACTOR;
    if (!terms->shm || hello->abi != pl_hello_abi()) features &= ~(uint64_t)PL_FEATURE_SHM;

    bool shm = features & PL_FEATURE_SHM;
    if (terms->any_method) features |= PL_FEATURE_ANY_METHOD;
    int r = shm ? make_shm(&transport, socket, fds) : pl_transport_stream_new(&transport, socket, terms->transport);
    if (r == 0) {
        uint8_t head[PL_HELLO_SERVER_HEAD];
        struct pl_hello_server answer;
        size_t count = shm ? (terms->load_fd >= 0 ? FD_COUNT : FD_LOAD) : 0;
        fill_hello(&answer, terms, features);
        pl_hello_server_encode(head, &answer);
        fds[FD_LOAD] = terms->load_fd;
        r = transport->ops->greet(transport, head, sizeof(head), fds, count);
        if (r == PL_TRANSPORT_OK && terms->methods_size > 0)
            r = transport->ops->greet(transport, terms->methods, terms->methods_size, NULL, 0);
        if (r > 0) r = pl_error(-EAGAIN, "the client's socket has no room for the hello");
    }
    pl_close(&fds[FD_CHANNEL]);
    if (r < 0) {
        if (transport) transport->ops->close(transport);
        return r;
    }
    transport->max_message = terms->max_message;
    *ret_transport = transport;
    return 0;
}

void pl_handshake_refuse(int socket, int error, const char *text)
{
    uint8_t bytes[PL_HELLO_SERVER_HEAD + 512];
    size_t size = strlen(text);
    if (size > 512) size = 512;
    struct pl_hello_server hello = { .major = PL_PROTOCOL_MAJOR,
                                     .minor = PL_PROTOCOL_MINOR,
                                     .result = error,
                                     .pid = (uint32_t)getpid(),
                                     .tail = (const uint8_t *)text,
                                     .tail_size = size };
    pl_hello_server_encode(bytes, &hello);
    memcpy(bytes + PL_HELLO_SERVER_HEAD, text, size);
    (void)!send(socket, bytes, PL_HELLO_SERVER_HEAD + size, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* ---- client ---- */

struct incoming {
    int fds[PL_FDS_MAX];
    size_t count;
};

static void drop_fds(struct incoming *incoming)
{
    for (size_t i = 0; i < incoming->count; i++) pl_close(&incoming->fds[i]);
    incoming->count = 0;
}

/* Exactly SIZE bytes, *done of which are there: what follows them belongs to the transport. */
static int receive_exactly(int socket, void *memory, size_t size, uint64_t deadline_ns, struct incoming *incoming,
                           size_t *done)
{
    while (*done < size) {
        size_t got = *done;
        int fds[PL_FDS_MAX];
        size_t count = PL_FDS_MAX - incoming->count;
        ssize_t n = pl_fd_receive(socket, (uint8_t *)memory + got, size - got, fds, &count);
        if (n == -EAGAIN) {
            n = pl_interrupt_poll(socket, POLLIN, deadline_ns, HELLO_SOON_MS);
            if (n == -EINTR) return -EINTR;
            if (n == 0)
                return pl_error(
                    -ETIMEDOUT,
                    "no answer to the hello in time (is it a plait server? is it stopped, or out of descriptors?)");
            continue;
        }
        if (n < 0) return (int)n == -EPROTO ? -EPROTO : pl_error((int)n, "hello: %s", pl_error_word((int)n));
        if (n == 0) return pl_error(-ECONNRESET, "the server closed the connection during the hello");
        memcpy(incoming->fds + incoming->count, fds, count * sizeof(int));
        incoming->count += count;
        *done += (size_t)n;
    }
    return 0;
}

static int send_hello(int socket, const struct pl_offer *offer)
{
    uint8_t bytes[PL_HELLO_CLIENT_MAX];
    struct pl_hello_client hello = { .major = PL_PROTOCOL_MAJOR,
                                     .minor = PL_PROTOCOL_MINOR,
                                     .abi = pl_hello_abi(),
                                     .features = PL_FEATURE_GOAWAY | PL_FEATURE_ANY_METHOD |
                                                 (offer->shm ? PL_FEATURE_SHM : 0) |
                                                 (offer->reactor ? PL_FEATURE_REACTOR : 0),
                                     .max_reply = offer->max_reply };
    strncpy(hello.name, offer->name, sizeof(hello.name) - 1);
    size_t size = pl_hello_client_encode(bytes, &hello);
    ssize_t n = send(socket, bytes, size, MSG_NOSIGNAL);
    if (n != (ssize_t)size)
        return pl_error(n < 0 ? -errno : -ECONNRESET, "hello: %s", pl_error_word(n < 0 ? errno : ECONNRESET));
    return 0;
}

/* Pointers and names in one allocation. */
static int copy_methods(const struct pl_hello_server *hello, char ***ret_methods)
{
    size_t offset = 0;
    char name[PLAIT_NAME_MAX + 1];
    if (hello->method_count > PLAIT_METHODS_MAX)
        return pl_error(-EPROTO, "the server says that it has %u methods; the limit is PLAIT_METHODS_MAX, %d",
                        hello->method_count, PLAIT_METHODS_MAX);
    if (hello->method_count == 0) {
        *ret_methods = NULL;
        return 0;
    }
#ifdef PLAIT_PLANT_BUG /* what fuzz_handshake must find: the ends of the names are forgotten */
    char **methods = malloc(hello->method_count * sizeof(char *) + hello->tail_size - hello->method_count);
#else
    char **methods = malloc(hello->method_count * sizeof(char *) + hello->tail_size + hello->method_count);
#endif
    if (methods == NULL) return pl_error(-ENOMEM, "no memory for the method table");
    char *text = (char *)(methods + hello->method_count);
    for (uint32_t i = 0; i < hello->method_count; i++) {
        int r = pl_hello_method_next(hello, &offset, name);
        if (r <= 0) {
            free(methods);
            return r < 0 ? r : pl_error(-EPROTO, "the server's method table ends early");
        }
        methods[i] = strcpy(text, name);
        text += strlen(name) + 1;
    }
    *ret_methods = methods;
    return 0;
}

/* Reads the server's answer. *ret_tail (to be freed) is what hello->tail points to. */
static int receive_hello(int socket, uint64_t deadline_ns, struct pl_hello_server *hello, uint8_t **ret_tail,
                         struct incoming *incoming)
{
    uint8_t head[PL_HELLO_SERVER_HEAD];
    size_t consumed, done = 0;
    int r = receive_exactly(socket, head, sizeof(head), deadline_ns, incoming, &done);
    if (r < 0 && done > 0) {
        /* Something answered: if it isn't plait, that says more than how the connection ended. */
        int known = pl_hello_server_decode(hello, head, done, &consumed);
        return known < 0 ? known : r;
    }
    if (r == 0) r = pl_hello_server_decode(hello, head, sizeof(head), &consumed);
    if (r < 0) return r;
    size_t tail_size = hello->tail_size;
    if (tail_size > PL_HELLO_TAIL_MAX)
        return pl_error(-EPROTO, "the server's hello claims a tail of %zu bytes", tail_size);
    uint8_t *bytes = malloc(sizeof(head) + tail_size + 1);
    if (bytes == NULL) return pl_error(-ENOMEM, "no memory for the hello");
    memcpy(bytes, head, sizeof(head));
    done = 0;
    r = receive_exactly(socket, bytes + sizeof(head), tail_size, deadline_ns, incoming, &done);
    if (r == 0) r = pl_hello_server_decode(hello, bytes, sizeof(head) + tail_size, &consumed);
    if (r == PL_HELLO_MORE) r = pl_error(-EPROTO, "the server's hello is incomplete");
    if (r < 0) {
        free(bytes);
        return r;
    }
    *ret_tail = bytes;
    return 0;
}

static int refused(const struct pl_hello_server *hello)
{
    char text[600];
    (void)pl_hello_text(hello, text, sizeof(text));
    return pl_error(hello->result, "%s", text[0] ? text : pl_error_word(hello->result));
}

static int attach_shm(struct pl_transport **ret_transport, int socket, const struct pl_hello_server *hello,
                      struct incoming *incoming, const struct pl_load_page **ret_load)
{
    struct pl_channel channel;
    const struct pl_load_page *load = NULL;
    int r = 0;
    if (incoming->count < FD_LOAD)
        r = pl_error(-EPROTO, "the server sent %zu descriptors where at least %d were due", incoming->count, FD_LOAD);
    if (r == 0) r = pl_doorbell_check(incoming->fds[FD_CLIENT_BELL]);
    if (r == 0) r = pl_doorbell_check(incoming->fds[FD_SERVER_BELL]);
    if (r == 0 && incoming->count > FD_LOAD) r = pl_load_attach(&load, incoming->fds[FD_LOAD]);
    if (r == 0) r = pl_channel_attach(&channel, incoming->fds[FD_CHANNEL], hello->ring_capacity);
    if (r < 0) {
        pl_load_detach(load);
        pl_close(&socket);
        return r;
    }
    r = pl_transport_shm_new(ret_transport, socket, &channel, incoming->fds[FD_CLIENT_BELL],
                             incoming->fds[FD_SERVER_BELL], PL_SIDE_CLIENT);
    incoming->fds[FD_CLIENT_BELL] = incoming->fds[FD_SERVER_BELL] = -1;
    if (r < 0) {
        pl_load_detach(load);
        return r;
    }
    *ret_load = load;
    return 0;
}

int pl_handshake_connect(struct pl_transport **ret_transport, int socket, const struct pl_offer *offer,
                         uint64_t deadline_ns, struct pl_accepted *ret_accepted)
{
    struct pl_hello_server hello;
    struct incoming incoming = { .count = 0 };
    struct pl_transport *transport = NULL;
    const struct pl_load_page *load = NULL;
    uint8_t *bytes = NULL;
    char **methods = NULL;
    int r = send_hello(socket, offer);
    if (r == 0) r = receive_hello(socket, deadline_ns, &hello, &bytes, &incoming);
    if (r == 0 && hello.result < 0) r = refused(&hello);
    if (r == 0) r = copy_methods(&hello, &methods);
    if (r < 0) {
        pl_close(&socket);
    } else if (hello.features & PL_FEATURE_SHM && offer->shm) {
        r = attach_shm(&transport, socket, &hello, &incoming, &load);
    } else {
        r = pl_transport_stream_new(&transport, socket, offer->transport);
    }
    free(bytes);
    drop_fds(&incoming);
    if (r < 0) {
        free(methods);
        return r;
    }
    transport->max_message = pl_hello_reply_limit(offer->max_reply); /* the client itself refuses what is between */
    *ret_accepted = (struct pl_accepted){ .instance = hello.instance,
                                          .max_message = hello.max_message,
                                          .features = hello.features,
                                          .pid = hello.pid,
                                          .outstanding = hello.outstanding,
                                          .concurrency = hello.concurrency ? hello.concurrency : 1,
                                          .reactor = hello.reactor,
                                          .methods = methods,
                                          .method_count = hello.method_count,
                                          .load = load };
    *ret_transport = transport;
    return 0;
}
