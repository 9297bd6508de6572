/* Client: calls that give the GIL away, and the descriptor for asyncio. */
#include "binding.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct client {
    struct life life;
    struct mappings mappings;
};

static void end(struct life *life)
{
    struct client *self = (struct client *)life;
    plait_client *handle = life->handle;
    life->handle = NULL;
    mappings_clear(&self->mappings);
    plait_client_close(handle);
}

static const struct kind kind = { .what = "client", .again = "connect", .end = end };

/* ---- arguments of call and send ---- */

struct arguments {
    const char *method;
    struct body body;
    plait_call_options options;
    bool plain; /* no options */
};

static int is(PyObject *name, const char *text)
{
    return PyUnicode_CompareWithASCIIString(name, text) == 0;
}

static int take_method(const char **ret_method, PyObject *value)
{
    Py_ssize_t size;
    if (!PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "a method's name is a str, not %R", (PyObject *)Py_TYPE(value));
        return -1;
    }
    *ret_method = PyUnicode_AsUTF8AndSize(value, &size);
    if (*ret_method == NULL) return -1;
    if (strlen(*ret_method) != (size_t)size) {
        PyErr_SetString(PyExc_ValueError, "a method's name has no NUL character");
        return -1;
    }
    return 0;
}

static int take_flag(struct arguments *arguments, PyObject *value, uint32_t flag)
{
    int yes = PyObject_IsTrue(value);
    if (yes > 0) {
        arguments->options.flags |= flag;
        arguments->plain = false;
    }
    return yes < 0 ? -1 : 0;
}

static int take_named(struct arguments *arguments, PyObject *name, PyObject *value, PyObject **data, PyObject **json)
{
    if (is(name, "timeout")) {
        arguments->plain = false;
        return milliseconds(value, &arguments->options.timeout, "timeout");
    }
    if (is(name, "json")) {
        *json = value;
        return 0;
    }
    if (is(name, "data") && *data == NULL) {
        *data = value;
        return 0;
    }
    if (is(name, "method") && arguments->method == NULL) return take_method(&arguments->method, value);
    if (is(name, "idempotent")) return take_flag(arguments, value, PLAIT_CALL_IDEMPOTENT);
    if (is(name, "ordered")) return take_flag(arguments, value, PLAIT_CALL_ORDERED);
    if (is(name, "trace")) {
        arguments->plain = false;
        arguments->options.trace = PyLong_AsUnsignedLongLong(value);
        return arguments->options.trace == UINT64_MAX && PyErr_Occurred() ? -1 : 0;
    }
    PyErr_Format(PyExc_TypeError, "unexpected or repeated argument '%U'", name);
    return -1;
}

/* method="", data=b"", *, json, timeout, idempotent, ordered, trace. -1: nothing is held. */
static int take(struct arguments *arguments, PyObject *const *args, Py_ssize_t count, PyObject *names_of)
{
    PyObject *data = NULL, *json = NULL;
    arguments->method = NULL;
    arguments->plain = true;
    arguments->options = (plait_call_options)PLAIT_CALL_OPTIONS_INIT;
    if (count > 2) {
        PyErr_Format(PyExc_TypeError, "a method and its data, the rest by name, not %zd arguments", count);
        return -1;
    }
    if (count > 0 && take_method(&arguments->method, args[0]) < 0) return -1;
    if (count > 1) data = args[1];
    if (names_of != NULL) {
        Py_ssize_t named = PyTuple_Size(names_of);
        for (Py_ssize_t i = 0; i < named; i++)
            if (take_named(arguments, PyTuple_GetItem(names_of, i), args[count + i], &data, &json) < 0) return -1;
    }
    if (arguments->method == NULL) arguments->method = "";
    if (json != NULL) {
        if (data != NULL) {
            PyErr_SetString(PyExc_TypeError, "data or json, not both");
            return -1;
        }
        if (body_take_json(&arguments->body, json) < 0) return -1;
    } else if (data != NULL) {
        if (body_take(&arguments->body, data) < 0) return -1;
    } else {
        memset(&arguments->body, 0, sizeof(arguments->body));
    }
    arguments->options.encoding = arguments->body.encoding;
    if (arguments->body.encoding != PLAIT_BYTES) arguments->plain = false;
    return 0;
}

