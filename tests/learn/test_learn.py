#!/usr/bin/python3
"""The pages of docs/learn are true: test_learn.py [--write] PAGE; test_learn.py index

A page is a shell session. Each ```console block's lines that begin with "$ " are typed into one shell that starts in a
copy of the page's folder under examples/learn; what comes back must be what stands below them, up to what differs from
run to run: process and thread ids, ports, addresses in memory, numbers of JSON, plots of blocks, and whatever has a unit
of time, speed or memory. A line "..." stands for any lines. Comments above a block tell more of it:

    <!-- file: NAME -->                the block is that file of the folder
    <!-- test: PROGRAM OPTIONS -->     when tested, PROGRAM is given OPTIONS too: less work than a reader's run does
    <!-- up to: REGEX -->              whatever matches differs, too
    <!-- picture: NAME shows WORDS --> above an image: the session has made NAME, in which the WORDS can be read
    <!-- needs: python MODULE -->      anywhere, once or more, "command" and "file": the page is skipped without it

--write puts files, outputs of full runs, and pictures into the page. Needs PLAIT_BUILD, the build directory, and
PLAIT_SOURCE, the tree.
"""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOURCE = Path(os.environ.get("PLAIT_SOURCE", Path(__file__).resolve().parents[2]))
BUILD = Path(os.environ.get("PLAIT_BUILD", SOURCE / "build"))
PAGES = SOURCE / "docs" / "learn"
PROGRAMS = SOURCE / "examples" / "learn"
PYTHON = "/usr/bin/python3"
PATIENCE = 100  # seconds for one command, on a machine that does much else
BLOCK = re.compile(r"^(?P<notes>(?:<!-- [^\n]* -->\n)*)```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
NOTE = re.compile(r"<!-- (file|test|up to): (.*?) -->")
NEED = re.compile(r"^<!-- needs: (python|command|file) (\S+) -->$", re.M)
PICTURE = re.compile(r"^<!-- picture: (\S+) shows (.*?) -->\n!\[[^\]]*\]\((\S+)\)$", re.M)
MARK = "end-of-output-of-this-command"

VARIES = [(re.compile(pattern), word) for pattern, word in (
    (r"\b0x[0-9a-f]+\b", "0xADDRESS"),
    (r"\b(pid|ports?|tid|id|ident|native|process|processes|worker|call|shared)([ =:/]+)\d+", r"\1\2N"),
    (r"plait\[\d+\]", "plait[N]"),
    (r"(127\.0\.0\.\d+|\[::1\]|0\.0\.0\.0|\*)(:| +)\d+", r"\1:N"),
    (r"-?\b\d[\d,]*(\.\d+)? ?(ns|µs|us|ms|s|%|MB|KiB|MiB|GiB|kB/s|/s|x|times)(?![\w])", r"N \2"),
    (r"(\":|^(?:real|user|sys) )\d+(\.\d+)?", r"\1N"),
    (r"[▁▂▃▄▅▆▇█]+", ""),
    (r" +", " "),
)]


def plain(line, varies):
    for pattern, word in varies:
        line = pattern.sub(word, line)
    return line.strip()


def matches(expected, got):
    """Whether the lines are the same, where "..." among the expected ones is any lines."""
    if not expected:
        return not got
    if expected[0] == "...":
        return any(matches(expected[1:], got[i:]) for i in range(len(got) + 1))
    return bool(got) and expected[0] == got[0] and matches(expected[1:], got[1:])


def environment(home, runtime):
    """What programs are started with: this build's plait, directories of their own, no display."""
    return {
        "PATH": f"{BUILD}:/usr/local/bin:/usr/bin:/bin", "HOME": str(home), "PLAIT_DIR": str(runtime),
        "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "LD_LIBRARY_PATH": str(BUILD / "src"),
        "PKG_CONFIG_PATH": str(BUILD / "packaging"), "PYTHONPATH": str(BUILD / "bindings" / "python"),
        "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1", "OMP_THREAD_LIMIT": "1",
    }


class Place:
    """A copy of a page's folder and directories of its own; what was started in it ends with it."""

    def __init__(self, name):
        self.base = Path(tempfile.mkdtemp(prefix="plait-learn-"))
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # where status pages may lie beside the names
        self.runtime = Path(tempfile.mkdtemp(prefix="learn-", dir=memory))
        self.folder = self.base / name
        shutil.copytree(PROGRAMS / name, self.folder, ignore=shutil.ignore_patterns("__pycache__"))
        self.environment = environment(self.base, self.runtime)
        self.groups = []

    def nameless(self, line):
        """LINE as if the place were not a temporary one."""
        return line.replace(str(self.runtime), "/run/user/1000/plait").replace(str(self.base), "/tmp/learn")

    def start(self, *command, **options):
        """A process in a group of its own, that end() kills."""
        options.setdefault("env", self.environment)
        process = subprocess.Popen(command, cwd=self.folder, start_new_session=True, **options)
        self.groups.append(process)
        return process

    def end(self):
        for process in self.groups:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        for path in (self.base, self.runtime):
            shutil.rmtree(path, ignore_errors=True)


class Shell:
    """One shell for a page."""

    def __init__(self, place):
        self.place = place
        self.process = place.start("bash", "--norc", "--noprofile", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT)
        self.pending = b""
        self.type("ulimit -c 0")                        # crashes are meant; nobody needs their cores

    def lines(self):
        """The lines that come, for at most PATIENCE seconds each command."""
        limit = time.monotonic() + PATIENCE
        while True:
            while b"\n" in self.pending:
                line, _, self.pending = self.pending.partition(b"\n")
                yield self.place.nameless(line.decode(errors="backslashreplace").rstrip())
            if not select.select([self.process.stdout], [], [], max(0, limit - time.monotonic()))[0]:
                raise AssertionError(f"nothing came for {PATIENCE} s")
            piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                raise AssertionError("the shell ended")
            self.pending += piece

    def type(self, command):
        """What COMMAND says on standard output and error, as lines."""
        self.process.stdin.write(f"{command}\necho; echo {MARK}\n".encode())
        self.process.stdin.flush()
        lines = []
        try:
            for line in self.lines():
                if line == MARK:
                    break
                lines.append(line)
        except AssertionError as error:
            raise AssertionError(f"$ {command}\n" + "\n".join(lines + [str(error)])) from None
        while lines and lines[-1] == "":
            lines.pop()
        return lines


def commands(text):
    """Pairs of a command and the lines below it."""
    found = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found:
            found[-1][1].append(line)
    return found


def quick(command, notes):
    """COMMAND as it is tested: with less work."""
    for key, value in notes:
        program, _, options = value.partition(" ")
        if key == "test" and program in command.split():
            command = command.replace(program, f"{program} {options}", 1)
    return command


def session(shell, text, notes, write):
    varies = [(re.compile(value), "") for key, value in notes if key == "up to"] + VARIES
    out = []
    for command, below in commands(text):
        got = shell.type(command if write else quick(command, notes))
        out += [f"$ {command}"] + (below if "..." in below and write else got)
        expected, said = ([plain(line, varies) for line in lines if line.strip()] for lines in (below, got))
        if not write and not matches(expected, said):
            raise AssertionError(f"$ {command}\nexpected:\n" + "\n".join(below) + "\ngot:\n" + "\n".join(got))
    return "\n".join(out) + "\n"


def lacking(text):
    """What the page says it needs and this machine doesn't have."""
    for kind, name in NEED.findall(text):
        if kind == "command" and not shutil.which(name, path="/usr/bin:/bin"):
            return f"there is no {name}"
        if kind == "file" and not os.path.exists(name):
            return f"this kernel has no {name}"
        if kind == "python" and subprocess.run([PYTHON, "-c", f"import {name}"], stderr=subprocess.DEVNULL,
                                               env=environment("/", "/")).returncode:
            return f"{PYTHON} has no module {name}"
    return ""


def read_picture(path):
    """The words that can be read in a picture."""
    assert path.exists(), f"{path.name} wasn't made"
    if path.suffix == ".svg":
        assert "<polyline" in path.read_text(), f"{path.name} has no line"
        return " ".join(re.findall(r">([^<>\n]+)</text>", path.read_text()))
    done = subprocess.run(["tesseract", str(path), "-", "--psm", "6"], capture_output=True,
                          env={**os.environ, "OMP_THREAD_LIMIT": "1"})
    assert done.returncode == 0, f"{path.name}: {done.stderr.decode()}"
    return " ".join(done.stdout.decode().split())


def check_pictures(page, folder, write):
    """What the session has made, or with FOLDER None what stands in the page."""
    for name, words, shown in PICTURE.findall(page.read_text()):
        path = folder / name if folder else PAGES / shown
        seen = read_picture(path)
        assert re.search(words, seen), f"{path} should show {words!r} and shows {seen!r}"
        if write:
            shutil.copyfile(path, PAGES / shown)


def run(page, write=False):
    text = page.read_text()
    place = Place(page.stem)
    shell = Shell(place)

    def each(match):
        notes = NOTE.findall(match["notes"])
        named = [value for key, value in notes if key == "file"]
        if named:
            content = (PROGRAMS / page.stem / named[0]).read_text()
            assert write or content == match["text"], f"{page.name} shows another {named[0]} than its folder has"
        elif match["kind"] == "console":
            content = session(shell, match["text"], notes, write)
        else:
            return match.group(0)
        return f"{match['notes']}```{match['kind']}\n{content}```"

    try:
        text = BLOCK.sub(each, text)
        if write:
            page.write_text(text)
        check_pictures(page, place.folder, write)
    finally:
        place.end()


def check_shape(page):
    """Every page has the same parts; every program of its folder stands in it."""
    text = page.read_text()
    for part in ("## The programs", "## What to look at", "## An experiment", "## Sources"):
        assert part in text, f"{page.name} has no part \"{part}\""
    for program in (PROGRAMS / page.stem).iterdir():
        assert program.name.startswith("__") or program.name in text, f"{page.name} doesn't mention {program.name}"


def check_index():
    """Each page has a line in the index that names its folder and its test; the README leads to the index."""
    pages = sorted(PAGES.glob("[0-9]*.md"))
    assert [page.stem[0] for page in pages] == list("1234567"), pages
    index = (PAGES / "README.md").read_text()
    tests = (SOURCE / "tests" / "learn" / "meson.build").read_text()
    for page in pages:
        line = next((line for line in index.splitlines() if f"({page.name})" in line), "")
        assert f"examples/learn/{page.stem}" in line, f"the index doesn't say where the programs of {page.name} are"
        assert f"learn/{page.stem}`" in line, f"the index doesn't name the test of {page.name}"
        assert f"'{page.stem}'" in tests, f"{page.name} has no test"
        if not lacking("<!-- needs: command tesseract -->"):
            check_pictures(page, None, False)
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text() + index):
            assert (PAGES / target).exists(), f"{page.name}: there is no {target}"
    assert "(docs/learn/README.md)" in (SOURCE / "README.md").read_text(), "the README doesn't lead to docs/learn"


def check(page, write):
    run(page, write)
    check_shape(page)


def main(arguments):
    write = "--write" in arguments
    names = [word for word in arguments if not word.startswith("--")]
    if not names:
        print(__doc__)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # with all that was started
    passed = failed = skipped = 0
    for name in names:
        page = PAGES / f"{name}.md"
        why = "" if name == "index" else lacking(page.read_text())
        if why:
            print(f"skip {name}: {why}")
            skipped += 1
            continue
        try:
            check_index() if name == "index" else check(page, write)
            print(f"ok {name}")
            passed += 1
        except AssertionError as error:
            print(f"FAIL {name}: {error}")
            failed += 1
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 77 if skipped and not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
