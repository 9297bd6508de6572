/* Message: what a publisher told. It holds its memory, often the publisher's segment, until the last view is gone. */
#include "binding.h"

struct message {
    struct content content;
    plait_message *held;
};

PyObject *message_new(plait_message *lent)
{
    plait_message *held;
    int r = plait_message_hold(lent, &held);
    if (r < 0) return raise_code(r);
    struct message *self = PyObject_New(struct message, (PyTypeObject *)names.message_type);
    if (self == NULL) {
        plait_message_release(held);
        return PyErr_NoMemory();
    }
    self->held = held;
    content_set(&self->content, plait_message_body(held), plait_message_encoding(held));
    return (PyObject *)self;
}

static void message_dealloc(struct message *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    plait_message_release(self->held);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyObject *message_topic(struct message *self, void *unused)
{
    (void)unused;
    return text_of(plait_message_topic(self->held));
}

static PyObject *message_number(struct message *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(plait_message_number(self->held));
}

static PyObject *message_publisher(struct message *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(plait_message_publisher(self->held));
}

static PyObject *message_time(struct message *self, void *unused)
{
    (void)unused;
    return PyFloat_FromDouble((double)plait_message_time(self->held) / 1e9);
}

static PyObject *message_time_ns(struct message *self, void *unused)
{
    (void)unused;
    return PyLong_FromLongLong(plait_message_time(self->held));
}

static PyObject *message_lost(struct message *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(plait_message_lost(self->held, NULL));
}

static PyObject *message_lost_text(struct message *self, void *unused)
{
    (void)unused;
    return text_of(plait_message_lost_text(self->held));
}

static PyObject *message_repr(struct message *self)
{
    char what[PLAIT_NAME_MAX + 16];
    PyOS_snprintf(what, sizeof(what), "Message of '%s'", plait_message_topic(self->held));
    return content_repr((PyObject *)self, what);
}

static PyMethodDef methods[] = {
    { "__bytes__", content_bytes, METH_NOARGS, "bytes(message): a copy of the body." },
    { "json", content_json, METH_NOARGS, JSON_DOC },
    { "array", FASTCALL(content_array), METH_VARARGS | METH_KEYWORDS, ARRAY_DOC },
    { NULL, NULL, 0, NULL },
};

static PyGetSetDef getters[] = {
    { "text", content_text, NULL, TEXT_DOC, NULL },
    { "encoding", content_encoding, NULL, ENCODING_DOC, NULL },
    { "topic", (getter)message_topic, NULL, "str: its topic.", NULL },
    { "number", (getter)message_number, NULL, "int: from 1, of its publisher.", NULL },
    { "publisher", (getter)message_publisher, NULL, "int: 64 random bits, others for each publisher.", NULL },
    { "time", (getter)message_time, NULL, "float: when it was published, seconds of Unix time.", NULL },
    { "time_ns", (getter)message_time_ns, NULL, "int: when it was published, nanoseconds of Unix time.", NULL },
    { "lost", (getter)message_lost, NULL, "int: messages lost between the one before and this one, exactly.", NULL },
    { "lost_text", (getter)message_lost_text, NULL,
      "str: the same in words, '3 lost: overrun'; '': nothing is missing.", NULL },
    { NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot slots[] = {
    { Py_tp_doc,
      (void *)"What a publisher told: bytes(message), message.text, message.json(), message.array(), len(message).\n\n"
              "memoryview(message) is a view of the body without a copy; it stays valid for as long as you keep it, "
              "also "
              "after the\nsubscriber is closed or the publisher is dead." },
    { Py_tp_dealloc, message_dealloc },
    { Py_tp_methods, methods },
    { Py_tp_getset, getters },
    { Py_tp_repr, message_repr },
    { Py_sq_length, content_length },
    { Py_bf_getbuffer, content_buffer },
    { 0, NULL },
};

PyType_Spec message_spec = {
    .name = "plait.Message",
    .basicsize = sizeof(struct message),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};
