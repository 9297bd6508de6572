"""plait for asyncio: Client, Server, Publisher and Subscriber on the running loop.

    async with await plait.aio.connect("greeter") as client:
        print((await client.call("greet", "Ada")).text)

A client belongs to the loop that it was connected in, a server to the loop that it was started in. What is sent and
received takes no thread; connecting over the network, or to who doesn't answer at once, does, and it ends with it.
"""

import asyncio
import builtins
import contextlib
import contextvars
import errno
import inspect
import signal
import time
import warnings
from _thread import get_ident

import plait
from . import _failure, _plait, _spawn
from ._aio_thread import in_thread
from ._aio_topics import Publisher, Subscriber
from ._server import set_up

__all__ = ["Client", "Publisher", "Server", "Subscriber", "connect", "serve", "subscribe"]

_AGAIN, _SLOWEST = 0.005, 0.04  # seconds before what would have had to wait is tried again: first, at last
_QUIET = 8  # times _SLOWEST without any reply, after which a thread connects anew: not a time, since loops are held up
_SOON = 0.004  # seconds that an attempt takes only if somebody was there and didn't answer
_trace = contextvars.ContextVar("plait_trace", default=0)  # of the handler that this task is in
_FAR = ("tcp:", "udp:")  # a resolver may be asked
_OMITTED = object()

for _thing in (Publisher, Subscriber):
    _thing.__module__ = "plait.aio"
del _thing


class Client:
    """A connection made by plait.aio.connect(). `async with` closes it; `with` does, too."""

    def __init__(self, core, timeout):
        self._core = core
        self._start = core._start
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._thread = get_ident()
        self._fd = core._fd()
        self._turn = asyncio.Lock()  # of those that wait for room or a connection
        self._moved = asyncio.Event()
        self._loop.add_reader(self._fd, _dispatch, core._dispatch, self._moved.set)

    def _check(self):
        """As asyncio.get_running_loop() is self._loop, without the system call that this takes."""
        if get_ident() != self._thread or not self._loop.is_running():
            raise RuntimeError("this client belongs to another event loop: connect one in this loop")

    async def call(self, method="", data=b"", *, timeout=_OMITTED, **options):
        """Calls METHOD and awaits its Reply; arguments and errors are those of plait.Client.call().

        A task that is cancelled here cancels the call: its server is told.
        """
        loop = self._loop
        if get_ident() != self._thread or not loop.is_running():
            self._check()
        future = loop.create_future()
        if timeout is not _OMITTED:
            options["timeout"] = timeout
        if (trace := _trace.get()) and "trace" not in options:
            options["trace"] = trace
        if options:
            if "json" not in options:
                options["data"] = data
            elif data != b"":
                raise TypeError("data or json, not both")
            number = self._start(future, method, **options)
        else:
            number = self._start(future, method, data)
        if number is None:
            number = await self._later(self._start, (future, method), options or {"data": data})
        try:
            return await future
        except asyncio.CancelledError:
            self._core._cancel(number)
            raise

    async def _later(self, start, what, options):
        """The server takes no more now, or is gone: in turn, as soon as something moves, until the time is over."""
        timeout = options.get("timeout", self._timeout)
        end = None if timeout is None else time.monotonic() + timeout
        try:
            async with asyncio.timeout(timeout), self._turn:
                return await self._in_turn(start, what, options, end)
        except builtins.TimeoutError:
            raise plait.TimeoutError(f"{self._core.target}: it never left: no connection or no room in time "
                                     f"(is the server running? is it stopped?)", errno.ETIMEDOUT) from None

    async def _in_turn(self, start, what, options, end):
        quiet = 0
        while True:
            if end is not None:
                options["timeout"] = max(0.001, end - time.monotonic())
            started = start(*what, **options)
            if started is not None:
                return started
            self._moved.clear()
            try:
                async with asyncio.timeout(_SLOWEST):
                    await self._moved.wait()
                quiet = 0
            except builtins.TimeoutError:
                quiet += 1
                if quiet == _QUIET:
                    # A server that takes its time to answer a hello, or one of this very loop.
                    with contextlib.suppress(plait.Error):
                        await in_thread(self._loop, self._core.methods)
                    quiet = 0

    async def send(self, method="", data=b"", **options):
        """One way; arguments and errors are those of plait.Client.send()."""
        self._check()
        if "json" not in options:
            options["data"] = data
        elif data != b"":
            raise TypeError("data or json, not both")
        if "trace" not in options and (trace := _trace.get()):
            options["trace"] = trace
        if self._core._send(method, **options) is None:
            await self._later(self._core._send, (method,), options)

    async def methods(self):
        """list[str]: the names of the server's methods; errors are those of plait.Client.methods()."""
        self._check()
        names = self._core._methods()
        return await in_thread(self._loop, self._core.methods) if names is None else names

    @property
    def transport(self):
        """str: 'shm', 'unix' or 'tcp': how the last call went."""
        return self._core.transport

    @property
    def target(self):
        """str: what it was connected to."""
        return self._core.target

    @property
    def closed(self):
        """bool: close() was called."""
        return self._core.closed

    def close(self):
        """Ends the connection; calls under way raise Error (code ECANCELED). A second time does nothing."""
        if self._core.closed:
            return
        if not self._loop.is_closed():
            self._loop.remove_reader(self._fd)
        self._core.close()

    def __del__(self):
        if self._core.closed:
            return
        warnings.warn(f"{self!r} was never closed", ResourceWarning, source=self)
        if get_ident() == self._thread:
            self.close()
        elif not self._loop.is_closed():  # its loop may be in the middle of a dispatch
            self._loop.call_soon_threadsafe(_close_from_afar, self._loop, self._fd, self._core)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.close()

    def __repr__(self):
        return repr(self._core).replace("plait.Client", "plait.aio.Client")


