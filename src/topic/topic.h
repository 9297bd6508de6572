/* topic: what the files of this folder share.
 *
 * publisher.c   open, publish, close; waiting for slow subscribers
 * helper.c      the publisher's thread: greets subscribers, serves those at sockets
 * ringer.c      its other one: wakes subscribers where they are many
 * outlet.c      one subscriber, as its publisher has it: gates, sends
 * subscriber.c  open, next, fd, close: finds publishers, waits
 * inlet.c       one publisher, as its subscriber has it: greets, reads
 * message.c     what is handed out
 * bulk_out.c    large messages, at the publisher
 * bulk_in.c     large messages, at the subscriber
 *
 * Who may touch what: a publisher belongs to its caller's thread, the loop and the outlets' sockets to the helper.
 * The list of outlets is the helper's to change, under `lock`; the caller's thread reads it under `lock`, and what
 * it does so for (`seen`, `since`, `left`) is its own. A subscriber and its inlets belong to its caller's thread.
 */
#ifndef PL_TOPIC_TOPIC_H
#define PL_TOPIC_TOPIC_H

#include "base/address.h"
#include "base/fork.h"
#include "base/interrupt.h"
#include "base/list.h"
#include "base/loan.h"
#include "base/spin.h"
#include "connection/handshake.h"
#include "loop/alarm.h"
#include "loop/loop.h"
#include "loop/wake.h"
#include "naming/claim.h"
#include "naming/lookup.h"
#include "naming/watch.h"
#include "observe/status.h"
#include "shm/ring_broadcast.h"
#include "transport/stream.h"
#include "wire/frame.h"
#include "wire/url.h"
#include <plait/plait.h>
#include <pthread.h>
#include <stdatomic.h>

enum {
    PL_TOPIC_UNGREETED_MAX = 64,
    PL_TOPIC_HELLO_MS = 1000,
    PL_TOPIC_TIMEOUT_MS = 1000,
    PL_TOPIC_LISTENERS_MAX = 16,
    PL_TOPIC_DIRECT_MAX = 4,    /* sleepers that the publisher wakes itself; more are the ringer's */
    PL_TOPIC_DIRECT_NS = 20000, /* since it last did: sooner it leaves them to the ringer */
    PL_TOPIC_WAKE_NS = 10000,   /* for each sleeper, between two wake-ups by the ringer */
    PL_TOPIC_WAKE_MAX_NS = 1000000
};
#define PL_TOPIC_NETWORK_MESSAGE ((uint64_t)16 << 20)

/* What rides on the publisher's hello, in this order. */
enum { PL_TOPIC_FD_RING, PL_TOPIC_FD_WAITERS, PL_TOPIC_FD_PAGE, PL_TOPIC_FD_BELL, PL_TOPIC_FDS };

/* ---- publisher ---- */

struct pl_topic_listener {
    struct pl_source source;
    struct plait_publisher *publisher;
    struct pl_url url;
    bool of_claim;
    char text[1400];
};

struct plait_publisher {
    /* publishing: the caller's thread */
    struct pl_broadcast_writer writer;
    struct pl_waiters_page *waiters;
    struct pl_counters *counters;
    _Atomic uint64_t limit; /* may be written up to here without asking subscribers; changed under `lock` */
    _Atomic uint32_t count; /* of subscribers; futex */
    uint32_t wanted;        /* wait_subscribers */
    uint32_t cpu;           /* as last told, + 1 */
    uint64_t woke, direct;  /* when it last woke sleepers itself, and how soon is too soon (ticks) */
    int bell;               /* rings all sleeping subscribers */
    bool reliable;
    uint64_t max_message, timeout_ns;
    uint64_t asked; /* when plait_publisher_ready said no for the first time (ns); 0: it didn't */
    struct pl_spin spin;
    struct pl_fork_hook fork;

    struct pl_interrupt interrupt;
    pthread_mutex_t lock;
    struct pl_list outlets; /* greeted */

