"""The documents: their links lead somewhere, and docs/command.md knows every verb and option that there is."""

import os
import re
import subprocess
import unittest

from plaittest import PATIENCE, PLAIT, SOURCE, main


def read(*path):
    with open(os.path.join(SOURCE, *path)) as file:
        return file.read()


class Docs(unittest.TestCase):
    def help(self, *page):
        return subprocess.run([PLAIT, "help", *page], stdout=subprocess.PIPE, timeout=PATIENCE, check=True).stdout.decode()

    def test_every_link_leads_to_a_file(self):
        documents = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
        for folder, _, names in os.walk(os.path.join(SOURCE, "docs")):
            documents += [os.path.relpath(os.path.join(folder, name), SOURCE) for name in names if name.endswith(".md")]
        for document in documents:
            prose = re.sub(r"(?ms)^```.*?^```$|`[^`\n]*`", "", read(document))  # a lambda looks like a link
            for target in re.findall(r"\]\(([^)#]+)[^)]*\)", prose):
                if "://" not in target:
                    path = os.path.join(SOURCE, os.path.dirname(document), target)
                    self.assertTrue(os.path.exists(path), f"{document}: {target}")

    def test_every_verb_and_option_is_described(self):
        text = read("docs", "command.md")
        verbs = re.findall(r"(?m)^  plait (\w+) ", self.help().split("Also:")[0])
        self.assertGreaterEqual(len(verbs), 7)
        for verb in verbs:
            self.assertIn(f"plait {verb}", text)
            if verb == "bench":
                continue  # docs/benchmarks.md
            for option in re.findall(r"(?m)^  (--[a-z-]+)", self.help(verb)):
                if option != "--help":
                    self.assertIn(option, text, verb)

    def test_every_variable_of_the_environment_is_described(self):
        text = read("docs", "command.md")
        for variable in re.findall(r"(?m)^  ([A-Z_]+) ", self.help("environment")):
            self.assertIn(variable, text)

    def test_limits_are_documented_with_the_values_that_they_have(self):
        header, text = read("cli", "runner.h"), read("docs", "command.md")
        for name, words in (("RUNNER_COMMANDS_MAX", "64 commands"), ("RUNNER_ERROR_MAX", "4 KiB"),
                            ("RUNNER_OUTPUT_MAX", "1 GiB"), ("RUNNER_HELD_MAX", "2 GiB")):
            self.assertIn(name, header)
            self.assertIn(name, text)
            self.assertIn(words, text)
        self.assertRegex(header, r"RUNNER_COMMANDS_MAX 64\b")
        self.assertRegex(header, r"RUNNER_ERROR_MAX 4096\b")


if __name__ == "__main__":
    main()
