#!/usr/bin/env python3
"""The system from its images: two workers, three cache pods and clients, each a container on a network of its own.

scripts/test-images builds the images and runs this; without TIDEPOOL_TEST_IMAGES=1, and where containers cannot be had, it is
skipped: exit status 77, with the reason.
"""

import json
import os
import re
import stat
import sys
import tempfile
import unittest

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(SOURCE, "tests/support"))
import containers  # noqa: E402  (no package)
from servers import model_path  # noqa: E402

SKIPPED = 77
USER = 65532
IMAGES = ("cache", "worker", "cli")
MOST_BYTES = 100e6
CACHES = ["10.77.0.10", "10.77.0.11", "10.77.0.12"]
WORKERS = ["10.77.0.20", "10.77.0.21"]
CLIENT = "10.77.0.30"
NAMES = {"tidepool-cache": CACHES, "tidepool-worker": WORKERS}
TLS_CLIENT = [f"--tls-{flag}=/tls/{file}" for flag, file in (("ca", "ca.pem"), ("cert", "client.pem"), ("key", "client.key"))]
# Some 400 tokens, more than the budget keeps.
PROMPT = "".join(f"The boat of {name} is {colour} and left at {hour}. " for hour, (name, colour) in enumerate(
    (name, colour) for name in ("Ada", "Ben", "Cleo", "Dan", "Eve") for colour in ("red", "blue", "green", "white", "black")))


class ImagesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.images = {}
        for name in IMAGES:
            cls.images[name] = containers.Image(name)
            cls.addClassCleanup(cls.images[name].remove)

    def test_an_image_is_small_and_holds_nothing_to_build_or_break_in_with(self):
        for name, image in self.images.items():
            with self.subTest(name):
                files = image.files()
                size = sum(status.st_size for status in files.values() if stat.S_ISREG(status.st_mode))
                print(f"tidepool-{name}: {size / 1e6:.1f} MB, {len(files)} files")
                self.assertLess(size, MOST_BYTES)
                programs = {os.path.basename(path) for path, status in files.items()
                            if stat.S_ISREG(status.st_mode) and status.st_mode & 0o111 and ".so" not in path}
                self.assertEqual(programs, {"tidepool"} | ({f"tidepool-{name}"} - {"tidepool-cli"}))
                for path, status in files.items():
                    self.assertEqual(status.st_mode & (stat.S_ISUID | stat.S_ISGID), 0, path)
                    self.assertEqual(status.st_uid, USER if path == "data" else 0, path)
                    if not stat.S_ISLNK(status.st_mode) and path != "tmp":
                        self.assertEqual(status.st_mode & stat.S_IWOTH, 0, path)
                self.assertEqual(image.user, f"{USER}:{USER}")

    def test_every_package_has_its_pinned_version_and_its_licence(self):
        with open(os.path.join(SOURCE, "deploy/docker/packages.lock"), encoding="utf-8") as file:
            pinned = {line.strip() for line in file if not line.startswith("#")}
        for image in self.images.values():
            found = set()
            folder = os.path.join(image.root, "var/lib/dpkg/status.d")
            for package in os.listdir(folder):
                with open(os.path.join(folder, package), encoding="utf-8") as file:
                    found.add(f"{package}={re.search('^Version: (.*)$', file.read(), re.M)[1]}")
                self.assertGreater(os.path.getsize(os.path.join(image.root, "usr/share/doc", package, "copyright")), 0)
            self.assertEqual(found, pinned)

    def confined(self, container):
        """As the kernel says it of the program."""
        with open(f"/proc/{container.pid()}/status", encoding="utf-8") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        self.assertEqual(set(status["Uid"].split() + status["Gid"].split()), {str(USER)})
        self.assertEqual((status["CapEff"], status["CapPrm"], status["NoNewPrivs"]), ("0" * 16, "0" * 16, "1"))
        self.assertEqual(status["NSpid"].split()[-1], "1")
        with open(f"/proc/{container.pid()}/mountinfo", encoding="utf-8") as file:
            mounts = {fields[4]: fields[5].split(",") for fields in (line.split() for line in file)}
        self.assertIn("ro", mounts["/"])
        self.assertEqual({path for path, options in mounts.items() if "rw" in options} - {"/dev", "/proc"} -
                         {f"/dev/{device}" for device in ("null", "zero", "random", "urandom")},
                         {"/data"} if "/data" in mounts else set())

    def client(self, *arguments, expect=0, **options):
        code, out, err = self.network.run(self.images["cli"], CLIENT, arguments, **options)
        self.assertEqual(code, expect, out + err)
        return out

    def start_caches(self, folder, flags, mounts=None):
        started = []
        for address in CACHES:
            data = os.path.join(folder, address)
            os.mkdir(data)
            os.chown(data, USER, USER)
            started.append(self.network.start(
                self.images["cache"], address, [*flags, "--peers=dns:///tidepool-cache:7070", "--memory-bytes=64MiB",
                                                "--disk-bytes=1GiB"], mounts={data: ("/data", "rw"), **(mounts or {})}))
        for container in started:
            container.wait_for_output("listening on")
        return started

    def start_workers(self, addresses, flags, mounts=None):
        started = [self.network.start(
            self.images["worker"], address, [*flags, "--model=/models/model.gguf", "--threads=1", "--drain-time=120",
                                             "--cache=dns:///tidepool-cache:7070"],
            mounts={model_path(): ("/models/model.gguf", "ro"), **(mounts or {})}) for address in addresses]
        for container in started:
            container.wait_for_output("listening on")
        return started

    def turn(self, worker, session, prompt, tokens):
        """Text and usage of an answer in a session."""
        lines = [json.loads(line) for line in self.client(
            "generate", f"--worker={worker}:7071", f"--session={session}", f"--prompt={prompt}", "--preset=snapkv",
            "--budget=0.2", "--recall=sync", f"--max-tokens={tokens}", "--ignore-eos", "--temperature=0", "--json").splitlines()]
        return "".join(line.get("tokens", {}).get("text", "") for line in lines), lines[-1]

    def test_a_session_goes_on_at_another_worker_when_its_own_is_drained(self):
        with containers.Network(NAMES) as self.network, tempfile.TemporaryDirectory(prefix="tidepool-test-") as folder:
            caches = self.start_caches(folder, ["--insecure"])
            workers = self.start_workers(WORKERS, ["--insecure"])
            for container in caches + workers:
                self.confined(container)
            for image, addresses in (("cache", CACHES), ("worker", WORKERS)):
                for address in addresses:
                    check = self.images[image].health_check
                    self.assertEqual(self.network.run(self.images[image], address, command=check)[0], 0, check)
            self.client("health", f"{CLIENT}:7071", expect=3)

            # What the session would say if it stayed where it is.
            stayed = [self.turn(WORKERS[1], "stays", PROMPT, 24)[0], self.turn(WORKERS[1], "stays", " Then the", 24)[0]]
            self.assertEqual(self.turn(WORKERS[0], "moves", PROMPT, 24)[0], stayed[0])

            # The first worker is told to end while it answers.
            answer = self.network.start(self.images["cli"], CLIENT, [
                "generate", f"--worker={WORKERS[0]}:7071", "--prompt=The tide", "--max-tokens=256", "--ignore-eos", "--json"])
            answer.wait_for_output('"tokens"')
            workers[0].terminate()
            self.assertEqual(answer.process.wait(containers.LIMIT_S), 0, answer.said()[1])
            finished = json.loads(answer.said()[0].splitlines()[-1])
            self.assertEqual(finished["finished"]["usage"]["generated_tokens"], 256)
            self.assertEqual(workers[0].process.wait(containers.LIMIT_S), 0, workers[0].said()[1])
            self.client("health", f"{WORKERS[0]}:7071", expect=3)

            text, finished = self.turn(WORKERS[1], "moves", " Then the", 24)
            self.assertEqual(text, stayed[1])
            usage = finished["finished"]["usage"]
            self.assertGreater(usage["cached_prompt_tokens"], 300, usage)

            stats = json.loads(self.client("admin", "stats", f"--worker={WORKERS[1]}:7071", "--json"))
            self.assertEqual((stats["requests_finished"], stats["requests_failed"], stats["lost_rows"]), (3, 0, 0), stats)
            self.assertEqual([pod["state"] for pod in stats["cache_pods"]], ["STATE_UP"] * 3)
            blocks = []
            for address in CACHES:
                held = json.loads(self.client("admin", "stats", f"--cache={address}:7070", "--json"))
                blocks.append(held["memory"]["objects"])
            self.assertGreater(min(blocks), 0, blocks)
            print(f"blocks of the three pods: {blocks}; {usage['cached_prompt_tokens']} tokens of the moved session not "
                  "computed again")
            for container in caches:
                container.terminate()
            for container in caches:
                self.assertEqual(container.process.wait(containers.LIMIT_S), 0, container.said()[1])

    def test_over_mutual_tls_a_cache_pod_is_drained_onto_the_others(self):
        with containers.Network(NAMES) as self.network, tempfile.TemporaryDirectory(prefix="tidepool-test-") as folder:
            certificates = os.path.join(folder, "tls")
            containers.run(os.path.join(SOURCE, "scripts/make-dev-certs"), certificates, "--host", "tidepool-cache")
            for name in os.listdir(certificates):
                os.chown(os.path.join(certificates, name), USER, USER)
            mounts = {certificates: ("/tls", "ro")}
            os.chmod(certificates, 0o755)

            def tls(who):
                return ["--tls-ca=/tls/ca.pem", f"--tls-cert=/tls/{who}.pem", f"--tls-key=/tls/{who}.key", "--tls-require-client"]

            caches = self.start_caches(folder, tls("server"), mounts)
            self.start_workers(WORKERS[:1], tls("worker"), mounts)
            worker = [f"--worker={WORKERS[0]}:7071", *TLS_CLIENT, "--tls-server-name=localhost"]
            cache = [f"--cache={CACHES[0]}:7070", *TLS_CLIENT, "--tls-server-name=tidepool-cache"]
            generate = ["generate", *worker, "--session=s", "--max-tokens=64", "--ignore-eos", "--json"]
            self.client(*generate, f"--prompt={PROMPT}", mounts=mounts)
            drained = self.client("admin", "drain", *cache, mounts=mounts)
            caches[0].terminate()
            self.assertEqual(caches[0].process.wait(containers.LIMIT_S), 0, caches[0].said()[1])
            finished = json.loads(self.client(*generate, "--prompt= Then the", mounts=mounts).splitlines()[-1])
            self.assertGreater(finished["finished"]["usage"]["cached_prompt_tokens"], 300, drained)


if __name__ == "__main__":
    why = "scripts/test-images runs it" if os.environ.get("TIDEPOOL_TEST_IMAGES") != "1" else containers.missing()
    if why is not None:
        print(f"images_test: skipped: {why}")
        sys.exit(SKIPPED)
    containers.enter_namespaces()
    unittest.main(verbosity=2)
