"""Watches the monitor: a line of plot for each figure, and an alert for each that passes its threshold.

watch.py [--every SECONDS] [--count N] [--alert FIGURE=LIMIT]...: figures are cpu, memory, disk, pressure, all in %,
network in kB/s, and processes. Without --count until Ctrl-C.
"""
import argparse
import sys
import time

import plait

BARS = "▁▂▃▄▅▆▇█"
UNITS = {"cpu": "%", "memory": "%", "disk": "%", "pressure": "%", "network": "kB/s", "processes": ""}


class Figures:
    """Two of them are of counters: how much they have grown since the last look."""

    def __init__(self, client):
        self.client = client
        self.last = {}

    def grown(self, name, now):
        before, self.last[name] = self.last.get(name, now), now
        return now - before

    def look(self):
        cpu, memory, disk, network, processes = (
            self.client.call(name).json() for name in ("cpu", "memory", "disk", "network", "processes"))
        total, seconds = self.grown("total", cpu["total"]), self.grown("time", time.monotonic())
        moved = sum(card["in_bytes"] + card["out_bytes"] for card in network.values())
        figures = {"cpu": 100 * self.grown("busy", cpu["busy"]) / (total or 1),
                   "memory": 100 * (1 - memory["available_kib"] / memory["total_kib"]),
                   "disk": 100 * (1 - disk["available_bytes"] / disk["total_bytes"]),
                   "network": self.grown("moved", moved) / 1000 / (seconds or 1),
                   "processes": processes["count"]}
        try:
            figures["pressure"] = max(self.client.call("pressure").json().values())
        except plait.RemoteError:                       # a kernel without it; the rest goes on
            pass
        return figures


def plot(values, unit):
    most = 100 if unit == "%" else max(*values, 1)
    return "".join(BARS[min(7, int(value * 8 / most))] for value in values[-40:])


def read_limits(alerts, parser):
    limits = {}
    for alert in alerts:
        name, _, value = alert.partition("=")
        if name not in UNITS or not value.replace(".", "", 1).isdigit():
            parser.error(f"--alert {alert}: write FIGURE=LIMIT, with one of {', '.join(UNITS)}")
        limits[name] = float(value)
    return limits


def show(history, limits):
    if sys.stdout.isatty():
        print("\033[H\033[2J", end="")
    for name, values in history.items():
        alert = f"  ALERT: above {limits[name]:g}" if values and values[-1] > limits.get(name, values[-1]) else ""
        if values:
            print(f"{name:10}{values[-1]:8.1f} {UNITS[name]:4}  {plot(values, UNITS[name])}{alert}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=float, default=1.0)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--alert", action="append", default=[], metavar="FIGURE=LIMIT")
    options = parser.parse_args()
    limits = read_limits(options.alert, parser)

    history = {name: [] for name in UNITS}
    looks = 0
    with plait.connect("monitor") as client:
        figures = Figures(client)
        while not options.count or looks < options.count:
            try:
                seen = figures.look()
            except (plait.PeerDied, plait.NoSuchName, plait.TimeoutError) as error:
                print("the monitor is gone, and waited for:", type(error).__name__, flush=True)
                continue                                # the next call waits for it, 30 s at a time
            looks += 1
            for name, value in seen.items():
                history[name].append(value)
            show(history, limits)
            if looks != options.count:
                time.sleep(options.every)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
    except plait.Error as error:
        sys.exit(f"watch.py: {error}")