    /* the helper's */
    pthread_t thread;
    bool running;
    _Atomic uint32_t chores; /* PL_CHORE_ */
    struct pl_loop loop;
    struct pl_wake wake;
    struct pl_source bell_source; /* while there are outlets at sockets */
    struct pl_timer accept_timer, idle_timer;
    struct pl_list greetings; /* outlets that aren't greeted yet */
    uint32_t greeting_count, socket_count;
    uint64_t linger_until; /* ns; 0: not closing */

    /* the ringer's */
    pthread_t ringer;
    bool ringing;
    _Atomic uint32_t ringer_word; /* futex */
    _Atomic uint32_t asleep;      /* how many it is to wake */
    uint64_t ring_due;            /* ns */

    /* large messages: the caller's thread, under `lock` where others look */
    struct pl_bulk_segment *segments[PL_SEGMENTS_MAX];
    uint32_t segment_count;
    uint32_t kept;       /* how many of the last ones are left alone */
    uint64_t bulk_count; /* published */
    uint64_t bulk_ns;    /* when one was last begun */
    uint64_t idle_span;  /* after which the helper looks whether they are still needed; 0: it has nothing to look at */

    int ring_fd, waiters_fd;
    struct pl_claim claim;
    struct pl_allow allow;
    struct pl_status_service *status;
    uint32_t listener_count;
    struct pl_topic_listener *listeners[PL_TOPIC_LISTENERS_MAX];
    char topic[PLAIT_NAME_MAX + 1];
};

enum { PL_CHORE_STOP = 1, PL_CHORE_IDLE = 2 };

int pl_helper_start(struct plait_publisher *publisher);
void pl_helper_stop(struct plait_publisher *publisher); /* lingers, then ends the thread and all outlets */
/* In a forked child: closes what it had. */
void pl_helper_forked(struct plait_publisher *publisher);

int pl_ringer_start(struct plait_publisher *publisher);
void pl_ringer_stop(struct plait_publisher *publisher);
void pl_ringer_ask(struct plait_publisher *publisher, uint32_t sleepers); /* rings all soon */
/* True: somebody is to be rung, and now the caller does it. */
bool pl_ringer_take(struct plait_publisher *publisher);

/* Without signals. -EAGAIN with text. */
int pl_topic_thread(struct plait_publisher *publisher, pthread_t *ret_thread, void *(*run)(void *), const char *name);

/* Waits until all who count have read up to TARGET; or wakes only with EXTRA more, if it has to sleep. 0; -EINTR. */
int pl_publisher_wait_for(struct plait_publisher *publisher, uint64_t target, uint64_t extra);

/* ---- large messages ---- */

enum { PL_BULK_RING = 0, PL_BULK_SEGMENT = 1 }; /* kinds of messages in the ring: the body, or where it lies */
enum { PL_BULK_GONE = 1, PL_BULK_AGAIN = 2 };
enum { PL_BULK_KEPT = 3 }; /* of the last large messages, besides the history */

struct pl_outlet;
struct pl_intake;
struct pl_view;
struct plait_message;

/* A segment to be filled with SIZE bytes: the caller's until give_back. -ENOMEM, -ENOBUFS, -EMFILE with text. */
int pl_bulk_take(struct plait_publisher *publisher, size_t size, struct pl_bulk_segment **ret_segment);
/* Would pl_bulk_take wait? Then until all who count have read up to *ret_end. `lock` held. */
bool pl_bulk_unread(struct plait_publisher *publisher, uint64_t *ret_end);
uint8_t *pl_bulk_data(const struct pl_bulk_segment *segment);
/* What the ring says of it, to be published next: id, generation, size, and in the upper half of that the number of the
 * announcement that brought the memory. */
void pl_bulk_record(struct plait_publisher *publisher, struct pl_bulk_segment *segment, size_t size,
                    uint8_t record[PL_FRAME_SEGMENT_SIZE]);
