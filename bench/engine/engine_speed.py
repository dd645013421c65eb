#!/usr/bin/env python3
"""Speed of the CPU engine: prefill, decode by depth and batch, with a fifth of the cache, served to clients; as its users see it,
through gRPC and the command line. With --peer llama.cpp the same on llama.cpp, in turns with ours, and the ratios.

  scripts/bench engine [--peer llama.cpp] [--cells REGEX] [--rounds 3] [--json FILE] [--no-build]

llama.cpp runs bare (bench/engine/llama_peer.py says how and how to install it), in a venv of its own: TIDEPOOL_LLAMA_PYTHON or
build/llama/bin/python. Its figure for "llama.cpp's best type" is the faster one of the same weights as Q4_0 and as Q8_0, which it
repacks. Cells that begin with "bound" are what a cell before them could reach at best: the same rows without a policy, the same
prompts without answers. Printed: medians over the rounds, and the median and the range of each round's ratio; then the time from a worker's start
to the first token of a short prompt, and the peak memory of a worker and of llama.cpp with a context of 4,096 tokens. --svg draws
the ratios beside their aims.
"""

import argparse
import html
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import processes  # pylint: disable=wrong-import-position

PEER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "llama_peer.py")
STEPS = 48


class Peer:
    """llama.cpp with one model in a process that takes commands. What it has been asked before in a round it is not asked again."""

    def __init__(self, python, model):
        self.answers = {}
        self.process = subprocess.Popen([python, PEER, model], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)
        self.hello = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit("bench: the peer has ended; run bench/engine/llama_peer.py by hand to see why")
        return json.loads(line)

    def ask(self, **command):
        line = json.dumps(command)
        if line not in self.answers:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            self.answers[line] = self.read()
        return self.answers[line]

    def begin_round(self):
        self.answers.clear()

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


