import _signal
import _thread
import os
import sys

from . import _plait, _spawn

IDLE = 0.05  # seconds of serving between two looks at signals


class Server(_plait.Server):
    """Server(name, threads=1, processes=0, *, start="fork", restart_burst=0, exclusive=False, allow=None,
              max_message=0, inbound_bytes=0, outstanding=0, spin_us=0)

    Claims NAME; handlers answer its calls once it runs. `with` closes it.

    threads (int): handlers that run at once, 1 to 64; -1: one per CPU. With 1, run() serves in the calling thread.
    processes (int): workers, 1 to 64; -1: one per CPU; 0: none. run() supervises them and handles nothing itself: each
        is forked, with what was set up until then, has THREADS of its own, and is started again when it dies.
    start (str): "fork", or "spawn": each worker is an interpreter of its own, which imports the program, and finds
        handlers and classes by their names; for programs that have threads before they serve.
    restart_burst (int): deaths within 10 s that end it all (run() raises Error, code EOWNERDEAD); 0: 5; -1: no limit.
    exclusive (bool): be the only instance of the name, or raise Error (code EADDRINUSE).
    allow (str): who else may call: "alice,1001,@video,*". The own user and root always may.
    max_message, inbound_bytes (int): bytes of one request, and of all that are held at once; 0: the defaults.
    outstanding (int): requests of one connection in progress; 0: 1024.
    spin_us (int): microseconds of looking before sleeping; 0: adaptive, -1: never.

    Raises Error (code EADDRINUSE, EACCES, EINVAL, ...).
    """

    def __new__(cls, name, threads=1, processes=0, *, start="fork", **options):
        _spawn.refuse_import()
        if start not in ("fork", "spawn"):
            raise ValueError(f"start={start!r}: 'fork' or 'spawn'")
        return super().__new__(cls, name, threads, processes, **options)

    def __init__(self, name, threads=1, processes=0, *, start="fork", **options):
        self._threads = threads
        self._processes = processes
        self._options = options
        self._spawns = start == "spawn"
        self._handlers = []  # (method, handler)
        self._makes = []     # classes that each worker makes one of, before it serves
        self._made = 0
        self._seed = -1      # of spawned workers: see _spawn.py
        self._load = None    # in a spawned worker: what brings it its handlers
        self._ends = []
        self._bell = None
        self._lock = _thread.RLock()  # a signal's handler may call stop() in stop()
        self._ring = None  # wakes run()
        self._stopped = False

    def handle(self, method, handler, /):
        super().handle(method, handler)
        self._handlers.append((method, handler))

    handle.__doc__ = _plait.Server.handle.__doc__

    def method(self, name=""):
        """@server.method("add"): the function below answers calls of this method. It is given a Request."""

        def register(handler):
            self.handle(name, handler)
            return handler

        return register

    def state(self, make):
        """MAKE, a class, is called in each worker before it serves (without processes: when the server runs), and its
        public functions are the methods; what it keeps in `self` is that worker's own. With __enter__ and __exit__ it
        is entered and left as by `with`. What it raises there makes run() raise Error (code ECANCELED)."""

        self._makes.append(make)
        return make

    def start(self):
        self._make_state()
        super().start()

    start.__doc__ = _plait.Server.start.__doc__

    def close(self):
        super().close()
        if self.closed and not self.worker:
            self._leave_state()

    close.__doc__ = _plait.Server.close.__doc__

    def _make_state(self):
        while self._made < len(self._makes):
            thing = left = self._makes[self._made]()
            self._made += 1
            if hasattr(type(left), "__enter__"):
                thing = type(left).__enter__(left)
                self._ends.append(lambda left=left: type(left).__exit__(left, None, None, None))
            if callable(thing):
                super().handle("", thing)
            for name in dir(type(thing)):
                if not name.startswith("_") and callable(getattr(type(thing), name)):
                    super().handle(name, getattr(thing, name))

    def _leave_state(self):
        while self._ends:
            self._ends.pop()()

    def run(self):
        """Serves until stop(), SIGTERM or KeyboardInterrupt; answers what it has taken, closes, and returns.

        SIGTERM is taken where it is at its default and this is the main thread. What a handler raises that is no
        Exception (SystemExit) ends it, too, and is raised here. Raises Error (code EBUSY: it runs already).

        With processes: SIGHUP replaces the workers one after the other, and no call fails. Returns in the supervisor
        alone, and raises Error (code EOWNERDEAD: too many workers died; ECANCELED: one can't begin; ETIMEDOUT: one
        had to be killed, since a handler didn't end). In a worker stop() and SIGTERM end that worker, and another
        takes its place.
        """
        before = None
        bell, ring = os.pipe()
        os.set_blocking(ring, False)
        self._ring = ring
        try:
            try:
                bell_before = _signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
            except ValueError:  # not the main thread: signals are not ours
                bell_before = None
            if bell_before is not None and _signal.getsignal(_signal.SIGTERM) == _signal.SIG_DFL:
                before = _signal.signal(_signal.SIGTERM, self._on_sigterm)
            try:
                self._run(bell)
            except KeyboardInterrupt:
                if not self.closed:
                    self.stop()
                    self._drain()
            finally:
                if before is not None:
                    _signal.signal(_signal.SIGTERM, before)
                if bell_before is not None:
                    _signal.set_wakeup_fd(bell_before)
        finally:
            with self._lock:
                self._ring = None
            os.close(bell)
            os.close(ring)
            self.close()

    def _on_sigterm(self, number, frame):
        self.stop()

    def _run(self, bell):
        import select

        poll = select.poll()
        poll.register(bell, select.POLLIN)
        if self._processes:
            self._supervise_from(bell)
            return
        self._make_state()
        if self._threads != 1:
            self.start()
            while not self._stopped and not self.closed:
                poll.poll()
                os.read(bell, 4096)
            return
        poll.register(self._fd(), select.POLLIN)
        while not self.closed:
            count = self._serve(IDLE)
            if count is None:
                return
            if count == 0:
                self._fd()  # tells the clients that it sleeps
                if any(fd == bell for fd, _ in poll.poll()):
                    os.read(bell, 4096)

    def _supervise_from(self, bell):
        os.set_blocking(bell, False)
        self._bell = bell
        usual = [0, 0]  # signals that workers leave to the library
        if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
            usual[0] = _signal.SIGINT
        if _signal.getsignal(_signal.SIGTERM) == self._on_sigterm:
            usual[1] = _signal.SIGTERM
        import logging as _  # deaths are told: on stderr, if the program says nothing else

        self._usual = [number for number in usual if number]
        if self._spawns:
            self._seed = _spawn.seed(self, self._handlers, self._makes, self._threads, self._options)
        try:
            self._supervise(bell, *usual, self._spawns)
        finally:
            if self._spawns:
                os.close(self._seed)

    def _work(self, load):
        """In a spawned worker: serves what LOAD() registers."""
        self._load = load
        self._run_worker()

    # ---- called by the extension, of workers ----

    def _spawn(self, control):
        return _spawn.start(control, self._seed)

    def _flush(self):
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (AttributeError, ValueError, OSError):
                pass  # there is none, or nobody listens

    def _begin(self, worker):
        try:
            if self._load is not None:
                self._load()
            else:
                self._leave_supervisor()
            self._make_state()
        except BaseException as error:
            import traceback

            traceback.print_exc()
            self._flush()
            return "".join(traceback.format_exception_only(error)).strip().encode("utf-8", "replace").decode()

    def _leave_supervisor(self):
        _signal.set_wakeup_fd(-1)
        for number in self._usual:
            _signal.signal(number, _signal.SIG_DFL)
        with self._lock:
            ring, self._ring = self._ring, None
        os.close(self._bell)
        os.close(ring)

    def _end(self):
        try:
            self._leave_state()
        finally:
            self._flush()

    def stop(self, grace=5.0):
        """Asks it to stop, and returns at once: the name is withdrawn, and what was taken is answered for at most
        GRACE seconds (None: for as long as it takes). May be called from handlers and signal handlers."""
        super().stop(grace)
        with self._lock:
            self._stopped = True
            if self._ring is not None:
                try:
                    os.write(self._ring, b"x")
                except BlockingIOError:
                    pass  # it is full, so run() wakes anyway

    def _drain(self):
        if self._threads == 1 and not self._processes:
            while self._serve(IDLE) is not None:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        _plait.Server.close(self)


def serve(name, handlers, threads=1, processes=0, *, start="fork", listen=(), **options):
    """Serves NAME until SIGTERM or KeyboardInterrupt.

    handlers (dict[str, callable] | callable | class): by method; or one callable for every call that names none; or a
        class: its public functions are the methods, and each worker makes one of it, as Server.state says.
    threads (int): handlers that run at once, in each process.
    processes (int): workers, 0: none.
    start (str): "fork", or "spawn": workers are interpreters of their own, as Server says.
    listen (str, or several): URLs to listen on, too. Other options are those of Server.

    Raises what Server, listen, handle and run raise.
    """
    with Server(name, threads, processes, start=start, **options) as server:
        if isinstance(handlers, type):
            server.state(handlers)
            handlers = {}
        set_up(server, handlers, listen)
        server.run()


def set_up(server, handlers, listen):
    for method, handler in {"": handlers}.items() if callable(handlers) else handlers.items():
        server.handle(method, handler)
    for url in [listen] if isinstance(listen, str) else listen:
        server.listen(url)
