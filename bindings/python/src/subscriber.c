/* Subscriber. It first looks with the GIL, then waits without it. */
#include "binding.h"

#include <errno.h>

struct subscriber {
    struct life life;
    int64_t timeout; /* ms, as plait_subscriber_next takes it */
};

static void end(struct life *life)
{
    plait_subscriber *handle = life->handle;
    life->handle = NULL;
    plait_subscriber_close(handle);
}

static const struct kind kind = { .what = "subscriber", .again = "open", .end = end };

static int enter(struct subscriber *self)
{
    if (self->life.users > 0 && !self->life.closing) {
        (void)raise_text(EBUSY, "another thread waits in this subscriber: give each a subscriber of its own");
        return -1;
    }
    return life_enter(&self->life);
}

/* What is there; -EAGAIN: nothing; -EINTR: it would have to wait for a connection. */
static int look(struct subscriber *self, plait_message **ret_message)
{
    struct waiting waiting;
    waiting_keep(&waiting, false);
    int r = plait_subscriber_next(self->life.handle, PLAIT_NOW, ret_message);
    waiting_kept(&waiting);
    return r;
}

static PyObject *next_within(struct subscriber *self, int64_t timeout)
{
    struct waiting waiting = { .raised = false };
    plait_message *message;
    if (enter(self) < 0) return NULL;
    int r = look(self, &message);
    if (r == -EINTR || (r == -EAGAIN && timeout != PLAIT_NOW)) {
        waiting_begin(&waiting);
        r = plait_subscriber_next(self->life.handle, timeout, &message);
        waiting_end(&waiting);
    }
    PyObject *result = r == 0         ? message_new(message)
                       : r == -EAGAIN ? raise_text(ETIMEDOUT, plait_error_text())
                                      : life_failed(&self->life, &waiting, r);
    life_leave(&self->life);
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

/* _try() -> Message; None: nothing is there; False: next() would connect anew, in a thread. For plait.aio. */
static PyObject *subscriber_try(struct subscriber *self, PyObject *unused)
{
    plait_message *message;
    (void)unused;
    if (enter(self) < 0) return NULL;
    int r = look(self, &message);
    PyObject *result = r == 0         ? message_new(message)
                       : r == -EAGAIN ? Py_NewRef(Py_None)
                       : r == -EINTR  ? Py_NewRef(Py_False)
                                      : raise_code(r);
    life_leave(&self->life);
    return result;
}

static PyObject *subscriber_fd(struct subscriber *self, PyObject *unused)
{
    (void)unused;
    if (enter(self) < 0) return NULL;
    return life_result(&self->life, plait_subscriber_fd(self->life.handle));
}

/* ---- life ---- */

static int take_reliable(PyObject *value, int32_t *ret_reliable)
{
    if (value == Py_None) return 0;
    int yes = PyObject_IsTrue(value);
    if (yes >= 0) *ret_reliable = yes ? PLAIT_RELIABLE_YES : PLAIT_RELIABLE_NO;
    return yes < 0 ? -1 : 0;
}

/* AT_ONCE: Error (code EINTR) instead of a wait. */
static PyObject *open_with(PyTypeObject *type, PyObject *topic, int64_t timeout, plait_subscriber_options *options,
                           bool at_once)
{
    const char *text = PyUnicode_AsUTF8AndSize(topic, NULL);
    struct subscriber *self = text ? (struct subscriber *)life_new(type, &kind, topic) : NULL;
    struct waiting waiting;
    if (self == NULL) return NULL;
    self->timeout = timeout;
    options->interrupted = waiting_interrupted;
    options->interrupted_context = &self->life.closing;
    binding_hook_log();
    if (at_once) waiting_keep(&waiting, false);
    else waiting_begin(&waiting);
    int r = plait_subscriber_open((plait_subscriber **)&self->life.handle, text, options);
    if (at_once) waiting_kept(&waiting);
    else waiting_end(&waiting);
    if (r < 0 || waiting.raised) {
        (void)life_failed(&self->life, &waiting, r);
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static PyObject *subscriber_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    static const char *const keywords[] = { "topic", "history",     "reliable", "timeout",  "connect_timeout",
                                            "peer",  "max_message", "spin_us",  "_at_once", NULL };
    PyObject *topic, *reliable = Py_None, *timeout = Py_None, *connect_timeout = NULL, *peer = Py_None;
    unsigned long long max_message = 0;
    long long spin_us = 0;
    int64_t wait;
    int at_once = 0;
    plait_subscriber_options options = PLAIT_SUBSCRIBER_OPTIONS_INIT;
    if (!PyArg_ParseTupleAndKeywords(args, named, "U|I$OOOOKLp:subscribe", (char **)(uintptr_t)keywords, &topic,
                                     &options.history, &reliable, &timeout, &connect_timeout, &peer, &max_message,
                                     &spin_us, &at_once))
        return NULL;
    if (milliseconds(timeout, &wait, "timeout") < 0 || take_reliable(reliable, &options.reliable) < 0) return NULL;
    if (connect_timeout && milliseconds(connect_timeout, &options.connect_timeout, "connect_timeout") < 0) return NULL;
    options.max_message = max_message;
    options.spin_us = spin_us;
    PyObject *peer_text = peer == Py_None ? NULL : PyObject_Str(peer);
    if (peer_text) options.peer = PyUnicode_AsUTF8AndSize(peer_text, NULL);
    PyObject *self = PyErr_Occurred() ? NULL : open_with(type, topic, wait, &options, at_once);
    Py_XDECREF(peer_text);
    return self;
}

static void subscriber_dealloc(struct subscriber *self)
{
    life_end(&self->life);
    life_free(&self->life);
}

static PyObject *subscriber_iter(PyObject *self)
{
    return Py_NewRef(self);
}

static PyObject *subscriber_publishers(struct subscriber *self, void *unused)
{
    (void)unused;
    if (enter(self) < 0) return NULL;
    PyObject *count = PyLong_FromSize_t(plait_subscriber_publishers(self->life.handle));
    life_leave(&self->life);
    return count;
}

static PyMethodDef methods[] = {
    { "next", FASTCALL(subscriber_next), METH_VARARGS | METH_KEYWORDS,
      "next(timeout=...) -> Message\n\nThe next message. timeout: seconds; omitted: the subscriber's; None: for ever; "
      "0: "
      "doesn't wait.\n\nRaises TimeoutError, Error (code EBADF closed, ECANCELED closed meanwhile, EBUSY another "
      "thread\n"
      "waits here, ECHILD after fork). KeyboardInterrupt ends it within 100 ms; nothing is lost." },
    { "close", life_close, METH_NOARGS,
      "close() -> None\n\nEnds; a second time does nothing. Messages that you keep stay valid; a thread that waits "
      "here gets an\nError within 100 ms." },
    { "_try", (PyCFunction)subscriber_try, METH_NOARGS, NULL },
    { "_fd", (PyCFunction)subscriber_fd, METH_NOARGS, NULL },
    { "__enter__", self_of, METH_NOARGS, NULL },
    { "__exit__", life_exit, METH_VARARGS, NULL },
    { NULL, NULL, 0, NULL },
};

static PyGetSetDef getters[] = {
    { "topic", life_name, NULL, "str: what it was subscribed to.", NULL },
    { "publishers", (getter)subscriber_publishers, NULL, "int: how many it is subscribed to now.", NULL },
    { "closed", life_closed, NULL, "bool: close() was called.", NULL },
    { NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot slots[] = {
    { Py_tp_doc, (void *)"A subscription, made by plait.subscribe(): `for message in subscriber`, or next(). `with` "
                         "closes it.\n\nBy one thread at a time; a child of fork() opens its own." },
    { Py_tp_new, subscriber_new },
    { Py_tp_dealloc, subscriber_dealloc },
    { Py_tp_methods, methods },
    { Py_tp_getset, getters },
    { Py_tp_repr, life_repr },
    { Py_tp_iter, subscriber_iter },
    { Py_tp_iternext, subscriber_iternext },
    { 0, NULL },
};

PyType_Spec subscriber_spec = {
    .name = "plait.Subscriber",
    .basicsize = sizeof(struct subscriber),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = slots,
};
