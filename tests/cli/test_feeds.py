"""The examples that publish: a market, a camera, a log. (What Python makes of the camera is in tests/python.)"""

import base64
import json
import os
import re
import signal
import subprocess

from plaittest import EXAMPLES, OK, PATIENCE, PLAIT, SOURCE, TIMED_OUT, USAGE, Case, main


class Feeds(Case):
    def setUp(self):
        super().setUp()
        self.environment["PATH"] = os.path.dirname(os.path.abspath(PLAIT)) + ":" + os.environ["PATH"]

    def run_beside(self, *command, **options):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environment,
                                   stdin=subprocess.DEVNULL, start_new_session=True, **options)
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
        process.stdout.close()
        process.stderr.close()

    @staticmethod
    def example(name):
        return os.path.join(EXAMPLES, name)

    def finish(self, process):
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out.decode(), err.decode()

    def test_every_quote_of_a_market_arrives_once_and_in_order_at_every_reader(self):
        count = 300_000
        readers = [self.run_beside(self.example("market-reader"), "quotes") for _ in range(2)]
        market = self.run_beside(self.example("market"), "quotes", "1000000", str(count))
        status, out, err = self.finish(market)
        self.assertEqual((status, err), (OK, ""))
        self.assertRegex(out, r"\A%d quotes in [0-9.]+ s: [0-9.]+ M/s\n\Z" % count)
        books = []
        for reader in readers:
            status, out, err = self.finish(reader)
            self.assertEqual((status, err), (OK, ""), out)
            told, prices = out.splitlines()
            # One of them may have come after the first quotes: it gets the rest.
            quotes, rate = re.fullmatch(r"(\d+) quotes in order, 0 lost, 0 out of order: ([0-9.]+) M/s", told).groups()
            books.append((int(quotes), prices))
        self.assertEqual(max(books)[0], count)
        self.assertEqual(books[0][1], books[1][1])

    def test_a_camera_s_pictures_say_what_they_are(self):
        camera = self.run_beside(self.example("camera"), "camera")
        result = self.plait("sub", "camera", "--count", "2", "--json")
        self.assertEqual(result.status, OK)
        for picture in result.objects:
            self.assertEqual((picture["encoding"], picture["size"]), ("array", 128 + 1920 * 1080 * 3))
            self.assertIn(b"|u1", base64.b64decode(picture["base64"][:256]))
        camera.send_signal(signal.SIGTERM)
        self.assertEqual(self.finish(camera), (OK, "", ""))

    def test_a_camera_ends_after_its_last_picture_though_nobody_looks(self):
        self.assertEqual(self.finish(self.run_beside(self.example("camera"), "camera", "3")), (OK, "", ""))

    def test_lines_that_are_added_to_a_log_come_out_of_a_pipe(self):
        path = self.path("log")
        with open(path, "w") as log:
            log.write("INFO started\nERROR early\n")
            log.flush()
            follower = self.run_beside(os.path.join(SOURCE, "examples", "follow_log.sh"), path, "ERROR")
            self.assertEqual(follower.stdout.readline(), b"ERROR early\n")
            other = self.plait_beside("sub", "log", "--reliable", "--count", "2")
            for line in ("ERROR one\n", "INFO two\n", "ERROR three\n"):
                log.write(line)
                log.flush()
            self.assertEqual(follower.stdout.readline(), b"ERROR one\n")
            self.assertEqual(follower.stdout.readline(), b"ERROR three\n")
        status, out, err = self.finish(other)
        self.assertEqual((status, out, err), (OK, "ERROR one\nINFO two\n", ""))

    def plait_beside(self, *words):
        """A subscriber, when it is connected."""
        process = self.run_beside(PLAIT, *words)
        for _ in range(PATIENCE * 100):
            said = self.plait("ls", "log", "--json").out
            if any(json.loads(line).get("peer_pid") == process.pid for line in said.splitlines()):
                return process
        raise AssertionError("the subscriber did not come")

    def test_wrong_usage_and_a_market_without_readers_say_so(self):
        for name in ("market", "market-reader", "camera"):
            status, out, err = self.finish(self.run_beside(self.example(name)))
            self.assertEqual((status, out), (USAGE, ""))
            self.assertIn("usage: " + name, err)
        self.assertEqual(self.plait("sub", "quotes", "--timeout", "20ms").status, TIMED_OUT)


if __name__ == "__main__":
    main()
