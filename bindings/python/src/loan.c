/* Loan: memory for a message, in the segment that its receiver reads.
 *
 * Python's views of it may be kept for as long as their owner likes, but the library unmaps a segment when it needs it
 * no more. So views look at a second mapping of the same pages, which is ours and goes with the last view. It is kept
 * with its lender and found again with the segment: then no page is faulted in twice.
 */
#include "binding.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct mapping {
    char *start;
    const char *origin; /* the library's mapping of the same pages, if it still is that */
    size_t size;
    unsigned users;
};

struct loan {
    PyObject_HEAD plait_loan *loan; /* NULL: over, or plain memory */
    struct mapping *mapping;        /* NULL: plain memory */
    char *data;
    size_t size;
    bool over;
};

/* ---- mappings ---- */

static void drop(struct mapping *mapping)
{
    if (mapping == NULL || --mapping->users > 0) return;
    munmap(mapping->start, mapping->size);
    free(mapping);
}

void mappings_clear(struct mappings *mappings)
{
    for (int i = 0; i < MAPPINGS; i++) {
        drop(mappings->kept[i]);
        mappings->kept[i] = NULL;
    }
}

/* Another segment may lie where the old one did: what is written to one shows in the other, or they are two. A loan's
 * content is nobody's yet. */
static bool same_pages(const struct mapping *mapping, char *data)
{
    volatile char *one = data, *other = mapping->start + (data - mapping->origin);
    *one = 0x55;
    if (*other != 0x55) return false;
    *one = 0x2a;
    return *other == 0x2a;
}

static struct mapping *map_again(const char *origin, size_t size, char *data)
{
    struct mapping *mapping = malloc(sizeof(*mapping));
    if (mapping == NULL) return NULL;
    void *start = mremap((void *)(uintptr_t)origin, 0, size, MREMAP_MAYMOVE); /* of shared memory alone */
    if (start != MAP_FAILED) {
        *mapping = (struct mapping){ .start = start, .origin = origin, .size = size, .users = 1 };
        if (same_pages(mapping, data)) return mapping;
        munmap(start, size);
    }
    free(mapping);
    return NULL;
}

static struct mapping *mapping_of(struct mappings *mappings, char *data, size_t size)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = (uintptr_t)data & ~(page - 1);
    const char *origin = data - ((uintptr_t)data - first);
    size_t length = (((uintptr_t)data + size + page - 1) & ~(page - 1)) - first;
    struct mapping **place = NULL;
    for (int i = 0; i < MAPPINGS; i++) {
        struct mapping *kept = mappings->kept[i];
        if (kept && kept->origin == origin) {
            if (kept->size >= length && same_pages(kept, data)) {
                kept->users++;
                return kept;
            }
            place = &mappings->kept[i];
            break;
        }
        if (kept == NULL) place = &mappings->kept[i];
    }
    if (place == NULL) place = &mappings->kept[mappings->next++ % MAPPINGS];
    struct mapping *mapping = map_again(origin, length, data);
    if (mapping) {
        drop(*place);
        *place = mapping;
        mapping->users++;
    }
    return mapping;
}

/* ---- the object ---- */

PyObject *loan_new(plait_loan *lent, struct mappings *mappings)
{
    struct loan *self = PyObject_New(struct loan, (PyTypeObject *)names.loan_type);
    if (self == NULL) {
        plait_loan_abort(lent);
        return NULL;
    }
    char *data = plait_loan_data(lent);
    self->size = plait_loan_size(lent);
    self->over = false;
    self->loan = lent;
    self->mapping = self->size > 0 ? mapping_of(mappings, data, self->size) : NULL;
    if (self->mapping) {
        self->data = self->mapping->start + (data - self->mapping->origin);
    } else { /* copied when it is sent, as what is so small or goes through a socket is anyway */
        plait_loan_abort(lent);
        self->loan = NULL;
        self->data = calloc(1, self->size ? self->size : 1);
        if (self->data == NULL) {
            Py_DECREF((PyObject *)self);
            return PyErr_NoMemory();
        }
    }
    return (PyObject *)self;
}

