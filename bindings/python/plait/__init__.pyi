from collections.abc import Callable

from . import aio as aio
from ._errors import Error, NoSuchName, PeerDied, RemoteError, TimeoutError
from ._plait import Client, Loan, Message, Peer, Publisher, Reply, Request
from ._server import Server, serve
from ._subscriber import Subscriber

__all__ = [
    "Client",
    "Error",
    "Loan",
    "Message",
    "NoSuchName",
    "Peer",
    "PeerDied",
    "Publisher",
    "RemoteError",
    "Reply",
    "Request",
    "Server",
    "Subscriber",
    "TimeoutError",
    "connect",
    "serve",
    "subscribe",
]
__version__: str

def connect(
    target: str,
    *,
    connect_timeout: float | None = 5.0,
    timeout: float | None = 30.0,
    peer: str | int | None = None,
    max_message: int = 0,
    spin_us: int = 0,
) -> Client: ...
def subscribe(
    topic: str,
    history: int = 0,
    reliable: bool | None = None,
    timeout: float | None = None,
    *,
    callback: Callable[[Message], object] | None = None,
    connect_timeout: float | None = 5.0,
    peer: str | int | None = None,
    max_message: int = 0,
    spin_us: int = 0,
) -> Subscriber: ...
