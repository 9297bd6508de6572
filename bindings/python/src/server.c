/* Server: handlers in Python. plait.Server and plait.aio.Server stand on it.
 *
 * A server whose own threads serve holds a reference to itself: it goes with close(), or at the interpreter's end
 * (server_shutdown_all), never by a last reference that one of its handlers drops.
 */
#include "binding.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct handler {
    struct handler *next;
    struct server *server;
    PyObject *callable;
    char method[PLAIT_NAME_MAX + 1];
};

struct server {
    PyObject_HEAD plait_server *handle; /* NULL: closed */
    PyObject *name;
    struct handler *handlers;
    struct server *next, *previous; /* of all that are open; under the GIL */
    unsigned users;                 /* threads inside */
    unsigned round;                 /* of server_dispatch_own */
    pthread_t loop_thread;          /* of the event loop that serves it, where `looped` */
    bool closing, started, deferring, looped;
    int bell, usual[2]; /* of _supervise */
    PyObject *error;    /* what a handler raised that must end run(): KeyboardInterrupt, SystemExit */
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

/* ---- in and out ---- */

static int enter(struct server *self)
{
    if (self->handle == NULL || self->closing) {
        (void)raise_text(EBADF, "this server is closed: open another");
        return -1;
    }
    self->users++;
    return 0;
}

static void unlink_server(struct server *self)
{
    if (self->previous) self->previous->next = self->next;
    else if (open_servers == self) open_servers = self->next;
    if (self->next) self->next->previous = self->previous;
    self->next = self->previous = NULL;
}

/* ---- closing: it waits for handlers, which need the GIL and may take any time ---- */

enum { LOOK_MS = 50, SHUTDOWN_MS = 2000 };

struct closing {
    plait_server *handle;
    pthread_mutex_t lock;
    pthread_cond_t over;
    bool done, left; /* `left`: nobody waits any more, whoever comes last frees */
};

static void free_closing(struct closing *closing)
{
    pthread_mutex_destroy(&closing->lock);
    pthread_cond_destroy(&closing->over);
    free(closing);
}

static void *close_handle(void *argument)
{
    struct closing *closing = argument;
    plait_server_close(closing->handle);
    pthread_mutex_lock(&closing->lock);
    closing->done = true;
    bool left = closing->left;
    pthread_cond_signal(&closing->over);
    pthread_mutex_unlock(&closing->lock);
    if (left) free_closing(closing);
    return NULL;
}

static bool wait_for_look(struct closing *closing)
{
    struct timespec until;
    PyThreadState *state = PyEval_SaveThread();
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += LOOK_MS * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&closing->lock);
    if (!closing->done) (void)pthread_cond_timedwait(&closing->over, &closing->lock, &until);
    bool done = closing->done;
    pthread_mutex_unlock(&closing->lock);
    PyEval_RestoreThread(state);
    return done;
}

/* In a thread of its own, so that a signal or LIMIT_MS (0: none) ends the wait; the closing goes on then. 0; -1: a
 * signal's exception is set; 1: the limit. */
static int close_aside(plait_server *handle, int limit_ms)
{
    pthread_t thread;
    int r = 0;
    struct closing *closing = calloc(1, sizeof(*closing));
    if (closing == NULL) {
        (void)PyErr_NoMemory();
        return -1;
    }
    closing->handle = handle;
    pthread_mutex_init(&closing->lock, NULL);
    pthread_cond_init(&closing->over, NULL);
    if (pthread_create(&thread, NULL, close_handle, closing) != 0) {
        struct waiting waiting;
        waiting_begin(&waiting);
        (void)close_handle(closing);
        waiting_end(&waiting);
        free_closing(closing);
        return 0;
    }
    for (int waited = 0; r == 0 && !wait_for_look(closing); waited += LOOK_MS) {
        if (PyErr_CheckSignals() < 0) r = -1;
        else if (limit_ms > 0 && waited >= limit_ms) r = 1;
    }
    if (r == 0) {
        (void)pthread_join(thread, NULL);
    } else {
        pthread_detach(thread);
        pthread_mutex_lock(&closing->lock);
        bool done = closing->done;
        closing->left = true;
        pthread_mutex_unlock(&closing->lock);
        if (!done) return r;
    }
    free_closing(closing);
    return r;
}

