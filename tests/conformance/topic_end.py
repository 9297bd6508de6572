"""topic_end: as topic_end.c says, with the Python package."""

import sys
import zlib

import plait


def array_of(line):
    import numpy
    return numpy.frombuffer(line, "u1")[:len(line) // 3 * 3].reshape(-1, 3)


def pub(topic, history, wait, encoding, listen=None):
    with plait.Publisher(topic, reliable=True, history=int(history), wait_subscribers=int(wait), timeout=60.0,
                         listen=listen) as publisher:
        for url in publisher.urls:
            print("listening on", url, flush=True)
        for line in sys.stdin.buffer:
            line = line[:-1]
            publisher.publish(array_of(line) if encoding == "array" else line.decode())


def sub(topic, history, count):
    with plait.subscribe(topic, history=int(history), timeout=60.0) as subscriber:
        for _ in range(int(count)):
            message = subscriber.next()
            body, more = message, []
            if message.encoding == "array":
                body = message.array()
                more = [body.dtype.str, *body.shape]
                body = bytes(body)
            with memoryview(body) as view:
                encoding = {"text": "utf8"}.get(message.encoding, message.encoding)
                print(message.number, message.lost, encoding, len(view), zlib.adler32(view), message.topic,
                      *more)


globals()[sys.argv[1]](*sys.argv[2:])
