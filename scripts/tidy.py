#!/usr/bin/env python3
"""Checks the house rules that have one right answer (docs/development.md) over the files that git tracks.

  scripts/tidy.py            exit status 1 and one line `path:line: what is wrong` for each finding
  scripts/tidy.py --report   also prints sizes, which nobody fails

Formatting is clang-format's, bugs are clang-tidy's (scripts/clang-tidy); this is about the shape of the repository.
"""

import os
import re
import statistics
import subprocess
import sys
import unicodedata
from dataclasses import dataclass

MAX_SOURCE_LINES = 600
MAX_FILE_BYTES = 1 << 20  # anything larger belongs in a package or is made by a script
LARGE_FILES = ("tests/data/",)
CXX = (".h", ".cc", ".cu", ".cuh")
TEXT = CXX + (".py", ".md", ".txt", ".cmake", ".proto", ".json", ".yaml", ".textproto", "")


@dataclass(frozen=True)
class Finding:
    path: str
    line: int
    what: str

    def __str__(self):
        return f"{self.path}:{self.line}: {self.what}"


# --- Who may include what ---------------------------------------------------------------------------------------------

# Folder of the includer -> folders of ours that it may include. The longest matching prefix counts; a folder may always
# include itself. Folders that are not listed (tests, bench) may include everything.
MAY_INCLUDE = {
    "base/": (),
    "security/": ("base/",),
    "security/rpc/": ("base/", "security/"),
    "policies/": ("base/",),
    "proto/": ("base/", "policies/"),
    "metrics/": ("base/",),
    "tracing/": ("base/",),
    "cacheservice/api/": ("base/", "policies/"),
    "cacheservice/resp/": ("base/",),
    "cacheservice/tiers/": ("base/", "policies/", "cacheservice/api/", "cacheservice/rocksdb/", "cacheservice/resp/"),
    "cacheservice/manifests/": ("base/", "policies/", "cacheservice/api/", "cacheservice/rocksdb/"),
    "cacheservice/replay/": ("base/", "cacheservice/tiers/"),
    "cacheservice/shards/": ("base/", "policies/", "cacheservice/api/", "cacheservice/remote/"),
    "cacheservice/": ("base/", "security/", "policies/", "proto/", "cacheservice/"),
    "worker/kernels/": ("base/", "policies/", "worker/model/tensor_view.h"),
    "worker/model/": ("base/", "policies/", "worker/kernels/"),
    "worker/": ("base/", "policies/", "cacheservice/api/", "worker/"),
    "cacheservice/rpc/": ("base/", "security/", "policies/", "proto/", "metrics/", "cacheservice/"),
    "worker/rpc/": ("base/", "security/", "policies/", "proto/", "metrics/", "tracing/", "cacheservice/api/", "worker/"),
    "client/": ("base/", "security/", "proto/"),
    "client/http/": ("base/", "security/", "proto/", "tracing/trace_context.h", "client/"),
    "client/cli/": ("base/", "security/", "policies/", "proto/", "metrics/", "cacheservice/", "worker/", "client/"),
}
OURS = ("base/", "security/", "policies/", "proto/", "metrics/", "tracing/", "cacheservice/", "worker/", "client/", "tests/", "bench/")

# Packages -> the folders whose files may include them. tests/ and bench/ may include everything.
PACKAGES = {
    "gRPC": (re.compile(r"^(grpc|grpcpp|grpc\+\+)/|\.grpc\.pb\.h$"),
             ("security/rpc/", "proto/", "cacheservice/wire/payload_", "cacheservice/rpc/", "cacheservice/remote/", "worker/rpc/",
              "client/")),
    "protobuf": (re.compile(r"^google/|\.pb\.h$"),
                 ("security/rpc/", "proto/", "cacheservice/wire/", "cacheservice/rpc/", "cacheservice/remote/", "worker/rpc/", "client/")),
    "RocksDB": (re.compile(r"^rocksdb/"), ("cacheservice/tiers/rocksdb_", "cacheservice/manifests/rocksdb_",
                                           "cacheservice/rocksdb/")),
    "hiredis": (re.compile(r"^hiredis/"), ("cacheservice/resp/",)),
    "Highway": (re.compile(r"^hwy/"), ("worker/kernels/",)),
    "the CUDA runtime": (re.compile(r"^(cuda|cublas)"), ("worker/kernels/cuda/",)),
    "Prometheus": (re.compile(r"^prometheus/"), ("metrics/",)),
    "JSON": (re.compile(r"^nlohmann/"), ("cacheservice/replay/", "client/", "tracing/", "worker/rpc/")),
    "Boost": (re.compile(r"^boost/"), ("client/http/http_", "tracing/otlp_endpoint")),
}

# Policies are pure: what they need of the outside comes in as an argument.
IMPURE = re.compile(r"^(thread|mutex|shared_mutex|condition_variable|future|atomic|chrono|fstream|filesystem|iostream|random"
                    r"|ctime|unistd\.h|base/mutex\.h|base/log\.h|base/background\.h)$")

INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]')


def is_main(path):
    """Mains wire processes together, so they see everything."""
    return re.search(r"(^|/|_)main\.cc$", path) is not None


def includes(text):
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match.group(1)


def check_includes(path, text):
    if path.startswith(("tests/", "bench/")) or is_main(path):
        return
    own = max((folder for folder in MAY_INCLUDE if path.startswith(folder)), key=len, default=None)
    for number, target in includes(text):
        if own is not None and target.startswith(OURS) and not target.endswith(".pb.h"):
            if not target.startswith((own,) + MAY_INCLUDE[own]):
                yield Finding(path, number, f"{own} must not include {target} (scripts/tidy.py, MAY_INCLUDE)")
        for package, (pattern, folders) in PACKAGES.items():
            if pattern.search(target) and not path.startswith(folders):
                yield Finding(path, number, f"{package} must not be included here: {target}")
        if path.startswith("policies/") and IMPURE.match(target):
            yield Finding(path, number, f"policies are pure: no threads, clocks, files or logs: {target}")


def check_cycles(files):
    """`files`: path -> text of every C++ file. Reports each header that includes itself over others."""
    graph = {path: [t for _, t in includes(text) if t in files] for path, text in files.items() if path.endswith(".h")}
    done, stack = set(), []

    def visit(path):
        if path in stack:
            yield Finding(path, 1, "include cycle: " + " -> ".join(stack[stack.index(path):] + [path]))
        elif path not in done:
            stack.append(path)
            for target in graph.get(path, ()):
                yield from visit(target)
            stack.pop()
            done.add(path)

    for path in sorted(graph):
        yield from visit(path)


# --- One file at a time -----------------------------------------------------------------------------------------------

def code_of(text):
    """The text with comments and literals blanked out, line for line."""
    token = re.compile(r'R"(\w*)\((?:.|\n)*?\)\1"|//[^\n]*|/\*(?:.|\n)*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'')

    def blank(match):
        before = match.string[match.start() - 1:match.start()]
        if match.group().startswith("'") and before.isalnum():  # a digit separator, as in 10'000
            return match.group()
        return re.sub(r"[^\n]", " ", match.group())

    return token.sub(blank, text)


def check_guard(path, text):
    if not path.endswith(".h"):
        return
    guard = "TIDEPOOL_" + re.sub(r"[^A-Za-z0-9]", "_", path).upper() + "_"
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith("#")), 0)
    if lines[start:start + 2] != [f"#ifndef {guard}", f"#define {guard}"]:
        yield Finding(path, start + 1, f"the include guard must be {guard}")
    if not lines or not lines[0].startswith("//"):
        yield Finding(path, 1, "a header opens with a comment: what it is, who owns, which threads")


BANNED = (
    (re.compile(r"\busing\s+namespace\b"), "no `using namespace`", ""),
    (re.compile(r"\bthrow\b"), "we throw nothing: return absl::Status, or TIDEPOOL_CHECK", "tests/"),
    (re.compile(r"\b(absl::Mutex|std::mutex|absl::MutexLock|std::lock_guard|std::unique_lock)\b"),
     "the lock is base/mutex.h (docs/decisions/0002-mutex.md)", "base/mutex.h tests/ bench/"),
    (re.compile(r"\bassert\s*\("), "TIDEPOOL_CHECK (base/check.h) instead of assert", ""),
)
SLEEP = re.compile(r"\b(sleep_for|sleep_until|SleepFor|usleep|nanosleep|sleep)\s*\(")


def check_banned(path, text):
    for number, line in enumerate(code_of(text).splitlines(), 1):
        for pattern, what, exempt in BANNED:
            if pattern.search(line) and not path.startswith(tuple(exempt.split())):
                yield Finding(path, number, what)
        if path.startswith("tests/") and SLEEP.search(line):
            yield Finding(path, number, "tests do not sleep: wait for the event, or pass a clock in")


def check_markers(path, text):
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(r"\bTO" r"DO\b(?!\(#\d+\))", line):
            yield Finding(path, number, "a TO" "DO names an issue: TO" "DO(#12)")
        if re.search(r"\b(FIX" r"ME|X" r"XX|HA" r"CK)\b", line):
            yield Finding(path, number, "an unfinished marker; finish it, or name an issue: TO" "DO(#12)")


def check_language(path, text):
    """Everything is written in English; foreign text is data, and data of tests."""
    if path.startswith("tests/") or text.isascii():
        return
    for number, line in enumerate(text.splitlines(), 1):
        for char in line:
            if ord(char) > 127 and unicodedata.category(char).startswith("L"):
                if not unicodedata.name(char, "").startswith(("LATIN", "GREEK", "MATHEMATICAL", "SUPERSCRIPT", "MODIFIER")):
                    yield Finding(path, number, f"not English: {unicodedata.name(char, hex(ord(char)))}")
                    break


