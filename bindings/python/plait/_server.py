import _signal
import _thread
import os

from . import _plait

IDLE = 0.05  # seconds of serving between two looks at signals


class Server(_plait.Server):
    """Server(name, threads=1, *, exclusive=False, allow=None, max_message=0, inbound_bytes=0, outstanding=0, spin_us=0)

    Claims NAME; handlers answer its calls once it runs. `with` closes it.

    threads (int): handlers that run at once, 1 to 64; -1: one per CPU. With 1, run() serves in the calling thread.
    exclusive (bool): be the only instance of the name, or raise Error (code EADDRINUSE).
    allow (str): who else may call: "alice,1001,@video,*". The own user and root always may.
    max_message, inbound_bytes (int): bytes of one request, and of all that are held at once; 0: the defaults.
    outstanding (int): requests of one connection in progress; 0: 1024.
    spin_us (int): microseconds of looking before sleeping; 0: adaptive, -1: never.

    Raises Error (code EADDRINUSE, EACCES, EINVAL, ...).
    """

    def __init__(self, name, threads=1, **options):
        self._threads = threads
        self._lock = _thread.RLock()  # a signal's handler may call stop() in stop()
        self._ring = None  # wakes run()
        self._stopped = False

    def method(self, name=""):
        """@server.method("add"): the function below answers calls of this method. It is given a Request."""

        def register(handler):
            self.handle(name, handler)
            return handler

        return register

    def run(self):
        """Serves until stop(), SIGTERM or KeyboardInterrupt; answers what it has taken, closes, and returns.

        SIGTERM is taken where it is at its default and this is the main thread. What a handler raises that is no
        Exception (SystemExit) ends it, too, and is raised here. Raises Error (code EBUSY: it runs already).
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
                before = _signal.signal(_signal.SIGTERM, lambda number, frame: self.stop())
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

    def _run(self, bell):
        import select

        poll = select.poll()
        poll.register(bell, select.POLLIN)
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
        if self._threads == 1:
            while self._serve(IDLE) is not None:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        _plait.Server.close(self)

    def __repr__(self):
        return f"<plait.Server of {self.name!r}{', closed' if self.closed else ''}>"


def serve(name, handlers, threads=1, *, listen=(), **options):
    """Serves NAME until SIGTERM or KeyboardInterrupt.

    handlers (dict[str, callable]): by method, or one callable for every call that names none.
    threads (int): handlers that run at once.
    listen (str, or several): URLs to listen on, too. Other options are those of Server.

    Raises what Server, listen and handle raise.
    """
    with Server(name, threads, **options) as server:
        if callable(handlers):
            handlers = {"": handlers}
        for method, handler in handlers.items():
            server.handle(method, handler)
        for url in [listen] if isinstance(listen, str) else listen:
            server.listen(url)
        server.run()
