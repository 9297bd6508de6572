#!/usr/bin/python3
"""bench/python.py [--json] [--rounds N] [--only ROW]...: what the Python package costs. Run it by ./dev exec.

Each figure stands beside what it is compared with: the C client, and what Python itself offers (a Unix socket,
multiprocessing.Pipe, asyncio's streams). Contenders take turns, round by round and each first in every other one, in
fresh processes and in the same CPU placement; the table shows medians of the rounds' medians. What counts is the median
of the rounds' ratios: what disturbs a round disturbs both of its halves. Every echo is compared with what was sent. With
--json: lines for bench/table.py. The status is 1 if a goal is missed.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

BATCH, SMALL, WARM_UP = 16, 4096, 2000
SPIN_ALWAYS, SPIN_NEVER, SPIN_DEFAULT = 1_000_000, -1, 0
TASKS = 100
FRAME, FRAME_WARM_UP, FRAME_PAUSE = (1080, 1920, 3), 50, 0.002

# ---- the contenders: each runs in a process of its own ----


def median_us(call, size, count):
    """The median round trip of CALL(body), which returns what came back, in microseconds."""
    body = b"x" * size
    small = size <= SMALL
    for _ in range(WARM_UP if small else 100):
        assert call(body) == body
    times, now = [], time.perf_counter_ns
    if small:
        for _ in range(count // BATCH):
            begun = now()
            for _ in range(BATCH):
                call(body)
            times.append((now() - begun) / BATCH)
    else:
        for _ in range(count):
            begun = now()
            reply = call(body)
            times.append(now() - begun)
            assert len(reply) == size
            del reply  # giving it back is not what is measured; the C client frees it inside
    return statistics.median(times) / 1e3


def plait_call(name, spin, size, count):
    import plait

    with plait.connect(name, spin_us=int(spin)) as client:
        call = client.call
        return median_us(lambda body: memoryview(call("", body)), int(size), int(count))


def plait_serve(name, spin):
    import plait

    server = plait.Server(name, spin_us=int(spin))
    server.handle("", lambda request: request.body)
    print("ready", flush=True)
    server.run()


def frames_publish(topic, count):
    """As bench-echo publish: numpy's frames, each drawn where its subscriber reads it."""
    import plait

    with plait.Publisher(topic, wait_subscribers=1, timeout=20.0) as publisher:
        print("ready", flush=True)
        publisher.publish(b"")
        for number in range(int(count) + FRAME_WARM_UP):
            frame = publisher.loan(FRAME, "u1")
            frame[:] = number & 255
            stamp = frame.reshape(-1)[:8].view("<u8")
            stamp[0] = time.monotonic_ns()
            publisher.publish(frame)
            time.sleep(FRAME_PAUSE)
        sys.stdin.read()


def frames_watch(topic, spin, count):
    """From the commit of a frame until it is a numpy array here."""
    import plait

    times, now = [], time.monotonic_ns
    with plait.subscribe(topic, timeout=20.0, spin_us=int(spin)) as subscriber:
        while len(times) < int(count):
            message = subscriber.next()
            if len(message) == 0:
                continue
            frame = message.array()
            seen = now()
            assert frame.shape == FRAME and not frame.flags.owndata
            if message.number > FRAME_WARM_UP:
                times.append(seen - int(frame.reshape(-1)[:8].view("<u8")[0]))
    return statistics.median(times) / 1e3


def socket_call(path, size, count):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    send, receive, head = connection.sendall, connection.recv, struct.Struct("<I")

    def call(body):
        send(head.pack(len(body)) + body)
        reply = receive(65536)
        while len(reply) < 4 or len(reply) < 4 + head.unpack_from(reply)[0]:
            reply += receive(65536)
        return reply[4:]

    return median_us(call, int(size), int(count))


def pipe_call(size, count):
    import multiprocessing

    def echo(end):
        if affinity := os.environ.get("BENCH_PEER"):
            os.sched_setaffinity(0, {int(affinity)})
        try:
            while True:
                end.send_bytes(end.recv_bytes())
        except EOFError:
            pass

    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=echo, args=(theirs,), daemon=True)
    process.start()
    theirs.close()

    def call(body):
        ours.send_bytes(body)
        return ours.recv_bytes()

    return median_us(call, int(size), int(count))


