/* Server: handlers in Python. plait.Server and plait.aio.Server stand on it.
 *
 * A server whose own threads serve holds a reference to itself: it goes with close(), or at the interpreter's end
 * (server_shutdown_all), never by a last reference that one of its handlers drops.
 */
#include "server.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

struct handler {
    struct handler *next;
    struct server *server;
    PyObject *callable;
    char method[PLAIT_NAME_MAX + 1];
};

static struct server *open_servers;
static _Thread_local struct server *serving; /* whose handler this thread is in */

/* ---- handlers ---- */

/* What isn't an Exception ends run(); in a thread of the library it is like any other. */
static void keep_exit(struct server *server)
{
    PyObject *type, *value, *traceback;
    if (server->started || PyErr_ExceptionMatches(PyExc_Exception)) return;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (server->error == NULL) server->error = Py_XNewRef(value);
    PyErr_Restore(type, value, traceback);
}

static void call_handler(struct handler *handler, plait_request *request, bool deferred)
{
    PyObject *object = request_new(request, deferred);
    PyObject *value = object ? PyObject_CallFunctionObjArgs(handler->callable, object, NULL) : NULL;
    if (value == NULL || (!deferred && request_answer(request, value) < 0)) {
        keep_exit(handler->server);
        /* A signal's exception may come when the answer is out, and a deferred request is gone by then. */
        if (object && deferred) request = request_detach(object);
        request_answer_exception(request, handler->method);
    }
    if (object && !deferred) (void)request_detach(object);
    Py_XDECREF(value);
    Py_XDECREF(object);
}

static void on_request(plait_request *request, void *context)
{
    struct handler *handler = context;
    struct server *before = serving;
    struct waiting *waiting = handler_enter();
    plait_request *kept = request;
    serving = handler->server;
    if (!handler->server->deferring) call_handler(handler, request, false);
    else if (plait_request_defer(request, &kept) == 0) call_handler(handler, kept, true);
    else (void)plait_request_fail(request, 1, "%s", plait_error_text());
    serving = before;
    handler_leave(waiting);
}

static void unlink_server(struct server *self)
{
    if (self->previous) self->previous->next = self->next;
    else if (open_servers == self) open_servers = self->next;
    if (self->next) self->next->previous = self->previous;
    self->next = self->previous = NULL;
}

/* ---- closing ---- */

enum { SHUTDOWN_MS = 2000 };

/* LIMIT_MS -1: whatever it takes. -1 with an exception: a signal ended the wait. */
static int really_close(struct server *self, int limit_ms)
{
    plait_server *handle = self->life.handle;
    int r = 0;
    self->life.handle = NULL;
    if (handle == NULL) return 0;
    unlink_server(self);
    if (self->started && limit_ms >= 0) {
        r = close_aside(handle, limit_ms);
    } else {
        struct waiting waiting;
        waiting_begin(&waiting);
        plait_server_close(handle);
        waiting_end(&waiting);
    }
    if (r != 0) return r < 0 ? -1 : 0; /* its handlers may still run: what they use stays, with this reference */
    if (self->started) {
        self->started = false;
        Py_DECREF((PyObject *)self);
    }
    return 0;
}

static void end(struct life *self)
{
    (void)really_close((struct server *)self, -1);
}

static const struct kind kind = { .what = "server", .again = "open", .end = end };

/* ---- before it serves ---- */

static PyObject *server_handle(struct server *self, PyObject *args)
{
    const char *method;
    PyObject *callable;
    if (!PyArg_ParseTuple(args, "sO:handle", &method, &callable)) return NULL;
    if (!PyCallable_Check(callable)) {
        PyErr_Format(PyExc_TypeError, "a handler is called with a request; %R cannot be called", callable);
        return NULL;
    }
    if (life_enter(&self->life) < 0) return NULL;
    struct handler *handler = PyMem_Calloc(1, sizeof(*handler));
    if (handler == NULL) {
        life_leave(&self->life);
        return PyErr_NoMemory();
    }
    int r = plait_server_handle(self->life.handle, method, on_request, handler);
    if (r < 0) {
        PyMem_Free(handler);
        return life_result(&self->life, r);
    }
    handler->server = self;
    handler->callable = Py_NewRef(callable);
    strncpy(handler->method, method, PLAIT_NAME_MAX);
    handler->next = self->handlers;
    self->handlers = handler;
    life_leave(&self->life);
    return Py_NewRef(Py_None);
}

