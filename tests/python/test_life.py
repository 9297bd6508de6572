"""Memory, references, and how servers and interpreters end."""

import gc
import os
import signal
import subprocess
import sys

from counting import grown
from support import Case, PATIENCE, plait


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

    def test_a_hundred_thousand_calls_leave_no_object(self):
        body, blocks, lent, memory = grown(self, sys.executable, "import tracemalloc\ntracemalloc.start()\n",
                                          "(lambda: tracemalloc.get_traced_memory()[0])")
        self.assertEqual(body, 0)
        self.assertLess(blocks, 500)
        self.assertLess(memory, 50_000)
        self.assertLess(lent, 500_000)

    def test_a_large_reply_is_not_copied(self):
        self.server({"": lambda request: request.body})
        client = self.connect()
        client.call("", b"x" * 3_000_000)
        with open("/proc/self/status") as file:
            before = int(file.read().split("RssAnon:")[1].split()[0])
        replies = [memoryview(client.call("", b"x" * 3_000_000)) for _ in range(10)]
        with open("/proc/self/status") as file:
            after = int(file.read().split("RssAnon:")[1].split()[0])
        self.assertTrue(all(reply[-1] == ord("x") for reply in replies))
        self.assertLess(after - before, 15_000)  # KiB; a copy of each would be 30,000

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

    def test_a_server_that_the_interpreters_end_finds_running_answers_what_it_has_taken(self):
        process = self.script("import atexit, plait, threading\ns = plait.Server('last')\n"
                              "entered, leaving = threading.Event(), threading.Event()\n"
                              "s.handle('', lambda r: [entered.set(), leaving.wait()])\ns.start()\n"
                              "atexit.register(leaving.set)\nprint('ready', flush=True)\nentered.wait()")
        self.assertEqual(self.connect("last").call(timeout=PATIENCE).json(), [None, True])
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, out, err), (0, "", ""))

    def test_subinterpreters_are_refused(self):
        process = self.script("try: import _interpreters as sub\nexcept ImportError: import _xxsubinterpreters as sub\n"
                              "print('ready', flush=True)\ni = sub.create()\n"
                              "try: print(sub.run_string(i, 'import plait'))\nexcept Exception as e: print(e)\n"
                              "else: print('imported')")
        out, _ = process.communicate(timeout=PATIENCE)
        self.assertRegex(out, "ImportError.*subinterpreters")

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
        said = subprocess.run([sys.executable, "-m", "plait"], capture_output=True, text=True, check=True).stdout
        self.assertIn(f"plait {plait.__version__}\n", said)
        self.assertIn(plait.__path__[0], said)
        self.assertIn("libplait", said)

    def test_everything_public_is_documented(self):
        import plait.aio

        modules = plait, plait.aio
        for thing in [*modules, *(getattr(module, name) for module in modules for name in module.__all__)]:
            self.assertTrue(thing.__doc__, thing)
            for name, part in vars(thing).items():
                if thing not in modules and not name.startswith("_") and not isinstance(part, int):
                    self.assertTrue(part.__doc__, (thing, name))

    def test_the_interpreter_ends_though_a_handler_does_not(self):
        process = self.script("import plait, threading, time\ns = plait.Server('stuck')\n"
                              "entered = threading.Event()\n"
                              "s.handle('', lambda r: [entered.set(), time.sleep(1000)])\ns.start()\n"
                              "c = plait.connect('stuck'); c.send(); entered.wait()\nprint('ready', flush=True)")
        process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, 0)

    def test_the_interpreter_ends_with_an_asyncio_server_running(self):
        process = self.script("import asyncio, plait.aio\nasync def main():\n    global s, c\n"
                              "    s = plait.aio.Server('left')\n    s.handle('', lambda r: None)\n    s.start()\n"
                              "    c = await plait.aio.connect('left')\n    asyncio.create_task(c.call())\n"
                              "asyncio.run(main())\nprint('ready', flush=True)")
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, out, err), (0, "", ""))

    def test_one_module_serves_every_python(self):
        import plait._plait

        self.assertTrue(plait._plait.__file__.endswith(".abi3.so"))
