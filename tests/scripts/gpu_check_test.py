"""scripts/gpu-check on machines that are not as it wants them: an nvidia-smi and binaries of the test's own."""

import json
import os
import stat
import subprocess
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
H200 = "NVIDIA H200, 580.159.04, 9.0, 143771, 143100"
PASSES = "[==========] 3 tests from 1 test suite ran. (5 ms total)\n[  PASSED  ] 3 tests.\n"
FAILS = ("[  PASSED  ] 2 tests.\n[  FAILED  ] 1 test, listed below:\n"
         "[  FAILED  ] Shapes/AttendTest.PromptsSeeOldRows/2, where GetParam() = 64x2\n\n 1 FAILED TEST\n")
ROW = {"context": 8192, "batch": 1, "resident": 1.0, "step_ms": 2.0, "tokens_per_s": 500.0, "kv_bytes": 1.0e9, "weight_bytes": 3.8e9,
       "finite": True, "recall_step_ms": 0, "recall_alone_ms": 0, "recalled_bytes": 0}
RECALLS = dict(ROW, resident=0.1, tokens_per_s=600.0, recall_step_ms=2.1, recall_alone_ms=0.4, recalled_bytes=1.5e6)


class GpuCheckTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.tools, self.binaries = os.path.join(self.folder.name, "tools"), os.path.join(self.folder.name, "bin")
        for folder in (self.tools, self.binaries):
            os.mkdir(folder)

    def script(self, folder, name, text):
        path = os.path.join(folder, name)
        with open(path, "w", encoding="utf-8") as out:
            out.write("#!/bin/sh\n" + text)
        os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)

    def prints(self, folder, name, text, status=0):
        with open(os.path.join(self.folder.name, name + ".out"), "w", encoding="utf-8") as out:
            out.write(text)
        self.script(folder, name, f"cat '{out.name}'\nexit {status}\n")

    def card(self, line):
        self.prints(self.tools, "nvidia-smi", line + "\n")

    def all_binaries(self, rows=(ROW, RECALLS)):
        for name in ("kernels_cuda_test", "cuda_backend_test", "device_test"):
            self.prints(self.binaries, name, PASSES)
        lines = os.path.join(self.folder.name, "rows")
        with open(lines, "w", encoding="utf-8") as out:
            out.write("".join(json.dumps(row) + "\n" for row in rows))
        self.script(self.binaries, "device_speed", f"""for a in "$@"; do case $a in --json=*) cat '{lines}' > "${{a#--json=}}";; esac; done
echo " 131072     8   does not fit"
""")

    def run_check(self, *arguments):
        environment = dict(os.environ, PATH=self.tools + ":/usr/bin:/bin")
        return subprocess.run(["/usr/bin/python3", os.path.join(ROOT, "scripts", "gpu-check"), *arguments], capture_output=True, text=True,
                              check=False, env=environment)

    def fails(self, message, *arguments):
        done = self.run_check(*(arguments or ("--binaries", self.binaries)))
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn(message, done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        return done

    def test_a_machine_on_which_all_is_well(self):
        self.card(H200)
        self.all_binaries()
        report = os.path.join(self.folder.name, "report.json")
        done = self.run_check("--binaries", self.binaries, "--json", report)
        self.assertEqual(done.returncode, 0, done.stderr)
        # 4.8 GB in 2 ms of 4,800 GB/s
        self.assertRegex(done.stdout, r"8192 +1 +100% +500 +2\.00 +1\.00 +50% +1\.00")
        # 0.1 ms of the 0.4 that 1.5 MB take alone
        self.assertRegex(done.stdout, r"8192 +1 +10% +600 .* 1\.20 +1\.50 +75%")
        self.assertIn("context 131072, batch 8: the full cache does not fit", done.stdout)
        with open(report, encoding="utf-8") as out:
            found = json.load(out)
        self.assertEqual(found["card"]["bandwidth_gb"], 4800)
        self.assertEqual([test["passed"] for test in found["tests"]], [3, 3, 3])

    def test_no_driver(self):
        self.fails("nvidia-smi is not there: install NVIDIA's driver")

    def test_a_driver_that_does_not_run(self):
        self.prints(self.tools, "nvidia-smi", "Failed to initialize NVML: Driver/library version mismatch", 18)
        done = self.fails("nvidia-smi fails, so the driver does not run")
        self.assertIn("version mismatch", done.stderr)

    def test_cards_that_will_not_do(self):
        for line, message in (("NVIDIA H200, 535.104, 9.0, 143771, 143100", "driver 535.104 is older than 580"),
                              ("Tesla T4, 580.1, 7.5, 15360, 15000", "compute capability 7.5; the kernels need 8.0"),
                              ("NVIDIA H200, 580.1, 9.0, 143771, 100", "100 of 143771 MiB are free"),
                              ("NVIDIA H200, 580.1, [N/A], 143771, 143000", "of which a number was expected"),
                              ("NVIDIA H200, 580.1", "is the driver older than 580")):
            self.card(line)
            self.fails(message)
        self.card(H200)
        self.fails("--device 3: there are 1 cards", "--device", "3")

    def test_no_compiler(self):
        self.card(H200)
        if os.path.exists("/usr/local/cuda/bin/nvcc"):
            self.prints(self.tools, "nvcc", "Cuda compilation tools, release 11.8, V11.8.89\n")
            self.fails("is of CUDA 11.8; 13.0 or later is needed", "--no-install")
        else:
            self.fails("nvcc is not there: install the CUDA toolkit 13", "--no-install")

    def test_binaries_that_are_not_there(self):
        self.card(H200)
        self.fails("lacks kernels_cuda_test, cuda_backend_test, device_test, device_speed")

    def test_a_test_that_fails_is_named(self):
        self.card(H200)
        self.all_binaries()
        self.prints(self.binaries, "kernels_cuda_test", FAILS, 1)
        done = self.fails("tests: 1 failed, named above")
        self.assertIn("Shapes/AttendTest.PromptsSeeOldRows/2", done.stdout)
        self.assertIn("kernels_cuda_test: 2 passed, 1 failed", done.stdout)

    def test_a_test_that_crashes_shows_its_last_words(self):
        self.card(H200)
        self.all_binaries()
        self.prints(self.binaries, "cuda_backend_test", "cuda: the device's work: an illegal memory access was encountered\n", 134)
        done = self.fails("tests: 1 failed")
        self.assertIn("an illegal memory access", done.stdout)

    def test_measurements_that_fail(self):
        self.card(H200)
        self.all_binaries(rows=(dict(ROW, finite=False),))
        self.fails("some logits are not finite numbers")
        self.all_binaries(rows=())
        self.fails("nothing fits")
        self.prints(self.binaries, "device_speed", "device memory: 5 bytes are wanted\n", 1)
        done = self.fails("device_speed ended with 1")
        self.assertIn("5 bytes are wanted", done.stderr)


if __name__ == "__main__":
    unittest.main()
