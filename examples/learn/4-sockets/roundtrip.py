"""What a round trip costs: SIZE bytes to plait's echo and back, by TCP and by UDP, the median of N.

roundtrip.py [--times N] [SIZE]
"""
import argparse
import json
import re
import socket
import statistics
import subprocess
import time

parser = argparse.ArgumentParser()
parser.add_argument("--times", type=int, default=1000)
parser.add_argument("size", type=int, nargs="?", default=64)
options = parser.parse_args()
size = options.size

server = subprocess.Popen(["plait", "serve", "echo", "--echo", "--listen", "tcp://127.0.0.1:0?framing=raw",
                           "--listen", "udp://127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
ports = {}
for line in server.stdout:
    if line.startswith("serving"):
        break
    scheme, port = re.search(r"(\w+)://[\d.]+:(\d+)", line).groups()
    ports[scheme] = int(port)

sockets = {"tcp": socket.socket(socket.AF_INET, socket.SOCK_STREAM),
           "udp": socket.socket(socket.AF_INET, socket.SOCK_DGRAM)}
medians = {}
for name, connection in sockets.items():
    connection.settimeout(10)
    connection.connect(("127.0.0.1", ports[name]))
    times = []
    for _ in range(options.times):
        begun = time.perf_counter()
        connection.sendall(b"x" * size)
        missing = size
        while missing > 0:                              # a stream may bring it in pieces
            missing -= len(connection.recv(missing))
        times.append(time.perf_counter() - begun)
    medians[name] = statistics.median(times) * 1e6
    print(f"{name}: {medians[name]:.1f} us for {size} bytes")
print("and from outside, by plait ls:")
for line in subprocess.run(["plait", "ls", "echo", "--json"], capture_output=True).stdout.splitlines():
    seen = json.loads(line)
    if seen["kind"] == "connection":
        print(f"  {seen['transport']}, framing {seen['framing']}: {seen['requests']} requests, {seen['bytes_in']} bytes")
server.terminate()
server.wait()
