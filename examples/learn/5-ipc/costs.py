"""What each step costs: a 64-byte call and its answer, the median, beside the bare socket in the same run."""
import json
import subprocess

for transport, what in (("raw-tcp", "raw framing, TCP"), ("tcp", "plait framing, TCP"),
                        ("unix", "plait framing, Unix socket"), ("shm", "shared memory")):
    out = subprocess.run(["plait", "bench", "--transport", transport, "--pattern", "call", "--rounds", "3", "--json"],
                         capture_output=True, text=True).stdout
    row = json.loads(out.splitlines()[0])
    bare = f"   bare socket {row['raw']['median']:6.1f} us" if row.get("raw") else ""
    print(f"{what:27} {row['plait']['median']:6.1f} us{bare}")
