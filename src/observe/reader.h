/* reader: status pages to pictures; the same for the living and the dead. A page is foreign bytes: every offset
 * and length is checked against the copy, every text is bounded, ended and cleared of control characters.
 */
#ifndef PL_OBSERVE_READER_H
#define PL_OBSERVE_READER_H

#include "observe/status_layout.h"

/* Three copies of a page, taken one after the other; all of SIZE bytes, and the same where nothing changes. */
struct pl_status_copy {
    const uint8_t *before, *bytes, *after;
    size_t size;
};

struct pl_status_service_picture {
    uint64_t id, started_ms;
    uint32_t threads, worker, restarts; /* worker 0: none */
    int32_t supervisor;
    bool topic;
    char name[104];
    char *texts[PL_STATUS_TEXTS];   /* never NULL */
    uint64_t counters[PL_COUNTERS]; /* own, closed and living connections together */
    size_t connection_count;
};

struct pl_status_connection_picture {
    uint64_t id, connected_ms;
    size_t service; /* its index */
    int32_t peer_pid;
    uint32_t peer_uid;
    char transport[12], framing[12], peer[64];
    uint64_t counters[PL_COUNTERS];
};

struct pl_status_thread_picture {
    uint64_t tid, library_id;
    uint32_t role;
    size_t service;   /* index of whose request it handles or handled last; SIZE_MAX: not listed */
    uint64_t handled; /* requests begun */
    uint32_t method;  /* place in the service's methods + 1; 0: idle */
    uint64_t since;   /* ticks of this machine's raw counter; 0: just now */
    char name[112];
};

struct pl_status_pool_picture {
    uint64_t id, waiting, oldest, taken, refused; /* oldest: ticks, 0 none waits */
    uint32_t threads, capacity;
    char name[104];
};

struct pl_status_picture {
    uint64_t id, created_ms, process_start, pid_namespace;
    int32_t pid;
    uint32_t uid;
    char language[16], library[16], process[64];
    struct pl_status_service_picture *services;
    struct pl_status_connection_picture *connections; /* of services that are listed */
    struct pl_status_thread_picture *threads;
    struct pl_status_pool_picture *pools;
    size_t service_count, connection_count, thread_count, pool_count;
    size_t unsteady; /* how many things were being written meanwhile and may be missing or stale */
};

/* 0; -EPROTO with text: not a page, another version, or broken; -ENOMEM. */
int pl_status_parse(struct pl_status_picture *ret_picture, const struct pl_status_copy *copy);

/* Reads FD, again where something changed meanwhile, a few times. Errors as parse, and those of pread. */
int pl_status_read(struct pl_status_picture *ret_picture, int fd);

void pl_status_picture_deinit(struct pl_status_picture *picture); /* idempotent */

#endif
