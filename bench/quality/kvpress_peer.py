#!/usr/bin/env python3
"""The texts and needles of quality_report through NVIDIA's kvpress, without recall: the same cells.

  python3 -m venv build/kvpress && build/kvpress/bin/pip install torch kvpress gguf       # several GB
  build/kvpress/bin/python bench/quality/kvpress_peer.py --json FILE [--budgets 0.2,0.1] [--texts 3] [--contexts 4]
    [--questions unknown,visible]

kvpress compresses in the forward pass over the context. What follows is fed in one pass, but token by token where a press
leaves heads or layers with different rows: one causal mask is then wrong for most layers, and head-wise masking is exact for
few queries only. Weights: those of the GGUF, in float32.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DATA = os.path.join(ROOT, "tests", "data", "quality")
sys.path.insert(0, DATA)

import kvpress  # noqa: E402
import torch  # noqa: E402
from make_quality import tokenizer_of  # noqa: E402
from transformers import AutoModelForCausalLM, DynamicCache  # noqa: E402
from transformers.utils import logging  # noqa: E402

LENGTH, SCORED = 2048, 128
UNEVEN = ("pyramidkv", "ada-snapkv")

# Our preset's name -> kvpress's version of it, for a share of rows that go. Defaults are kvpress's own.
PRESSES = {
    "snapkv": lambda ratio: kvpress.SnapKVPress(ratio),
    "streaming": lambda ratio: kvpress.StreamingLLMPress(ratio),
    "tova": lambda ratio: kvpress.TOVAPress(ratio),
    "pyramidkv": lambda ratio: kvpress.PyramidKVPress(ratio),
    "ada-snapkv": lambda ratio: kvpress.AdaKVPress(kvpress.SnapKVPress(ratio)),
    "expected-attention": lambda ratio: kvpress.ExpectedAttentionPress(ratio),
}


class Peer:
    def __init__(self, path, threads):
        logging.disable_progress_bar()
        torch.set_grad_enabled(False)
        torch.set_num_threads(threads)
        self.encode = tokenizer_of(path)
        folder, name = os.path.split(path)
        self.model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()

    def compress(self, context, press):
        cache = DynamicCache()
        with press(self.model) if press else contextlib.nullcontext():
            hidden = self.model.model(input_ids=torch.tensor([context]), past_key_values=cache).last_hidden_state
        return cache, self.model.lm_head(hidden[0, -1:])

    def score(self, cache, position, fed, scored, at_once, newest=None):
        """Feeds `fed` and then `scored`, at positions from `position` on. newest: logits of the context's last token, which
        say the first of `scored` where nothing is fed. Returns (nats, first) of each scored token. The cache is afterwards
        as it was."""
        lengths = [layer.keys.shape[2] for layer in cache.layers]
        tokens = fed + scored
        steps = [(0, len(tokens) - 1)] if at_once else [(i, i + 1) for i in range(len(tokens) - 1)]
        rows = [self.model(input_ids=torch.tensor([tokens[begin:end]]), past_key_values=cache,
                           position_ids=torch.arange(position + begin, position + end)[None]).logits[0]
                for begin, end in steps]
        rows = torch.cat(rows)[len(fed) - 1:] if fed else torch.cat([newest] + rows)
        for layer, length in zip(cache.layers, lengths):
            layer.keys, layer.values = layer.keys[:, :, :length], layer.values[:, :, :length]
        return [(float(row.logsumexp(-1) - row[target]), int(row.argmax()) == target) for row, target in zip(rows, scored)]


def losses_of(peer, new_press, texts, at_once):
    """nll of each text's continuation."""
    losses = []
    for ids in texts:
        context = ids[:LENGTH - SCORED]
        cache, _ = peer.compress(context[:-1], new_press())
        scored = peer.score(cache, len(context) - 1, context[-1:], ids[LENGTH - SCORED:LENGTH], at_once)
        losses.append(sum(nats for nats, _ in scored) / len(scored))
    return losses


