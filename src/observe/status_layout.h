/* status_layout: what lies where in a status page. Data alone: docs/status.md describes it for other
 * languages, test_status_layout.c pins it.
 *
 * The file is a head and then chunks, each as long as its `size` says; a kind of 0 (or the end of the
 * file) ends them, an unknown kind is skipped. It only ever grows. Chunks of one size hold slots of
 * one size, which are used again. Own byte order, own machine, fixed widths, no pointers.
 *
 * A reader takes three copies of the file one after the other (before, bytes, after). `version`
 * and `folds` are odd while something is written: what is even and the same in the outer copies is
 * whole in the middle one. Counters change at any time, each by itself.
 */
#ifndef PL_OBSERVE_STATUS_LAYOUT_H
#define PL_OBSERVE_STATUS_LAYOUT_H

#include "observe/status.h"
#include <assert.h>
#include <stddef.h>

#define PL_STATUS_MAGIC UINT64_C(0x737574617473706c) /* "lpstatus" in little-endian */
enum { PL_STATUS_VERSION = 1 };                      /* another one has another meaning: not read */
enum { PL_STATUS_SIZE_MAX = 16 << 20 };              /* of a page; connections beyond are unseen */
enum { PL_STATUS_SERVICES_MAX = 1024 };              /* of one process; further ones are unseen */
enum { PL_STATUS_ALIGN = 4096 };                     /* of the head's and every chunk's size */
enum { PL_STATUS_COUNTERS_MAX = 16, PL_STATUS_COUNTER_NAME = 24 };

enum pl_status_kind {
    PL_STATUS_END = 0,
    PL_STATUS_FREE = 1, /* a text chunk out of use */
    PL_STATUS_SERVICES = 2,
    PL_STATUS_CONNECTIONS = 3,
    PL_STATUS_TEXT = 4,
    PL_STATUS_THREADS = 5,
    PL_STATUS_TOPICS = 6, /* slots like a service's; the connections are subscribers */
    PL_STATUS_EVENTS = 7, /* kept */
    PL_STATUS_POOLS = 8
};

/* Written whole before the file gets its name, and never again. */
struct pl_status_head {
    uint64_t magic;
    uint32_t version;
    uint32_t size;          /* of the head: where the first chunk begins */
    uint64_t id;            /* random; in hex it is the file's name */
    uint64_t created_ms;    /* Unix time */
    uint64_t process_start; /* clock ticks since boot: with pid one process for ever */
    uint64_t pid_namespace; /* inode of /proc/self/ns/pid: where pid means anything */
    int32_t pid;
    uint32_t uid;
    uint32_t counter_count; /* how many counters follow in each block, named below */
    uint32_t reserved;
    char language[16]; /* "c" */
    char library[16];  /* "0.1.0" */
    char process[64];
    char counter_names[PL_STATUS_COUNTERS_MAX][PL_STATUS_COUNTER_NAME];
};

struct pl_status_chunk {
    _Atomic uint32_t kind; /* stored last */
    uint32_t slot_size, slot_count;
    uint32_t slot_start;   /* from the chunk's beginning */
    uint64_t size;         /* of the chunk, this header included; never changes */
    uint32_t generation;   /* TEXT: counts its uses */
    uint32_t text_size[3]; /* TEXT: directory, urls, methods; they follow the header one after the other */
    uint32_t reserved[6];
};

/* struct pl_counters with room for more, so that slots keep their size when the table grows. */
union pl_status_counters {
    struct pl_counters known;
    _Atomic uint64_t words[PL_STATUS_COUNTERS_MAX];
};

struct pl_status_service_slot {
    _Atomic uint64_t version; /* odd: coming or going */
    uint64_t id;              /* 0: free */
    uint64_t started_ms;
    _Atomic uint64_t text;  /* generation << 32 | offset of the TEXT chunk / PL_STATUS_ALIGN; 0 none */
    _Atomic uint64_t folds; /* odd: a closing connection's counters move from its slot to `closed` */
    uint32_t threads;
    uint32_t reserved;
    char name[104];
    int32_t supervisor; /* pid; 0: none */
    uint32_t worker;    /* its number, from 1 */
    uint32_t restarts;  /* how often this number had to be started again */
    uint32_t more;
    uint64_t room[11];
    union pl_status_counters own, closed;
};

struct pl_status_connection_slot {
    _Atomic uint64_t version;
    uint64_t id;      /* 0: free */
    uint64_t service; /* the service slot's id */
    uint64_t connected_ms;
    int32_t peer_pid;  /* 0 unknown */
    uint32_t peer_uid; /* UINT32_MAX unknown */
    char transport[12];
    char framing[12];
    char peer[64];
    union pl_status_counters counters;
};

/* `work` is written by the thread itself, without a version: see pl_status_work_begin. */
struct pl_status_thread_slot {
    _Atomic uint64_t version;
    uint64_t id;         /* native thread id; 0: free */
    uint64_t library_id; /* pthread_self() */
    uint32_t role;       /* enum pl_status_role */
    uint32_t reserved;
    uint64_t anchor_ticks, anchor_ns; /* the same moment by the raw counter and by CLOCK_MONOTONIC */
    uint64_t ticks_per_ms;
    char name[112];
    uint64_t room[3];
    struct pl_status_work work;
    uint64_t more[5];
};

struct pl_status_pool_slot {
    _Atomic uint64_t version;
    uint64_t id; /* unique in its process; 0: free */
    uint32_t threads, capacity;
    char name[104];
    struct pl_status_queue queue;
    uint64_t room[12];
};

enum { PL_STATUS_TEXT_DIRECTORY, PL_STATUS_TEXT_URLS, PL_STATUS_TEXT_METHODS, PL_STATUS_TEXTS };

static_assert(sizeof(struct pl_counters) <= sizeof(union pl_status_counters), "counters fit their block");
static_assert(sizeof(struct pl_status_head) <= PL_STATUS_ALIGN, "the head fits its page");
static_assert(sizeof(struct pl_status_chunk) == 64, "chunk header");
static_assert(sizeof(struct pl_status_service_slot) == 512, "service slot");
static_assert(sizeof(struct pl_status_connection_slot) == 256, "connection slot");
static_assert(sizeof(struct pl_status_pool_slot) == 256, "pool slot");
static_assert(sizeof(struct pl_status_thread_slot) == 256, "thread slot");
static_assert(offsetof(struct pl_status_thread_slot, work) == 192, "a thread's work has its own cache line");
static_assert(offsetof(struct pl_status_connection_slot, counters) == 128, "a connection's counters");
static_assert(offsetof(struct pl_status_service_slot, own) == 256, "a service's counters");

#endif
