/* transport_idless: raw, lines and length on a socket: messages that carry no id, matched by order alone.
 * The decoders are pure (wire/framing); here are the buffers, the half-close and the failures. */
#include "base/error.h"
#include "transport/transport_socket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct idless_transport {
    struct pl_socket_transport on;
    struct pl_idless_options options;
    size_t scanned;  /* the decoder's memory of how far it looked */
    bool admitted;   /* a message above PL_ADMIT_ABOVE is being collected */
    bool half_close; /* after the pending bytes are out */
};

static struct idless_transport *of(struct pl_transport *transport)
{
    return (struct idless_transport *)transport;
}

static int half_close_if_due(struct idless_transport *t)
{
    if (t->half_close && !pl_stream_pending(&t->on.stream)) {
        t->half_close = false;
        (void)shutdown(t->on.stream.fd, SHUT_WR);
    }
    return PL_TRANSPORT_OK;
}

static int send_failure(struct idless_transport *t, const char *text, size_t size)
{
    static const char before[] = "error: ";
    if (t->options.framing == PL_FRAMING_LENGTH)
        return pl_error(-ECONNABORTED, "framing=length has no words for a failure: the connection ends");
    for (size_t i = 0; i < size; i++)
        if (text[i] == '\n') size = i; /* one line; the rest of the text is for people */
    struct iovec iov[3] = { { (void *)before, sizeof(before) - 1 }, { (void *)text, size }, { (void *)"\n", 1 } };
    int r = pl_stream_write(&t->on.stream, iov, 3, false);
    return r < 0 ? r : r == PL_STREAM_FULL ? PL_TRANSPORT_FULL : PL_TRANSPORT_OK;
}

static int idless_send(struct pl_transport *transport, const struct pl_frame *frame, const void *body, unsigned how)
{
    struct idless_transport *t = of(transport);
    struct pl_framing_wrap wrap;
    if (t->options.server && frame->method != PL_STATUS_OK) return send_failure(t, body, frame->size);
    int r = pl_framing_wrap(t->options.framing, body, frame->size, &wrap);
    if (r < 0) return r;
    struct iovec iov[3];
    int count = 0;
    if (wrap.before_size) iov[count++] = (struct iovec){ wrap.before, wrap.before_size };
    if (frame->size) iov[count++] = (struct iovec){ (void *)body, frame->size };
    if (wrap.after_size) iov[count++] = (struct iovec){ (void *)wrap.after, wrap.after_size };
    if (t->options.until_eof) t->half_close = true;
    if (count > 0) {
        r = pl_stream_write(&t->on.stream, iov, count,
                            (how & PL_BODY_BORROW) && wrap.after_size == 0 && frame->size > 0);
        if (r < 0) return r;
        if (r == PL_STREAM_FULL) return PL_TRANSPORT_FULL;
    }
    return half_close_if_due(t);
}

static int idless_flush(struct pl_transport *transport)
{
    struct idless_transport *t = of(transport);
    if (!pl_stream_pending(&t->on.stream)) return PL_TRANSPORT_OK;
    int r = pl_stream_flush(&t->on.stream);
    if (r < 0) return r;
    return r == PL_STREAM_FULL ? PL_TRANSPORT_FULL : half_close_if_due(t);
}

static void fill_message(struct idless_transport *t, const uint8_t *data, const struct pl_framing_message *found,
                         struct pl_message *ret_message)
{
    *ret_message = (struct pl_message){
        .frame = { .size = (uint32_t)found->size, .kind = t->options.server ? PL_FRAME_CALL : PL_FRAME_REPLY },
        .body = data + found->offset,
        .size = found->size,
        .lent = found->consumed,
        .fresh = true,
        .admitted = t->admitted ? t->on.base.max_message : 0,
    };
    t->admitted = false;
    t->scanned = 0;
}

/* raw with until=eof: the whole stream is the reply; a connection without a byte is an empty one. */
static int receive_until_eof(struct idless_transport *t, struct pl_message *ret_message)
{
    const uint8_t *data = NULL;
    size_t size = 0;
    int r = pl_stream_peek(&t->on.stream, t->scanned + 1, &data, &size);
    while (r == PL_STREAM_OK && size <= t->on.base.max_message)
        r = pl_stream_peek(&t->on.stream, size + 1, &data, &size);
    if (size > t->on.base.max_message)
        return pl_error(-EMSGSIZE, "the answer is longer than max_message=%llu",
                        (unsigned long long)t->on.base.max_message);
    if (r == PL_STREAM_EMPTY) return PL_TRANSPORT_EMPTY;
    if (r < 0) return r;
    if (t->half_close || t->options.framing != PL_FRAMING_RAW || !t->options.until_eof) return PL_TRANSPORT_END;
    t->options.until_eof = false; /* said once; what follows is END */
    struct pl_framing_message whole = { .size = size, .consumed = size };
    fill_message(t, data, &whole, ret_message);
    return PL_TRANSPORT_OK;
}

static int idless_receive(struct pl_transport *transport, struct pl_message *ret_message)
{
    struct idless_transport *t = of(transport);
    struct pl_framing_message found = { .need = 1 };
    const uint8_t *data = NULL;
    size_t size = 0, wanted = 1;
    if (t->options.until_eof) return receive_until_eof(t, ret_message);
    for (;;) {
        int r = pl_stream_peek(&t->on.stream, wanted, &data, &size);
        if (r < 0) return r;
        if (t->options.framing == PL_FRAMING_RAW && !t->options.server)
            while (r == PL_STREAM_OK && size <= transport->max_message) /* what is readable at once */
                r = pl_stream_peek(&t->on.stream, size + 1, &data, &size);
        if (r < 0) return r;
        bool eof = r == PL_STREAM_END;
        int verdict =
            pl_framing_decode(t->options.framing, data, size, eof, transport->max_message, &t->scanned, &found);
        if (verdict < 0) return verdict;
        if (verdict == PL_FRAMING_END) return PL_TRANSPORT_END;
        if (verdict == PL_FRAMING_MESSAGE) {
            fill_message(t, data, &found, ret_message);
            return PL_TRANSPORT_OK;
        }
        transport->partial = size > 0;
        if (r != PL_STREAM_OK) return PL_TRANSPORT_EMPTY;
        if (!t->admitted && size + found.need > PL_ADMIT_ABOVE && transport->admit) {
            if (!transport->admit(transport->owner, transport->max_message)) return PL_TRANSPORT_EMPTY;
            t->admitted = true;
        }
        wanted = size + 1; /* the buffer grows with what comes, not with what was announced */
    }
}

static const struct pl_transport_ops idless_ops = {
    .send = idless_send,
    .flush = idless_flush,
    .receive = idless_receive,
};

int pl_transport_idless_new(struct pl_transport **ret_transport, int socket, const char *name,
                            const struct pl_idless_options *options)
{
    void *memory;
    int r = pl_socket_transport_new(&memory, sizeof(struct idless_transport), socket, name, &idless_ops);
    if (r < 0) return r;
    struct idless_transport *t = memory;
    t->options = *options;
    *ret_transport = &t->on.base;
    return 0;
}
