"""Runs a client against a server: against.py CLIENT... -- SERVER...; the client gets the server's port."""
import re
import subprocess
import sys

border = sys.argv.index("--")
client, server = sys.argv[1:border], sys.argv[border + 1:]
process = subprocess.Popen(server, stdout=subprocess.PIPE, text=True)
for line in process.stdout:
    found = re.search(r"listening on .*?(\d+)(\?| |$)", line)
    if found:
        break
else:
    sys.exit("the server said no port")
try:
    subprocess.run([*client, found.group(1)], timeout=60)
finally:
    process.terminate()
    process.wait()
