"""Workers: supervised processes that are forked by a server in Python, or are interpreters of their own."""

import os
import signal

from support import Case, PATIENCE, plait

HEAD = """
import ctypes, os, sys, threading, plait
def pid(request): return str(os.getpid())
def die(request): os.kill(os.getpid(), signal.SIGKILL)
def crash(request): ctypes.string_at(0)
def fail(request): raise ValueError("no such thing")
def leave(request): sys.exit(3)
"""
READY = "import os; os.write(1, b'ready\\n')\n"


def gone(pid):
    """Nobody has this pid, or what has it is a zombie that nobody collects here."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


class Workers(Case):
    def serve(self, handlers, before="", **options):
        text = ", ".join(f"{name}={value!r}" for name, value in options.items())
        return self.script(f"import signal\n{HEAD}{before}\n{READY}plait.serve('test', {handlers}, {text})\nprint('over')")

    def pids(self, count, besides=()):
        """Of COUNT workers, none of which is one of BESIDES; by new clients, which go to whoever has least to do."""
        found = set()

        def all_seen():
            with plait.connect("test") as client:
                found.add(int(client.call("pid", idempotent=True).text))
            return len(found - set(besides)) >= count

        self.until(all_seen)
        return found - set(besides)

    def end(self, process, number=signal.SIGTERM):
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual((out, process.returncode), ("over\n", 0), err)
        return err

    def test_the_same_functions_are_served_by_processes_and_each_has_threads(self):
        process = self.serve("{'pid': pid, 'threads': lambda request: str(len(os.listdir('/proc/self/task')))}",
                             processes=2, threads=3)
        pids = self.pids(2)
        self.assertNotIn(process.pid, pids)
        with plait.connect("test") as client:
            self.assertGreaterEqual(int(client.call("threads").text), 4)
        self.end(process)
        self.assertTrue(all(gone(pid) for pid in pids))

    def test_ctrl_c_ends_all_of_them(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            process = self.serve("{'pid': pid}", processes=2)
            pids = self.pids(2)
            err = self.end(process, number)
            self.assertNotIn("Traceback", err)
            self.assertTrue(all(gone(pid) for pid in pids))

    def test_what_a_handler_raises_reaches_its_caller_and_the_worker_lives_on(self):
        process = self.serve("{'pid': pid, 'fail': fail, 'leave': leave}", processes=1)
        client = self.connect()
        before = client.call("pid").text
        with self.assertRaises(plait.RemoteError) as caught:
            client.call("fail")
        self.assertIn("ValueError: no such thing", str(caught.exception))
        self.assertIn("Traceback", caught.exception.traceback)
        with self.assertRaises(plait.RemoteError) as caught:
            client.call("leave")
        self.assertIn("SystemExit", str(caught.exception))
        self.assertEqual(client.call("pid").text, before)
        self.end(process)

    def test_a_killed_worker_is_told_of_and_started_again(self):
        process = self.serve("{'pid': pid, 'die': die}", processes=2)
        before = self.pids(2)
        client = self.connect()
        with self.assertRaisesRegex(plait.PeerDied, "worker [12] .*signal 9"):
            client.call("die")
        self.assertTrue(self.pids(1, besides=before))
        self.assertIn("died: signal 9", self.end(process))

    def test_a_segfault_in_native_code_costs_its_caller_one_call(self):
        process = self.serve("{'pid': pid, 'crash': crash}", processes=2,
                             before="import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))")
        before = self.pids(2)
        client = self.connect()
        with self.assertRaisesRegex(plait.PeerDied, "worker [12] .*signal 11"):
            client.call("crash")
        client.call("pid")
        self.assertTrue(self.pids(1, besides=before))
        self.assertIn("of test/crash in progress", self.end(process))

    def test_a_crash_leaves_the_datagram_socket_to_the_others(self):
        process = self.script(HEAD + "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n" + READY +
                              "with plait.Server('test', processes=2) as server:\n"
                              "    server.handle('pid', pid)\n    server.handle('crash', crash)\n"
                              "    server.listen('udp://127.0.0.1:0?method=pid')\n"
                              "    print(server.urls[0], flush=True)\n    server.run()\nprint('over')")
        url = process.stdout.readline().strip()
        before, client = self.pids(2), self.connect()
        with self.assertRaises(plait.PeerDied):
            client.call("crash")
        with plait.connect(url.split("?")[0]) as sender:
            for _ in range(20):
                self.assertTrue(sender.call(timeout=PATIENCE).text.isdigit())
        self.assertTrue(self.pids(1, besides=before))
        self.end(process)

    def test_the_log_hears_of_a_death_while_the_supervisor_runs(self):
        process = self.serve("{'pid': pid, 'die': die}", processes=1,
                             before="import logging; logging.basicConfig(filename=os.environ['PLAIT_DIR'] + '/log')")
        with self.assertRaises(plait.PeerDied):
            self.connect().call("die")

        def told():
            with open(self.directory + "/log") as file:
                return "ERROR:plait:test: worker 1" in file.read()

        self.until(told)
        self.end(process)

    def test_a_class_has_a_state_of_its_own_in_each_worker(self):
        counter = ("class Counter:\n"
                   "    def __init__(self): self.count = 0\n"
                   "    def __enter__(self): return self\n"
                   "    def __exit__(self, *_): os.write(1, b'left after %d\\n' % self.count)\n"
                   "    def zero(self, request): pass\n"
                   "    def add(self, request):\n"
                   "        self.count += 1\n"
                   "        return [os.getpid(), self.count]\n"
                   "    def pid(self, request): return str(os.getpid())\n"
                   "    def _hidden(self, request): pass\n")
        process = self.serve("Counter", processes=2, before=counter)
        self.pids(2)
        counts = {}
        for _ in range(20):
            with plait.connect("test") as client:
                self.assertEqual(client.methods(), ["add", "pid", "zero"])
                pid, count = client.call("add").json()
                self.assertEqual(count, counts.get(pid, 0) + 1)
                counts[pid] = count
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE)
        left = sorted(int(line.split()[-1]) for line in out.splitlines() if line.startswith("left after"))
        self.assertEqual(sum(left), 20, out + err)
        self.assertEqual(len(left), 2)

    def test_the_same_class_serves_without_processes(self):
        class Once:
            def hello(self, request):
                return "hello"

        server = plait.Server("test")
        self.addCleanup(server.close)
        server.state(Once)
        server.start()
        self.assertEqual(self.connect().call("hello").text, "hello")
        self.assertEqual(server.worker, 0)

    def test_a_class_that_can_not_be_made_ends_it_with_its_own_words(self):
        process = self.script("import plait\nclass Broken:\n    def __init__(self): raise ValueError('no database')\n"
                              f"{READY}try: plait.serve('test', Broken, processes=2)\n"
                              "except plait.Error as error: print(error)")
        out, err = process.communicate(timeout=PATIENCE)
        self.assertIn("can't serve", out, err)
        self.assertIn("ValueError: no database", out)

    def test_workers_that_die_too_often_end_it_loudly(self):
        process = self.script(f"import os, plait\n{READY}try: plait.serve('test', {{'': lambda request: os._exit(3)}}, "
                              "processes=1, restart_burst=2)\nexcept plait.Error as error: print(error.code, error)")
        client = self.connect(connect_timeout=PATIENCE)
        for _ in range(2):
            with self.assertRaises(plait.PeerDied):
                client.call(timeout=PATIENCE)
        out, err = process.communicate(timeout=PATIENCE)
        self.assertIn("130 test: 2 workers died", out, err)
        self.assertIn("exit status 3", out)

    def test_sighup_replaces_them_and_no_call_fails(self):
        process = self.serve("{'pid': pid}", processes=2)
        before, client = self.pids(2), self.connect()
        process.send_signal(signal.SIGHUP)
        seen = set()

        def replaced():
            for _ in range(20):
                seen.add(int(client.call("pid").text))
            return all(gone(pid) for pid in before)

        self.until(replaced)
        self.assertFalse(self.pids(2) & before)
        self.assertTrue(seen)
        self.end(process)

    def test_no_worker_outlives_its_supervisor(self):
        process = self.serve("{'pid': pid}", processes=2)
        pids = self.pids(2)
        process.kill()
        process.wait()
        self.until(lambda: all(gone(pid) for pid in pids))

    def test_a_signal_handler_of_the_program_runs_in_the_supervisor(self):
        process = self.serve("{'pid': pid}", processes=1,
                             before="signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b'heard\\n'))")
        self.pids(1)
        process.send_signal(signal.SIGUSR1)
        self.assertEqual(os.read(process.stdout.fileno(), 6), b"heard\n")
        self.end(process)

    # ---- interpreters of their own ----

    def spawn(self, top, serve="plait.serve('test', {'pid': pid, 'die': die}, processes=2, start='spawn')"):
        """A program in a file, with functions at its top, that serves where it is the program that was started."""
        self.program = os.path.join(self.directory, "program.py")
        with open(self.program, "w") as file:
            file.write(f"import signal\n{HEAD}{top}\nif __name__ == '__main__':\n    {READY}    {serve}\n    print('over')\n")
        return self.start_python(self.program)

    def test_spawned_workers_have_nothing_of_the_supervisor_s_memory(self):
        process = self.spawn(
            "found = []\n"
            "def look(request): return [__name__, found, os.getppid()]\n",
            "found.append('memory'); threading.Thread(target=signal.pause, daemon=True).start()\n"
            "    plait.serve('test', {'pid': pid, 'look': look}, processes=2, start='spawn', threads=2, "
            "listen='tcp://127.0.0.1:0')")
        pids = self.pids(2)
        self.assertNotIn(process.pid, pids)
        self.assertEqual(self.connect().call("look").json(), ["__mp_main__", [], process.pid])
        for pid in pids:
            with open(f"/proc/{pid}/cmdline") as file:
                self.assertIn("plait._spawn", file.read())
        self.assertNotIn("threads run where workers are forked", self.end(process))
        self.assertTrue(all(gone(pid) for pid in pids))

    def test_spawned_workers_are_told_of_and_started_again(self):
        process = self.spawn("")
        before, client = self.pids(2), self.connect()
        with self.assertRaisesRegex(plait.PeerDied, "worker [12] .*signal 9"):
            client.call("die")
        self.assertTrue(self.pids(1, besides=before))
        self.assertIn("died: signal 9", self.end(process))

    def test_a_listener_is_shared_by_spawned_workers(self):
        process = self.spawn("", "server = plait.Server('test', processes=2, start='spawn')\n"
                                 "    server.handle('pid', pid); server.listen('tcp://127.0.0.1:0')\n"
                                 "    print(server.urls[0], flush=True); server.run()")
        url, found = process.stdout.readline().strip(), []
        self.pids(2)
        for _ in range(2):  # with the one stopped the other gets what comes
            with plait.connect(url, connect_timeout=PATIENCE) as client:
                found.append(int(client.call("pid").text))
            os.kill(found[-1], signal.SIGSTOP)
        for pid in found:
            os.kill(pid, signal.SIGCONT)
        self.assertEqual(len(set(found)), 2)
        self.end(process)

    def test_a_class_has_a_state_of_its_own_in_each_spawned_worker(self):
        process = self.spawn("class Counter:\n"
                             "    def __enter__(self): self.count = 0; return self\n"
                             "    def __exit__(self, *_): os.write(1, b'left\\n')\n"
                             "    def pid(self, request): return str(os.getpid())\n"
                             "    def add(self, request):\n"
                             "        self.count += 1\n"
                             "        return [self.count]\n",
                             "plait.serve('test', Counter, processes=2, start='spawn')")
        self.pids(2)
        client = self.connect()
        self.assertEqual([client.call("add", ordered=True).json() for _ in range(3)], [[1], [2], [3]])
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual(sorted(out.split()), ["left", "left", "over"], err)

    def test_sighup_loads_a_program_of_spawned_workers_anew(self):
        process = self.spawn("def version(request): return 'first'\n",
                             "plait.serve('test', {'pid': pid, 'version': version}, processes=2, start='spawn')")
        before, client = self.pids(2), self.connect()
        self.assertEqual(client.call("version").text, "first")
        with open(self.program) as file:
            text = file.read()
        with open(self.program, "w") as file:
            file.write(text.replace("'first'", "'second, and more'"))
        process.send_signal(signal.SIGHUP)
        self.until(lambda: client.call("version").text != "first")
        self.until(lambda: all(gone(pid) for pid in before))
        self.assertEqual(client.call("version").text, "second, and more")
        self.end(process)

    def test_what_an_interpreter_of_its_own_can_not_get_is_refused_with_words(self):
        process = self.spawn("", "plait.serve('test', lambda request: None, processes=1, start='spawn')")
        self.assertIn("TypeError: start='spawn': the handler of '' can't be handed", process.communicate()[1])
        process = self.script(f"{HEAD}{READY}plait.serve('test', {{'pid': pid}}, processes=1, start='spawn')")
        self.assertIn("python -c", process.communicate()[1])
        with self.assertRaisesRegex(ValueError, "'fork' or 'spawn'"):
            plait.Server("test", processes=1, start="thread")

    def test_a_program_without_a_guard_is_told_what_it_lacks(self):
        process = self.spawn("if __name__ == '__mp_main__': plait.serve('test', pid, processes=1)")
        out, err = process.communicate(timeout=PATIENCE)
        self.assertIn("can't serve: start hook: RuntimeError: a spawned worker imports this program", err)
        self.assertIn("under if __name__ == '__main__':", err)

    def test_a_program_that_can_not_be_imported_ends_it_with_its_own_words(self):
        process = self.spawn("if __name__ == '__mp_main__': import nothing_of_this_name")
        self.assertIn("No module named 'nothing_of_this_name'", process.communicate(timeout=PATIENCE)[1])

    def test_no_spawned_worker_outlives_its_supervisor_also_while_it_imports(self):
        process = self.spawn("if __name__ == '__mp_main__':\n"
                             "    with open(os.environ['PLAIT_DIR'] + '/importing', 'a') as file: print(os.getpid(), file=file)\n"
                             "    import time; time.sleep(600)")
        pids = []

        def both_import():
            if os.path.exists(self.directory + "/importing"):
                with open(self.directory + "/importing") as file:
                    pids[:] = [int(line) for line in file if line.endswith("\n")]
            return len(pids) == 2

        self.until(both_import)
        process.kill()
        process.wait()
        self.until(lambda: all(gone(pid) for pid in pids))

    def test_a_number_that_is_too_great_is_refused_with_the_limit(self):
        with self.assertRaisesRegex(plait.Error, "PLAIT_PROCESSES_MAX"):
            plait.Server("test", processes=65)
        with plait.Server("test", processes=1) as server:
            server.handle("", len)
            with self.assertRaisesRegex(plait.Error, "plait_server_run"):
                server.start()
