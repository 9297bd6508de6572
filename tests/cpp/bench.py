#!/usr/bin/python3
"""bench-cpp measures, and bench/table.py understands what it prints. How fast anything was is not looked at."""
import json
import os
import subprocess
import sys
from pathlib import Path

SOURCE, BUILD = Path(os.environ["PLAIT_SOURCE"]), Path(os.environ["PLAIT_BUILD"])
PATIENCE = 300


def run(*command, data=None):
    return subprocess.run([str(part) for part in command], input=data, capture_output=True, text=True, timeout=PATIENCE)


def main():
    if len(os.sched_getaffinity(0)) < 2:
        print("skip bench-cpp_prints_a_row: two sides that spin need two CPUs\n0 passed, 0 failed, 1 skipped")
        return 0
    try:
        done = run(BUILD / "bench/bench-cpp", "--json", "--rounds", 2, "--turns", 10)
        assert done.returncode in (0, 1), f"it ended with {done.returncode}: {done.stderr}"
        row = json.loads(done.stdout)
        assert row["ok"] == (done.returncode == 0) and row["ratio"] > 0, row
        for figure in (row["plait"], row["raw"]):
            assert 0 < figure["min"] <= figure["median"] <= figure["max"], row
        table = run("/usr/bin/python3", SOURCE / "bench/table.py", data=done.stdout)
        assert table.returncode == 0, table.stderr
        assert row["what"] in table.stdout.splitlines()[-1], table.stdout
        wrong = run(BUILD / "bench/bench-cpp", "--rounds", "many")
        assert wrong.returncode == 2 and "many" in wrong.stderr, wrong
    except (AssertionError, ValueError, subprocess.TimeoutExpired) as error:
        print(f"FAIL bench-cpp_prints_a_row: {error}\n0 passed, 1 failed, 0 skipped")
        return 1
    print("ok bench-cpp_prints_a_row\n1 passed, 0 failed, 0 skipped")
    return 0


sys.exit(main())
