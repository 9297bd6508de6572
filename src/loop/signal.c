#include "loop/signal.h"

#include "base/error.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdatomic.h>
#include <unistd.h>

/* Read by the handler: a slot is live while its wake_fd is not 0 (stored as fd + 1). `running` counts handlers
 * at work in any thread, so that release can wait until none of them still holds the old descriptor. */
static struct {
    bool used;
    _Atomic int caught;
    _Atomic int hung_up;
    _Atomic int told; /* pl_signal_caught() said so: the server stops */
    _Atomic int wake_fd;
} catchers[PL_SIGNAL_CATCHERS];
static _Atomic int running;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int users;
enum { SIGNALS = 3, HANGUP = 2 };
static const int caught_signals[SIGNALS] = { SIGINT, SIGTERM, SIGHUP };
static struct sigaction before[SIGNALS];
static bool installed[SIGNALS];

static void on_signal(int number)
{
    int saved = errno;
    uint64_t one = 1;
    int live = 0, told = 0;
    atomic_fetch_add(&running, 1); /* F_SIG1: seq_cst against F_SIG2 in release */
    for (int i = 0; i < PL_SIGNAL_CATCHERS; i++) {
        int fd = atomic_load(&catchers[i].wake_fd); /* F_SIG1: as above */
        if (fd == 0) continue;
        if (number == SIGHUP) {
            atomic_store(&catchers[i].hung_up, 1); /* F_SIG1: as above */
            (void)!write(fd - 1, &one, sizeof(one));
            continue;
        }
        live++;
        told += atomic_load(&catchers[i].told); /* F_SIG1: as above */
        atomic_store(&catchers[i].caught, 1);   /* F_SIG1: as above */
        (void)!write(fd - 1, &one, sizeof(one));
    }
    if (live > 0 && told == live) {
        /* Who asks again, since a handler holds up the stop that is under way, ends the process. */
        struct sigaction usual = { .sa_handler = SIG_DFL };
        sigaction(number, &usual, NULL);
        raise(number);
    }
    atomic_fetch_sub(&running, 1); /* F_SIG1: as above */
    errno = saved;
}

static void install(int first, int end)
{
    for (int i = first; i < end; i++) {
        struct sigaction ours = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
        sigemptyset(&ours.sa_mask);
        installed[i] = sigaction(caught_signals[i], NULL, &before[i]) == 0 && before[i].sa_handler == SIG_DFL &&
                       sigaction(caught_signals[i], &ours, NULL) == 0;
    }
}

static void restore(void)
{
    struct sigaction now;
    /* Not over what the program has installed meanwhile. */
    for (int i = 0; i < SIGNALS; i++) {
        if (installed[i] && sigaction(caught_signals[i], NULL, &now) == 0 && now.sa_handler == on_signal)
            sigaction(caught_signals[i], &before[i], NULL);
        installed[i] = false;
    }
}

int pl_signal_catch(int wake_fd, bool hangups)
{
    int ticket = -1;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < PL_SIGNAL_CATCHERS && ticket < 0; i++)
        if (!catchers[i].used) ticket = i;
    if (ticket >= 0) {
        catchers[ticket].used = true;
        atomic_store(&catchers[ticket].hung_up, 0);           /* F_SIG2: seq_cst against F_SIG1 */
        atomic_store(&catchers[ticket].told, 0);              /* F_SIG2: seq_cst against F_SIG1 */
        atomic_store(&catchers[ticket].caught, 0);            /* F_SIG2: seq_cst against F_SIG1 */
        atomic_store(&catchers[ticket].wake_fd, wake_fd + 1); /* F_SIG2: seq_cst against F_SIG1 */
        if (users++ == 0) install(0, HANGUP);
        if (hangups && !installed[HANGUP]) install(HANGUP, SIGNALS);
    }
    pthread_mutex_unlock(&lock);
    if (ticket < 0)
        return pl_error(-EAGAIN, "more than %d servers in plait_server_run() at once: use plait_server_start()",
                        PL_SIGNAL_CATCHERS);
    return ticket;
}

bool pl_signal_caught(int ticket)
{
    if (atomic_load(&catchers[ticket].caught) == 0) return false; /* F_SIG2: seq_cst against F_SIG1 */
    atomic_store(&catchers[ticket].told, 1);                      /* F_SIG2: as above */
    return true;
}

bool pl_signal_hung_up(int ticket)
{
    return atomic_exchange(&catchers[ticket].hung_up, 0) != 0; /* F_SIG2: seq_cst against F_SIG1 */
}

void pl_signal_release(int ticket)
{
    if (ticket < 0) return;
    pthread_mutex_lock(&lock);
    if (--users == 0) restore();
    atomic_store(&catchers[ticket].wake_fd, 0); /* F_SIG2: seq_cst against F_SIG1 */
    while (atomic_load(&running) != 0)          /* F_SIG2: a handler takes microseconds and holds no lock */
        sched_yield();
    catchers[ticket].used = false;
    pthread_mutex_unlock(&lock);
}

void pl_signal_block_all(sigset_t *ret_before)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, ret_before);
}
