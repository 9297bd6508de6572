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

    def test_every_limit_has_its_row_its_value_and_an_error_that_names_it(self):
        table = re.findall(r"(?m)^\| `(PLA?I?T?_\w+)` \| (\d+) \| .* \| (.*) \|$", read("docs", "limits.md"))
        rows = {name: (int(value), beyond) for name, value, beyond in table}
        sources = {}
        for top in ("include", "src"):
            for folder, _, names in os.walk(os.path.join(SOURCE, top)):
                for name in names:
                    if name.endswith((".c", ".h")) and not name.startswith("test_"):
                        sources[os.path.join(folder, name)] = read(folder, name)
        headers = "\n".join(text for path, text in sources.items() if path.endswith(".h"))
        code = "\n".join(text for path, text in sources.items() if path.endswith(".c"))
        public = re.findall(r"#define (PLAIT_\w+_MAX|PLAIT_ARRAY_DIMENSIONS) ", headers)
        self.assertGreaterEqual(len(public), 11)
        self.assertLessEqual(set(public), set(rows))
        for name, (value, beyond) in rows.items():
            with self.subTest(name):
                found = re.search(rf"(?:#define {name} |\b{name} = )(1 << \d+|0x[0-9a-f]+|\d+)", headers).group(1)
                shift = re.match(r"1 << (\d+)", found)
                self.assertEqual(1 << int(shift.group(1)) if shift else int(found, 0), value)
                if beyond.startswith("`-E") or "`-ENOBUFS`" in beyond:
                    self.assertRegex(code, rf'"[^"\n]*\b{name}\b', "no error names it")

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
