/* Topics: a publisher tells a stream of messages to whoever subscribes. For one answer to one question, call a
 * service instead.
 *
 * On one machine the messages go through memory that only the publisher can write and that costs it the same
 * for one subscriber as for a thousand: each reads at its own pace. Over TCP each subscriber has a queue of
 * its own, bounded, with the same rules.
 *
 * - latest (the default): the publisher never waits. A subscriber that is too slow loses the oldest
 *   messages, and is told how many.
 * - reliable: the publisher waits for its slowest subscriber. One that makes no progress for `timeout` is left
 *   behind: it is told so when it goes on, and then counts again.
 *
 * Order of start is free. Several publishers of one topic merge at the subscriber, each in its own order. A
 * publisher that starts anew is found without a call; of what a publisher tells that appeared after the
 * subscriber, nothing is missed that its ring still holds.
 */
#ifndef PLAIT_TOPIC_H
#define PLAIT_TOPIC_H

#include <plait/service.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct plait_publisher plait_publisher;
typedef struct plait_subscriber plait_subscriber;
typedef struct plait_message plait_message;
typedef struct plait_loan plait_loan; /* of loan.h */

#define PLAIT_HISTORY_MAX 8000 /* messages that a publisher can promise to keep for late subscribers */
#define PLAIT_HOLD_MAX 8       /* messages above 8 KiB that one subscriber holds at once */

/* ---- publisher ---------------------------------------------------------------------- */

typedef struct plait_publisher_options {
    size_t size;
    int32_t reliable;          /* nonzero: wait for slow subscribers */
    uint32_t history;          /* how many of its last messages a late subscriber can surely get; at most
                                  PLAIT_HISTORY_MAX. 0: what the ring, 256 KiB, happens to hold */
    uint32_t wait_subscribers; /* publish waits until there are so many */
    uint32_t reserved;
    int64_t timeout;      /* ms; default 1000: how long a reliable publisher waits for a subscriber that makes no
                             progress, and any one for wait_subscribers */
    const char *listen;   /* URLs, separated by spaces, at which others may subscribe, too: tcp://HOST:PORT,
                             unix:///PATH; insecure=1 is needed beyond loopback */
    const char *allow;    /* who else may subscribe here: "alice,1001,@video,*" */
    uint64_t max_message; /* bytes; default 1 GiB locally, to subscribers over the network 16 MiB */
    /* As a client's: asked every 50 ms while publish or loan waits; nonzero ends it with -EINTR. NULL: never. */
    int (*interrupted)(void *context);
    void *interrupted_context;
} plait_publisher_options;
#define PLAIT_PUBLISHER_OPTIONS_INIT                                                                                   \
    {                                                                                                                  \
        .size = sizeof(plait_publisher_options)                                                                        \
    }

/* Offers TOPIC, and starts the two threads that greet subscribers and wake many. Errors: -EINVAL (name, options, URL),
 * -EEXIST (a service has this name), -EADDRINUSE, -EACCES, -EPERM (beyond loopback), -ENOSPC, -EROFS, -EMFILE,
 * -ENOMEM. */
int plait_publisher_open(plait_publisher **ret_publisher, const char *topic, const plait_publisher_options *options);

/* Publishes a message; DATA is copied before it returns. By one thread at a time. Without sleeping subscribers
 * this makes no system call. Errors: -EMSGSIZE (names the limit), -ETIMEDOUT (fewer than wait_subscribers: nothing
 * was published), -EINTR (`interrupted`; likewise), -ENOMEM, -ENOBUFS (no memory for a large message; the text names
 * the size), -ECHILD. A subscriber
 * that is left behind is no error; the log names it. */
int plait_publisher_publish(plait_publisher *publisher, const void *data, size_t size);
int plait_publisher_publish_as(plait_publisher *publisher, plait_encoding encoding, const void *data, size_t size);

/* For a loop of one's own, which must not wait: would publish or loan, of up to SIZE bytes? 0: no. -EAGAIN: yes, for a
 * slow subscriber or for wait_subscribers; nothing tells when that is over, so ask again in some milliseconds. Asking
 * is waiting in so far as a subscriber that makes no progress for `timeout` meanwhile is left behind. By the thread
 * that publishes. Errors: -EMSGSIZE, -ECHILD. */
int plait_publisher_ready(plait_publisher *publisher, size_t size);

/* A loan (see loan.h) for a message of up to SIZE bytes: above 8 KiB it lies in a segment that subscribers read in
 * place. By the thread that publishes. Errors: -ENOBUFS (PLAIT_SEGMENTS_MAX: the text says who holds how many), -ENOMEM
 * (the text names the size), -EMFILE, -EMSGSIZE, -EINTR (`interrupted`). */
int plait_publisher_loan(plait_publisher *publisher, size_t size, plait_loan **ret_loan);

/* As plait_publisher_publish_as, with the first SIZE bytes of LOAN, which it takes, without a copy if this publisher
 * lent it. -EINVAL: SIZE is larger than the loan, or the loan is over. */
int plait_publisher_publish_loan(plait_publisher *publisher, plait_encoding encoding, plait_loan *loan, size_t size);

/* How many subscribers there are now. Any thread. */
size_t plait_publisher_subscribers(const plait_publisher *publisher);

