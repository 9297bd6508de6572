"""A service that computes and waits: service.py threads|processes N"""
import sys
import threading
import time


def compute(request=None):
    """Work for the CPU, about 10 ms of it."""
    total = 0
    for number in range(150000):
        total += number * number
    return str(total)


def wait(request):
    """What a database or another service does to us: 10 ms of nothing. Tells which thread it was."""
    time.sleep(0.01)
    return str(threading.get_native_id())


if __name__ == "__main__":
    import plait                                        # here: measure.py borrows compute() where there is no plait, too
    plait.serve("sums", {"compute": compute, "wait": wait}, **{sys.argv[1]: int(sys.argv[2])})
