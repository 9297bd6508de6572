/* binding: what the files of this extension share.
 *
 * module.c   the module, exceptions, the log
 * convert.c  Python's values to plait's and back: bodies, time spans, errors
 * wait.c     giving the GIL away round what may wait, and being interrupted there
 * life.c     what all that can be closed has in common
 * content.c  the bodies of Reply and Message
 * reply.c    Reply
 * client.c   Client
 * request.c  Request and Peer
 * server.c, closing.c, workers.c   Server
 * array.c    arrays of numpy's as messages, and back
 * loan.c     Loan
 * publisher.c, subscriber.c, message.c   topics
 *
 * Who holds the GIL: the library calls us in three ways. A handler runs without it and takes it. A reply's
 * callback runs inside a dispatch that kept it. `interrupted` runs without it, in a thread that has left its
 * thread state in waiting.
 * No lock of the library is ever held while we wait for the GIL; the log callback, which may hold one, doesn't.
 */
#ifndef PLAIT_PYTHON_BINDING_H
#define PLAIT_PYTHON_BINDING_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <plait/plait.h>
#include <stdbool.h>

/* ---- module.c ---- */
struct names {
    PyObject *error, *timeout_error, *peer_died, *no_such_name, *remote_error;
    PyObject *reply_type, *client_type, *request_type, *server_type, *peer_type;
    PyObject *loan_type, *publisher_type, *subscriber_type, *message_type;
    PyObject *json_dumps, *json_loads; /* NULL until used */
    PyObject *set_result, *set_exception, *done, *separators;
};
extern struct names names;
void binding_hook_log(void); /* once the program has imported logging */

/* ---- convert.c ---- */
/* A body on its way out: bytes, str, anything with a contiguous buffer, JSON, an array, a loan. */
struct body {
    const void *data;
    Py_ssize_t size;
    plait_encoding encoding;
    PyObject *held;
    Py_buffer view;
    bool viewed;
    void *memory;    /* of its own */
    PyObject *loan;  /* a Loan, which DATA lies in */
    PyObject *array; /* ... by way of this one */
};
int body_take(struct body *body, PyObject *value); /* None is empty. -1: TypeError */
int body_take_json(struct body *body, PyObject *value);
void body_drop(struct body *body);
PyObject *json_of(const char *data, size_t size);
int milliseconds(PyObject *seconds, int64_t *ret_ms, const char *what); /* None: for ever, 0: at once */
PyObject *error_new(int code, const char *text);
PyObject *error_of_reply(const plait_reply *reply);
void *raise_code(int code); /* with the library's text; NULL */
void *raise_text(int code, const char *text);
PyObject *text_of(const char *text); /* never fails on what is not UTF-8 */

/* ---- wait.c ---- */
struct waiting {
    PyThreadState *state;
    struct waiting *outer;
    bool raised; /* a signal's handler raised: the exception is set */
    bool kept;   /* this thread has the GIL and must not wait: end at the first question */
    uint64_t begun;
    bool serves; /* ... but first let the servers of this thread's event loop do what is due, once */
};
/* Gives the GIL away, so that a handler or `interrupted` can take it in this thread; takes it back. */
void waiting_begin(struct waiting *waiting);
void waiting_end(struct waiting *waiting);
/* The same with the GIL kept, for what asks and must not wait. SERVES: it may be a server of this loop that is
 * waited for. */
void waiting_keep(struct waiting *waiting, bool serves);
void waiting_kept(struct waiting *waiting);
int waiting_interrupted(void *closing); /* CLOSING: a bool that ends the wait */
/* Round a handler: takes the GIL in whatever thread this is. */
struct waiting *handler_enter(void);
void handler_leave(struct waiting *waiting);

/* ---- life.c ---- */
struct life;
struct kind {
    const char *what, *again;       /* "client", "connect" another */
    void (*end)(struct life *self); /* closes the handle, which it makes NULL; may give the GIL away */
};
struct life { /* the beginning of such an object */
    PyObject_HEAD const struct kind *kind;
    void *handle;   /* NULL: closed */
    PyObject *name; /* what it was opened for */
    unsigned users; /* threads inside; under the GIL */
    bool closing;
};
struct life *life_new(PyTypeObject *type, const struct kind *kind, PyObject *name); /* its handle is NULL yet */
void life_end(struct life *self);                                                   /* nobody is inside */
void life_free(struct life *self); /* the end of its deallocator, after life_end */
bool life_is_over(const struct life *self);
int life_enter(struct life *self); /* -1: it is closed, with an exception */
void life_leave(struct life *self);
PyObject *life_result(struct life *self, int r); /* leaves: an int, or the exception for R */
/* The exception for R, unless a signal's handler raised its own. NULL. */
void *life_failed(const struct life *self, const struct waiting *waiting, int r);
PyObject *life_close(PyObject *self, PyObject *unused); /* close(), __exit__() */
PyObject *life_exit(PyObject *self, PyObject *args);
PyObject *life_name(PyObject *self, void *unused); /* getters, repr() */
PyObject *life_closed(PyObject *self, void *unused);
PyObject *life_repr(PyObject *self);
PyObject *self_of(PyObject *self, PyObject *unused); /* __enter__(), iter() */
/* list[str] of AT(OF, 0), AT(OF, 1) ... until NULL */
PyObject *texts_of(const char *(*at)(const void *of, size_t index), const void *of);

