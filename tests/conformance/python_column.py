#!/usr/bin/python3
"""The conformance column of Python: both sides, each a process that column_python.c starts.

python_column.py serve FRAMING METHODS NAME MAX_MESSAGE THREADS LOOP OPTION URL... OUT STOP: serves METHODS, separated by
    blanks; without URLs by name, else with one for each (framing=plait: one for all). Writes "METHOD URL" lines and an
    empty one to OUT; ends in order when STOP ends. LOOP: 1: on an asyncio loop.
python_column.py call TARGET MAX_MESSAGE: connects, then answers each call that it reads on standard input.
"""

import asyncio
import errno
import os
import struct
import sys
import threading

import plait
import plait.aio

# ---- the server ----

held = []


def echo(request):
    return request.body


def fail(request):
    raise plait.RemoteError("boom: " + request.text, status=7)


def late(request):
    """"first" is held; whatever comes next answers it, and only then itself."""
    future = asyncio.get_running_loop().create_future()
    body = request.body
    if body == b"first":
        held.append((future, body))
        return future
    for waiting, first in held:
        waiting.set_result(first)
    held.clear()
    asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, future.set_result, body)
    return future


async def later(request):
    return await asyncio.get_running_loop().run_in_executor(None, lambda: request.body)


HANDLERS = {
    "echo": echo,
    "fail": fail,
    "late": late,
    "later": later,
    "mute": lambda request: 3,  # no answer can be made of this
    "two_lines": lambda request: "two\nlines",
    "bytes": lambda request: b"b" * int(request.text),
}


def announce(server, framing, methods, target, option, urls, out):
    def optioned(url):
        return f"{url}{'&' if '?' in url else '?'}{option}" if option and framing == "plait" else url

    with os.fdopen(out, "w") as stream:
        if not urls:
            print("*", optioned(target), file=stream)
        for method, url in zip(["*"] if framing == "plait" else methods, urls):
            server.listen(url)
            print(method, optioned(server.urls[-1]), file=stream)
        print(file=stream)


async def serve_in_loop(name, options, methods, told, stop):
    loop = asyncio.get_running_loop()
    server = plait.aio.Server(name, **options)
    for method in methods:
        server.handle(method, HANDLERS[method])
    announce(server, *told)
    loop.add_reader(stop, lambda: (loop.remove_reader(stop), server.stop()))
    await server.run()


def serve(framing, methods, name, max_message, threads, loop, option, *rest):
    *urls, out, stop = rest
    methods = list(HANDLERS) if framing == "plait" else methods.split()
    options, stop = {"max_message": int(max_message)}, int(stop)
    told = (framing, methods, name, option, urls, int(out))
    if loop == "1" or {"late", "later"} & set(methods):
        asyncio.run(serve_in_loop(name, options, methods, told, stop))
        return
    with plait.Server(name, max(1, int(threads)), **options) as server:
        for method in methods:
            server.handle(method, HANDLERS[method])
        announce(server, *told)
        server.start()
        while os.read(stop, 1):
            pass


# ---- the client ----


def call(target, max_message):
    source, sink = open(0, "rb"), open(1, "wb")  # buffered, whatever the environment says

    def say(result, status, body, text):
        text = text.encode()
        sink.write(struct.pack("=iIQQ", result, status, len(body), len(text)))
        sink.write(body)
        sink.write(text)
        sink.flush()

    try:
        client = plait.connect(target, max_message=int(max_message))
    except plait.Error as error:
        return say(-error.code, 0, b"", str(error))
    say(0, 0, b"", "")
    with client:
        while head := source.read(24):
            name, size, timeout = struct.unpack("=QQq", head)
            method, body = source.read(name).decode(), source.read(size)
            options = {"timeout": timeout / 1e3} if timeout else {}
            try:
                with memoryview(client.call(method, body, **options)) as reply:
                    say(0, 0, reply, "")
            except plait.RemoteError as error:
                say(-errno.EREMOTEIO, error.status, b"", error.traceback)
            except plait.Error as error:
                say(-error.code, 0, b"", str(error))


globals()[sys.argv[1]](*sys.argv[2:])
