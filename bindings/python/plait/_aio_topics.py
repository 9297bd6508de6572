"""plait.aio's Publisher and Subscriber."""

import asyncio
import builtins
import contextlib
import errno
import time

import plait
from . import _plait
from ._aio_thread import in_thread

_OMITTED = object()
_SOON, _LATE = 0.001, 0.04  # seconds before a publisher looks again whether it may go on: first, at last
_ATTEMPT = 1.0  # seconds that a thread takes to connect a subscriber anew, or to hear something


class Publisher:
    """Publisher(topic, reliable=False, history=0, *, ...): as plait.Publisher, with waits that leave the loop to others.

    Tasks may share it; it belongs to the loop that it first waits in. `async with` closes it; `with` does, too.
    """

    def __init__(self, topic, reliable=False, history=0, *, listen=None, allow=None, timeout=1.0, wait_subscribers=0,
                 max_message=0):
        self._core = _plait.Publisher(topic, reliable, history, listen=listen, allow=allow, timeout=timeout,
                                      wait_subscribers=wait_subscribers, max_message=max_message)
        self._timeout, self._wanted = timeout, wait_subscribers
        self._sockets = bool(listen or allow)
        self._turn = asyncio.Lock()
        self._queue = 0  # tasks that wait for their turn, or have it

    async def publish(self, data=_OMITTED, *, json=_OMITTED):
        """As plait.Publisher.publish(). It waits only for wait_subscribers, and for slow subscribers if it is reliable.

        What several tasks publish goes in the order of their calls. If a task is cancelled here, nothing was published.
        """
        what = {} if data is _OMITTED else {"data": data}
        if json is not _OMITTED:
            what["json"] = json
        if self._queue or (size := self._core._try(**what)) is not None:
            async with self._in_turn():
                while (size := self._core._try(**what)) is not None:
                    await self._room(size)

    async def loan(self, shape, dtype=None):
        """As plait.Publisher.loan(): a numpy.ndarray to fill, then to publish()."""
        from . import _arrays

        size = _arrays.measure(shape, dtype)[2]
        if self._queue or not self._core._ready(size):
            async with self._in_turn():
                await self._room(size)
                return self._core.loan(shape, dtype)
        return self._core.loan(shape, dtype)

    @contextlib.asynccontextmanager
    async def _in_turn(self):
        self._queue += 1
        try:
            async with self._turn:
                yield
        finally:
            self._queue -= 1

    async def _room(self, size):
        """Until SIZE bytes may be published without a wait."""
        end = None if self._timeout is None else time.monotonic() + self._timeout
        pause = _SOON
        while not self._core._ready(size):
            if end is not None and time.monotonic() >= end and self._core.subscribers < self._wanted:
                raise plait.TimeoutError(f"topic '{self.topic}': {self._core.subscribers} of {self._wanted} subscribers "
                                         f"came within {self._timeout} s (wait_subscribers)", errno.ETIMEDOUT)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LATE)

    @property
    def topic(self):
        """str: its topic."""
        return self._core.topic

    @property
    def urls(self):
        """list[str]: where it listens, with real ports."""
        return self._core.urls

    @property
    def subscribers(self):
        """int: how many there are now."""
        return self._core.subscribers

    @property
    def closed(self):
        """bool: close() was called."""
        return self._core.closed

    def close(self):
        """Ends; tasks that wait here get an Error (code EBADF). A second time does nothing. Subscribers at sockets are
        sent the rest first, for which `async with` leaves the loop to others."""
        self._core.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        if self._sockets and not self._core.closed:
            await in_thread(asyncio.get_running_loop(), self._core.close)
        self.close()

    def __repr__(self):
        return repr(self._core).replace("plait.Publisher", "plait.aio.Publisher")


class Subscriber:
    """A subscription made by plait.aio.subscribe(): `async for message in subscriber`, or await next().

    One task at a time waits in it, in the loop that it first waited in. `async with` closes it; `with` does, too.
    """

    def __init__(self, topic, timeout, options):
        self._core = self._loop = self._fd = self._waiter = None
        self._attempt = None  # of a thread to connect anew
        self._inside = False  # a task is
        self._topic = topic
        self._timeout = timeout
        self._options = options
        self._closed = False
        if isinstance(topic, str) and topic.startswith("tcp:"):
            return
        try:
            self._core = _plait.Subscriber(topic, _at_once=True, **options)
        except plait.Error as error:
            if error.code != errno.EINTR:
                raise

    async def _open(self):
        loop = asyncio.get_running_loop()
        if self._core is None:  # the network, or a publisher that doesn't answer at once
            core = await in_thread(loop, lambda: _plait.Subscriber(self._topic, **self._options),
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
        if self._inside:
            raise plait.Error("another task waits in this subscriber: give each a subscriber of its own", errno.EBUSY)
        self._inside = True
        try:
            if not self._closed and self._loop is None:
                await self._open()
            while True:
                message = self._take()
                if message is False:
                    message = await self._reconnect()
                if message is not None:
                    return message
                await self._wait_readable()
        finally:
            self._inside = False

    async def _wait_readable(self):
        self._waiter = self._loop.create_future()
        self._loop.add_reader(self._fd, self._readable)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if not self._closed:
                self._loop.remove_reader(self._fd)

    def _hear(self):
        try:
            return self._core.next(_ATTEMPT)
        except plait.TimeoutError:
            return None

    async def _reconnect(self):
        """A Message; None: none came. Whoever is cancelled here leaves what comes to the next."""
        if self._attempt is None:
            self._attempt = asyncio.ensure_future(in_thread(self._loop, self._hear))
            self._attempt.add_done_callback(lambda attempt: attempt.cancelled() or attempt.exception())
        try:
            message = await asyncio.shield(self._attempt)
        except plait.Error:
            self._attempt = None
            raise
        self._attempt = None
        return message

    def _take(self):
        """A Message; None: nothing is there; False: _reconnect()."""
        if self._closed:
            raise plait.Error("this subscriber is closed: open another", errno.EBADF)
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("this subscriber belongs to another event loop: open one in this loop")
        return False if self._attempt else self._core._try()

    async def next(self, timeout=_OMITTED):
        """Awaits the next Message; arguments and errors are those of plait.Subscriber.next()."""
        if timeout is _OMITTED:
            timeout = self._timeout
        if timeout is None:
            return await self._wait()
        if timeout == 0 and self._loop is not None and isinstance(message := self._take(), plait.Message):
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
