"""Two threads count to 100,000 each, in one variable: wrong, and with a lock. Python's lock (the GIL) doesn't help:
it protects the interpreter, and another thread may run between the load and the store."""
import sys
import threading
import time

TIMES = 100000
sys.setswitchinterval(1e-6)                             # changes threads often, so that the race shows soon
counter = 0
lock = threading.Lock()


def one():
    return 1


def count_plain():
    global counter
    for _ in range(TIMES):
        counter = counter + one()                       # loads, calls, adds, stores


def count_guarded():
    global counter
    for _ in range(TIMES):
        with lock:
            counter = counter + one()


def run(work):
    global counter
    counter = 0
    begun = time.perf_counter()
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - begun) * 1000


for _ in range(100):                                    # a race may go well, which makes it worse
    ms = run(count_plain)
    if counter != 2 * TIMES:
        break
print("plain:", "right, by luck" if counter == 2 * TIMES else "WRONG, some were lost", f"in {ms:.1f} ms")
ms = run(count_guarded)
print(f"lock: {counter} in {ms:.1f} ms")
