#!/usr/bin/env python3
"""llama.cpp as the peer of bench/engine/engine_speed.py, through the C interface that llama-cpp-python wraps: no sampling, no
text, no network, so what its own server adds is not counted against it. Flash attention, f16 cache, two threads.

  python3 -m venv build/llama && build/llama/bin/pip install llama-cpp-python      # compiles llama.cpp for this machine
  build/llama/bin/python bench/engine/llama_peer.py MODEL.gguf [THREADS]           # answers commands, a line of JSON each
  build/llama/bin/python bench/engine/llama_peer.py --requantize q4_0|q8_0 FROM.gguf TO.gguf

Commands: {"prefill": N}: seconds for N tokens. {"decode": DEPTH, "batch": B, "steps": S}: tokens/s of B sequences together.
{"serve": CLIENTS, "prompt": N, "answer": M}: what continuous batching gives clients that come at once: prompts one after the
other in chunks of 512, and with each chunk a token for everyone who has had his first. {"peak": N}: bytes of memory, at its
peak and without what Python took before it had a model, once N tokens are in a context of 256 more and one has been decoded.
"""

import json
import sys
import time

import llama_cpp as llama

CHUNK = 512


def token(i):
    return 100 + i * 37 % 40000


def peak_bytes():
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


class Peer:
    def __init__(self, path, threads):
        self.threads = threads
        self.bytes_before = peak_bytes()
        llama.llama_backend_init()
        self.model = llama.llama_load_model_from_file(path.encode(), llama.llama_model_default_params())
        if not self.model:
            sys.exit(f"llama_peer: {path} cannot be loaded")
        self.context, self.shape = None, None

    def open(self, tokens, sequences):
        """An empty cache of so many tokens for each sequence."""
        if self.shape != (tokens, sequences):
            if self.context:
                llama.llama_free(self.context)
            params = llama.llama_context_default_params()
            params.n_ctx, params.n_seq_max, params.kv_unified = tokens * sequences, sequences, False
            params.n_batch, params.n_ubatch = 2048, CHUNK
            params.n_threads = params.n_threads_batch = self.threads
            params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_ENABLED
            self.context = llama.llama_new_context_with_model(self.model, params)
            if not self.context:
                sys.exit(f"llama_peer: no context of {tokens} tokens for {sequences} sequences")
            self.shape = (tokens, sequences)
        self.memory = llama.llama_get_memory(self.context)
        llama.llama_memory_clear(self.memory, False)

    def run(self, entries):
        """One batch of (token, position, sequence, wants logits)."""
        batch = llama.llama_batch_init(len(entries), 0, 1)
        batch.n_tokens = len(entries)
        for i, (value, position, sequence, logits) in enumerate(entries):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = value, position, 1
            batch.seq_id[i][0], batch.logits[i] = sequence, logits
        if llama.llama_decode(self.context, batch) != 0:
            sys.exit("llama_peer: llama_decode failed")
        llama.llama_synchronize(self.context)
        llama.llama_batch_free(batch)

    def prompt(self, begin, end, sequence=0):
        for first in range(begin, end, CHUNK):
            last = min(end, first + CHUNK)
            self.run([(token(i), i, sequence, i == end - 1) for i in range(first, last)])

    def prefill(self, tokens):
        self.open(8448, 1)
        started = time.monotonic()
        self.prompt(0, tokens)
        return time.monotonic() - started

    def decode(self, depth, batch, steps):
        self.open(8448 if batch == 1 else (depth + steps + 511) // 256 * 256, batch)
        self.prompt(0, max(depth, 1))
        for sequence in range(1, batch):
            llama.llama_memory_seq_cp(self.memory, 0, sequence, -1, -1)
        position = max(depth, 1)
        self.run([(token(b), position, b, True) for b in range(batch)])  # the first one is not counted
        started = time.monotonic()
        for i in range(1, steps + 1):
            self.run([(token(i + b), position + i, b, True) for b in range(batch)])
        return batch * steps / (time.monotonic() - started)

    def serve(self, clients, prompt, answer):
        self.open((prompt + answer + 255) // 256 * 256, clients)
        started, first, left = time.monotonic(), {}, {}
        waiting = list(range(clients))
        done = 0  # of the prompt being read
        while waiting or left:
            entries = [(token(n), prompt + answer - 1 - n, client, True) for client, n in left.items()]
            reads = None
            if waiting:
                last = min(prompt, done + CHUNK)
                entries += [(token(i), i, waiting[0], i == prompt - 1) for i in range(done, last)]
                done = last
                if done == prompt:
                    reads, done = waiting.pop(0), 0
            decoding = list(left)
            self.run(entries)
            for client in decoding:
                left[client] -= 1
                if left[client] == 0:
                    del left[client]
            if reads is not None:
                first[reads] = time.monotonic() - started
                left[reads] = answer - 1
        return {"rate": clients * answer / (time.monotonic() - started), "first": sorted(first.values())}

    def peak(self, tokens):
        self.open(tokens + 256, 1)
        self.prompt(0, tokens)
        self.run([(token(0), tokens, 0, True)])
        return peak_bytes() - self.bytes_before

    def answer(self, command):
        if "peak" in command:
            return self.peak(command["peak"])
        if "prefill" in command:
            return self.prefill(command["prefill"])
        if "decode" in command:
            return self.decode(command["decode"], command["batch"], command["steps"])
        return self.serve(command["serve"], command["prompt"], command["answer"])


def requantize(name, source, target):
    params = llama.llama_model_quantize_default_params()
    params.ftype = {"q4_0": llama.LLAMA_FTYPE_MOSTLY_Q4_0, "q8_0": llama.LLAMA_FTYPE_MOSTLY_Q8_0}[name]
    params.allow_requantize = True
    if llama.llama_model_quantize(source.encode(), target.encode(), params) != 0:
        sys.exit(f"llama_peer: {source} cannot be requantized")


def main():
    if sys.argv[1] == "--requantize":
        return requantize(*sys.argv[2:5])
    peer = Peer(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 2)
    print(json.dumps({"version": llama.__version__, "system": llama.llama_print_system_info().decode()}), flush=True)
    for line in sys.stdin:
        print(json.dumps(peer.answer(json.loads(line))), flush=True)
    return None


if __name__ == "__main__":
    main()
