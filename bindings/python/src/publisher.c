/* Publisher. One that never waits keeps the GIL; it is given away where a slow subscriber may be waited for. */
#include "binding.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct publisher {
    PyObject_HEAD plait_publisher *handle; /* NULL: closed */
    PyObject *topic;
    pthread_mutex_t lock; /* the library wants one thread at a time */
    bool waits, locked;
    pid_t owner;    /* the thread that holds it; a signal's handler may come back to it */
    unsigned users; /* threads inside; under the GIL */
    bool closing;
    struct mappings mappings;
};

enum { LONG_COPY = 64 * 1024 }; /* bytes from which on others may run meanwhile */

static int enter(struct publisher *self)
{
    if (self->handle == NULL || self->closing) {
        (void)raise_text(EBADF, "this publisher is closed: open another");
        return -1;
    }
    self->users++;
    return 0;
}

static void leave(struct publisher *self)
{
    if (--self->users > 0 || !self->closing) return;
    plait_publisher *handle = self->handle;
    struct waiting waiting;
    self->handle = NULL;
    mappings_clear(&self->mappings);
    waiting_begin(&waiting); /* it may have to send to sockets first */
    plait_publisher_close(handle);
    waiting_end(&waiting);
}

enum { SLICE_MS = 50 };

/* Without the GIL. 0; -EINTR: a signal's handler raised, or it was closed; -EDEADLK. */
static int lock(struct publisher *self)
{
    struct timespec until;
    pid_t own = gettid();
    for (;;) {
        /* Relaxed: only this thread writes its own number. */
        if (__atomic_load_n(&self->owner, __ATOMIC_RELAXED) == own) return -EDEADLK;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += SLICE_MS * 1000000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
        if (pthread_mutex_timedlock(&self->lock, &until) == 0) break;
        if (waiting_interrupted(&self->closing)) return -EINTR;
    }
    __atomic_store_n(&self->owner, own, __ATOMIC_RELAXED); /* relaxed: see above */
    return 0;
}

static void unlock(struct publisher *self)
{
    __atomic_store_n(&self->owner, 0, __ATOMIC_RELAXED); /* relaxed: see lock */
    pthread_mutex_unlock(&self->lock);
}

static void *failed(struct publisher *self, const struct waiting *waiting, int r)
{
    if (waiting && waiting->raised) return NULL;
    if (r == -EDEADLK)
        return raise_text(r, "this thread waits in this publisher already, and its signal's handler wants to, too");
    if (r == -EINTR && self->closing) return raise_text(ECANCELED, "this publisher was closed while it waited");
    return raise_code(r);
}

static int publish_body(struct publisher *self, const struct body *body, plait_loan *lent)
{
    if (lent) return plait_publisher_publish_loan(self->handle, body->encoding, lent, (size_t)body->size);
    return plait_publisher_publish_as(self->handle, body->encoding, body->data, (size_t)body->size);
}

static PyObject *publish(struct publisher *self, struct body *body)
{
    struct waiting waiting = { .raised = false };
    int r;
    if (enter(self) < 0) return NULL;
    plait_loan *lent = body_lend(body);
    if (!self->waits && (lent || body->size < LONG_COPY) && pthread_mutex_trylock(&self->lock) == 0) {
        r = publish_body(self, body, lent);
        pthread_mutex_unlock(&self->lock);
    } else {
        waiting_begin(&waiting);
        r = lock(self);
        if (r == 0) {
            r = publish_body(self, body, lent);
            unlock(self);
        } else {
            plait_loan_abort(lent);
        }
        waiting_end(&waiting);
    }
    PyObject *result = r < 0 || waiting.raised ? failed(self, &waiting, r) : Py_NewRef(Py_None);
    leave(self);
    return result;
}

static PyObject *publisher_publish(struct publisher *self, PyObject *args, PyObject *named)
{
    static const char *const keywords[] = { "data", "json", NULL };
    PyObject *data = NULL, *json = NULL;
    struct body body;
    if (!PyArg_ParseTupleAndKeywords(args, named, "|O$O:publish", (char **)(uintptr_t)keywords, &data, &json))
        return NULL;
    if ((data == NULL) == (json == NULL)) {
        PyErr_SetString(PyExc_TypeError, "data or json, one of them");
        return NULL;
    }
    if ((json ? body_take_json(&body, json) : body_take(&body, data)) < 0) return NULL;
    PyObject *result = publish(self, &body);
    body_drop(&body);
    return result;
}