static PyObject *server_listen(struct server *self, PyObject *url)
{
    const char *text = PyUnicode_Check(url) ? PyUnicode_AsUTF8AndSize(url, NULL) : NULL;
    struct waiting waiting;
    if (text == NULL) {
        if (!PyErr_Occurred()) PyErr_Format(PyExc_TypeError, "a URL is a str, not %R", (PyObject *)Py_TYPE(url));
        return NULL;
    }
    if (life_enter(&self->life) < 0) return NULL;
    waiting_begin(&waiting);
    int r = plait_server_listen(self->life.handle, text); /* may ask a resolver */
    waiting_end(&waiting);
    if (r < 0) return life_result(&self->life, r);
    life_leave(&self->life);
    return Py_NewRef(Py_None);
}

static const char *url_at(const void *of, size_t index)
{
    return plait_server_url((plait_server *)(uintptr_t)of, index);
}

static PyObject *server_urls(struct server *self, void *unused)
{
    (void)unused;
    if (life_enter(&self->life) < 0) return NULL;
    PyObject *list = texts_of(url_at, self->life.handle);
    life_leave(&self->life);
    return list;
}

/* ---- serving ---- */

static PyObject *server_start(struct server *self, PyObject *unused)
{
    (void)unused;
    if (life_enter(&self->life) < 0) return NULL;
    bool before = self->started;
    self->started = true; /* a request may come before start returns */
    int r = plait_server_start(self->life.handle);
    if (r < 0) {
        self->started = before;
        return life_result(&self->life, r);
    }
    Py_INCREF((PyObject *)self);
    life_leave(&self->life);
    return Py_NewRef(Py_None);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

PyObject *server_served(struct server *self, int r)
{
    PyObject *result = NULL;
    if (self->error != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(self->error), self->error);
        Py_CLEAR(self->error);
    } else {
        result = r == -ESHUTDOWN ? Py_NewRef(Py_None) : r < 0 ? raise_code(r) : PyLong_FromLong(r);
    }
    life_leave(&self->life);
    return result;
}

/* _serve(seconds): serves without the GIL until nothing came for so long, or for so long: how many requests the
 * last round had; None: it has stopped. */
static PyObject *server_serve(struct server *self, PyObject *seconds)
{
    struct waiting waiting;
    int64_t ms;
    int r;
    if (milliseconds(seconds, &ms, "seconds") < 0 || life_enter(&self->life) < 0) return NULL;
    struct server *before = serving;
    serving = NULL;
    waiting_begin(&waiting);
    double until = now() + (double)ms / 1e3;
    do r = plait_server_dispatch(self->life.handle, ms);
    while (r > 0 && self->error == NULL && now() < until);
    waiting_end(&waiting);
    serving = before;
    return server_served(self, r);
}

/* For asyncio: doesn't wait; handlers only take their requests over, so the GIL stays. */
static PyObject *server_dispatch(struct server *self, PyObject *unused)
{
    struct waiting waiting;
    (void)unused;
    if (life_enter(&self->life) < 0) return NULL;
    waiting_keep(&waiting, false);
    int r = plait_server_dispatch(self->life.handle, PLAIT_NOW);
    waiting_kept(&waiting);
    return server_served(self, r);
}

/* A client that connects in an event loop, to a server of the same loop: nobody else would answer its hello. Enough
 * rounds to accept, to read and to answer. */
bool server_dispatch_own(void)
{
    static unsigned round;
    bool found = false;
    struct server *server = open_servers;
    round++;
    while (server != NULL) {
        struct waiting waiting;
        if (!server->looped || server->life.closing || server->round == round ||
            !pthread_equal(server->loop_thread, pthread_self())) {
            server = server->next;
            continue;
        }
        found = true;
        server->round = round;
        Py_INCREF((PyObject *)server);
        server->life.users++;
        waiting_keep(&waiting, false);
        for (int i = 0; i < 4; i++) (void)plait_server_dispatch(server->life.handle, PLAIT_NOW);
        waiting_kept(&waiting);
        life_leave(&server->life);
        Py_DECREF((PyObject *)server);
        server = open_servers; /* the list may have changed */
    }
    return found;
}

