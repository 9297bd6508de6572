#!/usr/bin/python3
"""Each tool of the lint finds a planted violation, and nothing in a tree that is right: test_tools.py ROOT"""
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(sys.argv[1]).resolve()
TOOLS = ROOT / "tools"

RIGHT = """/* right: a module as it should be. */
#include "low/low.h"
#include <stdatomic.h>

static _Atomic int word;

void publish(void)
{
    atomic_store_explicit(&word, 1, memory_order_release); /* RX1: pairs with AX1 in look */
}

int look(void)
{
    /* AX1: pairs with RX1 in publish */
    int seen = atomic_load_explicit(&word, memory_order_acquire);
    return seen + atomic_load_explicit(&word, memory_order_relaxed); /* a hint */
}
"""


def run(tool, *arguments):
    done = subprocess.run(["/usr/bin/python3", str(TOOLS / tool), *map(str, arguments)], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def tree(where):
    """A small tree in which everything is right."""
    for folder in ("src/low", "src/mid", "src/side", "src/high", "cli"):
        (where / folder).mkdir(parents=True)
    (where / "src/LAYERS").write_text("# comment\n0 low\n1 mid\n1 side\n2 high\n")
    (where / "src/low/low.h").write_text("/* low */\n")
    (where / "src/high/right.c").write_text(RIGHT)
    (where / "cli/main.c").write_text('#include "command.h"\n#include <plait/plait.h>\n')
    (where / "cli/command.h").write_text("")
    return where


def finds(tool, path, text, expected):
    """Writes TEXT to PATH in a right tree; TOOL must say EXPECTED then, and nothing before."""
    with tempfile.TemporaryDirectory() as scratch:
        root = tree(Path(scratch))
        status, output = run(tool, root)
        assert status == 0 and output == "", f"{tool} complains of a right tree: {output}"
        (root / path).write_text(text)
        status, output = run(tool, root)
        assert status == 1, f"{tool} found nothing in {text!r}"
        assert expected in output and path in output, f"{tool} says {output!r}, expected {expected!r}"


def test_an_include_upwards_is_found():
    finds("check-layers", "src/low/up.c", '#include "high/right.h"\n', "only point down")


def test_an_include_of_a_sibling_is_found():
    finds("check-layers", "src/mid/aside.c", '#include "side/side.h"\n', "sibling")


def test_an_include_without_its_folder_is_found():
    finds("check-layers", "src/mid/short.c", '#include "mid.h"\n', "folder/file.h")


def test_an_include_of_no_layer_is_found():
    finds("check-layers", "src/mid/other.c", '#include "cli/command.h"\n', "no layer")


def test_a_folder_outside_the_order_is_found():
    with tempfile.TemporaryDirectory() as scratch:
        root = tree(Path(scratch))
        (root / "src/stray").mkdir()
        (root / "src/stray/x.c").write_text('#include "low/low.h"\n')
        status, output = run("check-layers", root)
        assert status == 1 and "missing in src/LAYERS" in output, output


def test_the_command_including_internals_is_found():
    finds("check-layers", "cli/cheat.c", '#include "low/low.h"\n', "<plait/...> alone")


def test_a_release_without_a_label_is_found():
    finds("check-orders", "src/high/bare.c", "void f(void)\n{\n    atomic_store_explicit(&x, 1, memory_order_release);\n}\n",
          "without a label")


def test_an_implicit_order_without_a_label_is_found():
    finds("check-orders", "src/high/bare.c", "int f(void)\n{\n    return atomic_fetch_add(&x, 1);\n}\n", "seq_cst without a label")


def test_a_fence_without_a_label_is_found():
    finds("check-orders", "src/high/bare.c", "void f(void)\n{\n    atomic_thread_fence(memory_order_seq_cst);\n}\n",
          "without a label")


def test_a_label_whose_partner_is_gone_is_found():
    finds("check-orders", "src/high/lonely.c",
          "void f(void)\n{\n    atomic_store_explicit(&x, 1, memory_order_release); /* RY1: pairs with AY1 in g */\n}\n",
          "AY1, which isn't there")


def test_a_partner_that_does_not_name_its_label_is_found():
    finds("check-orders", "src/high/stranger.c",
          "void f(void)\n{\n    atomic_store_explicit(&x, 1, memory_order_release); /* RY1: pairs with AX1 in look */\n}\n",
          "doesn't name it")


def test_a_pair_of_two_releases_is_found():
    finds("check-orders", "src/high/twice.c",
          "void f(void)\n{\n    atomic_store_explicit(&x, 1, memory_order_release); /* RY1: pairs with RY2 */\n"
          "    int gap = 1;\n    gap++;\n    gap++;\n    gap++;\n"
          "    atomic_store_explicit(&y, 1, memory_order_release); /* RY2: pairs with RY1 */\n}\n",
          "one must release, the other acquire")


def test_a_label_at_no_operation_is_found():
    finds("check-orders", "src/high/ghost.c", "/* RY1: pairs with AX1 */\nint x;\n", "stands at no atomic operation")


def test_a_label_that_means_two_things_is_found():
    finds("check-orders", "src/mid/clash.c",
          "void f(void)\n{\n    atomic_store_explicit(&x, 1, memory_order_release); /* RX1: pairs with AZ1 */\n"
          "    int gap = 1;\n    gap++;\n    gap++;\n    gap++;\n"
          "    g = atomic_load_explicit(&x, memory_order_acquire); /* AZ1: pairs with RX1 */\n}\n", "something else")


def test_a_relaxed_operation_without_a_reason_is_found():
    finds("check-orders", "src/high/loose.c",
          "int f(void)\n{\n    return atomic_load_explicit(&x, memory_order_relaxed);\n}\n", "relaxed without a word")


def test_a_label_in_a_string_is_none():
    finds("check-orders", "src/high/text.c",
          'void f(void)\n{\n    log("RY1: x"); atomic_store_explicit(&x, 1, memory_order_release);\n}\n', "without a label")


def test_a_path_of_somebodys_machine_is_found():
    finds("check-words", "src/high/path.c", '/* see ' + '/wo' + 'rk/notes */\n', "has no place here")


def test_a_note_of_something_to_do_is_found():
    finds("check-words", "src/high/later.c", '/* TO' + 'DO: more */\n', "has no place here")


def test_blanks_at_a_lines_end_are_found():
    finds("check-words", "src/high/blank.c", "int x; \n", "blanks")


def test_large_functions_and_files_are_reported():
    with tempfile.TemporaryDirectory() as scratch:
        root = tree(Path(scratch))
        assert run("report-sizes", root) == (0, "")
        (root / "src/high/large.c").write_text("int f(void)\n{\n" + "    x();\n" * 61 + "}\n" + "/* */\n" * 600)
        status, output = run("report-sizes", root)
        assert status == 0 and "large.c: 6" in output and "large.c:1: int f(void): 63 lines" in output, output


def exports(declare, version_map, define, *flags):
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "include/plait").mkdir(parents=True)
        (root / "src").mkdir()
        header = "#define plait_macro(x) x\ntypedef void plait_fn(int x);\nstruct plait_s { void (*plait_m)(void); };\n"
        (root / "include/plait/plait.h").write_text(header + "".join(f"int {name}(void);\n" for name in declare))
        names = "".join(f"{name};" for name in version_map)
        (root / "src/plait.map").write_text(f"X_1 {{ global: {names} local: *; }};\n")
        (root / "x.c").write_text("".join(f"int {name}(void); int {name}(void) {{ return 0; }}\n" for name in define)
                                  + "double sin(double); double plait_use(double x); double plait_use(double x) { return sin(x); }\n")
        library = root / "libplait.so"
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, root / "x.c", f"-Wl,--version-script={root}/src/plait.map",
                        *flags], check=True)
        return run("check-exports", library, root)


