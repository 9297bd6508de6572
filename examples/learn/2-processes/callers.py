"""Three calls are at work in a service when a fourth crashes it: what does each caller see, and who survives?

callers.py SERVICE... threads|processes: the service is python3 fragile.py or ./fragile.
"""
import concurrent.futures
import json
import os
import subprocess
import sys
import time

import plait


def instances():
    """How many processes serve: what plait ls shows."""
    out = subprocess.run(["plait", "ls", "fragile", "--json"], capture_output=True, text=True).stdout
    return sum(json.loads(line)["kind"] == "instance" for line in out.splitlines())


def wait_for_instances():
    while (count := instances()) != wanted and service.poll() is None:
        time.sleep(0.01)
    return count


def connect_to_all():
    """A client that has met all four threads or workers: it connects to another one when a call would have to wait."""
    while True:
        client, seen, until = plait.connect("fragile"), set(), time.monotonic() + 1
        while len(seen) < 4 and time.monotonic() < until:
            seen.update(callers.map(lambda _: client.call("who").text, range(8)))
        if len(seen) == 4:
            return client
        client.close()                                  # one of them was too busy to be connected: once more


def call(method, timeout=30.0):
    try:
        return client.call(method, timeout=timeout).text
    except plait.Error as error:
        return f"{type(error).__name__}: {error}"


def let_end(count):
    try:
        service.stdin.write(b"x" * count)
        service.stdin.flush()
    except BrokenPipeError:                             # nobody is left to read it
        pass


wanted = 4 if sys.argv[-1] == "processes" else 1
service = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           env={**os.environ, "PLAIT_LOG": "error"})
print("processes that serve, before:", wait_for_instances())

callers = concurrent.futures.ThreadPoolExecutor(8)
client = connect_to_all()                               # one for all callers
works = []
for _ in range(3):
    works.append(callers.submit(call, "work"))
    service.stdout.readline()                           # it says "begun"
print("crash: ", call("crash"))
let_end(3)
for number, work in enumerate(works, 1):
    print(f"work {number}:", work.result())

print("processes that serve, after:", wait_for_instances())
let_end(1)
print("work 4:", call("work", timeout=2.0))
client.close()
service.terminate()
print("the service's exit status:", service.wait())
print("its log:", service.stderr.read().decode().strip() or "(nothing)")
