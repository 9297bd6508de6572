/* Subscriber. It first looks with the GIL; then waits without it, in slices, between which it hears of signals and of
 * a close() by another thread. */
#include "binding.h"

#include <errno.h>
#include <time.h>

enum { SLICE_MS = 50 };

struct subscriber {
    PyObject_HEAD plait_subscriber *handle; /* NULL: closed */
    PyObject *topic;
    int64_t timeout; /* ms, as plait_subscriber_next takes it */
    bool inside;     /* a thread is; under the GIL */
    bool closing;
};

static int enter(struct subscriber *self)
{
    if (self->handle == NULL || self->closing) {
        (void)raise_text(EBADF, "this subscriber is closed: open another");
        return -1;
    }
    if (self->inside) {
        (void)raise_text(EBUSY, "another thread waits in this subscriber: give each a subscriber of its own");
        return -1;
    }
    self->inside = true;
    return 0;
}

static void leave(struct subscriber *self)
{
    self->inside = false;
    if (!self->closing) return;
    plait_subscriber *handle = self->handle;
    self->handle = NULL;
    plait_subscriber_close(handle);
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* With the exception set where it isn't 0. */
static int wait_for(struct subscriber *self, int64_t timeout, plait_message **ret_message)
{
    int64_t begun = now_ms();
    for (;;) {
        int64_t left = timeout == PLAIT_FOREVER ? SLICE_MS : timeout - (now_ms() - begun);
        struct waiting waiting;
        waiting_begin(&waiting);
        int r = plait_subscriber_next(self->handle, left < 1 ? 1 : left > SLICE_MS ? SLICE_MS : left, ret_message);
        waiting_end(&waiting);
        if (r == 0) return 0;
        if (PyErr_CheckSignals() < 0) return r;
        if (self->closing) {
            (void)raise_text(ECANCELED, "this subscriber was closed while it waited");
            return r;
        }
        if (r == -EINTR) continue;
        if (r != -ETIMEDOUT) {
            (void)raise_code(r);
            return r;
        }
        if (timeout == PLAIT_FOREVER || now_ms() - begun < timeout) continue;
        PyObject *text =
            PyUnicode_FromFormat("topic '%S': no message within %lld ms%s", self->topic, (long long)timeout,
                                 plait_subscriber_publishers(self->handle) ? "" : " (nobody publishes it)");
        if (text) (void)raise_text(r, PyUnicode_AsUTF8AndSize(text, NULL));
        Py_XDECREF(text);
        return r;
    }
}

static PyObject *next_within(struct subscriber *self, int64_t timeout)
{
    plait_message *message;
    if (enter(self) < 0) return NULL;
    int r = plait_subscriber_next(self->handle, PLAIT_NOW, &message);
    if (r == -EAGAIN && timeout != PLAIT_NOW) {
        r = wait_for(self, timeout, &message);
    } else if (r == -EAGAIN) {
        (void)raise_text(ETIMEDOUT, plait_error_text());
    } else if (r < 0) {
        (void)raise_code(r);
    }
    PyObject *result = r < 0 ? NULL : message_new(message);
    leave(self);
    return result;
}

static PyObject *subscriber_next(struct subscriber *self, PyObject *args, PyObject *named)
{
    static const char *const keywords[] = { "timeout", NULL };
    PyObject *seconds = NULL;
    int64_t timeout = self->timeout;
    if (!PyArg_ParseTupleAndKeywords(args, named, "|O:next", (char **)(uintptr_t)keywords, &seconds)) return NULL;
    if (seconds && milliseconds(seconds, &timeout, "timeout") < 0) return NULL;
    return next_within(self, timeout);
}

static PyObject *subscriber_iternext(struct subscriber *self)
{
    return next_within(self, self->timeout);
}

/* _try() -> Message; None: nothing is there. For plait.aio. */
static PyObject *subscriber_try(struct subscriber *self, PyObject *unused)
{
    plait_message *message;
    (void)unused;
    if (enter(self) < 0) return NULL;
    int r = plait_subscriber_next(self->handle, PLAIT_NOW, &message);
    PyObject *result = r == 0 ? message_new(message) : r == -EAGAIN ? Py_NewRef(Py_None) : raise_code(r);
    leave(self);
    return result;
}

static PyObject *subscriber_fd(struct subscriber *self, PyObject *unused)
{
    (void)unused;
    if (enter(self) < 0) return NULL;
    int r = plait_subscriber_fd(self->handle);
    PyObject *result = r < 0 ? raise_code(r) : PyLong_FromLong(r);
    leave(self);
    return result;
}

/* ---- life ---- */

static int take_reliable(PyObject *value, int32_t *ret_reliable)
{
    if (value == Py_None) return 0;
    int yes = PyObject_IsTrue(value);
    if (yes >= 0) *ret_reliable = yes ? PLAIT_RELIABLE_YES : PLAIT_RELIABLE_NO;
    return yes < 0 ? -1 : 0;
}

static PyObject *open_with(PyTypeObject *type, PyObject *topic, int64_t timeout,
                           const plait_subscriber_options *options)
{
    const char *text = PyUnicode_AsUTF8AndSize(topic, NULL);
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct subscriber *self = text ? (struct subscriber *)allocate(type, 0) : NULL;
    struct waiting waiting;
    if (self == NULL) return NULL;
    self->topic = Py_NewRef(topic);
    self->timeout = timeout;
    binding_hook_log();
    waiting_begin(&waiting);
    int r = plait_subscriber_open(&self->handle, text, options);
    waiting_end(&waiting);
    if (r < 0) (void)raise_code(r);
    if (r < 0 || PyErr_CheckSignals() < 0) Py_CLEAR(self);
    return (PyObject *)self;
}

static PyObject *subscriber_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    static const char *const keywords[] = { "topic", "history",     "reliable", "timeout", "connect_timeout",
                                            "peer",  "max_message", "spin_us",  NULL };
    PyObject *topic, *reliable = Py_None, *timeout = Py_None, *connect_timeout = NULL, *peer = Py_None;
    unsigned long long max_message = 0;
    long long spin_us = 0;
    int64_t wait;
    plait_subscriber_options options = PLAIT_SUBSCRIBER_OPTIONS_INIT;
    if (!PyArg_ParseTupleAndKeywords(args, named, "U|I$OOOOKL:subscribe", (char **)(uintptr_t)keywords, &topic,
                                     &options.history, &reliable, &timeout, &connect_timeout, &peer, &max_message,
                                     &spin_us))
        return NULL;
    if (milliseconds(timeout, &wait, "timeout") < 0 || take_reliable(reliable, &options.reliable) < 0) return NULL;
    if (connect_timeout && milliseconds(connect_timeout, &options.connect_timeout, "connect_timeout") < 0) return NULL;
    options.max_message = max_message;
    options.spin_us = spin_us;
    PyObject *peer_text = peer == Py_None ? NULL : PyObject_Str(peer);
    if (peer_text) options.peer = PyUnicode_AsUTF8AndSize(peer_text, NULL);
    PyObject *self = PyErr_Occurred() ? NULL : open_with(type, topic, wait, &options);
    Py_XDECREF(peer_text);
    return self;
}