void pl_bulk_give_back(struct pl_bulk_segment *segment); /* any thread, also after close */
void pl_bulk_lend(struct pl_bulk_segment *segment, size_t size, struct pl_loan *ret_loan);
struct pl_bulk_segment *pl_bulk_of(const struct plait_publisher *publisher, const struct pl_loan *loan); /* or NULL */
/* Both under `lock`: to a new subscriber, and how many announcements those are. */
int pl_bulk_announce_all(struct pl_outlet *outlet);
uint32_t pl_bulk_announcements(const struct plait_publisher *publisher);
/* Under `lock`: gives up the memory that nobody needs, after a while without large messages. True: more would go if it
 * weren't held, or still to be read. */
bool pl_bulk_trim(struct plait_publisher *publisher);
extern uint64_t pl_bulk_idle_ns; /* that while */
void pl_bulk_free(struct plait_publisher *publisher);
void pl_bulk_forked(struct plait_publisher *publisher);

/* Where the body lies that RECORD names; until pl_hazard_clear(outlet->page, 0). 0, or PL_BULK_GONE. */
int pl_bulk_view(struct pl_outlet *outlet, const uint8_t record[PL_FRAME_SEGMENT_SIZE], const uint8_t **ret_data,
                 size_t *ret_size);

/* Holds the message WHERE in SLOT; false: it is gone. */
bool pl_hazard_set(struct pl_subscriber_page *page, int slot, const struct pl_broadcast_shared *shared,
                   const struct pl_frame_segment *where);
void pl_hazard_clear(struct pl_subscriber_page *page, int slot);

/* Takes PAGE; SHARED stays as long as the inlet. */
int pl_intake_new(struct pl_intake **ret_intake, const struct pl_broadcast_shared *shared,
                  struct pl_subscriber_page *page);
/* The inlet ends. While messages are held, *socket is taken, so that the publisher sees them held. NULL is fine. */
void pl_intake_close(struct pl_intake *intake, int *socket);
/* Takes FD. -EPROTO, -ENOMEM. */
int pl_intake_add(struct pl_intake *intake, int fd, const struct pl_frame_segment *what);
/* The publisher gave segment ID up: unmapped as soon as nothing in it is held. */
void pl_intake_drop(struct pl_intake *intake, uint32_t id);
/* Into MESSAGE, its size and body: 0, PL_BULK_GONE, -EPROTO, -ENOMEM. */
int pl_intake_take(struct pl_intake *intake, const struct pl_frame_segment *where, struct plait_message *message);
void pl_intake_let_go(struct plait_message *message); /* any thread */

/* ---- outlet ---- */

struct pl_outlet {
    struct pl_list link;
    struct plait_publisher *publisher;
    const struct pl_topic_listener *listener;
    struct pl_stream stream;
    struct pl_source socket;
    struct pl_timer timer; /* for the hello */
    struct pl_greeting greeting;
    struct pl_hello_client hello;
    bool hello_done, shm;
    pid_t pid;
    uid_t uid;
    char address[PL_ADDRESS_TEXT];
    struct pl_status_connection *status;

    struct pl_subscriber_page *page; /* NULL: not greeted yet. At a socket: our own memory */
    bool gates;
    /* the publishing thread's */
    uint64_t seen, since; /* its cursor as last seen, and when that was new (ns) */
    uint32_t times_left;
    bool left;   /* behind, by a reliable publisher */
    bool untold; /* its socket had no room for the announcement of a segment */
    bool pinned; /* the publishing thread sleeps on page->waiting; `orphan`: and has to free this */
    bool orphan;

    /* at a socket */
    struct pl_broadcast_reader reader;
    uint64_t told;    /* cursor */
    uint64_t dropped; /* page->dropped, as last sent on */
    uint64_t skip_to; /* numbers before this are not to be sent */
    bool blocked;     /* until the socket takes more */
};

/* Takes SOCKET. Begins to greet; the helper's. */
void pl_outlet_begin(struct pl_topic_listener *listener, int socket, const struct pl_address *peer);
void pl_outlet_end(struct pl_outlet *outlet);  /* the helper's, or after its end */
bool pl_outlet_pump(struct pl_outlet *outlet); /* at a socket: sends on; true: there is more to do now */
void pl_outlet_free(struct pl_outlet *outlet); /* of an orphan */
void pl_outlet_wake_publisher(struct pl_subscriber_page *page); /* it sleeps on this one */

