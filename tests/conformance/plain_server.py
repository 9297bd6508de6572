#!/usr/bin/env python3
"""A server that knows nothing of plait: sockets, and messages as raw, lines or length frame them.

plain_server.py FRAMING LISTEN OUT STOP: for each way to behave it listens on a socket of its own and writes
"WAY URL" to the descriptor OUT, then an empty line. It ends when the descriptor STOP ends.
"""

import os
import socket
import struct
import sys
import threading

framing, listen = sys.argv[1:3]
out, stop = int(sys.argv[3]), int(sys.argv[4])
second = threading.Event()  # of "late": the next request has come


def exactly(stream, size):
    data = stream.read(size)
    if data is None or len(data) < size:
        raise EOFError
    return data


def messages(connection):
    stream = connection.makefile("rb")
    while True:
        if framing == "raw":
            data = connection.recv(1 << 20)
            if not data:
                return
        elif framing == "lines":
            data = stream.readline()
            if not data:
                return
            data = data.rstrip(b"\n")
        else:
            head = stream.read(4)
            if not head:
                return
            data = exactly(stream, struct.unpack(">I", head)[0])
        yield data


def framed(data):
    if framing == "length":
        return struct.pack(">I", len(data)) + data
    return data + b"\n" if framing == "lines" else data


def echo(connection, data):
    connection.sendall(framed(data))


def late(connection, data):
    """"first" is answered only when another request has come, before that one is."""
    if data == b"first":
        second.wait()
        try:
            connection.sendall(framed(data))
        except OSError:
            pass
        answered.set()
        return
    second.set()
    answered.wait()
    echo(connection, data)


answered = threading.Event()


def drop(connection, data):
    """Reads the request and closes."""
    raise EOFError


def cut(connection, data):
    """Half an answer."""
    whole = framed(data)
    connection.sendall(whole[: len(whole) // 2])
    raise EOFError


def pieces(connection, data):
    """One byte after the other."""
    for byte in framed(data):
        connection.sendall(bytes([byte]))


def count(connection, data):
    """The body is a number of bytes; that many come back."""
    connection.sendall(framed(b"b" * int(data)))


def serve(way, connection):
    try:
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for data in messages(connection):
            way(connection, data)
    except (EOFError, OSError):
        pass
    finally:
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        connection.close()


def accept(way, listener):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(way, connection), daemon=True).start()


def serve_datagrams(way, receiver):
    """The same ways, as if the sender were a connection that takes one answer."""
    class Sender:
        def __init__(self, address):
            self.address = address

        def sendall(self, data):
            receiver.sendto(data, self.address)

    while True:
        data, address = receiver.recvfrom(1 << 16)
        threading.Thread(target=way, args=(Sender(address), data), daemon=True).start()


def open_receiver(name):
    six = "[" in listen
    receiver = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("::1" if six else "127.0.0.1", 0))
    return receiver, "udp://%s:%d" % ("[::1]" if six else "127.0.0.1", receiver.getsockname()[1])


def open_listener(name):
    if listen.startswith("unix://"):
        path = listen[len("unix://"):] + name
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        url = "unix://" + path
    elif "[" in listen:
        listener = socket.socket(socket.AF_INET6)
        listener.bind(("::1", 0))
        url = "tcp://[::1]:%d" % listener.getsockname()[1]
    else:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        url = "tcp://127.0.0.1:%d" % listener.getsockname()[1]
    listener.listen(64)
    return listener, url + "?framing=" + framing


lines = ""
for name, way in (("echo", echo), ("late", late), ("drop", drop), ("cut", cut), ("pieces", pieces), ("bytes", count)):
    if framing == "datagram":
        listener, url = open_receiver(name)
        serving = serve_datagrams
    else:
        listener, url = open_listener(name)
        serving = accept
    threading.Thread(target=serving, args=(way, listener), daemon=True).start()
    lines += f"{name} {url}\n"
os.write(out, (lines + "\n").encode())
os.close(out)
os.read(stop, 1)
os._exit(0)
