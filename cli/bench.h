/* bench: what `plait bench` is made of.
 *
 * A *subject* is one way of getting a message from one process to another and back: a raw
 * primitive (bench_raw_*.c) or plait (bench_plait.c). A *round* is a fresh pair of processes:
 * a client process, which forks the server process before it opens anything, warms both up,
 * drives a load over the subject and leaves what it measured in memory shared with the
 * command. Fresh pairs cost a millisecond and buy independence: no spinning server eats the
 * CPU of the next subject, no round inherits another's luck with placement. A *row* lets
 * subjects take turns, round by round, and compares the medians (bench_table.c).
 *
 * Every reply is compared with what was sent; one wrong byte fails the row.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

struct bench_link;

enum bench_placement {
    BENCH_UNPINNED,
    BENCH_TWO_CPUS, /* client on the first CPU that we may use, server on the second */
    BENCH_ONE_CPU,  /* both on the first */
};

struct bench_hand_over {
    uint64_t entry, call; /* ns */
};

/* How one subject moves messages. Unused slots are NULL. All but prepare and serve run in the
 * client process. 0 or a negative errno, with the reason in link->shared->error. */
struct bench_ops {
    int (*prepare)(struct bench_link *link); /* in the client process, before the server is forked */
    int (*serve)(struct bench_link *link);   /* the server process: bench_ready(), then until killed */
    int (*open)(struct bench_link *link);
    /* One round trip; *ret_reply (SIZE bytes) is readable until release. */
    int (*call)(struct bench_link *link, const void *body, size_t size, const void **ret_reply);
    void (*release)(struct bench_link *link);
    int (*stream)(struct bench_link *link, size_t size, uint64_t count); /* one way, returns when all were seen */
    int (*pairs)(struct bench_link *link, size_t size, uint64_t count);  /* calls, many in flight */
    /* SIZE bytes, written in place, from their commit to the handler's entry, and the whole call but for the writing.
     */
    int (*hand_over)(struct bench_link *link, size_t size, uint64_t sequence, struct bench_hand_over *ret_times);
    void (*idle)(struct bench_link *link); /* waits for what never comes */
    void (*close)(struct bench_link *link);
};

struct bench_subject {
    const char *name;
    const struct bench_ops *ops;
    const char *transport; /* plait: shm, unix, tcp, raw-tcp, udp */
    int64_t spin_us;       /* plait: see PLAIT_SPIN_ */
    double low, high;      /* what a raw primitive usually reaches, in the row's unit; 0: not known */
};

struct bench_load {
    size_t size;
    size_t elsewhere;    /* hand-over drive: bytes of other memory written before each commit */
    unsigned batch;      /* calls per clock reading */
    unsigned warm_calls; /* before the clock runs; at least 20 ms of them unless `cold` */
    uint64_t pause_ns;   /* silence before each call */
    double seconds;      /* of one round */
    uint64_t most;       /* calls, messages or connections of one round at most; 0: no limit */
    unsigned crowd;      /* further connections, from other processes, that say nothing */
    bool reliable;       /* of a topic */
    enum bench_placement placement;
    int (*drive)(struct bench_link *link, const struct bench_load *load);
};

/* What one round found. Times in microseconds. */
struct bench_round {
    double p50, p90, p99, max;
    double per_second;
    double switches, server_switches; /* voluntary context switches per call: both sides, the server's */
    double syscalls;                  /* per call, both sides; -1: not counted */
    double bytes;                     /* per connection; memory drive only */
    double call;                      /* hand-over drive: the median of whole calls */
    double faults;                    /* hand-over drive: page faults per call, both sides; without the writing */
    bool own_memory;                  /* bytes are those of our processes, not of the machine */
    uint64_t calls;
};

/* Lies in memory that the command, the client and the server process share. */
struct bench_shared {
    char error[512];
    char url[256];
    struct bench_round round;
    uint64_t wrong; /* messages that the server found wrong */
};

struct bench_link {
    const struct bench_subject *subject;
    const struct bench_load *load;
    struct bench_shared *shared;
    char name[64]; /* of the service: no two pairs share one */
    pid_t server;
    int ready_fd; /* the server writes one byte here */
    void *state;  /* the subject's own */
};

/* ---- bench_pair.c: two processes and what is measured over them ------------------------ */

/* Runs one round in a fresh pair. 0, or a negative errno after a line on stderr. */
int bench_round(const struct bench_subject *subject, const struct bench_load *load, struct bench_round *ret_round);

