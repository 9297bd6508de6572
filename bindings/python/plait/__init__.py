"""plait: call other programs on this machine by name, through shared memory; and others over TCP.

    with plait.connect("greeter") as client:
        print(client.call("greet", "Ada").text)

    plait.serve("greeter", {"greet": lambda request: f"hello, {request.text}"})

plait.aio has the same for asyncio. Time spans are seconds: omitted is the default, None is for ever, 0 is at once.
docs/python.md has the rest.
"""

import atexit as _atexit

from ._errors import Error, NoSuchName, PeerDied, RemoteError, TimeoutError
from . import _plait
from ._plait import Client, Peer, Reply, Request
from ._server import Server, serve

__all__ = ["Client", "Error", "NoSuchName", "Peer", "PeerDied", "RemoteError", "Reply", "Request", "Server",
           "TimeoutError", "connect", "serve"]
__version__ = _plait.version

for _error in (Error, NoSuchName, PeerDied, RemoteError, TimeoutError):
    _error.__module__ = "plait"
for _thing in (Server, serve):
    _thing.__module__ = "plait"
del _error, _thing

_atexit.register(_plait._shutdown)  # threads of a server must not outlive the interpreter


def connect(target, *, connect_timeout=5.0, timeout=30.0, peer=None, max_message=0, spin_us=0):
    """Connects to TARGET and returns a Client; `with` closes it.

    target (str): a name, "name?shm=off", tcp://HOST:PORT, unix:///PATH, with ?framing=plait|raw|lines|length.
    connect_timeout (float | None): seconds that an absent name is waited for.
    timeout (float | None): seconds that a call of this client may take, if the call says nothing else.
    peer (str | int | None): another user whose services are accepted, too.
    max_message (int): bytes of a reply; 0: 1 GiB locally, 16 MiB over the network.
    spin_us (int): microseconds of looking before sleeping; 0: adaptive, -1: never.

    Raises NoSuchName, TimeoutError, Error (code ECONNREFUSED, EACCES, EPROTO, EINVAL, ...), TypeError, ValueError.
    """
    return Client(target, connect_timeout=connect_timeout, timeout=timeout, peer=peer, max_message=max_message,
                  spin_us=spin_us)
