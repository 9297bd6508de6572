"""The package's types, as mypy sees them: the stubs agree with the modules, and programs are checked with them."""

import os
import subprocess
import sys

from support import Case, PATIENCE, plait

RIGHT = """
import asyncio
import plait
import plait.aio


def add(request: plait.Request) -> dict[str, int]:
    left: float | None = request.time_left
    who: int | None = request.peer.pid
    assert left is None or left > 0
    return {"sum": sum(request.json()), "pid": who or 0}


def main() -> None:
    with plait.Server("x", threads=2) as server:
        @server.method("greet")
        def greet(request: plait.Request) -> str:
            return request.text

        server.handle("add", add)
        server.start()
        with plait.connect("x", connect_timeout=None, timeout=0.5) as client:
            text: str = client.call("greet", "Ada").text
            view: bytes = bytes(client.call("greet", b"x", timeout=None, idempotent=True))
            names: list[str] = client.methods()
            client.send("greet", bytearray(b"x"))
            client.call(json=3)
            print(text, view, names)
    try:
        plait.serve("y", {"add": add}, threads=4, listen="tcp://127.0.0.1:0")
    except plait.RemoteError as error:
        status: int = error.status
        trace: str = error.traceback
        print(status, trace, error.code)


def note(message: plait.Message) -> None:
    print(message.text, message.lost)


def topics() -> None:
    with plait.Publisher("t", reliable=True) as publisher, plait.subscribe("t", callback=note):
        publisher.publish({"a": 1})
    for message in plait.subscribe("t", history=3, timeout=1.0):
        note(message)


async def aio() -> None:
    server = plait.aio.Server("z")

    @server.method("nap")
    async def nap(request: plait.Request) -> bytes:
        return request.body

    async with server, await plait.aio.connect("z") as client:
        replies: tuple[plait.Reply, plait.Reply] = await asyncio.gather(client.call("nap", "1"), client.call("nap", [1]))
        names: list[str] = await client.methods()
        print(replies, names)
    async with plait.aio.Publisher("t") as publisher, plait.aio.subscribe("t") as subscriber:
        await publisher.publish("x")
        async for message in subscriber:
            note(message)
"""

WRONG = {
    'plait.connect(3)': "arg-type",
    'plait.connect("x", timeout="1")': "arg-type",
    'plait.connect("x").call("m", 3)': "arg-type",
    'plait.connect("x").call("m").txt': "attr-defined",
    'plait.Server("x").handle("m", 3)': "arg-type",
    'plait.Server("x").start().x': "func-returns-value",
    'len(plait.aio.connect("x"))': "arg-type",
    'plait.Reply().text + 1': "operator",
    'plait.subscribe("x", callback=3)': "arg-type",
    'plait.aio.Publisher("x").publish(3)': "arg-type",
}


class Types(Case):
    def mypy(self, text):
        path = os.path.join(self.directory, "program.py")
        with open(path, "w") as file:
            file.write(text)
        environment = dict(os.environ, MYPYPATH=os.path.dirname(os.path.dirname(plait.__file__)))
        done = subprocess.run([sys.executable, "-m", "mypy", "--strict", "--cache-dir", os.path.join(self.directory, "cache"),
                               path], capture_output=True, text=True, timeout=PATIENCE * 4, env=environment)
        return done.returncode, done.stdout + done.stderr

    def test_a_right_program_passes(self):
        status, said = self.mypy(RIGHT)
        self.assertEqual(status, 0, said)

    def test_each_mistake_of_a_wrong_program_is_found(self):
        lines = ["import plait", "import plait.aio", *WRONG]
        status, said = self.mypy("\n".join(lines) + "\n")
        self.assertEqual(status, 1)
        for number, (text, code) in enumerate(WRONG.items(), 3):
            self.assertRegex(said, rf"program.py:{number}: error: .*\[{code}\]", text)

    def test_the_stubs_say_what_the_modules_have(self):
        environment = dict(os.environ, MYPYPATH=os.path.dirname(os.path.dirname(plait.__file__)))
        allowed = os.path.join(self.directory, "allowed")
        with open(allowed, "w") as file:
            # What a C type has and a stub cannot say, or the other way round.
            file.write("plait.__main__\n.*\\.Peer\n.*\\.Peer\\..*\n.*\\.__buffer__\n.*\\._H\n.*\\._Body\n.*\\._Answer\n.*\\._Handler\n")
        done = subprocess.run([sys.executable, "-m", "mypy.stubtest", "plait", "--allowlist", allowed, "--ignore-unused-allowlist"],
                              capture_output=True, text=True, timeout=PATIENCE * 4, env=environment, cwd=self.directory)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
