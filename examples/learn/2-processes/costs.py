"""What a thread and a process cost: to create and join one, and in memory while it is there. Times are medians.

costs.py [--count N] [--megabytes M]: how many, and how much memory the program has itself.
"""
import argparse
import multiprocessing
import os
import re
import statistics
import threading
import time


def memory(*pids):
    """KiB that the processes have: pages that several share count in parts, and the kernel's tables of pages too."""
    total = 0
    for pid in pids:
        for name, field in (("smaps_rollup", "Pss"), ("status", "VmPTE")):
            with open(f"/proc/{pid}/{name}") as file:
                total += int(re.search(rf"^{field}:\s+(\d+)", file.read(), re.M)[1])
    return total


def nothing():
    pass


def stay(here, over):
    here.wait()
    over.wait()


def measure(name, make, kind, count):
    """KIND makes what workers meet at: threading, or a way in which multiprocessing starts processes."""
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        worker = make(target=nothing)
        worker.start()
        worker.join()
        times.append(time.perf_counter() - begun)

    here, over = kind.Barrier(count + 1), kind.Event()
    before = memory(os.getpid())
    workers = [make(target=stay, args=(here, over)) for _ in range(count)]
    for worker in workers:
        worker.start()
    here.wait()                                         # all of them are there
    kib = memory(os.getpid(), *(worker.pid for worker in workers if hasattr(worker, "pid"))) - before
    over.set()
    for worker in workers:
        worker.join()
    print(f"{name:15} created and joined in {statistics.median(times) * 1e6:9.1f} us, has {kib / count:8.1f} KiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--megabytes", type=int, default=0)
    options = parser.parse_args()
    ballast = b"x" * (options.megabytes << 20)
    fork, spawn = (multiprocessing.get_context(way) for way in ("fork", "spawn"))
    measure("thread", threading.Thread, threading, options.count)
    measure("forked process", fork.Process, fork, options.count)
    measure("new interpreter", spawn.Process, spawn, max(options.count // 10, 2))
