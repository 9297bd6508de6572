"""What needs no server: verbs, options, help, exit statuses, standard output that can't be written."""

import os
import subprocess

import schema
from plaittest import FAILED, OK, PATIENCE, PLAIT, USAGE, Case, main

VERBS = ["serve", "call", "get", "pub", "sub", "ls", "threads", "bench", "doctor", "version", "help"]


class Verbs(Case):
    def test_no_verb_is_wrong_usage(self):
        self.check_error(self.plait(), USAGE, "plait help")

    def test_an_unknown_verb_gets_a_near_one_suggested(self):
        self.check_error(self.plait("cal"), USAGE, "plait call")
        self.check_error(self.plait("srve"), USAGE, "plait serve")
        self.check_error(self.plait("ver"), USAGE, "plait version")

    def test_a_verb_that_is_like_no_other_gets_no_suggestion(self):
        for word in ("dance", "xy", "-v", "--version=2", "--"):
            result = self.plait(word)
            self.check_error(result, USAGE)
            self.assertNotIn("mean", result.err)

    def test_a_verb_in_capitals_is_understood_as_a_slip(self):
        self.check_error(self.plait("CALL", "x"), USAGE, "plait call")

    def test_an_empty_word_is_none(self):
        for words, part in ((("",), "no verb given"), (("call", ""), "TARGET"), (("sub", ""), "TOPIC"),
                            (("pub", "", "x"), "TOPIC"), (("ls", ""), "names are"),
                            (("pub", "x", "y", "--listen", ""), "--listen")):
            with self.subTest(words):
                self.check_error(self.plait(*words), USAGE, part)

    def test_help_lists_every_verb(self):
        for arguments in (["help"], ["--help"], ["-h"]):
            result = self.plait(*arguments)
            self.assertEqual((result.status, result.err), (OK, ""))
            for verb in VERBS:
                self.assertIn(f"plait {verb}", result.text)

    def test_every_verb_explains_itself_in_either_way(self):
        for verb in VERBS:
            with self.subTest(verb):
                by_option = self.plait(verb, "--help")
                self.assertEqual((by_option.status, by_option.err), (OK, ""))
                self.assertIn(f"plait {verb}", by_option.text)
                self.assertEqual(self.plait("help", verb).text, by_option.text)

    def test_help_has_pages_for_what_belongs_to_no_verb(self):
        self.assertIn("PLAIT_DIR", self.plait("help", "environment").text)
        self.assertIn("framing=raw", self.plait("help", "targets").text)
        self.assertIn("timed out", self.plait("help", "exit").text)
        self.check_error(self.plait("help", "nothing"), USAGE)

    def test_help_fits_a_terminal(self):
        for page in VERBS + ["environment", "targets", "exit"]:
            for line in self.plait("help", page).text.splitlines():
                self.assertLessEqual(len(line), 100, line)

    def test_version_is_told_in_three_ways(self):
        text = self.plait("version").text
        self.assertRegex(text, r"\Aplait \d+\.\d+\.\d+\n\Z")
        self.assertEqual(self.plait("--version").text, text)
        result = self.plait("version", "--json")
        schema.check(result.objects[0])
        self.assertEqual(f"plait {result.objects[0]['version']}\n", text)


class Options(Case):
    def test_an_unknown_option_gets_a_near_one_suggested(self):
        self.check_error(self.plait("call", "x", "--timeot", "5s"), USAGE, "--timeout", "plait help call")

    def test_options_stand_anywhere_before_the_dashes(self):
        for arguments in (["--timeout", "50ms", "call-nobody"], ["call-nobody", "--timeout=50ms"],
                          ["call-nobody", "data", "--timeout", "50"]):
            result = self.plait("call", *arguments)
            self.assertEqual(result.status, 3, result.err)
        self.assertEqual(self.plait("--timeout", "50ms", "call", "call-nobody").status, 3)
        self.assertEqual(self.plait("--json", "--timeout=50ms", "call", "call-nobody", "--", "ls").status, 3)
        self.check_error(self.plait("--json", "--", "ls"), USAGE, "--json", "no such option")

    def test_an_option_without_its_value_is_told(self):
        self.check_error(self.plait("call", "x", "--timeout"), USAGE, "--timeout", "value")
        self.check_error(self.plait("call", "x", "--json=yes"), USAGE, "--json")

    def test_bad_time_spans_are_told(self):
        for text in ("", "0", "-5", "5x", "s", "5 s", "1.s", ".5s", "1e3", "nan", "99999999999999999999", "0x10"):
            with self.subTest(text):
                self.check_error(self.plait("call", "x", f"--timeout={text}"), USAGE, "--timeout", "300ms")

    def test_bad_numbers_are_told_with_their_range(self):
        for text in ("", "0", "many", "1.5", "99999999999999999999"):
            with self.subTest(text):
                self.check_error(self.plait("call", "x", f"--repeat={text}"), USAGE, "--repeat", "from 1")
        self.check_error(self.plait("serve", "x", "--echo", "--threads", "65"), USAGE, "64")
        for text in ("", "0", "0.0004", "1.", ".5", "1e3", "-1", "1000000.001", "1000001", "1" * 30, "0x1", "1 "):
            with self.subTest("rate " + text):
                self.check_error(self.plait("pub", "x", "y", f"--rate={text}"), USAGE, "--rate", "from 0.001 to 1000000")

    def test_bad_choices_are_told_with_the_good_ones(self):
        self.check_error(self.plait("call", "x", "--encoding", "ascii"), USAGE, "bytes, utf8, json, array")

    def test_superfluous_words_are_told(self):
        self.check_error(self.plait("call", "x", "a", "b"), USAGE, "b")
        self.check_error(self.plait("ls", "a", "b"), USAGE, "b")
        self.check_error(self.plait("serve", "a", "b", "--echo"), USAGE, "b")
        for verb in ("version", "doctor"):
            self.check_error(self.plait(verb, "x"), USAGE, "x")

    def test_dashes_mean_nothing_where_nothing_could_be_mistaken(self):
        self.assertEqual(self.plait("version", "--").text, self.plait("version").text)
        self.assertEqual(self.plait("help", "--", "ls").text, self.plait("help", "ls").text)
        self.check_error(self.plait("ls", "--", "--json"), USAGE, "--json", "names are")

    def test_a_method_beside_its_target_is_told_where_it_goes(self):
        self.check_error(self.plait("call", "greeter", "greet", "Ada"), USAGE, "greeter/METHOD")

    def test_bad_names_are_wrong_usage_in_every_verb(self):
        for words in (("call", "x/.y"), ("call", "x/a b"), ("ls", "UPPER"), ("ls", "a/b"), ("ls", "x" * 101),
                      ("ls", "tcp://127.0.0.1:1"), ("pub", "a b", "x"), ("sub", "a b"), ("serve", "a b", "--echo")):
            with self.subTest(words):
                self.check_error(self.plait(*words), USAGE)

    def test_a_missing_target_is_told(self):
        self.check_error(self.plait("call"), USAGE, "TARGET")

    def test_control_characters_don_t_reach_the_terminal(self):
        result = self.plait("call", "x", "--\x1b[31m")
        self.assertEqual(result.status, USAGE)
        self.assertNotIn("\x1b", result.err)


