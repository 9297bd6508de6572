"""A service that computes and waits: service.py NAME THREADS. Several processes may serve one name."""
import sys
import time

import plait


def compute(request=None):
    """Work for the CPU, about 10 ms of it."""
    total = 0
    for number in range(150000):
        total += number * number
    return str(total)


def wait(request):
    """What a database or another service does to us: 10 ms of nothing."""
    time.sleep(0.01)
    return "waited"


if __name__ == "__main__":
    server = plait.Server(sys.argv[1], threads=int(sys.argv[2]))
    server.handle("compute", compute)
    server.handle("wait", wait)
    print("serving", flush=True)
    server.run()
