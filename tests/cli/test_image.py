"""The example that lends pictures."""

import os
import signal
import subprocess

from plaittest import EXAMPLES, FAILED, OK, PATIENCE, Case, main

WIDTH, HEIGHT = 1920, 1080


def brightness(number):
    red = sum((x + number * 8) % 256 for x in range(WIDTH)) / WIDTH
    columns = [sum((y + half) % 256 for y in range(HEIGHT)) for half in range(WIDTH // 2)]
    green = 2 * sum(columns) / (WIDTH * HEIGHT)
    return f"{red:.1f} {green:.1f} {number * 40 % 256:.1f}"


class Image(Case):
    def setUp(self):
        super().setUp()
        self.server = subprocess.Popen([os.path.join(EXAMPLES, "image-server")], env=self.environment)
        self.addCleanup(self.end)

    def end(self):
        if self.server.poll() is None:
            self.server.kill()
        self.server.wait(PATIENCE)

    def draw(self, target, count):
        return subprocess.run([os.path.join(EXAMPLES, "image"), target, str(count)], env=self.environment,
                              capture_output=True, text=True, timeout=PATIENCE)

    def test_pictures_arrive_as_they_were_drawn(self):
        for target in ("image", "image?shm=off"):
            result = self.draw(target, 5)
            expected = [f"picture {number}: {brightness(number)}" for number in range(5)]
            self.assertEqual((result.returncode, result.stdout.splitlines(), result.stderr), (OK, expected, ""))
        self.server.send_signal(signal.SIGTERM)
        self.assertEqual(self.server.wait(PATIENCE), OK)

    def test_what_is_no_picture_is_refused(self):
        self.draw("image", 1)  # it is there
        result = self.plait("call", "image/brightness", "hello")
        self.assertNotEqual(result.status, OK)
        self.assertIn("send an array", result.err)

    def test_a_name_that_nobody_serves_is_told(self):
        result = self.draw("unix:///nowhere/image", 1)
        self.assertEqual(result.returncode, FAILED)
        self.assertIn("nowhere", result.stderr)


if __name__ == "__main__":
    main()
