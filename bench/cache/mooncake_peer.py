"""Mooncake Store over TCP as a side of cache_speed: a master, a process that holds the memory, and this client of it.

  mooncake_peer.py serve         answers lines of its standard input; started by cache_speed --mooncake=PYTHON
  mooncake_peer.py hold MASTER   the process that holds the memory; started by serve

PYTHON is one that has the package, for example (the wheel needs Debian's libibverbs1 and libnuma1):

  python3 -m venv build/mooncake && build/mooncake/bin/pip install mooncake-transfer-engine-non-cuda==0.3.13.post1

Lines: `put TURN SIZE COUNT`, `get TURN SIZE COUNT`, `check` (compares what the last get brought), each answered by
`done N.`, the number of the line. The batch calls on registered memory are used, which copy least.
"""

import ctypes
import mmap
import os
import random
import socket
import subprocess
import sys
import time

SEGMENT_BYTES = 4 << 30
LOCAL_BYTES = 64 << 20
BUFFER_BYTES = 320 << 20
BATCH = 16  # keys of one call


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def connect(master, segment_bytes):
    from mooncake.store import MooncakeDistributedStore  # pylint: disable=import-outside-toplevel,import-error

    store = MooncakeDistributedStore()
    for _ in range(100):
        if store.setup(f"127.0.0.1:{free_port()}", "P2PHANDSHAKE", segment_bytes, LOCAL_BYTES, "tcp", "", master) == 0:
            return store
        time.sleep(0.1)
    sys.exit("mooncake_peer: the store cannot be set up")


def hold(master):
    store = connect(master, SEGMENT_BYTES)
    print("holding", flush=True)
    sys.stdin.read()  # until the client goes
    store.close()


class Client:
    def __init__(self, master):
        self.store = connect(master, 0)
        self.memory = [mmap.mmap(-1, BUFFER_BYTES) for _ in range(2)]  # what is put; what is got
        self.address = [ctypes.addressof(ctypes.c_char.from_buffer(memory)) for memory in self.memory]
        for address in self.address:
            if self.store.register_buffer(address, BUFFER_BYTES) != 0:
                sys.exit("mooncake_peer: memory cannot be registered")
        self.filled = 0  # the value size that memory[0] has
        self.last = (0, 0)

    def fill(self, size, count):
        if self.filled == size:
            return
        for i in range(count):
            self.memory[0][i * size:(i + 1) * size] = random.Random(i).randbytes(size)
        self.filled = size

    def run(self, what, turn, size, count):
        """All values of a turn, a batch at a time."""
        which = 0 if what == "put" else 1
        call = self.store.batch_put_from if what == "put" else self.store.batch_get_into
        for first in range(0, count, BATCH):
            numbers = range(first, min(first + BATCH, count))
            results = call([f"{size}:{turn}:{i}" for i in numbers], [self.address[which] + i * size for i in numbers],
                           [size] * len(numbers))
            if any(result != (0 if what == "put" else size) for result in results):
                sys.exit(f"mooncake_peer: {what}: {list(results)[:4]}")
        self.last = (size, count)

    def check(self):
        size, count = self.last
        if self.memory[0][:size * count] != self.memory[1][:size * count]:
            sys.exit("mooncake_peer: other bytes came than were put")
        self.memory[1][:size * count] = bytes(size * count)


def serve():
    port = free_port()
    folder = os.path.join(os.path.dirname(sys.executable))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([os.path.join(folder, "mooncake_master"), f"--rpc_port={port}",
                           f"--metrics_port={free_port()}"], **quiet) as master, \
         subprocess.Popen([sys.executable, __file__, "hold", f"127.0.0.1:{port}"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as holder:
        try:
            while "holding" not in (line := holder.stdout.readline()):
                if not line:
                    sys.exit("mooncake_peer: the holder ended")
            client = Client(f"127.0.0.1:{port}")
            print(f"listening on {holder.pid}", flush=True)
            for number, line in enumerate(sys.stdin):
                words = line.split()
                if words[0] == "check":
                    client.check()
                else:
                    turn, size, count = map(int, words[1:])
                    client.fill(size, count)
                    client.run(words[0], turn, size, count)
                print(f"done {number}.", flush=True)
        finally:
            holder.stdin.close()
            master.terminate()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    elif len(sys.argv) == 3 and sys.argv[1] == "hold":
        hold(sys.argv[2])
    else:
        sys.exit(__doc__)
