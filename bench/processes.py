"""The processes that a benchmark measures: tidepool-cache and tidepool-worker in a directory of their own, and the questions of
tidepool's command line to them."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.path.join(ROOT, "build", "release", "bin")
MODEL = os.path.join(ROOT, "models", "SmolLM2-135M-Instruct.Q4_1.gguf")
TEXT = os.path.join(ROOT, "tests", "data", "quality", "gpl-3.txt")
TEXT_TOKENS = 7639  # of it, by SmolLM2's tokenizer


def text_of(tokens, file=TEXT):
    """About so many tokens of the text, from its beginning, again and again; what they were is in the usage."""
    with open(file, encoding="utf-8") as opened:
        text = opened.read()
    characters = int(len(text) * tokens / TEXT_TOKENS)
    return (text * (characters // len(text) + 1))[:characters]


def numbers_of(usage):
    return {key: float(value) for key, value in usage.items() if not isinstance(value, bool)}


def cores_taken(pid):
    """Seconds of all threads of a process that are alive."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as file:
                total += int(file.read().split()[0])
        except OSError:
            pass  # it has ended
    return total / 1e9


class Servers:
    """A cache service, if wanted, and a worker."""

    def __init__(self, model=MODEL, threads=2, cache=True, cache_flags=(), worker_flags=()):
        self.directory = tempfile.mkdtemp(prefix="tidepool-bench-")
        self.processes = []
        flags = [f"--model={model}", f"--threads={threads}", *worker_flags]
        if cache:
            flags.append("--cache=" + self.start("tidepool-cache", f"--data-dir={self.directory}/cache", *cache_flags))
        self.worker = self.start("tidepool-worker", *flags)

    @classmethod
    def cache_alone(cls, *flags):
        """A cache service without a worker; its address is in `cache`."""
        servers = cls.__new__(cls)
        servers.directory = tempfile.mkdtemp(prefix="tidepool-bench-")
        servers.processes = []
        servers.cache = servers.start("tidepool-cache", f"--data-dir={servers.directory}/cache", *flags)
        return servers

    def start(self, name, *flags):
        port_file, log_file = (os.path.join(self.directory, name + end) for end in (".port", ".log"))
        with open(log_file, "w", encoding="utf-8") as log:
            process = subprocess.Popen([os.path.join(BIN, name), "--listen=127.0.0.1:0", f"--port-file={port_file}", *flags],
                                       stdout=log, stderr=log)
        self.processes.append(process)
        deadline = time.monotonic() + 60
        while True:
            if os.path.exists(port_file):
                with open(port_file, encoding="utf-8") as file:
                    if port := file.read().strip():
                        return "127.0.0.1:" + port
            if process.poll() is not None or time.monotonic() > deadline:
                with open(log_file, encoding="utf-8") as log:
                    sys.exit(f"bench: {name} does not listen:\n{log.read()}")
            time.sleep(0.02)

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            process.wait(timeout=30)
        shutil.rmtree(self.directory, ignore_errors=True)

    def peak_bytes(self):
        """Of the worker's memory."""
        with open(f"/proc/{self.processes[-1].pid}/status", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

    def ask(self, *flags, watch=None):
        """The usage of one answer; watch() is called as each line of it comes."""
        command = [os.path.join(BIN, "tidepool"), "generate", "--json", f"--worker={self.worker}", *flags]
        with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors,
                                                                      text=True) as asked:
            line = ""
            for line in asked.stdout:
                if watch is not None:
                    watch()
            errors.seek(0)
            said = errors.read()
        last = json.loads(line) if line else {}
        if asked.returncode != 0 or "finished" not in last:
            sys.exit(f"bench: {' '.join(command)[:300]}: {said or line}")
        return numbers_of(last["finished"]["usage"])

    def core_seconds(self):
        """What each process has taken of the cores so far, all threads together."""
        return [cores_taken(process.pid) for process in self.processes]

    def load(self, streams, name, text, *flags):
        """Several answers at once (bench/engine/stream_load.cc): of each, when its tokens came, and its usage."""
        file = os.path.join(self.directory, "context.txt")
        with open(file, "w", encoding="utf-8") as context:
            context.write(text)
        command = [os.path.join(BIN, "stream_load"), f"--worker={self.worker}", f"--streams={streams}", f"--beginning={name}",
                   f"--context-file={file}", *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"bench: {' '.join(command)}: {done.stderr}")
        answers = json.loads(done.stdout)
        for answer in answers:
            answer["usage"] = numbers_of(answer["usage"])
        return answers
