"""docs/protocol.md is enough to write another client from it: one that was talks to the library's servers and
publishers, by every way that the document describes."""

import os
import platform
import re
import signal
import socket
import struct
import subprocess
import sys
import unittest

SOURCE = os.environ.get("PLAIT_SOURCE") or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)), os.path.join(SOURCE, "tests", "cli")]

from plaittest import EXAMPLES, PATIENCE, PLAIT, Case, Server, main, until  # noqa: E402
import client_from_the_document as document  # noqa: E402
import memory  # noqa: E402
import wire  # noqa: E402
from client_from_the_document import Client, Subscriber, connect_name, find  # noqa: E402

SIZES = (0, 1, 31, 32, 33, 8192, 8193, 70000, 1 << 20)
NO_METHOD = 0x80000001
ORDERED_WORDS = platform.machine() == "x86_64"


def bodies():
    return [os.urandom(size) for size in SIZES]


def sleeps_of(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"(?m)^voluntary_ctxt_switches:\s*(\d+)", status.read()).group(1))


def text():
    with open(os.path.join(SOURCE, "docs", "protocol.md")) as file:
        return file.read()


class Document(Case):
    def setUp(self):
        super().setUp()
        before = os.environ.get("PLAIT_DIR")
        os.environ["PLAIT_DIR"] = self.runtime
        self.addCleanup(lambda: os.environ.pop("PLAIT_DIR") if before is None else os.environ.update(PLAIT_DIR=before))

    def echo(self, *urls):
        """The echo server: one method, "", which its table lists."""
        return Server(self, [os.path.join(EXAMPLES, "echo-server"), "echo", *urls])

    def client(self, connection, *arguments, **options):
        client = Client(connection, *arguments, **options)
        self.addCleanup(client.close)
        return client

    def subscriber(self, connection, *arguments, **options):
        subscriber = Subscriber(connection, *arguments, **options)
        self.addCleanup(subscriber.close)
        return subscriber

    def tcp(self, server, index=0):
        return socket.create_connection(("127.0.0.1", server.port(index)), PATIENCE)

    def publish(self, *words, data=None):
        """`plait pub`, and the port that it listens on. DATA: its whole input."""
        process = subprocess.Popen([PLAIT, "pub", *words, "--listen", "tcp://127.0.0.1:0"], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, env=self.environment)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stdin.close)
        self.addCleanup(process.wait, PATIENCE)
        self.addCleanup(process.kill)
        if data is not None:
            process.stdin.write(data)
            process.stdin.close()
        line = process.stdout.readline().decode()
        return process, int(re.search(r":(\d+)\b", line).group(1))


