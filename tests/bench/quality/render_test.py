#!/usr/bin/env python3
"""Tests of bench/quality/render.py: the table holds what the cells hold, the plot is well-formed and draws every line."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
SVG = "{http://www.w3.org/2000/svg}"


def cell(preset, budget, recall, suite, length, metrics, **others):
    one = {"preset": preset, "budget": budget, "recall": recall, "suite": suite, "length": length, "metrics": metrics,
           "resident": budget, "index": 0.0, "index_on_device": False, "staged_bytes": 0, "rows_per_step": 0.0, "late_rows": 0,
           "lost_rows": 0}
    return dict(one, **others)


def lookup(right):
    return {"questions": 40, "turn": right, "step1": right - 3, "step2": right - 1}


CELLS = [
    cell("full", 1, "off", "lookup", 500, lookup(40)),
    cell("snapkv", 0.2, "off", "lookup", 500, lookup(4)),
    cell("snapkv", 0.2, "async", "lookup", 500, lookup(39), index=0.15, staged_bytes=2 << 20, rows_per_step=226.4, late_rows=5),
    cell("snapkv", 0.1, "off", "lookup", 500, lookup(3)),
    cell("full", 1, "off", "text", 2048, {"texts": 3, "nll": 2.4739, "loss": 0}),
    cell("a<b", 0.2, "off", "text", 2048, {"texts": 3, "nll": 2.6, "loss": 0.1261}),
]


class Render(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def render(self, *files):
        paths = []
        for i, cells in enumerate(files):
            paths.append(os.path.join(self.folder.name, f"{i}.json"))
            with open(paths[-1], "w", encoding="utf-8") as file:
                json.dump(cells, file)
        svg = os.path.join(self.folder.name, "plot.svg")
        script = os.path.join(ROOT, "bench", "quality", "render.py")
        done = subprocess.run([sys.executable, script, *paths, "--svg", svg], capture_output=True, text=True, check=True)
        return done.stdout, xml.etree.ElementTree.parse(svg).getroot()

    def test_a_row_is_a_policy_a_budget_and_a_mode_of_recall(self):
        table, _ = self.render(CELLS)
        lines = table.splitlines()
        self.assertIn("| full |  |  | 40 | 100.0 | 0 | 0.0 | 0 | 0 | 0 |", lines)
        self.assertIn("| snapkv | 0.2 | async | 39 (36, 38) | 20.0 | 15.0 host | 2.0 | 226 | 5 | 0 |", lines)
        self.assertIn("| full |  |  | 2.474 | 100.0 | 0 | 0.0 | 0 | 0 | 0 |", lines)
        self.assertIn("| a<b | 0.2 | off | +0.126 | 20.0 | 0 | 0.0 | 0 | 0 | 0 |", lines)

    def test_every_row_has_the_columns_of_its_head(self):
        for block in self.render(CELLS)[0].strip().split("\n\n"):
            self.assertEqual(len({line.count("|") for line in block.splitlines()}), 1)

    def test_a_later_file_replaces_cells_of_an_earlier_one(self):
        table, _ = self.render(CELLS, [cell("snapkv", 0.2, "off", "lookup", 500, lookup(9))])
        self.assertIn("| snapkv | 0.2 | off | 9 |", table)
        self.assertNotIn("| snapkv | 0.2 | off | 4 |", table)

    def test_standard_errors_stand_beside_what_they_are_of(self):
        needles = {"questions": 8, "nll": 0.1712, "nll_error": 0.0483, "first": 0.95, "exact": 0.8}
        table, _ = self.render([cell("d2o", 0.2, "sync:pq16x4", "multi-unknown", 2048, needles)])
        self.assertIn("| d2o | 0.2 | sync:pq16x4 | 0.171 ± 0.048 (0.95) |", table)

    def test_a_preset_is_compared_with_kvpress_question_by_question(self):
        def one(preset, budget, items):
            metrics = {"questions": len(items), "nll": sum(items) / len(items), "first": 0.5, "exact": 0}
            return cell(preset, budget, "off", "multi-visible", 2048, metrics, items=items)

        cells = [one("full", 1, [0.1, 0.3]), one("snapkv", 0.2, [1.1, 1.5]), one("tova", 0.2, [1, 1]),
                 one("kvpress full", 1, [0.2, 0.2]), one("kvpress snapkv", 0.2, [1.0, 1.5]), one("kvpress tova", 0.2, [1, 1, 1])]
        table, _ = self.render(cells)
        # 1.0, 1.2 above our full cache and 0.8, 1.3 above theirs; another number of questions is not compared.
        self.assertIn("| snapkv | 0.2 | multi-visible 2,048 | 2 | +1.100 | +1.050 | +0.050 ± 0.150 |", table)
        self.assertNotIn("| tova | 0.2 | multi-visible 2,048 | 2 |", table)

    def test_captured_attention_has_a_table_of_its_own_and_no_panel(self):
        mass = [cell("full", 1, "off", f"mass-{name}", 3840, {"rows128": share + 0.1, "rows64": share, "texts": 3})
                for name, share in (("static", 0.3151), ("oracle", 0.6078))]
        table, svg = self.render(CELLS + mass)
        self.assertIn("| captured attention, by selection | B = 64 | B = 128 |", table)
        self.assertIn("| static | 0.315 | 0.415 |", table)
        self.assertIn("| oracle | 0.608 | 0.708 |", table)
        self.assertEqual(self.render(CELLS)[0], "\n\n".join(table.split("\n\n")[:2]) + "\n\n")
        self.assertEqual(svg.get("width"), self.render(CELLS)[1].get("width"))
        alone, _ = self.render(mass)
        self.assertEqual(alone.strip().count("\n\n"), 0)

    def test_the_plot_has_a_line_for_each_policy_and_mode_at_the_right_height(self):
        _, svg = self.render(CELLS)
        self.assertEqual(len(svg.findall(f"{SVG}polyline")), 3)
        circles = {c.find(f"{SVG}title").text: float(c.get("cy")) for c in svg.findall(f"{SVG}circle") if c.find(f"{SVG}title") is not None}
        high, low = circles["snapkv, recall async, 20 %: 39"], circles["snapkv, recall off, 20 %: 4"]
        third = circles["snapkv, recall off, 10 %: 3"]
        self.assertAlmostEqual((low - high) / (third - low), 35, delta=1.5)
        self.assertIn("a<b, recall off, 20 %: 0.126", circles)


if __name__ == "__main__":
    unittest.main()
