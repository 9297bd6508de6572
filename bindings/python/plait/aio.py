"""plait for asyncio: Client, Server and Subscriber on the running loop, without threads.

    async with await plait.aio.connect("greeter") as client:
        print((await client.call("greet", "Ada")).text)

A client belongs to the loop that it was connected in, a server to the loop that it was started in.
"""

import asyncio
import builtins
import contextlib
import contextvars
import errno
import inspect
import time
import warnings
from _thread import get_ident

import plait
from . import _failure, _plait, _spawn

__all__ = ["Client", "Server", "Subscriber", "connect", "subscribe"]

_AGAIN, _SLOWEST = 0.005, 0.04  # seconds before what would have had to wait is tried again: first, at last
_QUIET = 8  # times _SLOWEST without any reply, after which a thread connects anew: not a time, since loops are held up
_SOON = 0.004  # seconds that an attempt takes only if somebody was there and didn't answer
_trace = contextvars.ContextVar("plait_trace", default=0)  # of the handler that this task is in
_OMITTED = object()


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
            number = await self._start_later(future, method, dict(options, data=data) if not options else options)
        try:
            return await future
        except asyncio.CancelledError:
            self._core._cancel(number)
            raise

    async def _start_later(self, future, method, options):
        """The server takes no more now, or is gone: in turn, as soon as something moves, until the call's time is over."""
        timeout = options.get("timeout", self._timeout)
        end = None if timeout is None else time.monotonic() + timeout
        try:
            async with asyncio.timeout(timeout), self._turn:
                return await self._start_in_turn(future, method, options, end)
        except builtins.TimeoutError:
            raise plait.TimeoutError(f"{self._core.target}: the call never left: no connection or no room in time "
                                     f"(is the server running? is it stopped?)", errno.ETIMEDOUT) from None

    async def _start_in_turn(self, future, method, options, end):
        quiet = 0
        while True:
            if end is not None:
                options["timeout"] = max(0.001, end - time.monotonic())
            number = self._start(future, method, **options)
            if number is not None:
                return number
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
                        await _in_thread(self._loop, self._core.methods)
                    quiet = 0

    async def send(self, method="", data=b"", **options):
        """One way; arguments and errors are those of plait.Client.send()."""
        self._check()
        if "json" not in options:
            options["data"] = data
        if "trace" not in options and (trace := _trace.get()):
            options["trace"] = trace
        end = time.monotonic() + (1e9 if self._timeout is None else self._timeout)
        if "timeout" in options:
            timeout = options.pop("timeout")
            end = time.monotonic() + (1e9 if timeout is None else timeout)
        while True:
            try:
                return self._core.send(method, timeout=0, **options)
            except plait.TimeoutError:
                if time.monotonic() >= end:
                    raise
            await asyncio.sleep(_AGAIN)

    def methods(self):
        """list[str]: the names of the server's methods."""
        return self._core.methods()

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
    while isinstance(target, str) and not target.startswith("tcp:") and connect_timeout != 0:
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

    return Client(await _in_thread(loop, make, lambda core: core.close()), timeout)


async def _in_thread(loop, function, unwanted=lambda result: None):
    """What FUNCTION returns in a thread of its own; UNWANTED gets it if nobody waits any more."""
    import threading

    future = loop.create_future()

    def finish(result, error):
        if future.done():
            if error is None:
                unwanted(result)
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def work():
        result = error = None
        try:
            result = function()
        except BaseException as caught:
            error = caught
        try:
            loop.call_soon_threadsafe(finish, result, error)
        except RuntimeError:  # the loop is closed
            if error is None:
                unwanted(result)

    thread = threading.Thread(target=work, name="plait.aio", daemon=True)
    thread.start()
    try:
        return await future
    finally:
        if future.done() and not future.cancelled():
            thread.join()  # it has nothing more to do


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


class Subscriber:
    """A subscription made by plait.aio.subscribe(): `async for message in subscriber`, or await next().

    One task at a time waits in it, in the loop that it first waited in. `async with` closes it; `with` does, too.
    """

    def __init__(self, topic, timeout, options):
        self._core = self._loop = self._fd = self._waiter = None
        self._topic = topic
        self._timeout = timeout
        self._options = options
        self._closed = False
        if not isinstance(topic, str) or not topic.startswith("tcp:"):
            self._core = _plait.Subscriber(topic, **options)

    async def _open(self):
        loop = asyncio.get_running_loop()
        if self._core is None:  # the network: a thread connects, and ends with it
            core = await _in_thread(loop, lambda: _plait.Subscriber(self._topic, **self._options),
                                    lambda core: core.close())
            if self._closed:
                core.close()
                raise plait.Error("this subscriber was closed while it connected", errno.ECANCELED)
            self._core = core
        self._fd = self._core._fd()
        self._loop = loop

    def _readable(self):
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self):
        if self._waiter is not None:
            raise plait.Error("another task waits in this subscriber: give each a subscriber of its own", errno.EBUSY)
        if not self._closed and self._loop is None:
            await self._open()
        while (message := self._take()) is None:
            self._waiter = self._loop.create_future()
            self._loop.add_reader(self._fd, self._readable)
            try:
                await self._waiter
            finally:
                self._waiter = None
                if not self._closed:
                    self._loop.remove_reader(self._fd)
        return message

    def _take(self):
        if self._closed:
            raise plait.Error("this subscriber is closed: open another", errno.EBADF)
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("this subscriber belongs to another event loop: open one in this loop")
        return self._core._try()

    async def next(self, timeout=_OMITTED):
        """Awaits the next Message; arguments and errors are those of plait.Subscriber.next()."""
        if timeout is _OMITTED:
            timeout = self._timeout
        if timeout is None:
            return await self._wait()
        if timeout == 0 and self._loop is not None and (message := self._take()) is not None:
            return message
        try:
            async with asyncio.timeout(timeout):
                return await self._wait()
        except builtins.TimeoutError as error:
            if isinstance(error, plait.Error):
                raise
            raise plait.TimeoutError(f"topic '{self._topic}': no message within {timeout} s", errno.ETIMEDOUT) from None

    def __aiter__(self):
        return self

    async def __anext__(self):
        return await self.next()

    @property
    def topic(self):
        """str: what it was subscribed to."""
        return self._topic

    @property
    def publishers(self):
        """int: how many it is subscribed to now."""
        return self._core.publishers if self._core else 0

    @property
    def closed(self):
        """bool: close() was called."""
        return self._closed

    def close(self):
        """Ends; a task that waits here gets an Error (code ECANCELED). A second time does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._fd)
            if self._waiter and not self._waiter.done():
                self._waiter.set_exception(plait.Error("this subscriber was closed while it waited", errno.ECANCELED))
        if self._core is not None:
            self._core.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    async def __aenter__(self):
        if self._loop is None:
            await self._open()
        return self

    async def __aexit__(self, *_):
        self.close()

    def __repr__(self):
        return f"<plait.aio.Subscriber of {self._topic!r}{', closed' if self._closed else ''}>"


def subscribe(topic, history=0, reliable=None, timeout=None, **options):
    """Subscribes to TOPIC and returns a Subscriber; arguments and errors are those of plait.subscribe().

    A tcp:// URL is connected to when it is first awaited, or by `async with`.
    """
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout is {timeout} seconds: at least 0 (at once), or None (for ever)")
    return Subscriber(topic, timeout, dict(options, history=history, reliable=reliable))
