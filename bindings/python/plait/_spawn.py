"""Workers that are interpreters of their own, for `start="spawn"`.

The supervisor pickles what a worker needs into a memfd, once, and starts interpreters that inherit it. Each imports the
program under the name __mp_main__, as multiprocessing's children do, so that what stands under
`if __name__ == "__main__":` doesn't run, and finds functions and classes there by their names.
"""

import os
import sys

importing = False  # in a worker, while it imports the program


def program():
    """(name, file) of the module that was started: one of them, or neither where it can't be imported: at a prompt, of
    python -c, and __main__.py of a package, which has no guard."""
    main = sys.modules["__main__"]
    name = getattr(getattr(main, "__spec__", None), "name", None)
    path = getattr(main, "__file__", None)
    if name is not None:
        return (None if name.rsplit(".", 1)[-1] == "__main__" else name), None
    return None, path and os.path.abspath(path)


def seed(server, handlers, makes, threads, options):
    """A memfd with what a worker of SERVER needs; TypeError says what can't be handed over."""
    import pickle  # here and below: most programs that import plait never need its milliseconds

    name, path = program()
    for what, thing in [(f"the handler of {method!r}", handler) for method, handler in handlers] + \
                       [("the class", make) for make in makes]:
        if name is None and path is None and getattr(thing, "__module__", None) == "__main__":
            raise TypeError(f"start='spawn': a worker imports the program, which it can't here (python -c, a prompt, "
                            f"__main__.py): put {what}, {thing!r}, into a module")
        try:
            pickle.dumps(thing)
        except Exception as error:
            raise TypeError(f"start='spawn': {what} can't be handed to another interpreter, which finds functions and "
                            f"classes by their names: define it at the top of a module ({error})") from None
    here = os.getcwd()
    place = {"path": [entry or here for entry in sys.path], "argv": sys.argv, "directory": here, "name": name,
             "file": path}
    memfd = os.memfd_create("plait-workers")
    data = pickle.dumps((server.name, threads, options, place, pickle.dumps((handlers, makes))))
    with os.fdopen(os.dup(memfd), "wb") as file:
        file.write(data)
    return memfd


def start(control, memfd):
    """Starts an interpreter that main() makes a worker; its pid."""
    import signal
    from subprocess import _args_from_interpreter_flags as flags

    if not sys.executable:
        raise FileNotFoundError(2, "this interpreter doesn't know its own path (sys.executable)")
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    code = f"import sys; sys.path.append({here!r}); from plait._spawn import main; main()"
    kept = [(os.POSIX_SPAWN_DUP2, fd, fd) for fd in (control, memfd)]  # no longer close-on-exec
    return os.posix_spawn(sys.executable, [sys.executable, *flags(), "-c", code, str(control), str(memfd)], os.environ,
                          file_actions=kept, setsigmask=[], setsigdef=[signal.SIGINT, signal.SIGTERM])


def main():
    """A worker's life."""
    import pickle
    import signal
    from . import _server
    from ._errors import Error

    control, memfd = int(sys.argv[1]), int(sys.argv[2])
    data = os.pread(memfd, os.fstat(memfd).st_size, 0)
    os.close(memfd)
    name, threads, options, place, things = pickle.loads(data)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the library's, from now on
    with _server.Server(name, threads, _control=control, **options) as server:
        try:
            server._work(lambda: load(server, place, things))
        except Error:
            sys.exit(1)  # the supervisor has been told


def load(server, place, things):
    """Imports the program, and registers what it serves."""
    import pickle

    global importing
    sys.path[:] = place["path"]
    sys.argv[:] = place["argv"]
    os.chdir(place["directory"])
    importing = True
    try:
        import_program(place["name"], place["file"])
    finally:
        importing = False
    handlers, makes = pickle.loads(things)
    for method, handler in handlers:
        server.handle(method, handler)
    for make in makes:
        server.state(make)


def import_program(name, path):
    import runpy
    import types

    if name is not None:
        content = runpy.run_module(name, run_name="__mp_main__", alter_sys=True)
    elif path is not None:
        content = runpy.run_path(path, run_name="__mp_main__")
    else:
        return
    module = types.ModuleType("__mp_main__")
    module.__dict__.update(content)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module


def refuse_import():
    if importing:
        raise RuntimeError("a spawned worker imports this program, and must not find a server there: make it, or call "
                           "plait.serve(), under if __name__ == '__main__':")
