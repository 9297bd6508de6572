/* Client: calls that give the GIL away, and the descriptor for asyncio.
 *
 * A client that is closed while a thread waits in it goes with the last of them: `closing` ends their waits.
 */
#include "binding.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct client {
    PyObject_HEAD plait_client *handle; /* NULL: closed */
    PyObject *target;
    unsigned users; /* threads inside; under the GIL */
    bool closing;
};

/* ---- in and out ---- */

static int enter(struct client *self)
{
    if (self->handle == NULL || self->closing) {
        (void)raise_text(EBADF, "this client is closed: connect another");
        return -1;
    }
    self->users++;
    return 0;
}

static void leave(struct client *self)
{
    if (--self->users > 0 || !self->closing) return;
    plait_client *handle = self->handle;
    self->handle = NULL;
    plait_client_close(handle);
}

/* The exception for R, unless a signal's handler raised its own. */
static void *failed(struct client *self, const struct waiting *waiting, int r)
{
    if (waiting->raised) return NULL;
    if (r == -EINTR && self->closing) return raise_text(ECANCELED, "this client was closed while a call waited");
    return raise_code(r);
}

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
    if (enter(self) == 0) {
        waiting_begin(&waiting);
        int r = plait_client_call(self->handle, arguments.method, arguments.body.data, (size_t)arguments.body.size,
                                  arguments.plain ? NULL : &arguments.options, &reply);
        waiting_end(&waiting);
        if (r == 0 && !waiting.raised) {
            result = reply_new(reply);
        } else if (r == -EREMOTEIO && !waiting.raised) {
            PyObject *error = error_of_reply(reply);
            if (error) PyErr_SetObject((PyObject *)Py_TYPE(error), error);
            Py_XDECREF(error);
            plait_reply_free(reply);
        } else {
            (void)failed(self, &waiting, r);
            plait_reply_free(reply);
        }
        leave(self);
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
    if (enter(self) == 0) {
        waiting_begin(&waiting);
        r = plait_client_send(self->handle, arguments.method, arguments.body.data, (size_t)arguments.body.size,
                              arguments.plain ? NULL : &arguments.options);
        waiting_end(&waiting);
        if (waiting.raised && r == 0) r = -EINTR;
        if (r < 0) (void)failed(self, &waiting, r);
        leave(self);
    }
    body_drop(&arguments.body);
    return r < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *client_methods(struct client *self, PyObject *unused)
{
    struct waiting waiting;
    char **found = NULL;
    size_t count = 0;
    PyObject *list = NULL;
    (void)unused;
    if (enter(self) < 0) return NULL;
    waiting_begin(&waiting);
    int r = plait_client_methods(self->handle, &found, &count);
    waiting_end(&waiting);
    if (r < 0 || waiting.raised) (void)failed(self, &waiting, r);
    else list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *name = text_of(found[i]);
        if (name == NULL || PyList_Append(list, name) < 0) Py_CLEAR(list);
        Py_XDECREF(name);
    }
    free(found);
    leave(self);
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
    if (enter(self) == 0) {
        waiting_keep(&waiting, false);
        Py_INCREF(args[0]);
        int r =
            plait_client_call_async(self->handle, arguments.method, arguments.body.data, (size_t)arguments.body.size,
                                    arguments.plain ? NULL : &arguments.options, on_end, args[0], &call);
        waiting_kept(&waiting);
        if (r == 0) result = PyLong_FromUnsignedLongLong(call);
        else if (r == -EINTR) result = Py_NewRef(Py_None);
        else (void)raise_code(r);
        if (r < 0) Py_DECREF(args[0]);
        leave(self);
    }
    body_drop(&arguments.body);
    return result;
}

static PyObject *client_cancel(struct client *self, PyObject *number)
{
    uint64_t call = PyLong_AsUnsignedLongLong(number);
    if (call == UINT64_MAX && PyErr_Occurred()) return NULL;
    if (self->handle != NULL && !self->closing) (void)plait_client_cancel(self->handle, call); /* over: just as well */
    return Py_NewRef(Py_None);
}

static PyObject *client_dispatch(struct client *self, PyObject *unused)
{
    struct waiting waiting;
    (void)unused;
    if (enter(self) < 0) return NULL;
    waiting_keep(&waiting, false);
    int r = plait_client_dispatch(self->handle, PLAIT_NOW);
    waiting_kept(&waiting);
    PyObject *result = r < 0 && r != -EINTR ? raise_code(r) : PyLong_FromLong(r < 0 ? 0 : r);
    leave(self);
    return result;
}

