"""The tables of seeded bugs fit the sources: each mutant's text stands there, and its test is one of the build's."""

import os
import re
import subprocess
import sys
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def run(script, *arguments):
    return subprocess.run([sys.executable, os.path.join(ROOT, "scripts", script), *arguments], capture_output=True, text=True, check=False)


class MutantsTest(unittest.TestCase):
    def test_every_cache_mutant_still_applies_and_there_are_ten(self):
        listed = run("cache-mutants", "--list")
        self.assertEqual(listed.returncode, 0, listed.stderr)
        self.assertGreaterEqual(len(listed.stdout.splitlines()), 10)

    def test_the_tests_that_are_to_find_them_exist(self):
        tests = {line.split()[-1] for line in run("cache-mutants", "--list").stdout.splitlines()}
        lists = ""
        for folder, _, files in os.walk(os.path.join(ROOT, "tests")):
            if "CMakeLists.txt" in files:
                with open(os.path.join(folder, "CMakeLists.txt"), encoding="utf-8") as file:
                    lists += file.read()
        for test in tests:
            self.assertRegex(lists, rf"tidepool_test\({re.escape(test)}\b")

    def test_an_unknown_name_is_refused(self):
        refused = run("cache-mutants", "--only", "no-such-bug")
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("no-such-bug", refused.stderr)


if __name__ == "__main__":
    unittest.main()
