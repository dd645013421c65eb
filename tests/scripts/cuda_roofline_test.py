"""scripts/cuda-roofline against sums done by hand, and docs/cuda-roofline.md against the script."""

import json
import os
import subprocess
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCRIPT = os.path.join(ROOT, "scripts", "cuda-roofline")


def run(*arguments):
    return subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, check=False)


def table(*arguments):
    return json.loads(run("--format=json", *arguments).stdout)


class CudaRooflineTest(unittest.TestCase):
    def test_bytes_of_a_step(self):
        kernels = {row["kernel"]: row for row in table("--table=kernels", "--device=h200", "--context=8192", "--resident=1")}
        # 8,192 rows x 8 kv heads x 32 layers x 512 bytes, and 66 splits x 32 heads x 130 floats x 32 layers of partial results.
        self.assertAlmostEqual(kernels["AttendSplit"]["MB"], (8192 * 8 * 32 * 512 + 66 * 32 * 130 * 4 * 32) / 1e6, delta=0.1)
        # 28,672 x 4,096 weights in 18.5 bytes for 32, 1.375 bytes an input, 4 an output.
        self.assertAlmostEqual(kernels["MatVec gate, up"]["MB"], 32 * (28672 * 4096 * 18.5 / 32 + 4096 * 1.375 + 28672 * 4) / 1e6, delta=0.1)
        self.assertEqual(kernels["all"]["launches"], 322)  # 10 a layer, the last norm, the logits

    def test_time_is_that_of_the_bound(self):
        row = next(r for r in table("--table=kernels", "--device=h200", "--launch_us=0", "--bandwidth=1") if r["kernel"] == "MatVec down")
        self.assertEqual(row["bound"], "memory")
        self.assertAlmostEqual(row["us"], row["MB"] / 4.8, delta=1)

    def test_what_does_not_fit_is_said(self):
        rows = {(r["context"], r["batch"]): r for r in table("--table=decode", "--device=h100")}
        # 8 x 17.2 GB
        self.assertEqual(rows[131072, 8]["100% tokens/s"], "does not fit")
        self.assertAlmostEqual(rows[131072, 8]["KV full, GB"], 137.4)
        self.assertGreater(rows[131072, 8]["10% tokens/s"], 0)

    def test_recall_traffic(self):
        row = table("--table=recall", "--device=h200", "--slots=64", "--turnover=0.05")[0]
        self.assertAlmostEqual(row["recalled, MB"], 0.42, delta=0.005)  # 256 heads x 64 x 0.05 x 512 bytes
        row = table("--table=recall", "--device=h200", "--turnover=1")[0]
        self.assertAlmostEqual(row["100 GbE, ms"], 256 * 64 * 512 / 11e9 * 1e3, delta=0.01)

    def test_prompts(self):
        row = table("--table=prefill", "--device=h200")[0]
        self.assertAlmostEqual(row["attention, TFLOP"], 2 * 4096 * 8192**2 * 32 / 1e12, delta=0.06)

    def test_names_what_is_out_of_range(self):
        out = run("--turnover=2")
        self.assertEqual(out.returncode, 2)
        self.assertIn("--turnover: 2.0 is not in (0, 1]", out.stderr)

    def test_the_page_shows_what_the_script_prints(self):
        with open(os.path.join(ROOT, "docs", "cuda-roofline.md"), encoding="utf-8") as page:
            text = page.read()
        commands = [line.strip().split()[1:] for line in text.splitlines() if line.startswith("    scripts/cuda-roofline ")]
        self.assertGreaterEqual(len(commands), 6)
        for command in commands:
            lines = [line for line in run(*command).stdout.splitlines() if line.startswith("|")]
            self.assertIn("\n".join(lines), text, " ".join(command))


if __name__ == "__main__":
    unittest.main()
