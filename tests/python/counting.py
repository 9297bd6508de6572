"""What 100,000 calls, and some of all else, leave behind."""

import os

from support import PATIENCE

CALLS = f"""
import sys
sys.path.append({os.path.dirname(os.path.abspath(__file__))!r})
""" + """
import gc, plait
from memory import lent_by_malloc
server = plait.Server("counted")
server.handle("", lambda request: request.body)
server.handle("raise", lambda request: 1 / 0)
server.start()
client, body = plait.connect("counted"), b"a body that is counted"
publisher, large = plait.Publisher("told"), bytes(20_000)
subscriber = plait.subscribe("told", timeout=60)

def others():
    bytes(client.call("", {"json": [1]})), client.call("", "text").text, client.methods(), client._methods()
    client.send("", body), client._send("", body), client.loan(20_000), client.call("", client.loan(20_000))
    for publish in (publisher.publish, publisher._try):
        for what in (body, large, [1]):
            publish(what)
            message = subscriber.next()
            bytes(message), message.topic, message.lost, message.time, memoryview(message)
    publisher._ready(3), publisher.urls, publisher.subscribers, subscriber.publishers, repr(client)
    with plait.connect("counted") as other, plait.Publisher("other"), plait.subscribe("other"):
        other.call("", body)
    for wrong in (lambda: client.call("raise"), lambda: client.call("", 3), lambda: client.call("no"), other.call,
                  lambda: publisher.publish(3), lambda: publisher._try(3), lambda: subscriber.next(timeout=0),
                  lambda: plait.connect("absent", connect_timeout=0), lambda: plait.subscribe("counted")):
        try:
            wrong()
        except (plait.Error, TypeError):
            pass

def calls(count):
    for i in range(count):
        client.call("", body)
        if i % 1000 == 0:
            others()
    gc.collect()

def measure():
    return [sys.getrefcount(body), sys.getallocatedblocks(), lent_by_malloc(), MEASURE()]

calls(3000)
before = measure()
calls(100_000)
print("ready", flush=True)
print(*(after - earlier for after, earlier in zip(measure(), before)))
"""


def grown(case, python, preamble, measure):
    """By how much grew: references to the body, blocks, bytes lent by malloc, and MEASURE()."""
    process = case.script(preamble + CALLS.replace("MEASURE", measure), python=python)
    out, err = process.communicate(timeout=PATIENCE)
    case.assertEqual((process.returncode, err), (0, ""))
    return [int(word) for word in out.split()]
