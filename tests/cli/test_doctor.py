"""plait doctor: what it finds where all is well, and in the directories that it must not use."""

import os

import schema
from plaittest import FAILED, OK, Case, main


class Doctor(Case):
    def checks(self, status):
        result = self.plait("doctor", "--json")
        self.assertEqual((result.status, result.err), (status, ""), result.text)
        for line in result.objects:
            schema.check(line)
        return {line["name"]: line for line in result.objects}

    def test_it_calls_by_every_transport(self):
        checks = self.checks(OK)
        for name in ("memory", "pidfd", "eventfd", "inotify", "/dev/shm", "descriptors", "CPUs", "directory"):
            self.assertIn(name, checks)
        for name in ("shm", "unix", "tcp"):
            self.assertEqual(checks[name]["status"], "ok")
            self.assertRegex(checks[name]["detail"], r"median round trip \d+\.\d us")
        self.assertIn("every local user", checks["tcp"]["detail"])

    def test_people_get_a_line_for_each_check(self):
        result = self.plait("doctor")
        self.assertEqual(result.status, OK)
        self.assertRegex(result.text, r"(?m)^ok +shm +\d+ calls")

    def test_it_leaves_nothing_behind(self):
        self.checks(OK)
        self.assertEqual(self.plait("ls", "--json").out, b"")

    def test_a_symbolic_link_as_directory_fails(self):
        os.rmdir(self.runtime)
        os.symlink(self.directory, self.runtime)
        self.assertEqual(self.checks(FAILED)["directory"]["status"], "fail")

    def test_a_directory_that_others_may_write_fails(self):
        os.chmod(self.runtime, 0o777)
        check = self.checks(FAILED)["directory"]
        self.assertEqual(check["status"], "fail")
        self.assertIn("chmod 700", check["advice"])

    def test_somebody_else_s_directory_fails(self):
        if os.getuid() != 0:
            self.skipTest("needs root, to give a directory away")
        os.chown(self.runtime, 65534, 65534)
        check = self.checks(FAILED)["directory"]
        self.assertIn("65534", check["detail"])
        self.assertIn("PLAIT_DIR", check["advice"])

    def test_a_directory_whose_parent_is_missing_fails(self):
        self.environment["PLAIT_DIR"] = "/nowhere/plait"
        self.assertEqual(self.checks(FAILED)["directory"]["status"], "fail")

    def test_few_descriptors_are_warned_of(self):
        import resource
        result = self.plait("doctor", "--json", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)))
        check = {line["name"]: line for line in result.objects}["descriptors"]
        self.assertEqual((result.status, check["status"]), (OK, "warn"))


if __name__ == "__main__":
    main()