/* ---- waiting calls ---- */

static PyObject *client_call(struct client *self, PyObject *const *args, Py_ssize_t count, PyObject *names_of)
{
    struct arguments arguments;
    struct waiting waiting;
    plait_reply *reply;
    PyObject *result = NULL;
    if (take(&arguments, args, count, names_of) < 0) return NULL;
    if (life_enter(&self->life) == 0) {
        plait_loan *lent = body_lend(&arguments.body);
        const plait_call_options *options = arguments.plain ? NULL : &arguments.options;
        waiting_begin(&waiting);
        int r = lent ? plait_client_call_loan(self->life.handle, arguments.method, lent, (size_t)arguments.body.size,
                                              options, &reply)
                     : plait_client_call(self->life.handle, arguments.method, arguments.body.data,
                                         (size_t)arguments.body.size, options, &reply);
        waiting_end(&waiting);
        if (r == 0 && !waiting.raised) {
            result = reply_new(reply);
        } else if (r == -EREMOTEIO && !waiting.raised) {
            PyObject *error = error_of_reply(reply);
            if (error) PyErr_SetObject((PyObject *)Py_TYPE(error), error);
            Py_XDECREF(error);
            plait_reply_free(reply);
        } else {
            (void)life_failed(&self->life, &waiting, r);
            plait_reply_free(reply);
        }
        life_leave(&self->life);
    }
    body_drop(&arguments.body);
    return result;
}

