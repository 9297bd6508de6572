"""The programs of docs/learn where something is missing, taken, or dies: a clear word, and the rest goes on.

What a machine with everything shows of that stands in the pages themselves: a taken port on page 4, no display on page 7, a
service that dies between two looks on page 6.
"""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "cli"))
from plaittest import PATIENCE, main  # noqa: E402
from test_learn import PYTHON, Place, lacking  # noqa: E402

NO_WINDOW = lacking("".join(f"<!-- needs: {what} -->\n" for what in ("python tkinter", "command Xvfb")))
NO_PLAIT = lacking("<!-- needs: python plait -->\n")


class BadInput(unittest.TestCase):
    def place(self, name):
        place = Place(name)
        self.addCleanup(place.end)
        return place

    def start(self, place, *command, **environment):
        process = place.start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env={**place.environment, **environment})
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        return process

    def run_in(self, place, *command, **environment):
        """Exit status, output, error output."""
        process = self.start(place, *command, **environment)
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    def line(self, process):
        """Its next line, read byte by byte: so that what has come and wasn't read can be asked for by select()."""
        line = b""
        while not line.endswith(b"\n"):
            self.assertTrue(select.select([process.stdout], [], [], PATIENCE)[0], f"it says nothing after {line}")
            byte = os.read(process.stdout.fileno(), 1)
            self.assertTrue(byte, f"it ended after {line}")
            line += byte
        return line.decode().rstrip("\n")

    def until(self, process, pattern):
        """The next line that matches; a thousand others may come before it."""
        for _ in range(1000):
            line = self.line(process)
            if re.search(pattern, line):
                return line
        self.fail(f"it never says {pattern}")

    @staticmethod
    def without(place, module):
        """A directory that hides MODULE from Python, in front of its paths."""
        hidden = place.base / "hidden"
        hidden.mkdir()
        (hidden / f"{module}.py").write_text(f"raise ImportError('there is no {module}')\n")
        return f"{hidden}:{place.environment['PYTHONPATH']}"

    @unittest.skipIf(NO_PLAIT, NO_PLAIT)
    def test_without_tk_the_window_program_says_so_and_asks_without_one(self):
        place = self.place("7-gui")
        self.start(place, PYTHON, "slow.py", "0")
        path = self.without(place, "tkinter")
        for way in ("freeze", "thread", "asyncio"):
            status, out, err = self.run_in(place, PYTHON, "window.py", way, "--once", PYTHONPATH=path)
            self.assertEqual((status, out), (0, "answer: 42\n"), err)
            self.assertIn("no window: this Python has no Tk (apt install python3-tk)", err)

    @unittest.skipIf(NO_PLAIT or NO_WINDOW, NO_PLAIT or NO_WINDOW)
    def test_a_display_that_is_not_there_is_named(self):
        place = self.place("7-gui")
        self.start(place, PYTHON, "slow.py", "0")
        status, out, err = self.run_in(place, PYTHON, "window.py", "thread", "--once", DISPLAY=":64999")
        self.assertEqual((status, out), (0, "answer: 42\n"), err)
        self.assertRegex(err, r"no window: .*:64999")

    def test_without_xvfb_the_screen_says_what_to_install(self):
        place = self.place("7-gui")
        status, out, err = self.run_in(place, PYTHON, "screen.py", "true", PATH="/nowhere")
        self.assertEqual((status, out, err), (1, "", "screen.py: there is no Xvfb (apt install xvfb)\n"))

    @unittest.skipIf(not shutil.which("Xvfb"), "there is no Xvfb")
    def test_without_pil_there_is_no_picture_and_the_program_runs(self):
        place = self.place("7-gui")
        status, out, err = self.run_in(place, PYTHON, "screen.py", "--picture", "x.png", "echo", "asked",
                                       PYTHONPATH=self.without(place, "PIL"))
        self.assertEqual((status, out), (0, "asked\n"), err)
        self.assertIn("no picture: this Python has no PIL (apt install python3-pil)", err)

    @unittest.skipIf(NO_PLAIT or NO_WINDOW, NO_PLAIT or NO_WINDOW)
    def test_a_window_outlives_the_service_that_it_asks(self):
        place = self.place("7-gui")
        for way in ("freeze", "thread", "asyncio"):
            service = self.start(place, PYTHON, "slow.py", "600")
            window = self.start(place, PYTHON, "screen.py", PYTHON, "window.py", way, "--once")
            self.assertEqual(self.line(window), "asked")
            self.busy(place)
            os.kill(service.pid, signal.SIGKILL)
            service.wait()
            self.assertRegex(self.line(window), "answer: PeerDied: .*oracle")
            self.assertEqual((window.wait(PATIENCE), window.stderr.read()), (0, ""))

    def busy(self, place):
        """Returns once the oracle handles a call."""
        limit = PATIENCE * 20
        while "busy" not in self.run_in(place, "plait", "ls", "oracle")[1]:
            limit -= 1
            self.assertGreater(limit, 0, "nobody asks")

    @unittest.skipIf(NO_PLAIT, NO_PLAIT)
    def test_a_watcher_outlives_a_service_that_stops_and_is_killed_in_a_call(self):
        place = self.place("6-system")
        build = "cc monitor.c -o monitor $(pkg-config --cflags --libs plait)"
        self.assertEqual(self.run_in(place, "sh", "-c", build)[::2], (0, ""))
        service = self.start(place, "./monitor")
        watcher = self.start(place, PYTHON, "watch.py", "--every", "0")
        self.assertRegex(self.line(watcher), "^cpu +0.0 %")
        os.kill(service.pid, signal.SIGSTOP)            # whatever it is asked from here on, it doesn't answer
        while select.select([watcher.stdout], [], [], 1)[0]:
            os.read(watcher.stdout.fileno(), 65536)
        os.kill(service.pid, signal.SIGKILL)            # no look for a second: it is in a call, which may have begun
        service.wait()
        self.start(place, "./monitor")
        self.assertRegex(self.until(watcher, "^cpu "), "%")
        watcher.send_signal(signal.SIGINT)
        out, err = watcher.communicate(timeout=PATIENCE)
        self.assertEqual((watcher.returncode, err), (0, ""), out)

    def test_a_free_threaded_python_is_named(self):
        place = self.place("3-gil")
        program = ("import sys, sysconfig; sysconfig.get_config_vars()['Py_GIL_DISABLED'] = 1\n"
                   "sys._is_gil_enabled = lambda: {}\nimport measure; print(measure.build())")
        for on, word in (("False", "a free-threaded one\n"),
                         ("True", "a free-threaded one, whose GIL was switched on again\n")):
            self.assertEqual(self.run_in(place, PYTHON, "-c", program.format(on)), (0, word, ""))


if __name__ == "__main__":
    main()
