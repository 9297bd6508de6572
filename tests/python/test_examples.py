"""The camera in C and the tracker in Python: what numpy finds in each picture is what was drawn."""

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import unittest

from support import Case, PATIENCE, SOURCE, plait

CAMERA = os.path.join(os.environ["PLAIT_EXAMPLES"], "camera")
TRACKER = os.path.join(SOURCE, "examples", "tracker.py")
RADIUS = 60


def bounce(way, span):
    way %= 2 * span
    return way if way < span else 2 * span - way


def disc(number):
    return (RADIUS + bounce(12 * number, 1919 - 2 * RADIUS), RADIUS + bounce(7 * number, 1079 - 2 * RADIUS))


@unittest.skipIf(importlib.util.find_spec("numpy") is None, "no numpy is in this Python: install python3-numpy")
class Examples(Case):
    def start(self, *command):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def finish(self, process):
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    def check(self, message):
        found = message.json()
        x, y = disc(found["picture"])
        self.assertAlmostEqual(found["disc"][0], x, delta=4)  # it looks at every fourth pixel
        self.assertAlmostEqual(found["disc"][1], y, delta=4)
        self.assertTrue(50 < found["brightness"] < 200, found)
        return found

    def check_small(self, message, picture):
        small = message.array()
        self.assertEqual((small.shape, str(small.dtype)), ((135, 240, 3), "uint8"))
        x, y = disc(picture)
        self.assertEqual(small[min(y // 8, 134), min(x // 8, 239)].tolist(), [255, 255, 255])

    def test_the_tracker_finds_the_disc_in_every_picture_of_the_camera(self):
        found, smalls = {}, {}

        def collect(topic, into, take):
            """Until number 12, after which the tracker ends; the first few may come before somebody is there."""
            with plait.subscribe(topic, timeout=PATIENCE) as messages:
                for message in messages:
                    into[message.number] = take(message)
                    if message.number == 12:
                        return

        reader = threading.Thread(target=collect, args=("disc.small", smalls, lambda message: message))
        reader.start()
        tracker = self.start(sys.executable, TRACKER, "camera", "disc", "12")
        camera = self.start(CAMERA, "camera")
        collect("disc", found, self.check)
        reader.join(PATIENCE)
        for number in found.keys() & smalls.keys():
            self.check_small(smalls[number], found[number]["picture"])
        self.assertIn(12, smalls)
        # What it didn't look at, it knows about.
        for number in found.keys() - {12}:
            if number + 1 in found:
                later = found[number + 1]
                self.assertEqual(later["picture"], found[number]["picture"] + 1 + later["missed"])
        self.assertEqual(self.finish(tracker), (0, "", ""))
        camera.send_signal(signal.SIGTERM)
        self.assertEqual(self.finish(camera), (0, "", ""))

    def test_ctrl_c_ends_the_tracker_quietly(self):
        with plait.subscribe("disc", timeout=PATIENCE) as places:
            tracker = self.start(sys.executable, TRACKER, "camera", "disc")
            self.start(CAMERA, "camera")
            places.next()
            tracker.send_signal(signal.SIGINT)
            self.assertEqual(self.finish(tracker), (0, "", ""))
