"""docs/protocol.md's section Shared memory, and the part of Topics that lies there. See client_from_the_document.py.

This relies on x86-64, where aligned loads and stores of a word are whole and in order, and taking a lock is a full
fence: Python has no atomics.
"""

import collections
import fcntl
import mmap
import os
import select
import socket
import struct
import threading

from wire import (BODY, IN_SEGMENT, LIMIT, ON_SOCKET, PAD, PATIENCE, SEGMENT, demand, frame, parse_head,
                  read_frame)

# ---- Words ----

ALIGNMENT = 32  # of positions in a ring
INLINE_MAX = 8192
REQUESTS, REPLIES = 64, 320  # where the words of a ring begin in the control page
TAIL, SKIP, HEAD_WORD, SLEEPING, STARVED = 0, 8, 64, 128, 192
TAKEN, RETURNED_OURS, RETURNED_THEIRS, WANTED_OURS, WANTED_THEIRS = 768, 832, 1088, 1344, 1348
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL

LOCK = threading.Lock()


def fence():
    with LOCK:
        pass


def aligned(size):
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


class Memory:
    """A mapped memfd whose words are read and written whole. Takes DESCRIPTOR. (That it lies on tmpfs can't be asked
    with the standard library.)"""

    def __init__(self, descriptor, size, write=True):
        try:
            status = os.fstat(descriptor)
            demand(status.st_size == size, f"{status.st_size} bytes of memory instead of {size}")
            demand(fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & SEALS == SEALS, "the memory isn't sealed")
            protection = mmap.PROT_READ | (mmap.PROT_WRITE if write else 0)
            self.bytes = mmap.mmap(descriptor, size, mmap.MAP_SHARED, protection)
        finally:
            os.close(descriptor)
        self.words4 = memoryview(self.bytes).cast("I")
        self.words8 = memoryview(self.bytes).cast("Q")

    def get4(self, offset):
        return self.words4[offset // 4]

    def set4(self, offset, value):
        self.words4[offset // 4] = value

    def get8(self, offset):
        return self.words8[offset // 8]

    def set8(self, offset, value):
        self.words8[offset // 8] = value

    def close(self):
        self.words4.release()
        self.words8.release()
        self.bytes.close()


def copy_round(memory, start, capacity, position, size):
    """SIZE bytes from POSITION on, which may reach beyond the ring's end."""
    at = start + position % capacity
    first = min(size, start + capacity - at)
    return memory[at:at + first] + memory[start:start + size - first]


class Ring:
    """One direction. Positions run free; ours are kept here and only published."""

    def __init__(self, memory, words, start, capacity, ring_bell):
        self.memory, self.words, self.start, self.capacity = memory, words, start, capacity
        self.ring_bell = ring_bell
        self.head = self.tail = 0  # one is ours, the other as last seen and checked
        self.skips = 0

    def get(self, word):
        return self.memory.get8(self.words + word)

    def tell(self, word, position, announced):
        """Publishes our position and wakes the other side if it announced that it waits for that."""
        self.memory.set8(self.words + word, position)
        fence()
        if self.memory.get4(self.words + announced):
            self.memory.set4(self.words + announced, 0)
            self.ring_bell()

    def announce(self, word, useless):
        """True: sleep. USELESS asks for what has come meanwhile."""
        self.memory.set4(self.words + word, 1)
        fence()
        if not useless():
            return True
        self.memory.set4(self.words + word, 0)
        return False

    def copy(self, position, size):
        return copy_round(self.memory.bytes, self.start, self.capacity, position, size)

    # producing

    def has_room(self, size):
        head = self.get(HEAD_WORD)
        demand(head % ALIGNMENT == 0 and self.head <= head <= self.tail, f"a head at {head}")
        self.head = head
        return self.tail + aligned(size) - head <= self.capacity

    def put(self, record):
        at = self.tail % self.capacity
        first = min(len(record), self.capacity - at)
        begin = self.start + at
        self.memory.bytes[begin:begin + first] = record[:first]
        self.memory.bytes[self.start:self.start + len(record) - first] = record[first:]
        self.tail += aligned(len(record))
        self.tell(TAIL, self.tail, SLEEPING)

    # consuming

    def look(self):
        """Whether a record is there."""
        if self.head != self.tail:
            return True
        tail = self.get(TAIL)
        demand(tail % ALIGNMENT == 0 and 0 <= tail - self.head <= self.capacity, f"a tail at {tail}")
        if tail != self.head and self.get(SKIP) == self.head and self.head % self.capacity:
            lap = self.head + self.capacity - self.head % self.capacity
            demand(tail >= lap, f"it skips to {lap} and wrote up to {tail}")
            self.skips += 1
            self.head = lap
            self.tell(HEAD_WORD, self.head, STARVED)
        self.tail = tail
        return self.head != self.tail

    def take(self):
        """The next frame with its payload."""
        there = self.tail - self.head
        demand(there >= 32, "a piece of a frame")
        head = self.copy(self.head, 32)
        size = int.from_bytes(head[:4], "little")
        demand(32 + size <= there, f"{there} bytes of a frame of {32 + size}")
        found = parse_head(head)
        payload = self.copy(self.head + 32, size) if found else b""
        self.head += aligned(32 + size)
        self.tell(HEAD_WORD, self.head, STARVED)
        if found is None or found.kind == PAD:
            return None
        demand(size <= INLINE_MAX and found.kind not in (SEGMENT, BODY), found)
        return found._replace(payload=payload)


class OwnSegments:
    """Large bodies of ours in memory that the server reads in place."""

    def __init__(self, channel):
        self.channel, self.announced = channel, 0
        self.segments = []  # [memory, generation, lent, number of the announcement]

    def is_back(self, number):
        segment = self.segments[number]
        returned = self.channel.memory.get4(RETURNED_OURS + 4 * number)
        demand(returned in (segment[1], segment[1] - 1), f"generation {returned} of segment {number} came back")
        return returned == segment[1]

    def make(self, size):
        """A new one, sealed so that nobody else gets to write; announced at once."""
        number, room = len(self.segments), -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        demand(number < 64, "all 64 segments are out")
        descriptor = os.memfd_create("segment", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, room)
        memory = mmap.mmap(descriptor, room)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS | 0x10)  # F_SEAL_FUTURE_WRITE
        self.announced += 1
        announcement = frame(SEGMENT, struct.pack("<IIQ", number, self.announced, room))
        sent = socket.send_fds(self.channel.stream.connection, [announcement], [descriptor])
        self.channel.stream.write(announcement[sent:])
        os.close(descriptor)
        self.segments.append([memory, 0, self.announced])
        return number

    def put(self, body):
        """The payload of the frame in the ring."""
        for number, segment in enumerate(self.segments):
            if len(segment[0]) >= len(body) and self.is_back(number):
                break
        else:
            number = self.make(len(body))
            segment = self.segments[number]
        segment[0][:len(body)] = body
        segment[1] += 1
        return struct.pack("<IIII", number, segment[1], len(body), segment[2])

    def close(self):
        for memory, *_ in self.segments:
            memory.close()


class ShmChannel:
    """Frames through two rings. The socket is for large bodies, and says when the other side is gone."""

    def __init__(self, stream, hello):
        descriptors = stream.take_descriptors()
        demand(len(descriptors) in (3, 4), f"{len(descriptors)} descriptors came with the hello")
        self.stream, self.bell, self.server_bell = stream, descriptors[1], descriptors[2]
        control = max(4096, mmap.PAGESIZE)
        self.memory = Memory(descriptors[0], control + 2 * hello.capacity)
        self.load = Memory(descriptors[3], mmap.PAGESIZE, write=False) if descriptors[3:] else None
        magic, version, capacity = (self.memory.get4(offset) for offset in (0, 4, 8))
        demand((magic, version, capacity) == (0x6c616970, 1, hello.capacity), (magic, version, capacity))
        self.requests = Ring(self.memory, REQUESTS, control, capacity, self.ring_bell)
        self.replies = Ring(self.memory, REPLIES, control + capacity, capacity, self.ring_bell)
        self.segments = OwnSegments(self)
        self.heard, self.views = 0, {}
        self.filed = collections.deque()  # replies that came while we waited for room
        self.ways = collections.Counter()  # how bodies came
        self.gone = False
        self.watch()

    def watch(self):
        os.set_blocking(self.bell, False)
        os.set_blocking(self.server_bell, False)
        pid = struct.unpack("iII", self.stream.connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        self.process = os.pidfd_open(pid)
        self.epoll = select.epoll()
        self.epoll.register(self.bell, select.EPOLLIN | select.EPOLLET)
        self.epoll.register(self.process, select.EPOLLIN | select.EPOLLET)
        self.epoll.register(self.stream.connection.fileno(), select.EPOLLRDHUP | select.EPOLLET)

    def ring_bell(self):
        try:
            os.eventfd_write(self.server_bell, 1)
        except BlockingIOError:
            os.eventfd_read(self.server_bell)
            os.eventfd_write(self.server_bell, 1)

    def sleep(self):
        """Until the bell rings, or the other side is gone."""
        if self.gone:
            raise ConnectionError("the server is gone")
        events = self.epoll.poll(PATIENCE)
        if not events:
            raise TimeoutError(f"nothing happened for {PATIENCE} s")
        if any(descriptor != self.bell for descriptor, _ in events):
            self.gone = True  # what it has published is still to be received

    def put(self, record):
        """Waits for room, and meanwhile empties the other ring."""
        while not self.requests.has_room(len(record)):
            if self.replies.look():
                self.file()
            elif self.requests.announce(STARVED, lambda: self.requests.has_room(len(record))):
                if self.replies.announce(SLEEPING, self.replies.look):
                    self.sleep()
                self.memory.set4(REPLIES + SLEEPING, 0)
                self.memory.set4(REQUESTS + STARVED, 0)
        self.requests.put(record)

    def send(self, data, large="socket"):
        head, body = data[:32], data[32:]
        if len(body) <= INLINE_MAX:
            self.put(data)
            return
        found = parse_head(head)
        fields = dict(encoding=found.encoding, method=found.method, time_left=found.time_left, call=found.call,
                      trace=found.trace)
        if large == "segment":
            self.put(frame(found.kind, self.segments.put(body), flags=found.flags | IN_SEGMENT, **fields))
        else:
            self.put(frame(found.kind, struct.pack("<Q", len(body)), flags=found.flags | ON_SOCKET, **fields))
            self.stream.write(frame(BODY, body, call=found.call))

    # receiving

    def hear_announcement(self, found):
        demand(found.kind == SEGMENT, found)
        number, announcement, size = struct.unpack("<IIQ", self.stream.read(16))
        demand(number < 64 and announcement == self.heard + 1 and size <= LIMIT, (number, announcement, size))
        self.heard = announcement
        before = self.views.pop(number, None)
        if before:
            before.close()
        if size:
            demand(self.stream.descriptors, "an announcement without its memory")
            self.views[number] = Memory(self.stream.descriptors.pop(0), size, write=False)

    def read_segment(self, payload):
        number, generation, size, announcement = struct.unpack("<IIII", payload)
        while announcement > self.heard:
            self.hear_announcement(read_frame(self.stream))
        demand(number in self.views and size <= len(self.views[number].bytes), f"segment {number} is not there")
        body = self.views[number].bytes[:size]
        self.memory.set4(RETURNED_THEIRS + 4 * number, generation)
        fence()
        if self.memory.get4(WANTED_THEIRS):
            self.memory.set4(WANTED_THEIRS, 0)
            self.ring_bell()
        return body

    def read_from_socket(self, call, payload):
        size, = struct.unpack("<Q", payload)
        demand(size <= LIMIT, f"a body of {size} bytes")
        found = read_frame(self.stream)
        while found.kind == SEGMENT:
            self.hear_announcement(found)
            found = read_frame(self.stream)
        demand((found.kind, found.size, found.call) == (BODY, size, call), found)
        return self.stream.read(size)

    def file(self):
        found = self.replies.take()
        if found is None:
            return
        if found.flags & IN_SEGMENT:
            self.ways["segment"] += 1
            found = found._replace(payload=self.read_segment(found.payload))
        elif found.flags & ON_SOCKET:
            self.ways["socket"] += 1
            found = found._replace(payload=self.read_from_socket(found.call, found.payload))
        else:
            self.ways["ring"] += 1
        self.filed.append(found)

    def receive(self):
        while not self.filed:
            if self.replies.look():
                self.file()
            elif self.replies.announce(SLEEPING, self.replies.look):
                self.sleep()
                self.memory.set4(REPLIES + SLEEPING, 0)
        return self.filed.popleft()

    def taken(self):
        return self.memory.get8(TAKEN)

    def close(self):
        self.epoll.close()
        for descriptor in (self.bell, self.server_bell, self.process):
            os.close(descriptor)
        for memory in (self.memory, self.load, *self.views.values()):
            if memory:
                memory.close()
        self.segments.close()
        self.stream.close()


# ---- Topics ----

Message = collections.namedtuple("Message", "number lost encoding body unix_ns")


class TopicMemory:
    """The publisher's ring, which it writes without a look at us: what was copied counts if it wasn't overwritten
    meanwhile."""

    INTENT, TAIL_WORD, MARKS, GENERATIONS = 64, 72, 128, 256
    START, NUMBER, CURSOR, HAZARD = 0, 8, 64, 192
    ALIGNMENT, HEAD_SIZE = 32, 32

    def __init__(self, stream, hello):
        descriptors = stream.take_descriptors()
        demand(len(descriptors) == 4, f"{len(descriptors)} descriptors came with the hello")
        self.stream, self.capacity, self.control = stream, hello.capacity, max(4096, mmap.PAGESIZE)
        self.bell = descriptors[3]
        self.ring = Memory(descriptors[0], self.control + self.capacity, write=False)
        self.waiters = Memory(descriptors[1], mmap.PAGESIZE)
        self.page = Memory(descriptors[2], mmap.PAGESIZE)
        magic, version, capacity = (self.ring.get4(offset) for offset in (0, 4, 8))
        demand((magic, version, capacity) == (0x74616970, 1, self.capacity), (magic, version, capacity))
        self.position, self.due = self.page.get8(self.START), self.page.get8(self.NUMBER)
        self.segments = {}  # id: (memory, which one)
        os.set_blocking(self.bell, False)
        self.epoll = select.epoll()
        self.epoll.register(self.bell, select.EPOLLIN | select.EPOLLET)
        self.epoll.register(stream.connection.fileno(), select.EPOLLIN | select.EPOLLRDHUP)
        for _ in range(hello.outstanding):
            self.hear_announcement()

    def hear_announcement(self):
        found = read_frame(self.stream)
        demand(found.kind == SEGMENT and self.stream.descriptors, found)
        number, which, size = struct.unpack("<IIQ", self.stream.read(16))
        if number in self.segments:
            self.segments[number][0].close()
        self.segments[number] = (Memory(self.stream.descriptors.pop(0), size, write=False), which)

    def copy(self, position, size):
        return copy_round(self.ring.bytes, self.control, self.capacity, position, size)

    def go_to_mark(self, tail):
        marks = [self.ring.get8(self.MARKS + 8 * i) for i in range(16)]
        usable = [mark for mark in marks if mark % self.ALIGNMENT == 0 and mark > self.position and
                  0 <= tail - mark <= self.capacity * 3 // 4]
        self.position = min(usable, default=tail)

    def hold(self, number, generation):
        self.page.set8(self.HAZARD, generation << 32 | number + 1)
        fence()
        return self.ring.get4(self.GENERATIONS + 4 * number) == generation

    def read_segment(self, record):
        """The body, or None: it is lost."""
        number, generation, size, which = struct.unpack("<IIII", record)
        while number not in self.segments or self.segments[number][1] < which:
            self.hear_announcement()
        memory, made = self.segments[number]
        if made != which:
            return None
        demand(size <= len(memory.bytes), f"{size} bytes in segment {number}")
        body = memory.bytes[:size] if self.hold(number, generation) else None
        self.page.set8(self.HAZARD, 0)
        return body

    def try_next(self):
        """A message; None: none is there now; False: look again."""
        tail = self.ring.get8(self.TAIL_WORD)
        demand(tail % self.ALIGNMENT == 0 and tail >= self.position, f"a tail at {tail}")
        if tail == self.position:
            return None
        head = self.copy(self.position, self.HEAD_SIZE)
        size, kind, encoding, number, _ = struct.unpack("<IBB2xQQ8x", head)
        reach = -(-(self.HEAD_SIZE + size) // self.ALIGNMENT) * self.ALIGNMENT
        fits = size <= INLINE_MAX and reach <= tail - self.position
        body = self.copy(self.position + self.HEAD_SIZE, size) if fits else b""
        if self.ring.get8(self.INTENT) - self.position > self.capacity:
            self.go_to_mark(tail)
            return False
        demand(fits and kind in (0, 1), f"a message of kind {kind} and size {size}")
        self.position += reach
        self.page.set8(self.CURSOR, self.position)
        if kind == 1:
            body = self.read_segment(body)
            if body is None:
                return False
        lost = number - self.due if self.due else 0
        self.due = number + 1
        return Message(number, lost, encoding, body, 0)

    def next(self):
        while True:
            found = self.try_next()
            if found:
                return found
            if found is None:
                self.sleep()

    def sleep(self):
        self.waiters.set4(0, self.waiters.get4(0) + 1)  # not atomic here: what counts is that it isn't 0
        fence()
        if self.ring.get8(self.TAIL_WORD) != self.position:
            return
        events = dict(self.epoll.poll(PATIENCE))
        if not events:
            raise TimeoutError(f"nothing came for {PATIENCE} s")
        if events.get(self.stream.connection.fileno(), 0) & select.EPOLLRDHUP:
            if self.ring.get8(self.TAIL_WORD) == self.position:
                raise ConnectionError("the publisher is gone")
        elif self.stream.connection.fileno() in events:
            self.hear_announcement()

    def close(self):
        self.epoll.close()
        os.close(self.bell)
        for memory in (self.ring, self.waiters, self.page, *(memory for memory, _ in self.segments.values())):
            memory.close()
