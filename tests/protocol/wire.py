"""docs/protocol.md's sections Hellos and Frames: bytes to meaning, over any stream socket. See
client_from_the_document.py."""

import collections
import mmap
import os
import socket
import struct

PATIENCE = 60  # seconds without a word from the other side


class Refused(Exception):
    """The server's hello has a result: args are the errno and the text."""


class BrokenProtocol(Exception):
    """What the other side said, or wrote into shared memory, can't be."""


def demand(condition, what):
    if not condition:
        raise BrokenProtocol(what)


# ---- Hellos ----

SHM, GOAWAY, ANY_METHOD, TOPIC, RELIABLE = 1, 2, 4, 8, 16
ABI = (1 if struct.pack("=H", 1)[0] else 2) | struct.calcsize("P") << 8 | (mmap.PAGESIZE.bit_length() - 1) << 16


def client_hello(name, features, max_reply_mib=0, abi=ABI):
    return struct.pack("<4sHHIIQB7x", b"PLAI", 1, 0, abi, max_reply_mib, features, len(name)) + name.encode()


Hello = collections.namedtuple("Hello", "result tail_size features instance max_message pid outstanding concurrency "
                                        "capacity method_count")


def parse_server_hello(head):
    magic, major, _, *rest, zero = struct.unpack("<4sHHIIQQQIIIIII", head)
    demand(magic == b"PLAS", f"this is no plait server: {head[:8]!r}")
    demand(major == 1, f"it speaks protocol {major}, this is 1")
    hello = Hello(*rest)
    demand(zero == 0 and hello.result <= 4095 and hello.tail_size <= 103424 and hello.method_count <= 1024, hello)
    return hello


def parse_methods(hello, tail):
    methods, at = [], 0
    while at < len(tail):
        size = tail[at]
        demand(size <= 100 and at + 1 + size <= len(tail), "the method table ends early")
        methods.append(tail[at + 1:at + 1 + size].decode())
        at += 1 + size
    demand(len(methods) == hello.method_count, "the method table has another length than was said")
    return methods


class Socket:
    """Exactly so many bytes from a stream, and the descriptors that ride on them."""

    def __init__(self, connection):
        self.connection = connection
        self.connection.settimeout(PATIENCE)
        self.descriptors = []

    def read(self, size):
        data = b""
        while len(data) < size:
            if self.connection.family == socket.AF_UNIX:
                piece, descriptors, flags, _ = socket.recv_fds(self.connection, min(size - len(data), 1 << 20), 4)
                self.descriptors += descriptors
                demand(not flags & socket.MSG_CTRUNC, "descriptors were cut off")
            else:
                piece = self.connection.recv(min(size - len(data), 1 << 20))
            if not piece:
                raise ConnectionError("the other side closed the connection")
            data += piece
        return data

    def take_descriptors(self):
        taken, self.descriptors = self.descriptors, []
        return taken

    def write(self, data):
        self.connection.sendall(data)

    def close(self):
        for descriptor in self.take_descriptors():
            os.close(descriptor)
        self.connection.close()


def greet(stream, hello):
    """Says HELLO; the server's and its tail."""
    stream.write(hello)
    answer = parse_server_hello(stream.read(64))
    tail = stream.read(answer.tail_size)
    if answer.result:
        raise Refused(answer.result, tail.decode(errors="replace"))
    return answer, tail


# ---- Frames ----

(CALL, SEND, REPLY, CANCEL, GOAWAY_FRAME, PAD, SEGMENT, BODY, SUBSCRIBE, MESSAGE, DROPPED) = range(1, 12)
IGNORABLE, IDEMPOTENT, IN_SEGMENT, ON_SOCKET, NAMED = 1, 2, 4, 8, 16
NO_NAME = 0xffffffff  # as method
PAYLOADS = {CANCEL: 0, SUBSCRIBE: 0, DROPPED: 0, GOAWAY_FRAME: 8, SEGMENT: 16}
LIMIT = 1 << 30

Frame = collections.namedtuple("Frame", "size kind encoding flags zero method time_left call trace payload",
                               defaults=(b"",))
HEAD = "<IBBBBIIQQ"


def frame(kind, payload=b"", *, size=None, encoding=0, flags=0, method=0, time_left=0, call=0, trace=0):
    """Its bytes; with SIZE the payload is to follow."""
    size = len(payload) if size is None else size
    return struct.pack(HEAD, size, kind, encoding, flags, 0, method, time_left, call, trace) + payload


def parse_head(head):
    """The frame without its payload; None: to be skipped with as many bytes as the first four say."""
    found = Frame(*struct.unpack(HEAD, head))
    demand(found.size <= LIMIT, found)
    if not CALL <= found.kind <= DROPPED:
        demand(found.kind and found.flags & IGNORABLE, found)
        return None
    place = found.flags & (IN_SEGMENT | ON_SOCKET)
    demand(found.flags < 32 and found.encoding <= 3 and found.zero == 0, found)
    demand(found.size == PAYLOADS.get(found.kind, found.size), found)
    demand(not place or found.kind in (CALL, SEND, REPLY), found)
    demand(found.size == {0: found.size, IN_SEGMENT: 16, ON_SOCKET: 8}.get(place), found)
    demand(not found.flags & NAMED or found.kind in (CALL, SEND), found)
    return found


def read_frame(stream):
    while True:
        head = stream.read(32)
        found = parse_head(head)
        if found:
            return found
        stream.read(int.from_bytes(head[:4], "little"))
