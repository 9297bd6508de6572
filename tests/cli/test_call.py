"""plait call and plait ls against living servers: bytes in and out, failures, deaths, JSON."""

import base64
import os
import signal
import socket
import subprocess
import time

import schema
from plaittest import (EXAMPLES, FAILED, NO_NAME, OK, PATIENCE, PLAIT, REFUSED, TIMED_OUT, USAGE, Case, Server,
                       alive, main, until)


class Bytes(Case):
    def test_any_body_comes_back_as_it_went(self):
        server = self.serve("echo", "--echo", "--listen", "tcp://127.0.0.1:0")
        bodies = [b"", b"\0", b"\n", bytes(range(256)) * 3, os.urandom(8192), os.urandom(8193), os.urandom(1 << 20)]
        for target in ("echo", "echo?shm=off", server.urls[0], server.urls[0] + "/echo"):
            for body in bodies:
                with self.subTest(f"{target}, {len(body)} bytes"):
                    result = self.plait("call", target, "-", data=body)
                    self.assertEqual((result.status, result.err), (OK, ""))
                    self.assertTrue(result.out == body, f"{len(result.out)} bytes came back, other ones")

    def test_a_hundred_megabytes_come_back(self):
        self.serve("echo", "--echo")
        body = os.urandom(1 << 20) * 100
        result = self.plait("call", "echo", "-", data=body)
        self.assertEqual((result.status, result.err), (OK, ""))
        self.assertTrue(result.out == body)

    def test_data_behind_dashes_is_taken_as_it_is(self):
        self.serve("echo", "--echo")
        for data in ("-x", "--timeout", "-", "--"):
            self.assertEqual(self.plait("call", "echo", "--", data).out, data.encode())

    def test_without_data_the_body_is_empty(self):
        self.serve("size", "--", "wc", "-c")
        self.assertEqual(self.plait("call", "size", data=b"not read").out.strip(), b"0")

    def test_repeated_replies_stand_side_by_side(self):
        self.serve("echo", "--echo")
        self.assertEqual(self.plait("call", "echo", "ab", "--repeat", "3").out, b"ababab")

    def test_a_newline_is_added_on_a_terminal_only(self):
        self.serve("echo", "--echo")
        command = f"{PLAIT} call echo hello"
        done = subprocess.run(["script", "-qec", command, "/dev/null"], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, env=self.environment, timeout=PATIENCE)
        self.assertEqual(done.stdout, b"hello\r\n")
        self.assertEqual(self.plait("call", "echo", "hello").out, b"hello")

    def test_a_reader_that_goes_away_ends_a_long_repetition(self):
        self.serve("echo", "--echo")
        process = self.start("call", "echo", "line\n", "--repeat", "1000000000")
        process.stdin.close()
        self.assertEqual(process.stdout.readline(), b"line\n")
        process.stdout.close()
        self.assertEqual(process.wait(PATIENCE), OK)
        self.assertEqual(process.stderr.read(), b"")
        process.stderr.close()

    def test_a_reader_that_goes_away_in_the_middle_of_a_reply_is_no_error(self):
        self.serve("echo", "--echo")
        process = self.start("call", "echo", "-")
        process.stdin.write(bytes(16 << 20))
        process.stdin.close()
        self.assertEqual(process.stdout.read(10), bytes(10))
        process.stdout.close()
        self.assertEqual((process.wait(PATIENCE), process.stderr.read()), (OK, b""))
        process.stderr.close()

    def test_standard_input_that_can_t_be_read_is_told(self):
        done = subprocess.run(["sh", "-c", 'exec "$0" call x - <&-', PLAIT], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env=self.environment, timeout=PATIENCE)
        self.assertEqual(done.returncode, FAILED)
        self.assertIn(b"plait: standard input: ", done.stderr)


