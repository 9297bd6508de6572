#!/usr/bin/python3
"""The pages of docs/learn are true: test_learn.py [--write] [PAGE]...

A page is a shell session. Each ```console block's lines that begin with "$ " are typed into one shell that starts in a
copy of the page's folder under examples/learn; what comes back must be what stands below them, up to what differs from run
to run: process and thread ids, ports, addresses in memory, numbers of JSON, plots of blocks, and whatever has a unit of time, speed or memory. A line "..."
stands for any lines.
A code block behind <!-- file: NAME --> is that file of the folder. --write puts files and outputs into the page.

Needs PLAIT_BUILD, the build directory; PLAIT_SOURCE, the tree.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(os.environ.get("PLAIT_SOURCE", Path(__file__).resolve().parents[2]))
BUILD = Path(os.environ.get("PLAIT_BUILD", SOURCE / "build"))
PAGES = SOURCE / "docs" / "learn"
PATIENCE = 240
BLOCK = re.compile(r"^(<!-- (?P<key>file|needs): (?P<value>[^>]+?) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$",
                   re.M | re.S)
MARK = "end-of-output-of-this-command"

VARIES = [(re.compile(pattern), word) for pattern, word in (
    (r"\b0x[0-9a-f]+\b", "0xADDRESS"),
    (r"\b(pid|ports?|tid|id|ident|native)([ =:]+)\d+", r"\1\2N"),
    (r"(127\.0\.0\.\d+|\[::1\]|0\.0\.0\.0|\*)(:| +)\d+", r"\1:N"),
    (r"\b\d[\d,]*(\.\d+)? ?(ns|µs|us|ms|s|%|MB|KiB|MiB|GiB|kB/s|/s|x|times)(?![\w])", r"N \2"),
    (r"(\":|^(?:real|user|sys) )\d+(\.\d+)?", r"\1N"),
    (r"[▁▂▃▄▅▆▇█]+", ""),
    (r" +", " "),
)]


def plain(line):
    for pattern, word in VARIES:
        line = pattern.sub(word, line)
    return line.strip()


def matches(expected, got):
    """Whether the lines are the same, where "..." among the expected ones is any lines."""
    if not expected:
        return not got
    if expected[0] == "...":
        return any(matches(expected[1:], got[i:]) for i in range(len(got) + 1))
    return bool(got) and expected[0] == got[0] and matches(expected[1:], got[1:])


class Shell:
    """One shell for a page, in a copy of its folder and a runtime directory of its own."""

    def __init__(self, folder):
        self.base = Path(tempfile.mkdtemp(prefix="plait-learn-"))
        self.base.chmod(0o700)
        shutil.copytree(folder, self.base / folder.name)
        for name in ("run", "home"):
            (self.base / name).mkdir(mode=0o700)
        paths = [str(BUILD), "/usr/local/bin", "/usr/bin", "/bin"]
        environment = {
            "PATH": ":".join(paths), "HOME": str(self.base / "home"), "PLAIT_DIR": str(self.base / "run"),
            "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "LD_LIBRARY_PATH": str(BUILD / "src"),
            "PKG_CONFIG_PATH": str(BUILD / "packaging"), "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1",
            "PYTHONPATH": str(BUILD / "bindings" / "python"),
        }
        self.process = subprocess.Popen(["setsid", "bash", "--norc", "--noprofile"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
                                        cwd=self.base / folder.name)

    def type(self, command):
        """What COMMAND says on standard output and error, as lines."""
        self.process.stdin.write(f"{command}\necho; echo {MARK}\n".encode())
        self.process.stdin.flush()
        lines = []
        for line in iter(self.process.stdout.readline, b""):
            line = line.decode(errors="backslashreplace").rstrip("\n").replace(str(self.base), "/tmp/learn")
            if line == MARK:
                return lines[:-1] if lines and lines[-1] == "" else lines
            lines.append(line)
        raise AssertionError(f"the shell ended at: {command}")

    def end(self):
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
        shutil.rmtree(self.base, ignore_errors=True)


def commands(text):
    """Pairs of a command and the lines below it."""
    found = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found:
            found[-1][1].append(line)
    return found


def session(shell, block, write):
    out = []
    for command, below in commands(block["text"]):
        got = shell.type(command)
        while got and got[-1] == "":
            got.pop()
        got = [line.rstrip() for line in got]
        out += [f"$ {command}"] + (below if "..." in below and write else got)
        expected = [plain(line) for line in below if line.strip()]
        said = [plain(line) for line in got if line.strip()]
        if not write and not matches(expected, said):
            raise AssertionError(f"$ {command}\nexpected:\n" + "\n".join(below) + "\ngot:\n" + "\n".join(got))
    return "\n".join(out) + "\n"


def lacking(text):
    """Which module that the page says it needs isn't there."""
    for module in re.findall(r"^<!-- needs: python (\w+) -->$", text, re.M):
        environment = {**os.environ, "PYTHONPATH": str(BUILD / "bindings" / "python"),
                       "LD_LIBRARY_PATH": str(BUILD / "src")}
        if subprocess.run(["/usr/bin/python3", "-c", f"import {module}"], stderr=subprocess.DEVNULL,
                          env=environment).returncode:
            return f"python3 has no {module}"
    return ""


def run(page, write=False):
    text = page.read_text()
    folder = SOURCE / "examples" / "learn" / page.stem
    shell = Shell(folder)

    def each(match):
        block = match.groupdict()
        if block["key"] == "file":
            content = (folder / block["value"]).read_text()
            if not write and content != block["text"]:
                raise AssertionError(f"{page.name} shows another {block['value']} than {folder / block['value']}")
        elif block["kind"] == "console":
            content = session(shell, block, write)
        else:
            return match.group(0)
        return f"{match.group(1) or ''}```{block['kind']}\n{content}```"

    try:
        text = BLOCK.sub(each, text)
    finally:
        shell.end()
    if write:
        page.write_text(text)


def shape(page):
    """Every page has the same parts, and stands in the index; every program of its folder stands in it."""
    text = page.read_text()
    for part in ("## The programs", "## What to look at", "## An experiment", "## Sources"):
        assert part in text, f"{page.name} has no part \"{part}\""
    assert page.name in (PAGES / "README.md").read_text(), f"{page.name} isn't in the index"
    for program in (SOURCE / "examples" / "learn" / page.stem).iterdir():
        assert program.name.startswith("__") or program.name in text, f"{page.name} doesn't mention {program.name}"


def main(arguments):
    write = "--write" in arguments
    named = [word for word in arguments if not word.startswith("--")]
    pages = [page for page in sorted(PAGES.glob("[0-9]*.md")) if not named or page.stem in named]
    passed = failed = skipped = 0
    for page in pages:
        why = lacking(page.read_text())
        if why:
            print(f"SKIP {page.stem}: {why}")
            skipped += 1
            continue
        try:
            run(page, write)
            if not write:
                shape(page)
            print(f"ok {page.stem}")
            passed += 1
        except AssertionError as error:
            print(f"FAIL {page.stem}: {error}")
            failed += 1
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return failed > 0 or not pages


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
