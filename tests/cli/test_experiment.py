"""The crash experiment, examples/crash.c: what it says of its own run."""

import os
import re
import signal
import subprocess
import xml.etree.ElementTree

from plaittest import EXAMPLES, PATIENCE, USAGE, Case, main

ROW = re.compile(r"(?m)^(before|during|after) +([\d.]+) +(\d+) +(\d+) +(\d+) +([\d.]+) +([\d.]+) +([\d.]+)$")


class Experiment(Case):
    def experiment(self, *arguments):
        done = subprocess.run([os.path.join(EXAMPLES, "crash-experiment"), *arguments], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env=self.environment, timeout=PATIENCE)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def check(self, number):
        path = self.path("plot.svg")
        status, out, err = self.experiment(str(number), path)
        self.assertEqual(status, 0, out + err)
        rows = {row[0]: row for row in ROW.findall(out)}
        self.assertEqual(set(rows), {"before", "during", "after"}, out)
        # Each worker handles one call at a time: that call is lost, and no other.
        failed = re.findall(r"(?m)^failed ([\d.]+) ms after the signal: (.*)$", out)
        self.assertLessEqual(len(failed), 1, out)
        for _, text in failed:
            self.assertRegex(text, rf"worker \d \(pid \d+\) died: signal {number} .*the call may have run")
        self.assertEqual((int(rows["before"][3]), int(rows["during"][3]) + int(rows["after"][3])), (0, len(failed)), out)
        for row in rows.values():
            self.assertGreater(int(row[2]), 0, out)
        self.assertRegex(out, r"back to full strength after [\d.]+ ms")
        root = xml.etree.ElementTree.parse(path).getroot()
        points = [item for item in root if item.tag.endswith("circle")]
        self.assertGreater(len(points), 100)
        self.assertEqual(sum(item.get("fill") == "#d32f2f" for item in points), len(failed))

    def test_a_killed_worker_costs_the_call_that_it_had_begun_and_no_other(self):
        self.check(int(signal.SIGKILL))

    def test_a_crash_does_neither(self):
        self.check(int(signal.SIGSEGV))

    def test_no_signal_is_told(self):
        status, _, err = self.experiment("no")
        self.assertEqual(status, USAGE)
        self.assertIn("usage", err)


if __name__ == "__main__":
    main()