class Targets(Case):
    def test_a_method_is_named_behind_a_slash_or_in_the_url(self):
        server = self.serve("tool", "--listen", "tcp://127.0.0.1:0", "--", "sh", "-c", "printf %s \"$PLAIT_METHOD\"")
        url = server.urls[0]
        for target, method in (("tool", b""), ("tool/date", b"date"), ("tool/date?shm=off", b"date"),
                               (url, b""), (url + "?method=date", b"date"), (url + "/tool/date", b"date"),
                               (url + "/tool?max_message=1M&method=date", b"date")):
            with self.subTest(target):
                result = self.plait("call", target)
                self.assertEqual((result.status, result.out), (OK, method), result.err)

    def test_a_target_with_two_methods_is_told(self):
        self.check_error(self.plait("call", "x/a?method=b"), USAGE, "two methods")
        self.check_error(self.plait("call", "x/"), USAGE, "method")

    def test_bad_targets_are_told(self):
        for target in ("", "UPPER", "a b", "x" * 101, "tcp://", "tcp://127.0.0.1", "tcp://127.0.0.1:99999",
                       "tcp://127.0.0.1:80?framing=no", "ftp://x", "x?nonsense=1", "x" * 5000):
            with self.subTest(target[:40]):
                self.check_error(self.plait("call", target, "--timeout", "200ms"), USAGE)

    def test_an_absent_name_is_told_with_near_ones_and_where_it_was_looked_for(self):
        self.serve("greeter", "--echo")
        begun = time.monotonic()
        result = self.plait("call", "greter", "x", "--timeout", "100ms")
        self.check_error(result, NO_NAME, "greter", "greeter", self.runtime)
        self.assertLess(time.monotonic() - begun, PATIENCE / 2)

    def test_a_name_that_appears_in_time_is_called(self):
        process = self.start("call", "late", "hello", "--timeout", "60s")
        self.serve("late", "--echo")
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, out), (OK, b"hello"), err)

    def test_a_method_that_is_not_there_is_no_such_name(self):
        Server(self, [os.path.join(EXAMPLES, "echo-server"), "only-default"])
        result = self.plait("call", "only-default/other", "x")
        self.check_error(result, NO_NAME, "other")

    def test_a_topic_is_told_from_a_service(self):
        publisher = self.start("pub", "clock", "tick", "--rate", "100", "--listen", "tcp://127.0.0.1:0")
        self.addCleanup(publisher.communicate)
        self.addCleanup(publisher.kill)
        url = publisher.stdout.readline().decode().split()[2]
        self.check_error(self.plait("call", "clock", "x", "--timeout", "100ms"), NO_NAME, "it is a topic")
        result = self.plait("call", url, "x")
        self.check_error(result, NO_NAME, "is a topic")
        self.assertEqual(result.err.count(url), 1)

    def test_a_port_that_nobody_listens_on_is_refused(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets it
            self.check_error(self.plait("call", f"tcp://127.0.0.1:{free.getsockname()[1]}", "x"), REFUSED, "127.0.0.1")


class Framings(Case):
    def test_plain_framings_work_from_both_sides(self):
        for framing, body in (("raw", b"hello"), ("lines", b"hello"), ("length", b"a\0b")):
            with self.subTest(framing):
                server = self.serve(f"f-{framing}", "--echo", "--listen", f"tcp://127.0.0.1:0?framing={framing}")
                result = self.plait("call", server.urls[0], "-", data=body)
                self.assertEqual((result.status, result.out), (OK, body), result.err)

    def test_a_plain_socket_is_answered(self):
        server = self.serve("upper", "--listen", "tcp://127.0.0.1:0?framing=lines", "--", "tr", "a-z", "A-Z")
        with socket.create_connection(("127.0.0.1", server.port()), PATIENCE) as connection:
            connection.sendall(b"one\ntwo\n")
            with connection.makefile("rb") as stream:
                self.assertEqual([stream.readline(), stream.readline()], [b"ONE\n", b"TWO\n"])


class Failures(Case):
    def test_a_handler_s_failure_is_its_text_on_standard_error(self):
        self.serve("bad", "--", "sh", "-c", "echo out; echo 'it broke' >&2; exit 7")
        self.check_error(self.plait("call", "bad"), FAILED, "bad: it broke")
        result = self.plait("call", "bad", "--json")
        self.assertEqual(result.status, FAILED)
        schema.check(result.objects[0])
        self.assertEqual((result.objects[0]["status"], result.objects[0]["error"]), (7, "it broke"))

    def test_the_first_failure_ends_a_repetition(self):
        self.serve("bad", "--", "false")
        result = self.plait("call", "bad", "--repeat", "5")
        self.check_error(result, FAILED, "exit status 1")

    def test_a_call_that_takes_too_long_times_out(self):
        self.serve("slow", "--", "sleep", "1000")
        begun = time.monotonic()
        self.check_error(self.plait("call", "slow", "--timeout", "200ms"), TIMED_OUT, "slow")
        self.assertLess(time.monotonic() - begun, PATIENCE / 2)

    def test_a_server_that_dies_in_a_call_is_told_at_once(self):
        for target in ("mortal", "mortal?shm=off"):
            with self.subTest(target):
                ready = self.path("ready-" + target)
                server = self.serve("mortal", "--", "sh", "-c", f"touch '{ready}'; exec sleep 1000")
                process = self.start("call", target, "--timeout", "60s")
                until(lambda: os.path.exists(ready), "the command")
                begun = time.monotonic()
                server.process.kill()
                _, err = process.communicate(timeout=PATIENCE)
                self.assertLess(time.monotonic() - begun, PATIENCE / 2)
                self.assertEqual(process.returncode, REFUSED, err)
                self.assertRegex(err, rb"\Aplait: mortal")

    def test_ctrl_c_ends_a_call(self):
        ready = self.path("ready")
        self.serve("slow", "--", "sh", "-c", f"touch {ready}; exec sleep 1000")
        process = self.start("call", "slow")
        until(lambda: os.path.exists(ready), "the command")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, -signal.SIGINT)