/* _loan(nbytes) -> Loan, for plait._arrays */
static PyObject *publisher_lend(struct publisher *self, PyObject *size)
{
    struct waiting waiting;
    plait_loan *lent;
    size_t bytes = PyLong_AsSize_t(size);
    if (bytes == (size_t)-1 && PyErr_Occurred()) return NULL;
    if (enter(self) < 0) return NULL;
    waiting_begin(&waiting);
    int r = lock(self);
    if (r == 0) {
        r = plait_publisher_loan(self->handle, bytes, &lent);
        unlock(self);
    }
    waiting_end(&waiting);
    PyObject *result = NULL;
    if (r == 0 && !waiting.raised) {
        result = loan_new(lent, &self->mappings);
    } else {
        if (r == 0) plait_loan_abort(lent);
        (void)failed(self, &waiting, r);
    }
    leave(self);
    return result;
}

static PyObject *publisher_loan(PyObject *self, PyObject *args, PyObject *named)
{
    return array_lend(self, args, named);
}

/* ---- life ---- */

static int open_handle(struct publisher *self, const char *topic, plait_publisher_options *options)
{
    options->interrupted = waiting_interrupted;
    options->interrupted_context = &self->closing;
    struct waiting waiting;
    binding_hook_log();
    waiting_begin(&waiting);
    int r = plait_publisher_open(&self->handle, topic, options);
    waiting_end(&waiting);
    if (r < 0) (void)raise_code(r);
    return r;
}

static PyObject *publisher_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    static const char *const keywords[] = { "topic",   "reliable",         "history",     "listen", "allow",
                                            "timeout", "wait_subscribers", "max_message", NULL };
    PyObject *topic, *timeout = NULL;
    int reliable = 0;
    unsigned long long max_message = 0;
    unsigned wait = 0;
    plait_publisher_options options = PLAIT_PUBLISHER_OPTIONS_INIT;
    if (!PyArg_ParseTupleAndKeywords(args, named, "U|pI$zzOIK:Publisher", (char **)(uintptr_t)keywords, &topic,
                                     &reliable, &options.history, &options.listen, &options.allow, &timeout, &wait,
                                     &max_message))
        return NULL;
    options.reliable = reliable;
    options.wait_subscribers = wait;
    options.max_message = max_message;
    if (timeout && milliseconds(timeout, &options.timeout, "timeout") < 0) return NULL;
    const char *text = PyUnicode_AsUTF8AndSize(topic, NULL);
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct publisher *self = text ? (struct publisher *)allocate(type, 0) : NULL;
    if (self == NULL) return NULL;
    self->topic = Py_NewRef(topic);
    self->waits = reliable || wait;
    self->locked = pthread_mutex_init(&self->lock, NULL) == 0;
    if (open_handle(self, text, &options) < 0) Py_CLEAR(self);
    return (PyObject *)self;
}

static PyObject *publisher_close(struct publisher *self, PyObject *unused)
{
    (void)unused;
    if (self->handle != NULL && !self->closing) {
        __atomic_store_n(&self->closing, true, __ATOMIC_RELAXED); /* relaxed: a flag alone */
        self->users++;
        leave(self);
    }
    return Py_NewRef(Py_None);
}

static void publisher_dealloc(struct publisher *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    struct waiting waiting;
    if (self->handle) {
        waiting_begin(&waiting);
        plait_publisher_close(self->handle);
        waiting_end(&waiting);
    }
    mappings_clear(&self->mappings);
    if (self->locked) pthread_mutex_destroy(&self->lock);
    Py_XDECREF(self->topic);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyObject *publisher_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    return Py_NewRef(self);
}

static PyObject *publisher_exit(struct publisher *self, PyObject *args)
{
    (void)args;
    return publisher_close(self, NULL);
}

static PyObject *publisher_urls(struct publisher *self, void *unused)
{
    const char *url;
    (void)unused;
    if (enter(self) < 0) return NULL;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && (url = plait_publisher_url(self->handle, i)) != NULL; i++) {
        PyObject *text = text_of(url);
        if (text == NULL || PyList_Append(list, text) < 0) Py_CLEAR(list);
        Py_XDECREF(text);
    }
    leave(self);
    return list;
}