/* LIMIT_MS -1: whatever it takes. -1 with an exception: a signal ended the wait. */
static int really_close(struct server *self, int limit_ms)
{
    plait_server *handle = self->handle;
    int r = 0;
    self->handle = NULL;
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

static void leave(struct server *self)
{
    if (--self->users == 0 && self->closing) (void)really_close(self, -1);
}

static PyObject *result_of(struct server *self, int r)
{
    PyObject *result = r < 0 ? raise_code(r) : PyLong_FromLong(r);
    leave(self);
    return result;
}

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
    if (enter(self) < 0) return NULL;
    struct handler *handler = PyMem_Calloc(1, sizeof(*handler));
    if (handler == NULL) {
        leave(self);
        return PyErr_NoMemory();
    }
    int r = plait_server_handle(self->handle, method, on_request, handler);
    if (r < 0) {
        PyMem_Free(handler);
        return result_of(self, r);
    }
    handler->server = self;
    handler->callable = Py_NewRef(callable);
    strncpy(handler->method, method, PLAIT_NAME_MAX);
    handler->next = self->handlers;
    self->handlers = handler;
    leave(self);
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
    if (enter(self) < 0) return NULL;
    waiting_begin(&waiting);
    int r = plait_server_listen(self->handle, text); /* may ask a resolver */
    waiting_end(&waiting);
    if (r < 0) return result_of(self, r);
    leave(self);
    return Py_NewRef(Py_None);
}

static PyObject *server_urls(struct server *self, void *unused)
{
    (void)unused;
    if (enter(self) < 0) return NULL;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL; i++) {
        const char *url = plait_server_url(self->handle, i);
        if (url == NULL) break;
        PyObject *text = text_of(url);
        if (text == NULL || PyList_Append(list, text) < 0) Py_CLEAR(list);
        Py_XDECREF(text);
    }
    leave(self);
    return list;
}

/* ---- serving ---- */

static PyObject *server_start(struct server *self, PyObject *unused)
{
    (void)unused;
    if (enter(self) < 0) return NULL;
    bool before = self->started;
    self->started = true; /* a request may come before start returns */
    int r = plait_server_start(self->handle);
    if (r < 0) {
        self->started = before;
        return result_of(self, r);
    }
    Py_INCREF((PyObject *)self);
    leave(self);
    return Py_NewRef(Py_None);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* What a dispatch came to; None: it has stopped. */
static PyObject *served(struct server *self, int r)
{
    PyObject *result = NULL;
    if (self->error != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(self->error), self->error);
        Py_CLEAR(self->error);
    } else {
        result = r == -ESHUTDOWN ? Py_NewRef(Py_None) : r < 0 ? raise_code(r) : PyLong_FromLong(r);
    }
    leave(self);
    return result;
}

/* _serve(seconds): serves without the GIL until nothing came for so long, or for so long: how many requests the
 * last round had; None: it has stopped. */
static PyObject *server_serve(struct server *self, PyObject *seconds)
{
    struct waiting waiting;
    int64_t ms;
    int r;
    if (milliseconds(seconds, &ms, "seconds") < 0 || enter(self) < 0) return NULL;
    struct server *before = serving;
    serving = NULL;
    waiting_begin(&waiting);
    double end = now() + (double)ms / 1e3;
    do r = plait_server_dispatch(self->handle, ms);
    while (r > 0 && self->error == NULL && now() < end);
    waiting_end(&waiting);
    serving = before;
    return served(self, r);
}

/* For asyncio: doesn't wait; handlers only take their requests over, so the GIL stays. */
static PyObject *server_dispatch(struct server *self, PyObject *unused)
{
    struct waiting waiting;
    (void)unused;
    if (enter(self) < 0) return NULL;
    waiting_keep(&waiting, false);
    int r = plait_server_dispatch(self->handle, PLAIT_NOW);
    waiting_kept(&waiting);
    return served(self, r);
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
        if (!server->looped || server->closing || server->round == round ||
            !pthread_equal(server->loop_thread, pthread_self())) {
            server = server->next;
            continue;
        }
        found = true;
        server->round = round;
        Py_INCREF((PyObject *)server);
        server->users++;
        waiting_keep(&waiting, false);
        for (int i = 0; i < 4; i++) (void)plait_server_dispatch(server->handle, PLAIT_NOW);
        waiting_kept(&waiting);
        leave(server);
        Py_DECREF((PyObject *)server);
        server = open_servers; /* the list may have changed */
    }
    return found;
}

static PyObject *server_fd(struct server *self, PyObject *unused)
{
    (void)unused;
    if (enter(self) < 0) return NULL;
    self->loop_thread = pthread_self();
    self->looped = self->deferring;
    return result_of(self, plait_server_fd(self->handle));
}

