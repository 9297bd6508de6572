#!/usr/bin/env python3
"""bench/table.py: turns the lines of `bench/run --json` into the Markdown table of docs/benchmarks.md."""
import json
import sys


def number(value):
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{decimals}f}"


def spread(figure):
    if figure is None:
        return ""
    return f"{number(figure['median'])} ({number(figure['min'])} ... {number(figure['max'])})"


def main():
    print("| what | unit | plait | compared with | | ratio | to reach | |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for line in sys.stdin:
        row = json.loads(line)
        raw, ratio = row["raw"], row["ratio"]
        verdict = {True: "reached", False: "**missed**", None: ""}[row["ok"]]
        cells = [row["what"], row["unit"].replace("us", "µs"), spread(row["plait"]), raw["name"] if raw else "",
                 spread(raw), number(ratio) if ratio else "", row["goal"], verdict]
        print("| " + " | ".join(cells) + " |")


main()
