from collections.abc import Callable
from types import TracebackType

from . import _plait
from ._plait import Message

END: float

class Subscriber(_plait.Subscriber):
    def close(self) -> None: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    def _begin(self, callback: Callable[[Message], object]) -> None: ...
