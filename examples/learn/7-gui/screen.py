"""A screen that nobody sees, for one command: screen.py [--picture FILE] [--look COMMAND] PROGRAM [ARGUMENT]...

The program finds it as its display. Half a second after it has said "asked", the screen's picture is put into FILE, and
the shell runs COMMAND.
"""
import argparse
import os
import subprocess
import sys
import time

try:
    from PIL import ImageGrab
except ImportError:
    ImageGrab = None


def start_screen():
    """Xvfb, and its display's name: the server picks a free one and tells it."""
    told, tell = os.pipe()
    try:
        server = subprocess.Popen(["Xvfb", "-displayfd", str(tell), "-screen", "0", "320x200x24", "-nolisten", "tcp",
                                   "-noreset"], pass_fds=[tell], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        sys.exit("screen.py: there is no Xvfb (apt install xvfb)")
    os.close(tell)
    with open(told) as file:
        number = file.readline().strip()
    if not number:
        sys.exit(f"screen.py: Xvfb ended with status {server.wait()}: run it in a terminal to see why")
    return server, f":{number}"


def take_picture(display, name):
    if ImageGrab is None:
        print("screen.py: no picture: this Python has no PIL (apt install python3-pil)", file=sys.stderr)
    else:
        ImageGrab.grab(xdisplay=display).save(name, optimize=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--picture", metavar="FILE")
    parser.add_argument("--look", metavar="COMMAND")
    parser.add_argument("program", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if not options.program:
        parser.error("which program?")
    server, display = start_screen()
    try:
        program = subprocess.Popen(options.program, stdout=subprocess.PIPE, env={**os.environ, "DISPLAY": display})
        for line in program.stdout:
            print(line.decode(), end="", flush=True)
            if line == b"asked\n":
                time.sleep(0.5)
                if options.picture:
                    take_picture(display, options.picture)
                if options.look:
                    subprocess.run(options.look, shell=True)
        return program.wait()
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    sys.exit(main())