class Names(Document):
    def test_a_living_instance_is_found_with_what_its_entry_says(self):
        server = self.echo("tcp://127.0.0.1:0")
        until(lambda: find("echo")[0].entry["urls"], "the server to say its URLs")  # it begins to run just now
        instance, = find("echo")
        self.assertEqual((int(instance.entry["pid"]), instance.entry["urls"]), (server.pid, server.urls[0]))
        self.assertEqual(find("ech"), [])
        with connect_name("echo") as connection, Client(connection) as client:
            self.assertEqual(client.hello.instance, int(instance.id, 16))
            self.assertEqual(client.hello.pid, server.pid)

    def test_of_several_instances_each_is_found(self):
        servers = [self.echo() for _ in range(3)]
        self.assertEqual({int(instance.entry["pid"]) for instance in find("echo")}, {server.pid for server in servers})

    def test_the_rest_of_a_killed_server_is_none(self):
        server = self.echo()
        server.process.kill()
        server.process.wait(PATIENCE)
        self.assertEqual(len(os.listdir(os.path.join(self.runtime, "services"))), 2)  # its entry, and its name's lock
        self.assertEqual(find("echo"), [])
        with self.assertRaises(FileNotFoundError):
            connect_name("echo")

    def test_a_sticky_directory_has_one_for_each_user(self):
        os.chmod(self.runtime, 0o1777)
        self.echo()
        self.assertEqual([instance.directory for instance in find("echo")],
                         [os.path.join(self.runtime, str(os.geteuid()))])

    def test_a_directory_that_others_may_write_is_not_believed(self):
        self.echo()
        os.chmod(self.runtime, 0o777)
        self.assertEqual(find("echo"), [])

    def offer(self, name, backlog):
        """Offering a name: the entry is made as the section says. Its ID and its listening socket."""
        number = os.urandom(8).hex()
        for folder in ("services", "s"):
            os.mkdir(os.path.join(self.runtime, folder), 0o700)
        hidden, entry, place = (os.path.join(self.runtime, *path) for path in (
            ("services", f".{name}@{number}"), ("services", f"{name}@{number}"), ("s", number)))
        descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.addCleanup(os.close, descriptor)
        lock = struct.pack(document.FLOCK, document.fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        document.fcntl.fcntl(descriptor, document.fcntl.F_OFD_SETLK, lock)
        os.write(descriptor, f"pid {os.getpid()}\nuid {os.geteuid()}\nstart 0\nid {number}\nprocess me\nurls \n".encode())
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(place)
        listener.listen(backlog)
        os.rename(hidden, entry)
        return number, listener

    def caller(self, name):
        caller = self.start("call", name, "hello", "--timeout", "60s")
        self.addCleanup(caller.wait, PATIENCE)
        self.addCleanup(caller.kill)
        return caller

    def answer(self, connection, name, number):
        """What a server says that has one method, "", and gets one call."""
        stream = wire.Socket(connection)
        self.addCleanup(stream.close)
        self.assertEqual(stream.read(32 + len(name)), wire.client_hello(name, 7, 1024))
        stream.write(struct.pack("<4sHHIIQQQIIIIII", b"PLAS", 1, 0, 0, 1, 0, int(number, 16), 1 << 20, os.getpid(), 1024,
                                 1, 0, 1, 0) + b"\0")
        request = wire.read_frame(stream)
        self.assertEqual((request.kind, stream.read(request.size)), (wire.CALL, b"hello"))
        stream.write(wire.frame(wire.REPLY, b"to you, too", call=request.call))

    def test_what_a_client_offers_by_the_document_the_library_finds(self):
        number, listener = self.offer("mine", 16)
        caller = self.caller("mine")
        self.answer(listener.accept()[0], "mine", number)
        self.assertEqual(caller.communicate(timeout=PATIENCE), (b"to you, too", b""))

    def test_a_full_queue_is_tried_again_until_there_is_room(self):
        number, listener = self.offer("mine", 0)
        waiting = []
        with self.assertRaises(BlockingIOError):
            while True:
                waiting.append(socket.socket(socket.AF_UNIX))
                self.addCleanup(waiting[-1].close)
                waiting[-1].setblocking(False)
                waiting[-1].connect(os.path.join(self.runtime, "s", number))
        caller = self.caller("mine")
        until(lambda: sleeps_of(caller.pid) > 10, "the caller to try again and again")
        for _ in waiting[:-1]:
            listener.accept()[0].close()
        self.answer(listener.accept()[0], "mine", number)
        self.assertEqual(caller.communicate(timeout=PATIENCE), (b"to you, too", b""))


class Calls(Document):
    """The same through a Unix socket, TCP and shared memory."""

    def everywhere(self):
        server = self.echo("tcp://127.0.0.1:0")
        yield "unix", self.client(connect_name("echo"), "echo")
        yield "tcp", self.client(self.tcp(server), "echo")
        if ORDERED_WORDS:
            client = self.client(connect_name("echo"), "echo", shm=True)
            self.assertTrue(client.shm)
            yield "shm", client

    def test_any_body_comes_back_with_its_encoding_and_its_trace_id(self):
        for name, client in self.everywhere():
            self.assertEqual(client.methods, [""])
            for encoding, body in enumerate(bodies()):
                with self.subTest(f"{name}, {len(body)} bytes"):
                    reply = client.call("", body, encoding=encoding % 4, trace=encoding, timeout=PATIENCE)
                    self.assertEqual((reply.status, reply.encoding, reply.trace), (0, encoding % 4, encoding))
                    self.assertTrue(reply.body == body)

    def test_many_calls_at_once_get_their_own_replies(self):
        for name, client in self.everywhere():
            calls = {client.begin("", b"%d" % number): b"%d" % number for number in range(200)}
            for call in reversed(calls):
                self.assertEqual(client.wait(call).body, calls[call], name)

    def test_a_method_that_is_not_there_is_told(self):
        for name, client in self.everywhere():
            reply = client.call("nothing", b"x")
            self.assertEqual((reply.status, reply.body), (NO_METHOD, b"no such method"), name)

    def test_what_is_only_sent_is_not_answered(self):
        for name, client in self.everywhere():
            client.send("", b"x")
            self.assertEqual(client.call("", b"y").body, b"y", name)
            self.assertEqual(client.replies, {})

    def test_a_stopping_server_says_how_many_it_took(self):
        clients = [client for _, client in self.everywhere()]
        for client in clients:
            client.send("", b"x")
            for _ in range(3):
                client.call("")
        os.kill(clients[0].hello.pid, signal.SIGTERM)
        for client in clients:
            with self.assertRaises(ConnectionError):
                while True:
                    client.hear()
            self.assertEqual(client.position, 4)
        self.assertEqual(find("echo"), [])


class Refusals(Document):
    def test_another_service_is_refused_with_words(self):
        server = self.echo("tcp://127.0.0.1:0")
        for connection in (connect_name("echo"), self.tcp(server)):
            with self.assertRaises(wire.Refused) as caught:
                Client(connection, "other")
            self.assertEqual(caught.exception.args[0], 2)
            self.assertIn("no service 'other'", caught.exception.args[1])

    def test_another_major_version_is_refused_naming_both(self):
        server = self.echo("tcp://127.0.0.1:0")
        stream = wire.Socket(self.tcp(server))
        self.addCleanup(stream.close)
        hello = bytearray(wire.client_hello("", 0))
        hello[4] = 2
        with self.assertRaises(wire.Refused) as caught:
            wire.greet(stream, bytes(hello))
        self.assertEqual(caught.exception.args[0], 71)
        self.assertIn("2.0", caught.exception.args[1])

    def test_who_says_nothing_is_refused_after_a_second(self):
        server = self.echo("tcp://127.0.0.1:0")
        stream = wire.Socket(self.tcp(server))
        self.addCleanup(stream.close)
        with self.assertRaises(wire.Refused) as caught:
            wire.greet(stream, b"")
        self.assertEqual(caught.exception.args[0], 110)

    def test_a_service_is_no_topic_and_a_topic_no_service(self):
        _, port = self.publish("news", "x", "--rate", "100")
        with self.assertRaises(wire.Refused) as caught:
            Client(socket.create_connection(("127.0.0.1", port)), "news").close()
        self.assertEqual(caught.exception.args[0], 2)


class Commands(Document):
    """Methods by name, failures, and what a client may say beside its calls."""

    def connections(self, server):
        yield connect_name(server, "services"), {}
        if ORDERED_WORDS:
            yield connect_name(server, "services"), {"shm": True}

    def test_methods_that_no_table_lists_are_called_by_name(self):
        self.serve("say", "--", "sh", "-c", 'printf "%s:" "$PLAIT_METHOD"; cat')
        for connection, how in self.connections("say"):
            client = self.client(connection, "say", **how)
            self.assertTrue(client.hello.features & wire.ANY_METHOD)
            for body in (b"x", b"x" * 100000):
                self.assertEqual(client.call("by.name", body).body, b"by.name:" + body)
            self.assertEqual(client.call("", b"x").body, b":x")

    def test_a_failure_has_a_status_and_words(self):
        self.serve("bad", "--", "sh", "-c", "echo went wrong >&2; exit 7")
        for connection, how in self.connections("bad"):
            reply = self.client(connection, **how).call("")
            self.assertEqual((reply.status, reply.encoding, reply.body), (7, 1, b"went wrong"))

    def test_a_cancelled_call_is_given_up_by_the_server(self):
        self.serve("slow", "--", "sleep", "1000")
        for connection, how in self.connections("slow"):
            client = self.client(connection, **how)
            call = client.begin("")
            client.cancel(call)
            self.assertIn(b"nobody waits", client.wait(call).body)

    def test_a_call_whose_time_is_over_is_given_up_by_the_server(self):
        self.serve("slow", "--", "sleep", "1000")
        for connection, how in self.connections("slow"):
            reply = self.client(connection, **how).call("", timeout=0.05)
            self.assertNotEqual(reply.status, 0)


@unittest.skipUnless(ORDERED_WORDS, "this machine orders its stores in another way than Python can ask for")
class SharedMemory(Document):
    def memory_client(self):
        client = self.client(connect_name("echo"), "echo", shm=True)
        return client, client.channel

    def test_laps_skips_and_sleeps_lose_nothing(self):
        self.echo()
        client, channel = self.memory_client()
        for number in range(2000):
            body = b"%d " % number * (number % 97)
            self.assertEqual(client.call("", body).body, body)
        self.assertGreater(channel.requests.tail, channel.requests.capacity)
        self.assertGreater(channel.replies.skips, 0)
        self.assertEqual(channel.ways, {"ring": 2000})

    def test_whoever_waits_for_room_goes_on_reading(self):
        self.echo()
        client, channel = self.memory_client()
        body = bytes(range(256)) * 31
        calls = [client.begin("", body) for _ in range(400)]
        self.assertGreater(channel.requests.tail, 40 * channel.requests.capacity)
        for call in calls:
            self.assertTrue(client.wait(call).body == body)

    def test_large_bodies_go_by_the_socket_and_by_segments_both_ways(self):
        self.echo()
        client, channel = self.memory_client()
        for large in ("socket", "segment"):
            for size in (8193, 100000, 99999, 100000, 3 << 20, 20000):
                body = os.urandom(size)
                self.assertTrue(client.call("", body, large=large).body == body, f"{size} by {large}")
        self.assertGreater(channel.ways["socket"], 0)
        self.assertGreater(channel.ways["segment"], 0)
        self.assertLess(len(channel.segments.segments), 6)  # they come back, and are used again

    def test_the_server_counts_what_it_took(self):
        self.echo()
        client, channel = self.memory_client()
        for _ in range(5):
            client.call("")
        client.send("")
        client.call("")
        self.assertEqual(channel.taken(), 7)

    def test_a_killed_server_is_noticed_and_what_it_published_is_received(self):
        server = self.echo()
        client, _ = self.memory_client()
        self.assertEqual(client.call("", b"x").body, b"x")
        server.process.kill()
        with self.assertRaises(ConnectionError):
            client.call("", b"y")

    def test_an_idle_server_s_load_is_zero_and_nobody_supervises_it(self):
        self.echo()
        _, channel = self.memory_client()
        self.assertEqual([channel.load.get4(4 * word) for word in range(66)], [0] * 66)

    def test_of_a_worker_the_load_page_says_whose_it_is_and_what_it_died_of(self):
        supervisor = self.serve("echo", "--echo", "--processes", "2")
        client, channel = self.memory_client()
        self.assertIn(channel.load.get4(260), (1, 2))
        self.assertEqual(channel.load.get4(264), supervisor.pid)
        os.kill(client.hello.pid, signal.SIGKILL)
        until(lambda: channel.load.get8(272), "the supervisor's word")
        death = channel.load.get8(272)
        self.assertEqual((death >> 62, death >> 32 & 0xff), (2, signal.SIGKILL))


class Topics(Document):
    def ways(self, port):
        yield lambda: socket.create_connection(("127.0.0.1", port)), {}
        yield lambda: connect_name("clock", "topics"), {}
        if ORDERED_WORDS:
            yield lambda: connect_name("clock", "topics"), {"shm": True}

    def test_messages_come_in_order_with_number_and_encoding(self):
        _, port = self.publish("clock", "tick", "--rate", "1000", "--encoding", "utf8")
        for connect, how in self.ways(port):
            subscriber = self.subscriber(connect(), "clock", **how)
            self.assertEqual((subscriber.topic, bool(subscriber.memory)), ("clock", bool(how)))
            messages = [subscriber.next() for _ in range(50)]
            self.assertEqual({(message.body, message.encoding) for message in messages}, {(b"tick", 1)})
            first = messages[0].number
            self.assertEqual([message.number for message in messages], list(range(first, first + 50)))
            self.assertEqual(sum(message.lost for message in messages), 0)

    def test_a_late_subscriber_gets_the_history_that_it_asks_for(self):
        publisher, port = self.publish("clock", "--lines")
        witness = self.subscriber(socket.create_connection(("127.0.0.1", port)))
        publisher.stdin.write(b"".join(b"%d\n" % number for number in range(1, 11)))
        publisher.stdin.flush()
        self.assertEqual([witness.next().body for _ in range(10)], [b"%d" % number for number in range(1, 11)])
        for connect, how in self.ways(port):
            late = self.subscriber(connect(), "clock", history=3, **how)
            messages = [late.next() for _ in range(3)]
            self.assertEqual([(message.number, message.lost, message.body) for message in messages],
                             [(8, 0, b"8"), (9, 0, b"9"), (10, 0, b"10")])

    def test_whoever_was_cut_off_goes_on_where_it_was(self):
        _, port = self.publish("clock", "tick", "--rate", "500", "--history", "5000")
        before = self.subscriber(socket.create_connection(("127.0.0.1", port)))
        message = before.next()
        before.close()
        again = self.subscriber(socket.create_connection(("127.0.0.1", port)),
                                go_on=(before.publisher, message.number + 1))
        self.assertEqual(again.due, message.number + 1)
        self.assertEqual((again.next().number, again.next().number), (message.number + 1, message.number + 2))
        stranger = self.subscriber(socket.create_connection(("127.0.0.1", port)), go_on=(before.publisher ^ 1, 1 << 40))
        self.assertLessEqual(stranger.next().number, message.number + 1)

    def test_latest_is_refused_by_who_wants_reliable(self):
        _, port = self.publish("clock", "tick", "--rate", "100")
        with self.assertRaises(wire.Refused) as caught:
            Subscriber(socket.create_connection(("127.0.0.1", port)), only_reliable=True)
        self.assertEqual(caught.exception.args[0], 95)

    def test_large_messages_arrive_whole(self):
        body = os.urandom(300000)
        publisher, port = self.publish("clock", "-", "--rate", "100", data=body)
        for connect, how in self.ways(port):
            subscriber = self.subscriber(connect(), "clock", **how)
            for _ in range(5):
                self.assertTrue(subscriber.next().body == body)

    @unittest.skipUnless(ORDERED_WORDS, "this machine orders its stores in another way than Python can ask for")
    def test_who_is_overrun_counts_what_is_lost_and_goes_on(self):
        _, port = self.publish("clock", "x" * 8000, "--rate", "10000")
        subscriber = self.subscriber(connect_name("clock", "topics"), "clock", shm=True)
        first = subscriber.next()
        tail = subscriber.memory.ring.get8(subscriber.memory.TAIL_WORD)
        until(lambda: subscriber.memory.ring.get8(72) - tail > 2 * subscriber.memory.capacity, "two laps")
        message = subscriber.next()
        self.assertGreater(message.lost, 0)
        self.assertEqual(message.lost, message.number - first.number - 1)

    def test_a_publisher_s_end_is_the_connection_s(self):
        publisher, port = self.publish("clock", "tick", "--rate", "100")
        for connect, how in list(self.ways(port)):
            subscriber = self.subscriber(connect(), "clock", **how)
            subscriber.next()
            if how or not ORDERED_WORDS:
                publisher.terminate()
                with self.assertRaises(ConnectionError):
                    while True:
                        subscriber.next()


class Examples(Document):
    """What the document shows is what goes over the wire."""

    def test_this_client_s_alignment_is_the_document_s(self):
        self.assertIn(f"The **alignment** of positions is {memory.ALIGNMENT} bytes.", text())

    def test_the_transcript_is_what_this_client_sends_and_understands(self):
        lines = re.search(r"(?s)```text\n(.*?)```", text().split("### Example")[1]).group(1).splitlines()
        said = {"<": b"", ">": b""}
        for line in lines:
            found = re.match(r"([<>])((?: [0-9a-f]{2})+)(?:  |$)", line)
            said[found.group(1)] += bytes.fromhex(found.group(2))
        self.assertEqual(said[">"], wire.client_hello("greeter", wire.GOAWAY, 16, abi=0) +
                         wire.frame(wire.CALL, b"Ada", time_left=3000000, call=1))
        hello = wire.parse_server_hello(said["<"][:64])
        self.assertEqual((hello.features, hello.instance, hello.max_message, hello.pid, hello.outstanding),
                         (wire.GOAWAY, 0x1122334455667788, 1 << 30, 12345, 1024))
        rest = said["<"][64:]
        self.assertEqual(wire.parse_methods(hello, rest[:hello.tail_size]), ["greet"])
        reply = wire.parse_head(rest[hello.tail_size:hello.tail_size + 32])
        self.assertEqual((reply.kind, reply.encoding, reply.method, reply.call), (wire.REPLY, 1, 0, 1))
        self.assertEqual(rest[hello.tail_size + 32:], b"hello, Ada")

    def test_the_program_of_the_document_runs(self):
        server = self.echo("tcp://127.0.0.1:0")
        program, = re.findall(r"(?s)```python\n(.*?)```", text())
        done = subprocess.run([sys.executable, "-c", program, str(server.port()), "", "hello"], stdout=subprocess.PIPE,
                              timeout=PATIENCE, check=True)
        self.assertEqual(done.stdout, b"0 b'hello'\n")


if __name__ == "__main__":
    main()
