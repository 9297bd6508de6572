"""Calls, replies, handlers, errors."""

import errno
import gc
import json
import os
import signal
import sys
import threading

from support import Case, PATIENCE, main, plait


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
        clients = [self.connect() for _ in range(2)]
        threads = [threading.Thread(target=client.call) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertFalse(any(thread.is_alive() for thread in threads))


class Errors(Case):
    def test_a_handler_that_raises_answers_and_lives_on(self):
        def boom(request):
            raise ValueError("bad thing")

        self.server({"boom": boom, "ok": lambda r: "ok"})
        client = self.connect()
        with self.assertRaises(plait.RemoteError) as caught:
            client.call("boom")
        self.assertEqual(str(caught.exception), "ValueError: bad thing")
        self.assertEqual((caught.exception.status, caught.exception.code), (1, errno.EREMOTEIO))
        self.assertRegex(caught.exception.traceback, r"(?s)^Traceback.*in boom.*ValueError: bad thing$")
        self.assertEqual(client.call("ok").text, "ok")

    def test_a_handler_chooses_status_and_text(self):
        def refuse(request):
            raise plait.RemoteError("no such account", status=404)

        self.server({"": refuse})
        with self.assertRaises(plait.RemoteError) as caught:
            self.connect().call()
        self.assertEqual((str(caught.exception), caught.exception.status), ("no such account", 404))

    def test_a_wrong_answer_is_an_error_for_the_caller(self):
        self.server({"": lambda request: 3})
        with self.assertRaisesRegex(plait.RemoteError, "TypeError"):
            self.connect().call()

    def test_a_coroutine_is_no_handler_here(self):
        async def handler(request):
            pass

        self.server({"": handler})
        with self.assertRaisesRegex(plait.RemoteError, "plait.aio.Server"):
            self.connect().call()

    def test_exceptions_are_their_builtin_kin(self):
        with self.assertRaises(FileNotFoundError) as caught:
            plait.connect("absent", connect_timeout=0)
        self.assertIsInstance(caught.exception, plait.NoSuchName)
        self.assertEqual(caught.exception.code, errno.ENOENT)
        self.assertIn("absent", str(caught.exception))
        gate = self.gate()
        self.server({"": lambda request: [gate.wait(PATIENCE)]})
        for timeout in (0, 0.01):
            with self.assertRaises(TimeoutError) as caught:
                self.connect().call(timeout=timeout)
            self.assertIsInstance(caught.exception, plait.TimeoutError)

    def test_a_killed_server_is_told(self):
        process = self.script("import plait, time\ns = plait.Server('mortal')\n"
                              "s.handle('', lambda r: time.sleep(1000))\ns.start()\nprint('ready', flush=True)\n"
                              "time.sleep(1000)")
        client = self.connect("mortal")
        thread = threading.Timer(0.05, process.kill)
        thread.start()
        with self.assertRaises(ConnectionResetError) as caught:
            client.call()
        thread.join()
        self.assertIsInstance(caught.exception, plait.PeerDied)

    def test_wrong_types_and_values(self):
        self.server({"": lambda request: None})
        client = self.connect()
        for arguments, named in (((1,), {}), (("", 3), {}), (("", object()), {}), (("", b"", b""), {}),
                                 ((), {"timeout": "1"}), ((), {"unknown": 1}), (("", b""), {"json": 1}),
                                 ((), {"json": {1, 2}}), (("",), {"method": ""}), (("", memoryview(b"abcd")), {"data": 1})):
            with self.assertRaises(TypeError, msg=(arguments, named)):
                client.call(*arguments, **named)
        for timeout in (-1, float("nan"), float("-inf")):
            with self.assertRaises(ValueError):
                client.call(timeout=timeout)
        with self.assertRaises(ValueError):
            client.call("a\0b")
        with self.assertRaises((BufferError, TypeError)):
            client.call("", memoryview(b"abcdef")[::2])
        for wrong in (None, 3, b"test"):
            with self.assertRaises(TypeError):
                plait.connect(wrong)
        with self.assertRaises(plait.Error):
            plait.connect("no such/name!")
        with self.assertRaises(TypeError):
            plait.Server("other").handle("", 3)
        for thing in (plait.Reply, plait.Request):
            with self.assertRaises(TypeError):
                thing()
        self.assertEqual(bytes(client.call()), b"")

    def test_closed_objects_say_so(self):
        server = self.server({"": lambda request: None})
        client = self.connect()
        with client:
            client.call()
        client.close()
        self.assertTrue(client.closed)
        for use in (client.call, client.send, client.methods, lambda: client.transport, client._fd):
            with self.assertRaisesRegex(plait.Error, "closed"):
                use()
        server.close()
        server.close()
        server.stop()
        for use in (server.start, server._fd, lambda: server.urls, lambda: server.handle("x", len), server.run):
            with self.assertRaisesRegex(plait.Error, "closed"):
                use()

    def test_a_name_that_is_taken_exclusively(self):
        first = plait.Server("only", exclusive=True)
        self.addCleanup(first.close)
        with self.assertRaises(plait.Error) as caught:
            plait.Server("only", exclusive=True)
        self.assertEqual(caught.exception.code, errno.EADDRINUSE)

    def test_after_fork_a_client_refuses(self):
        server = self.server({"": lambda request: None})
        client = self.connect()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                client.call()
            except plait.Error as error:
                code = 0 if error.code == errno.ECHILD else 2
            client.close()
            server.close()
            os._exit(code)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        client.call()


class Memory(Case):
    def test_a_view_outlives_its_client(self):
        server = self.server({"": lambda request: request.body})
        for size in (3, 5_000, 3_000_000):
            client = plait.connect("test")
            view = memoryview(client.call("", b"v" * size))
            client.close()
            del client
            gc.collect()
            self.assertEqual(view.tobytes(), b"v" * size)
            self.assertTrue(view.readonly)
        server.close()
        self.assertEqual(view[:3].tobytes(), b"vvv")

    def test_a_hundred_thousand_calls_leave_nothing(self):
        self.server({"": lambda request: request.body, "raise": lambda request: 1 / 0})
        client = self.connect()
        body = b"a body that is counted"

        def calls(count):
            for i in range(count):
                client.call("", body)
                if i % 1000 == 0:
                    for wrong in (lambda: client.call("raise"), lambda: client.call("", 3), lambda: client.call("no")):
                        try:
                            wrong()
                        except (plait.Error, TypeError):
                            pass
            gc.collect()

        calls(2000)
        references, blocks = sys.getrefcount(body), sys.getallocatedblocks()
        calls(100_000)
        self.assertEqual(sys.getrefcount(body), references)
        self.assertLess(sys.getallocatedblocks() - blocks, 1000)

    def test_servers_in_cycles_are_collected(self):
        import weakref

        server = plait.Server("cycle")
        server.handle("", lambda request, own=server: own.name)
        seen = weakref.ref(server)
        del server
        gc.collect()
        self.assertIsNone(seen())
        with self.assertRaises(plait.NoSuchName):
            plait.connect("cycle", connect_timeout=0)


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


class Interrupts(Case):
    """Ctrl-C in whatever waits: within 100 ms on an idle machine, asked to be within 2 s on a busy one."""

    def check(self, function, *arguments, **options):
        self.assertLess(self.interrupted(function, *arguments, **options), 2)

    def test_a_call_and_the_client_goes_on(self):
        for target in ("test", "test?shm=off"):
            gate = self.gate()
            server = self.server({"wait": lambda request: [gate.wait(PATIENCE)], "ok": lambda request: "ok"}, threads=2)
            client = self.connect(target)
            self.check(client.call, "wait", timeout=None)
            gate.set()
            self.assertEqual(client.call("ok").text, "ok")
            server.close()

    def test_connecting_to_an_absent_name(self):
        self.check(plait.connect, "absent", connect_timeout=None)

    def test_connecting_to_a_socket_that_says_nothing(self):
        import socket

        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.check(plait.connect, f"tcp://127.0.0.1:{listener.getsockname()[1]}", connect_timeout=None)

    def test_a_call_whose_server_is_gone(self):
        server = self.server({"": lambda request: None})
        client = self.connect()
        client.call()
        server.close()
        self.check(client.call, timeout=None)

    def test_a_send_without_room(self):
        process = self.script("import plait\ns = plait.Server('stopped')\ns.handle('', len)\ns.start()\n"
                              "print('ready', flush=True)\nimport time; time.sleep(1000)")
        client = self.connect("stopped")
        os.kill(process.pid, signal.SIGSTOP)

        def fill():
            while True:
                client.send("", b"x" * 60_000, timeout=None)

        self.check(fill)

    def test_a_signal_handler_may_call_through_the_waiting_client(self):
        gate, answers = self.gate(), []
        self.server({"wait": lambda request: [gate.wait(PATIENCE)], "ok": lambda request: "ok"}, threads=2)
        client = self.connect()

        def on_signal(number, frame):
            gate.set()
            answers.append(client.call("ok").text)

        before = signal.signal(signal.SIGUSR1, on_signal)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        from support import wait_until_main_sleeps

        def kick():
            wait_until_main_sleeps()
            os.kill(os.getpid(), signal.SIGUSR1)

        thread = threading.Thread(target=kick)
        thread.start()
        self.assertEqual(client.call("wait").json(), [True])
        thread.join()
        self.assertEqual(answers, ["ok"])


class Running(Case):
    SERVER = ("import plait\nserver = plait.Server('run', threads=%d)\nserver.handle('', lambda r: r.body)\n"
              "server.handle('stop', lambda r: server.stop())\nserver.handle('exit', lambda r: exit(7))\n"
              "print('ready', flush=True)\nserver.run()\nprint('over', server.closed, flush=True)")

    def test_run_ends_with_a_signal_or_stop(self):
        for threads in (1, 2):
            for end in (signal.SIGTERM, signal.SIGINT, "stop"):
                process = self.script(self.SERVER % threads)
                with plait.connect("run") as client:
                    self.assertEqual(bytes(client.call("", b"abc")), b"abc")
                    if end == "stop":
                        client.call("stop")
                    else:
                        process.send_signal(end)
                out, err = process.communicate(timeout=PATIENCE)
                self.assertEqual((process.returncode, out, err), (0, "over True\n", ""), (threads, end))

    def test_a_handler_that_exits_ends_run(self):
        process = self.script(self.SERVER % 1)
        with self.assertRaises(plait.RemoteError):
            self.connect("run").call("exit")
        process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, 7)

    def test_the_interpreter_ends_with_servers_running(self):
        process = self.script("import plait, threading\ns = [plait.Server('e%d' % i, threads=2) for i in range(3)]\n"
                              "for x in s: x.handle('', len); x.start()\nc = plait.connect('e1')\n"
                              "threading.Thread(target=lambda: plait.connect('never', connect_timeout=None), daemon=True).start()\n"
                              "c.send('', b'x')\nprint('ready', flush=True)")
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, err), (0, ""))

    def test_subinterpreters_are_refused(self):
        process = self.script("import _xxsubinterpreters as sub\nprint('ready', flush=True)\ni = sub.create()\n"
                              "try: sub.run_string(i, 'import plait')\nexcept Exception as e: print(e)\n"
                              "else: print('imported')") if sys.version_info < (3, 13) else None
        if process is None:
            self.skipTest("this Python has no module for subinterpreters")
        out, _ = process.communicate(timeout=PATIENCE)
        self.assertIn("main interpreter", out)

    def test_the_log_reaches_logging(self):
        process = self.script(
            "import logging, io, plait\nout = io.StringIO()\nlogging.basicConfig(stream=out, level=logging.DEBUG)\n"
            "s = plait.Server('logged')\ns.handle('', lambda r: 1 / 0)\ns.start()\n"
            "c = plait.connect('logged')\n"
            "try: c.call()\nexcept plait.RemoteError: pass\nprint('ready', flush=True)\nprint(out.getvalue())")
        out, _ = process.communicate(timeout=PATIENCE)
        self.assertIn("ERROR:plait:the handler of '' raised", out)
        self.assertIn("ZeroDivisionError", out)

    def test_python_m_plait_tells_version_and_paths(self):
        import subprocess

        said = subprocess.run([sys.executable, "-m", "plait"], capture_output=True, text=True, check=True).stdout
        self.assertIn(f"plait {plait.__version__}\n", said)
        self.assertIn(plait.__path__[0], said)
        self.assertIn("libplait", said)

    def test_everything_public_is_documented(self):
        for thing in [plait, *(getattr(plait, name) for name in plait.__all__)]:
            self.assertTrue(thing.__doc__, thing)
            for name, part in vars(thing).items():
                if thing is not plait and not name.startswith("_") and not isinstance(part, int):
                    self.assertTrue(part.__doc__, (thing, name))
        json.dumps(plait.__all__)


if __name__ == "__main__":
    main()