class Serve(Case):
    def test_serve_needs_something_that_answers(self):
        self.check_error(self.plait("serve", "x"), USAGE, "--echo", "CMD")
        self.check_error(self.plait("serve", "x", "--"), USAGE, "CMD")
        self.check_error(self.plait("serve", "x", "--echo", "--", "cat"), USAGE, "not both")
        self.check_error(self.plait("serve", "--echo"), USAGE, "NAME")

    def test_counts_of_threads_and_processes_are_checked(self):
        for option in ("--threads", "--processes"):
            for count in ("-1", "65", "many"):
                self.check_error(self.plait("serve", "x", option, count, "--echo"), USAGE, option, "0 to 64")

    def test_a_command_that_can_t_be_run_is_told_before_anything_is_served(self):
        self.check_error(self.plait("serve", "x", "--", "no-such-command"), FAILED, "no-such-command", "PATH")
        self.check_error(self.plait("serve", "x", "--", "/etc/passwd"), FAILED, "/etc/passwd")
        self.check_error(self.plait("serve", "x", "--", "/nowhere/cmd"), FAILED, "/nowhere/cmd")


class Bench(Case):
    def test_its_lines_are_as_the_schema_says(self):
        for arguments in (["--size", "64"], ["--only", "spinning"]):
            result = self.plait("bench", "--json", "--rounds", "1", *arguments)
            self.assertIn(result.status, (OK, FAILED), result.err)  # a goal may be missed here
            self.assertEqual([line["kind"] for line in result.objects], ["bench"])
            schema.check(result.objects[0])

    def test_wrong_use_is_told(self):
        self.check_error(self.plait("bench", "--only", "nothing"), USAGE, "nothing")
        self.check_error(self.plait("bench", "--transport", "pigeon"), USAGE, "shm, unix, tcp")
        self.check_error(self.plait("bench", "now"), USAGE, "now")


class StandardOutput(Case):
    def test_a_full_disk_is_an_error(self):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([PLAIT, "help"], stdout=full, stderr=subprocess.PIPE, env=self.environment,
                                  timeout=PATIENCE)
        self.assertEqual(done.returncode, FAILED)
        self.assertIn(b"plait: standard output: No space left", done.stderr)

    def test_a_closed_one_is_an_error(self):
        done = subprocess.run(["sh", "-c", 'exec "$0" version >&-', PLAIT], stderr=subprocess.PIPE,
                              env=self.environment, timeout=PATIENCE)
        self.assertEqual(done.returncode, FAILED)
        self.assertIn(b"plait: standard output: ", done.stderr)

    def test_a_reader_that_has_gone_is_none(self):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run([PLAIT, "help"], stdout=writing, stderr=subprocess.PIPE, env=self.environment,
                              timeout=PATIENCE)
        os.close(writing)
        self.assertEqual((done.returncode, done.stderr), (OK, b""))

    def test_closed_standard_descriptors_don_t_become_sockets(self):
        process = subprocess.Popen(["sh", "-c", 'exec "$0" serve silent --echo <&- >&- 2>&-', PLAIT],
                                   env=self.environment)
        self.addCleanup(process.wait, PATIENCE)
        self.addCleanup(process.kill)
        self.assertEqual(self.plait("call", "silent", "x").out, b"x")
        self.assertEqual({os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in range(3)}, {"/dev/null"})


if __name__ == "__main__":
    main()
