/* conformance: the behaviours that plait promises, declared once, run in every cell of
 *
 *     transport (a line in matrix.c) x framing x column (a file column_X.c and a line in matrix.c)
 *
 * A column is who talks to whom: a client of some language and the server that it calls. A behaviour says for which
 * framings it has a meaning and what of a column it needs; it becomes a test BEHAVIOUR/TRANSPORT/FRAMING/COLUMN in each
 * cell that fits. At the end a matrix is printed, in which a cell without a test, or with one that didn't pass, fails.
 *
 * Servers are always processes of their own.
 */
#ifndef TESTS_CONFORMANCE_H
#define TESTS_CONFORMANCE_H

#include "harness/test.h"
#include <plait/plait.h>
#include <stdbool.h>
#include <stdint.h>

/* DATAGRAM is what udp:// has instead: each message is a datagram. */
enum framing { FRAMING_PLAIT, FRAMING_RAW, FRAMING_LINES, FRAMING_LENGTH, FRAMING_DATAGRAM, FRAMINGS };
enum {
    PLAIT = 1 << FRAMING_PLAIT,
    RAW = 1 << FRAMING_RAW,
    LINES = 1 << FRAMING_LINES,
    LENGTH = 1 << FRAMING_LENGTH,
    DATAGRAM = 1 << FRAMING_DATAGRAM,
    STREAMED = RAW | LINES | LENGTH, /* messages without ids on a stream */
    IDLESS = STREAMED | DATAGRAM,
    ALL = PLAIT | IDLESS,
};

/* What a behaviour may need of a column. */
enum {
    CALLS = 1 << 0,        /* its client makes calls, one at a time: struct column's open, call, close */
    DEADLINES = 1 << 1,    /* ... with a deadline, and goes on after it */
    LIMITS = 1 << 2,       /* ... with a limit for replies */
    API = 1 << 3,          /* its client is libplait's C interface */
    SOCKETS = 1 << 4,      /* its client is a socket, and no more */
    OWN_SERVICE = 1 << 5,  /* its server is service.c */
    PLAIN_SERVER = 1 << 6, /* its server knows nothing of plait: plain_server.py */
    ONE_PROCESS = 1 << 7,  /* its server is one process: what a call left there the next one finds */
    SIZES = 1 << 8,        /* bodies of many sizes may behave otherwise than in another column */
};

struct transport {
    const char *name;
    const char *shown; /* as plait_client_transport() and plait_request_peer() say it */
    unsigned framings;
    const char *listen; /* the URL to listen on; %s is a directory; NULL: found by name */
    const char *option; /* of the target with framing=plait; "" if none */
};

struct cell {
    const struct transport *transport;
    enum framing framing;
    const struct column *column;
};

/* ---- servers ---- */

enum { SERVICE_URLS = 32, SERVICE_TEXT = 400 };
#define SERVICE_NAME "conformance"

struct service_options {
    const char *methods;  /* of service_start() */
    const char *name;     /* NULL: SERVICE_NAME */
    uint64_t max_message; /* 0: default */
    int threads;          /* 0: 1 */
    bool foreign_loop;    /* fd and dispatch in a poll loop of its own */
};

struct service {
    pid_t pid;
    int stop; /* closing it ends the server */
    size_t count;
    char methods[SERVICE_URLS][32];
    char urls[SERVICE_URLS][SERVICE_TEXT];
};

/* Starts the cell's server and waits until it can be called. METHODS, separated by blanks, are those that get a
 * listener of their own where the framing carries no method. OPTIONS may be NULL. */
void service_start(struct service *service, const struct cell *cell, const char *methods,
                   const struct service_options *options);
/* What to open for METHOD: framings that carry no method have a listener for each. */
const char *service_url(const struct service *service, const char *method);
/* Ends it and checks that it ended in order: status 0, nothing leaked. */
void service_stop(struct service *service);

/* How the two kinds of servers start: they print "METHOD URL" lines and an empty line to a pipe. */
void service_run_own(const struct cell *cell, const struct service_options *options, int out, int stop);
void service_run_workers(const struct cell *cell, const struct service_options *options, int out, int stop);
void service_run_plain(const struct cell *cell, const struct service_options *options, int out, int stop);
/* What a server in this cell listens on for METHOD. */
void service_listen_url(char url[SERVICE_TEXT], const struct cell *cell, const struct service_options *options,
                        const char *method);

/* ---- columns ---- */

struct answer {
    int result;      /* as of plait_client_call(): 0, -EREMOTEIO, -ETIMEDOUT, -ECONNRESET, -EMSGSIZE, ... */
    uint32_t status; /* of -EREMOTEIO; 0 where the client can't tell */
    char *data;
    size_t size;
    char text[1024]; /* of a failure */
};

struct settings {
    uint64_t max_message; /* 0: default */
    bool until_eof;
};

struct column {
    const char *name;
    unsigned framings;
    unsigned can;
    int patience; /* how many calls are many */
    void (*serve)(const struct cell *cell, const struct service_options *options, int out, int stop);
    void *(*open)(const struct cell *cell, const char *url, const struct settings *settings);
    /* TIMEOUT in ms, 0: default. METHOD is in the URL already where the framing doesn't carry it. */
    void (*call)(void *client, const char *method, const void *data, size_t size, int64_t timeout,
                 struct answer *answer);
    void (*close)(void *client);
};

extern const struct column column_c, column_cpp, column_python, column_command, column_socket, column_plain,
    column_workers;

/* ---- behaviours ---- */

struct behaviour {
    const char *name;
    unsigned framings, needs;
    void (*run)(const struct cell *cell);
    struct behaviour *next;
};

void behaviour_register(struct behaviour *behaviour);

/* Behaviours register before columns meet them, hence the priority. */
#define BEHAVIOUR(name, framings, needs)                                                                               \
    static void behave_##name(const struct cell *cell);                                                                \
    __attribute__((constructor(200))) static void behaviour_register_##name(void)                                      \
    {                                                                                                                  \
        static struct behaviour behaviour = { #name, framings, needs, behave_##name, NULL };                           \
        behaviour_register(&behaviour);                                                                                \
    }                                                                                                                  \
    static void behave_##name(const struct cell *cell)

/* ---- what behaviours share ---- */

const char *framing_name(enum framing framing);
/* SIZE bytes of every value that the framing carries, other ones for another SEED. To be freed. */
char *pattern(const struct cell *cell, size_t size, unsigned seed);
void answer_free(struct answer *answer);
/* Opens a client for METHOD, calls once, closes. */
void call_once(const struct cell *cell, const struct service *service, const char *method, const void *data,
               size_t size, struct answer *answer);
/* The C interface: a client for METHOD. */
plait_client *open_client(const struct cell *cell, const struct service *service, const char *method);
/* The name to pass to plait_client_call() in this cell. */
const char *method_in(const struct cell *cell, const char *method);
/* Appends ?OPTION or &OPTION; none if it is "". */
void add_option(char *url, size_t size, const char *option);
/* A connected blocking socket for URL. */
int connect_to(const char *url);
int64_t now_ms(void);

/* ---- interface.c ---- */
void pass_1_GiB(void); /* through shared memory: too large for every cell */

#endif