def answers_of(peer, new_press, needles, visible, at_once):
    """(nats, first) of each token of each answer. visible: the question is in what is compressed."""
    answers = []
    for needle in needles:
        context = peer.encode(needle["context"])
        if not visible:
            cache, _ = peer.compress(context, new_press())
        for question in needle["questions"]:
            asked, answer = peer.encode(question["question"]), peer.encode(question["answer"])
            if visible:
                cache, newest = peer.compress(context + asked, new_press())
                answers.append(peer.score(cache, len(context) + len(asked), [], answer, at_once, newest))
            else:
                answers.append(peer.score(cache, len(context), asked, answer, at_once))
    return answers


def standard_error(values):
    return statistics.stdev(values) / len(values)**0.5 if len(values) > 1 else 0


def cell_of(name, budget, suite, metrics, items, seconds):
    return {"preset": name, "budget": budget, "recall": "off", "suite": suite, "length": LENGTH, "metrics": metrics,
            "items": items, "resident": budget, "index": 0, "index_on_device": False, "staged_bytes": 0, "recalled_rows": 0,
            "rows_per_step": 0, "late_rows": 0, "lost_rows": 0, "degraded": False, "seconds": seconds}


def text_cell(name, budget, losses, full_losses, seconds):
    items = [a - b for a, b in zip(losses, full_losses)]
    metrics = {"texts": len(losses), "nll": statistics.fmean(losses), "loss": statistics.fmean(items),
               "loss_error": standard_error(items)}
    return cell_of(name, budget, "text", metrics, items, seconds)


def needle_cell(name, budget, question, answers, seconds):
    tokens = [token for answer in answers for token in answer]
    items = [statistics.fmean(nats for nats, _ in answer) for answer in answers]
    metrics = {"questions": len(answers), "nll": sum(t[0] for t in tokens) / len(tokens), "nll_error": standard_error(items),
               "first": sum(t[1] for t in tokens) / len(tokens),
               "exact": sum(all(t[1] for t in answer) for answer in answers) / len(answers)}
    return cell_of(name, budget, "multi-" + question, metrics, items, seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = os.environ.get("TIDEPOOL_MODEL_DIR", os.path.join(ROOT, "models"))
    parser.add_argument("--model", default=os.path.join(models, "SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--json", required=True)
    parser.add_argument("--presets", default=",".join(PRESSES))
    parser.add_argument("--budgets", default="0.2,0.1")
    parser.add_argument("--texts", type=int, default=3, help="0: none")
    parser.add_argument("--contexts", type=int, default=4)
    parser.add_argument("--questions", default="unknown", help="unknown and visible when the context is compressed")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    peer = Peer(arguments.model, arguments.threads)
    texts = []
    for file in ("gpl-3.txt", "lgpl-2.1.txt", "python-argparse.txt")[:arguments.texts]:
        with open(os.path.join(DATA, file), encoding="utf-8", newline="") as text:
            texts.append(peer.encode(text.read())[:LENGTH])
    with open(os.path.join(DATA, "needles.json"), encoding="utf-8") as file:
        needles = json.load(file)[:arguments.contexts]

    cells, full_losses = [], None

    def add(cell):
        cells.append(cell)
        print(f"{cell['suite']:<14} {cell['preset']} {cell['budget']:g} {cell['metrics']} {cell['seconds']:.0f} s", flush=True)
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(cells, file, indent=1)

    settings = [("full", 1.0)] + [(preset, float(budget)) for budget in arguments.budgets.split(",")
                                  for preset in arguments.presets.split(",")]
    for preset, budget in settings:
        make = PRESSES.get(preset)
        new_press = (lambda: make(1 - budget)) if make else (lambda: None)
        at_once, name = preset not in UNEVEN, "kvpress " + preset
        if texts:
            begin = time.monotonic()
            losses = losses_of(peer, new_press, texts, at_once)
            full_losses = full_losses or losses
            add(text_cell(name, budget, losses, full_losses, time.monotonic() - begin))
        for question in arguments.questions.split(",") if needles else ():
            begin = time.monotonic()
            answers = answers_of(peer, new_press, needles, question == "visible", at_once)
            add(needle_cell(name, budget, question, answers, time.monotonic() - begin))
    return 0


if __name__ == "__main__":
    sys.exit(main())