static PyObject *server_fd(struct server *self, PyObject *unused)
{
    (void)unused;
    if (life_enter(&self->life) < 0) return NULL;
    self->loop_thread = pthread_self();
    self->looped = self->deferring;
    return life_result(&self->life, plait_server_fd(self->life.handle));
}

static PyObject *server_stop(struct server *self, PyObject *args, PyObject *named)
{
    static const char *const keywords[] = { "grace", NULL };
    PyObject *grace = NULL;
    int64_t ms = 0;
    if (!PyArg_ParseTupleAndKeywords(args, named, "|O:stop", (char **)(uintptr_t)keywords, &grace)) return NULL;
    if (grace && milliseconds(grace, &ms, "grace") < 0) return NULL;
    if (life_is_over(&self->life)) return Py_NewRef(Py_None);
    self->life.users++;
    int r = plait_server_stop(self->life.handle, ms);
    if (r < 0) return life_result(&self->life, r);
    life_leave(&self->life);
    return Py_NewRef(Py_None);
}

static int close_within(struct server *self, int limit_ms)
{
    if (life_is_over(&self->life)) return 0;
    if (serving == self) {
        (void)raise_text(EDEADLK, "a handler cannot close its own server, which would wait for the handler: stop() it");
        return -1;
    }
    self->life.closing = true;
    if (self->life.users == 0) return really_close(self, limit_ms);
    (void)plait_server_stop(self->life.handle, 0); /* whoever serves it in another thread closes it */
    return 0;
}

static PyObject *server_close(struct server *self, PyObject *unused)
{
    (void)unused;
    Py_INCREF((PyObject *)self); /* its own reference may be the last */
    int r = close_within(self, 0);
    Py_DECREF((PyObject *)self);
    return r < 0 ? NULL : Py_NewRef(Py_None);
}

int server_shutdown_all(void)
{
    int r = 0;
    while (open_servers != NULL && r == 0) {
        struct server *server = open_servers;
        Py_INCREF((PyObject *)server);
        unlink_server(server);
        if (serving != server) r = close_within(server, SHUTDOWN_MS);
        Py_DECREF((PyObject *)server);
    }
    return r;
}

/* ---- life ---- */

static PyObject *server_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    static const char *const keywords[] = { "name",        "threads", "processes",   "restart_burst",
                                            "exclusive",   "allow",   "max_message", "inbound_bytes",
                                            "outstanding", "spin_us", "_deferring",  "_control",
                                            NULL };
    const char *name, *allow = NULL;
    int threads = 1, processes = 0, restart_burst = 0, exclusive = 0, deferring = 0, control = -1;
    unsigned long long max_message = 0, inbound_bytes = 0;
    unsigned outstanding = 0;
    long long spin_us = 0;
    plait_server_options options = PLAIT_SERVER_OPTIONS_INIT;
    if (!PyArg_ParseTupleAndKeywords(args, named, "s|ii$ipzKKILpi:Server", (char **)(uintptr_t)keywords, &name,
                                     &threads, &processes, &restart_burst, &exclusive, &allow, &max_message,
                                     &inbound_bytes, &outstanding, &spin_us, &deferring, &control))
        return NULL;
    options.threads = threads;
    options.processes = processes;
    options.restart_burst = restart_burst;
    options.exclusive = exclusive;
    options.allow = allow;
    options.max_message = max_message;
    options.inbound_bytes = inbound_bytes;
    options.outstanding = outstanding;
    options.spin_us = spin_us;
    PyObject *text = text_of(name);
    struct server *self = text ? (struct server *)life_new(type, &kind, text) : NULL;
    Py_XDECREF(text);
    if (self == NULL) return NULL;
    self->deferring = deferring;
    binding_hook_log();
    plait_server **handle = (plait_server **)&self->life.handle;
    int r =
        control >= 0 ? plait_server_open_worker(handle, control, &options) : plait_server_open(handle, name, &options);
    if (r < 0) {
        (void)raise_code(r);
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    self->next = open_servers;
    if (open_servers) open_servers->previous = self;
    open_servers = self;
    return (PyObject *)self;
}