def check_whitespace(path, text):
    if text and not text.endswith("\n"):
        yield Finding(path, text.count("\n") + 1, "no line end at the end of the file")
    for number, line in enumerate(text.splitlines(), 1):
        if line != line.rstrip():
            yield Finding(path, number, "blanks at the end of the line")
        if "\t" in line:
            yield Finding(path, number, "tab")


def check_length(path, text):
    lines = text.count("\n")
    if lines > MAX_SOURCE_LINES:
        yield Finding(path, lines, f"{lines} lines, at most {MAX_SOURCE_LINES}: split it by idea")


# --- The tree ---------------------------------------------------------------------------------------------------------

def check_listed(files):
    """Every source is built: some CMakeLists names it, by its path from there."""
    listed = set()
    for path, text in files.items():
        if os.path.basename(path) == "CMakeLists.txt":
            for name in re.findall(r"[\w./+-]+\.(?:cc|cu)\b", text):
                listed.add(os.path.normpath(os.path.join(os.path.dirname(path), name)))
    for path in sorted(files):
        if path.endswith((".cc", ".cu")) and path not in listed:
            yield Finding(path, 1, "no CMakeLists.txt lists this file")


def check_links(root, files):
    """Links between pages lead somewhere. Code is not looked at."""
    for path, text in files.items():
        if not path.endswith(".md"):
            continue
        text = re.sub(r"^```.*?^```|`[^`\n]*`", lambda code: re.sub(r"[^\n]", " ", code.group()), text, flags=re.M | re.S)
        for number, line in enumerate(text.splitlines(), 1):
            for target in re.findall(r"\]\(([^)#\s]+)", line):
                full = os.path.join(root, os.path.dirname(path), target)
                if "://" not in target and not os.path.exists(full):
                    yield Finding(path, number, f"link to {target}, which does not exist")


def check_modes(root, paths):
    for path in paths:
        full = os.path.join(root, path)
        if os.path.islink(full):
            continue
        with open(full, "rb") as file:
            script = file.read(2) == b"#!"
        executable = os.access(full, os.X_OK)
        if script != executable:
            yield Finding(path, 1, "starts with #! but is not executable" if script else "executable, but not a script")
        size = os.path.getsize(full)
        if size > MAX_FILE_BYTES and not path.startswith(LARGE_FILES):
            yield Finding(path, 1, f"{size} bytes, at most {MAX_FILE_BYTES}")


PER_FILE = {
    "c++": (check_includes, check_guard, check_banned, check_length),
    "text": (check_markers, check_language, check_whitespace),
}


def tracked(root):
    out = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True)
    if out.returncode == 0:
        paths = [path for path in out.stdout.split("\0") if path]
    else:  # an exported tree
        paths = [os.path.relpath(os.path.join(folder, name), root) for folder, folders, names in os.walk(root)
                 for name in names if not re.search(r"/(build[^/]*|models|\.\w[^/]*)(/|$)", folder + "/")]
    return sorted(path for path in paths if os.path.isfile(os.path.join(root, path)))


def check(root):
    paths = tracked(root)
    texts = {}
    for path in paths:
        if os.path.splitext(path)[1] in TEXT and not path.startswith("tests/data/"):
            try:
                with open(os.path.join(root, path), encoding="utf-8") as file:
                    texts[path] = file.read()
            except UnicodeDecodeError:
                if path.endswith(CXX):
                    yield Finding(path, 1, "not UTF-8")
    for path, text in texts.items():
        for rule in PER_FILE["text"]:
            if path != "LICENSE":
                yield from rule(path, text)
        if path.endswith(CXX):
            for rule in PER_FILE["c++"]:
                yield from rule(path, text)
    yield from check_cycles({path: text for path, text in texts.items() if path.endswith(CXX)})
    yield from check_listed(texts)
    yield from check_links(root, texts)
    yield from check_modes(root, paths)


def report(root):
    def sizes(select):
        counts = []
        for path in tracked(root):
            if path.endswith(CXX) and select(path):
                with open(os.path.join(root, path), encoding="utf-8") as file:
                    counts.append((sum(1 for _ in file), path))
        return sorted(counts)

    for name, select in (("sources", lambda p: not p.startswith(("tests/", "bench/"))),
                         ("tests", lambda p: p.startswith("tests/")), ("benchmarks", lambda p: p.startswith("bench/"))):
        counts = sizes(select)
        if counts:
            lines = [count for count, _ in counts]
            print(f"{name}: {len(lines)} files, {sum(lines)} lines; median {statistics.median(lines):.0f}, "
                  f"90th percentile {lines[int(len(lines) * 0.9)]}, longest {counts[-1][1]} ({lines[-1]})")


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    findings = list(check(root))
    for finding in findings:
        print(finding)
    if "--report" in sys.argv[1:]:
        report(root)
    print(f"tidy: {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
