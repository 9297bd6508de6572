"""A window that asks a slow service, and freezes meanwhile or doesn't: window.py freeze|thread|asyncio [--once]

The clock in the window ticks every 10 ms; the longest time between two ticks is how long nobody attended to the window.
--once: asks at once instead of when the button is pressed, tells that time, and closes.
"""
import argparse
import asyncio
import queue
import sys
import threading
import time

import plait.aio

try:
    import tkinter
except ImportError:                                     # Debian's Python has it in a package of its own
    tkinter = None

TICK = 10                                               # ms


class Window:
    """A clock, a line of text, a button; ASK is called with the window when the button is pressed."""

    def __init__(self, ask, once):
        self.root = tkinter.Tk()
        self.root.title("plait")
        self.root.geometry("320x200")
        self.clock, self.text = (tkinter.Label(self.root, font=("DejaVu Sans", 22), wraplength=300) for _ in range(2))
        self.button = tkinter.Button(self.root, text="Ask", font=("DejaVu Sans", 16), command=lambda: ask(self))
        for part in (self.clock, self.text, self.button):
            part.pack(expand=True)
        self.root.protocol("WM_DELETE_WINDOW", self.close)
        self.once, self.closed = once, False
        self.text["text"] = "ready"
        self.asked_at = self.ticked = self.worst = 0.0
        self.tick()
        if once:
            self.root.wait_visibility()
            self.root.update()                          # everything is drawn
            self.root.after(100, self.button.invoke)

    def tick(self):
        now = time.perf_counter()
        self.worst = max(self.worst, now - self.ticked - TICK / 1000)
        self.ticked = now
        self.clock["text"] = f"{(now - self.asked_at) * 1000 if self.asked_at else 0:.0f} ms"
        self.next_tick = self.root.after(TICK, self.tick)

    def asked(self):
        self.button["state"] = "disabled"
        self.text["text"] = "asking ..."
        self.asked_at = time.perf_counter()
        self.worst = 0.0
        print("asked", flush=True)

    def answered(self, answer):
        self.out = time.perf_counter() - self.asked_at
        self.text["text"] = answer
        self.button["state"] = "normal"
        self.root.after(3 * TICK, self.report)          # after the tick that is due

    def report(self):
        print("answer:", self.text["text"])
        froze = self.worst > self.out / 2
        print(f"nobody attended to the window for {self.worst * 1000:.0f} ms at worst: "
              f"{'it froze' if froze else 'it stayed responsive'}", flush=True)
        self.asked_at = 0.0
        if self.once:
            self.close()

    def close(self):
        self.closed = True
        self.root.after_cancel(self.next_tick)
        self.root.destroy()


def call():
    """The answer, or why there is none: a window must survive both."""
    try:
        with plait.connect("oracle", connect_timeout=1) as client:
            return client.call("ask").text
    except plait.Error as error:
        return f"{type(error).__name__}: {error}"


def ask_here(window):
    window.asked()
    window.answered(call())                             # as long as this takes, nobody attends to the window


def ask_in_thread(window):
    answers = queue.Queue()

    def look():                                         # Tk belongs to the main thread: the other one hands over a value
        if answers.empty():
            window.root.after(TICK, look)
        else:
            window.answered(answers.get())

    window.asked()
    threading.Thread(target=lambda: answers.put(call()), daemon=True).start()
    look()


async def call_async(window):
    try:
        async with await plait.aio.connect("oracle", connect_timeout=1) as client:
            window.answered((await client.call("ask")).text)
    except plait.Error as error:
        window.answered(f"{type(error).__name__}: {error}")


async def attend_async(once):
    tasks = set()                                       # or a task might be thrown away while it waits

    def ask(window):
        window.asked()
        tasks.add(asyncio.create_task(call_async(window)))

    window = Window(ask, once)
    while not window.closed:                            # one thread, two loops: Tk's turn, then asyncio's
        window.root.update()
        await asyncio.sleep(TICK / 2000)


def main(way, once):
    if way == "asyncio":
        asyncio.run(attend_async(once))
    else:
        Window(ask_here if way == "freeze" else ask_in_thread, once).root.mainloop()


def why_no_window():
    if tkinter is None:
        return "this Python has no Tk (apt install python3-tk)"
    try:
        tkinter.Tk().destroy()
    except tkinter.TclError as error:
        return f"{error} (start it in a desktop session, or by screen.py)"
    return None


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=("freeze", "thread", "asyncio"))
    parser.add_argument("--once", action="store_true")
    options = parser.parse_args()
    why = why_no_window()
    if why:
        print(f"window.py: no window: {why}; asking without one", file=sys.stderr, flush=True)
        print("answer:", call())
    else:
        main(options.way, options.once)
