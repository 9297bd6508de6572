"""A client that was written from docs/protocol.md alone, with nothing but the standard library.

Section by section as the document has them: Finding a server, Conversation and Topics are here, Hellos and Frames in
wire.py, Shared memory in memory.py. What it would have to look up elsewhere is missing in the document. It is made to be
read: one thread, and no deadline but one for everything. test_client.py runs it against real servers.
"""

import collections
import fcntl
import os
import random
import socket
import struct

from memory import Message, ShmChannel, TopicMemory
from wire import (ANY_METHOD, BODY, CALL, CANCEL, DROPPED, GOAWAY, GOAWAY_FRAME, IN_SEGMENT, MESSAGE, NAMED, NO_NAME,
                  ON_SOCKET, PAD, REPLY, SEGMENT, SEND, SHM, SUBSCRIBE, TOPIC, Socket, client_hello, demand, frame, greet,
                  parse_methods, read_frame)

# ---- Finding a server ----


def runtime_directories(peer=None):
    """(path, owner's uid) of the directories that names are looked for in, the missing ones included."""
    user = os.geteuid()
    chosen, runtime = (os.environ.get(key) or None for key in ("PLAIT_DIR", "XDG_RUNTIME_DIR"))
    top = os.path.join(chosen, "shared") if chosen else "/run/plait"
    own = chosen
    if chosen and os.path.isdir(chosen) and os.stat(chosen).st_mode & 0o1000:
        own = os.path.join(chosen, str(user))
    elif not chosen and runtime:
        own = os.path.join(runtime, "plait")
    elif not chosen:
        parent = f"/run/user/{user}"
        usable = os.path.isdir(parent) and os.stat(parent).st_uid == user
        own = os.path.join(parent, "plait") if usable else f"/tmp/plait-{user}"
    places = [(own, user), (os.path.join(top, "0"), 0)]
    return places if peer in (None, 0) else places + [(os.path.join(top, str(peer)), peer)]


def believed(path, owner):
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    return status.st_uid == owner and status.st_mode & 0o170022 == 0o040000


FLOCK = "hhqqi4x"  # type, whence, start, length, pid


def is_locked(descriptor):
    question = struct.pack(FLOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, question)
    return struct.unpack(FLOCK, answer)[0] != fcntl.F_UNLCK


