"""What the tests of the package share: a runtime directory of one's own, and other processes that run a few lines."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import plait

PATIENCE = 60  # seconds for anything; the machine may be busy
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Case(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="plait-python-")
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        os.environ["PLAIT_DIR"] = self.directory
        self.gates = []
        self.addCleanup(os.environ.pop, "PLAIT_DIR", None)

    def server(self, handlers, **options):
        server = plait.Server("test", **options)
        self.addCleanup(server.close)
        self.addCleanup(lambda: [gate.set() for gate in self.gates])  # first: handlers wait at them
        for method, handler in handlers.items():
            server.handle(method, handler)
        server.start()
        return server

    def gate(self):
        self.gates.append(threading.Event())
        return self.gates[-1]

    def connect(self, target="test", **options):
        client = plait.connect(target, **options)
        self.addCleanup(client.close)
        return client

    def script(self, text, python=sys.executable, **options):
        """Another interpreter that runs TEXT and has said "ready"."""
        return self.start_python("-c", text, python=python, **options)

    def start_python(self, *arguments, python=sys.executable, **options):
        process = subprocess.Popen([python, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   **options)

        def end():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.communicate()

        self.addCleanup(end)
        line = b""  # byte by byte: what follows is for communicate()
        while not line.endswith(b"\n") and (byte := os.read(process.stdout.fileno(), 1)):
            line += byte
        if line != b"ready\n":
            raise AssertionError(line.decode() + process.stderr.read())
        return process

    def run_python(self, *arguments):
        """What another interpreter says, which must end well and complain of nothing."""
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual((done.returncode, done.stderr), (0, ""), arguments[-1])
        return done.stdout

    def until(self, condition):
        """Polls for what nothing tells of: what other processes or the kernel come to."""
        limit = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), limit, "it never happened")
            time.sleep(0.01)

    def interrupted(self, function, *arguments, **options):
        """FUNCTION waits; Ctrl-C comes while it does. The seconds until KeyboardInterrupt was raised."""
        sent = []

        def kick():
            wait_until_main_sleeps()
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=kick)
        try:
            thread.start()
            function(*arguments, **options)
        except KeyboardInterrupt:
            return time.monotonic() - sent[0]
        finally:
            thread.join()
        raise AssertionError("it was not interrupted")


class Loop(Case):
    """Runs a test's body on a loop, and watches whether something holds that up."""

    def run_async(self, coroutine):
        return asyncio.run(asyncio.wait_for(coroutine, PATIENCE))

    async def longest_hold(self, coroutine):
        """Awaits COROUTINE: the longest time, in seconds, for which the loop did nothing else meanwhile."""
        loop = asyncio.get_running_loop()
        worst, last = 0.0, loop.time()

        async def tick():
            nonlocal worst, last
            while True:
                await asyncio.sleep(0.001)
                worst, last = max(worst, loop.time() - last), loop.time()

        ticker = asyncio.create_task(tick())
        await asyncio.sleep(0)
        try:
            await coroutine
        finally:
            ticker.cancel()
        return max(worst, loop.time() - last)


def blocks_of_page(kind):
    """The blocks of docs/python.md that begin with ```python KIND."""
    with open(os.path.join(SOURCE, "docs", "python.md")) as page:
        return [text for found, text in re.findall(r"^```python ?(\w*)\n(.*?)^```$", page.read(), re.M | re.S)
                if found == kind]


def expected_of_blocks(case, kind):
    """Runs each block as its readers would: (what the comment beside a print promises, what it said) of all."""
    for text in blocks_of_page(kind):
        said = case.run_python("-c", text)
        for expected in re.findall(r"print\(.*\)\s+# (.+)$", text, re.M):
            yield expected, said


def wait_until_main_sleeps():
    """The main thread has given the GIL away and sleeps in the kernel: three looks in a row. Only the kernel knows, and
    it tells nobody, so this polls; its caller must be right if the main thread sleeps for another reason, too."""
    pid, looks = os.getpid(), 0
    limit = time.monotonic() + PATIENCE
    while looks < 3:
        with open(f"/proc/{pid}/task/{pid}/stat") as file:
            asleep = file.read().rsplit(")", 1)[1].split()[0] == "S"
        looks = looks + 1 if asleep else 0
        if time.monotonic() > limit:
            raise AssertionError("the main thread never slept")
        time.sleep(0.01)