/* ---- message ---- */

struct plait_message {
    _Alignas(16) struct pl_broadcast_head head; /* as what a held body follows is to be aligned */
    const uint8_t *body;
    uint64_t publisher;
    uint64_t named; /* whose topic it is that `topic` says */
    uint64_t lost;
    int64_t unix_ns; /* 0: to be derived from head.ticks */
    plait_lost why;
    uint32_t stuck_ms; /* why: DROPPED */
    bool held;
    uint8_t *memory;          /* of the body, at a socket or copied; free() it */
    struct pl_intake *intake; /* whose `slot` holds the body, which lies in `view` */
    struct pl_view *view;
    int slot;
    char topic[PLAIT_NAME_MAX + 1];
    char text[64];
};

/* ---- subscriber ---- */

enum pl_inlet_state { PL_INLET_GREETING, PL_INLET_OPEN, PL_INLET_ENDED };

struct pl_inlet {
    struct pl_list link;
    struct plait_subscriber *subscriber;
    struct pl_instance instance; /* of a URL: without id until it is greeted */
    enum pl_inlet_state state;
    bool shm, later; /* later: it came after the subscriber, so all that it has told is wanted */
    bool reliable, died;
    bool fresh; /* nothing was taken yet */
    int error;  /* why it ended, if that was in the middle */
    struct pl_stream stream;
    struct pl_source socket, process;
    struct pl_timer timer;

    struct pl_broadcast_reader reader;
    struct pl_waiters_page *waiters;
    struct pl_subscriber_page *page; /* the intake's */
    struct pl_intake *intake;
    struct pl_source bell;
    uint64_t told, dropped;
    uint32_t due;    /* announcements of segments that come with the greeting */
    uint64_t gone;   /* messages that could not be taken, not told yet */
    uint64_t number; /* at a socket: the next message's */
    uint64_t size;   /* at a socket: of the body that is being received into `partial` */
    uint8_t *partial;
    struct pl_frame frame;
};

struct plait_subscriber {
    struct pl_list inlets;
    struct pl_inlet *current; /* whose turn it is */
    uint32_t turn;            /* messages of it in a row */
    uint32_t unseen;          /* messages since epoll was asked */
    struct plait_message message;
    struct pl_spin spin;
    struct pl_loop loop;
    struct pl_fork_hook fork;
    struct pl_name_watch *watch;
    struct pl_source names;
    struct pl_timer retry, nudge;
    struct pl_alarm alarm; /* for a foreign loop */
    uint32_t retry_ms;
    bool ready, foreign_loop; /* ready: opened */
    bool look_again;
    uint64_t pending_lost; /* of inlets that ended */
    plait_lost pending_why;
    uint64_t last_instance, last_number; /* of a URL: where to go on */

    struct pl_url url; /* scheme NAME: url.name, which is a prefix if `all` */
    bool all;
    struct pl_interrupt interrupt;
    char *target, *peer;
    char refusal[256]; /* what the last publisher that ended in the middle said */
    uint32_t history;
    int32_t reliable;
    uint64_t max_message;
    _Alignas(64) uint8_t body[PL_BROADCAST_BODY_MAX];
};

int pl_inlet_new(struct pl_inlet **ret_inlet, struct plait_subscriber *subscriber, const struct pl_instance *instance,
                 int socket); /* takes SOCKET; sends the hello */
void pl_inlet_free(struct pl_inlet *inlet);

/* The next message into subscriber->message: 0; 1 none now; 2 ended and read to its end. */
enum { PL_INLET_EMPTY = 1, PL_INLET_DONE = 2 };
int pl_inlet_take(struct pl_inlet *inlet);
bool pl_inlet_sleep(struct pl_inlet *inlet); /* announces; false: something is there */
bool pl_inlet_ready(const struct pl_inlet *inlet);
void pl_inlet_forked(struct pl_inlet *inlet);

#endif