static PyObject *client_send(struct client *self, PyObject *const *args, Py_ssize_t count, PyObject *names_of)
{
    struct arguments arguments;
    struct waiting waiting;
    int r = -1;
    if (take(&arguments, args, count, names_of) < 0) return NULL;
    if (life_enter(&self->life) == 0) {
        plait_loan *lent = body_lend(&arguments.body);
        const plait_call_options *options = arguments.plain ? NULL : &arguments.options;
        waiting_begin(&waiting);
        r = lent ? plait_client_send_loan(self->life.handle, arguments.method, lent, (size_t)arguments.body.size,
                                          options)
                 : plait_client_send(self->life.handle, arguments.method, arguments.body.data,
                                     (size_t)arguments.body.size, options);
        waiting_end(&waiting);
        if (waiting.raised && r == 0) r = -EINTR;
        if (r < 0) (void)life_failed(&self->life, &waiting, r);
        life_leave(&self->life);
    }
    body_drop(&arguments.body);
    return r < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *client_loan(struct client *self, PyObject *args, PyObject *named)
{
    static const char *const keywords[] = { "nbytes", "timeout", NULL };
    plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
    PyObject *timeout = NULL, *result = NULL;
    Py_ssize_t size;
    plait_loan *lent;
    struct waiting waiting;
    if (!PyArg_ParseTupleAndKeywords(args, named, "n|O:loan", (char **)(uintptr_t)keywords, &size, &timeout))
        return NULL;
    if (timeout && milliseconds(timeout, &options.timeout, "timeout") < 0) return NULL;
    if (size < 0) {
        PyErr_Format(PyExc_ValueError, "a loan of %zd bytes: at least 0", size);
        return NULL;
    }
    if (life_enter(&self->life) < 0) return NULL;
    waiting_begin(&waiting);
    int r = plait_client_loan(self->life.handle, (size_t)size, &options, &lent);
    waiting_end(&waiting);
    if (r == 0 && !waiting.raised) {
        result = loan_new(lent, &self->mappings);
    } else {
        if (r == 0) plait_loan_abort(lent);
        (void)life_failed(&self->life, &waiting, r);
    }
    life_leave(&self->life);
    return result;
}

struct found {
    char **names;
    size_t count;
};

static const char *found_at(const void *of, size_t index)
{
    const struct found *found = of;
    return index < found->count ? found->names[index] : NULL;
}

static PyObject *client_methods(struct client *self, PyObject *unused)
{
    struct waiting waiting;
    struct found found = { .names = NULL };
    (void)unused;
    if (life_enter(&self->life) < 0) return NULL;
    waiting_begin(&waiting);
    int r = plait_client_methods(self->life.handle, &found.names, &found.count);
    waiting_end(&waiting);
    PyObject *list = r < 0 || waiting.raised ? life_failed(&self->life, &waiting, r) : texts_of(found_at, &found);
    free(found.names);
    life_leave(&self->life);
    return list;
}

/* ---- for asyncio: nothing here waits, and the GIL stays ---- */

/* A future gets what a call came to. Runs in dispatch and close alone, so with the GIL. */
static void on_end(int result, plait_reply *reply, void *context)
{
    PyObject *future = context, *type, *value, *traceback, *done;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *outcome = result == 0            ? reply_new(reply)
                        : result == -EREMOTEIO ? error_of_reply(reply)
                                               : error_new(result, plait_error_text());
    if (result < 0) plait_reply_free(reply);
    done = outcome ? PyObject_CallMethodObjArgs(future, names.done, NULL) : NULL;
    if (done == Py_False) {
        PyObject *none =
            PyObject_CallMethodObjArgs(future, result == 0 ? names.set_result : names.set_exception, outcome, NULL);
        Py_XDECREF(none);
    }
    Py_XDECREF(done);
    Py_XDECREF(outcome);
    Py_DECREF(future);
    PyErr_Restore(type, value, traceback); /* a closed loop takes no results; nobody waits there any more */
}

/* _start(future, method, data, ...) -> the call's number; None: it would have to wait, try again. */
static PyObject *client_start(struct client *self, PyObject *const *args, Py_ssize_t count, PyObject *names_of)
{
    struct arguments arguments;
    struct waiting waiting;
    uint64_t call;
    PyObject *result = NULL;
    if (count < 1) {
        PyErr_SetString(PyExc_TypeError, "_start needs a future");
        return NULL;
    }
    if (take(&arguments, args + 1, count - 1, names_of) < 0) return NULL;
    if (life_enter(&self->life) == 0) {
        waiting_keep(&waiting, false);
        Py_INCREF(args[0]);
        int r = plait_client_call_async(self->life.handle, arguments.method, arguments.body.data,
                                        (size_t)arguments.body.size, arguments.plain ? NULL : &arguments.options,
                                        on_end, args[0], &call);
        waiting_kept(&waiting);
        if (r == 0) result = PyLong_FromUnsignedLongLong(call);
        else if (r == -EINTR) result = Py_NewRef(Py_None);
        else (void)raise_code(r);
        if (r < 0) Py_DECREF(args[0]);
        life_leave(&self->life);
    }
    body_drop(&arguments.body);
    return result;
}

/* As _start. _send(method, data, ...) -> True; None. */
static PyObject *client_send_at_once(struct client *self, PyObject *const *args, Py_ssize_t count, PyObject *names_of)
{
    struct arguments arguments;
    struct waiting waiting;
    PyObject *result = NULL;
    if (take(&arguments, args, count, names_of) < 0) return NULL;
    if (life_enter(&self->life) == 0) {
        waiting_keep(&waiting, false);
        int r = plait_client_send(self->life.handle, arguments.method, arguments.body.data, (size_t)arguments.body.size,
                                  arguments.plain ? NULL : &arguments.options);
        waiting_kept(&waiting);
        result = r == 0 ? Py_NewRef(Py_True) : r == -EINTR ? Py_NewRef(Py_None) : raise_code(r);
        life_leave(&self->life);
    }
    body_drop(&arguments.body);
    return result;
}

/* _methods() -> list; None: it would have to wait. */
static PyObject *client_methods_at_once(struct client *self, PyObject *unused)
{
    struct waiting waiting;
    struct found found = { .names = NULL };
    (void)unused;
    if (life_enter(&self->life) < 0) return NULL;
    waiting_keep(&waiting, false);
    int r = plait_client_methods(self->life.handle, &found.names, &found.count);
    waiting_kept(&waiting);
    PyObject *result = r == 0 ? texts_of(found_at, &found) : r == -EINTR ? Py_NewRef(Py_None) : raise_code(r);
    free(found.names);
    life_leave(&self->life);
    return result;
}

static PyObject *client_cancel(struct client *self, PyObject *number)
{
    uint64_t call = PyLong_AsUnsignedLongLong(number);
    if (call == UINT64_MAX && PyErr_Occurred()) return NULL;
    if (!life_is_over(&self->life)) (void)plait_client_cancel(self->life.handle, call); /* over: just as well */
    return Py_NewRef(Py_None);
}

static PyObject *client_dispatch(struct client *self, PyObject *unused)
{
    struct waiting waiting;
    (void)unused;
    if (life_enter(&self->life) < 0) return NULL;
    waiting_keep(&waiting, false);
    int r = plait_client_dispatch(self->life.handle, PLAIT_NOW);
    waiting_kept(&waiting);
    return life_result(&self->life, r == -EINTR ? 0 : r);
}

static PyObject *client_fd(struct client *self, PyObject *unused)
{
    (void)unused;
    if (life_enter(&self->life) < 0) return NULL;
    return life_result(&self->life, plait_client_fd(self->life.handle));
}

/* ---- life ---- */

static int option_seconds(PyObject *value, int64_t *ret_ms, const char *what)
{
    return value == NULL ? 0 : milliseconds(value, ret_ms, what);
}

static PyObject *client_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    static const char *const keywords[] = { "target",      "connect_timeout", "timeout",  "peer",
                                            "max_message", "spin_us",         "_at_once", NULL };
    PyObject *target, *connect_timeout = NULL, *timeout = NULL, *peer = Py_None;
    unsigned long long max_message = 0;
    long long spin_us = 0;
    int at_once = 0;
    plait_client_options options = PLAIT_CLIENT_OPTIONS_INIT;
    if (!PyArg_ParseTupleAndKeywords(args, named, "U|$OOOKLp:connect", (char **)(uintptr_t)keywords, &target,
                                     &connect_timeout, &timeout, &peer, &max_message, &spin_us, &at_once))
        return NULL;
    if (option_seconds(connect_timeout, &options.connect_timeout, "connect_timeout") < 0) return NULL;
    if (option_seconds(timeout, &options.timeout, "timeout") < 0) return NULL;
    options.max_message = max_message;
    options.spin_us = spin_us;
    PyObject *peer_text = peer == Py_None ? NULL : PyObject_Str(peer);
    if (peer != Py_None && peer_text == NULL) return NULL;
    if (peer_text) options.peer = PyUnicode_AsUTF8AndSize(peer_text, NULL);
    const char *text = PyUnicode_AsUTF8AndSize(target, NULL);
    struct life *self = text && (!peer_text || options.peer) ? life_new(type, &kind, target) : NULL;
    if (self != NULL) {
        struct waiting waiting;
        options.interrupted = waiting_interrupted;
        options.interrupted_context = &self->closing;
        binding_hook_log();
        if (at_once) waiting_keep(&waiting, true);
        else waiting_begin(&waiting);
        int r = plait_client_open((plait_client **)&self->handle, text, &options);
        if (at_once) waiting_kept(&waiting);
        else waiting_end(&waiting);
        if (r < 0 || waiting.raised) {
            (void)life_failed(self, &waiting, r);
            Py_CLEAR(self);
        }
    }
    Py_XDECREF(peer_text);
    return (PyObject *)self;
}

