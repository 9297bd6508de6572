"""plait threads: any process's threads, and what is wrong with its arguments."""

import os
import re
import subprocess
import threading
import time

import schema
from plaittest import NO_NAME, OK, USAGE, Case, main


class Threads(Case):
    def test_any_process_s_threads_are_listed(self):
        ready, leave = threading.Event(), threading.Event()
        thread = threading.Thread(target=lambda: (ready.set(), leave.wait()))
        thread.start()
        ready.wait()
        result = self.plait("threads", str(os.getpid()), "--json")
        leave.set()
        thread.join()
        self.assertEqual(result.status, OK, result.err)
        found = {item["tid"]: item for item in result.objects}
        for item in found.values():
            schema.check(item)
        self.assertIn(os.getpid(), found)
        self.assertIn(thread.native_id, found)
        self.assertGreater(found[os.getpid()]["cpu_us"], 0)
        self.assertNotIn("plait_name", found[os.getpid()])

    def test_a_server_s_threads_have_names_and_library_ids(self):
        server = self.serve("named", "--echo", "--threads", "2")
        self.assertEqual(self.plait("call", "named", "x").status, OK)
        items = self.plait("threads", str(server.pid), "--json").objects
        named = [item for item in items if "plait_name" in item]
        for item in items:
            schema.check(item)
        self.assertEqual({item["plait_name"] for item in named if item["role"] == "serves"},
                         {"plait/named/0", "plait/named/1"})
        self.assertEqual(len({item["library_id"] for item in named}), len(named))
        self.assertEqual(sum(item["handled"] for item in named), 1)
        table = self.plait("threads", str(server.pid)).text
        self.assertIn("LIBRARY ID", table)
        self.assertIn("plait/named/1", table)

    def test_a_supervisor_s_workers_are_named(self):
        server = self.serve("crew", "--echo", "--processes", "2")
        table = self.plait("threads", str(server.pid)).text
        found = re.search(r"^supervises crew worker (\d): pid (\d+), crew worker (\d): pid (\d+)$", table, re.M)
        self.assertIsNotNone(found, table)
        self.assertEqual({found[1], found[3]}, {"1", "2"})
        self.assertIn("plait/crew/0", self.plait("threads", found[2]).text)

    def test_a_busy_thread_s_share_is_what_it_uses_now(self):
        busy = subprocess.Popen(["sh", "-c", "while :; do :; done"])
        try:
            until = time.monotonic() + 60
            while True:
                item = self.plait("threads", str(busy.pid), "--json", "--interval", "300ms").objects[0]
                if item["cpu_percent"] > 5 and item["state"] == "running":
                    break
                self.assertLess(time.monotonic(), until, item)
        finally:
            busy.kill()
            busy.wait()

    def test_wrong_arguments_are_told(self):
        self.check_error(self.plait("threads"), USAGE, "PID")
        self.check_error(self.plait("threads", "none"), USAGE, "none: not a process id")
        self.check_error(self.plait("threads", "0"), USAGE, "not a process id")
        self.check_error(self.plait("threads", "1", "2"), USAGE, "one PID")
        gone = subprocess.Popen(["true"])
        gone.wait()
        self.check_error(self.plait("threads", str(gone.pid)), NO_NAME, "no such process")


if __name__ == "__main__":
    main()
