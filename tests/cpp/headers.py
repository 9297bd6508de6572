#!/usr/bin/python3
"""Every public header compiles alone and twice, as C++17 and C++20, by gcc and clang, without a warning."""
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

INCLUDE = Path(os.environ["PLAIT_SOURCE"]) / "include"
WARNINGS = "-Wall -Wextra -Wpedantic -Weffc++ -Wshadow -Wconversion -Wnon-virtual-dtor -Werror".split()
# The C headers have no classes for -Weffc++, and their macros are for C.
USES = {".hpp": "template plait::Client::CallId plait::Client::call_async(const plait::detail::CString &, "
                "const plait::Body &, void (&)(plait::Result), const plait::CallOptions &);\n"
                "template void plait::Server::handle(const plait::detail::CString &, void (&)(plait::Request &));\n",
        ".h": ""}


def main():
    passed = failed = skipped = 0
    headers = sorted(path for path in (INCLUDE / "plait").iterdir() if path.suffix in USES)
    assert any(path.suffix == ".hpp" for path in headers)
    with tempfile.TemporaryDirectory() as where:
        for compiler, standard, header in itertools.product(("g++", "clang++"), ("17", "20"), headers):
            name = f"{header.name}_compiles_as_c++{standard}_by_{compiler}"
            if not shutil.which(compiler):
                print(f"skip {name}: there is no {compiler}")
                skipped += 1
                continue
            source = Path(where) / "alone.cpp"
            include = f"#include <plait/{header.name}>\n"
            source.write_text(f"{include}{include}{USES[header.suffix]}int main() {{}}\n")
            done = subprocess.run([compiler, f"-std=c++{standard}", *WARNINGS, f"-I{INCLUDE}", "-c", "-o", "/dev/null",
                                   str(source)], capture_output=True, text=True, timeout=120)
            passed, failed = passed + (done.returncode == 0), failed + (done.returncode != 0)
            print(f"ok {name}" if done.returncode == 0 else f"FAIL {name}:\n{done.stderr}", flush=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


sys.exit(main())
