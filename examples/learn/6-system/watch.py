"""Watches the monitor: a line of plot for each figure, and an alert for each that passes its threshold.

watch.py [--every SECONDS] [--count N] [--alert FIGURE=PERCENT]...: figures are cpu, memory, disk, pressure.
"""
import argparse
import sys
import time

import plait

BARS = " ▁▂▃▄▅▆▇█"
FIGURES = ("cpu", "memory", "disk", "pressure")


class Figures:
    """Percentages, of which the CPU's is that since the last look."""

    def __init__(self, client):
        self.client = client
        self.last = None

    def look(self):
        memory, disk, cpu = (self.client.call(name).json() for name in ("memory", "disk", "cpu"))
        last, self.last = self.last or cpu, cpu
        total = cpu["total"] - last["total"]
        figures = {"cpu": 100 * (cpu["busy"] - last["busy"]) / total if total else 0.0,
                   "memory": 100 * (1 - memory["available_kib"] / memory["total_kib"]),
                   "disk": 100 * (1 - disk["available_bytes"] / disk["total_bytes"])}
        try:
            figures["pressure"] = max(self.client.call("pressure").json().values())
        except plait.RemoteError:                       # a kernel without it; the rest goes on
            pass
        return figures


def plot(history):
    return "".join(BARS[min(8, int(value * 8 / 100 + 0.5))] for value in history[-40:])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=float, default=1.0)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--alert", action="append", default=[], metavar="FIGURE=PERCENT")
    options = parser.parse_args()
    limits = {}
    for alert in options.alert:
        name, _, value = alert.partition("=")
        if name not in FIGURES or not value.replace(".", "", 1).isdigit():
            parser.error(f"--alert {alert}: write FIGURE=PERCENT, with one of {', '.join(FIGURES)}")
        limits[name] = float(value)

    history = {name: [] for name in FIGURES}
    rounds = 0
    with plait.connect("monitor") as client:
        figures = Figures(client)
        while not options.count or rounds < options.count:
            try:
                seen = figures.look()
            except (plait.PeerDied, plait.TimeoutError) as error:
                print("the monitor is gone, and waited for:", type(error).__name__, flush=True)
                continue                                # the next call waits until it is back
            rounds += 1
            if sys.stdout.isatty():
                print("\033[H\033[2J", end="")
            for name, value in seen.items():
                history[name].append(value)
                alert = f"  ALERT: above {limits[name]:g}" if value > limits.get(name, 101) else ""
                print(f"{name:9}{value:6.1f} %  {plot(history[name])}{alert}", flush=True)
            time.sleep(options.every)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
    except plait.Error as error:
        sys.exit(f"watch.py: {error}")