static PyObject *server_stop(struct server *self, PyObject *args, PyObject *named)
{
    static const char *const keywords[] = { "grace", NULL };
    PyObject *grace = NULL;
    int64_t ms = 0;
    if (!PyArg_ParseTupleAndKeywords(args, named, "|O:stop", (char **)(uintptr_t)keywords, &grace)) return NULL;
    if (grace && milliseconds(grace, &ms, "grace") < 0) return NULL;
    if (self->handle == NULL || self->closing) return Py_NewRef(Py_None);
    self->users++;
    int r = plait_server_stop(self->handle, ms);
    if (r < 0) return result_of(self, r);
    leave(self);
    return Py_NewRef(Py_None);
}

static int close_within(struct server *self, int limit_ms)
{
    if (self->handle == NULL || self->closing) return 0;
    if (serving == self) {
        (void)raise_text(EDEADLK, "a handler cannot close its own server, which would wait for the handler: stop() it");
        return -1;
    }
    self->closing = true;
    if (self->users == 0) return really_close(self, limit_ms);
    (void)plait_server_stop(self->handle, 0); /* whoever serves it in another thread closes it */
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

/* ---- workers ---- */

static void ignore_exception(struct server *self)
{
    if (PyErr_Occurred()) PyErr_WriteUnraisable((PyObject *)self);
}

static int fork_worker(void *context)
{
    struct server *self = context;
    struct waiting *waiting = handler_enter();
    PyObject *none = PyObject_CallMethod((PyObject *)self, "_flush", NULL); /* or each worker would write it again */
    Py_XDECREF(none);
    ignore_exception(self);
    PyOS_BeforeFork();
    pid_t pid = fork();
    int error = errno;
    if (pid == 0) {
        for (unsigned i = 0; i < 2; i++)
            if (self->usual[i]) (void)signal(self->usual[i], SIG_DFL); /* from now on the library's */
        PyOS_AfterFork_Child();
        self->started = true; /* handlers that want to exit don't end more than themselves */
    } else {
        PyOS_AfterFork_Parent();
    }
    handler_leave(waiting);
    errno = error;
    return (int)pid;
}

static int spawn_worker(plait_server *handle, int control, void *context)
{
    struct server *self = context;
    struct waiting *waiting = handler_enter();
    int pid = -1, error = EAGAIN;
    (void)handle;
    PyObject *number = PyObject_CallMethod((PyObject *)self, "_spawn", "i", control);
    if (number) pid = (int)PyLong_AsLong(number);
    if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_OSError)) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        PyErr_NormalizeException(&type, &value, &traceback);
        PyObject *code = PyObject_GetAttrString(value, "errno");
        if (code && PyLong_Check(code)) error = (int)PyLong_AsLong(code);
        Py_XDECREF(code);
        PyErr_Restore(type, value, traceback);
    }
    ignore_exception(self);
    Py_XDECREF(number);
    handler_leave(waiting);
    errno = error;
    return pid;
}

static int start_worker(plait_server *handle, int worker, void *context)
{
    struct server *self = context;
    struct waiting *waiting = handler_enter();
    int r = 0;
    (void)handle;
    PyObject *failure = PyObject_CallMethod((PyObject *)self, "_begin", "i", worker);
    const char *text = failure && failure != Py_None ? PyUnicode_AsUTF8AndSize(failure, NULL) : NULL;
    if (text) r = plait_worker_fail(-ECANCELED, text);
    else if (failure != Py_None) r = -ECANCELED;
    ignore_exception(self);
    Py_XDECREF(failure);
    handler_leave(waiting);
    return r;
}

static void end_worker(plait_server *handle, int worker, void *context)
{
    struct server *self = context;
    struct waiting *waiting = handler_enter();
    (void)handle;
    (void)worker;
    (void)Py_MakePendingCalls(); /* lines for the log */
    ignore_exception(self);
    PyObject *none = PyObject_CallMethod((PyObject *)self, "_end", NULL);
    Py_XDECREF(none);
    ignore_exception(self);
    handler_leave(waiting);
}

/* In the supervisor: signals that Python has handlers for, and lines for the log. What they raise ends run(). */
static void attend(plait_server *handle, void *context)
{
    struct server *self = context;
    struct waiting *waiting = handler_enter();
    char bytes[64];
    while (read(self->bell, bytes, sizeof(bytes)) > 0) continue;
    if (PyErr_CheckSignals() < 0 || Py_MakePendingCalls() < 0) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        PyErr_NormalizeException(&type, &value, &traceback);
        if (self->error == NULL) self->error = Py_XNewRef(value);
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
        (void)plait_server_stop(handle, 0);
    }
    handler_leave(waiting);
}

