"""What the tests of the command share: a private runtime directory per test, servers that are waited for by what
they print, and a runner that prints as the C tests do.

Nothing here sleeps to synchronise and every wait is bounded. PLAIT is the command, PLAIT_EXAMPLES the directory of
the built examples, PLAIT_SOURCE the tree.
"""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

PLAIT = os.environ.get("PLAIT", "plait")
SOURCE = os.environ.get("PLAIT_SOURCE", os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
EXAMPLES = os.environ.get("PLAIT_EXAMPLES", os.path.join(os.path.dirname(shutil.which(PLAIT) or PLAIT), "examples"))
PATIENCE = 60  # seconds for anything; the machine may be busy and the build sanitised

OK, FAILED, USAGE, NO_NAME, TIMED_OUT, REFUSED = range(6)

# Whoever runs the tests may ignore these (nohup, a shell's background job), and what is ignored is inherited.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


class Result:
    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    @property
    def text(self):
        return self.out.decode()

    @property
    def objects(self):
        return [json.loads(line) for line in self.out.splitlines()]


class Server:
    """`plait serve`, or another program that prints its listeners and then "serving"."""

    def __init__(self, case, command, **options):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        stdin=subprocess.DEVNULL, env=case.environment, **options)
        case.addCleanup(self.end)
        self.pid = self.process.pid
        self.lines, self.urls = [], []
        for line in iter(self.process.stdout.readline, b""):
            self.lines.append(line.decode().rstrip("\n"))
            if self.lines[-1].startswith("listening on "):
                self.urls.append(self.lines[-1].split()[2])
            if self.lines[-1].startswith("serving ") or '"kind":"serving"' in self.lines[-1]:
                return
        raise AssertionError("the server did not start: " + self.process.stderr.read().decode())

    def port(self, index=0):
        return int(re.search(r":(\d+)(\?|/|$)", self.urls[index]).group(1))

    def stop(self, number=signal.SIGTERM):
        """Its exit status and what it said on standard error."""
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, err

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait(PATIENCE)
        for stream in (self.process.stdout, self.process.stderr):
            stream.close()


class Case(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="plait-cli-")
        os.chmod(self.directory, 0o700)
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.runtime = os.path.join(self.directory, "run")
        os.mkdir(self.runtime, 0o700)
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("PLAIT_")}
        self.environment["PLAIT_DIR"] = self.runtime

    def plait(self, *arguments, data=b"", **options):
        done = subprocess.run([PLAIT, *arguments], input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=self.environment, timeout=PATIENCE, **options)
        return Result(done.returncode, done.stdout, done.stderr.decode(errors="replace"))

    def start(self, *arguments, **options):
        return subprocess.Popen([PLAIT, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, env=self.environment, **options)

    def serve(self, *arguments, **options):
        return Server(self, [PLAIT, "serve", *arguments], **options)

    def check_error(self, result, status, *parts):
        """STATUS, nothing on standard output, and one line in the form that the command promises."""
        self.assertEqual((result.status, result.out), (status, b""), result.err)
        self.assertRegex(result.err, r"\Aplait: [^\n]+\n\Z")
        for part in parts:
            self.assertIn(part, result.err)

    def path(self, name):
        return os.path.join(self.directory, name)


def until(condition, what):
    """Waits for what nobody announces: another process's file or end."""
    limit = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > limit:
            raise AssertionError(f"waited {PATIENCE} s for {what}")
        select.select([], [], [], 0.01)


class Gate:
    """What commands wait at: `head -c 1 PATH` returns once for each that was let through. Open at both ends all
    the time, so neither side waits for the other to open it."""

    def __init__(self, case):
        self.path = case.path("gate")
        os.mkfifo(self.path)
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        case.addCleanup(os.close, self.descriptor)

    def let_through(self, count=1):
        os.write(self.descriptor, b"x" * count)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class Printer(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.passed = 0

    @staticmethod
    def name(test):
        return test.id().split(".", 1)[-1]

    def addSuccess(self, test):
        self.passed += 1
        print(f"ok {self.name(test)}", flush=True)

    def fail(self, test, error):
        self.failures.append((test, ""))
        print(f"FAIL {self.name(test)}: {self._exc_info_to_string(error, test)}", flush=True)

    addFailure = addError = fail

    def addSubTest(self, test, subtest, error):
        if error is not None:
            self.fail(subtest, error)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        print(f"skip {self.name(test)}: {reason}", flush=True)


def main():
    names = sys.argv[1:]
    module = sys.modules["__main__"]
    loader = unittest.defaultTestLoader
    suite = loader.loadTestsFromNames(names, module) if names else loader.loadTestsFromModule(module)
    printer = Printer()
    suite.run(printer)
    failed = len(printer.failures)
    print(f"{printer.passed} passed, {failed} failed, {len(printer.skipped)} skipped")
    sys.exit(1 if failed else 0 if printer.passed or not printer.skipped else 77)
