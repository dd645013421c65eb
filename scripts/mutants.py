"""What the scripts that seed bugs share: one thing wrong in a copy of a source, compiled and linked as the build does it,
and a table of what was found. A mutant has name, kind, file, old, new and count, how often `old` stands in the file."""

import argparse
import json
import os
import re
import resource
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(ROOT, "build", "release")
MUTANTS = os.path.join(ROOT, "build", "mutants")


class Fault(Exception):
    """The check itself cannot be done."""


def mutated(mutant, folder=""):
    """The text of the mutant's file, which lies in this folder of the repository."""
    with open(os.path.join(ROOT, folder, mutant.file), encoding="utf-8") as file:
        text = file.read()
    found = text.count(mutant.old)
    if found != mutant.count:
        raise Fault(f"the table is out of date: {mutant.name}: {mutant.file} has this {found} times, not {mutant.count}:\n{mutant.old}")
    return text.replace(mutant.old, mutant.new)


def run(command, what):
    done = subprocess.run(command, cwd=BUILD, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Fault(f"{what}:\n{done.stdout}{done.stderr}")
    return done.stdout


def compile_words(file):
    """The build's command for a source, without what it reads and writes, how it optimises and what it warns of."""
    source = os.path.realpath(os.path.join(ROOT, file))
    with open(os.path.join(BUILD, "compile_commands.json"), encoding="utf-8") as commands:
        command = next((entry["command"] for entry in json.load(commands) if os.path.realpath(entry["file"]) == source), None)
    if command is None:
        raise Fault(f"{BUILD}/compile_commands.json does not know {file}")
    words = [word for word in shlex.split(command) if not re.fullmatch(r"-O\d|-g\d?|-W.*", word)]
    for flag in ("-o", "-c"):
        at = words.index(flag)
        del words[at:at + 2]
    return words


def link_words(target, first_object, out):
    """As the build links it. The object comes first, so that nothing is missing that would be looked for in a library's own."""
    last = run(["ninja", "-t", "commands", target], "ninja").strip().splitlines()[-1]
    words = shlex.split(re.sub(r"^: && | && :$", "", last))
    at = words.index("-o")
    words[at + 1] = out
    first = next(i for i, word in enumerate(words) if word.endswith(".o"))
    return [*words[:first], first_object, *words[first:]]


def print_table(rows):
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip())


def main(script, doc, table, folder, listed, targets, check, check_unchanged):
    """Of a script: `listed` gives a mutant's columns for --list, `targets` those that mutants are linked from. `check` gives
    a mutant and how it was found, empty if it was not; `check_unchanged` raises Fault where the sources as they are fail."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="mutants at once (default: 2)")
    parser.add_argument("--only", metavar="NAME", nargs="+", default=[], help="these mutants and no others")
    parser.add_argument("--list", action="store_true", help="print the mutants; check that each still applies; build nothing")
    parser.add_argument("--json", metavar="FILE", default="", help="also write the results there")
    parser.add_argument("--no-build", action="store_true", help="the tests of build/release are up to date")
    arguments = parser.parse_args()

    names = [mutant.name for mutant in table]
    if len(set(names)) != len(names):
        sys.exit(f"{script}: two mutants have one name")
    unknown = [name for name in arguments.only if name not in names]
    if unknown:
        sys.exit(f"{script}: --only: there is no {' '.join(unknown)}; --list names them all")
    chosen = [mutant for mutant in table if not arguments.only or mutant.name in arguments.only]
    try:
        for mutant in chosen:  # before minutes are spent
            mutated(mutant, folder)
        if arguments.list:
            print_table([listed(mutant) for mutant in chosen])
            return 0
        if not arguments.no_build:
            subprocess.run(["cmake", "--preset", "release", "-Wno-dev"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            subprocess.run(["ninja", "-C", BUILD, *targets(chosen)], check=True, stdout=sys.stderr)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with ThreadPoolExecutor(max(1, arguments.jobs)) as pool:
            try:
                unchanged = pool.submit(check_unchanged, chosen)
                runs = [pool.submit(check, mutant) for mutant in chosen]
                unchanged.result()
                results = [of.result() for of in runs]
            except Fault:
                pool.shutdown(cancel_futures=True)
                raise
    except Fault as fault:
        sys.exit(f"{script}: {fault}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"{script}: {os.path.basename(error.cmd[0])} failed")  # it has said why

    print_table([("mutant", "kind", "file", "found by"),
                 *((mutant.name, mutant.kind, mutant.file, found or "SURVIVES") for mutant, found in results)])
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump([{"name": mutant.name, "kind": mutant.kind, "file": os.path.join(folder, mutant.file), "found": bool(found),
                        "by": found} for mutant, found in results], file, indent=1)
    survivors = sum(not found for _, found in results)
    print(f"{len(results) - survivors} of {len(results)} found")
    return 1 if survivors else 0
