/* Loans: memory for a large message that is written where its receiver reads it.
 *
 * A loan is memory of the size asked for, aligned to 64 bytes, for one message. Over shared memory it
 * lies in a segment of the connection: it is written in place and sent without a copy, and its pages
 * are made once and used again. Up to 8 KiB, and on sockets, it is plain memory, and everything
 * else is the same. Its content is undefined at first: write all that you send.
 *
 * A loan ends with the call that sends it, whatever that returns, or with plait_loan_abort. After that
 * neither the handle nor the memory may be used; a handle that is over is recognised as long as its
 * place was not needed again, and refused with -EINVAL. Any loan can be sent by any client and
 * any request of the process: without a copy by the connection that lent it, with one by others.
 *
 * Limits: PLAIT_MESSAGE_MAX bytes, and PLAIT_SEGMENTS_MAX segments of one connection and direction, which
 * loans, calls in flight and bodies that the receiver still holds share.
 */
#ifndef PLAIT_LOAN_H
#define PLAIT_LOAN_H

#include <plait/service.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PLAIT_SEGMENTS_MAX 64

typedef struct plait_loan plait_loan;

void *plait_loan_data(const plait_loan *loan);  /* NULL if it is over */
size_t plait_loan_size(const plait_loan *loan); /* as asked for; 0 if it is over */

/* Gives it back unsent, from any thread, also after its client is closed. NULL is fine. */
void plait_loan_abort(plait_loan *loan);

/* A loan for a request of up to SIZE bytes. Of OPTIONS, which may be those of the call to come, it uses the timeout:
 * how long it may wait for a connection, and for a segment while all are out. Errors: -ENOBUFS (PLAIT_SEGMENTS_MAX:
 * the text says who holds how many), -ENOMEM (no pages for it: the text names the size; the connection lives),
 * -EMFILE, -EMSGSIZE (names the limit), and those of connecting, see plait_client_call. */
int plait_client_loan(plait_client *client, size_t size, const plait_call_options *options, plait_loan **ret_loan);

/* As plait_client_call, plait_client_call_async and plait_client_send, with the first SIZE bytes of LOAN as the body.
 * They take LOAN. -EINVAL: SIZE is larger than the loan, or the loan is over. A method that the server's table doesn't
 * list (a server of "*") costs a copy. */
int plait_client_call_loan(plait_client *client, const char *method, plait_loan *loan, size_t size,
                           const plait_call_options *options, plait_reply **ret_reply);
int plait_client_call_async_loan(plait_client *client, const char *method, plait_loan *loan, size_t size,
                                 const plait_call_options *options, plait_reply_fn *fn, void *context,
                                 uint64_t *ret_call);
int plait_client_send_loan(plait_client *client, const char *method, plait_loan *loan, size_t size,
                           const plait_call_options *options);

/* A loan for the answer to REQUEST of up to SIZE bytes. It never waits: while all segments are out it is plain memory.
 * The request is still to be answered, with this loan or otherwise. Errors: -ENOMEM, -EMSGSIZE (beyond the caller's
 * limit), -EALREADY (answered), -ECONNRESET (the caller is gone). */
int plait_request_reply_loan(plait_request *request, size_t size, plait_loan **ret_loan);

/* Answers with the first SIZE bytes of LOAN; else as plait_request_reply_as. Takes LOAN. -EINVAL: SIZE is larger than
 * the loan, or the loan is over: then the request is not answered yet. */
int plait_request_reply_loaned(plait_request *request, plait_encoding encoding, plait_loan *loan, size_t size);

#ifdef __cplusplus
}
#endif

#endif
