/* system: what the tests with many processes share.
 *
 * A test's own process is the director: it forks servers and clients and speaks plait itself only where said. All
 * of them see one board, in memory that they share: it numbers the calls, counts how often each number's handler
 * ran, and carries orders. Every answer is checked against what was asked: body and number; and no call that
 * isn't idempotent may ever have run twice.
 */
#ifndef TESTS_SYSTEM_SYSTEM_H
#define TESTS_SYSTEM_SYSTEM_H

#include "harness/test.h"

#include <plait/plait.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { NUMBERS = 1 << 22, CALLERS = 24, PATIENCE_MS = 30000, BIG = 16 << 20 };

/* What a caller does next; it goes back to CHECKED by itself. */
enum order {
    ORDER_CHECKED, /* verified calls, one after the other */
    ORDER_HANG,    /* one call whose handler stays until the board's `release` */
    ORDER_FETCH,   /* one call with an answer of BIG bytes */
    ORDER_UPLOAD,  /* one call with a body of BIG bytes */
    ORDER_DEFER    /* one call that is answered at the board's `release`, after its handler */
};

struct caller {
    _Atomic uint32_t order;
    _Atomic uint32_t verified;      /* right answers so far */
    _Atomic uint32_t lost;          /* -ECONNRESET so far */
    _Atomic uint32_t writing;       /* 1: inside the order's call */
    _Atomic uint32_t paused;        /* 1: as the board wants it */
    _Atomic int64_t over_ms;        /* when the last order ended */
    _Atomic uint32_t fds, mappings; /* taken while paused */
};

struct board {
    _Atomic uint32_t stop, pause, release;
    _Atomic uint32_t next;      /* the last call's number */
    _Atomic int32_t in_handler; /* pid of the server whose handler hangs; 0: none */
    _Atomic uint32_t answering; /* 1: a handler is giving a big answer */
    _Atomic uint32_t deferred;  /* requests taken away */
    _Atomic uint32_t answered;  /* of those */
    _Atomic uint32_t
        strangers; /* 1: whoever writes random frames may call by any number, so that runs can't be counted */
    _Atomic int32_t answer_result;
    struct caller caller[CALLERS];
    _Atomic uint8_t ran[NUMBERS]; /* how often the handler of each number ran */
};

struct board *board_new(void);
/* Checks that no number ran twice that must not; frees. */
void board_free(struct board *board);

/* ---- time ---- */
int64_t now_ms(void);
void pause_ms(int milliseconds); /* between looks, never as a proof */
#define WAIT_UNTIL(condition) WAIT_WITHIN(condition, PATIENCE_MS)
#define WAIT_WITHIN(condition, milliseconds)                                                                           \
    do {                                                                                                               \
        int64_t wait_until_ = now_ms() + (milliseconds);                                                               \
        while (!(condition)) {                                                                                         \
            if (now_ms() > wait_until_)                                                                                \
                test_fail(__FILE__, __LINE__, "after %d ms still not: %s", (int)(milliseconds), #condition);           \
            pause_ms(1);                                                                                               \
        }                                                                                                              \
    } while (0)

/* ---- servers ---- */
struct serve {
    const char *name;
    plait_server_options options; /* size 0: defaults */
    const char *listen[6];
    int fd_limit;        /* RLIMIT_NOFILE; 0: as it is */
    uid_t uid;           /* 0: as we are */
    void (*storm)(void); /* called in the server's process before it opens */
    bool fails;          /* open or listen must fail: started.result, started.error */
};

struct started {
    pid_t pid;
    int result;
    char error[512];
    char url[6][160];
};

/* Forks a server with the methods check, hang, fetch, upload, defer; "" is check. It ends by SIGTERM, having
 * checked itself for leaks. */
struct started serve(struct board *board, const struct serve *what);
void await_running(const struct started *server); /* from then on SIGTERM stops it in good order */
void end_server(const struct started *server);    /* SIGTERM; it must end well */
void kill_process(pid_t pid);                     /* SIGKILL, reaped */

/* ---- clients ---- */

/* Never NULL: failing fails the test. */
plait_client *open_client(const char *target, const plait_client_options *options);

/* One verified call with a body of SIZE bytes (at least 8): 0 or what it returned. FLAGS: PLAIT_CALL_. */
int checked_call(struct board *board, plait_client *client, size_t size, uint32_t flags, int64_t timeout);

/* Frees what the calling thread keeps between checked calls. */
void caller_forget(void);

/* A forked client with a place on the board: verified calls until the board says stop. Where servers get
 * killed, -ECONNRESET is all right for calls that aren't idempotent. */
pid_t caller_start(struct board *board, unsigned place, const char *target, bool servers_die);
/* The same, but the caller stays in its call of ORDER until the client gets killed. */
void caller_order(struct board *board, unsigned place, enum order order);
void callers_pause(struct board *board, unsigned count, bool pause);
/* Stop, and each must have ended well. */
void callers_end(struct board *board, const pid_t *pids, unsigned count);
/* Waits until each of the first COUNT callers has got one more right answer. */
void callers_advance(struct board *board, unsigned count);

/* ---- forking ---- */

/* What a forked process ends with: leaks of memory are looked for, nothing of the runner runs. */
void leave(int status) __attribute__((noreturn));

/* ---- looking at others ---- */
size_t fds_of(pid_t pid);
void await_fds(pid_t pid, size_t most); /* until PID has no more; what it has is in the failure */
size_t mappings_of(pid_t pid);          /* shared ones */
size_t entries_of_names(void);          /* files in the runtime directory's services/ and s/ */
char state_of(pid_t pid);               /* as /proc says: R S T Z ... */
uint64_t switches_of(pid_t pid);        /* voluntary, of all threads */

/* The service's counter, read from its status page as docs/status.md says; 0 if there is none. */
uint64_t counter_of(const char *service, const char *counter);

/* ---- raw sockets ---- */

/* Connected to a URL "tcp://HOST:PORT..." or "unix:///PATH...". */
int raw_connect(const char *url);
/* Connected to the only instance of NAME. */
int raw_connect_name(const char *name);
void raw_send(int fd, const void *bytes, size_t size); /* an error of the peer's is none of ours */
/* Reads until SIZE bytes, the end of the stream or a reset; returns what came. */
size_t raw_read(int fd, void *bytes, size_t size);
/* 1 if the peer closes within MILLISECONDS; what comes before is dropped. */
int raw_closed(int fd, int milliseconds);
size_t raw_hello(uint8_t bytes[132], const char *name, uint64_t features);
void raw_frame(uint8_t head[32], uint32_t size, uint8_t kind, uint8_t flags, uint32_t method, uint64_t call);

uint32_t random_below(uint32_t bound); /* repeatable: seeded per test */

#endif
