/* error: what a thread's last failure was, where, and what to do about it.
 *
 * Two kinds of failure. A negative errno is fatal to the operation: forward it unchanged,
 * perhaps with pl_error_in() for the place. A positive outcome is one that the very function
 * documents and its caller handles; it is never forwarded.
 */
#ifndef PL_BASE_ERROR_H
#define PL_BASE_ERROR_H

/* Sets the thread's text and returns CODE (a negative errno). */
int pl_error(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts "CONTEXT: " before the thread's text and returns CODE. */
int pl_error_in(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The thread's text; never NULL. */
const char *pl_error_text(void);

/* The short word for an errno, "permission denied"; CODE may be negative. Static text, any
 * thread (strerror is neither short nor thread-safe). */
const char *pl_error_word(int code);

#endif
