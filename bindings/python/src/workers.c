/* workers: what the library calls back for in a supervisor and in its workers. */
#include "server.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

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
    int r = plait_server_workers(self->life.handle, hooks);
    if (r == 0) {
        waiting_begin(&waiting);
        r = plait_server_run(self->life.handle);
        waiting_end(&waiting);
    }
    if (r < 0) return life_result(&self->life, r);
    return server_served(self, -ESHUTDOWN);
}

PyObject *server_supervise(struct server *self, PyObject *args)
{
    int spawns;
    plait_worker_hooks hooks = PLAIT_WORKER_HOOKS_INIT;
    if (!PyArg_ParseTuple(args, "iiip:_supervise", &self->bell, &self->usual[0], &self->usual[1], &spawns)) return NULL;
    if (life_enter(&self->life) < 0) return NULL;
    hooks.fork = fork_worker;
    hooks.spawn = spawns ? spawn_worker : NULL;
    hooks.start = start_worker;
    hooks.end = end_worker;
    hooks.attend = attend;
    hooks.attend_fd = self->bell;
    hooks.context = self;
    return run_with(self, &hooks);
}

PyObject *server_run_worker(struct server *self, PyObject *unused)
{
    plait_worker_hooks hooks = PLAIT_WORKER_HOOKS_INIT;
    (void)unused;
    if (life_enter(&self->life) < 0) return NULL;
    hooks.start = start_worker;
    hooks.end = end_worker;
    hooks.context = self;
    if (!self->started) Py_INCREF((PyObject *)self);
    self->started = true; /* handlers that want to exit don't end more than themselves */
    return run_with(self, &hooks);
}