static int server_traverse(struct server *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT(self->error);
    /* Its threads are a user that the collector cannot see; they hold a reference instead. */
    for (struct handler *handler = self->handlers; handler; handler = handler->next) Py_VISIT(handler->callable);
    return 0;
}

static int server_clear(struct server *self)
{
    Py_CLEAR(self->error);
    if (self->life.handle) return 0; /* a handler may still be called */
    for (struct handler *handler = self->handlers; handler; handler = handler->next) Py_CLEAR(handler->callable);
    return 0;
}

static void server_dealloc(struct server *self)
{
    PyObject_GC_UnTrack((PyObject *)self);
    life_end(&self->life); /* in a cycle the subclass's __del__ has closed it already */
    (void)server_clear(self);
    while (self->handlers) {
        struct handler *handler = self->handlers;
        self->handlers = handler->next;
        PyMem_Free(handler);
    }
    life_free(&self->life);
}

static PyObject *server_in_handler(struct server *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(serving == self);
}

static PyObject *server_worker(struct server *self, void *unused)
{
    (void)unused;
    return PyLong_FromLong(self->life.handle ? plait_server_worker(self->life.handle) : 0);
}

static PyMethodDef methods[] = {
    { "handle", (PyCFunction)server_handle, METH_VARARGS,
      "handle(method, handler) -> None\n\nCalls HANDLER with a Request for each call of METHOD. '' is what callers "
      "get\n"
      "that name no method, '*' what they get whose method nothing else answers; where '' is absent and there is one\n"
      "method, it is that one. Before run or start. Raises Error (code EINVAL name, EEXIST, EBUSY), TypeError." },
    { "listen", (PyCFunction)server_listen, METH_O,
      "listen(url) -> None\n\nAlso listens on URL: tcp://HOST:PORT or unix:///PATH, with "
      "?framing=plait|raw|lines|length,\n"
      "method=NAME, max_message=BYTES, insecure=1. Port 0 asks the kernel: see urls. Raises Error (code EADDRINUSE,\n"
      "EACCES, EINVAL)." },
    { "start", (PyCFunction)server_start, METH_NOARGS,
      "start() -> None\n\nServes on threads of its own until stop() or close(). Raises Error (EBUSY: it runs)." },
    { "stop", (PyCFunction)(void (*)(void))server_stop, METH_VARARGS | METH_KEYWORDS,
      "stop(grace=5.0) -> None\n\nAsks it to stop, and returns at once: the name is withdrawn, and what was taken is\n"
      "answered for at most GRACE seconds. May be called from handlers and signal handlers." },
    { "close", (PyCFunction)server_close, METH_NOARGS,
      "close() -> None\n\nStops, waits for that, frees. A second time does nothing. Not from its own handlers.\n"
      "KeyboardInterrupt ends the wait within 100 ms, and the closing goes on by itself." },
    { "_serve", (PyCFunction)server_serve, METH_O, NULL },
    { "_supervise", (PyCFunction)server_supervise, METH_VARARGS, NULL },
    { "_run_worker", (PyCFunction)server_run_worker, METH_NOARGS, NULL },
    { "_dispatch", (PyCFunction)server_dispatch, METH_NOARGS, NULL },
    { "_fd", (PyCFunction)server_fd, METH_NOARGS, NULL },
    { NULL, NULL, 0, NULL },
};

static PyGetSetDef getters[] = {
    { "name", life_name, NULL, "str: what it serves.", NULL },
    { "urls", (getter)server_urls, NULL, "list[str]: its listeners, with their real ports.", NULL },
    { "closed", life_closed, NULL, "bool: close() was called.", NULL },
    { "worker", (getter)server_worker, NULL, "int: the number of the worker that this process is, from 1; 0: none.",
      NULL },
    { "_in_handler", (getter)server_in_handler, NULL, NULL, NULL },
    { NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot slots[] = {
    { Py_tp_new, server_new },           { Py_tp_dealloc, server_dealloc },
    { Py_tp_traverse, server_traverse }, { Py_tp_clear, server_clear },
    { Py_tp_methods, methods },          { Py_tp_getset, getters },
    { Py_tp_repr, life_repr },           { 0, NULL },
};

PyType_Spec server_spec = {
    .name = "plait._plait.Server",
    .basicsize = sizeof(struct server),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};
