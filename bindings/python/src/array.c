/* array: numpy's arrays as messages, and messages as numpy's arrays. numpy itself is only ever touched by
 * plait/_arrays.py; what is sent is read through __array_interface__, which others have, too. */
#include "binding.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool array_is(PyObject *value)
{
    return PyObject_HasAttrString((PyObject *)Py_TYPE(value), "__array_interface__");
}

/* ---- sending ---- */

struct source {
    const char *dtype; /* of the dictionary */
    uint64_t shape[PLAIT_ARRAY_DIMENSIONS];
    Py_ssize_t strides[PLAIT_ARRAY_DIMENSIONS];
    size_t dimensions;
    const char *data;
    bool contiguous;
};

static int no_interface(PyObject *value)
{
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_TypeError, "the __array_interface__ of %R is none of version 3 with an address",
                     (PyObject *)Py_TYPE(value));
    return -1;
}

static int read_interface(struct source *source, PyObject *interface, PyObject *value)
{
    if (!PyDict_Check(interface)) return no_interface(value);
    PyObject *dtype = PyDict_GetItemString(interface, "typestr"), *shape = PyDict_GetItemString(interface, "shape");
    PyObject *data = PyDict_GetItemString(interface, "data"), *strides = PyDict_GetItemString(interface, "strides");
    if (!dtype || !PyUnicode_Check(dtype) || !shape || !PyTuple_Check(shape) || !data || !PyTuple_Check(data) ||
        PyTuple_Size(data) < 1)
        return no_interface(value);
    Py_ssize_t dimensions = PyTuple_Size(shape);
    source->contiguous = strides == NULL || strides == Py_None;
    if (!source->contiguous && (!PyTuple_Check(strides) || PyTuple_Size(strides) != dimensions))
        return no_interface(value);
    if (dimensions > PLAIT_ARRAY_DIMENSIONS) {
        PyErr_Format(PyExc_ValueError, "an array of %zd dimensions: a message has at most %d", dimensions,
                     PLAIT_ARRAY_DIMENSIONS);
        return -1;
    }
    source->dimensions = (size_t)dimensions;
    for (Py_ssize_t i = 0; i < dimensions; i++) {
        source->shape[i] = PyLong_AsUnsignedLongLong(PyTuple_GetItem(shape, i));
        if (!source->contiguous) source->strides[i] = PyLong_AsSsize_t(PyTuple_GetItem(strides, i));
    }
    source->data = PyLong_AsVoidPtr(PyTuple_GetItem(data, 0));
    source->dtype = PyUnicode_AsUTF8AndSize(dtype, NULL);
    return PyErr_Occurred() ? no_interface(value) : 0;
}

/* In C order, whatever its strides are. */
static char *gather(const struct source *source, size_t dimension, const char *from, char *to, size_t item)
{
    if (dimension == source->dimensions) {
        memcpy(to, from, item);
        return to + item;
    }
    for (uint64_t i = 0; i < source->shape[dimension]; i++, from += source->strides[dimension])
        to = gather(source, dimension + 1, from, to, item);
    return to;
}

static int wrong_type(void)
{
    PyErr_SetString(PyExc_TypeError, plait_error_text());
    return -1;
}

static int take_source(struct body *body, const struct source *source, PyObject *value)
{
    plait_array made;
    void *elements;
    size_t size;
    if (plait_array_measure(source->dtype, source->shape, source->dimensions, &size) < 0) return wrong_type();
    PyObject *base = PyObject_GetAttrString(value, "base");
    if (base == NULL) PyErr_Clear();
    bool lent = base && source->contiguous && loan_holds(base, source->data, size);
    if (lent && loan_take(body, base) == 0) {
        (void)plait_array_write((void *)(uintptr_t)body->data, size, source->dtype, source->shape, source->dimensions,
                                &elements);
        body->encoding = PLAIT_ARRAY;
        body->array = Py_NewRef(value);
    }
    Py_XDECREF(base);
    if (lent) return body->loan ? 0 : -1;
    body->memory = malloc(size);
    if (body->memory == NULL) {
        (void)PyErr_NoMemory();
        return -1;
    }
    if (plait_array_write(body->memory, size, source->dtype, source->shape, source->dimensions, &elements) < 0 ||
        plait_array_read(body->memory, size, &made) < 0) {
        free(body->memory);
        return wrong_type();
    }
    if (!source->contiguous) (void)gather(source, 0, source->data, elements, made.item_size);
    else if (made.size > 0) memcpy(elements, source->data, made.size);
    body->data = body->memory;
    body->size = (Py_ssize_t)size;
    body->encoding = PLAIT_ARRAY;
    return 0;
}

int array_take(struct body *body, PyObject *value)
{
    struct source source;
    PyObject *interface = PyObject_GetAttrString(value, "__array_interface__");
    if (interface == NULL) return -1;
    int r = read_interface(&source, interface, value);
    if (r == 0) r = take_source(body, &source, value);
    Py_DECREF(interface);
    return r;
}

/* ---- receiving ---- */

static PyObject *shape_of(const plait_array *array)
{
    PyObject *shape = PyTuple_New(array->dimensions);
    for (uint32_t i = 0; shape && i < array->dimensions; i++) {
        PyObject *length = PyLong_FromUnsignedLongLong(array->shape[i]);
        if (length == NULL) Py_CLEAR(shape);
        else (void)PyTuple_SetItem(shape, i, length);
    }
    return shape;
}

PyObject *array_of(PyObject *owner, plait_bytes body, plait_encoding encoding, PyObject *args, PyObject *named)
{
    static const char *const keywords[] = { "dtype", "shape", NULL };
    PyObject *dtype = Py_None, *shape = Py_None;
    plait_array array = { .data = body.data, .size = body.size };
    if (!PyArg_ParseTupleAndKeywords(args, named, "|OO:array", (char **)(uintptr_t)keywords, &dtype, &shape))
        return NULL;
    if (encoding == PLAIT_ARRAY && plait_array_read(body.data, body.size, &array) < 0) return raise_code(-EBADMSG);
    Py_ssize_t offset = array.data ? (const char *)array.data - (const char *)body.data : 0;
    PyObject *told = encoding == PLAIT_ARRAY ? shape_of(&array) : Py_NewRef(Py_None);
    PyObject *module = told ? PyImport_ImportModule("plait._arrays") : NULL;
    PyObject *result = module ? PyObject_CallMethod(module, "view", "OnnzOOO", owner, offset, (Py_ssize_t)array.size,
                                                    encoding == PLAIT_ARRAY ? array.dtype : NULL, told, dtype, shape)
                              : NULL;
    Py_XDECREF(module);
    Py_XDECREF(told);
    return result;
}

PyObject *array_lend(PyObject *lender, PyObject *args, PyObject *named)
{
    static const char *const keywords[] = { "shape", "dtype", NULL };
    PyObject *shape, *dtype = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, named, "O|O:loan", (char **)(uintptr_t)keywords, &shape, &dtype))
        return NULL;
    PyObject *module = PyImport_ImportModule("plait._arrays");
    PyObject *result = module ? PyObject_CallMethod(module, "lend", "OOO", lender, shape, dtype) : NULL;
    Py_XDECREF(module);
    return result;
}
