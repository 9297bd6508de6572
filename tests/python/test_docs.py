"""Every block of docs/python.md is run as its readers would run it, beside the server that the page begins with."""

import os
import subprocess
import sys

from support import Case, PATIENCE, SOURCE, blocks_of_page, expected_of_blocks, plait

EXAMPLES = os.path.join(SOURCE, "examples")


class Docs(Case):
    def test_every_block_does_what_its_comments_say(self):
        [server], [workers] = blocks_of_page("server"), blocks_of_page("workers")
        process = self.script("print('ready', flush=True)\n" + server)
        with plait.connect("greeter", connect_timeout=PATIENCE) as client:
            client.call("greet", "up?")
        expected = list(expected_of_blocks(self, ""))
        self.assertGreaterEqual(len(expected), 13)
        for text, said in expected:
            self.assertIn(text, said)
        self.end(process)
        workers = self.script("print('ready', flush=True)\n" + workers)
        with plait.connect("workers", connect_timeout=PATIENCE) as client:
            said = client.call("add").json()
        self.assertEqual(said["calls"], 1)
        self.assertNotEqual(said["worker"], workers.pid)
        self.end(workers)
        program = os.path.join(self.directory, "adder.py")
        with open(program, "w") as file:
            file.write("print('ready', flush=True)\n" + blocks_of_page("spawned")[0])
        spawned = self.start_python(program)
        with plait.connect("adder", connect_timeout=PATIENCE) as client:
            self.assertEqual(client.call("add", [1, 2]).json(), {"sum": 3})
        spawned.terminate()
        self.assertEqual((spawned.wait(PATIENCE), spawned.stderr.read()), (0, ""))

    def end(self, process):
        process.terminate()
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, err), (0, ""))

    def test_the_examples_call_each_other(self):
        process = subprocess.Popen([sys.executable, os.path.join(EXAMPLES, "server.py"), "echo"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        said = self.run_python(os.path.join(EXAMPLES, "client_plait.py"), "echo", "hello")
        self.assertRegex(said, r"^hello \(shm, median of 100 round trips: [0-9.]+ us\)\n$")
        process.terminate()
        self.assertEqual(process.wait(PATIENCE), 0)

    def serve(self, *command):
        process = subprocess.Popen(command)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def example(self, name):
        path = os.path.join(os.environ["PLAIT_EXAMPLES"], name)
        if not os.path.exists(path):
            self.skipTest(f"{name} was not built: there is no C++ compiler")
        return path

    def test_a_server_in_cpp_is_called_from_python(self):
        apart = ["unshare", "-rn"]  # its TCP port is fixed, and here it has one of its own
        alone = subprocess.run([*apart, "true"], capture_output=True).returncode == 0
        self.serve(*(apart if alone else []), self.example("hello-server-cpp"))
        with plait.connect("greeter", connect_timeout=PATIENCE) as client:
            self.assertEqual(client.call("greet", "Ada").text, "hello, Ada")

    def test_a_server_in_python_is_called_from_cpp(self):
        process = self.serve(sys.executable, os.path.join(EXAMPLES, "server.py"), "echo")
        with plait.connect("echo", connect_timeout=PATIENCE):
            pass
        said = subprocess.run([self.example("echo-client-cpp"), "echo", "from C++"], capture_output=True, text=True,
                              timeout=PATIENCE)
        self.assertEqual((said.returncode, said.stderr), (0, ""))
        self.assertIn("from C++", said.stdout)
        process.terminate()
        self.assertEqual(process.wait(PATIENCE), 0)
