/* Request and Peer: what a handler is given. After its handler a request knows no more than what was asked before,
 * unless it was deferred. */
#include "binding.h"

#include <errno.h>
#include <string.h>

struct request {
    PyObject_HEAD plait_request *request; /* NULL: over */
    PyObject *body, *method, *peer;
    bool deferred;
};

PyObject *request_new(plait_request *request, bool deferred)
{
    struct request *self = PyObject_New(struct request, (PyTypeObject *)names.request_type);
    if (self == NULL) return NULL;
    self->request = request;
    self->deferred = deferred;
    self->body = self->method = self->peer = NULL;
    return (PyObject *)self;
}

plait_request *request_detach(PyObject *request)
{
    struct request *self = (struct request *)request;
    plait_request *left = self->request;
    self->request = NULL;
    return left;
}

static void request_dealloc(struct request *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    if (self->request && self->deferred)
        (void)plait_request_fail(self->request, 1, "the handler let its request go without an answer");
    Py_XDECREF(self->body);
    Py_XDECREF(self->method);
    Py_XDECREF(self->peer);
    PyObject_Free(self);
    Py_DECREF(type);
}

static int check(struct request *self)
{
    if (self->request != NULL) return 0;
    (void)raise_text(EALREADY, "this request is over: ask it while its handler runs");
    return -1;
}

/* ---- what it holds ---- */

static PyObject *body_of(struct request *self)
{
    if (self->body == NULL) {
        if (check(self) < 0) return NULL;
        plait_bytes body = plait_request_body(self->request);
        self->body = PyBytes_FromStringAndSize(body.data, (Py_ssize_t)body.size);
    }
    return self->body;
}

static PyObject *request_body(struct request *self, void *unused)
{
    (void)unused;
    return Py_XNewRef(body_of(self));
}

static PyObject *request_text(struct request *self, void *unused)
{
    PyObject *body = body_of(self);
    (void)unused;
    return body ? PyUnicode_DecodeUTF8(PyBytes_AsString(body), PyBytes_Size(body), NULL) : NULL;
}

static PyObject *request_json(struct request *self, PyObject *unused)
{
    PyObject *body = body_of(self);
    (void)unused;
    return body ? json_of(PyBytes_AsString(body), (size_t)PyBytes_Size(body)) : NULL;
}

/* Of the copy that is body: an array may be kept, and what was asked ends with its answer. */
static PyObject *request_array(struct request *self, PyObject *args, PyObject *named)
{
    PyObject *body = check(self) < 0 ? NULL : body_of(self);
    if (body == NULL) return NULL;
    plait_bytes bytes = { .data = PyBytes_AsString(body), .size = (size_t)PyBytes_Size(body) };
    return array_of(body, bytes, plait_request_encoding(self->request), args, named);
}

static PyObject *request_encoding(struct request *self, void *unused)
{
    (void)unused;
    if (check(self) < 0) return NULL;
    return encoding_text(plait_request_encoding(self->request));
}

static PyObject *request_method(struct request *self, void *unused)
{
    (void)unused;
    if (self->method == NULL) {
        if (check(self) < 0) return NULL;
        self->method = text_of(plait_request_method(self->request));
    }
    return Py_XNewRef(self->method);
}

static PyObject *request_peer(struct request *self, void *unused)
{
    (void)unused;
    if (self->peer == NULL) {
        if (check(self) < 0) return NULL;
        const plait_peer *peer = plait_request_peer(self->request);
        PyObject *fields[4] = {
            peer->pid ? PyLong_FromLong(peer->pid) : Py_NewRef(Py_None),
            peer->uid != UINT32_MAX ? PyLong_FromUnsignedLong(peer->uid) : Py_NewRef(Py_None),
            text_of(peer->transport),
            text_of(peer->address),
        };
        PyObject *made = PyStructSequence_New((PyTypeObject *)names.peer_type);
        for (int i = 0; i < 4; i++) {
            if (fields[i] == NULL) Py_CLEAR(made);
            if (made) PyStructSequence_SetItem(made, i, fields[i]);
            else Py_XDECREF(fields[i]);
        }
        self->peer = made;
    }
    return Py_XNewRef(self->peer);
}

static PyObject *request_trace(struct request *self, void *unused)
{
    (void)unused;
    return check(self) < 0 ? NULL : PyLong_FromUnsignedLongLong(plait_request_trace(self->request));
}

static PyObject *request_time_left(struct request *self, void *unused)
{
    (void)unused;
    if (check(self) < 0) return NULL;
    int64_t left = plait_request_time_left(self->request);
    return left == PLAIT_FOREVER ? Py_NewRef(Py_None) : PyFloat_FromDouble((double)left / 1e3);
}

static PyObject *request_cancelled(struct request *self, void *unused)
{
    (void)unused;
    return check(self) < 0 ? NULL : PyBool_FromLong(plait_request_cancelled(self->request));
}

/* ---- answering ---- */

/* Keeps the exception that is set. */
static bool is_awaitable(PyObject *value)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    bool yes = PyObject_HasAttrString((PyObject *)Py_TYPE(value), "__await__");
    PyErr_Restore(type, error, traceback);
    return yes;
}