static PyObject *client_fd(struct client *self, PyObject *unused)
{
    (void)unused;
    if (enter(self) < 0) return NULL;
    int r = plait_client_fd(self->handle);
    PyObject *result = r < 0 ? raise_code(r) : PyLong_FromLong(r);
    leave(self);
    return result;
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
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    const char *text = PyUnicode_AsUTF8AndSize(target, NULL);
    struct client *self = text && (!peer_text || options.peer) ? (struct client *)allocate(type, 0) : NULL;
    if (self != NULL) {
        struct waiting waiting;
        self->target = Py_NewRef(target);
        options.interrupted = waiting_interrupted;
        options.interrupted_context = &self->closing;
        binding_hook_log();
        int r;
        if (at_once) {
            waiting_keep(&waiting, true);
            r = plait_client_open(&self->handle, text, &options);
            waiting_kept(&waiting);
        } else {
            waiting_begin(&waiting);
            r = plait_client_open(&self->handle, text, &options);
            waiting_end(&waiting);
        }
        if (r < 0 || waiting.raised) {
            (void)failed(self, &waiting, r);
            Py_CLEAR(self);
        }
    }
    Py_XDECREF(peer_text);
    return (PyObject *)self;
}

static PyObject *client_close(struct client *self, PyObject *unused)
{
    (void)unused;
    if (self->handle != NULL && !self->closing) {
        __atomic_store_n(&self->closing, true, __ATOMIC_RELAXED); /* relaxed: a flag alone */
        self->users++;
        leave(self);
    }
    return Py_NewRef(Py_None);
}

static void client_dealloc(struct client *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    PyObject *error_type, *value, *traceback;
    PyErr_Fetch(&error_type, &value, &traceback);
    plait_client_close(self->handle);
    PyErr_Restore(error_type, value, traceback);
    Py_XDECREF(self->target);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyObject *client_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    return Py_NewRef(self);
}

static PyObject *client_exit(struct client *self, PyObject *args)
{
    (void)args;
    return client_close(self, NULL);
}

static PyObject *client_transport(struct client *self, void *unused)
{
    (void)unused;
    if (enter(self) < 0) return NULL;
    PyObject *name = PyUnicode_FromString(plait_client_transport(self->handle));
    leave(self);
    return name;
}

static PyObject *client_target(struct client *self, void *unused)
{
    (void)unused;
    return Py_NewRef(self->target);
}

static PyObject *client_closed(struct client *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(self->handle == NULL || self->closing);
}

static PyObject *client_repr(struct client *self)
{
    return PyUnicode_FromFormat("<plait.Client of %R%s>", self->target,
                                self->handle == NULL || self->closing ? ", closed" : "");
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
    { "methods", (PyCFunction)client_methods, METH_NOARGS,
      "methods() -> list[str]\n\nThe names of the server's methods." },
    { "close", (PyCFunction)client_close, METH_NOARGS,
      "close() -> None\n\nEnds the connection; a second time does nothing. Calls that wait in other threads end with "
      "an\n"
      "Error within 100 ms." },
    { "_start", FASTCALL(client_start), METH_FASTCALL | METH_KEYWORDS, NULL },
    { "_cancel", (PyCFunction)client_cancel, METH_O, NULL },
    { "_dispatch", (PyCFunction)client_dispatch, METH_NOARGS, NULL },
    { "_fd", (PyCFunction)client_fd, METH_NOARGS, NULL },
    { "__enter__", client_enter, METH_NOARGS, NULL },
    { "__exit__", (PyCFunction)client_exit, METH_VARARGS, NULL },
    { NULL, NULL, 0, NULL },
};

static PyGetSetDef getters[] = {
    { "transport", (getter)client_transport, NULL, "str: 'shm', 'unix' or 'tcp': how the last call went.", NULL },
    { "target", (getter)client_target, NULL, "str: what it was connected to.", NULL },
    { "closed", (getter)client_closed, NULL, "bool: close() was called.", NULL },
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
    { Py_tp_repr, client_repr },
    { 0, NULL },
};

PyType_Spec client_spec = {
    .name = "plait.Client",
    .basicsize = sizeof(struct client),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};