def test_exports_that_agree_pass():
    status, output = exports(["plait_a", "plait_b"], ["plait_a", "plait_b"], ["plait_a", "plait_b"])
    assert (status, output) == (0, ""), output


def test_a_function_missing_in_the_map_is_found():
    status, output = exports(["plait_a", "plait_b"], ["plait_a"], ["plait_a", "plait_b"])
    assert status == 1 and "plait_b: declared" in output and "not listed" in output, output


def test_a_function_missing_in_the_header_is_found():
    status, output = exports(["plait_a"], ["plait_a", "plait_b"], ["plait_a", "plait_b"])
    assert status == 1 and "plait_b: " in output and "not declared" in output, output


def test_a_function_without_a_definition_is_found():
    status, output = exports(["plait_a", "plait_b"], ["plait_a", "plait_b"], ["plait_a"])
    assert status == 1 and "plait_b: " in output and "not exported" in output, output


def test_a_foreign_library_is_found():
    status, output = exports(["plait_a"], ["plait_a"], ["plait_a"], "-Wl,--no-as-needed", "-lm")
    assert status == 1 and "libplait.so needs libm" in output, output


def test_sums_count_tests_not_programs():
    lines = [
        {"name": "many", "result": "OK", "duration": 1.0, "stdout": "ok a\nskip b: no\n1 passed, 0 failed, 1 skipped\n"},
        {"name": "one", "result": "OK", "duration": 1.0, "stdout": ""},
        {"name": "dies late", "result": "FAIL", "duration": 1.0, "stdout": "ok a\n1 passed, 0 failed, 0 skipped\n"},
        {"name": "hangs", "result": "TIMEOUT", "duration": 1.0, "stdout": "ok a\n"},
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as log:
        log.write("".join(json.dumps(line) + "\n" for line in lines))
        log.flush()
        status, output = run("sum-tests", log.name)
    assert status == 1 and output.endswith("\n3 passed, 2 failed, 1 skipped\n"), output
    assert run("sum-tests", "/nonexistent")[0] == 1


def test_a_fuzz_target_that_fails_is_told():
    with tempfile.TemporaryDirectory() as scratch:
        real, planted = Path(scratch) / "real", Path(scratch) / "planted"
        for folder, status in ((real, 0), (planted, 77)):
            folder.mkdir()
            (folder / "fuzz_it").write_text(f"#!/bin/sh\nexit {status}\n")
            (folder / "fuzz_it").chmod(0o755)
        status, output = run("run-fuzz", real, planted)
        assert status == 0 and "2 passed, 0 failed, 0 skipped" in output, output
        shutil.rmtree(planted)
        shutil.copytree(real, planted)
        status, output = run("run-fuzz", real, planted)
        assert status == 1 and "FAIL fuzz_it_finds_the_planted_bug" in output, output
        (real / "fuzz_it").unlink()
        assert run("run-fuzz", real)[0] == 1


class Skip(Exception):
    pass


def dev(*arguments, **options):
    return subprocess.run([str(ROOT / "dev"), *arguments], capture_output=True, text=True, **options)


def test_unknown_verbs_are_usage_errors():
    for arguments in (["frobnicate"], [], ["exec"], ["test", "nothing"], ["install", "--what"], ["install", "--prefix"]):
        done = dev(*arguments)
        assert done.returncode == 2 and done.stderr and not done.stdout, (arguments, done)
    assert "usage: ./dev VERB" in dev("help").stdout


def test_exec_keeps_pid_status_and_paths():
    with subprocess.Popen([str(ROOT / "dev"), "exec", "sh", "-c", "echo $$; exit 7"], stdout=subprocess.PIPE, text=True,
                          cwd="/") as child:
        assert int(child.stdout.read()) == child.pid
    assert child.returncode == 7
    paths = dev("exec", "sh", "-c", 'echo "$PATH $LD_LIBRARY_PATH"', cwd="/").stdout
    assert paths.startswith(f"{ROOT}/build:") and f"{ROOT}/build/src" in paths, paths
    assert dev("exec", "sh", "-c", "kill -TERM $$").returncode == -15


def test_exec_builds_against_the_tree():
    if not (ROOT / "build/src/libplait.so").exists():
        raise Skip("./dev exec uses build/, and nothing is built there")
    with tempfile.TemporaryDirectory() as scratch:
        where = Path(scratch)
        (where / "x.c").write_text("#include <plait/plait.h>\n#include <stdio.h>\n"
                                   "int main(void)\n{\n    puts(plait_version());\n    return 0;\n}\n")
        (where / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.16)\nproject(x C)\n"
                                              "find_package(plait REQUIRED)\nadd_executable(y x.c)\n"
                                              "target_link_libraries(y plait::plait)\n")
        for build in ("gcc -Wall -Werror x.c -o x $(pkg-config --cflags --libs plait) && ./x",
                      "cmake -S . -B out >&2 && cmake --build out >&2 && out/y"):
            done = dev("exec", "sh", "-c", build, cwd=where)
            assert done.stdout == "0.1.0\n", done


