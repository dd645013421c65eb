#!/usr/bin/env python3
"""How evenly answers come while the cache service is bad, against the same policy without one: real processes over loopback.

  scripts/bench pace [--settings off,good,throttled,hung,stopped,refusing] [--tokens 512] [--rounds 8] [--context 2048]
                     [--preset snapkv] [--budget 0.2] [--index pq16x4] [--rate 1000000] [--json FILE] [--no-build]

Each setting has a worker of its own. "off" has no cache service, and so the policy without recall; the others recall
asynchronously and offload. Between worker and cache service lies tests/support/fault_proxy: "good" passes everything,
"throttled" --rate bytes a second each way, "hung" nothing while connections stay open, "refusing" refuses them;
"stopped" is a cache service that SIGSTOP has stopped. The faults begin after a first answer and stay. Every round asks
each worker for an answer of --tokens tokens to a context nobody has stored, the next round in the other order. Printed:
quantiles of the time between two tokens over all rounds, and their ratios to "off"; with --limit the exit status is 1 when
the ratio of a bad setting's p99 is above it.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import processes  # pylint: disable=wrong-import-position


class Setting:
    """A worker, and for all but "off" a cache service behind a proxy."""

    def __init__(self, name, arguments):
        self.name = name
        self.flags = [f"--preset={arguments.preset}", f"--budget={arguments.budget}"]
        self.proxy = None
        flags = ()
        if name != "off":
            self.flags += ["--recall=async", f"--recall-index={arguments.index}"]
            self.cache = processes.Servers.cache_alone()
            self.proxy = subprocess.Popen([os.path.join(processes.BIN, "fault_proxy"), self.cache.cache], text=True,
                                          stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            flags = ("--cache=" + self.proxy.stdout.readline().split()[-1],)
        self.worker = processes.Servers(arguments.model, arguments.threads, cache=False, worker_flags=flags)
        self.gaps, self.usages = [], []

    def begin_fault(self, rate):
        fault = {"throttled": f"rate={rate}", "hung": "blackhole", "refusing": "refuse"}.get(self.name)
        if self.name == "stopped":
            self.cache.processes[0].send_signal(signal.SIGSTOP)
        for line in ([fault] if fault else []) + (["drop"] if self.name == "refusing" else []):
            self.proxy.stdin.write(line + "\n")
            self.proxy.stdin.flush()
            self.proxy.stdout.readline()

    def ask(self, name, text, tokens):
        answer = self.worker.load(1, name, text, f"--max-tokens={tokens}", "--ignore-eos", *self.flags)[0]
        times = answer["times"]
        self.gaps += [after - before for before, after in zip(times, times[1:])]
        self.usages.append(answer["usage"])

    def stop(self):
        self.worker.stop()
        if self.proxy is not None:
            if self.name == "stopped":
                self.cache.processes[0].send_signal(signal.SIGCONT)
            self.proxy.stdin.close()
            self.proxy.wait(timeout=30)
            self.cache.stop()


def quantile(values, part):
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def row_of(setting, off):
    gaps = [gap * 1000 for gap in setting.gaps]
    row = {"setting": setting.name, "tokens": len(gaps), "mean_ms": statistics.mean(gaps)}
    for name, part in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)):
        row[name + "_ms"] = quantile(gaps, part)
        row[name + "_of_off"] = quantile(gaps, part) / (quantile(off.gaps, part) * 1000)
    row["worst_ms"] = max(gaps)
    for key, field in (("recalled_rows", "recalledRows"), ("late_rows", "lateRows"), ("lost_rows", "lostRows")):
        row[key] = statistics.mean(usage.get(field, 0) for usage in setting.usages)
    return row


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench pace", description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--model", default=processes.MODEL)
    parser.add_argument("--text", default=processes.TEXT)
    parser.add_argument("--context", type=int, default=2048, help="tokens of it")
    parser.add_argument("--preset", default="snapkv")
    parser.add_argument("--budget", default="0.2")
    parser.add_argument("--index", default="pq16x4")
    parser.add_argument("--settings", default="off,good,throttled,hung,stopped,refusing", help="must have off")
    parser.add_argument("--tokens", type=int, default=512, help="of each answer")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--rate", type=int, default=1_000_000, help="of throttled, bytes a second")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=float, default=0, help="of p99 to off's; 0: none")
    parser.add_argument("--json", default="")
    arguments = parser.parse_args()
    names = arguments.settings.split(",")
    known = ("off", "good", "throttled", "hung", "stopped", "refusing")
    if unknown := [name for name in names if name not in known]:
        parser.error(f"--settings: '{unknown[0]}' is not one of {', '.join(known)}")
    if "off" not in names:
        parser.error("--settings: off is what the others are compared with")

    text = processes.text_of(arguments.context, arguments.text)
    settings = []
    try:
        for name in names:
            settings.append(Setting(name, arguments))
        for setting in settings:
            setting.ask("warm up ", text, 64)
            setting.gaps.clear()
            setting.usages.clear()
            setting.begin_fault(arguments.rate)
        for number in range(arguments.rounds):
            for setting in settings if number % 2 == 0 else reversed(settings):
                setting.ask(f"round {number} ", text, arguments.tokens)
    finally:
        for setting in settings:
            setting.stop()

    off = settings[names.index("off")]
    rows = [row_of(setting, off) for setting in settings]
    print(f"{arguments.preset}, budget {arguments.budget}, {arguments.rounds} answers of {arguments.tokens} tokens to a context "
          f"of {off.usages[0]['promptTokens']:.0f}; milliseconds between tokens")
    print(f"{'cache':<10} {'p50':>6} {'of off':>7} {'p90':>6} {'of off':>7} {'p99':>6} {'of off':>7} {'p99.9':>7} {'worst':>7} "
          f"{'recalled':>9} {'late':>7} {'lost':>7}")
    for row in rows:
        print(f"{row['setting']:<10} {row['p50_ms']:>6.2f} {row['p50_of_off']:>7.2f} {row['p90_ms']:>6.2f} {row['p90_of_off']:>7.2f} "
              f"{row['p99_ms']:>6.2f} {row['p99_of_off']:>7.2f} {row['p999_ms']:>7.2f} {row['worst_ms']:>7.1f} "
              f"{row['recalled_rows']:>9.0f} {row['late_rows']:>7.0f} {row['lost_rows']:>7.0f}")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"arguments": vars(arguments), "rows": rows}, file, indent=1)
    bad = [row["setting"] for row in rows if row["setting"] not in ("off", "good") and row["p99_of_off"] > arguments.limit > 0]
    if bad:
        print(f"pace: p99 of {', '.join(bad)} is above {arguments.limit} of off's", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
