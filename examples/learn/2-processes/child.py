"""A child process says hello and is joined; the parent learns how it ended."""
import multiprocessing
import os
import signal

process = multiprocessing.get_context("fork").Process   # as C has it: the child begins as a copy of its parent


def hello():
    print(f"child: I am process {os.getpid()}, my parent is process {os.getppid()}", flush=True)
    raise SystemExit(7)


def fall():
    os.kill(os.getpid(), signal.SIGKILL)


print(f"parent: I am process {os.getpid()}", flush=True)
for work in (hello, fall):
    child = process(target=work)
    child.start()
    child.join()
    how = f"exit status {child.exitcode}" if child.exitcode >= 0 else f"killed by signal {-child.exitcode}"
    print(f"parent: process {child.pid} is joined: {how}", flush=True)