def test_without_root_the_install_line_is_printed():
    """A machine without the packages, as nobody, without sudo: a PATH whose dpkg-query knows nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        bin_directory = Path(scratch) / "bin"
        bin_directory.mkdir()
        for name, text in (("dpkg-query", "exit 1"), ("id", "echo 1000"), ("sudo", "exit 1")):
            (bin_directory / name).write_text(f"#!/bin/sh\n{text}\n")
            (bin_directory / name).chmod(0o755)
        done = dev("run", "--once", env={"PATH": f"{bin_directory}:/usr/bin:/bin"})
    assert done.returncode == 1, done
    packages = re.search(r'(?m)^packages_build="(.+)"$', (ROOT / "dev").read_text()).group(1)
    assert f"    sudo apt-get install -y --no-install-recommends {packages}\n" in done.stderr, done.stderr


def main():
    failed = passed = skipped = 0
    for name, test in list(globals().items()):
        if not name.startswith("test_"):
            continue
        try:
            test()
            passed += 1
            print(f"ok {name[5:]}")
        except Skip as why:
            skipped += 1
            print(f"skip {name[5:]}: {why}")
        except Exception as error:  # pylint: disable=broad-except
            failed += 1
            print(f"FAIL {name[5:]}: {type(error).__name__}: {error}")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


sys.exit(main())
