#!/usr/bin/python3
"""Every public header compiles alone and twice, by gcc and clang, without a warning, and a planted one is found.

As C++17 and C++20; the parts of plait.hpp as C++17 alone, since they are all of it in C++20, too.
"""
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

INCLUDE = Path(os.environ["PLAIT_SOURCE"]) / "include"
WARNINGS = "-Wall -Wextra -Wpedantic -Weffc++ -Wshadow -Wconversion -Wnon-virtual-dtor -Werror".split()
# Most warnings of a template come with its use.
USES = """
using plait::Body, plait::CallOptions, plait::Client, plait::Loan, plait::Pool, plait::Request, plait::Result;
using plait::Server, plait::Timeout, plait::detail::CString;
template void Server::handle(const CString &, void (&)(Request &));
template void Server::handle(const CString &, const Pool &, void (&)(Request &));
template Client::CallId Client::call_async(const CString &, const Body &, void (&)(Result), const CallOptions &);
template Client::CallId Client::call_async(const CString &, const Body &, void (&)(Result), Timeout);
template Client::CallId Client::call_async(const CString &, Loan &&, void (&)(Result), const CallOptions &);
template Client::CallId Client::call_async(const CString &, Loan &&, void (&)(Result), Timeout);
template std::uint8_t *Loan::as() const;
"""
# Options stay aggregates, which C++20 writes in place.
USES_20 = """
inline Server twenty("twenty", {.threads = 2, .exclusive = true});
inline void in_place(Client &client) { client.call("", "", {.timeout = std::chrono::seconds(1), .idempotent = true}); }
"""
# g++'s is one that -Weffc++ alone minds; clang's option of that name knows only destructors.
PLANTED = {"g++": "class Planted { public: Planted() {} private: int number; };\n",
           "clang++": "struct Planted { virtual int unused(int parameter) { return 0; } };\n"}
PATIENCE = 300


def compile_(where, include, compiler, standard, text):
    source = Path(where) / "alone.cpp"
    source.write_text(text)
    return subprocess.run([compiler, f"-std=c++{standard}", *WARNINGS, f"-I{include}", "-c", "-o", "/dev/null",
                           str(source)], capture_output=True, text=True, timeout=PATIENCE)


def alone(compiler, standard, header):
    include = f"#include <{header.relative_to(INCLUDE)}>\n"
    uses = "" if header.name != "plait.hpp" else USES if standard == "17" else USES + USES_20
    with tempfile.TemporaryDirectory() as where:
        done = compile_(where, INCLUDE, compiler, standard,
                        f"{include}{include}{uses}int main() {{}}\n")
    return done.returncode == 0, done.stderr


def planted(compiler):
    """The violation stands in a copy of the headers."""
    with tempfile.TemporaryDirectory() as where:
        copy = Path(where) / "include"
        shutil.copytree(INCLUDE, copy)
        with open(copy / "plait/cpp/value.hpp", "a") as header:
            header.write(PLANTED[compiler])
        done = compile_(where, copy, compiler, "17", "#include <plait/plait.hpp>\nint main() {}\n")
    return done.returncode != 0 and "Planted" in done.stderr, f"it wasn't: {done.stderr}"


def main():
    headers = sorted(path for path in (INCLUDE / "plait").rglob("*") if path.suffix in (".h", ".hpp"))
    assert sum(path.suffix == ".hpp" for path in headers) > 1 and INCLUDE / "plait/plait.hpp" in headers
    steps = []
    for compiler in ("g++", "clang++"):
        for standard, header in itertools.product(("17", "20"), headers):
            if standard == "17" or header.parent.name != "cpp":
                steps.append((f"{header.relative_to(INCLUDE)}_compiles_as_c++{standard}_by_{compiler}", compiler,
                              lambda c=compiler, s=standard, h=header: alone(c, s, h)))
        steps.append((f"a_planted_warning_is_found_by_{compiler}", compiler, lambda c=compiler: planted(c)))
    passed = failed = skipped = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = [(name, compiler, pool.submit(step) if shutil.which(compiler) else None) for name, compiler, step in steps]
        for name, compiler, run in runs:
            if run is None:
                print(f"skip {name}: there is no {compiler}")
                skipped += 1
                continue
            fine, why = run.result()
            passed, failed = passed + fine, failed + (not fine)
            print(f"ok {name}" if fine else f"FAIL {name}:\n{why}", flush=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


sys.exit(main())
