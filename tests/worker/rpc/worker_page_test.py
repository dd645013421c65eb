#!/usr/bin/env python3
"""The web page of a worker as a browser shows it while a long answer is generated under compression and recall.

  worker_page_test.py TIDEPOOL [arguments of unittest]

Needs Chromium (scripts/install-deps).
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
import urllib.error
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "support"))
import browser  # noqa: E402
from servers import LIMIT_S, Server, model_path  # noqa: E402

LAYERS, KV_HEADS = 30, 3  # of SmolLM2-135M
TENANT = "<script>alert(1)</script>"  # must be shown, not obeyed
KEPT, RECALLED = (0x2A, 0x7F, 0x9E), (0xE0, 0xA0, 0x30)
tidepool = ""


class WorkerPageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        worker = Server(directory.name, "worker", [
            tidepool, "serve", f"--model={model_path()}", f"--data-dir={directory.name}/data", f"--tenant={TENANT}",
            "--device-kv-bytes=512MiB", "--page-address=127.0.0.1:0"])
        cls.addClassCleanup(worker.end)
        with open(os.path.join(directory.name, "worker.log"), encoding="utf-8") as log:
            cls.url = re.search(r"page on (\S+)", log.read()).group(1)
        prompt = os.path.join(directory.name, "prompt")
        with open(prompt, "w", encoding="utf-8") as file:
            file.write("A long line about the sea and its tides. " * 30)
        cls.client = subprocess.Popen([
            tidepool, "generate", f"--worker={worker.address}", f"--prompt-file={prompt}", "--max-tokens=6000",
            "--ignore-eos", "--preset=snapkv", "--budget=0.3", "--recall=sync"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        cls.addClassCleanup(cls.client.wait)
        cls.addClassCleanup(cls.client.kill)

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=LIMIT_S) as response:
            return response.headers["Content-Type"], response.read().decode()

    def picture(self):
        kind, text = self.get("picture.json")
        self.assertEqual(kind, "application/json")
        return json.loads(text)

    def decoding(self):
        """A picture of the sequence when rows have been evicted and recalled."""
        while True:
            picture = self.picture()
            for sequence in picture["sequences"]:
                if sequence["phase"] == "decode" and sum(recalled for _, recalled in sequence["layers"]) > 0:
                    return picture, sequence

    def test_the_picture_is_of_what_runs(self):
        picture, sequence = self.decoding()
        self.assertEqual(len(picture["sequences"]), 1)
        self.assertEqual(sequence["tenant"], TENANT)
        self.assertEqual(sequence["preset"], "snapkv")
        self.assertEqual(sequence["rows"], sequence["computed"] * KV_HEADS)
        self.assertEqual(len(sequence["layers"]), LAYERS)
        for kept, recalled in sequence["layers"]:
            self.assertGreater(kept, 0)
            self.assertLess(kept + recalled, 0.5 * sequence["rows"])  # of 0.3
        self.assertEqual(picture["running"], 1)
        tiers = picture["tiers"]
        self.assertGreater(tiers["device_used_bytes"], 0)
        self.assertGreater(tiers["device_bytes"], tiers["device_used_bytes"])
        with self.assertRaises(urllib.error.HTTPError):
            self.get("picture")

    def test_the_page_shows_it(self):
        self.decoding()
        shown = browser.show(self.url, 1000, 700)
        self.assertEqual(shown.console, [])
        sequence = shown.document.one("div", class_="sequence")
        self.assertIn(f"tenant {TENANT}", sequence.text())
        self.assertIn("decode", sequence.text())
        layers = list(sequence.all("div", class_="layer"))
        self.assertEqual(len(layers), LAYERS)
        for layer in layers:
            rows = int(layer.attributes["data-rows"])
            for part, floor in (("kept", 1), ("recalled", 0)):
                of_layer = layer.one("div", class_=part)
                count = int(of_layer.attributes["data-rows"])
                self.assertGreaterEqual(count, floor)
                height = float(re.search(r"height: ([\d.e-]+)%", of_layer.attributes["style"]).group(1))
                self.assertAlmostEqual(height, 100 * count / rows, places=2)
        numbers = {pair.attributes["data-of"]: pair.text() for pair in shown.document.all("dd")}
        self.assertEqual(numbers["running"], "1")
        self.assertRegex(numbers["device"], r"^[\d.]+ [KM]iB of 512.0 MiB$")
        self.assertRegex(numbers["prompt tokens not computed again"], r"^[\d.]+ %$")
        self.assertEqual(shown.document.one("p", id="error").text(), "")
        colours = {shown.pixels.at(x, y) for x in range(0, 400, 3) for y in range(100, 600, 3)}
        self.assertIn(KEPT, colours)
        self.assertIn(RECALLED, colours)

    def test_nothing_comes_from_elsewhere(self):
        kind, text = self.get("")
        self.assertEqual(kind, "text/html; charset=utf-8")
        self.assertEqual(re.findall(r"(?:src|href)=(?!\"data:)|@import|url\(", text), [])

    def test_only_loopback_addresses_are_taken(self):
        run = subprocess.run([tidepool, "serve", "--model=x", "--page-address=0.0.0.0:0", "--data-dir=/tmp"],
                             capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 2)
        self.assertIn("page_address: '0.0.0.0:0' is not a loopback address", run.stderr)


if __name__ == "__main__":
    tidepool = sys.argv.pop(1)
    unittest.main(verbosity=2)
