"""A main thread and two workers: who they are, seen from inside; and from outside, by a command.

threads.py [COMMAND [ARGUMENT]...]: while all three are there, the command runs, with PID replaced by our process id.
"""
import os
import subprocess
import sys
import threading
import time

met = threading.Barrier(3)


def tell(who):
    print(f"{who}: ident {threading.get_ident():#x}, native id {threading.get_native_id()}", flush=True)


def work(who, previous):
    previous.wait()                                     # so that they speak in turn
    tell(who)
    turns[who].set()
    met.wait()                                          # both are here, and the main thread may look
    met.wait()                                          # until it has


turns = {name: threading.Event() for name in ("main", "first", "second")}
workers = [threading.Thread(target=work, args=("first", turns["main"]), name="first"),
           threading.Thread(target=work, args=("second", turns["first"]), name="second")]
for worker in workers:
    worker.start()
tell("main")
print("the main thread's native id is the process's id:", threading.get_native_id() == os.getpid())
turns["main"].set()
met.wait()
print("the kernel shows", len(os.listdir("/proc/self/task")), "threads", flush=True)
if len(sys.argv) > 1:
    subprocess.run([word.replace("PID", str(os.getpid())) for word in sys.argv[1:]])
met.wait()
for worker in workers:
    worker.join()
while len(os.listdir("/proc/self/task")) > 1:           # they are done; the kernel takes a moment to clear away
    time.sleep(0.001)
print("joined:", len(os.listdir("/proc/self/task")), "thread")
