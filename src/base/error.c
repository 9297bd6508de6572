/* error: one text per thread, bounded, so that failing never allocates.
 *
 * A new text is always built aside and copied over: its arguments may point into the old one.
 */
#include "base/error.h"

#include <errno.h>
#include <plait/plait.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TEXT_SIZE 1024

static _Thread_local char thread_text[TEXT_SIZE];

/* Takes over TEXT, of which snprintf said that it needs LENGTH bytes; a cut shows as "...". */
static void keep(const char *text, size_t length)
{
    if (length >= TEXT_SIZE) length = TEXT_SIZE - 1;
    memcpy(thread_text, text, length);
    thread_text[length] = '\0';
    if (length == TEXT_SIZE - 1) memcpy(thread_text + TEXT_SIZE - 4, "...", 3);
}

int pl_error(int code, const char *format, ...)
{
    char text[TEXT_SIZE];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (length < 0) length = snprintf(text, sizeof text, "%s", pl_error_word(code));
    keep(text, (size_t)length);
    return code;
}

int pl_error_in(int code, const char *format, ...)
{
    char text[TEXT_SIZE];
    va_list arguments;
    va_start(arguments, format);
    int context = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (context < 0 || context >= TEXT_SIZE) return code; /* a context without its text says less than the text */
    int rest = snprintf(text + context, sizeof text - (size_t)context, ": %s", thread_text);
    if (rest < 0) return code;
    keep(text, (size_t)context + (size_t)rest);
    return code;
}

const char *pl_error_text(void)
{
    return thread_text;
}

const char *plait_error_text(void)
{
    return thread_text;
}

const char *plait_version(void)
{
    return PLAIT_VERSION;
}

/* What plait itself returns, in words that fit after a colon. */
static const struct {
    int code;
    const char *word;
} words[] = {
    { 0, "no error" },
    { E2BIG, "too large for this version" },
    { EACCES, "permission denied" },
    { EADDRINUSE, "address in use" },
    { EADDRNOTAVAIL, "address not available here" },
    { EAFNOSUPPORT, "address family not supported" },
    { EAGAIN, "not ready" },
    { EALREADY, "already under way" },
    { EBADF, "bad descriptor" },
    { EBUSY, "busy" },
    { ECANCELED, "cancelled" },
    { ECHILD, "handle of another process" },
    { ECONNABORTED, "connection given up" },
    { ECONNREFUSED, "connection refused" },
    { ECONNRESET, "connection lost" },
    { EDEADLK, "would wait for itself" },
    { EEXIST, "exists already" },
    { EFAULT, "bad address" },
    { EFBIG, "file too large" },
    { EHOSTUNREACH, "host unreachable" },
    { EINPROGRESS, "in progress" },
    { EINTR, "interrupted" },
    { EINVAL, "invalid" },
    { EIO, "input/output error" },
    { EISCONN, "already connected" },
    { EISDIR, "is a directory" },
    { ELOOP, "symbolic link in the way" },
    { EMFILE, "too many open descriptors (raise the limit: ulimit -n)" },
    { EMSGSIZE, "message too large" },
    { ENAMETOOLONG, "name too long" },
    { ENETUNREACH, "network unreachable" },
    { ENFILE, "too many open files in the system" },
    { ENOBUFS, "no buffers" },
    { ENODEV, "no such device" },
    { ENOENT, "not found" },
    { ENOMEM, "out of memory" },
    { ENOSPC, "no space left" },
    { ENOSYS, "not in this kernel" },
    { ENOTCONN, "not connected" },
    { ENOTDIR, "not a directory" },
    { ENOTEMPTY, "not empty" },
    { ENOTSOCK, "not a socket" },
    { ENOTSUP, "not supported" },
    { EOVERFLOW, "out of range" },
    { EPERM, "not permitted" },
    { EPIPE, "peer has closed" },
    { EPROTO, "protocol violated" },
    { EPROTONOSUPPORT, "protocol not supported" },
    { EREMOTEIO, "failed at the other side" },
    { EROFS, "read-only file system" },
    { ESHUTDOWN, "shut down" },
    { ESRCH, "no such process" },
    { ESTALE, "stale" },
    { ETIMEDOUT, "timed out" },
    { ETXTBSY, "in use" },
    { EXDEV, "on another file system" },
};

const char *pl_error_word(int code)
{
    /* Not -code: that would be undefined for INT_MIN, which a peer's status may hold. */
    unsigned wanted = code < 0 ? 0u - (unsigned)code : (unsigned)code;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if ((unsigned)words[i].code == wanted) return words[i].word;
    }
    const char *description = wanted <= 4095 ? strerrordesc_np((int)wanted) : NULL; /* static text in libc */
    return description != NULL ? description : "unknown error";
}
