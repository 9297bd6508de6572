from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from . import _plait
from ._plait import Request

_Handler = Callable[[Request], _plait._Answer]
_C = TypeVar("_C", bound=Callable[[], Any])
_H = TypeVar("_H", bound=Callable[[Request], _plait._Answer])

IDLE: float

class Server(_plait.Server):
    def __new__(
        cls,
        name: str,
        threads: int = 1,
        processes: int = 0,
        *,
        start: Literal["fork", "spawn"] = "fork",
        **options: Any,
    ) -> Self: ...
    def __init__(
        self,
        name: str,
        threads: int = 1,
        processes: int = 0,
        *,
        start: Literal["fork", "spawn"] = "fork",
        restart_burst: int = 0,
        exclusive: bool = False,
        allow: str | None = None,
        max_message: int = 0,
        inbound_bytes: int = 0,
        outstanding: int = 0,
        spin_us: int = 0,
    ) -> None: ...
    def handle(self, method: str, handler: Callable[[Request], Any], /) -> None: ...
    def method(self, name: str = "") -> Callable[[_H], _H]: ...
    def state(self, make: _C) -> _C: ...
    def start(self) -> None: ...
    def close(self) -> None: ...
    def run(self) -> None: ...
    def stop(self, grace: float | None = 5.0) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    def __del__(self) -> None: ...

def set_up(server: Any, handlers: Any, listen: str | Iterable[str]) -> None: ...
def serve(
    name: str,
    handlers: _Handler | Mapping[str, _Handler] | type[Any],
    threads: int = 1,
    processes: int = 0,
    *,
    start: Literal["fork", "spawn"] = "fork",
    listen: str | Iterable[str] = (),
    restart_burst: int = 0,
    exclusive: bool = False,
    allow: str | None = None,
    max_message: int = 0,
    inbound_bytes: int = 0,
    outstanding: int = 0,
    spin_us: int = 0,
) -> None: ...
