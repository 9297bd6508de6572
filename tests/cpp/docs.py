#!/usr/bin/python3
"""Every block of docs/cpp.md is compiled with warnings as errors and, unless it says why not, run; what `// prints: TEXT` says is printed.

The first block with a main serves for all the others; a block without one becomes the body of a function, with the
client `c` of a server that has the methods which the document uses.
"""
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE, BUILD = Path(os.environ["PLAIT_SOURCE"]), Path(os.environ["PLAIT_BUILD"])
sys.path.insert(0, str(SOURCE / "tests/install"))
from outside import blocks  # noqa: E402

PATIENCE = 300
PRINTS = re.compile(r"// prints: (.*)$", re.M)
INCLUDES = "".join(f"#include <{name}>\n" for name in ("plait/plait.hpp", "iostream", "poll.h"))
SERVER = INCLUDES + """
int main()
{
    plait::Server s("document");
    std::optional<plait::DeferredRequest> sleeping;
    s.handle("greet", [](plait::Request &q) { q.reply("hello, " + q.text()); });
    s.handle("echo", [](plait::Request &q) { q.reply({q.body(), q.encoding()}); });
    s.handle("sleep", [&](plait::Request &q) { sleeping = q.defer(); });
    s.handle("pay", [](plait::Request &q) { q.fail(402, "no money"); });
    s.handle("log", [](plait::Request &) {});
    s.run();
}
"""


def wrapped(text):
    return (f"{INCLUDES}\nusing namespace std::chrono_literals;\n\n[[maybe_unused]] static void block(plait::Client &c)\n"
            f"{{\n(void)c;\n{text}}}\n\nint main()\n{{\n    plait::Client c(\"document\");\n    block(c);\n}}\n")


class Document:
    def __init__(self, where):
        self.where = Path(where)
        run = self.where / "run"
        run.mkdir(mode=0o700)
        self.environment = dict(os.environ, PLAIT_DIR=str(run), LD_LIBRARY_PATH=str(BUILD / "src"))
        self.servers = []

    def compile(self, name, text):
        source = self.where / f"{name}.cpp"
        source.write_text(text)
        done = subprocess.run(["g++", "-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{SOURCE}/include",
                               str(source), "-o", str(self.where / name), f"-L{BUILD}/src", "-lplait"],
                              capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        return str(self.where / name)

    def serve(self, name, text):
        self.servers.append(subprocess.Popen([self.compile(name, text)], env=self.environment))

    def run(self, name, text):
        done = subprocess.run([self.compile(name, text)], capture_output=True, text=True, timeout=PATIENCE,
                              env=self.environment)
        assert done.returncode == 0, f"it ended with {done.returncode}: {done.stderr}"
        for line in PRINTS.findall(text):
            assert line in done.stdout.splitlines(), f"it printed {done.stdout!r}, not {line!r}"

    def end(self):
        """Every server ends in order."""
        for server in self.servers:
            server.send_signal(signal.SIGTERM)
        ends = [server.wait(PATIENCE) for server in self.servers]
        assert not any(ends), f"the servers ended with {ends}"


def main():
    passed = failed = 0
    with tempfile.TemporaryDirectory() as where:
        document = Document(where)
        steps = [("the_server_of_all_blocks", lambda name: document.serve(name, SERVER))]
        served = False
        for number, (kind, text, why) in enumerate(blocks(SOURCE / "docs/cpp.md"), 1):
            assert kind == "cpp", f"block {number} is of another kind"
            if why:
                steps.append((f"block_{number}_compiles", lambda name, text=text: document.compile(name, wrapped(text))))
            elif "int main(" in text and not served:
                steps.append((f"block_{number}", lambda name, text=text: document.serve(name, text)))
                served = True
            else:
                text = text if "int main(" in text else wrapped(text)
                steps.append((f"block_{number}", lambda name, text=text: document.run(name, text)))
        steps.append(("servers_end_in_order", lambda name: document.end()))
        for name, step in steps:
            try:
                step(name)
                passed += 1
                print(f"ok {name}", flush=True)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                failed += 1
                print(f"FAIL {name}: {error}", flush=True)
        for server in document.servers:
            server.kill()
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed or passed < 10 else 0


sys.exit(main())
