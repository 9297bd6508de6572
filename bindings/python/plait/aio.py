"""plait for asyncio: Client and Server on the running loop, without threads.

    async with await plait.aio.connect("greeter") as client:
        print((await client.call("greet", "Ada")).text)

A client belongs to the loop that it was connected in, a server to the loop that it was started in.
"""

import asyncio
import contextvars
import time

import plait
from . import _failure, _plait

__all__ = ["Client", "Server", "connect"]

_AGAIN = 0.01  # seconds before what would have had to wait is tried again
_trace = contextvars.ContextVar("plait_trace", default=0)  # of the handler that this task is in
_OMITTED = object()


class Client:
    """A connection made by plait.aio.connect(). `async with` closes it; `with` does, too."""

    def __init__(self, core, timeout):
        self._core = core
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._fd = core._fd()
        self._loop.add_reader(self._fd, core._dispatch)

    def _check(self):
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            raise RuntimeError("this client belongs to another event loop: connect one in this loop")
        return loop

    async def call(self, method="", data=b"", *, timeout=_OMITTED, **options):
        """Calls METHOD and awaits its Reply; arguments and errors are those of plait.Client.call().

        A task that is cancelled here cancels the call: its server is told.
        """
        future = self._check().create_future()
        if "json" not in options:
            options["data"] = data
        elif data != b"":
            raise TypeError("data or json, not both")
        if timeout is not _OMITTED:
            options["timeout"] = timeout
        if "trace" not in options and (trace := _trace.get()):
            options["trace"] = trace
        number = self._core._start(future, method, **options)
        if number is None:
            number = await self._start_later(future, method, options)
        try:
            return await future
        except asyncio.CancelledError:
            self._core._cancel(number)
            raise

    async def _start_later(self, future, method, options):
        """The server takes no more now, or is gone: tries again until the call's time is over."""
        timeout = options.get("timeout", self._timeout)
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                await _in_thread(self._loop, self._core.methods)  # connects again, if that is what it lacks
            except plait.Error:
                pass
            await asyncio.sleep(_AGAIN)
            if end is not None:
                left = end - time.monotonic()
                if left <= 0:
                    raise plait.TimeoutError(f"{self._core.target}: the call never left: no connection or no room in "
                                             f"time (is the server running? is it stopped?)", 110)
                options["timeout"] = left
            number = self._core._start(future, method, **options)
            if number is not None:
                return number

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


async def connect(target, *, connect_timeout=5.0, timeout=30.0, **options):
    """Connects to TARGET and returns a Client; arguments and errors are those of plait.connect().

    Connecting takes a thread that ends with it: a resolver may take long, and the server may be in this very loop.
    """
    loop = asyncio.get_running_loop()

    def make():
        return _plait.Client(target, connect_timeout=connect_timeout, timeout=timeout, **options)

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
        return super().__new__(cls, name, 1, _deferring=True, **options)

    def __init__(self, name, **options):
        self._loop = None
        self._tasks = set()
        self._over = None

    def handle(self, method, handler):
        """Calls or awaits HANDLER with a Request for each call of METHOD; see plait.Server.handle."""
        if not callable(handler):
            raise TypeError(f"a handler is called with a request; {handler!r} cannot be called")

        def take(request):
            task = self._loop.create_task(_answer(handler, method, request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

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
        for task in list(self._tasks):
            task.cancel()
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


async def _answer(handler, method, request):
    _trace.set(request.trace)
    try:
        value = handler(request)
        if hasattr(value, "__await__"):
            value = await value
        request._reply(value)
    except asyncio.CancelledError:
        request._fail(1, "the server ended before its handler did")
        raise
    except Exception as error:
        request._fail(*_failure.tell(error, method))