def has_ended(entry):
    """Where it can be known: in the same pid namespace."""
    if entry.get("ns", "0") != str(os.stat("/proc/self/ns/pid").st_ino):
        return False
    try:
        with open(f"/proc/{entry['pid']}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except FileNotFoundError:
        return True
    return fields[0] in "ZX" or entry["start"] not in ("0", fields[19])


def read_entry(path, owner):
    """The living entry at PATH as a dictionary, or None."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if status.st_uid != owner or status.st_mode & 0o170000 != 0o100000 or not is_locked(descriptor):
            return None
        entry = {}
        for line in os.pread(descriptor, 4096, 0).decode(errors="replace").splitlines():
            key, _, value = line.partition(" ")
            entry[key] = value
            if key == "urls":
                break
        return None if has_ended(entry) else entry
    finally:
        os.close(descriptor)


Instance = collections.namedtuple("Instance", "directory id entry")


def find(name, kind="services", peer=None):
    """The living instances of NAME, or with kind="topics" its publishers, in random order."""
    found = {}
    for directory, owner in runtime_directories(peer):
        folder = os.path.join(directory, kind)
        if not believed(directory, owner) or not believed(folder, owner):
            continue
        for file in os.listdir(folder):
            at, _, number = file.rpartition("@")
            if at == name and len(number) == 16 and set(number) <= set("0123456789abcdef"):
                entry = read_entry(os.path.join(folder, file), owner)
                if entry and entry["id"] == number:
                    found.setdefault(number, Instance(directory, number, entry))
    return random.sample(list(found.values()), len(found))


def connect_instance(instance, peer=None):
    """A connected socket, or None: the instance ended meanwhile."""
    folder = os.open(os.path.join(instance.directory, "s"), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(f"/proc/self/fd/{folder}/{instance.id}")
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    finally:
        os.close(folder)
    uid = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
    if uid not in (os.geteuid(), 0, peer):
        connection.close()
        raise PermissionError(f"uid {uid} serves there")
    return connection


def connect_name(name, kind="services", peer=None):
    for instance in find(name, kind, peer):
        connection = connect_instance(instance, peer)
        if connection:
            return connection
    raise FileNotFoundError(name)


# ---- Conversation ----


class StreamChannel:
    """Frames on the socket itself."""

    def __init__(self, stream):
        self.stream = stream

    def send(self, data):
        self.stream.write(data)

    def receive(self):
        found = read_frame(self.stream)
        demand(not found.flags & (IN_SEGMENT | ON_SOCKET) and found.kind not in (PAD, SEGMENT, BODY), found)
        return found._replace(payload=self.stream.read(found.size))

    def close(self):
        self.stream.close()


Reply = collections.namedtuple("Reply", "status encoding body trace")


class Client:
    """One connection to one instance of NAME ("": whatever the listener serves). Takes CONNECTION."""

    def __init__(self, connection, name="", shm=False):
        stream = Socket(connection)
        try:
            self.hello, tail = greet(stream, client_hello(name, GOAWAY | ANY_METHOD | (SHM if shm else 0)))
            self.methods = parse_methods(self.hello, tail)
            self.shm = bool(self.hello.features & SHM)
            self.channel = ShmChannel(stream, self.hello) if self.shm else StreamChannel(stream)
        except BaseException:
            stream.close()
            raise
        self.calls = self.frames = 0
        self.position = None  # that a GOAWAY told
        self.replies = {}

    def name_method(self, method):
        """What the head says, and what stands before the body."""
        if method in self.methods:
            return dict(method=self.methods.index(method)), b""
        if method and self.hello.features & ANY_METHOD:
            return dict(method=NO_NAME, flags=NAMED), bytes([len(method)]) + method.encode()
        return dict(method=0xfffffffe if method else NO_NAME), b""  # the server says that there is none

    def begin(self, method, body=b"", encoding=0, timeout=0, trace=0, kind=CALL, **how):
        """Sends, and gives the call's id."""
        self.calls += kind == CALL
        self.frames += 1
        fields, before = self.name_method(method)
        units = min(-(-timeout * 100000 // 1), 0xffffffff) if timeout else 0
        self.channel.send(frame(kind, before + body, encoding=encoding, time_left=int(units), trace=trace,
                                call=self.calls if kind == CALL else 0, **fields), **how)
        return self.calls

    def send(self, method, body=b"", **options):
        self.begin(method, body, kind=SEND, **options)

    def cancel(self, call):
        self.channel.send(frame(CANCEL, call=call))

    def wait(self, call):
        while call not in self.replies:
            self.hear()
        return self.replies.pop(call)

    def hear(self):
        found = self.channel.receive()
        demand(found.kind in (REPLY, GOAWAY_FRAME), found)
        if found.kind == GOAWAY_FRAME:
            self.position, = struct.unpack("<Q", found.payload)
        else:
            self.replies[found.call] = Reply(found.method, found.encoding, found.payload, found.trace)

    def call(self, method, body=b"", **options):
        return self.wait(self.begin(method, body, **options))

    def close(self):
        self.channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# ---- Topics ----

GATES, GO_ON, ONLY_RELIABLE = 1, 2, 4


class Subscriber:
    """One publisher, heard over a socket or (shm=True) read in shared memory. Takes CONNECTION."""

    def __init__(self, connection, topic="", history=0, shm=False, only_reliable=False, go_on=None):
        """GO_ON: (publisher's id, number of the first message wanted)."""
        publisher, first = go_on or (0, history)
        how = (GO_ON if go_on else 0) | (ONLY_RELIABLE if only_reliable else 0)
        self.stream = Socket(connection)
        self.memory = None
        try:
            self.hello, tail = greet(self.stream, client_hello(topic, TOPIC | (SHM if shm else 0)) +
                                     frame(SUBSCRIBE, method=how, call=first, trace=publisher))
            demand(self.hello.features & TOPIC, "it is no topic")
            self.topic, = parse_methods(self.hello, tail)
            if self.hello.features & SHM:
                self.memory = TopicMemory(self.stream, self.hello)
            else:
                found = read_frame(self.stream)
                demand(found.kind == SUBSCRIBE, found)
                self.due = found.call
        except BaseException:
            self.close()
            raise

    @property
    def publisher(self):
        return self.hello.instance

    def next(self):
        if self.memory:
            return self.memory.next()
        while True:
            found = read_frame(self.stream)
            demand(found.kind in (MESSAGE, DROPPED), found)
            if found.kind == MESSAGE:
                break
        body = self.stream.read(found.size)
        demand(found.call >= self.due, f"message {found.call}, {self.due} was due")
        lost = found.call - self.due if self.due else 0
        self.due = found.call + 1
        return Message(found.call, lost, found.encoding, body, found.trace)

    def close(self):
        if self.memory:
            self.memory.close()
        self.stream.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
