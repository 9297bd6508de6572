"""What the tests share that use plait as strangers do: an installed prefix, the README's blocks, a server
that runs in an empty directory outside the tree.

The README names port 8888; a test takes a free one instead, in every block.
"""
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

PATIENCE = 60
FENCE = re.compile(r"(?:<!-- not run: (?P<why>.*?) -->\s*\n)?^```(?P<kind>\w*)[^\n]*\n(?P<text>.*?)^```\s*$", re.M | re.S)


def blocks(path):
    """(kind, text, reason for not running it or None) of each fenced block."""
    return [(found["kind"], found["text"], found["why"]) for found in FENCE.finditer(Path(path).read_text())]


def free_port():
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Outside:
    """An empty directory, a prefix with plait in it, a private runtime directory."""

    def __init__(self, root):
        self.root = Path(root).resolve()
        self.base = Path(tempfile.mkdtemp(prefix="plait-outside-"))
        self.prefix = self.base / "prefix"
        run = self.base / "run"
        run.mkdir(mode=0o700)
        self.port = free_port()
        keep = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
        self.environment = dict(keep, PATH=f"{self.prefix}/bin:/usr/bin:/bin", LC_ALL="C.UTF-8",
                                PKG_CONFIG_PATH=f"{self.prefix}/lib/pkgconfig",
                                LD_LIBRARY_PATH=f"{self.prefix}/lib", PYTHONPATH=f"{self.prefix}/lib/python3.11/site-packages",
                                CMAKE_PREFIX_PATH=str(self.prefix),
                                XDG_RUNTIME_DIR=str(run))
        self.server = None
        # The prefix is spelled with --prefix and without DESTDIR, as a user would.
        self.run([str(self.root / "dev"), "install", "--prefix", str(self.prefix)], cwd=self.base,
                 environment=dict(os.environ), patience=600)

    def directory(self, name):
        path = self.base / name
        path.mkdir()
        return path

    def text(self, text):
        return text.replace("8888", str(self.port))

    def run(self, command, cwd, environment=None, patience=PATIENCE, data=None):
        """Runs COMMAND, which must succeed; what it printed."""
        done = subprocess.run(command, cwd=cwd, env=environment or self.environment, capture_output=True, text=True,
                              timeout=patience, input=data, shell=isinstance(command, str))
        if done.returncode:
            raise AssertionError(f"{command} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def start(self, program, environment=None):
        self.server = subprocess.Popen([str(program)], cwd=self.base, env=environment or self.environment,
                                       stderr=subprocess.PIPE, text=True)

    def stop(self):
        """Ends the server by SIGTERM; it must end orderly."""
        server, self.server = self.server, None
        if not server:
            return
        server.send_signal(signal.SIGTERM)
        try:
            _, errors = server.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            server.kill()
            server.communicate()
            raise AssertionError("the server did not end after SIGTERM")
        assert server.returncode == 0, f"the server ended with {server.returncode}: {errors}"

    def close(self):
        if self.server:
            self.server.kill()
            self.server.communicate()
        shutil.rmtree(self.base, ignore_errors=True)


def main(tests, root):
    """Runs TESTS(name, outside -> None), each with the same Outside; prints the sum."""
    try:
        outside = Outside(root)
    except Exception as error:  # pylint: disable=broad-except
        print(f"FAIL installs: {error}")
        print(f"0 passed, {len(tests) + 1} failed, 0 skipped")
        return 1
    passed = failed = 0
    try:
        for name, test in tests:
            try:
                test(outside)
                passed += 1
                print(f"ok {name}", flush=True)
            except Exception as error:  # pylint: disable=broad-except
                failed += 1
                print(f"FAIL {name}: {error}", flush=True)
                if not isinstance(error, AssertionError):
                    traceback.print_exc(file=sys.stdout)
                try:
                    outside.stop()
                except AssertionError as also:
                    print(f"  {also}")
    finally:
        outside.close()
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0