static PyObject *subscriber_close(struct subscriber *self, PyObject *unused)
{
    (void)unused;
    if (self->handle != NULL && !self->closing) {
        self->closing = true;
        if (!self->inside) leave(self);
    }
    return Py_NewRef(Py_None);
}

static void subscriber_dealloc(struct subscriber *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    plait_subscriber_close(self->handle);
    Py_XDECREF(self->topic);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyObject *subscriber_self(PyObject *self, PyObject *unused)
{
    (void)unused;
    return Py_NewRef(self);
}

static PyObject *subscriber_iter(PyObject *self)
{
    return Py_NewRef(self);
}

static PyObject *subscriber_exit(struct subscriber *self, PyObject *args)
{
    (void)args;
    return subscriber_close(self, NULL);
}

static PyObject *subscriber_publishers(struct subscriber *self, void *unused)
{
    (void)unused;
    if (enter(self) < 0) return NULL;
    PyObject *count = PyLong_FromSize_t(plait_subscriber_publishers(self->handle));
    leave(self);
    return count;
}

static PyObject *subscriber_topic(struct subscriber *self, void *unused)
{
    (void)unused;
    return Py_NewRef(self->topic);
}

static PyObject *subscriber_closed(struct subscriber *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(self->handle == NULL || self->closing);
}

static PyObject *subscriber_repr(struct subscriber *self)
{
    return PyUnicode_FromFormat("<plait.Subscriber of %R%s>", self->topic,
                                self->handle == NULL || self->closing ? ", closed" : "");
}

static PyMethodDef methods[] = {
    { "next", FASTCALL(subscriber_next), METH_VARARGS | METH_KEYWORDS,
      "next(timeout=...) -> Message\n\nThe next message. timeout: seconds; omitted: the subscriber's; None: for ever; "
      "0: "
      "doesn't wait.\n\nRaises TimeoutError, Error (code EBADF closed, ECANCELED closed meanwhile, EBUSY another "
      "thread\n"
      "waits here, ECHILD after fork). KeyboardInterrupt ends it within 100 ms; nothing is lost." },
    { "close", (PyCFunction)subscriber_close, METH_NOARGS,
      "close() -> None\n\nEnds; a second time does nothing. Messages that you keep stay valid; a thread that waits "
      "here gets an\nError within 100 ms." },
    { "_try", (PyCFunction)subscriber_try, METH_NOARGS, NULL },
    { "_fd", (PyCFunction)subscriber_fd, METH_NOARGS, NULL },
    { "__enter__", subscriber_self, METH_NOARGS, NULL },
    { "__exit__", (PyCFunction)subscriber_exit, METH_VARARGS, NULL },
    { NULL, NULL, 0, NULL },
};

static PyGetSetDef getters[] = {
    { "topic", (getter)subscriber_topic, NULL, "str: what it was subscribed to.", NULL },
    { "publishers", (getter)subscriber_publishers, NULL, "int: how many it is subscribed to now.", NULL },
    { "closed", (getter)subscriber_closed, NULL, "bool: close() was called.", NULL },
    { NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot slots[] = {
    { Py_tp_doc, (void *)"A subscription, made by plait.subscribe(): `for message in subscriber`, or next(). `with` "
                         "closes it.\n\nBy one thread at a time; a child of fork() opens its own." },
    { Py_tp_new, subscriber_new },
    { Py_tp_dealloc, subscriber_dealloc },
    { Py_tp_methods, methods },
    { Py_tp_getset, getters },
    { Py_tp_repr, subscriber_repr },
    { Py_tp_iter, subscriber_iter },
    { Py_tp_iternext, subscriber_iternext },
    { 0, NULL },
};

PyType_Spec subscriber_spec = {
    .name = "plait.Subscriber",
    .basicsize = sizeof(struct subscriber),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};
