/* content: a body in the library's memory, which a Reply or a Message holds: a view holds a reference to that, so
 * nothing is freed under it. */
#include "binding.h"

int content_buffer(PyObject *object, Py_buffer *view, int flags)
{
    const plait_bytes *body = &((struct content *)object)->body;
    return PyBuffer_FillInfo(view, object, (void *)(uintptr_t)body->data, (Py_ssize_t)body->size, 1, flags);
}

PyObject *content_bytes(PyObject *object, PyObject *unused)
{
    const plait_bytes *body = &((struct content *)object)->body;
    (void)unused;
    return PyBytes_FromStringAndSize(body->data, (Py_ssize_t)body->size);
}

PyObject *content_json(PyObject *object, PyObject *unused)
{
    const plait_bytes *body = &((struct content *)object)->body;
    (void)unused;
    return json_of(body->data, body->size);
}

PyObject *content_array(PyObject *object, PyObject *args, PyObject *named)
{
    const struct content *self = (struct content *)object;
    return array_of(object, self->body, self->encoding, args, named);
}

PyObject *content_text(PyObject *object, void *unused)
{
    const plait_bytes *body = &((struct content *)object)->body;
    (void)unused;
    return PyUnicode_DecodeUTF8(body->data, (Py_ssize_t)body->size, NULL);
}

static const char *encoding_name(plait_encoding encoding)
{
    return encoding == PLAIT_UTF8    ? "text"
           : encoding == PLAIT_JSON  ? "json"
           : encoding == PLAIT_ARRAY ? "array"
                                     : "bytes";
}

PyObject *encoding_text(plait_encoding encoding)
{
    return PyUnicode_FromString(encoding_name(encoding));
}

PyObject *content_encoding(PyObject *object, void *unused)
{
    (void)unused;
    return encoding_text(((struct content *)object)->encoding);
}

Py_ssize_t content_length(PyObject *object)
{
    return (Py_ssize_t)((struct content *)object)->body.size;
}

PyObject *content_repr(PyObject *object, const char *what)
{
    return PyUnicode_FromFormat("<plait.%s: %zd bytes, %s>", what, content_length(object),
                                encoding_name(((struct content *)object)->encoding));
}