static PyObject *run_with(struct server *self, const plait_worker_hooks *hooks)
{
    struct waiting waiting;
    binding_hook_log();
    int r = plait_server_workers(self->handle, hooks);
    if (r == 0) {
        waiting_begin(&waiting);
        r = plait_server_run(self->handle);
        waiting_end(&waiting);
    }
    if (r < 0) return result_of(self, r);
    return served(self, -ESHUTDOWN);
}

/* _supervise(bell, sigint, sigterm, spawns): plait_server_run with workers. BELL (not blocking) is readable when a
 * signal came; the signals, 0 for none, are those that workers leave to the library. */
static PyObject *server_supervise(struct server *self, PyObject *args)
{
    int spawns;
    plait_worker_hooks hooks = PLAIT_WORKER_HOOKS_INIT;
    if (!PyArg_ParseTuple(args, "iiip:_supervise", &self->bell, &self->usual[0], &self->usual[1], &spawns)) return NULL;
    if (enter(self) < 0) return NULL;
    hooks.fork = fork_worker;
    hooks.spawn = spawns ? spawn_worker : NULL;
    hooks.start = start_worker;
    hooks.end = end_worker;
    hooks.attend = attend;
    hooks.attend_fd = self->bell;
    hooks.context = self;
    return run_with(self, &hooks);
}

/* _run_worker(): the same in a worker that is an interpreter of its own. */
static PyObject *server_run_worker(struct server *self, PyObject *unused)
{
    plait_worker_hooks hooks = PLAIT_WORKER_HOOKS_INIT;
    (void)unused;
    if (enter(self) < 0) return NULL;
    hooks.start = start_worker;
    hooks.end = end_worker;
    hooks.context = self;
    if (!self->started) Py_INCREF((PyObject *)self);
    self->started = true; /* handlers that want to exit don't end more than themselves */
    return run_with(self, &hooks);
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
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct server *self = (struct server *)allocate(type, 0);
    if (self == NULL) return NULL;
    self->deferring = deferring;
    self->name = text_of(name);
    binding_hook_log();
    int r = self->name == NULL ? -ENOMEM
            : control >= 0     ? plait_server_open_worker(&self->handle, control, &options)
                               : plait_server_open(&self->handle, name, &options);
    if (r < 0) {
        if (!PyErr_Occurred()) (void)raise_code(r);
        Py_DECREF(self);
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
    if (self->handle) return 0; /* a handler may still be called */
    for (struct handler *handler = self->handlers; handler; handler = handler->next) Py_CLEAR(handler->callable);
    return 0;
}

static void server_dealloc(struct server *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    PyObject *error_type, *value, *traceback;
    PyObject_GC_UnTrack(self);
    PyErr_Fetch(&error_type, &value, &traceback);
    self->closing = true; /* in a cycle the subclass's __del__ has closed it already */
    (void)really_close(self, -1);
    PyErr_Restore(error_type, value, traceback);
    (void)server_clear(self);
    while (self->handlers) {
        struct handler *handler = self->handlers;
        self->handlers = handler->next;
        PyMem_Free(handler);
    }
    Py_XDECREF(self->name);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyObject *server_name(struct server *self, void *unused)
{
    (void)unused;
    return Py_NewRef(self->name);
}

static PyObject *server_closed(struct server *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(self->handle == NULL || self->closing);
}

static PyObject *server_in_handler(struct server *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(serving == self);
}

static PyObject *server_worker(struct server *self, void *unused)
{
    (void)unused;
    return PyLong_FromLong(self->handle ? plait_server_worker(self->handle) : 0);
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
    { "name", (getter)server_name, NULL, "str: what it serves.", NULL },
    { "urls", (getter)server_urls, NULL, "list[str]: its listeners, with their real ports.", NULL },
    { "closed", (getter)server_closed, NULL, "bool: close() was called.", NULL },
    { "worker", (getter)server_worker, NULL, "int: the number of the worker that this process is, from 1; 0: none.",
      NULL },
    { "_in_handler", (getter)server_in_handler, NULL, NULL, NULL },
    { NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot slots[] = {
    { Py_tp_new, server_new },
    { Py_tp_dealloc, server_dealloc },
    { Py_tp_traverse, server_traverse },
    { Py_tp_clear, server_clear },
    { Py_tp_methods, methods },
    { Py_tp_getset, getters },
    { 0, NULL },
};

PyType_Spec server_spec = {
    .name = "plait._plait.Server",
    .basicsize = sizeof(struct server),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};
