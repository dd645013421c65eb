#!/usr/bin/env python3
"""What `cmake --install` puts under a prefix is enough to build a program against the client library, and to serve it.

  install_test.py BUILD_FOLDER CXX_COMPILER [arguments of unittest]
"""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "support"))
from servers import SOURCE, Server  # noqa: E402

HEADERS = {"client/admin_client.h", "client/generation_call.h", "client/generation_client.h",
           "client/routed_client.h", "security/rpc/channel_security.h", "tidepool/v1/cache_admin.pb.h", "tidepool/v1/generation.pb.h"}
build = compiler = ""


def run(*arguments):
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)}\n{result.stdout}\n{result.stderr}")
    return result.stdout


def files_under(folder):
    return {os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names}


class InstallTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.folder, cls.prefix = directory.name, os.path.join(directory.name, "prefix")
        run("cmake", "--install", build, "--prefix", cls.prefix)

    def test_there_is_what_users_need_and_nothing_else(self):
        self.assertEqual(files_under(f"{self.prefix}/include/tidepool"), HEADERS)
        self.assertEqual(files_under(f"{self.prefix}/bin"),
                         {"tidepool", "tidepool-cache", "tidepool-http", "tidepool-worker"})
        self.assertEqual(files_under(f"{self.prefix}/share/tidepool/proto"), files_under(f"{SOURCE}/proto") - {
            "CMakeLists.txt"})
        self.assertEqual({path.split("/")[0] for path in files_under(self.prefix)}, {"bin", "include", "lib", "share"})
        for path in files_under(self.prefix):
            if path.endswith(".cmake"):
                with open(os.path.join(self.prefix, path), encoding="utf-8") as file:
                    self.assertNotIn(os.path.realpath(SOURCE), file.read(), path)

    def test_a_program_builds_against_it_and_streams_from_its_worker(self):
        made = os.path.join(self.folder, "example")
        launcher = shutil.which("ccache")
        run("cmake", "-G", "Ninja", "-S", os.path.join(HERE, "example"), "-B", made, f"-DCMAKE_CXX_COMPILER={compiler}",
            f"-DCMAKE_PREFIX_PATH={self.prefix}", *([f"-DCMAKE_CXX_COMPILER_LAUNCHER={launcher}"] if launcher else []))
        run("cmake", "--build", made)
        worker = Server(self.folder, "worker", [
            f"{self.prefix}/bin/tidepool", "serve", "--device-kv-bytes=32MiB", f"--data-dir={self.folder}/data",
            f"--model={SOURCE}/tests/data/tiny_models/llama_f32.gguf"])
        self.addCleanup(worker.end)
        example = os.path.join(made, "example")
        self.assertRegex(run(example, worker.address, "The tide", "streaming"), r"(?s).*\n8 tokens\n0 sessions\n$")
        refused = subprocess.run([example, worker.address, "The tide", "best"], capture_output=True, text=True,
                                 check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("compression.preset", refused.stderr)


if __name__ == "__main__":
    build, compiler = sys.argv.pop(1), sys.argv.pop(1)
    unittest.main(verbosity=2)
