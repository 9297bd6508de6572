from . import aio as aio
from ._errors import Error, NoSuchName, PeerDied, RemoteError, TimeoutError
from ._plait import Client, Peer, Reply, Request
from ._server import Server, serve

__all__ = [
    "Client",
    "Error",
    "NoSuchName",
    "Peer",
    "PeerDied",
    "RemoteError",
    "Reply",
    "Request",
    "Server",
    "TimeoutError",
    "connect",
    "serve",
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
