#!/usr/bin/env python3
"""LightTransfer's lazy layers: which it finds in a model, and how much that depends on the text and on its length.

  bench/quality/lazy_layers.py --tidepool build/release/bin/tidepool --model models/SmolLM2-135M-Instruct.Q4_1.gguf

Runs `tidepool inspect` on the texts of tests/data/quality with the preset as published (half of the layers, no other budget),
and prints for each which layers kept less than all: the lazy ones. Prompts up to the 1,024 tokens that lazy layers keep tell nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DATA = os.path.join(ROOT, "tests", "data", "quality")
CHARACTERS_PER_TOKEN = 4.5  # about, of these texts: a prompt is as long as it comes out


def lazy_layers(arguments, text):
    """(tokens of the prompt, lazy layers, share of all rows that stays)"""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        command = [arguments.tidepool, "inspect", f"--model={arguments.model}", f"--prompt-file={file.name}", "--json", "--out=",
                   "--policy=lighttransfer", "--max-tokens=1", f"--threads={arguments.threads}"]
        data = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    policy, heads = data["policies"][0], data["model"]["kv_heads"]
    kept = policy["heads"]["kept"]
    lazy = [layer for layer in range(data["model"]["layers"]) if sum(kept[layer * heads:(layer + 1) * heads]) < heads * policy["tokens"]]
    return data["prompt_tokens"], lazy, policy["rows"]["kept"] / policy["rows"]["all"]


def prompts(lengths):
    for name in ("gpl-3.txt", "lgpl-2.1.txt", "python-argparse.txt"):
        with open(os.path.join(DATA, name), encoding="utf-8", newline="") as file:
            text = file.read()
        for length in lengths:
            if length * CHARACTERS_PER_TOKEN <= len(text):
                yield name, text[:int(length * CHARACTERS_PER_TOKEN)]
    with open(os.path.join(DATA, "needles.json"), encoding="utf-8") as file:
        for i, needle in enumerate(json.load(file)):
            yield f"needles.json {i + 1}", needle["context"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tidepool", default=os.path.join(ROOT, "build", "release", "bin", "tidepool"))
    parser.add_argument("--model", default=os.path.join(ROOT, "models", "SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--lengths", default="1500,2000,3500,5800,7500")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    found = []
    for name, text in prompts([int(length) for length in arguments.lengths.split(",")]):
        tokens, lazy, kept = lazy_layers(arguments, text)
        found.append(set(lazy))
        print(f"{name:<20} {tokens:>6} tokens, {100 * kept:.1f} % of the rows stay, {len(lazy)} lazy: {' '.join(map(str, lazy))}", flush=True)
    always, ever = set.intersection(*found), set.union(*found)
    print(f"{len(found)} prompts: {len(always)} layers are lazy in all of them: {' '.join(map(str, sorted(always)))}")
    print(f"in some: {' '.join(f'{layer} ({sum(layer in one for one in found)})' for layer in sorted(ever - always))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
