#!/usr/bin/env python3
"""A client: client_plait.py TARGET MESSAGE calls TARGET a hundred times, checks that each answer is MESSAGE, and
prints the answer, how it came and the median round trip."""

import statistics
import sys
import time

import plait

CALLS = 100


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: client_plait.py TARGET MESSAGE")
    target, message = sys.argv[1:]
    times = []
    with plait.connect(target) as client:
        for _ in range(CALLS):
            begun = time.perf_counter()
            answer = client.call("", message).text
            times.append(time.perf_counter() - begun)
            if answer != message:
                sys.exit(f"client_plait.py: the answer is not what was sent: {answer!r}")
        print(f"{answer} ({client.transport}, median of {CALLS} round trips: {statistics.median(times) * 1e6:.1f} us)")


if __name__ == "__main__":
    try:
        main()
    except plait.Error as error:
        sys.exit(f"client_plait.py: {error}")
