"""The topics' matrix: the same behaviours for every transport, publisher's language and subscriber's language. Printed at
the end; a cell that is empty or has a failure fails.

topics.py LANGUAGE...: those that were built, of c, c++, python, command. Ends are processes (topic_end.*), and the command
is itself.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from concurrent.futures import ThreadPoolExecutor

BUILD, SOURCE = os.environ["PLAIT_BUILD"], os.environ["PLAIT_SOURCE"]
PLAIT = os.path.join(BUILD, "plait")
PATIENCE = 120
ENDS = {
    "c": [os.path.join(BUILD, "tests/conformance/topic-end")],
    "c++": [os.path.join(BUILD, "tests/conformance/topic-end-cpp")],
    "python": ["/usr/bin/python3", os.path.join(SOURCE, "tests/conformance/topic_end.py")],
}
TRANSPORTS = {"shm": "", "shm=off": "?shm=off", "tcp": None}  # what stands behind the name; None: by URL
SIZES = [1, 0, 100, 8191, 8192, 8193, 3, 20_000, 1 << 20, 2] + [64] * 300 + [100_000, 5]


def text_of(number, size):
    return (f"{number}," * (size // 2 + 1))[:size].encode()


def expected(number, text, topic, lost=0):
    return f"{number} {lost} utf8 {len(text)} {zlib.adler32(text)} {topic}"


class Cell:
    """One transport, two languages, and a runtime directory of its own."""

    def __init__(self, transport, publisher, subscriber):
        self.transport, self.publisher, self.subscriber = transport, publisher, subscriber
        self.processes = []

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="plait-topics-")
        self.environment = dict(os.environ, PLAIT_DIR=self.directory.name)
        return self

    def __exit__(self, *_):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self.directory.cleanup()

    def start(self, command, stdout=subprocess.PIPE):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.PIPE,
                                   env=self.environment)
        self.processes.append(process)
        return process

    def publish(self, history=0, wait=1, encoding="utf8"):
        """A publisher of lines; its URL is in self.url."""
        listen = "tcp://127.0.0.1:0" if self.transport == "tcp" else None
        if self.publisher == "command":
            command = [PLAIT, "pub", "feed", "--lines", "--reliable", "--timeout", "60s", "--encoding", encoding,
                       *(["--history", str(history)] if history else []), *(["--wait", str(wait)] if wait else []),
                       *(["--listen", listen] if listen else [])]
        else:
            command = [*ENDS[self.publisher], "pub", "feed", str(history), str(wait), encoding,
                       *([listen] if listen else [])]
        process = self.start(command)
        if listen:
            self.url = process.stdout.readline().decode().split()[2]
        return process

    def subscribe(self, count, history=0):
        target = self.url + "/feed" if self.transport == "tcp" else "feed" + TRANSPORTS[self.transport]
        self.said = tempfile.TemporaryFile(dir=self.directory.name)  # a pipe would have to be read meanwhile
        if self.subscriber == "command":
            # A tool holds nobody up unless it is told to.
            return self.start([PLAIT, "sub", target, "--reliable", "--json", "--count", str(count),
                               *(["--history", str(history)] if history else [])], self.said)
        return self.start([*ENDS[self.subscriber], "sub", target, str(history), str(count)], self.said)

    def heard(self, process):
        self.finish(process)
        with self.said:
            self.said.seek(0)
            lines = self.said.read().decode().splitlines()
        return [self.line_of(json.loads(line)) for line in lines] if self.subscriber == "command" else lines

    @staticmethod
    def line_of(message):
        text = message["text"].encode()
        return (f"{message['number']} {message.get('lost', 0)} {message['encoding']} {message['size']} "
                f"{zlib.adler32(text)} {message['topic']}")

    def tell(self, process, texts):
        process.stdin.write(b"".join(text + b"\n" for text in texts))
        process.stdin.flush()

    def finish(self, process):
        _, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, err) == (0, b""), (process.args, process.returncode, err)

    def until_published(self, count):
        limit = time.monotonic() + PATIENCE
        while time.monotonic() < limit:
            done = subprocess.run([PLAIT, "ls", "feed", "--json"], env=self.environment, capture_output=True)
            for line in done.stdout.splitlines():
                if json.loads(line).get("messages", 0) >= count:
                    return
        raise AssertionError(f"{count} messages were not published")


# ---- behaviours: each with the cells in which it has a meaning ----


def messages_of_any_size_arrive_whole_once_and_in_order(cell):
    texts = [text_of(number, size) for number, size in enumerate(SIZES, 1)]
    if cell.transport == "tcp":  # there has to be an address first
        publisher = cell.publish()
        subscriber = cell.subscribe(len(texts))
    else:
        subscriber = cell.subscribe(len(texts))
        publisher = cell.publish()
    cell.tell(publisher, texts)
    want = [expected(number, text, "feed") for number, text in enumerate(texts, 1)]
    have = cell.heard(subscriber)
    assert have == want, next((pair for pair in zip(have, want) if pair[0] != pair[1]), (len(have), len(want)))
    cell.finish(publisher)


def a_late_subscriber_gets_the_last_messages(cell):
    texts = [text_of(number, 10_000 if number == 4 else 20) for number in range(1, 6)]
    publisher = cell.publish(history=3, wait=0)
    cell.tell(publisher, texts)
    cell.until_published(5)
    assert cell.heard(cell.subscribe(2, history=2)) == [expected(n, texts[n - 1], "feed") for n in (4, 5)]
    cell.finish(publisher)


def a_restarted_publisher_is_picked_up(cell):
    subscriber = cell.subscribe(3)
    for number in range(3):
        publisher = cell.publish()
        cell.tell(publisher, [b"run %d" % number])
        cell.finish(publisher)
    have = [line.split() for line in cell.heard(subscriber)]
    assert [(line[0], line[4]) for line in have] == [("1", str(zlib.adler32(b"run %d" % n))) for n in range(3)], have


def an_array_says_its_type_and_shape(cell):
    texts = [text_of(1, 30), text_of(2, 30_000)]
    subscriber = cell.subscribe(2)
    publisher = cell.publish(encoding="array")
    cell.tell(publisher, texts)
    want = [f"{number} 0 array {len(text)} {zlib.adler32(text)} feed |u1 {len(text) // 3} 3"
            for number, text in enumerate(texts, 1)]
    have = cell.heard(subscriber)
    assert have == want, (have, want)
    cell.finish(publisher)


BEHAVIOURS = {
    messages_of_any_size_arrive_whole_once_and_in_order: lambda *_: True,
    a_late_subscriber_gets_the_last_messages: lambda *_: True,
    a_restarted_publisher_is_picked_up: lambda transport, *_: transport != "tcp",
    an_array_says_its_type_and_shape: lambda transport, *ends: transport != "tcp" and "command" not in ends,
}


def run(job):
    behaviour, names = job
    try:
        with Cell(*names) as cell:
            behaviour(cell)
        return job, ""
    except Exception:
        return job, traceback.format_exc()


def main(languages):
    jobs = [(behaviour, (transport, publisher, subscriber))
            for transport in TRANSPORTS for publisher in languages for subscriber in languages
            for behaviour, fits in BEHAVIOURS.items() if fits(transport, publisher, subscriber)]
    declared, passed = {}, {}
    with ThreadPoolExecutor(2) as pool:
        for (behaviour, names), failure in pool.map(run, jobs):
            declared[names] = declared.get(names, 0) + 1
            passed[names] = passed.get(names, 0) + (not failure)
            name = f"{behaviour.__name__}/{'/'.join(names)}"
            print(f"FAIL {name}: {failure}" if failure else f"ok {name}", flush=True)
    print("\n" + " " * 20 + "".join(f"{'to ' + language:>12}" for language in languages))
    holes = 0
    for transport in TRANSPORTS:
        for publisher in languages:
            cells = [(transport, publisher, subscriber) for subscriber in languages]
            holes += sum(passed.get(cell, 0) == 0 or passed[cell] != declared[cell] for cell in cells)
            print(f"{transport:<8} {publisher:<11}"
                  + "".join(f"{str(passed[c]) + ('' if passed[c] == declared[c] else '/%d!' % declared[c]):>12}" for c in cells))
    failed = sum(declared.values()) - sum(passed.values()) + (holes > 0)
    print("FAIL every_cell_of_the_matrix_is_filled" if holes else "ok every_cell_of_the_matrix_is_filled")
    print(f"{sum(passed.values()) + (holes == 0)} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


sys.exit(main(sys.argv[1:]))
