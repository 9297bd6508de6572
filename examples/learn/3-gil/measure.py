"""What threads and processes do for work that computes and for work that waits: a table, and a plot in gil.svg.

Each figure is calls per second to one service, relative to one thread of the same language. One client keeps as
many calls in flight as the service has threads or processes.
"""
import asyncio
import multiprocessing
import os
import subprocess
import sys
import sysconfig
import time

import plait.aio
import service

SECONDS, ROUNDS, COUNTS = 0.5, 4, (1, 2, 4)


async def call_for(name, method, in_flight, clients):
    """Calls per second, IN_FLIGHT at once, spread over CLIENTS."""
    callers = [await plait.aio.connect(name) for _ in range(clients)] * (in_flight // clients)
    await asyncio.gather(*(client.call(method) for client in callers * 2))      # warm, and all connected
    end, count = time.perf_counter() + SECONDS, 0

    async def call(client):
        nonlocal count
        while time.perf_counter() < end:
            await client.call(method)
            count += 1

    begun = time.perf_counter()
    await asyncio.gather(*(call(client) for client in callers))
    rate = count / (time.perf_counter() - begun)
    for client in callers[:clients]:
        client.close()
    return rate


def serve(command, processes, threads):
    started = [subprocess.Popen([*command, "work", str(threads)], stdout=subprocess.PIPE) for _ in range(processes)]
    for process in started:
        process.stdout.readline()
    return started


def measure(command, method, processes=1, threads=1, in_flight=None, clients=1):
    started = serve(command, processes, threads)
    try:
        return asyncio.run(call_for("work", method, in_flight or processes * threads, clients))
    finally:
        for process in started:
            process.terminate()
            process.wait()


def compute_for(begin, count):
    begin.wait()
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        service.compute()
        count.value += 1


def bare(processes):
    """The same work in processes that nobody calls."""
    begin = multiprocessing.Barrier(processes)
    counts = [multiprocessing.Value("i", 0, lock=False) for _ in range(processes)]
    children = [multiprocessing.Process(target=compute_for, args=(begin, count)) for count in counts]
    for child in children:
        child.start()
    for child in children:
        child.join()
    return sum(count.value for count in counts) / SECONDS


def plot(rows):
    """A line for each row: calls per second relative to the first, over the counts."""
    colours = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860")
    most = max(max(values) for _, values in rows)
    svg = ['<svg xmlns="http://www.w3.org/2000/svg" width="520" height="260" font-family="sans-serif" font-size="12">',
           '<path d="M40 20V220H280" fill="none" stroke="black"/><text x="150" y="250">how many</text>']
    for i, count in enumerate(COUNTS):
        svg.append(f'<text x="{50 + i * 100}" y="235">{count}</text>')
    for i, (name, values) in enumerate(rows):
        points = " ".join(f"{50 + j * 100},{220 - 190 * value / most:.0f}" for j, value in enumerate(values))
        svg.append(f'<polyline points="{points}" fill="none" stroke="{colours[i]}" stroke-width="2"/>')
        svg.append(f'<text x="300" y="{40 + 20 * i}" fill="{colours[i]}">{name}</text>')
    with open("gil.svg", "w") as file:
        file.write("\n".join([*svg, "</svg>\n"]))


def main():
    free = sysconfig.get_config_var("Py_GIL_DISABLED") == 1
    print("this Python is", "free-threaded: its threads compute at once" if free else "one with a GIL")
    python, c = [sys.executable, "service.py"], ["./service"]
    kinds = [(f"{method}: {name}", command, method, what) for method in ("compute", "wait")
             for name, command, what in (("Python, threads", python, "threads"),
                                         ("Python, processes", python, "processes"), ("C, threads", c, "threads"))]
    best = {}                                           # of each cell, over rounds: others use the machine, too
    for _ in range(ROUNDS):
        for name, command, method, what in kinds:
            for n in COUNTS:
                best[name, n] = max(best.get((name, n), 0), measure(command, method, **{what: n}))
    rows = [(name, [best[name, n] / best[name, 1] for n in COUNTS]) for name, *_ in kinds]
    print(f"{'':28}" + "".join(f"{count:>8}" for count in COUNTS))
    for name, values in rows:
        print(f"{name:28}" + "".join(f"{f'{value:.2f} x':>8}" for value in values))
    plot(rows)
    pairs = [(bare(2), measure(python, "compute", processes=2)) for _ in range(ROUNDS)]
    alone, served = (max(rates) for rates in zip(*pairs))
    print(f"two served processes compute {served / alone:.2f} x what two bare ones do")
    for clients, who in ((1, "one asynchronous client with 16 calls in flight"), (16, "16 clients")):
        one, many = (max(measure(python, "wait", threads=n, in_flight=16, clients=clients) for _ in range(ROUNDS))
                     for n in (1, 16))
        print(f"16 threads wait {many / one:.1f} x as often as one, for {who}")
    print("the plot is in gil.svg:", os.path.getsize("gil.svg") > 500)


if __name__ == "__main__":
    main()
