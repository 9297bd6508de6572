"""plait: call other programs on this machine by name, through shared memory; and others over TCP.

    with plait.connect("greeter") as client:
        print(client.call("greet", "Ada").text)

    plait.serve("greeter", {"greet": lambda request: f"hello, {request.text}"})

    with plait.Publisher("news") as publisher:              # to whoever does: for message in plait.subscribe("news")
        publisher.publish("rain")

plait.aio has the same for asyncio. Time spans are seconds: omitted is the default, None is for ever, 0 is at once.
docs/python.md has the rest.
"""

import atexit as _atexit

from ._errors import Error, NoSuchName, PeerDied, RemoteError, TimeoutError
from . import _plait
from ._plait import Client, Loan, Message, Peer, Publisher, Reply, Request
from ._server import Server, serve
from ._subscriber import Subscriber

__all__ = ["Client", "Error", "Loan", "Message", "NoSuchName", "Peer", "PeerDied", "Publisher", "RemoteError", "Reply",
           "Request", "Server", "Subscriber", "TimeoutError", "connect", "serve", "subscribe"]
__version__ = _plait.version

for _error in (Error, NoSuchName, PeerDied, RemoteError, TimeoutError):
    _error.__module__ = "plait"
for _thing in (Server, Subscriber, serve):
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


def subscribe(topic, history=0, reliable=None, timeout=None, *, callback=None, connect_timeout=5.0, peer=None,
              max_message=0, spin_us=0):
    """Subscribes to TOPIC and returns a Subscriber: `for message in subscriber`; `with` closes it.

    topic (str): a name, "sensors.*" (all topics of that prefix, also later ones), "*", or tcp://HOST:PORT/TOPIC,
        unix:///PATH. Nobody need publish yet.
    history (int): earlier messages to get of each publisher that is there.
    reliable (bool | None): None: as each publisher offers; True: refuse those that aren't; False: hold none up.
    timeout (float | None): seconds that next() and iterating wait for a message before they raise TimeoutError.
    callback (callable): is called with each message, in a thread of its own, until close(): instead of next() and
        iterating. What it raises goes to threading.excepthook, and the next message follows; sys.exit() closes.
    connect_timeout (float | None): seconds, for URLs.
    peer (str | int | None): another user whose topics are accepted, too.
    max_message (int): bytes; 0: 1 GiB locally, 16 MiB over the network.
    spin_us (int): microseconds of looking before sleeping; 0: adaptive, -1: never.

    Raises NoSuchName (a service has this name), TimeoutError, Error (code EOPNOTSUPP: not reliable, ECONNREFUSED,
    EINVAL, ...), TypeError, ValueError.
    """
    if callback is not None and not callable(callback):
        raise TypeError(f"a callback is called with a message; {callback!r} cannot be called")
    if callback is not None and timeout is not None:
        raise TypeError("callback or timeout, not both: a callback is called when something comes, however late")
    subscriber = Subscriber(topic, history, reliable=reliable, timeout=timeout, connect_timeout=connect_timeout,
                            peer=peer, max_message=max_message, spin_us=spin_us)
    if callback is not None:
        subscriber._begin(callback)
    return subscriber
