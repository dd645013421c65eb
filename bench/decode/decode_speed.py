#!/usr/bin/env python3
"""Decode speed with recall, against the same policy without it and against the full cache: real processes over loopback.

  scripts/bench decode [--context 4096] [--budget 0.2] [--preset snapkv] [--settings full,off,async:pq16x4] [--tokens 96]
                       [--rounds 5] [--json FILE] [--model FILE.gguf] [--no-build] [-- FLAGS OF tidepool generate]

tidepool-cache and tidepool-worker run as two processes that speak gRPC. Each setting is a session: its first turn is the
context, which is compressed; each round then asks every setting for an answer of --tokens tokens, the next round in the
other order. Its rate is that of the tokens after the first. Printed: the median over the rounds, and the median of each
round's ratio to "off", so that a slow moment of the machine is shared by what is compared; and the median of what a token
takes of the cores in each process, waiting for each other in loops included, which other programs change less.
"""

import argparse
import json
import os
import statistics
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import processes  # pylint: disable=wrong-import-position

QUESTION = "\n\nIn short, this says that"


def flags_of(setting, arguments):
    if setting == "full":
        return ["--preset=full"]
    flags = [f"--preset={arguments.preset}", f"--budget={arguments.budget}", *arguments.flags]
    if setting == "off":
        return flags
    mode, _, index = setting.partition(":")
    return flags + [f"--recall={mode}"] + ([f"--recall-index={index}"] if index else [])


class CoreWatch:
    """What the worker and the cache service take of the cores from one line of an answer to another."""

    def __init__(self, servers, first, last):
        self.servers, self.lines, self.at = servers, 0, {first: None, last: None}

    def __call__(self):
        self.lines += 1
        if self.lines in self.at:
            self.at[self.lines] = self.servers.core_seconds()

    def per_token(self):
        (first, before), (last, after) = self.at.items()
        cache, worker = (1e3 * (b - a) / (last - first) for a, b in zip(before, after))
        return worker, cache


def measure(servers, settings, arguments, context):
    """{setting: [rate of each round]}, {setting: [milliseconds of cores in each round]} and each setting's last usage."""
    names = {setting: "decode-" + setting.replace(":", "-") for setting in settings}
    for setting in settings:
        servers.ask(f"--prompt={context}", "--max-tokens=1", "--ignore-eos", f"--session={names[setting]}",
                    *flags_of(setting, arguments))
    rates, cores, usages = {setting: [] for setting in settings}, {setting: [] for setting in settings}, {}
    for round_number in range(arguments.rounds):
        for setting in settings if round_number % 2 == 0 else reversed(settings):
            watch = CoreWatch(servers, first=4, last=arguments.tokens - 2)
            usage = servers.ask(f"--prompt={QUESTION}", f"--max-tokens={arguments.tokens}", "--ignore-eos",
                                f"--session={names[setting]}", *flags_of(setting, arguments), watch=watch)
            seconds = usage["total_seconds"] - usage["time_to_first_token_seconds"]
            rates[setting].append((usage["generated_tokens"] - 1) / seconds)
            cores[setting].append(watch.per_token())
            usages[setting] = usage
    return rates, cores, usages


def main():
    arguments_text = __doc__.split("\n\n")[0]
    parser = argparse.ArgumentParser(prog="scripts/bench decode", description=arguments_text)
    parser.add_argument("--model", default=processes.MODEL)
    parser.add_argument("--text", default=processes.TEXT)
    parser.add_argument("--context", type=int, default=4096, help="tokens of it")
    parser.add_argument("--preset", default="snapkv")
    parser.add_argument("--budget", default="0.2")
    parser.add_argument("--settings", default="full,off,async:k4,async:pq16x4,sync:pq16x4",
                        help="full, off, MODE or MODE:INDEX; ratios are to off")
    parser.add_argument("--tokens", type=int, default=96, help="at least 8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", default="")
    parser.add_argument("flags", nargs="*", help="after --: further flags of tidepool generate, but for full")
    arguments = parser.parse_args()
    settings = arguments.settings.split(",")
    if arguments.tokens < 8:
        parser.error(f"--tokens: {arguments.tokens} is less than 8")

    servers = processes.Servers(arguments.model, arguments.threads)
    try:
        rates, cores, usages = measure(servers, settings, arguments, processes.text_of(arguments.context, arguments.text))
    finally:
        servers.stop()

    print(f"{arguments.preset}, budget {arguments.budget}, {arguments.rounds} rounds of {arguments.tokens} tokens "
          f"{' '.join(arguments.flags)}".rstrip())
    print(f"{'setting':<16} {'context':>8} {'tokens/s':>9} {'of off':>7} {'resident':>9} {'rows/token':>11} {'late':>6} "
          f"{'staged MiB':>11} {'worker ms':>10} {'cache ms':>9}")
    rows = []
    for setting in settings:
        usage = usages[setting]
        ratio = (statistics.median(a / b for a, b in zip(rates[setting], rates["off"])) if "off" in rates else None)
        worker, cache = (statistics.median(values) for values in zip(*cores[setting]))
        rows.append({"setting": setting, "tokens_per_second": statistics.median(rates[setting]), "of_off": ratio,
                     "worker_core_ms": worker, "cache_core_ms": cache,
                     "rates": rates[setting], "usage": usage})
        print(f"{setting:<16} {usage.get('context_tokens', 0):>8.0f} {statistics.median(rates[setting]):>9.1f} "
              f"{'' if ratio is None else f'{ratio:.2f}':>7} "
              f"{usage.get('resident_kv_bytes', 0) / usage['full_kv_bytes']:>9.1%} "
              f"{usage.get('recalled_rows', 0) / usage['generated_tokens']:>11.0f} {usage.get('late_rows', 0):>6.0f} "
              f"{usage.get('staged_bytes', 0) / 2**20:>11.1f} {worker:>10.2f} {cache:>9.2f}")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"arguments": vars(arguments), "rows": rows}, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
