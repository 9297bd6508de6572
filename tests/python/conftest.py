"""What the suite's runs have in common: the sum as the last line, as the other tests of the tree print it."""

counts = {"passed": 0, "failed": 0, "skipped": 0}


def name(report):
    return report.nodeid.split("::", 1)[-1].replace("::", ".")


def pytest_runtest_logreport(report):
    if report.skipped:
        counts["skipped"] += 1
        print(f"\nskip {name(report)}: {report.longrepr[2]}", flush=True)
    elif report.failed:  # in its call, or around it
        counts["failed"] += 1
        print(f"\nFAIL {name(report)}: {report.longrepr}", flush=True)
    elif report.when == "call":
        counts["passed"] += 1
        print(f"ok {name(report)}", flush=True)


def pytest_collectreport(report):
    if report.failed:
        counts["failed"] += 1
        print(f"\nFAIL {report.nodeid}: {report.longrepr}", flush=True)


def pytest_keyboard_interrupt(excinfo):
    if excinfo.type is not KeyboardInterrupt:  # collecting failed, which was told
        return
    counts["failed"] += 1
    print(f"\nFAIL interrupted: {excinfo.getrepr()}", flush=True)


def pytest_unconfigure(config):
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts), flush=True)
