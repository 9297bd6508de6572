#!/usr/bin/python3
"""The README's server, built outside the tree from an installed prefix: test_install.py ROOT

With pkg-config (shared and static, gcc and clang) and with CMake; each is called by the command and by a
plain socket.
"""
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import outside as out  # noqa: E402

ROOT = Path(sys.argv[1]).resolve()


def source(outside):
    found = [text for kind, text, _ in out.blocks(ROOT / "README.md") if kind == "c"]
    assert found, "README.md has no block of C"
    return outside.text(found[0])


def cmake_lists():
    found = [text for kind, text, _ in out.blocks(ROOT / "README.md") if kind == "cmake"]
    assert found, "README.md has no block of CMake"
    return found[0]


def call(outside, program, environment=None):
    """Starts PROGRAM, calls it both ways, stops it."""
    outside.start(program, environment)
    said = outside.run(["plait", "call", "greeter/greet", "Ada"], cwd=outside.base)  # waits for the name
    assert said.strip() == "hello, Ada", said
    with socket.create_connection(("127.0.0.1", outside.port), timeout=out.PATIENCE) as connection:
        connection.sendall(b"Ada")
        said = connection.recv(4096)
    assert said == b"hello, Ada", said
    outside.stop()


def pkg_config(compiler, static):
    def test(outside):
        where = outside.directory(f"{compiler}{'-static' if static else ''}")
        (where / "greeter.c").write_text(source(outside))
        options = "-static $(pkg-config --static --cflags --libs plait)" if static else \
            "$(pkg-config --cflags --libs plait)"
        warnings = "-Wall -Wextra" + ("" if static else " -Werror")  # glibc warns of getpwnam in static programs
        outside.run(f"{compiler} {warnings} greeter.c -o greeter {options}", cwd=where)
        needs = outside.run(["readelf", "-d", "greeter"], cwd=where)
        assert ("libplait.so.0" in needs) != static, needs
        environment = dict(outside.environment)
        if static:
            environment.pop("LD_LIBRARY_PATH")
        call(outside, where / "greeter", environment)
    return test


def archive_alone(outside):
    """libplait.a in a program that is else dynamic."""
    where = outside.directory("archive")
    (where / "greeter.c").write_text(source(outside))
    outside.run("gcc -Wall -Wextra -Werror greeter.c -o greeter $(pkg-config --static --cflags plait) "
                f"{outside.prefix}/lib/libplait.a -pthread", cwd=where)
    call(outside, where / "greeter")


def cpp_source(outside):
    return outside.text((ROOT / "examples/hello.cpp").read_text())


def cpp_by_pkg_config(compiler):
    def test(outside):
        where = outside.directory(compiler)
        (where / "greeter.cpp").write_text(cpp_source(outside))
        outside.run(f"{compiler} -std=c++17 -Wall -Wextra -Wpedantic -Weffc++ -Werror greeter.cpp -o greeter "
                    "$(pkg-config --cflags --libs plait)", cwd=where)
        call(outside, where / "greeter")
    return test


def cpp_by_cmake(outside):
    """A project that knows no C."""
    where = outside.directory("cmake-cpp")
    (where / "greeter.cpp").write_text(cpp_source(outside))
    (where / "CMakeLists.txt").write_text(
        cmake_lists().replace("greeter C)", "greeter CXX)").replace("greeter.c)", "greeter.cpp)")
        + "set_target_properties(greeter PROPERTIES CXX_STANDARD 17)\n")
    outside.run(["cmake", "-S", ".", "-B", "out"], cwd=where)
    outside.run(["cmake", "--build", "out"], cwd=where)
    environment = dict(outside.environment)
    environment.pop("LD_LIBRARY_PATH")
    call(outside, where / "out/greeter", environment)


def cmake(target):
    def test(outside):
        where = outside.directory("cmake-" + target.replace("::", "-"))
        (where / "greeter.c").write_text(source(outside))
        (where / "CMakeLists.txt").write_text(cmake_lists().replace("plait::plait", target))
        outside.run(["cmake", "-S", ".", "-B", "out"], cwd=where)
        outside.run(["cmake", "--build", "out"], cwd=where)
        environment = dict(outside.environment)
        environment.pop("LD_LIBRARY_PATH")  # CMake sets an rpath
        call(outside, where / "out/greeter", environment)
    return test