/* ---- array.c ---- */
bool array_is(PyObject *value); /* numpy's, or like them */
int array_take(struct body *body, PyObject *value);
/* OWNER.array(dtype, shape): of its BODY, which lives as long as it. */
PyObject *array_of(PyObject *owner, plait_bytes body, plait_encoding encoding, PyObject *args, PyObject *named);
PyObject *array_lend(PyObject *lender, PyObject *args, PyObject *named); /* LENDER.loan(shape, dtype) */
#define ARRAY_DOC                                                                                                      \
    "array(dtype=None, shape=None) -> numpy.ndarray\n\nA read-only array that looks at the body without a copy and "   \
    "keeps it alive. Arrays say themselves what they hold; of\nother bodies name the dtype (and the shape; omitted: "  \
    "one dimension).\n\nRaises Error (code EBADMSG: type and shape disagree with the size), TypeError, ValueError, "   \
    "ImportError (no numpy)."

/* ---- loan.c ---- */
enum { MAPPINGS = 8 };
struct mappings { /* of a lender: those that its loans will be found in again */
    struct mapping *kept[MAPPINGS];
    unsigned next;
};
void mappings_clear(struct mappings *mappings);                       /* views that there are keep theirs */
PyObject *loan_new(plait_loan *lent, struct mappings *mappings);      /* takes LENT, just made */
bool loan_holds(PyObject *object, const char *elements, size_t size); /* a loan, for an array of SIZE with its head */
int loan_take(struct body *body, PyObject *object);
/* Ends the loan of BODY, which is about to be sent. NULL: send its data. */
plait_loan *body_lend(struct body *body);
extern PyType_Spec loan_spec;

/* ---- publisher.c, subscriber.c, message.c ---- */
PyObject *message_new(plait_message *lent);
extern PyType_Spec publisher_spec, subscriber_spec, message_spec;

/* ---- content.c ---- */
struct content { /* the beginning of what holds a body: Reply, Message */
    PyObject_HEAD plait_bytes body;
    plait_encoding encoding;
};
static inline void content_set(struct content *content, plait_bytes body, plait_encoding encoding)
{
    content->body = body;
    if (body.data == NULL) content->body.data = "";
    content->encoding = encoding;
}
int content_buffer(PyObject *self, Py_buffer *view, int flags);
PyObject *content_bytes(PyObject *self, PyObject *unused); /* methods */
PyObject *content_json(PyObject *self, PyObject *unused);
PyObject *content_array(PyObject *self, PyObject *args, PyObject *named);
PyObject *content_text(PyObject *self, void *unused); /* getters, len() */
PyObject *content_encoding(PyObject *self, void *unused);
Py_ssize_t content_length(PyObject *self);
PyObject *content_repr(PyObject *self, const char *what);
PyObject *encoding_text(plait_encoding encoding);
#define JSON_DOC "json() -> object\n\nThe body as JSON. Raises ValueError if it isn't."
#define TEXT_DOC "str: the body as UTF-8. Raises UnicodeDecodeError if it isn't."
#define ENCODING_DOC "str: what its sender says it is: 'bytes', 'text', 'json' or 'array'."

/* ---- reply.c ---- */
PyObject *reply_new(plait_reply *reply); /* takes it; NULL: freed */
extern PyType_Spec reply_spec;

/* ---- client.c, server.c, request.c ---- */
extern PyType_Spec client_spec, server_spec, request_spec;
PyObject *request_new(plait_request *request, bool deferred);
plait_request *request_detach(PyObject *request); /* NULL: it was answered already */
/* Answers with what a handler returned. -1: with an exception set, not answered. */
int request_answer(plait_request *request, PyObject *value);
void request_answer_exception(plait_request *request, const char *method); /* the one that is set; clears it */
int server_shutdown_all(void);
bool server_dispatch_own(void); /* those that this thread's event loop serves; false: there is none */
int peer_type_init(void);

#define FASTCALL(function) (PyCFunction)(void (*)(void))(function)

#endif