class Json(Case):
    def test_a_reply_is_an_object_with_text_or_base64(self):
        server = self.serve("echo", "--echo", "--listen", "tcp://127.0.0.1:0")
        for target, transport in (("echo", "shm"), ("echo?shm=off", "unix"), (server.urls[0], "tcp")):
            for body in (b"", b'h\xc3\xa9 "\\\n\t\x01\x7f', b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"):
                with self.subTest(f"{target} {body!r}"):
                    result = self.plait("call", target, "-", "--json", data=body)
                    self.assertEqual(len(result.objects), 1)
                    reply = result.objects[0]
                    schema.check(reply)
                    self.assertEqual((reply["kind"], reply["status"], reply["transport"]), ("reply", 0, transport))
                    got = reply["text"].encode() if "text" in reply else base64.b64decode(reply["base64"])
                    self.assertEqual((got, reply["size"]), (body, len(body)))

    def test_the_encoding_is_handed_through(self):
        self.serve("echo", "--echo")
        for encoding in ("bytes", "utf8", "json", "array"):
            reply = self.plait("call", "echo", "1", "--encoding", encoding, "--json").objects[0]
            self.assertEqual(reply["encoding"], encoding)

    def test_each_repetition_is_a_line(self):
        self.serve("echo", "--echo")
        result = self.plait("call", "echo", "x", "--json", "--repeat", "5")
        self.assertEqual(len(result.objects), 5)


class Ls(Case):
    def test_nothing_served_is_no_error(self):
        result = self.plait("ls")
        self.assertEqual((result.status, result.out), (OK, b""))
        self.assertIn("plait serve", result.err)
        self.assertEqual(self.plait("ls", "--json").out, b"")

    def test_services_are_listed_with_what_they_did(self):
        server = self.serve("echo", "--echo", "--listen", "tcp://127.0.0.1:0?framing=raw")
        self.plait("call", "echo", "12345", "--repeat", "3")
        result = self.plait("ls", "--json")
        self.assertEqual(len(result.objects), 1, result.text)
        instance = result.objects[0]
        schema.check(instance)
        self.assertEqual((instance["kind"], instance["service"], instance["pid"]), ("instance", "echo", server.pid))
        self.assertEqual((instance["requests"], instance["bytes_in"], instance["uid"]), (3, 15, os.getuid()))
        self.assertEqual((instance["urls"], instance["stopped"]), (server.urls, False))
        table = self.plait("ls").text.splitlines()
        self.assertEqual(len(table), 2)
        self.assertRegex(table[1], rf"\Aecho +{server.pid} +{os.path.basename(PLAIT)[:15]} ")

    def test_a_name_is_listed_with_methods_and_clients(self):
        server = self.serve("echo", "--echo", "--listen", "tcp://127.0.0.1:0?framing=raw")
        with socket.create_connection(("127.0.0.1", server.port()), PATIENCE) as connection:
            connection.sendall(b"hello")
            self.assertEqual(connection.recv(100), b"hello")
            result = self.plait("ls", "echo", "--json")
            for line in result.objects:
                schema.check(line)
            connections = [line for line in result.objects if line["kind"] == "connection"]
            self.assertEqual([(c["transport"], c["framing"], c["requests"]) for c in connections], [("tcp", "raw", 1)])
            self.assertIn("*", [line["method"] for line in result.objects if line["kind"] == "method"])
            text = self.plait("ls", "echo").text
            self.assertIn("METHODS", text)
            self.assertRegex(text, r"\n127\.0\.0\.1:\d+ ")

    def test_several_instances_are_several_lines(self):
        pids = {self.serve("many", "--echo").pid for _ in range(3)}
        self.assertEqual({line["pid"] for line in self.plait("ls", "many", "--json").objects
                          if line["kind"] == "instance"}, pids)

    def test_a_stopped_server_is_still_told(self):
        server = self.serve("echo", "--echo")
        self.plait("call", "echo", "x")
        server.process.send_signal(signal.SIGSTOP)
        until(lambda: open(f"/proc/{server.pid}/stat").read().rsplit(")", 1)[1].split()[0] == "T", "the stop")
        instance = self.plait("ls", "--json").objects[0]
        self.assertEqual((instance["requests"], instance["stopped"]), (1, True))
        self.assertIn("stopped", self.plait("ls").text)

    def test_an_absent_name_is_told_with_near_ones(self):
        self.serve("greeter", "--echo")
        self.check_error(self.plait("ls", "greter"), NO_NAME, "greeter", self.runtime)

    def test_the_dead_are_not_listed(self):
        server = self.serve("echo", "--echo")
        server.process.kill()
        server.process.wait(PATIENCE)
        self.assertFalse(alive(server.pid))
        self.assertEqual(self.plait("ls", "--json").out, b"")


if __name__ == "__main__":
    main()
