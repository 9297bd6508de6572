/* log: silent unless asked; one whole line at a time.
 *
 * The level that somebody wants is one relaxed word, so that a remark nobody reads costs a
 * load. The lock is held for copying the two pointers, never during the callback: a callback
 * may take locks of its own (an interpreter's), or call plait again. Hence a line that is
 * under way may still reach the old function shortly after plait_set_log() has returned.
 */
#include "base/log.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_SIZE 1024
#define SILENT (-1)

static pthread_once_t prepared = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static plait_log_fn *log_fn; /* under lock, as is log_context */
static void *log_context;
static int stderr_level = SILENT;          /* from PLAIT_LOG; constant after `prepared` */
static _Atomic int wanted_level = INT_MIN; /* INT_MIN: not prepared yet */

static void lock_log(void)
{
    pthread_mutex_lock(&lock);
}

static void unlock_log(void)
{
    pthread_mutex_unlock(&lock);
}

static void prepare(void)
{
    const char *level = getenv("PLAIT_LOG");
    if (level != NULL && strcmp(level, "error") == 0) stderr_level = PLAIT_LOG_ERROR;
    if (level != NULL && strcmp(level, "info") == 0) stderr_level = PLAIT_LOG_INFO;
    if (level != NULL && strcmp(level, "debug") == 0) stderr_level = PLAIT_LOG_DEBUG;
    pthread_atfork(lock_log, unlock_log, unlock_log); /* else a child could find it locked for ever */
    /* relaxed: a level guards nothing; what a line needs is read under the lock */
    atomic_store_explicit(&wanted_level, stderr_level, memory_order_relaxed);
}

void plait_set_log(plait_log_fn *fn, void *context)
{
    pthread_once(&prepared, prepare);
    pthread_mutex_lock(&lock);
    log_fn = fn;
    log_context = context;
    /* relaxed: see prepare() */
    atomic_store_explicit(&wanted_level, fn != NULL ? PLAIT_LOG_DEBUG : stderr_level, memory_order_relaxed);
    pthread_mutex_unlock(&lock);
}

/* What peers sent may be in a line; it must stay one line and not steer a terminal. */
static void make_printable(char *line)
{
    for (unsigned char *c = (unsigned char *)line; *c != '\0'; c++) {
        if (*c < 0x20) *c = ' ';
        if (*c == 0x7f) *c = '?';
    }
}

/* Writes to stderr in one write(2). stderr may be a pipe without a reader: the SIGPIPE that
 * this would raise is taken back, unless one was pending before us. */
static void write_stderr(plait_log_level level, const char *line)
{
    static const char *const names[] = { "error", "info", "debug" };
    char text[LINE_SIZE + 64];
    int length = snprintf(text, sizeof text, "plait[%d]: %s: %s\n", (int)getpid(), names[level], line);
    if (length < 0) return;
    sigset_t pipe_signal, pending, old;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    sigpending(&pending);
    bool pending_before = sigismember(&pending, SIGPIPE) == 1;
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &old);
    ssize_t written;
    do {
        written = write(STDERR_FILENO, text, (size_t)length);
    } while (written < 0 && errno == EINTR);
    if (written < 0 && errno == EPIPE && !pending_before) {
        struct timespec at_once = { 0, 0 };
        while (sigtimedwait(&pipe_signal, NULL, &at_once) < 0 && errno == EINTR) {
        }
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void pl_log(plait_log_level level, const char *format, ...)
{
    int keep_errno = errno;
    /* relaxed: see prepare() */
    if (atomic_load_explicit(&wanted_level, memory_order_relaxed) == INT_MIN) pthread_once(&prepared, prepare);
    if ((int)level > atomic_load_explicit(&wanted_level, memory_order_relaxed)) return;

    char line[LINE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (length >= 0) {
        make_printable(line);
        pthread_mutex_lock(&lock);
        plait_log_fn *fn = log_fn;
        void *context = log_context;
        pthread_mutex_unlock(&lock);
        if (fn != NULL) fn(level, line, context);
        else if ((int)level <= stderr_level) write_stderr(level, line);
    }
    errno = keep_errno;
}
