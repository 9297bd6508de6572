/* Reply: what a call brought. Its memory is the library's, often the peer's segment, until the last view is gone. */
#include "binding.h"

struct reply {
    struct content content;
    plait_reply *reply;
};

PyObject *reply_new(plait_reply *reply)
{
    struct reply *self = PyObject_New(struct reply, (PyTypeObject *)names.reply_type);
    if (self == NULL) {
        plait_reply_free(reply);
        return NULL;
    }
    self->reply = reply;
    content_set(&self->content, plait_reply_body(reply), plait_reply_encoding(reply));
    return (PyObject *)self;
}

static void reply_dealloc(struct reply *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    plait_reply_free(self->reply);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyObject *reply_repr(PyObject *self)
{
    return content_repr(self, "Reply");
}

static PyMethodDef methods[] = {
    { "__bytes__", content_bytes, METH_NOARGS, "bytes(reply): a copy of the body." },
    { "json", content_json, METH_NOARGS, JSON_DOC },
    { "array", FASTCALL(content_array), METH_VARARGS | METH_KEYWORDS, ARRAY_DOC },
    { NULL, NULL, 0, NULL },
};

static PyGetSetDef getters[] = {
    { "text", content_text, NULL, TEXT_DOC, NULL },
    { "encoding", content_encoding, NULL, ENCODING_DOC, NULL },
    { NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot slots[] = {
    { Py_tp_doc,
      (void *)"What a call brought: bytes(reply), reply.text, reply.json(), reply.array(), "
              "len(reply).\n\nmemoryview(reply) is a "
              "view of the body without a copy; it stays valid for as long as you keep it, also after the client "
              "is closed." },
    { Py_tp_dealloc, reply_dealloc },
    { Py_tp_methods, methods },
    { Py_tp_getset, getters },
    { Py_tp_repr, reply_repr },
    { Py_sq_length, content_length },
    { Py_bf_getbuffer, content_buffer },
    { 0, NULL },
};

PyType_Spec reply_spec = {
    .name = "plait.Reply",
    .basicsize = sizeof(struct reply),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};