def _dispatch(dispatch, moved):
    if dispatch():
        moved()


def _close_from_afar(loop, fd, core):
    loop.remove_reader(fd)
    core.close()


async def connect(target, *, connect_timeout=5.0, timeout=30.0, **options):
    """Connects to TARGET and returns a Client; arguments and errors are those of plait.connect().

    A program on this machine that answers at once is connected to without a thread. A resolver, the network or a busy
    server could hold the loop up: for those a thread connects, and ends with it.
    """
    loop = asyncio.get_running_loop()
    end = None if connect_timeout is None else time.monotonic() + connect_timeout
    pause = _AGAIN
    while isinstance(target, str) and not target.startswith(_FAR) and connect_timeout != 0:
        begun = time.monotonic()
        left = None if end is None else end - begun
        if left is not None and left <= 0:
            break
        try:
            core = _plait.Client(target, connect_timeout=left, timeout=timeout, _at_once=True, **options)
            return Client(core, timeout)
        except plait.Error as error:
            if error.code != errno.EINTR:
                raise
        if time.monotonic() - begun > _SOON:
            break  # somebody is there, and keeps us waiting
        await asyncio.sleep(pause if left is None else min(pause, left))
        pause = min(pause * 2, _SLOWEST)

    def make():
        left = None if end is None else max(0.0, end - time.monotonic())
        return _plait.Client(target, connect_timeout=left, timeout=timeout, **options)

    return Client(await in_thread(loop, make, lambda core: core.close()), timeout)