static void loan_dealloc(struct loan *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    plait_loan_abort(self->loan);
    if (self->mapping) drop(self->mapping);
    else free(self->data);
    PyObject_Free(self);
    Py_DECREF(type);
}

static int check(struct loan *self)
{
    if (!self->over) return 0;
    PyErr_SetString(PyExc_ValueError, "this loan is over: it was sent or given back (take another)");
    return -1;
}

bool loan_holds(PyObject *object, const char *elements, size_t size)
{
    if ((PyObject *)Py_TYPE(object) != names.loan_type) return false;
    const struct loan *self = (const struct loan *)object;
    return elements == self->data + PLAIT_ARRAY_HEAD && size == self->size;
}

int loan_take(struct body *body, PyObject *object)
{
    struct loan *self = (struct loan *)object;
    if (check(self) < 0) return -1;
    body->loan = Py_NewRef(object);
    body->data = self->data;
    body->size = (Py_ssize_t)self->size;
    return 0;
}

plait_loan *body_lend(struct body *body)
{
    struct loan *self = (struct loan *)body->loan;
    if (self == NULL) return NULL;
    plait_loan *lent = self->loan;
    self->over = true;
    self->loan = NULL;
    PyObject *flags = body->array ? PyObject_GetAttrString(body->array, "flags") : NULL;
    if (flags) (void)PyObject_SetAttrString(flags, "writeable", Py_False); /* whoever writes too late hears of it */
    Py_XDECREF(flags);
    PyErr_Clear();
    return lent;
}

static int loan_buffer(struct loan *self, Py_buffer *view, int flags)
{
    if (self->over) {
        PyErr_SetString(PyExc_BufferError, "this loan is over: it was sent or given back (take another)");
        view->obj = NULL;
        return -1;
    }
    return PyBuffer_FillInfo(view, (PyObject *)self, self->data, (Py_ssize_t)self->size, 0, flags);
}

static Py_ssize_t loan_length(struct loan *self)
{
    return (Py_ssize_t)self->size;
}

static PyObject *loan_abort(struct loan *self, PyObject *unused)
{
    (void)unused;
    plait_loan_abort(self->loan);
    self->loan = NULL;
    self->over = true;
    return Py_NewRef(Py_None);
}

static PyObject *loan_exit(struct loan *self, PyObject *args)
{
    (void)args;
    return loan_abort(self, NULL);
}

static PyObject *loan_repr(struct loan *self)
{
    return PyUnicode_FromFormat("<plait.Loan: %zd bytes%s>", (Py_ssize_t)self->size, self->over ? ", over" : "");
}

static PyMethodDef methods[] = {
    { "abort", (PyCFunction)loan_abort, METH_NOARGS,
      "abort() -> None\n\nGives it back unsent. Once it is over this does nothing." },
    { "__enter__", self_of, METH_NOARGS, NULL },
    { "__exit__", (PyCFunction)loan_exit, METH_VARARGS, NULL },
    { NULL, NULL, 0, NULL },
};

static PyType_Slot slots[] = {
    { Py_tp_doc, (void *)"Memory for one message, written where its receiver reads it: memoryview(loan), len(loan).\n\n"
                         "Made by client.loan(); give it to call() or send() as data, and it is over. Its content is "
                         "undefined at first. `with` gives\nback what wasn't sent. Views that you keep stay valid "
                         "memory, but what they show then is nothing to rely on." },
    { Py_tp_dealloc, loan_dealloc },
    { Py_tp_methods, methods },
    { Py_tp_repr, loan_repr },
    { Py_sq_length, loan_length },
    { Py_bf_getbuffer, loan_buffer },
    { 0, NULL },
};

PyType_Spec loan_spec = {
    .name = "plait.Loan",
    .basicsize = sizeof(struct loan),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};
