#!/usr/bin/env python3
"""A client that knows nothing of plait: a plain TCP socket to a listener with framing=raw.

client.py HOST PORT MESSAGE calls a hundred times over one connection, checks that each answer is MESSAGE,
and prints the answer and the median round trip.
"""

import socket
import statistics
import sys
import time

CALLS = 100


def main():
    if len(sys.argv) != 4:
        sys.exit("usage: client.py HOST PORT MESSAGE")
    host, port, message = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
    times = []
    with socket.create_connection((host, port), timeout=5) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(CALLS):
            begun = time.perf_counter()
            connection.sendall(message)
            answer = b""
            while len(answer) < len(message):  # TCP may bring a reply in pieces
                chunk = connection.recv(65536)
                if not chunk:
                    sys.exit("client.py: the server closed the connection")
                answer += chunk
            times.append(time.perf_counter() - begun)
            if answer != message:
                sys.exit(f"client.py: the answer is not what was sent: {answer!r}")
    median = statistics.median(times) * 1e6
    print(f"{answer.decode()} (tcp, median of {CALLS} round trips: {median:.1f} us)")


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"client.py: {error}")
