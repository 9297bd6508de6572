"""plait serve: what it prints, what it runs, what it kills, and how it ends."""

import os
import resource
import signal
import socket
import threading

import schema
from plaittest import (FAILED, Gate, NO_NAME, OK, PATIENCE, REFUSED, TIMED_OUT, USAGE, Case, alive, main, until)


class Announcing(Case):
    def test_listeners_are_printed_with_their_real_ports(self):
        path = self.path("socket")
        server = self.serve("echo", "--echo", "--listen", "tcp://127.0.0.1:0?framing=raw", "--listen",
                            f"unix://{path}", "--listen", "tcp://127.0.0.1:0")
        self.assertEqual(len(server.urls), 3)
        self.assertEqual(server.lines[-1], f"serving echo (pid {server.pid})")
        self.assertNotIn(0, (server.port(0), server.port(2)))
        for url in server.urls:
            self.assertEqual(self.plait("call", url, "hello").out, b"hello")

    def test_loopback_is_said_to_admit_every_local_user(self):
        server = self.serve("echo", "--echo", "--listen", "tcp://127.0.0.1:0")
        self.assertIn("every local user", server.lines[0])

    def test_json_announces_too(self):
        server = self.serve("echo", "--echo", "--json", "--listen", "tcp://127.0.0.1:0")
        import json
        kinds = [json.loads(line) for line in server.lines]
        for line in kinds:
            schema.check(line)
        self.assertEqual([line["kind"] for line in kinds], ["listening", "serving"])
        self.assertEqual(kinds[1]["pid"], server.pid)


class Refusing(Case):
    def test_bad_names_are_told(self):
        for name in ("", "UPPER", "a b", ".hidden", "a/b", "x" * 101, "ümlaut"):
            with self.subTest(name[:20]):
                self.check_error(self.plait("serve", name, "--echo"), USAGE)

    def test_bad_urls_are_told(self):
        for url in ("", "tcp://", "tcp://127.0.0.1", "tcp://127.0.0.1:70000", "ftp://127.0.0.1:1", "udp://127.0.0.1:0?framing=lines",
                    "tls://127.0.0.1:1", "tcp://127.0.0.1:0?framing=none", "tcp://127.0.0.1:0?nonsense=1", "unix://"):
            with self.subTest(url):
                self.check_error(self.plait("serve", "x", "--echo", "--listen", url), USAGE)

    def test_beyond_loopback_needs_insecure(self):
        result = self.plait("serve", "x", "--echo", "--listen", "tcp://0.0.0.0:0")
        self.assertNotEqual(result.status, OK)
        self.assertIn("insecure=1", result.err)
        server = self.serve("x", "--echo", "--listen", "tcp://0.0.0.0:0?insecure=1")
        self.assertIn("unencrypted", server.lines[0])
        self.assertIn("insecure=1", self.plait("serve", "x", "--echo", "--listen", "udp://0.0.0.0:0").err)

    def test_a_datagram_listener_says_whom_it_admits_and_can_be_called_as_printed(self):
        server = self.serve("x", "--listen", "udp://127.0.0.1:0?method=up", "--", "tr", "a-z", "A-Z")
        self.assertIn("(admits every local user)", server.lines[0])
        self.assertIn("?method=up", server.urls[0])
        self.assertEqual(self.plait("call", server.urls[0], "hello").out, b"HELLO")
        self.assertIn("udp", self.plait("ls", "x").text)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
            plain.settimeout(60)
            plain.sendto(b"bye", ("127.0.0.1", server.port()))
            self.assertEqual(plain.recv(100), b"BYE")

    def test_a_port_in_use_is_told(self):
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            port = holder.getsockname()[1]
            result = self.plait("serve", "x", "--echo", "--listen", f"tcp://127.0.0.1:{port}")
            self.check_error(result, FAILED, f"port {port} is held by process {os.getpid()} (python3", "in use")

    def test_an_unknown_user_in_allow_is_told(self):
        self.check_error(self.plait("serve", "x", "--echo", "--allow", "no-such-user-here"), USAGE, "no-such-user-here")

    def test_exclusive_names_the_holder(self):
        server = self.serve("only", "--echo", "--exclusive")
        self.check_error(self.plait("serve", "only", "--echo"), FAILED, str(server.pid))
        self.assertEqual(server.stop()[0], OK)
        self.serve("only", "--echo", "--exclusive")

    def test_a_runtime_directory_that_is_none_is_told(self):
        os.rmdir(self.runtime)
        os.symlink(self.directory, self.runtime)
        self.assertNotEqual(self.plait("serve", "x", "--echo").status, OK)
        os.unlink(self.runtime)
        with open(self.runtime, "w"):
            pass
        result = self.plait("serve", "x", "--echo")
        self.assertNotEqual(result.status, OK)
        self.assertIn(self.runtime, result.err)
        os.unlink(self.runtime)
        self.environment["PLAIT_DIR"] = os.path.join(self.runtime, "deep")
        self.check_error(self.plait("serve", "x", "--echo"), FAILED, self.runtime, "make it")

    def test_too_few_descriptors_are_told_with_what_to_do(self):
        for limit in range(4, 30):
            process = self.start("serve", "few", "--echo",
                                 preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)))
            if process.stdout.readline().startswith(b"serving"):
                process.kill()
                process.communicate()
                return
            _, errors = process.communicate(timeout=PATIENCE)
            with self.subTest(limit):
                self.assertEqual(process.returncode, FAILED)
                self.assertIn("ulimit -n", errors.decode())
        self.fail("no limit was enough")


