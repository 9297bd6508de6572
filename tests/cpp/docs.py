#!/usr/bin/python3
"""Every block of docs/cpp.md is compiled with warnings as errors and run; what `// prints: TEXT` says is printed.

The first block with a main serves for all the others; a block without one becomes the body of a function, with the
client `c` of a server that has the methods which the document uses. The block of shell runs where the page says that
the programs before it lie. And every class, function and option of plait.hpp is in the document.
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
FILE = re.compile(r"`(\w+\.cpp)`:\n\n```cpp\n(.*?)^```$", re.M | re.S)
DETAIL = re.compile(r"^namespace detail\n\{$.*?^\} // namespace detail$", re.M | re.S)
CLASS = re.compile(r"^(?:template <[^\n]*> )?(class|struct|enum class) (?:\[\[nodiscard\]\] )?(\w+)[^;{]*?\{(?:$(.*?)^\};| [^\n]*\};$)",
                   re.M | re.S)
SECTION = re.compile(r"^  (public|protected|private):$", re.M)
FUNCTION = re.compile(r"^    (?! |friend |using )[\w\[\]:<>*&. ]*?\b(\w+)\(", re.M)
OPTION = re.compile(r"^    [\w:<>()]+(?: \w+\))?>? (\w+)(?: = [^;]*|\{[^;]*\})?;", re.M)
INCLUDES = "".join(f"#include <{name}>\n" for name in ("plait/plait.hpp", "cstring", "iostream", "poll.h"))
SERVER = """#include "blocks.hpp"

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
    return (f"#include \"blocks.hpp\"\n\nusing namespace std::chrono_literals;\n\n[[maybe_unused]] static void block(plait::Client &c)\n"
            f"{{\n(void)c;\n{text}}}\n\nint main()\n{{\n    plait::Client c(\"document\");\n    block(c);\n}}\n")


class Document:
    def __init__(self, where):
        self.where = Path(where)
        run = self.where / "run"
        run.mkdir(mode=0o700)
        self.environment = dict(os.environ, PLAIT_DIR=str(run), LD_LIBRARY_PATH=str(BUILD / "src"))
        self.servers = []
        (self.where / "blocks.hpp").write_text(INCLUDES)
        self.compiler("-x", "c++-header", "blocks.hpp")  # once for all: most of the time goes there

    def compiler(self, *arguments):
        done = subprocess.run(["g++", "-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{SOURCE}/include",
                               *arguments], cwd=self.where, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr

    def compile(self, name, text):
        (self.where / f"{name}.cpp").write_text(text)
        self.compiler(f"{name}.cpp", "-o", name, f"-L{BUILD}/src", "-lplait")
        return str(self.where / name)

    def shell(self, text):
        """As in the directory in which the page's files were saved."""
        folder = self.where / "page"
        folder.mkdir()
        for name, source in FILE.findall((SOURCE / "docs/cpp.md").read_text()):
            (folder / name).write_text(source)
        environment = dict(self.environment, PKG_CONFIG_PATH=str(BUILD / "packaging"))
        done = subprocess.run(["sh", "-eu", "-c", text], cwd=folder, capture_output=True, text=True, timeout=PATIENCE,
                              env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "hello, Ada\n", f"it printed {done.stdout!r}"

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


def public(body):
    """The public sections of a class's body."""
    parts = SECTION.split(body)
    return "".join(text for kind, text in zip(parts[1::2], parts[2::2]) if kind == "public")


def everything_is_described():
    document, classes, functions, options = (SOURCE / "docs/cpp.md").read_text(), set(), set(), set()
    for header in (SOURCE / "include/plait/cpp").iterdir():
        text = header.read_text()
        classes.update(name for _, name, _ in CLASS.findall(DETAIL.sub("", text)))
        for kind, name, body in CLASS.findall(text):  # the bases among them
            if kind == "class":
                functions.update(FUNCTION.findall(public(body)))
            elif kind == "struct" and name in classes:
                options.update(OPTION.findall(re.sub(r"/\*.*?\*/", "", body, flags=re.S)))
    functions -= classes | {"AnyRequest", "CString", "bool"}
    assert len(classes) > 25 and len(functions) > 50 and len(options) > 25, (classes, functions, options)
    lacking = [name for name in sorted(classes) if not re.search(rf"`{name}[`(:]", document)]
    lacking += [f"{name}()" for name in sorted(functions) if not re.search(rf"\b{name}(<T>)?\(", document)]
    lacking += [name for name in sorted(options) if not re.search(rf"`{name}[`(]", document)]
    assert not lacking, f"it doesn't tell of {', '.join(lacking)}"


def main():
    passed = failed = 0
    with tempfile.TemporaryDirectory() as where:
        document = Document(where)
        steps = [("the_server_of_all_blocks", lambda name: document.serve(name, SERVER))]
        served = False
        for number, (kind, text, why) in enumerate(blocks(SOURCE / "docs/cpp.md"), 1):
            assert kind in ("cpp", "sh") and not why, f"block {number} is of another kind, or isn't to be run"
            if kind == "sh":
                steps.append((f"block_{number}", lambda name, text=text: document.shell(text)))
            elif "int main(" in text and not served:
                steps.append((f"block_{number}", lambda name, text=text: document.serve(name, text)))
                served = True
            else:
                text = text if "int main(" in text else wrapped(text)
                steps.append((f"block_{number}", lambda name, text=text: document.run(name, text)))
        steps.append(("servers_end_in_order", lambda name: document.end()))
        steps.append(("every_class_function_and_option_is_described", lambda name: everything_is_described()))
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
