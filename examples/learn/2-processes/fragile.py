"""A service that works until it is told to end, and that can crash: fragile.py threads|processes"""
import ctypes
import os
import sys
import threading

import plait


def work(request):
    print("begun", flush=True)
    os.read(0, 1)                                       # whoever started us lets it end: by a byte
    return f"done by process {os.getpid()}"


def who(request):
    return str(threading.get_native_id())


def crash(request):
    ctypes.string_at(0)                                 # reads what lies at address 0: nothing does


if len(sys.argv) != 2 or sys.argv[1] not in ("threads", "processes"):
    sys.exit("usage: fragile.py threads|processes")
plait.serve("fragile", {"who": who, "work": work, "crash": crash}, **{sys.argv[1]: 4})
