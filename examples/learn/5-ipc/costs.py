"""What each step costs: a 64-byte call and its answer, the median, beside the bare socket in the same run.

costs.py [ROUNDS]
"""
import json
import subprocess
import sys

rounds = sys.argv[1] if len(sys.argv) > 1 else "3"

for transport, what in (("raw-tcp", "raw framing, TCP"), ("tcp", "plait framing, TCP"),
                        ("unix", "plait framing, Unix socket"), ("shm", "shared memory")):
    out = subprocess.run(["plait", "bench", "--transport", transport, "--pattern", "call", "--rounds", rounds, "--json"],
                         capture_output=True, text=True).stdout
    row = json.loads(out.splitlines()[0])
    bare = f"   bare socket {row['raw']['median']:6.1f} us" if row.get("raw") else ""
    print(f"{what:27} {row['plait']['median']:6.1f} us{bare}")
