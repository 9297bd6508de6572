"""run.py FILE [TEST]...: runs one file of the suite with pytest, in whatever Python this is.

Another Python than the distribution's has no pytest: it borrows that one, which is pure Python. No more than pytest
needs is borrowed, so that this Python's own packages stay what they are.
"""

import os
import sys
import tempfile

NEEDED = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "attr", "py.py")
DEBIAN = "/usr/lib/python3/dist-packages"


def main():
    with tempfile.TemporaryDirectory(prefix="plait-pytest-") as borrowed:
        try:
            import pytest
        except ImportError:
            for name in NEEDED:
                os.symlink(os.path.join(DEBIAN, name), os.path.join(borrowed, name))
            sys.path.append(borrowed)
            try:
                import pytest
            except ImportError as error:
                print(f"skip {os.path.basename(sys.argv[1])}: there is no pytest for {sys.executable} ({error}): "
                      f"install python3-pytest")
                return 77
        here = os.path.dirname(os.path.abspath(__file__))
        select = ["-k", " or ".join(sys.argv[2:])] if sys.argv[2:] else []
        return pytest.main([sys.argv[1], *select, "-s", "-p", "no:cacheprovider", "-p", "no:logging",
                            "-p", "no:terminal", "--rootdir", here, "-W", "error::pytest.PytestUnraisableExceptionWarning"])


if __name__ == "__main__":
    sys.exit(main())
