#!/usr/bin/python3
"""Every fenced block of the README is run, in an empty directory, from an installed prefix: test_readme.py ROOT

```c is compiled; the first is the server that the rest talks to, others run to their end; ```cmake builds the server
again; ```sh, ```python and ```cpp run while it serves. A comment `<!-- not run: why -->` before a block exempts it, which is printed.
Documents beside the README: their blocks of C that have a main must compile.
"""
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "install"))
import outside as out  # noqa: E402

ROOT = Path(sys.argv[1]).resolve()
BLOCKS = out.blocks(ROOT / "README.md")
COMMENT = re.compile(r"#\s+(.*)$", re.M)


def serve(text):
    def test(outside):
        where = outside.directory("readme")
        (where / "greeter.c").write_text(outside.text(text))
        outside.run("cc -Wall -Wextra -Werror greeter.c -o greeter $(pkg-config --cflags --libs plait)", cwd=where)
        outside.start(where / "greeter")
        outside.run(["plait", "call", "greeter/greet", "up?"], cwd=where)  # from here on it serves
    return test


def program(text):
    def test(outside):
        where = outside.base / "readme"
        (where / "program.c").write_text(text)
        outside.run("cc -Wall -Wextra -Werror program.c -o program $(pkg-config --cflags --libs plait)", cwd=where)
        outside.run([where / "program"], cwd=where)
    return test


def shell(text):
    def test(outside):
        said = outside.run(["sh", "-eu", "-c", outside.text(text)], cwd=outside.base / "readme")
        for line in text.splitlines():
            if re.match(r"plait call|printf .*\| nc", line):
                assert "hello, Ada" in said, f"{line} said {said!r}"
        if "plait ls" in text:
            assert "greeter" in said, said
    return test


def python(text):
    def test(outside):
        said = outside.run(["/usr/bin/python3", "-c", outside.text(text)], cwd=outside.base / "readme")
        for expected in COMMENT.findall(text):
            assert expected.strip() in said, f"it said {said!r}, not {expected!r}"
    return test


def cpp(text):
    def test(outside):
        where = outside.base / "readme"
        (where / "client.cpp").write_text(outside.text(text))
        outside.run("c++ -std=c++17 -Wall -Wextra -Werror client.cpp -o client $(pkg-config --cflags --libs plait)",
                    cwd=where)
        said = outside.run([where / "client"], cwd=where)
        assert said == re.search(r"// (.*)$", text, re.M).group(1) + "\n", said
    return test


def cmake(text):
    def test(outside):
        where = outside.base / "readme"
        (where / "CMakeLists.txt").write_text(text)
        outside.run("cmake -S . -B out && cmake --build out", cwd=where)
    return test


def serves_to_the_end(outside):
    outside.stop()


def document(path, text):
    def test(outside):
        where = outside.base / "document.c"
        where.write_text(text)
        outside.run(f"cc -Wall -Wextra {where} -o {where}.out $(pkg-config --cflags --libs plait) -pthread",
                    cwd=outside.base)
    return test


def collect():
    tests = []
    kinds = {"c": serve, "sh": shell, "python": python, "cpp": cpp, "cmake": cmake}
    for number, (kind, text, why) in enumerate(BLOCKS, 1):
        name = f"readme_block_{number}_{kind or 'plain'}"
        if why or kind not in kinds:
            print(f"not run: {name}: {why or 'a block of another kind'}")
        else:
            tests.append((name, kinds[kind](text)))
            if kind == "c":
                kinds["c"] = program
    tests.append(("the_readme_server_ends_orderly", serves_to_the_end))
    for path in sorted((ROOT / "docs").rglob("*.md")):
        for number, (kind, text, why) in enumerate(out.blocks(path), 1):
            if kind == "c" and "int main(" in text and not why:
                tests.append((f"{path.stem}_block_{number}_compiles", document(path, text)))
    return tests


sys.exit(out.main(collect(), ROOT))
