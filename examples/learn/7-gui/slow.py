"""A service that takes its time: slow.py [SECONDS]"""
import sys
import time

import plait

seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0


def ask(request):
    time.sleep(seconds)
    return "42"


plait.serve("oracle", {"ask": ask})
