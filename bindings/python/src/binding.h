/* binding: what the files of this extension share.
 *
 * module.c   the module, exceptions, the log
 * convert.c  Python's values to plait's and back: bodies, time spans, errors
 * wait.c     giving the GIL away round what may wait, and being interrupted there
 * reply.c    Reply
 * client.c   Client
 * request.c  Request and Peer
 * server.c   Server
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
    PyObject *json_dumps, *json_loads; /* NULL until used */
    PyObject *set_result, *set_exception, *done, *separators;
};
extern struct names names;
void binding_hook_log(void); /* once the program has imported logging */

/* ---- convert.c ---- */
/* A body on its way out: bytes, str, anything with a contiguous buffer, JSON. */
struct body {
    const void *data;
    Py_ssize_t size;
    plait_encoding encoding;
    PyObject *held;
    Py_buffer view;
    bool viewed;
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
struct plait_python_client;
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