int bench_ready(struct bench_link *link); /* server: "I can be called" */
int bench_fail(struct bench_link *link, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
int bench_fork_helper(pid_t *ret_child);                   /* 0 in the child, 1 in the parent; dies with it */
int bench_place(enum bench_placement placement, int side); /* side 0 client, 1 server */
int bench_cpus(void);                                      /* that we may use */
void bench_interrupt(void);                                /* from a signal handler: end the running round */

/* ---- bench_drive.c: the loads ---------------------------------------------------------- */

int bench_drive_calls(struct bench_link *link, const struct bench_load *load);   /* steady or sparse */
int bench_drive_stream(struct bench_link *link, const struct bench_load *load);  /* one way */
int bench_drive_pairs(struct bench_link *link, const struct bench_load *load);   /* many calls in flight */
int bench_drive_first(struct bench_link *link, const struct bench_load *load);   /* first call of a fresh connection */
int bench_drive_connect(struct bench_link *link, const struct bench_load *load); /* connect and first call */
int bench_drive_loans(struct bench_link *link, const struct bench_load *load);   /* written in place, handed over */
int bench_drive_idle(struct bench_link *link, const struct bench_load *load);    /* nothing at all */
int bench_drive_memory(struct bench_link *link, const struct bench_load *load);  /* `crowd` connections weighed */

/* ---- bench_topic.c: one to `crowd`; subjects are bench_topic and bench_wake_all ---------- */

int bench_drive_publish(struct bench_link *link, const struct bench_load *load); /* nobody waits */
int bench_drive_wake(struct bench_link *link, const struct bench_load *load);    /* everybody sleeps */
int bench_drive_fanout(struct bench_link *link, const struct bench_load *load);  /* everybody reads everything */

/* ---- bench_measure.c: clocks, counters, statistics ------------------------------------- */

uint64_t bench_now(void); /* ns */
void bench_fill(void *body, size_t size, uint64_t sequence);
int bench_compare_bytes(const void *a, const void *b, size_t size); /* 0 equal */

struct bench_samples {
    float *us;
    size_t count, room;
};
int bench_samples_init(struct bench_samples *samples, size_t room); /* its pages touched */
void bench_samples_deinit(struct bench_samples *samples);
void bench_samples_summarise(struct bench_samples *samples, struct bench_round *round); /* sorts */

struct bench_spread {
    double median, low, high;
};
struct bench_spread bench_spread_of(const double *values, size_t count);

/* Context switches of all threads of a process, seen from outside. */
struct bench_switches {
    uint64_t voluntary, involuntary;
};
int bench_switches_of(pid_t pid, struct bench_switches *ret_switches);
uint64_t bench_faults_of(pid_t pid); /* page faults so far */
uint64_t bench_memory_used(void);    /* bytes in use on this machine, page cache left out */

/* Weighs processes: see bench_memory.c. */
struct bench_scale {
    int usage_fd; /* -1: the whole machine is weighed */
    char base[32], group[80];
};
bool bench_scale_open(struct bench_scale *scale, const pid_t *pids, unsigned count); /* false: the machine */
void bench_scale_close(struct bench_scale *scale, const pid_t *pids, unsigned count);
uint64_t bench_scale_read(const struct bench_scale *scale); /* bytes */

/* Counts the system calls of a thread, if this machine lets us: fd, or a negative errno. */
int bench_syscalls_open(pid_t pid);
uint64_t bench_syscalls_read(int fd);

/* ---- subjects -------------------------------------------------------------------------- */

extern const struct bench_ops bench_raw_lines;        /* two cache lines, spinning */
extern const struct bench_ops bench_raw_handed;       /* one cache line says that memory is there, spinning */
extern const struct bench_ops bench_raw_futex;        /* shared memory and a futex, blocking */
extern const struct bench_ops bench_raw_eventfd;      /* shared memory and two eventfds, blocking read */
extern const struct bench_ops bench_raw_eventfd_poll; /* the same, poll before each read */
extern const struct bench_ops bench_raw_ring;         /* one-way and two-way rings, index each message */
extern const struct bench_ops bench_raw_unix;         /* Unix stream, length first */
extern const struct bench_ops bench_raw_tcp;          /* TCP on loopback, the same */
extern const struct bench_ops bench_raw_udp;          /* UDP on loopback, sendto and recvfrom */
extern const struct bench_ops bench_wake_all;         /* one futex that all wait on */
extern const struct bench_ops bench_wake_one;         /* one eventfd that one thread waits on */
extern const struct bench_ops bench_plait;
extern const struct bench_ops bench_topic;
extern const struct bench_ops bench_topic_loan;       /* to one subscriber, written in place */
extern const struct bench_ops bench_raw_copies;       /* one process that copies there and back */
extern const struct bench_ops bench_plait_raw_server; /* plait's raw framing called by a plain socket */

/* ---- bench_table.c: the table of figures; bench_single.c: one pattern --------------------- */

enum {
    BENCH_ROUNDS_MAX = 64,
    BENCH_SPIN_ALWAYS_US = 1000000, /* longer than anything here lasts */
};

struct bench_options {
    const char *transport, *pattern; /* single mode */
    int64_t spin_us;
    const char *only; /* of the table: the rows whose id begins so; NULL: all */
    size_t size;
    unsigned rounds;
    bool json;
};

enum bench_verdict { BENCH_MISSED, BENCH_REACHED, BENCH_SHOWN /* not judged */, BENCH_FAILED /* to be measured */ };

struct bench_result {
    const char *id, *what, *unit, *goal;
    const char *raw_name; /* NULL: nothing to compare with */
    struct bench_spread plait, raw;
    double p90, p99, max, per_second; /* plait's, medians of the rounds; 0: not of interest */
    double ratio;                     /* 0: none */
    enum bench_verdict verdict;
    char note[480];
};

/* Runs the subjects in turn, ROUNDS times; series[s * rounds + i] is subject s in round i. */
int bench_interleave(const struct bench_subject *const *subjects, const struct bench_load *loads, unsigned count,
                     unsigned rounds, struct bench_round *series);

/* Both return 0, 1 when a goal was missed, or a negative errno after a line on stderr. */
int bench_table(const struct bench_options *options);
int bench_single(const struct bench_options *options);

/* ---- bench_print.c ------------------------------------------------------------------------- */

void bench_print_head(const struct bench_options *options);
void bench_print(const struct bench_options *options, const struct bench_result *result);
void bench_print_end(const struct bench_options *options, unsigned reached, unsigned judged, double seconds);
void bench_note(struct bench_result *result, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
