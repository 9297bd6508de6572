/* url: what a listener or a target says of itself. */
#ifndef PL_WIRE_URL_H
#define PL_WIRE_URL_H

#include <plait/plait.h>
#include <stdbool.h>
#include <stdint.h>

enum pl_scheme { PL_SCHEME_NAME, PL_SCHEME_UNIX, PL_SCHEME_TCP, PL_SCHEME_UDP, PL_SCHEME_TLS };
/* Over udp:// always RAW: a message is what one recv() gives. */
enum pl_framing { PL_FRAMING_PLAIT, PL_FRAMING_RAW, PL_FRAMING_LINES, PL_FRAMING_LENGTH };

struct pl_url {
    enum pl_scheme scheme;
    enum pl_framing framing;
    char host[256]; /* without brackets; "" for names and unix */
    uint16_t port;
    char path[1024];                 /* unix: the socket's path */
    char name[PLAIT_NAME_MAX + 1];   /* the service: of a bare name, or behind tcp://host:port/ */
    char method[PLAIT_NAME_MAX + 1]; /* method= ; "" if none */
    uint64_t max_message;            /* 0: default */
    bool until_eof, shm_off, insecure;
};

/* Parses a target ("greeter", "greeter?shm=off", "tcp://host:8888/name?framing=raw"). Errors: -EINVAL
 * naming the part and the rule, -EPROTONOSUPPORT for a scheme that isn't built ("tls://" says which
 * package), and unknown options name the known ones. max_message takes k, M, G suffixes (1024s). */
int pl_url_parse(struct pl_url *ret_url, const char *text);

/* Formats back to canonical text; returns TEXT. */
const char *pl_url_format(const struct pl_url *url, char *text, size_t size);
const char *pl_framing_name(enum pl_framing framing);

/* What carries URL's messages, for errors: "framing=raw", "a datagram (udp://)". */
const char *pl_url_messages(const struct pl_url *url);

#endif
