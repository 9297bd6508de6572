/* plait: inter-process communication for Linux. Includes every public C header.
 *
 * Caveats first
 * - Threads. See the table. An error text belongs to the thread that got the error.
 * - fork(). Handles don't survive it: in the child every call on one returns -ECHILD and
 *   only its close function does anything (it frees memory). The parent is not disturbed.
 *   fork first and open afterwards, or exec.
 * - Crashes. A process that dies at any instruction harms nobody else: its peers get
 *   -ECONNRESET, its name disappears, its memory is freed with its last user.
 * - Trust. A service is offered to your own uid, to root, and to those named in `allow`.
 *   A tcp:// or udp:// listener on loopback admits every local user.
 * - Datagrams. udp:// loses and duplicates messages, as UDP does: a call may time out though it
 *   ran, and a request may reach its handler twice.
 * - Signals. Only plait_server_run() handles any (SIGINT, SIGTERM, and only where they are
 *   at SIG_DFL; restored afterwards). SIGPIPE never comes from plait.
 * - Limits have names: PLAIT_NAME_MAX, PLAIT_METHODS_MAX, PLAIT_MESSAGE_MAX,
 *   PLAIT_DATAGRAM_MAX, PLAIT_SEGMENTS_MAX, PLAIT_ARRAY_DIMENSIONS, and the options
 *   max_message, inbound_bytes, outstanding. An error names the limit that it met.
 *
 *   object          thread-safe                 callable from a handler      after fork
 *   plait_server    handle, listen: before run  stop, url                    -ECHILD; close
 *                   stop, url: always
 *   plait_request   by one thread at a time     all                          -ECHILD
 *   plait_client    all but close               all, but a call to what      -ECHILD; close
 *                                               only this thread serves is
 *                                               -EDEADLK
 *   plait_reply     by one thread at a time     all                          readable; free
 *   plait_loan      by one thread at a time     all                          abort
 *   plait_watch     by one thread at a time     all                          usable
 *
 * Conventions
 * - Functions return 0 or a count, or a negative errno. plait_error_text() then says what
 *   went wrong, where, and what to do.
 * - Option structs begin with `size`; initialise them with their macro. Zero means default,
 *   NULL means all defaults; a nonzero byte beyond the size that the library knows is -E2BIG.
 * - Time spans are int64_t milliseconds: 0 is the default, PLAIT_NOW doesn't wait,
 *   PLAIT_FOREVER has no end.
 */
#ifndef PLAIT_PLAIT_H
#define PLAIT_PLAIT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PLAIT_VERSION_MAJOR 0
#define PLAIT_VERSION_MINOR 1
#define PLAIT_VERSION_PATCH 0
#define PLAIT_VERSION "0.1.0"

#define PLAIT_NAME_MAX 100            /* bytes of a service, topic or method name */
#define PLAIT_METHODS_MAX 1024        /* methods of one server */
#define PLAIT_MESSAGE_MAX 0x40000000u /* bytes of one message: 1 GiB */
#define PLAIT_DATAGRAM_MAX 65507u     /* bytes of one message over udp:// */

#define PLAIT_NOW ((int64_t)-1)
#define PLAIT_FOREVER INT64_MAX

/* Bytes that somebody else owns. `data` may be NULL where `size` is 0. */
typedef struct plait_bytes {
    const void *data;
    size_t size;
} plait_bytes;

/* What a body holds, as its sender said; plait itself doesn't look. */
typedef enum plait_encoding { PLAIT_BYTES = 0, PLAIT_UTF8 = 1, PLAIT_JSON = 2, PLAIT_ARRAY = 3 } plait_encoding;

/* The library's version, "MAJOR.MINOR.PATCH"; a static string. */
const char *plait_version(void);

/* What the last failing plait function on this thread has to say: what, where, what to do.
 * Never NULL; valid until the next plait call on this thread. */
const char *plait_error_text(void);

typedef enum plait_log_level { PLAIT_LOG_ERROR = 0, PLAIT_LOG_INFO = 1, PLAIT_LOG_DEBUG = 2 } plait_log_level;

/* Receives one line without a newline; may be called from any plait thread. */
typedef void plait_log_fn(plait_log_level level, const char *line, void *context);

/* Where the library's own remarks go: by default nowhere, or to stderr from the level in
 * PLAIT_LOG (error, info, debug). NULL restores that. Thread-safe. */
void plait_set_log(plait_log_fn *fn, void *context);

#ifdef __cplusplus
}
#endif

#include <plait/array.h>
#include <plait/service.h>
#include <plait/watch.h>

#endif
