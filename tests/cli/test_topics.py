"""plait pub and plait sub: messages, exit statuses, pipes, publishers that come and go, topics over TCP."""

import json
import os
import re
import signal
import subprocess
import time
import unittest

import schema
from plaittest import Case, FAILED, NO_NAME, OK, PATIENCE, PLAIT, TIMED_OUT, USAGE, main, until


def waits_for_names(pid):
    folder = f"/proc/{pid}/fd/"
    try:
        return any("inotify" in os.readlink(folder + name) for name in os.listdir(folder))
    except FileNotFoundError:  # one that was closed meanwhile
        return False


def unacknowledged(port):
    """Bytes that connections of the listener at PORT hold for their peers, as the kernel counts them."""
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    return sum(int(row[4].split(":")[0], 16) for row in rows
               if int(row[1].split(":")[1], 16) == port and row[3] == "01")


def blocks(pid, number):
    with open(f"/proc/{pid}/status") as status:
        mask = next(line.split()[1] for line in status if line.startswith("SigBlk:"))
    return int(mask, 16) >> (number - 1) & 1


class Topics(Case):
    def start(self, *words, stdin=subprocess.DEVNULL, **options):
        process = subprocess.Popen([PLAIT, *words], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=self.environment, **options)
        self.addCleanup(self.end, process)
        return process

    def end(self, process):
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()

    def finish(self, process):
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err.decode()

    def clock(self, *words):
        """A publisher at 100 Hz that listens, and its URL."""
        process = self.start("pub", "clock", "tick", "--rate", "100", "--listen", "tcp://127.0.0.1:0", *words)
        return process, process.stdout.readline().decode().split()[2]

    def test_lines_go_through_in_order_whoever_starts_first(self):
        text = b"".join(b"line %d\n" % number for number in range(1000))
        subscriber = self.start("sub", "log", "--count", "1000", "--reliable")
        publisher = self.start("pub", "log", "--lines", "--reliable", "--wait", "1", "--timeout", "60s",
                               stdin=subprocess.PIPE)
        publisher.communicate(text, PATIENCE)
        self.assertEqual(publisher.returncode, OK)
        status, out, err = self.finish(subscriber)
        self.assertEqual((status, out, err), (OK, text, ""))

    def test_the_last_value_is_history_1_count_1(self):
        self.clock()
        self.assertEqual(self.plait("sub", "clock", "--history", "1", "--count", "1").out, b"tick\n")

    def test_raw_adds_no_newline_and_bytes_stay_as_they_are(self):
        publisher = self.start("pub", "bytes", "-", "--wait", "1", "--encoding", "json", stdin=subprocess.PIPE)
        subscriber = self.start("sub", "bytes", "--raw", "--count", "1")
        publisher.communicate(b"\0\xff\n", PATIENCE)
        self.assertEqual(self.finish(subscriber)[1], b"\0\xff\n")

    def test_json_describes_each_message_and_the_end(self):
        publisher = self.start("pub", "news", "caf\u00e9", "--wait", "1", "--json")
        status, out, _ = self.finish(self.start("sub", "news", "--count", "1", "--json"))
        self.assertEqual(status, OK)
        message, = self.check_objects(out)
        self.assertEqual((message["kind"], message["topic"], message["number"], message["text"]),
                         ("message", "news", 1, "caf\u00e9"))
        published, = self.check_objects(self.finish(publisher)[1])
        self.assertEqual((published["kind"], published["count"], published["bytes"]), ("published", 1, 5))

    def check_objects(self, out):
        objects = [json.loads(line) for line in out.splitlines()]
        for item in objects:
            schema.check(item)
        return objects

    def test_over_tcp_it_is_the_same(self):
        _, url = self.clock("--history", "3")
        result = self.plait("sub", url + "/clock", "--history", "2", "--count", "3")
        self.assertEqual((result.status, result.out), (OK, b"tick\n" * 3))
        self.assertEqual(self.plait("sub", url + "/other", "--count", "1").status, NO_NAME)

    def test_ls_lists_topics_with_publishers_and_subscribers(self):
        publisher, url = self.clock("--reliable")
        subscriber = self.start("sub", "clock")
        subscriber.stdout.readline()
        self.environment["PLAIT_LOG"] = "debug"
        listing = self.plait("ls")
        self.assertRegex(listing.text, r"(?m)^clock +%d .* reliable .* publishing +%s$" % (publisher.pid, re.escape(url)),
                         f"status {listing.status}: {listing.err}")
        self.assertRegex(self.plait("ls", "clock").text, r"(?m)^plait +%d .* %d +shm" % (subscriber.pid, publisher.pid))
        topic, entry = self.check_objects(self.plait("ls", "clock", "--json").out)
        self.assertEqual((topic["kind"], topic["subscribers"], topic["reliable"]), ("topic", 1, True))
        self.assertEqual((entry["kind"], entry["peer_pid"]), ("subscriber", subscriber.pid))

    def test_a_prefix_covers_later_topics(self):
        subscriber = self.start("sub", "room.*", "--count", "2", "--json")
        for room in ("room.a", "room.b"):
            self.finish(self.start("pub", room, room, "--wait", "1"))
        objects = self.check_objects(self.finish(subscriber)[1])
        self.assertEqual([item["topic"] for item in objects], ["room.a", "room.b"])

    def test_a_restarted_publisher_goes_on(self):
        subscriber = self.start("sub", "phoenix", "--count", "3")
        for number in range(3):
            self.assertEqual(self.finish(self.start("pub", "phoenix", str(number), "--wait", "1"))[0], OK)
        self.assertEqual(self.finish(subscriber)[:2], (OK, b"0\n1\n2\n"))

    def test_a_killed_publisher_is_followed_by_the_next(self):
        subscriber = self.start("sub", "mortal", "--json")
        for number in range(3):
            publisher = self.start("pub", "mortal", str(number), "--rate", "1000")
            for line in subscriber.stdout:
                if b'"text":"%d"' % number in line:
                    break
            publisher.kill()
            publisher.wait(PATIENCE)

    def test_a_reader_that_goes_away_ends_the_subscriber_quietly(self):
        self.clock()
        subscriber = self.start("sub", "clock")
        subscriber.stdout.readline()
        subscriber.stdout.close()
        self.assertEqual(subscriber.wait(PATIENCE), OK)
        self.assertEqual(subscriber.stderr.read(), b"")

    def test_a_reader_that_goes_away_is_noticed_though_nothing_more_comes(self):
        self.start("pub", "rare", "tick", "--rate", "0.001", "--history", "1")
        subscriber = self.start("sub", "rare", "--history", "1")
        self.assertEqual(subscriber.stdout.readline(), b"tick\n")
        subscriber.stdout.close()
        self.assertEqual((subscriber.wait(PATIENCE), subscriber.stderr.read()), (OK, b""))

    def test_ctrl_c_ends_a_subscriber_without_a_word(self):
        self.clock()
        for words in (("sub", "clock"), ("sub", "nobody"), ("call", "nobody", "x")):
            process = self.start(*words)
            if "clock" in words:
                process.stdout.readline()
            else:
                until(lambda: waits_for_names(process.pid), "it to wait for the name")
            process.send_signal(signal.SIGINT)
            status, _, err = self.finish(process)
            self.assertEqual((status, err), (-signal.SIGINT, ""))

    def test_tail_into_a_topic_and_out_into_a_pipe(self):
        path = os.path.join(self.directory, "log")
        with open(path, "w") as log:
            log.write("INFO started\n")
            log.flush()
            script = f"tail -f -n +1 log | '{PLAIT}' pub --lines --wait 1 log & '{PLAIT}' sub --count 4 log | grep ERROR; kill -- -$$"
            pipe = subprocess.Popen(script, shell=True, cwd=self.directory, env=self.environment,
                                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
            self.addCleanup(pipe.stdout.close)
            for line in ("ERROR one\n", "INFO two\n", "ERROR three\n"):
                log.write(line)
                log.flush()
            self.assertEqual(pipe.stdout.read(), b"ERROR one\nERROR three\n")
            pipe.wait(PATIENCE)

    def test_ctrl_c_ends_a_publisher_that_waits_for_whatever(self):
        """For subscribers, for lines, for its next message."""
        for words in (("x", "--wait", "1"), ("--lines",), ("x", "--rate", "0.001"), ("x", "--count", "1000000000")):
            for number in (signal.SIGINT, signal.SIGTERM):
                publisher = self.start("pub", "patient", *words, "--json", "--listen", "tcp://127.0.0.1:0",
                                       stdin=subprocess.PIPE)
                publisher.stdout.readline()
                publisher.send_signal(number)
                publisher.send_signal(number)  # as timeout(1) does: to the process and to its group
                self.assertEqual(publisher.wait(PATIENCE), OK, words)
                self.assertIn(b'"kind":"published"', publisher.stdout.read())
                self.assertEqual(publisher.stderr.read(), b"")

    def test_a_second_ctrl_c_ends_a_publisher_whose_end_a_subscriber_holds_up(self):
        publisher = self.start("pub", "held", "x" * 100000, "--rate", "1000", "--wait", "1", "--timeout", "60s", "--json",
                               "--listen", "tcp://127.0.0.1:0")
        url = json.loads(publisher.stdout.readline())["url"]
        subscriber = self.start("sub", url + "/held")
        subscriber.stdout.read(100000)
        subscriber.send_signal(signal.SIGSTOP)
        port, looks = int(url.rsplit(":", 1)[1]), []

        def nothing_moves():
            looks.append(unacknowledged(port))
            return looks[-1] > 0 and looks[-3:] == [looks[-1]] * 3

        until(nothing_moves, "a subscriber's socket that is full")
        publisher.send_signal(signal.SIGINT)
        until(lambda: not blocks(publisher.pid, signal.SIGINT), "the first Ctrl-C to be heard")

        def ends():  # one that comes within 100 ms is taken for the first one's echo
            publisher.send_signal(signal.SIGINT)
            return publisher.poll() is not None

        until(ends, "the publisher's end")
        self.assertEqual(publisher.returncode, -signal.SIGINT)  # by itself it would have ended with 0
        subscriber.kill()

    def test_lines_of_any_length_go_through_and_the_last_may_lack_its_newline(self):
        text = b"\n".join([b"", b"a", b"", b"x" * 65535, b"y" * 65536, b"z" * 200000, b"\0\xff", b"end"])
        subscriber = self.start("sub", "lines", "--count", "8", "--reliable")
        publisher = self.start("pub", "lines", "--lines", "--reliable", "--wait", "1", "--timeout", "60s",
                               stdin=subprocess.PIPE)
        publisher.communicate(text, PATIENCE)
        self.assertEqual(publisher.returncode, OK)
        self.assertEqual(self.finish(subscriber)[:2], (OK, text + b"\n"))

    def test_a_rate_may_be_below_one(self):
        begun = time.monotonic()
        self.assertEqual(self.plait("pub", "slow", "tick", "--rate", "2.5", "--count", "3").status, OK)
        self.assertGreaterEqual(time.monotonic() - begun, 0.8)
        publisher = self.start("pub", "slower", "tick", "--rate", "0.001", "--history", "1")
        self.assertEqual(self.plait("sub", "slower", "--history", "1", "--count", "1").out, b"tick\n")
        publisher.terminate()
        self.assertEqual(self.finish(publisher)[0], OK)

    def test_ctrl_c_ends_a_publisher_in_order(self):
        publisher = self.start("pub", "clock", "tick", "--rate", "100", "--json", "--listen", "tcp://127.0.0.1:0")
        self.assertIn(b'"kind":"listening"', publisher.stdout.readline())
        publisher.send_signal(signal.SIGINT)
        status, out, err = self.finish(publisher)
        self.assertEqual((status, err), (OK, ""))
        self.assertIn(b'"kind":"published"', out)

    def test_a_listener_says_whom_it_admits(self):
        publisher = self.start("pub", "news", "x", "--rate", "100", "--listen", "tcp://127.0.0.1:0", "--listen",
                               "tcp://0.0.0.0:0?insecure=1", "--listen", "unix://" + self.path("socket"))
        lines = [publisher.stdout.readline().decode() for _ in range(3)]
        self.assertIn("(admits every local user)", lines[0])
        self.assertIn("unencrypted", lines[1])
        self.assertTrue(lines[2].endswith("socket\n"), lines[2])
        self.assertIn("insecure=1", self.plait("pub", "other", "x", "--listen", "tcp://0.0.0.0:0").err)

    def test_the_library_s_log_is_shown_to_who_asks_for_it(self):
        for level, shown in ((None, False), ("info", True)):
            if level:
                self.environment["PLAIT_LOG"] = level
            publisher = self.start("pub", "news", "x", "--rate", "100", "--listen", "tcp://127.0.0.1:0")
            url = publisher.stdout.readline().decode().split()[2]
            self.assertNotEqual(self.plait("sub", url, "--reliable", "--count", "1").status, OK)  # it isn't
            publisher.terminate()
            self.assertEqual("refused" in self.finish(publisher)[2], shown)

    def test_a_runtime_directory_that_is_not_there_is_no_absent_topic(self):
        self.environment["PLAIT_DIR"] = self.path("nowhere/run")
        self.check_error(self.plait("pub", "news", "x"), FAILED, "nowhere")

    def test_wrong_usage_and_waiting_in_vain_have_their_statuses(self):
        self.assertEqual(self.plait("sub", "nobody", "--timeout", "50ms").status, TIMED_OUT)
        self.assertEqual(self.plait("pub", "lonely", "x", "--wait", "1", "--timeout", "50ms").status, TIMED_OUT)
        for words in (("sub",), ("pub",), ("sub", "a", "b"), ("pub", "a", "b", "c"), ("sub", "UPPER"), ("pub", "UPPER"),
                      ("pub", "a", "x", "--lines"), ("sub", "pre*"), ("pub", "a", "--listen", "udp://127.0.0.1:1"),
                      ("pub", "a", "--rate", "0")):
            self.assertEqual(self.plait(*words).status, USAGE, words)

    def test_a_bad_topic_is_told_as_one(self):
        for word in ("UPPER", "a/b", "a b", "x" * 101):
            self.check_error(self.plait("sub", word), USAGE, "topic name")
        self.check_error(self.plait("sub", "localhost:8888"), USAGE, "tcp://localhost:8888")
        self.check_error(self.plait("sub", "/run/topic"), USAGE, "unix://")

    def test_a_services_name_is_no_topic(self):
        self.serve("greeter", "--echo")
        for words in (("sub", "greeter"), ("pub", "greeter", "x")):
            result = self.plait(*words)
            self.assertIn("is a service", result.err)
            self.assertNotEqual(result.status, OK)
        url = self.serve("other", "--echo", "--listen", "tcp://127.0.0.1:0").urls[0]
        self.check_error(self.plait("sub", url, "--timeout", "10s"), NO_NAME, "it is a service")


if __name__ == "__main__":
    main()