def together(make, count):
    """TASKS tasks that each await calls in turn: microseconds per call."""
    import asyncio

    async def main():
        calls = [await make() for _ in range(TASKS)]
        body = b"x" * 64

        async def work(call, rounds):
            for _ in range(rounds):
                assert await call(body) == body

        await asyncio.gather(*(work(call, 10) for call in calls))
        begun = time.perf_counter()
        await asyncio.gather(*(work(call, count // TASKS) for call in calls))
        return (time.perf_counter() - begun) * 1e6 / (count // TASKS * TASKS)

    return asyncio.run(main())


def aio_call(name, count):
    import plait.aio

    client = None

    async def make():
        nonlocal client
        client = client or await plait.aio.connect(name)

        async def call(body):
            return bytes(await client.call("", body))

        return call

    return together(make, int(count))


def aio_serve(name):
    import asyncio

    import plait.aio

    async def main():
        server = plait.aio.Server(name)

        @server.method()
        async def echo(request):
            return request.body

        print("ready", flush=True)
        await server.run()

    asyncio.run(main())


def streams_call(path, count):
    import asyncio

    async def make():
        reader, writer = await asyncio.open_unix_connection(path)

        async def call(body):
            writer.write(struct.pack("<I", len(body)) + body)
            size, = struct.unpack("<I", await reader.readexactly(4))
            return await reader.readexactly(size)

        return call

    return together(make, int(count))


def streams_serve(path):
    import asyncio

    async def echo(reader, writer):
        try:
            while True:
                head = await reader.readexactly(4)
                writer.write(head + await reader.readexactly(struct.unpack("<I", head)[0]))
        except asyncio.IncompleteReadError:
            writer.close()

    async def main():
        server = await asyncio.start_unix_server(echo, path, backlog=TASKS)
        print("ready", flush=True)
        await server.serve_forever()

    asyncio.run(main())


# ---- running them ----


def pinned(cpu):
    return None if cpu is None else lambda: os.sched_setaffinity(0, {cpu})


def python(*arguments):
    return [sys.executable, os.path.abspath(__file__), "--worker", *map(str, arguments)]


class Round:
    """One contender's turn: a directory of its own, a server on one CPU, a client on the other (None: anywhere)."""

    def __init__(self, cpus):
        self.client_cpu, self.server_cpu = cpus
        self.directory = tempfile.mkdtemp(prefix="plait-bench-")
        self.environment = dict(os.environ, PLAIT_DIR=self.directory)
        if self.server_cpu is not None:
            self.environment["BENCH_PEER"] = str(self.server_cpu)
        self.path = os.path.join(self.directory, "socket")
        self.server = None

    def serve(self, command):
        self.server = subprocess.Popen(command, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       preexec_fn=pinned(self.server_cpu))
        if self.server.stdout.readline() != b"ready\n":
            raise SystemExit(f"{command} did not start")

    def measure(self, command):
        done = subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, check=True,
                              preexec_fn=pinned(self.client_cpu))
        return float(done.stdout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.server:
            self.server.stdin.close()
            self.server.send_signal(signal.SIGTERM)
            try:
                self.server.wait(5)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait()
            self.server.stdout.close()
        shutil.rmtree(self.directory, ignore_errors=True)


ECHO = shutil.which("bench-echo") or os.path.join(os.path.dirname(shutil.which("plait") or ""), "bench", "bench-echo")


def c_by_c(cpus, spin, size, count):
    with Round(cpus) as turn:
        turn.serve([ECHO, "serve", "echo", str(spin)])
        return turn.measure([ECHO, "call", "echo", str(spin), str(size), str(count)]) / 1e3


def c_by_python(cpus, spin, size, count):
    with Round(cpus) as turn:
        turn.serve([ECHO, "serve", "echo", str(spin)])
        return turn.measure(python("plait_call", "echo", spin, size, count))


def python_by_python(cpus, spin, size, count):
    with Round(cpus) as turn:
        turn.serve(python("plait_serve", "echo", spin))
        return turn.measure(python("plait_call", "echo", spin, size, count))


def bare_socket(cpus, size, count):
    with Round(cpus) as turn:
        turn.serve([ECHO, "socket", turn.path])
        return turn.measure(python("socket_call", turn.path, size, count))


def frames(cpus, publisher, watcher, spin, count=300):
    """A frame's way between two of "c" and "python". More are sent than counted: some may be missed."""
    publish = {"c": [ECHO, "publish", "frames"], "python": python("frames_publish", "frames")}
    watch = {"c": [ECHO, "watch", "frames", str(spin), str(count)],
             "python": python("frames_watch", "frames", spin, count)}
    with Round(cpus) as turn:
        turn.serve([*publish[publisher], str(count * 2)])
        return turn.measure(watch[watcher]) / (1e3 if watcher == "c" else 1)


def pipe(cpus, size, count):
    with Round(cpus) as turn:
        return turn.measure(python("pipe_call", size, count))


def asyncio_plait(cpus, count):
    with Round(cpus) as turn:
        turn.serve(python("aio_serve", "echo"))
        return turn.measure(python("aio_call", "echo", count))


def asyncio_plait_c(cpus, count):
    with Round(cpus) as turn:
        turn.serve([ECHO, "serve", "echo", "0"])
        return turn.measure(python("aio_call", "echo", count))


def asyncio_streams(cpus, count):
    with Round(cpus) as turn:
        turn.serve(python("streams_serve", turn.path))
        return turn.measure(python("streams_call", turn.path, count))


# ---- threads and processes ----

SECONDS = 2.0


def burn():
    """Some milliseconds of the interpreter's own work."""
    total = 0
    for i in range(60_000):
        total += i & 7
    return total


def rate_of(step):
    """How often STEP() is done in a second, of SECONDS after a start."""
    end = time.perf_counter() + 0.5
    while time.perf_counter() < end:
        step()
    begun, count = time.perf_counter(), 0
    while (now := time.perf_counter()) < begun + SECONDS:
        step()
        count += 1
    return count / (now - begun)


def burn_bare():
    return rate_of(burn)


def burn_serve(name, processes):
    import plait

    print("ready", flush=True)
    plait.serve(name, {"": lambda request: str(burn())}, processes=int(processes))


def wait_serve(name, threads):
    import plait

    def wait(request):
        time.sleep(0.01)

    print("ready", flush=True)
    plait.serve(name, {"": wait}, threads=int(threads))


def rate_by_threads(name, count):
    """Calls per second of COUNT clients, each in a thread of its own."""
    import threading

    import plait

    rates = []

    def work():
        with plait.connect(name) as client:
            rates.append(rate_of(lambda: client.call("")))

    threads = [threading.Thread(target=work) for _ in range(int(count))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(rates)


def rate_by_aio(name, count):
    """Calls per second of one asynchronous client that has COUNT in flight."""
    import asyncio

    import plait.aio

    async def main():
        done, running = 0, True

        async def work(client):
            nonlocal done
            while running:
                await client.call("")
                done += 1

        async with await plait.aio.connect(name) as client:
            tasks = [asyncio.create_task(work(client)) for _ in range(int(count))]
            await asyncio.sleep(0.5)
            begun, before = time.perf_counter(), done
            await asyncio.sleep(SECONDS)
            rate = (done - before) / (time.perf_counter() - begun)
            running = False
            await asyncio.gather(*tasks)
            return rate

    return asyncio.run(main())


def burn_by_workers(count):
    with Round(FREE) as turn:
        turn.serve(python("burn_serve", "burn", count))
        return turn.measure(python("rate_by_threads", "burn", 2 * count))


def burn_by_bare_processes(count):
    processes = [subprocess.Popen(python("burn_bare"), stdout=subprocess.PIPE) for _ in range(count)]
    return sum(float(process.communicate()[0]) for process in processes)


def wait_by(threads, how):
    with Round(FREE) as turn:
        turn.serve(python("wait_serve", "wait", threads))
        return turn.measure(python(how, "wait", 16))


def start_ms(*code):
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", *code], check=True)
        times.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(times)


TWO, ONE, FREE = (0, 1), (0, 0), (None, None)


class Row:
    def __init__(self, name, what, unit, ours, beside, raw, goal, judge):
        self.name, self.what, self.unit, self.ours, self.beside, self.raw = name, what, unit, ours, beside, raw
        self.goal, self.judge = goal, judge


def at_most(factor):
    return lambda pairs: statistics.median(ours / raw for ours, raw in pairs) <= factor


def at_least_faster(factor):
    return at_most(1 / factor)


def at_most_more(much):
    return lambda pairs: statistics.median(ours - raw for ours, raw in pairs) <= much


def at_least(factor):
    return lambda pairs: statistics.median(ours / raw for ours, raw in pairs) >= factor


def rows():
    mebi = 1 << 20
    yield Row("spinning", "64 B call, both spinning, two CPUs; C server", "us",
              lambda: c_by_python(TWO, SPIN_ALWAYS, 64, 100_000), "C client",
              lambda: c_by_c(TWO, SPIN_ALWAYS, 64, 100_000), "<= C + 0.6 us", at_most_more(0.6))
    for name, cpus, where in (("one", ONE, "one CPU"), ("two", TWO, "two CPUs"), ("free", FREE, "unpinned")):
        yield Row(f"blocking-{name}", f"64 B call, never spinning, {where}; C server", "us",
                  lambda cpus=cpus: c_by_python(cpus, SPIN_NEVER, 64, 20_000), "Unix socket, C server",
                  lambda cpus=cpus: bare_socket(cpus, 64, 20_000), "<= 1.0 x", at_most(1.0))
    for name, cpus, where in (("two", TWO, "two CPUs"), ("free", FREE, "unpinned")):
        yield Row(f"both-{name}", f"64 B call, client and server in Python, {where}", "us",
                  lambda cpus=cpus: python_by_python(cpus, SPIN_DEFAULT, 64, 50_000), "multiprocessing.Pipe",
                  lambda cpus=cpus: pipe(cpus, 64, 20_000), "10 x faster", at_least_faster(10))
    yield Row("asyncio", f"{TASKS} concurrent calls of 64 B on one client, unpinned; asyncio server", "us per call",
              lambda: asyncio_plait(FREE, 100_000), "asyncio streams",
              lambda: asyncio_streams(FREE, 50_000), "5 x the calls", at_least_faster(5))
    yield Row("asyncio-c", f"{TASKS} concurrent calls of 64 B on one client, unpinned; C server", "us per call",
              lambda: asyncio_plait_c(FREE, 100_000), "asyncio streams",
              lambda: asyncio_streams(FREE, 50_000), "5 x the calls", at_least_faster(5))
    yield Row("mebibyte-pipe", "1 MiB there and back, client and server in Python, unpinned", "us",
              lambda: python_by_python(FREE, SPIN_DEFAULT, mebi, 300), "multiprocessing.Pipe",
              lambda: pipe(FREE, mebi, 100), "10 x faster", at_least_faster(10))
    yield Row("mebibyte-c", "1 MiB there and back, unpinned; C server", "us",
              lambda: c_by_python(FREE, SPIN_DEFAULT, mebi, 1000), "C client",
              lambda: c_by_c(FREE, SPIN_DEFAULT, mebi, 1000), "<= 1.3 x", at_most(1.3))
    for name, spin, how, most in (("spinning", SPIN_ALWAYS, "spinning", 10), ("blocking", SPIN_NEVER, "blocking", 60)):
        for ends, publisher, watcher, label in (("c-python", "c", "python", "C to numpy"),
                                                ("python-c", "python", "c", "numpy to C")):
            yield Row(f"frame-{ends}-{name}", f"6 MiB frame, {label}, {how}, two CPUs", "us",
                      lambda p=publisher, w=watcher, s=spin: frames(TWO, p, w, s), "C to C",
                      lambda s=spin: frames(TWO, "c", "c", s), f"<= {most} us",
                      lambda pairs, most=most: statistics.median(ours for ours, _ in pairs) <= most)
    yield Row("import", "import plait, the interpreter's start included", "ms",
              lambda: start_ms("import plait"), "the interpreter's start", lambda: start_ms("pass"),
              "<= start + 15 ms", at_most_more(15))
    yield Row("workers", "handlers that compute in Python: 2 processes", "calls/s", lambda: burn_by_workers(2),
              "two bare processes", lambda: burn_by_bare_processes(2), ">= 0.95 x", at_least(0.95))
    yield Row("threads-io", "handlers in Python that wait 10 ms, 16 clients: 16 threads", "calls/s",
              lambda: wait_by(16, "rate_by_threads"), "one thread", lambda: wait_by(1, "rate_by_threads"), ">= 14 x",
              at_least(14))
    yield Row("threads-async", "the same, one asynchronous client with 16 in flight", "calls/s",
              lambda: wait_by(16, "rate_by_aio"), "one thread", lambda: wait_by(1, "rate_by_aio"), ">= 14 x",
              at_least(14))


def figure(values):
    values = list(values)
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", action="store_true", help="lines for bench/table.py")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", action="append", help="rows whose names begin so")
    arguments = parser.parse_args()
    missed = 0
    if not arguments.json:
        print(f"{'what':<62} {'plait':>22}   {'compared with':<24} {'':>22} {'ratio':>6}  to reach")
    for row in rows():
        if arguments.only and not any(row.name.startswith(name) for name in arguments.only):
            continue
        pairs = []
        for number in range(arguments.rounds):
            first = row.ours() if number % 2 == 0 else row.raw()
            second = row.raw() if number % 2 == 0 else row.ours()
            pairs.append((first, second) if number % 2 == 0 else (second, first))
        ours, raw = figure(ours for ours, _ in pairs), figure(raw for _, raw in pairs)
        ratio = statistics.median(ours / raw for ours, raw in pairs)
        ok = row.judge(pairs)
        missed += not ok
        if arguments.json:
            print(json.dumps({"kind": "bench", "row": "python-" + row.name, "what": row.what, "unit": row.unit,
                              "plait": ours, "raw": dict(raw, name=row.beside), "ratio": ratio,
                              "goal": row.goal, "ok": ok, "note": ""}), flush=True)
        else:
            spread = [f"{f['median']:.2f} ({f['min']:.2f}...{f['max']:.2f})" for f in (ours, raw)]
            print(f"{row.what + ': ' + row.unit:<62} {spread[0]:>22}   {row.beside:<24} {spread[1]:>22} "
                  f"{ratio:>6.2f}  {row.goal} {'reached' if ok else 'MISSED'}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        result = globals()[sys.argv[2]](*sys.argv[3:])
        if result is not None:
            print(result)
    else:
        sys.exit(main())
