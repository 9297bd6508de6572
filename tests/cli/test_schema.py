"""docs/command.schema.json itself: it accepts what it should, and refuses what is wrong."""

import copy
import json
import os
import re
import unittest

import schema
from plaittest import SOURCE, main

GOOD = {
    "kind": "connection", "service": "echo", "pid": 12, "connection": 3, "peer": "plait", "transport": "shm",
    "framing": "plait", "connected_ms": 1, "requests": 0, "replies": 0, "bytes_in": 0, "bytes_out": 0, "errors": 0,
    "outstanding": 0,
}


class Schema(unittest.TestCase):
    def refuse(self, **changes):
        value = copy.deepcopy(GOOD)
        value.update(changes)
        with self.assertRaises(AssertionError):
            schema.check({key: item for key, item in value.items() if item is not None})

    def test_a_good_line_is_accepted(self):
        schema.check(GOOD)
        schema.check(dict(GOOD, peer_pid=5, peer_uid=0))

    def test_wrong_lines_are_refused(self):
        self.refuse(kind="conection")
        self.refuse(kind=None)
        self.refuse(service="UPPER")
        self.refuse(service=None)
        self.refuse(pid="12")
        self.refuse(pid=0)
        self.refuse(requests=-1)
        self.refuse(requests=True)
        self.refuse(transport="pigeon")
        self.refuse(surplus=1)

    def test_every_kind_that_the_command_prints_is_in_it(self):
        printed = set()
        folder = os.path.join(SOURCE, "cli")
        for name in os.listdir(folder):
            if name.endswith(".c"):
                with open(os.path.join(folder, name)) as file:
                    printed |= set(re.findall(r'json_begin\("(\w+)"\)', file.read()))
        with open(os.path.join(SOURCE, "docs", "command.schema.json")) as file:
            known = set(json.load(file)["$defs"])
        self.assertTrue(printed)
        self.assertLessEqual(printed, known)

    def test_a_type_may_be_one_of_several(self):
        row = {"kind": "bench", "row": "r", "what": "w", "unit": "us", "plait": {"median": 1.5, "min": 1, "max": 2},
               "raw": None, "ratio": None, "goal": "", "ok": None, "note": ""}
        schema.check(row)
        for key, value in (("ok", 1), ("ratio", "1"), ("plait", {"median": 1}), ("raw", False)):
            with self.assertRaises(AssertionError):
                schema.check(dict(row, **{key: value}))


if __name__ == "__main__":
    main()