def cmake_versions(outside):
    """0.1 is found, a version that doesn't fit is refused."""
    where = outside.directory("cmake-version")
    for version, fits in (("0.1", True), ("0.1.0", True), ("0.2", False), ("1.0", False)):
        (where / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.16)\nproject(x C)\n"
                                              f"find_package(plait {version} REQUIRED)\n")
        try:
            outside.run(["cmake", "-S", ".", "-B", f"out-{version}"], cwd=where)
            assert fits, f"version {version} was accepted"
        except AssertionError as error:
            assert not fits and "plait" in str(error), error


def everything_is_there(outside):
    for name in ("bin/plait", "lib/libplait.so", "lib/libplait.so.0", "lib/libplait.so.0.1.0", "lib/libplait.a",
                 "lib/pkgconfig/plait.pc", "lib/cmake/plait/plaitConfig.cmake",
                 "lib/cmake/plait/plaitConfigVersion.cmake", "include/plait/plait.h", "include/plait/plait.hpp",
                 *(header.relative_to(ROOT) for header in (ROOT / "include/plait").rglob("*.h*"))):
        assert (outside.prefix / name).exists(), f"{name} was not installed"
    dynamic = outside.run(["readelf", "-d", str(outside.prefix / "lib/libplait.so")], cwd=outside.base)
    assert "SONAME" in dynamic and "[libplait.so.0]" in dynamic, dynamic
    assert outside.run(["pkg-config", "--modversion", "plait"], cwd=outside.base).strip() == "0.1.0"


def a_prefix_can_be_moved(outside):
    """The command finds its library by itself, CMake's file finds itself."""
    moved = outside.base / "moved"
    outside.run(["cp", "-r", str(outside.prefix), str(moved)], cwd=outside.base)
    environment = {"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": outside.environment["XDG_RUNTIME_DIR"]}
    assert "0.1.0" in outside.run([str(moved / "bin/plait"), "version"], cwd=outside.base, environment=environment)
    where = outside.directory("cmake-moved")
    (where / "greeter.c").write_text(source(outside))
    (where / "CMakeLists.txt").write_text(cmake_lists())
    environment["CMAKE_PREFIX_PATH"] = str(moved)
    outside.run(["cmake", "-S", ".", "-B", "out"], cwd=where, environment=environment)
    assert str(moved) in (where / "out/CMakeCache.txt").read_text()


def headers_stand_alone(outside):
    """Every header compiles alone, as C11 without GNU extensions and as C++."""
    where = outside.directory("headers")
    for name in ("plait", "service", "watch"):
        (where / f"{name}.c").write_text(f"#include <plait/{name}.h>\n#include <plait/plait.h>\nint main(void) {{ return 0; }}\n")
        for compiler in ("gcc -std=c11", "clang -std=c11", "clang -x c++ -std=c++17 -nostdinc++"):
            outside.run(f"{compiler} -Wall -Wextra -Wpedantic -Werror -fsyntax-only {name}.c "
                        "$(pkg-config --cflags plait)", cwd=where)


TESTS = [("everything_is_installed", everything_is_there), ("headers_stand_alone", headers_stand_alone)]
TESTS += [(f"{compiler}_{'static' if static else 'shared'}_by_pkg_config", pkg_config(compiler, static))
          for static in (False, True) for compiler in ("gcc", "clang")]
TESTS += [("the_archive_alone", archive_alone), ("cmake_shared", cmake("plait::plait")),
          ("cmake_static", cmake("plait::static")), ("cmake_refuses_other_versions", cmake_versions),
          ("c++_by_g++_and_pkg_config", cpp_by_pkg_config("g++")),
          ("c++_by_clang++_and_pkg_config", cpp_by_pkg_config("clang++")), ("c++_by_cmake", cpp_by_cmake),
          ("a_prefix_can_be_moved", a_prefix_can_be_moved)]

sys.exit(out.main(TESTS, ROOT))