class Ours:
    """Cells on a worker without a cache service, which keeps nothing from one to the next; on one that reads prompts at full
    speed, so that the sequences of a batch decode side by side soon; and on such a one with a cache service."""

    def __init__(self):
        memory = "--device-kv-bytes=4GiB"
        self.plain = processes.Servers(cache=False, worker_flags=[memory])
        self.batch = processes.Servers(cache=False, worker_flags=[memory, "--decode-pace=0"])
        # Room for all rounds: answers that have ended are not to push blocks to disk while others recall them.
        self.cached = processes.Servers(cache_flags=["--memory-bytes=8GiB"], worker_flags=[memory, "--decode-pace=0"])
        self.asked = 0
        self.has_recalled = False

    def stop(self):
        for servers in (self.plain, self.batch, self.cached):
            servers.stop()

    def name(self):
        self.asked += 1
        return f"{self.asked}:"

    def prefill(self, tokens):
        [answer] = self.plain.load(1, self.name(), processes.text_of(tokens), "--max-tokens=1", "--ignore-eos", "--preset=full")
        return answer["usage"]["promptTokens"] / (answer["usage"]["timeToFirstTokenSeconds"] - answer["usage"].get("queueSeconds", 0))

    def decode(self, depth, batch, *flags, recall=False):
        """Tokens/s of all sequences together while all of them decode, and the usage of one."""
        servers = self.cached if recall else self.plain if batch == 1 else self.batch
        # Who is done with his prompt first decodes while others are read, a token with each of their chunks.
        most = STEPS + (2 * STEPS + batch * depth // 256 if batch > 1 else 1)
        # Recalled rows lie in memory that a worker asks for once and keeps: one that serves has it, so the first are not timed.
        for _ in range(2 if recall and not self.has_recalled else 1):
            answers = servers.load(batch, self.name(), processes.text_of(depth), f"--max-tokens={most}", "--ignore-eos", *flags)
        self.has_recalled = self.has_recalled or recall
        begin = max(answer["times"][0] for answer in answers)
        end = min(answer["times"][-1] for answer in answers)
        if end <= begin:
            sys.exit(f"bench: the {batch} answers at {depth} tokens were not generated side by side")
        if recall and not all(answer["usage"].get("recalledRows") for answer in answers):
            sys.exit(f"bench: not all of the {batch} answers at {depth} tokens recalled rows")
        count = sum(1 for answer in answers for time in answer["times"] if begin < time <= end)
        return count / (end - begin), answers[0]["usage"]

    def serve(self, clients, tokens, answer):
        answers = self.plain.load(clients, self.name(), processes.text_of(tokens), f"--max-tokens={answer}", "--ignore-eos",
                                  "--preset=full")
        generated = sum(answer["usage"]["generatedTokens"] for answer in answers)
        return {"rate": generated / max(answer["times"][-1] for answer in answers),
                "first": sorted(answer["times"][0] for answer in answers)}


def show_pace(ours):
    """How the pace of a sequence that decodes bears a prompt of 4k tokens that comes meanwhile."""
    text, found = processes.text_of(512), []
    running = threading.Thread(target=lambda: found.extend(
        ours.plain.load(1, ours.name(), text, "--max-tokens=1500", "--ignore-eos", "--preset=full")))
    running.start()
    time.sleep(1.5)
    started = time.monotonic()
    prompt = ours.plain.load(1, ours.name(), processes.text_of(4096), "--max-tokens=1", "--ignore-eos", "--preset=full")[0]
    took = time.monotonic() - started
    running.join()
    times = found[0]["times"]
    gaps = [(b, b - a) for a, b in zip(times, times[1:])]
    beside = [gap for at, gap in gaps if 1.5 < at < 1.5 + took]
    idle = [gap for at, gap in gaps if at < 1.4 or at > 1.6 + took]
    p50, p99 = ([sorted(some)[int(part * len(some))] * 1000 for some in (idle, beside)] for part in (0.5, 0.99))
    print(f"pace: between tokens, 99th percentile: alone {p99[0]:.1f} ms, while a prompt of {prompt['usage']['promptTokens']:.0f} tokens is "
          f"read {p99[1]:.1f} ms, {p99[1] / p99[0]:.2f} times as long (in the middle {p50[1] / p50[0]:.2f}); the prompt took {took:.2f} s")


def show_start(rounds):
    """From the start of a worker's process to the first token of a prompt of ten tokens."""
    took = []
    for _ in range(rounds):
        started = time.monotonic()
        servers = processes.Servers(cache=False)
        ready = time.monotonic() - started
        [answer] = servers.load(1, "", "One two three four five six seven", "--max-tokens=2", "--ignore-eos", "--preset=full")
        took.append((ready + answer["times"][0], ready))
        servers.stop()
    first, ready = (statistics.median(one[i] for one in took) for i in (0, 1))
    print(f"start: {first:.2f} s from the worker's start to the first token (the worker answers after {ready:.2f} s); aim 1 s")


def show_memory(peer):
    """Peak memory of a worker that has decoded at 4,096 tokens, and of the peer."""
    servers = processes.Servers(cache=False)
    servers.load(1, "", processes.text_of(4096), "--max-tokens=16", "--ignore-eos", "--preset=full")
    line = f"peak memory with a context of 4,096 tokens: {servers.peak_bytes() / 2**20:.0f} MiB"
    servers.stop()
    if peer:
        fresh = peer()
        line += f", llama.cpp {fresh.ask(peak=4096) / 2**20:.0f} MiB (without Python's own)"
        fresh.stop()
    print(line)


def draw(cells, path):
    """The ratios of all cells as bars, with a mark at each aim."""
    cells = [cell for cell in cells if cell.ratios()]
    left, width, step = 330, 560, 24
    most = max([cell.aim or 0 for cell in cells] + [statistics.median(cell.ratios()) for cell in cells] + [1])
    scale = width / (most * 1.08)
    height = 44 + step * len(cells)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 60}" height="{height}" font-family="sans-serif" font-size="12">',
           '<rect width="100%" height="100%" fill="white"/>',
           '<text x="10" y="20" font-size="14">Times as fast as llama.cpp; the mark is the aim, the thin line the range</text>']
    for i, cell in enumerate(cells):
        y, ratios = 36 + i * step, cell.ratios()
        median = statistics.median(ratios)
        colour = "#1b6ca8" if not cell.aim or median >= cell.aim else "#d1495b"
        out.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{html.escape(cell.name)}</text>')
        out.append(f'<rect x="{left}" y="{y}" width="{median * scale:.1f}" height="16" fill="{colour}"/>')
        out.append(f'<line x1="{left + min(ratios) * scale:.1f}" x2="{left + max(ratios) * scale:.1f}" y1="{y + 8}" y2="{y + 8}" stroke="black"/>')
        if cell.aim:
            out.append(f'<line x1="{left + cell.aim * scale:.1f}" x2="{left + cell.aim * scale:.1f}" y1="{y - 2}" y2="{y + 18}" '
                       'stroke="black" stroke-width="2"/>')
        out.append(f'<text x="{left + max(median, max(ratios)) * scale + 6:.1f}" y="{y + 13}">{median:.2f}</text>')
    out.append("</svg>")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(out) + "\n")