static PyObject *publisher_subscribers(struct publisher *self, void *unused)
{
    (void)unused;
    if (enter(self) < 0) return NULL;
    PyObject *count = PyLong_FromSize_t(plait_publisher_subscribers(self->handle));
    leave(self);
    return count;
}

static PyObject *publisher_topic(struct publisher *self, void *unused)
{
    (void)unused;
    return Py_NewRef(self->topic);
}

static PyObject *publisher_closed(struct publisher *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(self->handle == NULL || self->closing);
}

static PyObject *publisher_repr(struct publisher *self)
{
    return PyUnicode_FromFormat("<plait.Publisher of %R%s>", self->topic,
                                self->handle == NULL || self->closing ? ", closed" : "");
}

static PyMethodDef methods[] = {
    { "publish", FASTCALL(publisher_publish), METH_VARARGS | METH_KEYWORDS,
      "publish(data, *, json=...) -> None\n\nTells DATA to all who are subscribed: bytes or anything with their "
      "buffer, "
      "str (sent as UTF-8),\ndict or list (sent as JSON), an array of numpy's (with its dtype and shape), None "
      "(empty); "
      "or json: any value.\nAn array that loan() lent goes without a copy, and is read-only from then on.\n\n"
      "Raises Error (code EMSGSIZE, ENOBUFS, EBADF closed), TimeoutError (fewer than wait_subscribers; nothing was\n"
      "published), TypeError." },
    { "loan", FASTCALL(publisher_loan), METH_VARARGS | METH_KEYWORDS,
      "loan(shape, dtype=None) -> numpy.ndarray\n\nA writable array that lies where subscribers will read it: fill it, "
      "then publish() it, once.\nIts content is undefined at first. dtype None: float64, as numpy.empty().\n\n"
      "Raises Error (code ENOBUFS: all segments are out, EMSGSIZE), MemoryError, ImportError (there is no numpy)." },
    { "close", (PyCFunction)publisher_close, METH_NOARGS, "close() -> None\n\nEnds; a second time does nothing." },
    { "_loan", (PyCFunction)publisher_lend, METH_O, NULL },
    { "__enter__", publisher_enter, METH_NOARGS, NULL },
    { "__exit__", (PyCFunction)publisher_exit, METH_VARARGS, NULL },
    { NULL, NULL, 0, NULL },
};

static PyGetSetDef getters[] = {
    { "topic", (getter)publisher_topic, NULL, "str: its topic.", NULL },
    { "urls", (getter)publisher_urls, NULL, "list[str]: where it listens, with real ports.", NULL },
    { "subscribers", (getter)publisher_subscribers, NULL, "int: how many there are now.", NULL },
    { "closed", (getter)publisher_closed, NULL, "bool: close() was called.", NULL },
    { NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot slots[] = {
    { Py_tp_doc,
      (void *)"Publisher(topic, reliable=False, history=0, *, listen=None, allow=None, timeout=1.0,\n"
              "          wait_subscribers=0, max_message=0)\n\n"
              "Offers TOPIC to whoever subscribes. Threads may share it. `with` closes it.\n\n"
              "reliable (bool): publish() waits for slow subscribers; else they lose the oldest messages, and are "
              "told.\n"
              "history (int): messages that late subscribers can surely get, at most 8000.\n"
              "listen (str): URLs, separated by spaces, at which others may subscribe: tcp://HOST:PORT, unix:///PATH.\n"
              "allow (str): who else may subscribe here: \"alice,1001,@video,*\".\n"
              "timeout (float): seconds that a reliable one waits for a subscriber that makes no progress, and any one "
              "for\n    wait_subscribers.\n"
              "wait_subscribers (int): publish() waits until there are so many.\n"
              "max_message (int): bytes; 0: 1 GiB locally, 16 MiB to subscribers over the network.\n\n"
              "Raises Error (code EINVAL, EEXIST: a service has this name, EADDRINUSE, EACCES, ...)." },
    { Py_tp_new, publisher_new },
    { Py_tp_dealloc, publisher_dealloc },
    { Py_tp_methods, methods },
    { Py_tp_getset, getters },
    { Py_tp_repr, publisher_repr },
    { 0, NULL },
};

PyType_Spec publisher_spec = {
    .name = "plait.Publisher",
    .basicsize = sizeof(struct publisher),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};
