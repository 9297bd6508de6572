"""Calls, replies, handlers, threads."""

import errno
import os
import threading

from support import Case, PATIENCE, plait


class Calls(Case):
    def echo(self, **options):
        self.server({"echo": lambda request: request.body})
        return self.connect(**options)

    def test_bodies_come_back_as_they_went(self):
        client = self.echo()
        for body in (b"", b"x", bytes(range(256)), b"y" * 100_000, b"z" * 3_000_000):
            self.assertEqual(bytes(client.call("echo", body)), body)

    def test_anything_with_a_buffer_can_be_sent(self):
        client = self.echo()
        for body in (bytearray(b"abc"), memoryview(b"abc"), memoryview(b"_abc_")[1:4]):
            self.assertEqual(bytes(client.call("echo", body)), b"abc")
        reply = client.call("echo", b"abc")
        self.assertEqual(bytes(client.call("echo", reply)), b"abc")

    def test_text_and_json_are_marked_as_such(self):
        seen = []
        self.server({"": lambda request: seen.append(request.encoding)})
        client = self.connect()
        client.call("", "grüße")
        client.call("", {"a": 1})
        client.call("", [1])
        client.call(json=None)
        client.call("", None)
        self.assertEqual(seen, ["text", "json", "json", "json", "bytes"])

    def test_handlers_may_return_bytes_text_json_or_nothing(self):
        self.server({"b": lambda r: b"b", "t": lambda r: "grüße", "d": lambda r: {"a": [1, "ü"]}, "n": lambda r: None,
                     "l": lambda r: [1], "v": lambda r: memoryview(b"view")})
        client = self.connect()
        self.assertEqual([client.call(m).encoding for m in "btdnlv"], ["bytes", "text", "json", "bytes", "json", "bytes"])
        self.assertEqual(client.call("t").text, "grüße")
        self.assertEqual(client.call("d").json(), {"a": [1, "ü"]})
        self.assertEqual(len(client.call("n")), 0)
        self.assertEqual(memoryview(client.call("v")).tobytes(), b"view")

    def test_a_request_tells_who_asks_what(self):
        def who(request):
            return [request.method, request.peer.pid, request.peer.uid, request.peer.transport, request.text,
                    request.cancelled, request.trace, request.time_left]

        self.server({"who": who})
        told = self.connect().call("who", "me", trace=77, timeout=50).json()
        self.assertEqual(told[:7], ["who", os.getpid(), os.getuid(), "shm", "me", False, 77])
        self.assertTrue(40 < told[7] <= 50, told)
        self.assertIsNone(self.connect().call("who", "me", timeout=None).json()[7])

    def test_a_request_is_over_after_its_handler(self):
        kept = []
        self.server({"": kept.append})
        self.connect().call("", b"abc")
        with self.assertRaisesRegex(plait.Error, "over"):
            kept[0].body

    def test_what_was_asked_of_a_request_stays(self):
        kept = []
        self.server({"": lambda request: kept.append((request, request.body))})
        self.connect().call("", b"abc")
        self.assertEqual(kept[0][0].body, b"abc")

    def test_a_trace_is_carried_through_handlers(self):
        traces = []
        inner = plait.Server("inner")
        self.addCleanup(inner.close)
        inner.handle("", lambda request: traces.append(request.trace))
        inner.start()
        client = self.connect("inner")
        self.server({"": lambda request: client.call()})
        self.connect().call(trace=4711)
        self.assertEqual(traces, [4711])

    def test_a_send_arrives(self):
        arrived = threading.Event()
        self.server({"note": lambda request: arrived.set()})
        self.assertIsNone(self.connect().send("note", "x"))
        self.assertTrue(arrived.wait(PATIENCE))

    def test_methods_and_transport(self):
        self.server({"a": len, "b": len})
        self.assertEqual(sorted(self.connect().methods()), ["a", "b"])
        self.assertEqual(self.connect().transport, "shm")
        self.assertEqual(self.connect("test?shm=off").transport, "unix")

    def test_tcp(self):
        server = plait.Server("test")
        self.addCleanup(server.close)
        server.handle("echo", lambda request: request.peer.address)
        server.listen("tcp://127.0.0.1:0")
        server.start()
        client = self.connect(server.urls[0])
        self.assertRegex(client.call("echo").text, r"127\.0\.0\.1:\d+")
        self.assertEqual(client.transport, "tcp")

    def test_several_threads_serve_at_once(self):
        barrier = threading.Barrier(2, timeout=PATIENCE)
        self.server({"": lambda request: str(barrier.wait())}, threads=2)
        told = []
        threads = [threading.Thread(target=lambda client: told.append(client.call().text), args=(self.connect(),))
                   for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(sorted(told), ["0", "1"])


class Threads(Case):
    def test_another_thread_counts_on_while_a_call_waits(self):
        gate = self.gate()
        self.server({"": lambda request: [gate.wait(PATIENCE)]})
        client, count = self.connect(), 0
        thread = threading.Thread(target=client.call)
        thread.start()
        while count < 100_000:
            count += 1
        self.assertTrue(thread.is_alive())
        gate.set()
        thread.join(PATIENCE)

    def test_threads_share_a_client(self):
        self.server({"": lambda request: request.body}, threads=2)
        client, wrong = self.connect(), []

        def work(number):
            for i in range(500):
                body = b"%d %d" % (number, i)
                if bytes(client.call("", body)) != body:
                    wrong.append(body)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(wrong, [])

    def test_closing_ends_the_waits_of_other_threads(self):
        gate, entered, told = self.gate(), threading.Event(), []

        def wait(request):
            entered.set()
            gate.wait(PATIENCE)

        self.server({"": wait})
        client = self.connect()

        def work():
            try:
                client.call(timeout=None)
            except plait.Error as error:
                told.append(error.code)

        thread = threading.Thread(target=work)
        thread.start()
        entered.wait(PATIENCE)
        client.close()
        thread.join(PATIENCE)
        self.assertEqual(told, [errno.ECANCELED])

    def test_a_handler_cannot_close_its_server(self):
        server = self.server({"": lambda request: server.close()})
        with self.assertRaisesRegex(plait.RemoteError, "cannot close its own server"):
            self.connect().call()
