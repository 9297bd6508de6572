/* Reply: what a call brought. Its memory is the library's, often the peer's segment, until the last view is gone. */
#include "binding.h"

struct reply {
    PyObject_HEAD plait_reply *reply;
};

PyObject *reply_new(plait_reply *reply)
{
    struct reply *self = PyObject_New(struct reply, (PyTypeObject *)names.reply_type);
    if (self == NULL) {
        plait_reply_free(reply);
        return NULL;
    }
    self->reply = reply;
    return (PyObject *)self;
}

/* A view holds a reference, so nothing is freed under it. */
static void reply_dealloc(struct reply *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    plait_reply_free(self->reply);
    PyObject_Free(self);
    Py_DECREF(type);
}

static int reply_buffer(struct reply *self, Py_buffer *view, int flags)
{
    plait_bytes body = plait_reply_body(self->reply);
    return PyBuffer_FillInfo(view, (PyObject *)self, (void *)(body.data ? body.data : ""), (Py_ssize_t)body.size, 1,
                             flags);
}

static PyObject *reply_bytes(struct reply *self, PyObject *unused)
{
    plait_bytes body = plait_reply_body(self->reply);
    (void)unused;
    return PyBytes_FromStringAndSize(body.data, (Py_ssize_t)body.size);
}

static PyObject *reply_json(struct reply *self, PyObject *unused)
{
    plait_bytes body = plait_reply_body(self->reply);
    (void)unused;
    return json_of(body.data, body.size);
}

static PyObject *reply_text(struct reply *self, void *unused)
{
    plait_bytes body = plait_reply_body(self->reply);
    (void)unused;
    return PyUnicode_DecodeUTF8(body.data ? body.data : "", (Py_ssize_t)body.size, NULL);
}

static const char *encoding_name(plait_encoding encoding)
{
    return encoding == PLAIT_UTF8    ? "text"
           : encoding == PLAIT_JSON  ? "json"
           : encoding == PLAIT_ARRAY ? "array"
                                     : "bytes";
}

static PyObject *reply_encoding(struct reply *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(encoding_name(plait_reply_encoding(self->reply)));
}

static Py_ssize_t reply_length(struct reply *self)
{
    return (Py_ssize_t)plait_reply_body(self->reply).size;
}

static PyObject *reply_repr(struct reply *self)
{
    plait_bytes body = plait_reply_body(self->reply);
    return PyUnicode_FromFormat("<plait.Reply: %zd bytes, %s>", (Py_ssize_t)body.size,
                                encoding_name(plait_reply_encoding(self->reply)));
}

static PyMethodDef methods[] = {
    { "__bytes__", (PyCFunction)reply_bytes, METH_NOARGS, "bytes(reply): a copy of the body." },
    { "json", (PyCFunction)reply_json, METH_NOARGS,
      "json() -> object\n\nThe body as JSON. Raises ValueError if it isn't." },
    { NULL, NULL, 0, NULL },
};

static PyGetSetDef getters[] = {
    { "text", (getter)reply_text, NULL, "str: the body as UTF-8. Raises UnicodeDecodeError if it isn't.", NULL },
    { "encoding", (getter)reply_encoding, NULL, "str: what the sender says it is: 'bytes', 'text', 'json' or 'array'.",
      NULL },
    { NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot slots[] = {
    { Py_tp_doc,
      (void *)"What a call brought: bytes(reply), reply.text, reply.json(), len(reply).\n\nmemoryview(reply) is a "
              "view of the body without a copy; it stays valid for as long as you keep it, also after the client "
              "is closed." },
    { Py_tp_dealloc, reply_dealloc },
    { Py_tp_methods, methods },
    { Py_tp_getset, getters },
    { Py_tp_repr, reply_repr },
    { Py_sq_length, reply_length },
    { Py_bf_getbuffer, reply_buffer },
    { 0, NULL },
};

PyType_Spec reply_spec = {
    .name = "plait.Reply",
    .basicsize = sizeof(struct reply),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};