/* The INDEXth listener's URL with its real port, or NULL. Valid until close. */
const char *plait_publisher_url(const plait_publisher *publisher, size_t index);

/* Ends. What was published remains readable to those who were subscribed; to those at a socket it is sent first,
 * for at most `timeout` without progress. NULL is fine. */
void plait_publisher_close(plait_publisher *publisher);

/* ---- subscriber --------------------------------------------------------------------- */

typedef enum plait_reliability {
    PLAIT_RELIABLE_NO = -1,     /* never hold a publisher up: what tools use */
    PLAIT_RELIABLE_DEFAULT = 0, /* as each publisher offers */
    PLAIT_RELIABLE_YES = 1      /* refuse publishers that aren't reliable */
} plait_reliability;

typedef struct plait_subscriber_options {
    size_t size;
    uint32_t history;        /* how many earlier messages to get of each publisher that is there */
    int32_t reliable;        /* plait_reliability */
    int64_t connect_timeout; /* ms; default 5000; for URLs alone: an absent name is no error */
    int64_t spin_us;         /* see PLAIT_SPIN_ in service.h */
    const char *peer;        /* user name or uid whose topics are accepted, too */
    uint64_t max_message;    /* bytes; default 1 GiB locally, 16 MiB over the network */
    /* As a client's: asked every 50 ms while open or next waits, and before next connects to a URL anew; nonzero ends
     * it with -EINTR, and no message is lost by that. NULL: never. */
    int (*interrupted)(void *context);
    void *interrupted_context;
} plait_subscriber_options;
#define PLAIT_SUBSCRIBER_OPTIONS_INIT                                                                                  \
    {                                                                                                                  \
        .size = sizeof(plait_subscriber_options)                                                                       \
    }

/* TOPIC: a name ("camera"), all topics that begin so ("sensors.*", also later ones), or a URL: tcp://HOST:PORT/TOPIC,
 * unix:///PATH. Publishers that are there are subscribed to when it returns. Errors: -EINVAL (name, options),
 * -ENOENT (only a service has this name), -EOPNOTSUPP (RELIABLE_YES, and all publishers that are there aren't),
 * -ECONNREFUSED, -ETIMEDOUT, -EPROTO (URLs), -EINTR (`interrupted`), -EACCES, -EMFILE, -ENOMEM. */
int plait_subscriber_open(plait_subscriber **ret_subscriber, const char *topic,
                          const plait_subscriber_options *options);

/* The next message, waiting at most TIMEOUT ms (0: for ever; PLAIT_NOW: don't wait). *ret_message is lent until the
 * next call or close. By one thread at a time. Errors: -ETIMEDOUT, -EAGAIN (PLAIT_NOW and nothing is there), -EINTR
 * (`interrupted`), -ECHILD. What goes wrong with one publisher is no error: the log names it, and the
 * message that follows tells what was lost. */
int plait_subscriber_next(plait_subscriber *subscriber, int64_t timeout, plait_message **ret_message);

/* For a loop of one's own: readable when there may be a message: then call next with PLAIT_NOW until -EAGAIN. Owned by
 * the subscriber. */
int plait_subscriber_fd(plait_subscriber *subscriber);

/* How many publishers it is subscribed to now. */
size_t plait_subscriber_publishers(const plait_subscriber *subscriber);

void plait_subscriber_close(plait_subscriber *subscriber); /* NULL is fine; held messages stay */

/* ---- message ------------------------------------------------------------------------ */

typedef enum plait_lost {
    PLAIT_LOST_NOTHING = 0,
    PLAIT_LOST_OVERRUN = 1,    /* the subscriber was too slow */
    PLAIT_LOST_DROPPED = 2,    /* ... for longer than a reliable publisher waits */
    PLAIT_LOST_DIED = 3,       /* the publisher before this one died; the count is of what it had published */
    PLAIT_LOST_RECONNECTED = 4 /* told before the subscriber was connected (again) */
} plait_lost;

plait_bytes plait_message_body(const plait_message *message);
plait_encoding plait_message_encoding(const plait_message *message);
const char *plait_message_topic(const plait_message *message);
uint64_t plait_message_number(const plait_message *message);    /* from 1, of its publisher */
uint64_t plait_message_publisher(const plait_message *message); /* 64 random bits, another for each plait_publisher */
int64_t plait_message_time(const plait_message *message);       /* when it was published: ns of Unix time */

/* How many messages were lost between the one before and this one, exactly; *RET_WHY (NULL is fine) gets the latest
 * cause, which may come with a count of 0: then nothing is missing. */
uint64_t plait_message_lost(const plait_message *message, plait_lost *ret_why);
/* The same in words: "", "3 lost: overrun", "dropped: stuck for 1000 ms, 90 lost". Valid as long as the message. */
const char *plait_message_lost_text(const plait_message *message);

/* Keeps the message beyond the next call: *ret_held is to be released, by any thread, also after close. Small ones are
 * copied. Errors: -ENOMEM. */
int plait_message_hold(plait_message *message, plait_message **ret_held);
void plait_message_release(plait_message *held); /* NULL is fine */

#ifdef __cplusplus
}
#endif

#endif
