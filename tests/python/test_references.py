"""References, counted by a Python of a debug build (python3-dbg)."""

import os
import shutil

from counting import grown
from support import Case, plait

PYTHON = "/usr/bin/python3-dbg"


class References(Case):
    def test_a_hundred_thousand_calls_leave_no_reference(self):
        self.assertTrue(os.path.exists(PYTHON), f"{PYTHON} is missing: ./dev deps installs python3-dbg")
        package = os.path.join(self.directory, "package")  # the same, with an extension that counts, too
        shutil.copytree(os.path.dirname(plait.__file__), os.path.join(package, "plait"))
        shutil.copy(os.environ["PLAIT_PYTHON_COUNTING"], os.path.join(package, "plait", "_plait.abi3.so"))
        body, _, _, references = grown(self, PYTHON, f"import sys\nsys.path.insert(0, {package!r})\n", "sys.gettotalrefcount")
        self.assertEqual(body, 0)
        self.assertLess(references, 50)  # 100 is one of all else each time
