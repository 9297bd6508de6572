"""A global that two threads add to, and two processes: who sees what."""
import multiprocessing
import threading

fork = multiprocessing.get_context("fork")
plain = 0
shared = fork.Value("i", 0)                             # lies in memory that the children share


def add():
    global plain
    with shared.get_lock():
        plain += 1
        shared.value += 1


def run(kind, name):
    global plain
    plain = shared.value = 0
    workers = [kind(target=add) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(f"after two {name}: the global is {plain}, the shared one is {shared.value}")


run(threading.Thread, "threads")
run(fork.Process, "processes")
