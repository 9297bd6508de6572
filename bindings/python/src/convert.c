/* convert: bodies, time spans and errors between Python and plait. */
#include "binding.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* ---- bodies ---- */

static PyObject *json_function(PyObject **cache, const char *name)
{
    if (*cache == NULL) {
        PyObject *module = PyImport_ImportModule("json");
        if (module == NULL) return NULL;
        *cache = PyObject_GetAttrString(module, name);
        Py_DECREF(module);
    }
    return *cache;
}

static int take_text(struct body *body, PyObject *value, plait_encoding encoding)
{
    body->data = PyUnicode_AsUTF8AndSize(value, &body->size);
    if (body->data == NULL) return -1;
    Py_INCREF(value);
    body->held = value;
    body->encoding = encoding;
    return 0;
}

int body_take_json(struct body *body, PyObject *value)
{
    memset(body, 0, sizeof(*body));
    PyObject *dumps = json_function(&names.json_dumps, "dumps");
    PyObject *positional = dumps ? PyTuple_Pack(1, value) : NULL;
    PyObject *named =
        positional ? Py_BuildValue("{s:O,s:O}", "ensure_ascii", Py_False, "separators", names.separators) : NULL;
    PyObject *text = named ? PyObject_Call(dumps, positional, named) : NULL;
    Py_XDECREF(positional);
    Py_XDECREF(named);
    if (text == NULL) return -1;
    int r = take_text(body, text, PLAIT_JSON);
    Py_DECREF(text);
    return r;
}

int body_take(struct body *body, PyObject *value)
{
    memset(body, 0, sizeof(*body));
    if (PyBytes_CheckExact(value)) {
        body->data = PyBytes_AsString(value);
        body->size = PyBytes_Size(value);
        Py_INCREF(value);
        body->held = value;
        return 0;
    }
    if (value == Py_None) return 0;
    if (PyUnicode_Check(value)) return take_text(body, value, PLAIT_UTF8);
    if (PyDict_Check(value) || PyList_Check(value)) return body_take_json(body, value);
    if (PyObject_CheckBuffer(value)) {
        if (PyObject_GetBuffer(value, &body->view, PyBUF_SIMPLE) < 0) return -1;
        body->viewed = true;
        body->data = body->view.buf;
        body->size = body->view.len;
        return 0;
    }
    PyErr_Format(PyExc_TypeError,
                 "a message is bytes or anything with their buffer, a str (sent as UTF-8), a dict or a list (sent as "
                 "JSON) or None (empty), not %R",
                 (PyObject *)Py_TYPE(value));
    return -1;
}

void body_drop(struct body *body)
{
    Py_XDECREF(body->held);
    if (body->viewed) PyBuffer_Release(&body->view);
}

PyObject *json_of(const char *data, size_t size)
{
    PyObject *loads = json_function(&names.json_loads, "loads");
    PyObject *text = loads ? PyUnicode_DecodeUTF8(data, (Py_ssize_t)size, NULL) : NULL;
    PyObject *value = text ? PyObject_CallFunctionObjArgs(loads, text, NULL) : NULL;
    Py_XDECREF(text);
    return value;
}

PyObject *text_of(const char *text)
{
    return PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace");
}

/* ---- time ---- */

int milliseconds(PyObject *seconds, int64_t *ret_ms, const char *what)
{
    if (seconds == Py_None) {
        *ret_ms = PLAIT_FOREVER;
        return 0;
    }
    if (!PyFloat_Check(seconds) && !PyLong_Check(seconds)) {
        PyErr_Format(PyExc_TypeError, "%s is a number of seconds or None (for ever), not %R", what,
                     (PyObject *)Py_TYPE(seconds));
        return -1;
    }
    double value = PyFloat_AsDouble(seconds);
    if (value == -1.0 && PyErr_Occurred()) return -1;
    if (!(value >= 0)) {
        PyErr_Format(PyExc_ValueError, "%s is %R seconds: at least 0 (at once), or None (for ever)", what, seconds);
        return -1;
    }
    if (value == 0) *ret_ms = PLAIT_NOW;
    else if (value >= 9e15) *ret_ms = PLAIT_FOREVER;
    else *ret_ms = (int64_t)ceil(value * 1e3);
    return 0;
}

/* ---- errors ---- */

PyObject *error_new(int code, const char *text)
{
    PyObject *type = names.error;
    code = code < 0 ? -code : code;
    if (code == ETIMEDOUT) type = names.timeout_error;
    if (code == ECONNRESET) type = names.peer_died;
    if (code == ENOENT) type = names.no_such_name;
    PyObject *message = text_of(text);
    PyObject *error = message ? PyObject_CallFunction(type, "Oi", message, code) : NULL;
    Py_XDECREF(message);
    return error;
}

/* The last line of a traceback says most; the whole is in the exception's traceback. */
PyObject *error_of_reply(const plait_reply *reply)
{
    const char *text = plait_reply_text(reply), *last = text, *end = text + strlen(text);
    if (strncmp(text, "Traceback ", 10) == 0) {
        while (end > text && end[-1] == '\n') end--;
        for (last = end; last > text && last[-1] != '\n';) last--;
    }
    PyObject *whole = text_of(text);
    PyObject *line = PyUnicode_DecodeUTF8(last, end - last, "replace");
    PyObject *error = NULL;
    if (whole && line)
        error = PyObject_CallFunction(names.remote_error, "OIO", line, (unsigned)plait_reply_status(reply), whole);
    Py_XDECREF(whole);
    Py_XDECREF(line);
    return error;
}

static void *raise_object(PyObject *error)
{
    if (error != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
    return NULL;
}

void *raise_text(int code, const char *text)
{
    return raise_object(error_new(code, text));
}

void *raise_code(int code)
{
    if (code == -ENOMEM) return PyErr_NoMemory();
    return raise_text(code, plait_error_text());
}
