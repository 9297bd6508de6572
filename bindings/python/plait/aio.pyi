from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from . import _plait
from ._plait import Message, Reply, Request, _Answer, _Body

__all__ = ["Client", "Publisher", "Server", "Subscriber", "connect", "serve", "subscribe"]

_Handler = Callable[[Request], _Answer | Awaitable[_Answer]]
_H = TypeVar("_H", bound=Callable[[Request], _Answer | Awaitable[_Answer]])

class Client:
    def __init__(self, core: _plait.Client, timeout: float | None) -> None: ...
    async def call(
        self,
        method: str = "",
        data: _Body = b"",
        *,
        json: Any = ...,
        timeout: float | None = ...,
        idempotent: bool = False,
        ordered: bool = False,
        trace: int = 0,
    ) -> Reply: ...
    async def send(
        self,
        method: str = "",
        data: _Body = b"",
        *,
        json: Any = ...,
        timeout: float | None = ...,
        ordered: bool = False,
        trace: int = 0,
    ) -> None: ...
    async def methods(self) -> list[str]: ...
    @property
    def transport(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def closed(self) -> bool: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    def __del__(self) -> None: ...

async def connect(
    target: str,
    *,
    connect_timeout: float | None = 5.0,
    timeout: float | None = 30.0,
    peer: str | int | None = None,
    max_message: int = 0,
    spin_us: int = 0,
) -> Client: ...

class Server(_plait.Server):
    def __new__(
        cls,
        name: str,
        *,
        exclusive: bool = False,
        allow: str | None = None,
        max_message: int = 0,
        inbound_bytes: int = 0,
        outstanding: int = 0,
        spin_us: int = 0,
    ) -> Self: ...
    def __init__(
        self,
        name: str,
        *,
        exclusive: bool = False,
        allow: str | None = None,
        max_message: int = 0,
        inbound_bytes: int = 0,
        outstanding: int = 0,
        spin_us: int = 0,
    ) -> None: ...
    def handle(self, method: str, handler: _Handler) -> None: ...
    def method(self, name: str = "") -> Callable[[_H], _H]: ...
    def start(self) -> None: ...
    async def run(self) -> None: ...
    async def wait_stopped(self) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    def __del__(self) -> None: ...

class Publisher:
    def __init__(
        self,
        topic: str,
        reliable: bool = False,
        history: int = 0,
        *,
        listen: str | None = None,
        allow: str | None = None,
        timeout: float | None = 1.0,
        wait_subscribers: int = 0,
        max_message: int = 0,
    ) -> None: ...
    async def publish(self, data: _Body = ..., *, json: Any = ...) -> None: ...
    async def loan(self, shape: Any, dtype: Any = None) -> Any: ...
    @property
    def topic(self) -> str: ...
    @property
    def urls(self) -> list[str]: ...
    @property
    def subscribers(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

class Subscriber:
    def __init__(self, topic: str, timeout: float | None, options: dict[str, Any]) -> None: ...
    async def next(self, timeout: float | None = ...) -> Message: ...
    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> Message: ...
    @property
    def topic(self) -> str: ...
    @property
    def publishers(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

async def serve(
    name: str,
    handlers: _Handler | Mapping[str, _Handler],
    *,
    listen: str | Iterable[str] = (),
    exclusive: bool = False,
    allow: str | None = None,
    max_message: int = 0,
    inbound_bytes: int = 0,
    outstanding: int = 0,
    spin_us: int = 0,
) -> None: ...
def subscribe(
    topic: str,
    history: int = 0,
    reliable: bool | None = None,
    timeout: float | None = None,
    *,
    connect_timeout: float | None = 5.0,
    peer: str | int | None = None,
    max_message: int = 0,
    spin_us: int = 0,
) -> Subscriber: ...
