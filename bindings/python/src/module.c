/* module: _plait, its names, its log.
 *
 * A line of the library's log may come while the library holds a lock, and a thread with the GIL may wait for that
 * lock: so the callback only queues the line, and Python's main thread hands it to logging when it gets to it.
 */
#include "binding.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct names names;

/* ---- the log ---- */

enum { LINES_MAX = 256 };

struct line {
    struct line *next;
    plait_log_level level;
    char text[];
};

static struct {
    pthread_mutex_t lock;
    struct line *first, **last;
    unsigned count, lost;
    bool hooked, pending;
} log_queue = { .lock = PTHREAD_MUTEX_INITIALIZER, .last = &log_queue.first };

static struct line *take_lines(unsigned *ret_lost)
{
    pthread_mutex_lock(&log_queue.lock);
    struct line *lines = log_queue.first;
    log_queue.first = NULL;
    log_queue.last = &log_queue.first;
    *ret_lost = log_queue.lost;
    log_queue.count = log_queue.lost = 0;
    log_queue.pending = false;
    pthread_mutex_unlock(&log_queue.lock);
    return lines;
}

static void tell(PyObject *logger, plait_log_level level, const char *text)
{
    static const int levels[] = { 40, 20, 10 }; /* logging.ERROR, INFO, DEBUG */
    PyObject *line = text_of(text);
    PyObject *none = line ? PyObject_CallMethod(logger, "log", "isO", levels[level], "%s", line) : NULL;
    if (none == NULL) PyErr_WriteUnraisable(logger);
    Py_XDECREF(none);
    Py_XDECREF(line);
}

static int hand_over(void *unused)
{
    unsigned lost;
    char text[64];
    struct line *line = take_lines(&lost);
    (void)unused;
    PyObject *module = PyImport_ImportModule("logging");
    PyObject *logger = module ? PyObject_CallMethod(module, "getLogger", "s", "plait") : NULL;
    while (line) {
        struct line *next = line->next;
        if (logger) tell(logger, line->level, line->text);
        free(line);
        line = next;
    }
    snprintf(text, sizeof(text), "%u lines were lost: they came too quickly", lost);
    if (logger && lost) tell(logger, PLAIT_LOG_INFO, text);
    Py_XDECREF(logger);
    Py_XDECREF(module);
    if (PyErr_Occurred()) PyErr_Clear();
    return 0;
}

static void on_line(plait_log_level level, const char *text, void *context)
{
    size_t size = strlen(text) + 1;
    bool first = false;
    (void)context;
    struct line *line = malloc(sizeof(*line) + size);
    if (line == NULL) return;
    line->next = NULL;
    line->level = level;
    memcpy(line->text, text, size);
    pthread_mutex_lock(&log_queue.lock);
    if (log_queue.count < LINES_MAX) {
        *log_queue.last = line;
        log_queue.last = &line->next;
        log_queue.count++;
        line = NULL;
        first = !log_queue.pending;
        log_queue.pending = true;
    } else {
        log_queue.lost++;
    }
    pthread_mutex_unlock(&log_queue.lock);
    free(line);
    if (first && Py_AddPendingCall(hand_over, NULL) < 0) {
        pthread_mutex_lock(&log_queue.lock);
        log_queue.pending = false; /* the next line tries again */
        pthread_mutex_unlock(&log_queue.lock);
    }
}

void binding_hook_log(void)
{
    if (log_queue.hooked) return;
    PyObject *modules = PyImport_GetModuleDict(); /* borrowed */
    if (modules == NULL || PyDict_GetItemString(modules, "logging") == NULL) return;
    log_queue.hooked = true;
    plait_set_log(on_line, NULL);
}

/* ---- the module ---- */

static PyObject *module_shutdown(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (server_shutdown_all() < 0) return NULL;
    if (log_queue.hooked) {
        plait_set_log(NULL, NULL);
        (void)hand_over(NULL);
    }
    return Py_NewRef(Py_None);
}

static PyMethodDef functions[] = {
    { "_shutdown", module_shutdown, METH_NOARGS, "Closes all servers; for atexit." },
    { NULL, NULL, 0, NULL },
};

static int take_errors(void)
{
    PyObject *module = PyImport_ImportModule("plait._errors");
    if (module == NULL) return -1;
    names.error = PyObject_GetAttrString(module, "Error");
    names.timeout_error = PyObject_GetAttrString(module, "TimeoutError");
    names.peer_died = PyObject_GetAttrString(module, "PeerDied");
    names.no_such_name = PyObject_GetAttrString(module, "NoSuchName");
    names.remote_error = PyObject_GetAttrString(module, "RemoteError");
    Py_DECREF(module);
    return PyErr_Occurred() ? -1 : 0;
}

static int make_names(void)
{
    if (names.error != NULL) return 0; /* imported again */
    names.set_result = PyUnicode_InternFromString("set_result");
    names.set_exception = PyUnicode_InternFromString("set_exception");
    names.done = PyUnicode_InternFromString("done");
    names.separators = Py_BuildValue("(ss)", ",", ":");
    names.reply_type = PyType_FromSpec(&reply_spec);
    names.client_type = PyType_FromSpec(&client_spec);
    names.request_type = PyType_FromSpec(&request_spec);
    names.server_type = PyType_FromSpec(&server_spec);
    if (PyErr_Occurred() || peer_type_init() < 0) return -1;
    return take_errors();
}

static int module_exec(PyObject *module)
{
    /* Handlers and log lines come from threads that know one interpreter alone. */
    if (PyInterpreterState_GetID(PyInterpreterState_Get()) != 0) {
        PyErr_SetString(PyExc_ImportError, "plait doesn't run in subinterpreters: import it in the main interpreter");
        return -1;
    }
    if (make_names() < 0) return -1;
    if (PyModule_AddObjectRef(module, "Reply", names.reply_type) < 0) return -1;
    if (PyModule_AddObjectRef(module, "Client", names.client_type) < 0) return -1;
    if (PyModule_AddObjectRef(module, "Request", names.request_type) < 0) return -1;
    if (PyModule_AddObjectRef(module, "Server", names.server_type) < 0) return -1;
    if (PyModule_AddObjectRef(module, "Peer", names.peer_type) < 0) return -1;
    return PyModule_AddStringConstant(module, "version", plait_version());
}

static PyModuleDef_Slot module_slots[] = {
    { Py_mod_exec, module_exec },
    { 0, NULL },
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,  .m_name = "_plait",      .m_doc = "The library behind the package plait.",
    .m_methods = functions, .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__plait(void);
PyMODINIT_FUNC PyInit__plait(void)
{
    return PyModuleDef_Init(&definition);
}