class Cell:
    """What is measured on ours and on the peer, as a figure of which more is better."""

    def __init__(self, name, ours, peer=None, aim=None):
        self.name, self.ours, self.peer, self.aim = name, ours, peer, aim
        self.figures, self.peers, self.usage = [], [], None

    def ratios(self):
        return [a / b for a, b in zip(self.figures, self.peers)]


def cells_of(best):
    """best(command): the better of the peer's answers with the types that it repacks."""

    def decode(depth, batch, *flags, recall=False):
        return lambda ours: ours.decode(depth, batch, *flags, recall=recall)

    def peer_decode(depth, batch):
        return lambda peer: peer.ask(decode=depth, batch=batch, steps=STEPS if batch == 1 else STEPS // 2)

    def peer_prefill(tokens):
        return lambda peer: tokens / peer.ask(prefill=tokens)

    cells = []
    for tokens in (128, 512, 2048, 4096):
        aim = {512: 3, 4096: 3}.get(tokens)
        cells.append(Cell(f"prefill {tokens}", lambda ours, n=tokens: ours.prefill(n), peer_prefill(tokens), aim))
    for tokens in (512, 4096):
        cells.append(Cell(f"prefill {tokens}, to llama.cpp's best type", lambda ours, n=tokens: ours.prefill(n),
                          lambda _, n=tokens: best(lambda peer: peer_prefill(n)(peer)), 1.2))
    for depth in (0, 512, 2048, 4096, 7900):
        aim = {0: 1.7, 4096: 3, 7900: 3}.get(depth)
        cells.append(Cell(f"decode {depth}", decode(depth, 1, "--preset=full"), peer_decode(depth, 1), aim))
    for depth, batch in ((512, 4), (512, 8), (512, 16), (2048, 8), (4096, 8)):
        aim = 2.5 if (depth, batch) == (2048, 8) else None
        cells.append(Cell(f"decode {depth} batch {batch}", decode(depth, batch, "--preset=full"), peer_decode(depth, batch), aim))
    fifth = "--budget=0.2"
    for preset in ("d2o", "ada-snapkv"):
        cells.append(Cell(f"decode 7900, {preset} 20 %", decode(7900, 1, f"--preset={preset}", fifth), peer_decode(7900, 1), 8))
    cells.append(Cell("decode 7900, ada-snapkv 20 %, int8", decode(7900, 1, "--preset=ada-snapkv", fifth, "--kv-precision=int8"),
                      peer_decode(7900, 1)))
    cells.append(Cell("bound: decode 1580, nothing evicted", decode(1580, 1, "--preset=full"), peer_decode(7900, 1)))
    cells.append(Cell("decode 4096 batch 8, ada-snapkv 20 %", decode(4096, 8, "--preset=ada-snapkv", fifth), peer_decode(4096, 8)))
    recall = ("--preset=ada-snapkv", fifth, "--recall=async", "--recall-index=pq16x4")
    cells.append(Cell("decode 4096 batch 8, ada-snapkv 20 %, async", decode(4096, 8, *recall, recall=True), peer_decode(4096, 8), 10))
    cells.append(Cell("bound: decode 819 batch 8, nothing evicted", decode(819, 8, "--preset=full"), peer_decode(4096, 8)))
    clients, answer = 8, 64

    def peer_serve(peer):
        return peer.ask(serve=clients, prompt=1024, answer=answer)

    def prompts_alone(ours):
        served = ours.serve(clients, 1024, 1)
        return {"rate": served["rate"] * answer, "first": served["first"]}

    cells.append(Cell("serve 8 clients, 1k prompts, 64 tokens", lambda ours: ours.serve(clients, 1024, answer), peer_serve, 8))
    cells.append(Cell("bound: the same, if answers took no time", prompts_alone, peer_serve))
    return cells


def measure(cell, ours, peer):
    def rate(answer):
        return answer["rate"] if isinstance(answer, dict) else answer

    def first(answer):
        return f", first token p50 {answer['first'][len(answer['first']) // 2]:.2f} s, last {answer['first'][-1]:.2f} s" \
            if isinstance(answer, dict) else ""

    answer = cell.ours(ours)
    if isinstance(answer, tuple):
        answer, cell.usage = answer
    cell.figures.append(rate(answer))
    line = f"{cell.name}: {rate(answer):.1f}{first(answer)}"
    if peer and cell.peer:
        answer = cell.peer(peer)
        cell.peers.append(rate(answer))
        line += f"; llama.cpp {rate(answer):.1f}{first(answer)}"
    print(line, file=sys.stderr, flush=True)


def show(cells):
    print(f"{'':<46} {'tokens/s':>9} {'llama.cpp':>10} {'ratio':>6} {'range':>12} {'aim':>5} {'device KV':>10}")
    for cell in cells:
        if not cell.figures:
            continue
        line = f"{cell.name:<46} {statistics.median(cell.figures):>9.1f}"
        ratios = cell.ratios()
        if ratios:
            line += f" {statistics.median(cell.peers):>10.1f} {statistics.median(ratios):>6.2f} {min(ratios):>5.2f}-{max(ratios):<6.2f}"
        else:
            line += " " * 31
        line += f" {cell.aim or '':>5}"
        if cell.usage:
            line += f" {cell.usage['residentKvBytes'] / cell.usage['fullKvBytes']:>10.1%}"
        print(line.rstrip())


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench engine", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default="", choices=["", "llama.cpp"])
    parser.add_argument("--cells", default="")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", default="")
    parser.add_argument("--svg", default="")
    arguments = parser.parse_args()

    python = os.environ.get("TIDEPOOL_LLAMA_PYTHON", os.path.join(processes.ROOT, "build", "llama", "bin", "python"))
    peer, repacked = None, []
    if arguments.peer:
        if not os.access(python, os.X_OK):
            sys.exit(f"bench: there is no {python}; bench/engine/llama_peer.py says how to make it")
        peer = Peer(python, processes.MODEL)
        print(f"llama-cpp-python {peer.hello['version']}: {peer.hello['system']}", file=sys.stderr)

    def best(ask):
        if not repacked:
            folder = os.path.join(processes.ROOT, "build", "llama-models")
            os.makedirs(folder, exist_ok=True)
            for name in ("q4_0", "q8_0"):
                path = os.path.join(folder, f"{os.path.basename(processes.MODEL)}.{name}.gguf")
                if not os.path.exists(path):
                    subprocess.run([python, PEER, "--requantize", name, processes.MODEL, path], check=True,
                                   stderr=subprocess.DEVNULL)
                repacked.append(Peer(python, path))
        return max(ask(one) for one in repacked)

    cells = [cell for cell in cells_of(best) if re.search(arguments.cells, cell.name)]
    extras = {name for name in ("pace", "start", "memory") if not arguments.cells or name in arguments.cells}
    if not cells and not extras:
        sys.exit(f"bench: nothing matches --cells={arguments.cells}")
    ours = Ours()
    try:
        for _ in range(arguments.rounds):
            for one in [peer] + repacked:
                if one:
                    one.begin_round()
            for cell in cells:
                measure(cell, ours, peer)
        if "pace" in extras:
            show_pace(ours)
    finally:
        ours.stop()
        for one in [peer] + repacked:
            if one:
                one.stop()
    if "start" in extras:
        show_start(arguments.rounds)
    if "memory" in extras:
        show_memory(arguments.peer and (lambda: Peer(python, processes.MODEL)))
    show(cells)
    if arguments.svg:
        draw(cells, arguments.svg)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump([{"cell": cell.name, "ours": cell.figures, "peer": cell.peers, "aim": cell.aim, "usage": cell.usage}
                       for cell in cells], file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