class Running(Case):
    def test_a_command_gets_body_and_method_and_no_shell(self):
        self.serve("show", "--", "sh", "-c", 'printf "%s|%s|" "$PLAIT_METHOD" "$1"; cat', "sh", "$HOME; *")
        self.assertEqual(self.plait("call", "show/some.method", "body").out, b"some.method|$HOME; *|body")
        self.assertEqual(self.plait("call", "show", "body").out, b"|$HOME; *|body")

    def test_a_listener_s_method_reaches_the_command(self):
        server = self.serve("show", "--listen", "tcp://127.0.0.1:0?framing=lines&method=some.method", "--", "sh", "-c",
                            'printf "%s" "$PLAIT_METHOD"')
        with socket.create_connection(("127.0.0.1", server.port()), PATIENCE) as connection:
            connection.sendall(b"x\n")
            self.assertEqual(connection.recv(100), b"some.method\n")

    def test_any_bytes_go_through_a_command(self):
        self.serve("cat", "--", "cat")
        for size in (0, 1, 65536, 65537, 10 << 20):
            body = os.urandom(size)
            result = self.plait("call", "cat", "-", data=body)
            self.assertEqual((result.status, result.err), (OK, ""))
            self.assertTrue(result.out == body, f"{size} bytes")

    def test_a_command_that_doesn_t_read_its_input_is_fine(self):
        self.serve("deaf", "--", "echo", "done")
        self.assertEqual(self.plait("call", "deaf", "-", data=b"x" * (5 << 20)).out, b"done\n")

    def test_exit_status_and_standard_error_are_the_failure(self):
        self.serve("bad", "--", "sh", "-c", "cat >&2; exit 42")
        for body, text in ((b"what was wrong\n\n", "what was wrong"), (b"", "exit status 42")):
            reply = self.plait("call", "bad", "-", "--json", data=body).objects[0]
            self.assertEqual(reply["status"], 42)
            self.assertIn(text, reply["error"])

    def test_of_a_long_standard_error_the_end_is_told(self):
        self.serve("bad", "--", "sh", "-c", "seq 100000 >&2; exit 1")
        error = self.plait("call", "bad", "--json").objects[0]["error"]
        self.assertTrue(error.endswith("\n100000"))
        self.assertLessEqual(len(error), 4096)

    def test_a_signal_is_a_failure(self):
        self.serve("bad", "--", "sh", "-c", "kill -SEGV $$")
        reply = self.plait("call", "bad", "--json").objects[0]
        self.assertEqual(reply["status"], 128 + signal.SIGSEGV)
        self.assertIn("signal 11", reply["error"])

    def test_a_program_that_vanished_is_a_failure(self):
        program = self.path("program")
        with open(program, "w") as file:
            file.write("#!/bin/sh\necho here\n")
        os.chmod(program, 0o755)
        self.serve("frail", "--", program)
        self.assertEqual(self.plait("call", "frail").out, b"here\n")
        os.unlink(program)
        reply = self.plait("call", "frail", "--json").objects[0]
        self.assertEqual(reply["status"], 127)
        self.assertIn(program, reply["error"])

    def test_remarks_of_a_good_run_stay_with_the_server(self):
        server = self.serve("chatty", "--", "sh", "-c", "echo a remark >&2; echo good")
        result = self.plait("call", "chatty")
        self.assertEqual((result.out, result.err), (b"good\n", ""))
        self.assertIn(b"a remark\n", server.stop()[1])

    def test_a_process_left_behind_holds_nobody_up(self):
        pid_file = self.path("pid")
        self.serve("parent", "--", "sh", "-c", f"sleep 1000 & echo $! > {pid_file}; echo good")
        self.assertEqual(self.plait("call", "parent", "--timeout", "30s").out, b"good\n")
        os.kill(int(open(pid_file).read()), signal.SIGKILL)

    def test_a_command_inherits_three_descriptors(self):
        self.serve("fds", "--listen", "tcp://127.0.0.1:0", "--", "sh", "-c", "ls /proc/$$/fd")
        descriptors = self.plait("call", "fds").out.split()
        self.assertEqual(set(descriptors) - {b"10"}, {b"0", b"1", b"2"})  # 10: where some shells keep their script

    def test_a_command_has_no_signals_blocked_or_ignored(self):
        self.serve("signals", "--", "grep", "^Sig[BI]", "/proc/self/status")
        out = self.plait("call", "signals").out.split()
        self.assertEqual((out[1], int(out[3], 16) & 1 << (signal.SIGPIPE - 1)), (b"0" * 16, 0))

    def test_slow_commands_run_beside_each_other(self):
        gate = Gate(self)
        server = self.serve("slow", "--", "sh", "-c", f"head -c 1 {gate.path} >&2; cat")
        calls = [self.start("call", "slow", str(i)) for i in range(8)]
        for process in calls:
            process.stdin.close()
        children = f"/proc/{server.pid}/task"
        until(lambda: sum(len(open(f"{children}/{task}/children").read().split()) for task in os.listdir(children)) == 8,
              "eight commands at once")
        gate.let_through(8)
        for i, process in enumerate(calls):
            self.assertEqual(process.stdout.read(), str(i).encode())
            self.assertEqual(process.wait(PATIENCE), OK)
            process.stdout.close()
            process.stderr.close()

    def test_more_calls_than_commands_at_once_are_all_answered(self):
        self.serve("cat", "--", "cat")
        answers = []

        def call(i):
            answers.append(self.plait("call", "cat", str(i)).out == str(i).encode())

        threads = [threading.Thread(target=call, args=(i,)) for i in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(answers, [True] * 100)


class Killing(Case):
    def command(self):
        """A command that tells its pid in a file and then takes for ever."""
        self.pid_file = self.path("pid")
        return ["sh", "-c", f"echo $$ > {self.pid_file}.part; mv {self.pid_file}.part {self.pid_file}; exec sleep 1000"]

    def child(self):
        until(lambda: os.path.exists(self.pid_file), "the command")
        return int(open(self.pid_file).read())

    def test_a_command_whose_caller_has_gone_is_killed(self):
        self.serve("slow", "--", *self.command())
        process = self.start("call", "slow")
        child = self.child()
        process.kill()
        process.communicate(timeout=PATIENCE)
        until(lambda: not alive(child), "the command's end")

    def test_a_command_whose_time_is_over_is_killed(self):
        self.serve("slow", "--", *self.command())
        self.assertEqual(self.plait("call", "slow", "--timeout", "500ms").status, TIMED_OUT)
        if os.path.exists(self.pid_file):
            child = self.child()
            until(lambda: not alive(child), "the command's end")

    def test_a_command_that_ignores_sigterm_is_killed_nevertheless(self):
        self.pid_file = self.path("pid")
        self.serve("stubborn", "--", "sh", "-c",
                   f"trap '' TERM; echo $$ > {self.pid_file}.part; mv {self.pid_file}.part {self.pid_file}; exec sleep 1000")
        process = self.start("call", "stubborn")
        child = self.child()
        process.kill()
        process.communicate(timeout=PATIENCE)
        until(lambda: not alive(child), "the command's end")

    def test_children_of_a_killed_command_go_with_it(self):
        self.pid_file = self.path("pid")
        self.serve("family", "--", "sh", "-c",
                   f"sleep 1000 & echo $! > {self.pid_file}.part; mv {self.pid_file}.part {self.pid_file}; wait")
        process = self.start("call", "family")
        grandchild = self.child()
        process.kill()
        process.communicate(timeout=PATIENCE)
        until(lambda: not alive(grandchild), "the grandchild's end")

    def test_a_killed_server_takes_its_commands_with_it(self):
        server = self.serve("slow", "--", *self.command())
        process = self.start("call", "slow")
        child = self.child()
        server.process.kill()
        until(lambda: not alive(child), "the command's end")
        process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, REFUSED)

    def test_an_endless_output_is_cut_when_its_caller_leaves(self):
        # Not `cat /dev/zero`: where memory is fast, that reaches the largest message before the deadline.
        server = self.serve("endless", "--", "sh", "-c", "while :; do echo more; done")
        self.assertEqual(self.plait("call", "endless", "--timeout", "300ms").status, TIMED_OUT)
        children = f"/proc/{server.pid}/task"
        until(lambda: not any(open(f"{children}/{task}/children").read() for task in os.listdir(children)),
              "the command's end")


