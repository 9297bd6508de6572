"""Ctrl-C in whatever waits: within 100 ms on an idle machine, and asked to be within 2 s on a busy one."""

import os
import signal
import socket
import threading

from support import Case, PATIENCE, plait, wait_until_main_sleeps


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
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.check(plait.connect, f"tcp://127.0.0.1:{listener.getsockname()[1]}", connect_timeout=None)

    def test_subscribing_where_nobody_takes_the_connection(self):
        path = os.path.join(self.directory, "full")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(0)
            with self.assertRaises(BlockingIOError):
                while True:
                    other = socket.socket(socket.AF_UNIX)
                    self.addCleanup(other.close)
                    other.setblocking(False)
                    other.connect(path)
            self.check(plait.subscribe, f"unix://{path}", connect_timeout=None)

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
        def kick():
            wait_until_main_sleeps()
            os.kill(os.getpid(), signal.SIGUSR1)

        thread = threading.Thread(target=kick)
        thread.start()
        self.assertEqual(client.call("wait").json(), [True])
        thread.join()
        self.assertEqual(answers, ["ok"])

    def test_asking_for_the_methods_of_a_server_that_is_gone(self):
        server = self.server({"": lambda request: None})
        client = self.connect(connect_timeout=None)
        server.close()
        with self.assertRaises(plait.Error):
            client.call(timeout=0.01)  # so that it notices
        self.check(client.methods)

    def test_a_call_over_tcp(self):
        gate = self.gate()
        server = plait.Server("test")
        self.addCleanup(server.close)
        self.addCleanup(gate.set)
        server.handle("", lambda request: [gate.wait(PATIENCE)])
        server.listen("tcp://127.0.0.1:0")
        server.start()
        client = self.connect(server.urls[0])
        self.check(client.call, timeout=None)
        gate.set()
        self.assertEqual(client.call().json(), [True])

    def test_closing_a_server_whose_handler_takes_its_time(self):
        gate, entered = self.gate(), threading.Event()
        server = self.server({"": lambda request: [entered.set(), gate.wait(PATIENCE)]})
        self.connect().send()
        entered.wait(PATIENCE)
        self.check(server.close)
        self.assertTrue(server.closed)

    def test_a_follower_in_another_thread_leaves_the_signal_to_the_main_thread(self):
        gate = self.gate()
        self.server({"": lambda request: [gate.wait(PATIENCE)]}, threads=3)
        client, told = self.connect(), []
        thread = threading.Thread(target=lambda: told.append(client.call(timeout=None).json()))
        thread.start()
        self.check(client.call, timeout=None)
        gate.set()
        thread.join(PATIENCE)
        self.assertEqual(told, [[True]])

    def test_asyncio_run(self):
        process = self.script(
            "import asyncio, plait.aio\nasync def main():\n"
            "    async with plait.aio.Server('forever') as s, await plait.aio.connect('forever') as c:\n"
            "        print('ready', flush=True)\n        await c.call()\n"
            "async def never(r): await asyncio.Event().wait()\n"
            "make = plait.aio.Server.__init__\n"
            "def init(self, name): make(self, name); self.handle('', never)\n"
            "plait.aio.Server.__init__ = init\n"
            "try: asyncio.run(main())\nexcept KeyboardInterrupt: print('interrupted')")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual((out, err), ("interrupted\n", ""))
