#!/usr/bin/env python3
"""Tests of scripts/tidy.py: each rule finds what it is for, and passes what is right."""

import os
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "scripts"))
import tidy  # noqa: E402


def findings(rule, path, text):
    return [finding.line for finding in rule(path, text)]


def include(target):
    return f'#include "{target}"\n'


class Includes(unittest.TestCase):
    def refused(self, path, target):
        self.assertEqual(findings(tidy.check_includes, path, include(target)), [1], f"{path} -> {target}")

    def allowed(self, path, target):
        self.assertEqual(findings(tidy.check_includes, path, include(target)), [], f"{path} -> {target}")

    def test_a_folder_includes_only_folders_below_it(self):
        self.refused("policies/kv/a.h", "worker/engine/engine.h")
        self.refused("policies/kv/a.h", "cacheservice/api/block_cache.h")
        self.refused("cacheservice/rpc/a.cc", "worker/engine/engine.h")
        self.refused("base/a.h", "policies/kv/block_key.h")
        self.allowed("cacheservice/rpc/a.cc", "cacheservice/tiers/tier_stack.h")
        self.allowed("policies/kv/a.h", "base/check.h")

    def test_a_worker_sees_only_the_api_of_the_cache_service_but_its_main_sees_all(self):
        self.refused("worker/engine/a.cc", "cacheservice/tiers/memory_tier.h")
        self.refused("worker/rpc/a.cc", "cacheservice/remote/remote_block_cache.h")
        self.allowed("worker/kv/a.cc", "cacheservice/api/block_cache.h")
        self.allowed("worker/rpc/main.cc", "cacheservice/remote/remote_block_cache.h")

    def test_packages_stay_in_their_folders(self):
        self.refused("policies/kv/a.cc", "rocksdb/db.h")
        self.refused("worker/engine/a.cc", "grpcpp/grpcpp.h")
        self.refused("worker/engine/a.cc", "proto/tidepool/v1/generation.pb.h")
        self.refused("cacheservice/tiers/memory_tier.cc", "rocksdb/db.h")
        self.refused("worker/model/a.cc", "hwy/highway.h")
        self.allowed("cacheservice/tiers/rocksdb_tier.cc", "rocksdb/db.h")
        self.allowed("worker/rpc/a.cc", "grpcpp/grpcpp.h")
        self.allowed("worker/kernels/cpu/a.cc", "hwy/highway.h")

    def test_policies_use_no_threads_clocks_or_files(self):
        for header in ("thread", "chrono", "fstream", "base/mutex.h"):
            self.refused("policies/tier/a.cc", header)
        self.allowed("policies/tier/a.cc", "vector")

    def test_a_cycle_is_found(self):
        files = {"base/a.h": include("base/b.h"), "base/b.h": include("base/c.h"), "base/c.h": include("base/a.h")}
        self.assertEqual(len(list(tidy.check_cycles(files))), 1)
        files["base/c.h"] = ""
        self.assertEqual(list(tidy.check_cycles(files)), [])


class Files(unittest.TestCase):
    def test_the_guard_is_the_path(self):
        good = "// What.\n#ifndef TIDEPOOL_BASE_CHECK_H_\n#define TIDEPOOL_BASE_CHECK_H_\n#endif\n"
        self.assertEqual(findings(tidy.check_guard, "base/check.h", good), [])
        self.assertEqual(findings(tidy.check_guard, "base/other.h", good), [2])
        self.assertEqual(findings(tidy.check_guard, "base/check.h", "// What.\n#pragma once\n"), [2])

    def test_a_header_opens_with_a_comment(self):
        self.assertEqual(findings(tidy.check_guard, "base/a.h", "#ifndef TIDEPOOL_BASE_A_H_\n#define TIDEPOOL_BASE_A_H_\n"), [1])

    def test_banned_words_are_found_in_code_and_not_in_comments_or_strings(self):
        code = "// using namespace std; throw\nusing namespace std;\nauto s = \"throw\";\nthrow 1;\nint n = 10'000; throw 2;\n"
        self.assertEqual(findings(tidy.check_banned, "worker/a.cc", code), [2, 4, 5])

    def test_tests_do_not_sleep(self):
        code = "std::this_thread::sleep_for(x);\n"
        self.assertEqual(findings(tidy.check_banned, "tests/a_test.cc", code), [1])
        self.assertEqual(findings(tidy.check_banned, "worker/a.cc", code), [])

    def test_a_marker_names_an_issue(self):
        word = "TO" "DO"
        self.assertEqual(findings(tidy.check_markers, "a.cc", f"// {word}: later\n// {word}(#7): later\n"), [1])

    def test_foreign_letters_are_found_and_greek_formulas_and_arrows_are_not(self):
        self.assertEqual(findings(tidy.check_language, "a.cc", "// \u0441\u043b\u043e\u0439\n"), [1])
        self.assertEqual(findings(tidy.check_language, "a.cc", "// \u03b1 \u2264 \u03b2 \u2192 caf\u00e9\n"), [])

    def test_long_files_are_found(self):
        self.assertEqual(findings(tidy.check_length, "a.cc", "\n" * tidy.MAX_SOURCE_LINES), [])
        self.assertEqual(len(findings(tidy.check_length, "a.cc", "\n" * (tidy.MAX_SOURCE_LINES + 1))), 1)

    def test_blanks_tabs_and_a_missing_line_end_are_found(self):
        self.assertEqual(findings(tidy.check_whitespace, "a.md", "a \n\tb\nc"), [3, 1, 2])


class Tree(unittest.TestCase):
    def test_a_source_that_no_list_names_is_found(self):
        files = {"base/CMakeLists.txt": "SRCS log.cc sub/x.cc ../other/y.cc", "base/log.cc": "", "base/sub/x.cc": "",
                 "other/y.cc": "", "base/og.cc": ""}
        self.assertEqual([finding.path for finding in tidy.check_listed(files)], ["base/og.cc"])

    def test_a_link_that_leads_nowhere_is_found(self):
        with tempfile.TemporaryDirectory() as root:
            os.makedirs(os.path.join(root, "docs"))
            text = "[a](../docs) [b](https://example.org/x)\n[c](missing.md#part)\n`[](x)`\n```cpp\n[](int)\n```\n"
            found = tidy.check_links(root, {"docs/page.md": text, "docs/a.cc": "[d](missing.md)"})
            self.assertEqual([(finding.path, finding.line) for finding in found], [("docs/page.md", 2)])

    def test_a_tree_is_checked_from_end_to_end(self):
        with tempfile.TemporaryDirectory() as root:
            subprocess.run(["git", "init", "-q", root], check=True)
            os.makedirs(os.path.join(root, "base"))
            for path, text in {"base/CMakeLists.txt": "SRCS a.cc\n", "base/a.cc": "int a;\n", "run": "#!/bin/sh\n"}.items():
                with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                    file.write(text)
            subprocess.run(["git", "add", "."], cwd=root, check=True)
            self.assertEqual([str(f) for f in tidy.check(root)], ["run:1: starts with #! but is not executable"])
            os.chmod(os.path.join(root, "run"), 0o755)
            self.assertEqual(list(tidy.check(root)), [])


if __name__ == "__main__":
    unittest.main()