static void client_dealloc(struct client *self)
{
    life_end(&self->life);
    life_free(&self->life);
}

static PyObject *client_transport(struct client *self, void *unused)
{
    (void)unused;
    if (life_enter(&self->life) < 0) return NULL;
    PyObject *name = PyUnicode_FromString(plait_client_transport(self->life.handle));
    life_leave(&self->life);
    return name;
}

static PyMethodDef methods[] = {
    { "call", FASTCALL(client_call), METH_FASTCALL | METH_KEYWORDS,
      "call(method='', data=b'', *, json=..., timeout=..., idempotent=False, ordered=False, trace=0) -> Reply\n\n"
      "Calls METHOD ('': the server's default) and waits for its reply.\n\n"
      "data: bytes or anything with their buffer, str (sent as UTF-8), dict or list (sent as JSON), None (empty);\n"
      "    or json: any value that the json module takes.\n"
      "timeout: seconds; omitted: the client's; None: for ever; 0: at once.\n"
      "idempotent: it may run twice: retried elsewhere when its server dies.\n"
      "ordered: it arrives after this thread's earlier ordered calls and sends.\n"
      "trace: a number that the server's handlers and their own calls carry; 0: inherited, or none.\n\n"
      "Raises TimeoutError, PeerDied, RemoteError (the handler failed: status, traceback), Error (code: EOPNOTSUPP\n"
      "no such method, EMSGSIZE too large, EDEADLK it would wait for itself, ECHILD after fork, EBADF closed),\n"
      "TypeError, ValueError. KeyboardInterrupt ends it within 100 ms; the client stays usable." },
    { "send", FASTCALL(client_send), METH_FASTCALL | METH_KEYWORDS,
      "send(method='', data=b'', *, json=..., timeout=..., ordered=False, trace=0) -> None\n\n"
      "One way: returns when the message is on its way; no answer comes and no error from afar.\n"
      "Arguments and errors are those of call()." },
    { "loan", FASTCALL(client_loan), METH_VARARGS | METH_KEYWORDS,
      "loan(nbytes, timeout=...) -> Loan\n\nMemory for a message of NBYTES, written where the server reads it: give it "
      "to call() or send() as data.\ntimeout: seconds to wait for a connection, and for memory while all of it is out; "
      "omitted: the client's.\n\nRaises Error (code ENOBUFS: all segments are out, EMSGSIZE), MemoryError, and what "
      "call() raises." },
    { "methods", (PyCFunction)client_methods, METH_NOARGS,
      "methods() -> list[str]\n\nThe names of the server's methods." },
    { "close", life_close, METH_NOARGS,
      "close() -> None\n\nEnds the connection; a second time does nothing. Calls that wait in other threads end with "
      "an\n"
      "Error within 100 ms." },
    { "_start", FASTCALL(client_start), METH_FASTCALL | METH_KEYWORDS, NULL },
    { "_send", FASTCALL(client_send_at_once), METH_FASTCALL | METH_KEYWORDS, NULL },
    { "_methods", (PyCFunction)client_methods_at_once, METH_NOARGS, NULL },
    { "_cancel", (PyCFunction)client_cancel, METH_O, NULL },
    { "_dispatch", (PyCFunction)client_dispatch, METH_NOARGS, NULL },
    { "_fd", (PyCFunction)client_fd, METH_NOARGS, NULL },
    { "__enter__", self_of, METH_NOARGS, NULL },
    { "__exit__", life_exit, METH_VARARGS, NULL },
    { NULL, NULL, 0, NULL },
};

static PyGetSetDef getters[] = {
    { "transport", (getter)client_transport, NULL, "str: 'shm', 'unix' or 'tcp': how the last call went.", NULL },
    { "target", life_name, NULL, "str: what it was connected to.", NULL },
    { "closed", life_closed, NULL, "bool: close() was called.", NULL },
    { NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot slots[] = {
    { Py_tp_doc,
      (void *)"A connection to a service, made by plait.connect(). Threads may share it; a child of fork() may not.\n\n"
              "`with` closes it." },
    { Py_tp_new, client_new },
    { Py_tp_dealloc, client_dealloc },
    { Py_tp_methods, methods },
    { Py_tp_getset, getters },
    { Py_tp_repr, life_repr },
    { 0, NULL },
};

PyType_Spec client_spec = {
    .name = "plait.Client",
    .basicsize = sizeof(struct client),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};
