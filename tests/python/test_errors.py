"""What goes wrong, and how it is told."""

import errno
import os
import threading

from support import Case, PATIENCE, plait


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
                              "def wait(request): print('entered', flush=True); time.sleep(1000)\n"
                              "s.handle('', wait)\ns.start()\nprint('ready', flush=True)\ntime.sleep(1000)")
        client = self.connect("mortal")

        def kill():
            self.assertEqual(process.stdout.readline(), "entered\n")
            process.kill()

        thread = threading.Thread(target=kill)
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

    def test_after_fork_a_server_refuses_and_the_parents_serves_on(self):
        server = self.server({"": lambda request: b"parent"})
        child = os.fork()
        if child == 0:
            codes = []
            for use in (server.start, lambda: server.listen("tcp://127.0.0.1:0")):
                try:
                    use()
                except plait.Error as error:
                    codes.append(error.code)
            server.close()
            os._exit(0 if codes == [errno.ECHILD] * 2 else 1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual(bytes(self.connect().call()), b"parent")

    def test_a_child_may_open_its_own(self):
        self.server({"": lambda request: request.body})
        self.connect().call()
        child = os.fork()
        if child == 0:
            with plait.connect("test") as client:
                os._exit(0 if bytes(client.call("", b"child")) == b"child" else 1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)

    def test_a_limit_is_named(self):
        self.server({"": lambda request: b"y" * 5000 if request.body == b"more" else b""}, max_message=1000)
        with self.assertRaisesRegex(plait.Error, "max_message=1000") as caught:
            self.connect().call("", b"x" * 1001)
        self.assertEqual(caught.exception.code, errno.EMSGSIZE)
        with self.assertRaises(plait.Error) as caught:
            self.connect(max_message=4096).call("", b"more")
        self.assertEqual(caught.exception.code, errno.EMSGSIZE)

    def test_an_unknown_method_names_those_there_are(self):
        self.server({"add": len, "subtract": len})
        with self.assertRaisesRegex(plait.Error, "add, subtract") as caught:
            self.connect().call("multiply")
        self.assertEqual(caught.exception.code, errno.EOPNOTSUPP)

    def test_a_handler_that_would_wait_for_itself_is_told(self):
        own = []
        self.server({"": lambda request: own[0].call("inner"), "inner": lambda request: None})
        own.append(self.connect())
        with self.assertRaises(plait.RemoteError) as caught:
            own[0].call()
        self.assertIn("defer", caught.exception.traceback)

    def test_text_that_utf8_cannot_hold(self):
        def broken(request):
            raise ValueError("half a pair: \ud800, and \0 inside")

        self.server({"": lambda request: "\ud800", "broken": broken})
        client = self.connect()
        for body in ("\ud800", {"key": "\ud800"}):
            with self.assertRaises(UnicodeEncodeError):
                client.call("", body)
        with self.assertRaisesRegex(plait.RemoteError, "UnicodeEncodeError"):
            client.call()
        with self.assertRaisesRegex(plait.RemoteError, r"\\ud800, and \\x00 inside"):
            client.call("broken")

    def test_replies_that_are_not_what_is_asked_of_them(self):
        self.server({"": lambda request: b"\xff"})
        reply = self.connect().call()
        self.assertRaises(UnicodeDecodeError, lambda: reply.text)
        self.assertRaises(ValueError, reply.json)
        with self.assertRaises((BufferError, TypeError)):
            memoryview(reply)[0] = 1

    def test_a_status_that_is_none_becomes_one(self):
        def refuse(request):
            raise plait.RemoteError("no", status=request.json())

        self.server({"": refuse})
        client = self.connect()
        for status, seen in ((0, 1), (-5, 1), (1 << 40, 1), ("x", 1), (0x7FFFFFFF, 0x7FFFFFFF)):
            with self.assertRaises(plait.RemoteError) as caught:
                client.call("", json=status)
            self.assertEqual(caught.exception.status, seen)

    def test_servers_refuse_wrong_arguments(self):
        for arguments, named in (((), {}), ((3,), {}), (("x", "1"), {}), (("x",), {"unknown": 1}), (("x",), {"allow": 3})):
            with self.assertRaises(TypeError, msg=(arguments, named)):
                plait.Server(*arguments, **named)
        for name, threads in (("", 1), ("UPPER", 1), ("a/b", 1), ("a" * 101, 1), ("x", 65), ("x", -2)):
            with self.assertRaises(plait.Error, msg=(name, threads)) as caught:
                plait.Server(name, threads)
            self.assertEqual(caught.exception.code, errno.EINVAL)
        server = plait.Server("x")
        self.addCleanup(server.close)
        for url, code in (("tcp://0.0.0.0:0", errno.EPERM), ("nonsense", errno.EINVAL), ("tls://127.0.0.1:0", errno.EPROTONOSUPPORT)):
            with self.assertRaises(plait.Error, msg=url) as caught:
                server.listen(url)
            self.assertEqual(caught.exception.code, code, caught.exception)
        with self.assertRaises(TypeError):
            server.listen(8080)
        server.handle("twice", len)
        with self.assertRaises(plait.Error):
            server.handle("twice", len)

    def test_exceptions_survive_pickle(self):
        import pickle

        for error in (plait.Error("x", 5), plait.TimeoutError("t", 110), plait.RemoteError("r", 7, "Traceback r")):
            again = pickle.loads(pickle.dumps(error))
            self.assertEqual((type(again), str(again), vars(again)), (type(error), str(error), vars(error)))
