"""Makes the files of this folder: three texts and needles.json. README.md has the format.

    python3 -m venv venv && venv/bin/pip install gguf tokenizers
    venv/bin/python tests/data/quality/make_quality.py models/SmolLM2-135M-Instruct.Q4_1.gguf tests/data/quality

Reads /usr/share/common-licenses (Debian) and this Python's own argparse (3.11.7 was used).
"""

import argparse
import json
import pathlib
import pydoc
import random
import re
import shutil
import sys

import gguf
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

LICENSES = pathlib.Path("/usr/share/common-licenses")
CONTEXT_TOKENS = 2040
DEPTHS = (0.10, 0.35, 0.60, 0.85)
# Where the haystack comes from (file, first paragraph) and what the needles are about.
CONTEXTS = [
    ("GPL-3", 1, ("Lisbon", "Nairobi", "Oslo", "Lima")),
    ("LGPL-2.1", 1, ("Vienna", "Cairo", "Dublin", "Seoul")),
    ("Apache-2.0", 0, ("Madrid", "Quito", "Athens", "Hanoi")),
    ("GPL-3", 45, ("Prague", "Accra", "Berlin", "Tokyo")),
]
OPENING = "<|im_start|>user\nRead this text and remember the facts in it.\n\n"
CLOSING = "<|im_end|>\n<|im_start|>assistant\nI have read the text.<|im_end|>\n"
# Ends with a space: this tokenizer splits digits off first, so question and answer can be encoded apart.
QUESTION = ("<|im_start|>user\nWhat is the special magic number for {name}?<|im_end|>\n"
            "<|im_start|>assistant\nThe special magic number for {name} is: ")
NEEDLE = "One of the special magic numbers for {name} is: {answer}."


def tokenizer_of(path):
    reader = gguf.GGUFReader(path)
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    types = reader.fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in reader.fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    special = [token for token, kind in zip(tokens, types) if kind == gguf.TokenType.CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return lambda text: tokenizer.encode(text).ids


def paragraphs(name, first):
    """Unwrapped, without the headings."""
    text = (LICENSES / name).read_text()
    unwrapped = [re.sub(r"\s+", " ", part).strip() for part in re.split(r"\n\s*\n", text)]
    return [part for part in unwrapped if len(part) > 40][first:]


def context_text(parts):
    return OPENING + "\n\n".join(parts) + CLOSING


def with_needles(hay, needles):
    """The needles as paragraphs of their own, at DEPTHS of the characters of `hay`."""
    begins = [sum(map(len, hay[:i])) for i in range(len(hay) + 1)]
    places = [min(range(1, len(hay)), key=lambda i: abs(begins[i] - depth * begins[-1])) for depth in DEPTHS]
    parts = list(hay)
    for place, needle in reversed(list(zip(places, needles))):
        parts.insert(place, needle)
    return parts


def fill(source, needles, encode):
    """As many words of `source` as fit into CONTEXT_TOKENS."""
    words = [(i, word) for i, part in enumerate(source) for word in part.split(" ")]

    def text(count):
        hay = {}
        for i, word in words[:count]:
            hay.setdefault(i, []).append(word)
        return context_text(with_needles([" ".join(part) for part in hay.values()], needles))

    low, high = 100, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(encode(text(middle))) <= CONTEXT_TOKENS else (low, middle - 1)
    return text(low)


def make_needles(encode):
    rng = random.Random(20)
    contexts = []
    for name, first, subjects in CONTEXTS:
        answers = [str(rng.randrange(10000, 100000)) for _ in subjects]
        needles = [NEEDLE.format(name=s, answer=a) for s, a in zip(subjects, answers)]
        context = fill(paragraphs(name, first), needles, encode)
        questions = [{"question": QUESTION.format(name=s), "answer": a} for s, a in zip(subjects, answers)]
        contexts.append({"haystack": name, "context": context, "context_tokens": len(encode(context)),
                         "questions": questions})
        for q in questions:
            assert encode(q["question"] + q["answer"]) == encode(q["question"]) + encode(q["answer"])
            assert encode(context + q["question"]) == encode(context) + encode(q["question"])
            assert len(encode(q["answer"])) == 5 and context.count(q["answer"]) == 1
    return contexts


def argparse_reference():
    text = pydoc.plain(pydoc.render_doc(argparse))
    text = text[text.index("DESCRIPTION"):text.index("\nFILE\n")]
    return "\n".join(line.rstrip() for line in text.splitlines()[:400]) + "\n"


def main():
    encode, out = tokenizer_of(sys.argv[1]), pathlib.Path(sys.argv[2])
    shutil.copyfile(LICENSES / "GPL-3", out / "gpl-3.txt")
    shutil.copyfile(LICENSES / "LGPL-2.1", out / "lgpl-2.1.txt")
    (out / "python-argparse.txt").write_text(argparse_reference())
    for path in sorted(out.glob("*.txt")):
        print(path.name, len(encode(path.read_text())), "tokens")
    contexts = make_needles(encode)
    (out / "needles.json").write_text(json.dumps(contexts, indent=1, ensure_ascii=False) + "\n")
    for context in contexts:
        print("needles in", context["haystack"], context["context_tokens"], "tokens")


if __name__ == "__main__":
    main()
