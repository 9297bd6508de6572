#!/usr/bin/env python3
"""An echo server: server.py NAME answers every call with what it was sent, until Ctrl-C or SIGTERM."""

import sys

import plait


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: server.py NAME")
    plait.serve(sys.argv[1], {"": lambda request: request.body})


if __name__ == "__main__":
    try:
        main()
    except plait.Error as error:
        sys.exit(f"server.py: {error}")
