"""pip install of a checkout, without network, into an environment of its own."""

import os
import shutil
import subprocess
import sys

from support import Case, PATIENCE, SOURCE, plait


class Wheel(Case):
    def run_clean(self, *command, **options):
        environment = {key: value for key, value in os.environ.items()
                       if key not in ("PYTHONPATH", "LD_LIBRARY_PATH") and not key.startswith("PIP_")}
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE * 5, env=environment, **options)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_an_installed_checkout_calls_and_serves(self):
        source, place = (os.path.join(self.directory, name) for name in ("source", "place"))
        shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("build*", ".git", "__pycache__"))
        self.run_clean(sys.executable, "-m", "venv", "--system-site-packages", place)
        python = os.path.join(place, "bin", "python")
        self.run_clean(python, "-m", "pip", "install", "--no-index", "--no-build-isolation", source)
        told = self.run_clean(python, "-m", "plait", cwd=self.directory)
        self.assertIn(f"plait {plait.__version__}\n", told)
        self.assertIn(os.path.join(place, "lib"), told)
        self.assertIn("linked into the extension", told)
        said = self.run_clean(python, "-c", "import plait\ns = plait.Server('w')\ns.handle('', lambda r: r.text)\n"
                              "s.start()\nprint(plait.connect('w').call('', 'wheel').text)", cwd=self.directory)
        self.assertEqual(said, "wheel\n")
