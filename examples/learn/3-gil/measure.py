"""What threads and processes do for work that computes and for work that waits: a table, and a plot in gil.svg.

measure.py [--seconds S] [--rounds N]: each figure is the best of N measurements of S seconds. A figure of the table is
calls per second to one service, relative to one thread or process of that row; two calls for each are in flight.
"""
import argparse
import asyncio
import multiprocessing
import subprocess
import sys
import sysconfig
import threading
import time

import service

try:
    import plait.aio
except ImportError as error:                            # built for another Python; the bare threads are told all the same
    no_plait = f"measure.py: this Python has no plait, so no services are measured: {error}"
else:
    no_plait = None

FORK = multiprocessing.get_context("fork")
COUNTS = (1, 2, 4)
PYTHON, C = [sys.executable, "service.py"], ["./service"]
SERVICES = (("Python, threads", PYTHON, "threads"), ("Python, processes", PYTHON, "processes"),
            ("C, threads", C, "threads"))


def build():
    """Whether this Python has the lock."""
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "one with a GIL"
    return "a free-threaded one" + (", whose GIL was switched on again" if sys._is_gil_enabled() else "")


class Service:
    """The service, for as long as `with` lasts."""

    def __init__(self, command, kind, count):
        try:
            self.process = subprocess.Popen([*command, kind, str(count)])
        except FileNotFoundError:
            sys.exit("measure.py: there is no ./service: build service.c first")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


async def rate(callers, method):
    """Calls per second; each of the callers always has one in flight."""
    end, count = time.perf_counter() + options.seconds, 0

    async def call(client):
        nonlocal count
        while time.perf_counter() < end:
            await client.call(method)
            count += 1

    begun = time.perf_counter()
    await asyncio.gather(*(call(client) for client in callers))
    return count / (time.perf_counter() - begun)


async def connect_to_all(in_flight, clients, serving):
    """CLIENTS that have met all SERVING threads or processes, with IN_FLIGHT calls at once. A client connects to another
    one when a call would have to wait."""
    while True:
        connected = [await plait.aio.connect("sums", connect_timeout=30) for _ in range(clients)]
        callers, seen, until = connected * (in_flight // clients), set(), time.perf_counter() + 1
        while len(seen) < serving and time.perf_counter() < until:
            seen.update(reply.text for reply in await asyncio.gather(*(client.call("wait") for client in callers)))
        if len(seen) == serving:
            return connected, callers
        for client in connected:                        # one of them was too busy to be connected: once more
            client.close()


async def rates(methods, in_flight, clients, serving):
    """By method, the calls per second with IN_FLIGHT at once, spread over CLIENTS."""
    connected, callers = await connect_to_all(in_flight, clients, serving)
    found = {method: await rate(callers, method) for method in methods}
    for client in connected:
        client.close()
    return found


def measure(methods, serving, in_flight=None, clients=1):
    return asyncio.run(asyncio.wait_for(rates(methods, in_flight or 2 * serving, clients, serving), 60))


def compute_for(begin, count):
    begin.wait()
    end = time.perf_counter() + options.seconds
    while time.perf_counter() < end:
        service.compute()
        count.value += 1


def bare(make, barrier, number):
    """The same work per second in threads or processes that nobody calls."""
    begin = barrier(number)
    counts = [FORK.Value("i", 0, lock=False) for _ in range(number)]
    workers = [make(target=compute_for, args=(begin, count)) for count in counts]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(count.value for count in counts) / options.seconds


def best(rate):
    """Over rounds: others use the machine, too."""
    return max(rate() for _ in range(options.rounds))


def table():
    """Rows of a name and a figure for each count; whatever is compared is measured by turns."""
    found = {}
    for _ in range(options.rounds):
        for name, command, kind in SERVICES:
            for count in COUNTS:
                with Service(command, kind, count):
                    for method, figure in measure(("compute", "wait"), count).items():
                        key = f"{method}: {name}", count
                        found[key] = max(found.get(key, 0), figure)
    names = [f"{method}: {name}" for method in ("compute", "wait") for name, *_ in SERVICES]
    return [(name, [found[name, count] / found[name, 1] for count in COUNTS]) for name in names]


def plot(rows):
    """A line for each row: calls per second relative to the first, over the counts."""
    colours = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860")
    most = max(max(values) for _, values in rows)
    svg = ['<svg xmlns="http://www.w3.org/2000/svg" width="520" height="260" font-family="sans-serif" font-size="12">',
           '<rect width="520" height="260" fill="white"/><path d="M40 20V220H280" fill="none" stroke="black"/>',
           '<text x="110" y="255">threads or processes</text>']
    for i, count in enumerate(COUNTS):
        svg.append(f'<text x="{46 + i * 100}" y="237">{count}</text>')
    for times in range(1, int(most) + 1):
        svg.append(f'<text x="14" y="{224 - 190 * times / most:.0f}">{times} x</text>')
    for i, (name, values) in enumerate(rows):
        points = " ".join(f"{50 + j * 100},{220 - 190 * value / most:.0f}" for j, value in enumerate(values))
        svg.append(f'<polyline points="{points}" fill="none" stroke="{colours[i]}" stroke-width="2"/>')
        svg.append(f'<text x="300" y="{40 + 20 * i}" fill="{colours[i]}">{name}</text>')
    with open("gil.svg", "w") as file:
        file.write("\n".join([*svg, "</svg>\n"]))


def waiting():
    """How much more often 16 threads wait than one, for one client and for 16, with 16 calls in flight."""
    found = {}
    for _ in range(options.rounds):
        for threads in (1, 16):
            for clients in (1, 16):
                with Service(PYTHON, "threads", threads):
                    figure = measure(["wait"], threads, in_flight=16, clients=clients)["wait"]
                found[threads, clients] = max(found.get((threads, clients), 0), figure)
    return [found[16, clients] / found[1, clients] for clients in (1, 16)]


def main():
    print("this Python is", build(), flush=True)
    one, two = (best(lambda: bare(threading.Thread, threading.Barrier, number)) for number in (1, 2))
    print(f"two bare threads compute {two / one:.2f} x what one does", flush=True)
    if no_plait:
        sys.exit(no_plait)

    rows = table()
    print(f"{'':28}" + "".join(f"{count:>8}" for count in COUNTS))
    for name, values in rows:
        print(f"{name:28}" + "".join(f"{f'{value:.2f} x':>8}" for value in values))
    plot(rows)

    with Service(PYTHON, "processes", 2):
        pairs = [(bare(FORK.Process, FORK.Barrier, 2), measure(["compute"], 2)["compute"])
                 for _ in range(options.rounds)]
    alone, served = (max(figures) for figures in zip(*pairs))
    print(f"two served processes compute {served / alone:.2f} x what two bare ones do")
    one_client, many_clients = waiting()
    print(f"16 threads wait {one_client:.1f} x as often as one, for one asynchronous client with 16 calls in flight")
    print(f"16 threads wait {many_clients:.1f} x as often as one, for 16 clients")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    main()
