"""python3 -m plait: the version, and what was loaded from where."""

import sys

import plait
from plait import _plait


def library():
    with open("/proc/self/maps") as maps:
        for line in maps:
            path = line.split(maxsplit=5)[-1].strip()
            if "/libplait.so" in path:
                return path
    return "linked into the extension"


print(f"plait {plait.__version__}")
print(f"package   {plait.__path__[0]}")
print(f"extension {_plait.__file__}")
print(f"library   {library()}")
print(f"python    {sys.version.split()[0]} {sys.executable}")