int request_answer(plait_request *request, PyObject *value)
{
    struct body body;
    if (body_take(&body, value) < 0) {
        if (!is_awaitable(value)) return -1;
        PyErr_Clear();
        PyObject *none = PyObject_CallMethod(value, "close", NULL); /* or Python says that it was never awaited */
        Py_XDECREF(none);
        PyErr_Clear();
        PyErr_SetString(PyExc_TypeError, "the handler is a coroutine: plait.aio.Server runs those");
        return -1;
    }
    /* An answer that cannot go out is told to its caller by the library, or there is none any more. */
    (void)plait_request_reply_as(request, body.encoding, body.data, (size_t)body.size);
    body_drop(&body);
    return 0;
}

void request_answer_exception(plait_request *request, const char *method)
{
    PyObject *type, *value, *traceback, *told = NULL;
    long status = 1;
    const char *text = NULL;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback && value) (void)PyException_SetTraceback(value, traceback);
    PyObject *module = PyImport_ImportModule("plait._failure");
    if (module) told = PyObject_CallMethod(module, "tell", "Os", value ? value : Py_None, method);
    if (told) status = PyLong_AsLong(PyTuple_GetItem(told, 0));
    if (told) text = PyUnicode_AsUTF8AndSize(PyTuple_GetItem(told, 1), NULL);
    if (request) (void)plait_request_fail(request, (uint32_t)status, "%s", text ? text : "the handler failed");
    PyErr_Clear();
    Py_XDECREF(told);
    Py_XDECREF(module);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
}

/* For plait.aio: the answer of a deferred request. False: VALUE is to be awaited first. */
static PyObject *request_try(struct request *self, PyObject *value)
{
    struct body body;
    if (check(self) < 0) return NULL;
    if (body_take(&body, value) < 0) {
        if (!is_awaitable(value)) return NULL;
        PyErr_Clear();
        return Py_NewRef(Py_False);
    }
    (void)plait_request_reply_as(self->request, body.encoding, body.data, (size_t)body.size);
    self->request = NULL;
    body_drop(&body);
    return Py_NewRef(Py_True);
}

static PyObject *request_reply(struct request *self, PyObject *value)
{
    if (check(self) < 0) return NULL;
    if (request_answer(self->request, value) < 0) return NULL;
    self->request = NULL;
    return Py_NewRef(Py_None);
}

static PyObject *request_fail(struct request *self, PyObject *args)
{
    unsigned status;
    const char *text;
    if (!PyArg_ParseTuple(args, "Is:_fail", &status, &text) || check(self) < 0) return NULL;
    plait_request *request = self->request;
    self->request = NULL;
    (void)plait_request_fail(request, status, "%s", text);
    return Py_NewRef(Py_None);
}

static PyMethodDef methods[] = {
    { "json", (PyCFunction)request_json, METH_NOARGS, JSON_DOC },
    { "array", FASTCALL(request_array), METH_VARARGS | METH_KEYWORDS,
      "array(dtype=None, shape=None) -> numpy.ndarray\n\nA read-only array of body, which it keeps alive. Arrays say "
      "themselves what they hold; of other bodies name the\ndtype (and the shape; omitted: one dimension).\n\nRaises "
      "Error (code EBADMSG: type and shape disagree with the size), TypeError, ValueError, ImportError (no numpy)." },
    { "_try", (PyCFunction)request_try, METH_O, NULL },
    { "_reply", (PyCFunction)request_reply, METH_O, NULL },
    { "_fail", (PyCFunction)request_fail, METH_VARARGS, NULL },
    { NULL, NULL, 0, NULL },
};

static PyGetSetDef getters[] = {
    { "body", (getter)request_body, NULL, "bytes: the message.", NULL },
    { "text", (getter)request_text, NULL, TEXT_DOC, NULL },
    { "encoding", (getter)request_encoding, NULL, ENCODING_DOC, NULL },
    { "method", (getter)request_method, NULL, "str: the method's name; '' if the caller named none.", NULL },
    { "peer", (getter)request_peer, NULL,
      "Peer: pid (int, or None over the network), uid (likewise), transport ('shm', 'unix', 'tcp'), address (str).",
      NULL },
    { "trace", (getter)request_trace, NULL, "int: the caller's trace number; calls made here inherit it. 0: none.",
      NULL },
    { "time_left", (getter)request_time_left, NULL,
      "float: seconds until the caller gives up; None: it waits for ever.", NULL },
    { "cancelled", (getter)request_cancelled, NULL, "bool: nobody waits for the answer any more.", NULL },
    { NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot slots[] = {
    { Py_tp_doc, (void *)"A call, as its handler sees it. What it returns is the answer: bytes or anything with their "
                         "buffer, str,\n"
                         "dict or list (JSON), None (empty). What it raises reaches the caller as RemoteError." },
    { Py_tp_dealloc, request_dealloc },
    { Py_tp_methods, methods },
    { Py_tp_getset, getters },
    { 0, NULL },
};

PyType_Spec request_spec = {
    .name = "plait.Request",
    .basicsize = sizeof(struct request),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

static PyStructSequence_Field peer_fields[] = {
    { "pid", "int: process id; None over the network" },
    { "uid", "int: user id; None over the network" },
    { "transport", "str: 'shm', 'unix' or 'tcp'" },
    { "address", "str: 'pid 123 (name)' or '127.0.0.1:40012'" },
    { NULL, NULL },
};

int peer_type_init(void)
{
    PyStructSequence_Desc description = { "plait.Peer", "Who calls.", peer_fields, 4 };
    names.peer_type = (PyObject *)PyStructSequence_NewType(&description);
    return names.peer_type ? 0 : -1;
}
