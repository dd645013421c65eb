"""Tidepool's servers as processes of a Python test."""

import os
import subprocess
import sys
import time

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
LIMIT_S = 300  # of anything that a test waits for


def model_path():
    folder = os.environ.get("TIDEPOOL_MODEL_DIR") or os.path.join(SOURCE, "models")
    path = os.path.join(folder, "SmolLM2-135M-Instruct.Q4_1.gguf")
    if not os.path.exists(path):
        sys.exit(f"{path} is missing: run scripts/fetch-models")
    return path


class Server:
    """A process that writes its port to a file when it listens, and ends with the test."""

    def __init__(self, folder, name, arguments):
        port_file = os.path.join(folder, name + ".port")
        with open(os.path.join(folder, name + ".log"), "wb") as log:
            self.process = subprocess.Popen(
                [*arguments, "--listen=127.0.0.1:0", f"--port-file={port_file}"], stdout=log, stderr=log)
        give_up = time.monotonic() + LIMIT_S
        while not os.path.exists(port_file):
            if self.process.poll() is not None or time.monotonic() > give_up:
                self.kill()
                with open(log.name, encoding="utf-8") as file:
                    raise RuntimeError(f"{name} does not listen:\n{file.read()}")
            try:
                self.process.wait(0.01)
            except subprocess.TimeoutExpired:
                pass
        with open(port_file, encoding="utf-8") as file:
            self.address = f"127.0.0.1:{int(file.read())}"

    def end(self):
        self.process.terminate()
        return self.process.wait(LIMIT_S)

    def kill(self):
        self.process.kill()
        return self.process.wait(LIMIT_S)
