/* life: what all objects that can be closed have in common.
 *
 * One that is closed while threads are inside goes with the last of them: `closing` ends their waits.
 */
#include "binding.h"

#include <errno.h>

struct life *life_new(PyTypeObject *type, const struct kind *kind, PyObject *name)
{
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct life *self = (struct life *)allocate(type, 0);
    if (self == NULL) return NULL;
    self->kind = kind;
    self->name = Py_NewRef(name);
    return self;
}

void life_end(struct life *self)
{
    PyObject *type, *value, *traceback;
    if (self->handle == NULL) return;
    PyErr_Fetch(&type, &value, &traceback);
    self->closing = true;
    self->kind->end(self);
    PyErr_Restore(type, value, traceback);
}

void life_free(struct life *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    Py_XDECREF(self->name);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

bool life_is_over(const struct life *self)
{
    return self->handle == NULL || self->closing;
}

int life_enter(struct life *self)
{
    if (life_is_over(self)) {
        char text[64];
        PyOS_snprintf(text, sizeof(text), "this %s is closed: %s another", self->kind->what, self->kind->again);
        (void)raise_text(EBADF, text);
        return -1;
    }
    self->users++;
    return 0;
}

void life_leave(struct life *self)
{
    if (--self->users == 0 && self->closing && self->handle != NULL) self->kind->end(self);
}

PyObject *life_result(struct life *self, int r)
{
    PyObject *result = r < 0 ? raise_code(r) : PyLong_FromLong(r);
    life_leave(self);
    return result;
}

void *life_failed(const struct life *self, const struct waiting *waiting, int r)
{
    char text[64];
    if (waiting->raised) return NULL;
    if (r != -EINTR || !self->closing) return raise_code(r);
    PyOS_snprintf(text, sizeof(text), "this %s was closed while it waited", self->kind->what);
    return raise_text(ECANCELED, text);
}

PyObject *life_close(PyObject *object, PyObject *unused)
{
    struct life *self = (struct life *)object;
    (void)unused;
    if (!life_is_over(self)) {
        __atomic_store_n(&self->closing, true, __ATOMIC_RELAXED); /* relaxed: a flag alone */
        self->users++;
        life_leave(self);
    }
    return Py_NewRef(Py_None);
}

PyObject *life_exit(PyObject *self, PyObject *args)
{
    (void)args;
    return life_close(self, NULL);
}

PyObject *life_name(PyObject *self, void *unused)
{
    (void)unused;
    return Py_NewRef(((struct life *)self)->name);
}

PyObject *life_closed(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(life_is_over((struct life *)self));
}

PyObject *life_repr(PyObject *object)
{
    struct life *self = (struct life *)object;
    PyObject *type = PyType_GetName(Py_TYPE(object));
    PyObject *text =
        type ? PyUnicode_FromFormat("<plait.%U of %R%s>", type, self->name, life_is_over(self) ? ", closed" : "")
             : NULL;
    Py_XDECREF(type);
    return text;
}

PyObject *self_of(PyObject *self, PyObject *unused)
{
    (void)unused;
    return Py_NewRef(self);
}

PyObject *texts_of(const char *(*at)(const void *of, size_t index), const void *of)
{
    const char *text;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && (text = at(of, i)) != NULL; i++) {
        PyObject *item = text_of(text);
        if (item == NULL || PyList_Append(list, item) < 0) Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}