class Server(_plait.Server):
    """Server(name, *, exclusive=False, allow=None, ...): as plait.Server, with handlers that are `async def` or not.

    Each request is a task of its own; a caller that gives up cancels nothing, see request.cancelled.
    """

    def __new__(cls, name, **options):
        _spawn.refuse_import()
        return super().__new__(cls, name, 1, _deferring=True, **options)

    def __init__(self, name, **options):
        self._loop = None
        self._tasks = {}  # by request
        self._over = None

    def handle(self, method, handler):
        """Calls or awaits HANDLER with a Request for each call of METHOD; see plait.Server.handle."""
        if not callable(handler):
            raise TypeError(f"a handler is called with a request; {handler!r} cannot be called")

        tasks = self._tasks

        def take(request):
            trace = request.trace
            token = _trace.set(trace) if trace else None
            try:
                if coroutine:
                    tasks[request] = self._loop.create_task(_answer(tasks, handler(request), method, request))
                elif not request._try(value := handler(request)):  # it is to be awaited
                    tasks[request] = self._loop.create_task(_answer(tasks, value, method, request))
            except Exception as error:
                request._fail(*_failure.tell(error, method))
            finally:
                if token:
                    _trace.reset(token)

        coroutine = inspect.iscoroutinefunction(handler)
        super().handle(method, take)

    def method(self, name=""):
        """@server.method("add"): the function below answers calls of this method."""

        def register(handler):
            self.handle(name, handler)
            return handler

        return register

    def start(self):
        """Serves on the running loop until stop() or close(). Raises Error (code EBUSY: it runs)."""
        if self._loop is not None:
            raise plait.Error(f"{self.name} runs already", 16)
        self._loop = asyncio.get_running_loop()
        self._over = self._loop.create_future()
        self._descriptor = self._fd()
        self._loop.add_reader(self._descriptor, self._serve_now)

    def _serve_now(self):
        if self.closed or self._dispatch() is None:
            self._leave_loop()

    def _leave_loop(self):
        if self._loop is None or self._loop.is_closed():
            return
        self._loop.remove_reader(self._descriptor)
        if not self._over.done():
            self._over.set_result(None)

    async def run(self):
        """Starts, serves until stop() or until its task is cancelled, and closes."""
        self.start()
        try:
            await asyncio.shield(self._over)
        finally:
            self.close()

    async def wait_stopped(self):
        """Waits until a stop() is complete: all that was taken is answered."""
        await asyncio.shield(self._over)

    def close(self):
        """Stops at once, frees; handlers under way are cancelled. A second time does nothing."""
        if self.closed:
            return
        for task in list(self._tasks.values()):
            task.cancel()
        self._tasks.clear()
        self._leave_loop()
        self.stop(0)
        super().close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    async def __aenter__(self):
        self.start()
        return self

    async def __aexit__(self, *_):
        self.close()

    def __del__(self):
        _plait.Server.close(self)

    def __repr__(self):
        return f"<plait.aio.Server of {self.name!r}{', closed' if self.closed else ''}>"


async def _answer(tasks, value, method, request):
    try:
        request._reply(await value)
    except asyncio.CancelledError:
        request._fail(1, "the server ended before its handler did")
        raise
    except Exception as error:
        request._fail(*_failure.tell(error, method))
    finally:
        tasks.pop(request, None)


async def serve(name, handlers, *, listen=(), **options):
    """Serves NAME until SIGTERM or until its task is cancelled, as asyncio.run() does on Ctrl-C.

    handlers (dict[str, callable] | callable): by method, or one for every call that names none; `async def` or not.
    listen (str, or several): URLs to listen on, too. Other options are those of Server.

    SIGTERM is taken where it is at its default and this is the main thread. Raises what Server, listen and handle raise.
    """
    if isinstance(handlers, type):
        raise TypeError("a class is for plait.serve(), which makes one for each worker: give the functions of one")
    loop, ours = asyncio.get_running_loop(), False
    with Server(name, **options) as server:
        set_up(server, handlers, listen)
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):  # not the main thread
                loop.add_signal_handler(signal.SIGTERM, server.stop)
                ours = True
        try:
            await server.run()
        finally:
            if ours:
                loop.remove_signal_handler(signal.SIGTERM)


def subscribe(topic, history=0, reliable=None, timeout=None, **options):
    """Subscribes to TOPIC and returns a Subscriber; arguments and errors are those of plait.subscribe().

    A tcp:// URL, and a publisher that doesn't answer at once, is connected to when it is first awaited, or by
    `async with`. There is no callback: `async for`.
    """
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout is {timeout} seconds: at least 0 (at once), or None (for ever)")
    return Subscriber(topic, timeout, dict(options, history=history, reliable=reliable))
