/* Publisher. One that never waits keeps the GIL; it is given away where a slow subscriber may be waited for. */
#include "binding.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct publisher {
    struct life life;
    pthread_mutex_t lock; /* the library wants one thread at a time */
    bool waits, locked;
    pid_t owner; /* the thread that holds it; a signal's handler may come back to it */
    struct mappings mappings;
};

enum { LONG_COPY = 64 * 1024 }; /* bytes from which on others may run meanwhile */

static void end(struct life *life)
{
    struct publisher *self = (struct publisher *)life;
    plait_publisher *handle = life->handle;
    struct waiting waiting;
    life->handle = NULL;
    mappings_clear(&self->mappings);
    waiting_begin(&waiting); /* it may have to send to sockets first */
    plait_publisher_close(handle);
    waiting_end(&waiting);
}

static const struct kind kind = { .what = "publisher", .again = "open", .end = end };

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
        if (waiting_interrupted(&self->life.closing)) return -EINTR;
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
    if (r == -EDEADLK && !waiting->raised)
        return raise_text(r, "this thread waits in this publisher already, and its signal's handler wants to, too");
    return life_failed(&self->life, waiting, r);
}

static int publish_body(struct publisher *self, const struct body *body, plait_loan *lent)
{
    if (lent) return plait_publisher_publish_loan(self->life.handle, body->encoding, lent, (size_t)body->size);
    return plait_publisher_publish_as(self->life.handle, body->encoding, body->data, (size_t)body->size);
}

static PyObject *publish(struct publisher *self, struct body *body)
{
    struct waiting waiting = { .raised = false };
    int r;
    if (life_enter(&self->life) < 0) return NULL;
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
    life_leave(&self->life);
    return result;
}

/* Takes the lock, if what follows, of SIZE bytes, will not wait: 0, -EAGAIN. */
static int lock_at_once(struct publisher *self, size_t size)
{
    if (pthread_mutex_trylock(&self->lock) != 0) return -EAGAIN;
    int r = plait_publisher_ready(self->life.handle, size);
    if (r < 0) pthread_mutex_unlock(&self->lock);
    return r;
}

/* None: done; an int, its size: it would have had to wait. */
static PyObject *publish_at_once(struct publisher *self, struct body *body)
{
    PyObject *result = NULL;
    if (life_enter(&self->life) < 0) return NULL;
    int r = lock_at_once(self, (size_t)body->size);
    if (r == -EAGAIN) {
        result = PyLong_FromSsize_t(body->size);
    } else if (r == 0) {
        plait_loan *lent = body_lend(body);
        bool longer = lent == NULL && body->size >= LONG_COPY;
        struct waiting waiting;
        if (longer) waiting_begin(&waiting);
        r = publish_body(self, body, lent);
        if (longer) waiting_end(&waiting);
        pthread_mutex_unlock(&self->lock);
        if (r == 0) result = Py_NewRef(Py_None);
    }
    if (result == NULL && !PyErr_Occurred()) (void)raise_code(r);
    life_leave(&self->life);
    return result;
}

static PyObject *take_and(PyObject *(*then)(struct publisher *self, struct body *body), struct publisher *self,
                          PyObject *args, PyObject *named)
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
    PyObject *result = then(self, &body);
    body_drop(&body);
    return result;
}

static PyObject *publisher_publish(struct publisher *self, PyObject *args, PyObject *named)
{
    return take_and(publish, self, args, named);
}

/* _try(data, *, json=...) -> None; int: try again when _ready(that). For plait.aio. */
static PyObject *publisher_try(struct publisher *self, PyObject *args, PyObject *named)
{
    return take_and(publish_at_once, self, args, named);
}

/* _ready(nbytes) -> bool: publishing or lending so much would not wait. */
static PyObject *publisher_ready(struct publisher *self, PyObject *size)
{
    size_t bytes = PyLong_AsSize_t(size);
    if ((bytes == (size_t)-1 && PyErr_Occurred()) || life_enter(&self->life) < 0) return NULL;
    int r = lock_at_once(self, bytes);
    if (r == 0) pthread_mutex_unlock(&self->lock);
    return life_result(&self->life, r == -EAGAIN ? 0 : r < 0 ? r : 1);
}

/* _loan(nbytes) -> Loan, for plait._arrays */
static PyObject *publisher_lend(struct publisher *self, PyObject *size)
{
    struct waiting waiting;
    plait_loan *lent;
    size_t bytes = PyLong_AsSize_t(size);
    if (bytes == (size_t)-1 && PyErr_Occurred()) return NULL;
    if (life_enter(&self->life) < 0) return NULL;
    waiting_begin(&waiting);
    int r = lock(self);
    if (r == 0) {
        r = plait_publisher_loan(self->life.handle, bytes, &lent);
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
    life_leave(&self->life);
    return result;
}

static PyObject *publisher_loan(PyObject *self, PyObject *args, PyObject *named)
{
    return array_lend(self, args, named);
}

/* ---- life ---- */

static int open_handle(struct publisher *self, const char *topic, plait_publisher_options *options)
{
    struct waiting waiting;
    options->interrupted = waiting_interrupted;
    options->interrupted_context = &self->life.closing;
    binding_hook_log();
    waiting_begin(&waiting);
    int r = plait_publisher_open((plait_publisher **)&self->life.handle, topic, options);
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
    struct publisher *self = text ? (struct publisher *)life_new(type, &kind, topic) : NULL;
    if (self == NULL) return NULL;
    self->waits = reliable || wait;
    self->locked = pthread_mutex_init(&self->lock, NULL) == 0;
    if (open_handle(self, text, &options) < 0) Py_CLEAR(self);
    return (PyObject *)self;
}

static void publisher_dealloc(struct publisher *self)
{
    life_end(&self->life);
    if (self->locked) pthread_mutex_destroy(&self->lock);
    life_free(&self->life);
}

static const char *url_at(const void *of, size_t index)
{
    return plait_publisher_url(of, index);
}

static PyObject *publisher_urls(struct publisher *self, void *unused)
{
    (void)unused;
    if (life_enter(&self->life) < 0) return NULL;
    PyObject *list = texts_of(url_at, self->life.handle);
    life_leave(&self->life);
    return list;
}

static PyObject *publisher_subscribers(struct publisher *self, void *unused)
{
    (void)unused;
    if (life_enter(&self->life) < 0) return NULL;
    PyObject *count = PyLong_FromSize_t(plait_publisher_subscribers(self->life.handle));
    life_leave(&self->life);
    return count;
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
    { "close", life_close, METH_NOARGS, "close() -> None\n\nEnds; a second time does nothing." },
    { "_loan", (PyCFunction)publisher_lend, METH_O, NULL },
    { "_try", FASTCALL(publisher_try), METH_VARARGS | METH_KEYWORDS, NULL },
    { "_ready", (PyCFunction)publisher_ready, METH_O, NULL },
    { "__enter__", self_of, METH_NOARGS, NULL },
    { "__exit__", life_exit, METH_VARARGS, NULL },
    { NULL, NULL, 0, NULL },
};

static PyGetSetDef getters[] = {
    { "topic", life_name, NULL, "str: its topic.", NULL },
    { "urls", (getter)publisher_urls, NULL, "list[str]: where it listens, with real ports.", NULL },
    { "subscribers", (getter)publisher_subscribers, NULL, "int: how many there are now.", NULL },
    { "closed", life_closed, NULL, "bool: close() was called.", NULL },
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
    { Py_tp_repr, life_repr },
    { 0, NULL },
};

PyType_Spec publisher_spec = {
    .name = "plait.Publisher",
    .basicsize = sizeof(struct publisher),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};
