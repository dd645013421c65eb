#!/usr/bin/env python3
"""The page of `tidepool inspect` as a browser shows it: what it draws is what the run reported, cell by cell.

  inspect_page_test.py TIDEPOOL [arguments of unittest]
"""

import base64
import json
import math
import os
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import browser  # noqa: E402

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
POLICIES = ["d2o", "ada-snapkv", "lighttransfer", "snapkv+sync"]
FATES = ["evicted", "merged", "recalled", "kept"]  # by code
KV_ROW_BYTES = 2 * 64 * 2  # K and V, 64 channels, 16 bits: of SmolLM2-135M
tidepool = model = ""


def text_of_the_test():
    """Some 360 tokens with a tag in it, which must be shown, not obeyed."""
    with open(os.path.join(SOURCE, "LICENSE"), encoding="utf-8") as file:
        return "<script>alert(1)</script>" + file.read()[:1750]


class Policy:
    """A policy of the run, unpacked here, independently of the page's script."""

    def __init__(self, data, policy):
        self.json = policy
        self.label, self.tokens = policy["label"], policy["tokens"]
        self.rows = data["model"]["layers"] * data["model"]["kv_heads"]
        packed, line = base64.b64decode(policy["fates"]), -(-self.tokens // 4)
        at = [(i // 4, 2 * (i % 4)) for i in range(self.tokens)]
        self.fates = [[FATES[packed[row * line + i] >> shift & 3] for i, shift in at] for row in range(self.rows)]
        steps = base64.b64decode(policy.get("recall_steps", ""))
        self.steps = [list(steps[row * self.tokens : (row + 1) * self.tokens]) for row in range(self.rows)]

    def total(self, fate):
        return sum(row.count(fate) for row in self.fates)

    def mean(self, key):
        return sum(self.json["heads"][key]) / self.rows

    def most_steps(self):
        return max((steps for row in self.steps for steps in row), default=0)


def colours_of(css, dark):
    """The palette of the style sheet, light first."""
    palette = {}
    for name in [*FATES, "recalled-once", "ink"]:
        values = [part.split(";")[0].strip() for part in css.split(f"--{name}:")[1:]]
        palette[name] = tuple(int(values[dark][i : i + 2], 16) for i in (1, 3, 5))
    return palette


def close(a, b, by=1):
    return all(abs(x - y) <= by for x, y in zip(a, b))


def recalled_colour(palette, steps, most):
    strength = math.log(max(1, steps)) / math.log(most) if most > 1 else 1
    return tuple(a + (b - a) * strength for a, b in zip(palette["recalled-once"], palette["recalled"]))


class InspectPageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.directory.cleanup)
        prompt, cls.page = (os.path.join(cls.directory.name, name) for name in ("prompt.txt", "page.html"))
        with open(prompt, "w", encoding="utf-8") as file:
            file.write(text_of_the_test())
        run = subprocess.run(
            [tidepool, "inspect", f"--model={model}", f"--prompt-file={prompt}", "--question=What is a Contribution?",
             "--max-tokens=6", "--ignore-eos", "--budget=0.25", f"--policy={','.join(POLICIES)}", f"--out={cls.page}",
             "--json"],
            capture_output=True, text=True, check=False)  # fmt: skip
        if run.returncode != 0:
            raise RuntimeError(f"tidepool inspect: exit status {run.returncode}: {run.stderr}")
        cls.data = json.loads(run.stdout)
        cls.policies = [Policy(cls.data, policy) for policy in cls.data["policies"]]
        cls.light = browser.show(cls.page, 1280, 3300)
        cls.dark = browser.show(cls.page, 1920, 2400, dark=True)

    def setUp(self):
        self.document = self.light.document

    def figure(self, shown, policy):
        return shown.document.one("figure", class_="map", data_policy=policy.label)

    def test_no_script_fails_and_nothing_is_loaded(self):
        for shown in (self.light, self.dark):
            self.assertEqual(shown.console, [])
            self.assertEqual(shown.document.one("html").attributes.get("data-drawn"), "true")
            for element in shown.document.all():
                for name in ("src", "href", "action"):
                    self.assertIn(element.attributes.get(name, "data:,"), ("data:,",))

    def test_an_error_in_a_script_would_be_seen(self):
        with open(self.page, encoding="utf-8") as file:
            page = file.read()
        broken = os.path.join(self.directory.name, "broken.html")
        with open(broken, "w", encoding="utf-8") as file:
            file.write(page.replace('"format":1', '"format":1,'))  # the data do not parse
        shown = browser.show(broken, 800, 600)
        self.assertIn("SyntaxError", "".join(shown.console))
        self.assertIsNone(shown.document.one("html").attributes.get("data-drawn"))

    def test_the_data_are_those_that_the_command_prints(self):
        self.assertEqual(json.loads(self.document.one("script", id="data").text()), self.data)
        self.assertEqual([policy.label for policy in self.policies], POLICIES)

    def test_the_counts_are_those_of_the_fates(self):
        for policy in self.policies:
            counts = {fate: policy.total(fate) for fate in FATES}
            for fate in FATES:
                self.assertEqual(policy.json["rows"][fate], counts[fate])
                self.assertEqual(policy.json["heads"][fate], [row.count(fate) for row in policy.fates])
            self.assertEqual(sum(counts.values()), policy.rows * policy.tokens)
            for key in ("prompt_attention", "later_kept", "later_recalled"):
                whole = policy.json["attention"][key.removesuffix("_attention")]
                self.assertAlmostEqual(whole, policy.mean(key), places=5)
            self.assertEqual(policy.json["bytes"]["full"], policy.rows * policy.tokens * KV_ROW_BYTES)
            held = counts["kept"] + policy.json["rows"]["recall_slots"]
            self.assertGreaterEqual(policy.json["bytes"]["device"], held * KV_ROW_BYTES)
            self.assertEqual("sync" in policy.label, counts["recalled"] > 0)
            self.assertEqual(policy.label == "d2o", counts["merged"] > 0)
            self.assertAlmostEqual(held / policy.rows / policy.tokens, 0.25, delta=0.02)

    def check_percent(self, text, share):
        shown, unit = text.split(" ")
        self.assertEqual(unit, "%")
        self.assertAlmostEqual(float(shown), 100 * share, delta=0.051 if "." in shown else 0.501)

    def test_the_table_has_the_numbers_of_the_run(self):
        for policy in self.policies:
            line = self.document.one("tr", data_policy=policy.label)
            cells = {cell.attributes["data-key"]: cell for cell in line.all("td")}
            for fate in FATES:
                total = policy.total(fate)
                self.assertEqual(cells[fate].attributes["data-value"], str(total))
                self.check_percent(cells[fate].children[0], total / (policy.rows * policy.tokens))
                if total > 0:
                    self.assertEqual(next(cells[fate].all("small")).text(), f"{total:,} row" + "s" * (total != 1))
            later = policy.mean("later_kept") + policy.mean("later_recalled")
            for key, share in (("prompt_attention", policy.mean("prompt_attention")), ("later_attention", later)):
                self.assertAlmostEqual(float(cells[key].attributes["data-value"]), share, places=5)
                self.check_percent(cells[key].children[0], share)
                bars = [float(bar.attributes["style"].split("width:")[1].rstrip(" ;%")) for bar in cells[key].all("i")]
                self.assertAlmostEqual(sum(bars), 100 * share, places=2)
            self.assertEqual(cells["device"].attributes["data-value"], str(policy.json["bytes"]["device"]))
            answer = self.document.one("div", id="answers").one("div", data_policy=policy.label)
            self.assertEqual(answer.one("p", class_="answer").text(), policy.json["answer"])

    def colour(self, policy, palette, row, position, most):
        fate = policy.fates[row][position]
        return recalled_colour(palette, policy.steps[row][position], most) if fate == "recalled" else palette[fate]

    def check_heat_map(self, shown, policy, palette, most):
        canvas = self.figure(shown, policy).one("canvas", class_="heat").attributes
        left, top = (int(canvas[f"data-{side}"]) for side in ("left", "top"))
        width, line = int(canvas["width"]), self.line_height(policy)
        self.assertGreater(width, policy.tokens, "a column of pixels for each token")
        seen = set()
        for row in range(policy.rows):
            y = top + row * line + row // self.data["model"]["kv_heads"] + line // 2
            for position in range(policy.tokens):
                x = left + int((position + 0.5) * width / policy.tokens)
                wanted, pixel = self.colour(policy, palette, row, position, most), shown.pixels.at(x, y)
                if not close(pixel, wanted):
                    self.fail(f"{policy.label}, row {row}, token {position}: {pixel} instead of {wanted}")
                seen.add(policy.fates[row][position])
        return seen

    def line_height(self, policy):
        return min(18, max(2, 300 // policy.rows))

    def test_every_cell_of_the_heat_maps_has_the_colour_of_its_fate(self):
        css = self.document.one("style").text()
        most = max(policy.most_steps() for policy in self.policies)
        for shown, dark in ((self.light, False), (self.dark, True)):
            palette, seen = colours_of(css, dark), set()
            self.assertEqual(len({palette[fate] for fate in FATES}), 4)
            for policy in self.policies:
                seen |= self.check_heat_map(shown, policy, palette, most)
            self.assertEqual(seen, set(FATES))

    def check_bars(self, policy, name, palette, shares):
        """shares(row): of the bar's width, by colour. The dotted line of the mean is left out."""
        canvas = self.figure(self.light, policy).one("canvas", class_=name).attributes
        left, top = (int(canvas[f"data-{side}"]) for side in ("left", "top"))
        width, line = int(canvas["width"]), self.line_height(policy)
        for row in range(policy.rows):
            y = top + row * line + row // self.data["model"]["kv_heads"] + line // 2
            pixels = [self.light.pixels.at(left + x, y) for x in range(width)]
            for colour, share in shares(row).items():
                drawn = sum(close(pixel, palette[colour]) for pixel in pixels)
                where = f"{policy.label}, {name}, row {row}, {colour}"
                self.assertAlmostEqual(drawn, share * width, delta=3, msg=where)

    def test_the_bars_are_as_long_as_what_they_show(self):
        palette = colours_of(self.document.one("style").text(), dark=False)
        for policy in self.policies:
            of, figure = policy.json["heads"], self.figure(self.light, policy)
            full = float(figure.one("canvas", class_="budget").attributes["data-scale"])
            self.check_bars(policy, "budget", palette, lambda row: {
                "kept": of["kept"][row] / policy.tokens / full,
                "recalled": of["recall_slots"][row] / policy.tokens / full})  # fmt: skip
            self.check_bars(policy, "attention", palette, lambda row: {
                "kept": of["later_kept"][row], "recalled": of["later_recalled"][row]})  # fmt: skip
            held = (policy.total("kept") + sum(of["recall_slots"])) / (policy.rows * policy.tokens)
            self.assertAlmostEqual(float(figure.one("b", data_key="held").attributes["data-value"]), held, places=5)
            self.check_percent(figure.one("b", data_key="held").text().removeprefix("mean "), held)

    def test_the_text_is_shown_token_by_token(self):
        for policy in self.policies:
            card = self.document.one("div", id="texts").one("div", data_policy=policy.label)
            tokens = [span for span in card.all("span") if "data-i" in span.attributes]
            pieces = self.data["pieces"] + policy.json["generated"]
            self.assertEqual(len(tokens), policy.tokens)
            for i, span in enumerate(tokens):
                self.assertEqual(span.text(), pieces[i].replace(" ", "\u00b7").replace("\n", "\u21b5\n"))
                gone = sum(row[i] == "evicted" for row in policy.fates)
                self.assertEqual(span.attributes["data-gone"], str(gone))
                self.assertEqual("none" in span.attributes["style"].split("color")[0], gone == policy.rows)
        self.assertTrue("".join(self.data["pieces"]).startswith("<script>alert(1)</script>"))


if __name__ == "__main__":
    tidepool = sys.argv[1]
    models = os.environ.get("TIDEPOOL_MODEL_DIR") or os.path.join(SOURCE, "models")
    model = os.path.join(models, "SmolLM2-135M-Instruct.Q4_1.gguf")
    if not os.path.exists(model):
        sys.exit(f"{model} is missing: run scripts/fetch-models")
    unittest.main(argv=sys.argv[:1] + sys.argv[2:])