class Ending(Case):
    def test_sigint_and_sigterm_end_it_in_order(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            server = self.serve("echo", "--echo", "--listen", "tcp://127.0.0.1:0")
            self.plait("call", "echo", "x")
            self.assertEqual(server.stop(number), (OK, b""))
            self.assertEqual(self.plait("ls", "--json").out, b"")

    def test_what_was_taken_is_answered_before_it_ends(self):
        started, gate = self.path("started"), Gate(self)
        server = self.serve("slow", "--", "sh", "-c", f"touch {started}; head -c 1 {gate.path} >&2; echo answered")
        process = self.start("call", "slow")
        until(lambda: os.path.exists(started), "the command")
        server.process.send_signal(signal.SIGTERM)
        until(lambda: self.plait("call", "slow", "--timeout", "10ms").status == NO_NAME, "the name's withdrawal")
        gate.let_through()
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, out), (OK, b"answered\n"), err)
        self.assertEqual(server.process.wait(PATIENCE), OK)

    def test_commands_that_outlast_the_grace_are_killed(self):
        pid_file = self.path("pid")
        server = self.serve("slow", "--", "sh", "-c", f"echo $$ > {pid_file}.part; mv {pid_file}.part {pid_file}; exec sleep 1000")
        process = self.start("call", "slow")
        until(lambda: os.path.exists(pid_file), "the command")
        child = int(open(pid_file).read())
        self.assertEqual(server.stop()[0], OK)
        self.assertFalse(alive(child))
        process.communicate(timeout=PATIENCE)
        self.assertIn(process.returncode, (FAILED, REFUSED))

    def test_a_killed_server_leaves_no_name_behind(self):
        server = self.serve("echo", "--echo")
        server.stop(signal.SIGKILL)
        self.serve("echo", "--echo", "--exclusive")
        self.assertEqual(self.plait("call", "echo", "x").out, b"x")


if __name__ == "__main__":
    main()
