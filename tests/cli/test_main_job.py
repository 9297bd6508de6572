"""The main job, and the examples that it is made of."""

import os
import re
import signal
import socket
import subprocess

from plaittest import EXAMPLES, FAILED, OK, PATIENCE, PLAIT, SOURCE, Case, Server, alive, main, until

SCRIPT = os.path.join(SOURCE, "examples", "main_job.sh")
ANSWER = r"(?m)^  {}: +{} \({}, median of 100 round trips: [0-9.]+ us\)$"


class MainJob(Case):
    def setUp(self):
        super().setUp()
        self.environment["PATH"] = os.path.dirname(os.path.abspath(PLAIT)) + ":" + os.environ["PATH"]

    def start_job(self, *arguments):
        process = subprocess.Popen(["sh", SCRIPT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   stdin=subprocess.DEVNULL, env=self.environment, start_new_session=True)
        self.addCleanup(self.end_job, process)
        return process

    @staticmethod
    def end_job(process):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
        process.stdout.close()
        process.stderr.close()

    def read_until(self, process, words):
        text = ""
        while words not in text:
            line = process.stdout.readline().decode()
            self.assertNotEqual(line, "", text)
            text += line
        return text

    def server_of(self, text):
        return int(re.search(r"served by pid (\d+)", text).group(1))

    def check_answers(self, text):
        self.assertRegex(text, ANSWER.format("Python, a plain socket", "hello from Python", "tcp"))
        self.assertRegex(text, ANSWER.format("C, by name", "hello from C", "shm"))
        if os.path.exists(os.path.join(EXAMPLES, "echo-client-cpp")):  # where there is a compiler for it
            self.assertRegex(text, ANSWER.format(r"C\+\+, by name", r"hello from C\+\+", "shm"))
        self.assertRegex(text, ANSWER.format("plait call, by name", "hello from the shell", "shm"))

    def test_once_calls_in_three_ways_and_ends(self):
        process = self.start_job("--once")
        out, err = process.communicate(timeout=PATIENCE)
        text = out.decode()
        self.assertEqual((process.returncode, err), (OK, b""), text)
        self.check_answers(text)
        self.assertFalse(alive(self.server_of(text)))

    def test_a_taken_port_is_told_with_its_holder(self):
        try:
            holder = socket.create_server(("127.0.0.1", 8888))
        except OSError:
            self.skipTest("port 8888 is taken by somebody else")
        with holder:
            process = self.start_job("--once")
            out, err = process.communicate(timeout=PATIENCE)
        text = out.decode()
        self.assertEqual((process.returncode, err), (OK, b""), text)
        self.assertIn(f"port 8888 is taken by process {os.getpid()} (", text)
        self.check_answers(text)

    def test_it_serves_until_ctrl_c(self):
        process = self.start_job()
        text = self.read_until(process, "until Ctrl-C")
        self.check_answers(text)
        port = int(re.search(r"nc -N localhost (\d+)", text).group(1))
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
            connection.sendall(b"still here?")
            self.assertEqual(connection.recv(100), b"still here?")
        os.killpg(process.pid, signal.SIGINT)
        self.assertEqual(process.wait(PATIENCE), OK, process.stderr.read())
        self.assertFalse(alive(self.server_of(text)))

    def test_however_it_is_killed_its_server_ends(self):
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGKILL):
            process = self.start_job()
            server = self.server_of(self.read_until(process, "until Ctrl-C"))
            process.send_signal(number)
            process.wait(PATIENCE)
            until(lambda: not alive(server), f"the server's end after signal {number}")

    def test_a_dead_server_ends_it_with_a_failure(self):
        process = self.start_job()
        os.kill(self.server_of(self.read_until(process, "until Ctrl-C")), signal.SIGKILL)
        self.assertNotEqual(process.wait(PATIENCE), OK)

    def test_it_says_why_it_can_t_begin(self):
        self.environment["PLAIT_DIR"] = "/nowhere/plait"
        process = self.start_job("--once")
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, FAILED, out)
        self.assertIn(b"/nowhere", err)


class Examples(Case):
    def run_example(self, *command):
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environment,
                              timeout=PATIENCE)

    def test_the_clients_say_what_is_wrong(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
            done = self.run_example("/usr/bin/python3", os.path.join(SOURCE, "examples", "client.py"), "127.0.0.1", port, "x")
            self.assertEqual((done.returncode, done.stdout), (1, b""))
            self.assertRegex(done.stderr, rb"\Aclient.py: .*refused")
            done = self.run_example(os.path.join(EXAMPLES, "echo-client"), f"tcp://127.0.0.1:{port}", "x")
            self.assertEqual((done.returncode, done.stdout), (1, b""))
            self.assertRegex(done.stderr, rb"\Aecho-client: .*refused")

    def test_a_wrong_answer_is_noticed(self):
        server = self.serve("liar", "--listen", "tcp://127.0.0.1:0?framing=raw", "--", "printf", "lies!")
        done = self.run_example(os.path.join(EXAMPLES, "echo-client"), "liar", "truth")
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        done = self.run_example("/usr/bin/python3", os.path.join(SOURCE, "examples", "client.py"), "127.0.0.1",
                                str(server.port()), "truth")
        self.assertEqual((done.returncode, done.stdout), (1, b""))

    def test_the_readme_has_the_hello_server(self):
        with open(os.path.join(SOURCE, "examples", "hello.c")) as file:
            code = file.read().split("*/\n", 1)[1]
        with open(os.path.join(SOURCE, "README.md")) as file:
            block = re.search(r"```c\n(.*?)```", file.read(), re.S).group(1)

        def plain(text):
            return re.sub(r" +/\*", " /*", text)

        self.assertEqual(plain(code), plain(block))


if __name__ == "__main__":
    main()
