#!/usr/bin/env python3
"""The package clients/python, installed by pip, against real workers and a cache service with the small real model.

  client_test.py BIN_FOLDER [arguments of unittest]

Needs packages of PyPI (scripts/fetch-grpc-python). Where they cannot be had the test is skipped: exit status 77, with
the reason.
"""

import gc
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "support"))
from servers import LIMIT_S, SOURCE, Server, model_path  # noqa: E402

SKIPPED = 77
PROMPT = "A long line about the sea and its tides. " * 8
binaries = ""
tidepool_client = grpc = None


def binary(name):
    return os.path.join(binaries, name)


class Cluster:
    """A cache service and workers that share it."""

    def __init__(self, test, workers, worker_flags=()):
        directory = tempfile.TemporaryDirectory()
        test.addClassCleanup(directory.cleanup)
        self.folder = directory.name
        self.flags = [binary("tidepool-worker"), f"--model={model_path()}", "--device-kv-bytes=256MiB", "--threads=1",
                      *worker_flags]
        self.cache = Server(self.folder, "cache", [
            binary("tidepool-cache"), f"--data-dir={self.folder}/data", "--memory-bytes=128MiB"])
        test.addClassCleanup(self.cache.end)
        self.workers, self.started = [], 0
        test.addClassCleanup(self.end_workers)
        for _ in range(workers):
            self.add_worker()

    def add_worker(self):
        self.workers.append(Server(
            self.folder, f"worker{self.started}", [*self.flags, f"--cache={self.cache.address}"]))
        self.started += 1
        return self.workers[-1]

    def end_workers(self):
        for worker in self.workers:
            worker.end()

    @property
    def addresses(self):
        return [worker.address for worker in self.workers]

    def worker_of(self, session_id):
        from tidepool_client.workers import weight
        return max(self.workers, key=lambda worker: weight(session_id, worker.address))


def stats_of(address):
    return subprocess.run([binary("tidepool"), "admin", "stats", f"--worker={address}"], check=True,
                          capture_output=True, text=True).stdout


def running(address):
    return int(re.search(r"(\d+) running", stats_of(address)).group(1))


def finished(address):
    return int(re.search(r"(\d+) finished", stats_of(address)).group(1))


def wait_until_idle(address):
    while running(address) > 0:
        pass


class ClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(cls, workers=1)
        cls.address = cls.cluster.addresses[0]
        cls.client = tidepool_client.Client(cls.address, timeout=LIMIT_S)
        cls.addClassCleanup(cls.client.close)

    def test_an_answer_is_its_pieces(self):
        pieces = list(self.client.generate("The tide", max_tokens=16, logprobs=2))
        self.assertGreater(len(pieces), 1)
        answer = self.client.generate("The tide", max_tokens=16)
        self.assertEqual("".join(piece.text for piece in pieces), answer.text)
        self.assertEqual(sum((piece.ids for piece in pieces), []), answer.ids)
        self.assertEqual(len(answer.ids), 16)
        self.assertEqual(answer.usage.generated_tokens, 16)
        logprobs = sum((piece.logprobs for piece in pieces), [])
        self.assertEqual([logprob.token for logprob in logprobs], answer.ids)
        self.assertEqual({len(logprob.top) for logprob in logprobs}, {2})
        ids = self.client.tokenize("The tide")
        self.assertEqual(self.client.generate(ids, max_tokens=16).ids, answer.ids)
        self.assertEqual(self.client.detokenize(ids), b"The tide")

    def test_a_chat(self):
        answer = self.client.chat([{"role": "system", "content": "You are brief."},
                                   {"role": "user", "content": "Name three fruits."}], max_tokens=24)
        self.assertTrue(answer.text)
        self.assertEqual(self.client.model().chat_template, "smollm2")
        self.assertIn("snapkv", [policy.name for policy in self.client.policies().policies])

    def test_options_reach_the_worker(self):
        text = self.client.generate("The tide", max_tokens=16).text
        stop = " " + text.split(" ")[3]
        answer = self.client.generate("The tide", max_tokens=16, stop=stop)
        self.assertEqual(answer.text, text[:text.index(stop)])
        self.assertEqual(answer.finished.stop_string, stop)
        answer = self.client.generate(
            PROMPT, max_tokens=4,
            compression={"preset": "snapkv", "budget_fraction": 0.5, "recall": {"mode": "RECALL_MODE_SYNC"}})
        self.assertGreater(answer.usage.evicted_rows, 0)
        drawn = {self.client.generate("The", max_tokens=8, temperature=2.0, seed=seed).text for seed in range(3)}
        self.assertGreater(len(drawn), 1)

    def test_errors_name_the_field(self):
        for field, options in (("temperature", {"temperature": 11}), ("top_p", {"top_p": 0}),
                               ("compression.preset", {"compression": {"preset": "best"}}),
                               ("max_tokens", {"max_tokens": -1})):
            with self.assertRaises(tidepool_client.InvalidRequest) as caught:
                self.client.generate("x", **options).text
            self.assertEqual(caught.exception.field, field)
            self.assertEqual(caught.exception.code, grpc.StatusCode.INVALID_ARGUMENT)
        with self.assertRaisesRegex(TypeError, "^tempreature: is no option; there are compression, "):
            self.client.generate("x", tempreature=1)
        with self.assertRaisesRegex(TypeError, "^max_tokens: 'many': "):
            self.client.generate("x", max_tokens="many")
        with self.assertRaisesRegex(ValueError, "^compression: .*presett"):
            self.client.generate("x", compression={"presett": "full"})

    def test_an_answer_that_nobody_holds_is_cancelled(self):
        for piece in self.client.generate("The tide", max_tokens=7000, ignore_eos=True):
            self.assertTrue(piece.ids)
            self.assertEqual(running(self.address), 1)
            break
        del piece
        gc.collect()
        wait_until_idle(self.address)
        with self.client.generate("The tide", max_tokens=7000, ignore_eos=True) as answer:
            next(answer)
        wait_until_idle(self.address)
        with self.assertRaises(tidepool_client.Cancelled):
            answer.text

    def test_closing_the_client_cancels_its_answers(self):
        client = tidepool_client.Client(self.address)
        answer = client.generate("The tide", max_tokens=7000, ignore_eos=True)
        next(answer)
        closer = threading.Thread(target=client.close)
        closer.start()
        with self.assertRaises(tidepool_client.Cancelled):
            answer.text
        closer.join()
        wait_until_idle(self.address)

    def test_the_timeout_ends_the_generation(self):
        answer = self.client.generate("The tide", max_tokens=7000, ignore_eos=True, timeout=1)
        with self.assertRaises(tidepool_client.DeadlineExceeded):
            answer.text
        wait_until_idle(self.address)

    def test_a_session_gives_only_what_is_new(self):
        with self.client.session() as session:
            first = session.chat("My name is Ann.", max_tokens=12)
            self.assertTrue(first.text)
            self.assertEqual(session.turns, 1)
            second = session.chat("What is my name?", max_tokens=12)
            self.assertGreater(second.usage.cached_prompt_tokens, first.usage.prompt_tokens)
            self.assertEqual(session.turns, 2)
            again = self.client.session(session.id)
            again.generate(" And", max_tokens=2).text
            self.assertEqual(again.turns, 3)
            # Somebody else has written it: the turn would be another one than its asker thinks.
            with self.assertRaises(tidepool_client.SessionConflict):
                session.chat("Hello?", max_tokens=2).text
            self.assertTrue(session.chat("Hello?", max_tokens=2).text)
            identity = session.id
        self.assertEqual(self.client.session(identity).generate(PROMPT, max_tokens=1).finished.session_turns, 1)

    def test_reflection_describes_the_services(self):
        from google.protobuf.descriptor_pool import DescriptorPool
        from google.protobuf.message_factory import GetMessageClass
        from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
        for address, service, method in (
                (self.address, "Generation", "GetModel"), (self.cluster.cache.address, "CacheAdmin", "GetStats")):
            with grpc.insecure_channel(address) as channel:
                database = ProtoReflectionDescriptorDatabase(channel)
                self.assertIn(f"tidepool.v1.{service}", database.get_services())
                pool = DescriptorPool(database)
                described = pool.FindServiceByName(f"tidepool.v1.{service}").FindMethodByName(method)
                call = channel.unary_unary(
                    f"/tidepool.v1.{service}/{method}", request_serializer=lambda message: message.SerializeToString(),
                    response_deserializer=GetMessageClass(described.output_type).FromString)
                response = call(GetMessageClass(described.input_type)(), timeout=LIMIT_S)
                self.assertGreater(len(response.ListFields()), 0)


class FailoverTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(cls, workers=2, worker_flags=["--drain-time=0"])

    def setUp(self):
        self.client = tidepool_client.Client(self.cluster.addresses, timeout=LIMIT_S)
        self.addCleanup(self.client.close)

    def undisturbed(self, prompts):
        """The ids of a session's turns when nothing happens."""
        with self.client.session() as session:
            return [session.generate(prompt, max_tokens=count, ignore_eos=True).ids for prompt, count in prompts]

    def go_on_without_its_worker(self, end):
        turns = [(PROMPT, 8), (" And then", 60), (" The end", 8)]
        expected = self.undisturbed(turns)
        with self.client.session() as session:
            self.assertEqual(session.generate(PROMPT, max_tokens=8, ignore_eos=True).ids, expected[0])
            ids = []
            for piece in session.generate(" And then", max_tokens=60, ignore_eos=True):
                if not ids:
                    worker = self.cluster.worker_of(session.id)
                    self.assertEqual(running(worker.address), 1)
                    end(worker)
                ids += piece.ids
            self.assertEqual(ids, expected[1])
            self.assertEqual(session.turns, 2)
            self.assertEqual(session.generate(" The end", max_tokens=8, ignore_eos=True).ids, expected[2])
        worker.end()
        self.cluster.workers.remove(worker)
        self.cluster.add_worker()

    def test_a_session_goes_on_when_its_worker_is_killed(self):
        self.go_on_without_its_worker(lambda worker: worker.kill())

    def test_a_session_goes_on_when_its_worker_is_drained(self):
        self.go_on_without_its_worker(lambda worker: worker.process.terminate())

    def test_without_a_session_only_what_has_not_begun_goes_elsewhere(self):
        gone = self.cluster.add_worker()
        self.cluster.workers.remove(gone)
        client = tidepool_client.Client([gone.address, *self.cluster.addresses], timeout=LIMIT_S)
        lonely = tidepool_client.Client(gone.address, timeout=LIMIT_S, attempts=2)
        self.addCleanup(client.close)
        self.addCleanup(lonely.close)
        answer = lonely.generate("The tide", max_tokens=7000, ignore_eos=True)
        next(answer)
        gone.kill()
        with self.assertRaises(tidepool_client.Unavailable):
            answer.text
        for _ in range(4):
            self.assertEqual(len(client.generate("The tide", max_tokens=4).ids), 4)
        with self.assertRaisesRegex(tidepool_client.Unavailable, gone.address):
            lonely.generate("The tide", max_tokens=4).text
        with self.assertRaisesRegex(tidepool_client.Unavailable, gone.address):
            lonely.model()

    def test_sessions_have_the_workers_that_other_clients_give_them(self):
        from tidepool_client.workers import weight
        # tests/client/routing_test.cc has these numbers, too.
        self.assertEqual(weight("s", "127.0.0.1:7071"), 1688681860079008847)
        self.assertEqual(weight("chat-1", "worker-0.example:7071"), 4392175656130317325)

    def test_the_worker_with_less_to_do_is_chosen(self):
        busy = tidepool_client.Client(self.cluster.addresses[0], timeout=LIMIT_S)
        self.addCleanup(busy.close)
        prompt = [i % 1000 + 100 for i in range(6000)]
        before = finished(self.cluster.addresses[1])
        book = busy.generate(prompt, max_tokens=1)
        ended = []

        def read():
            try:
                next(book)
            except tidepool_client.TidepoolError as error:
                ended.append(type(error))
        reader = threading.Thread(target=read)
        reader.start()
        while running(self.cluster.addresses[0]) == 0:
            pass
        for _ in range(3):
            self.assertEqual(len(self.client.generate("The tide", max_tokens=2).ids), 2)
        self.assertEqual(finished(self.cluster.addresses[1]), before + 3)
        book.cancel()
        reader.join()
        self.assertEqual(ended, [tidepool_client.Cancelled])


class SecurityTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.certs = directory.name
        subprocess.run([os.path.join(SOURCE, "scripts", "make-dev-certs"), cls.certs], check=True, capture_output=True)
        access = os.path.join(cls.certs, "access")
        with open(access, "w", encoding="utf-8") as file:
            for token in ("token-of-acme", "token-of-slow"):
                digest = hashlib.sha256(token.encode()).hexdigest()
                file.write(f"token {digest} {token.removeprefix('token-of-')} user\n")
            file.write("rate slow 1 -\n")
        cls.worker = Server(cls.certs, "worker", [
            binary("tidepool-worker"), f"--model={model_path()}", "--device-kv-bytes=64MiB", f"--access-file={access}",
            f"--tls-cert={cls.certs}/server.pem", f"--tls-key={cls.certs}/server.key"])
        cls.addClassCleanup(cls.worker.end)

    def client(self, **more):
        client = tidepool_client.Client(
            self.worker.address, **{"timeout": LIMIT_S, "attempts": 1, "tls_ca": f"{self.certs}/ca.pem", **more})
        self.addCleanup(client.close)
        return client

    def test_tls_and_a_token(self):
        self.assertEqual(len(self.client(token="token-of-acme").generate("The", max_tokens=2).ids), 2)
        token_file = os.path.join(self.certs, "token")
        with open(token_file, "w", encoding="utf-8") as file:
            file.write("wrong\n")
        client = self.client(token_file=token_file)
        with self.assertRaises(tidepool_client.NotAllowed):
            client.generate("The").text
        with open(token_file, "w", encoding="utf-8") as file:
            file.write("token-of-acme\n")
        self.assertTrue(client.generate("The", max_tokens=2).ids)
        with self.assertRaises(tidepool_client.NotAllowed):
            self.client().model()
        with self.assertRaises(tidepool_client.Unavailable):
            self.client(tls_ca=f"{self.certs}/client.pem", token="token-of-acme").model()
        self.assertTrue(self.client(tls_server_name="localhost", token="token-of-acme").model().name)

    def test_a_rate_says_when_to_come_again(self):
        client = self.client(token="token-of-slow")
        client.generate("The", max_tokens=1).text
        with self.assertRaises(tidepool_client.Overloaded) as caught:
            client.generate("The", max_tokens=1).text
        self.assertGreater(caught.exception.retry_after, 0)
        self.assertLessEqual(caught.exception.retry_after, 60)

    def test_a_token_is_not_sent_in_plain_text(self):
        with self.assertRaisesRegex(ValueError, "token: is not sent to 192.0.2.1:7071 in plain text"):
            tidepool_client.Client("192.0.2.1:7071", token="t")
        tidepool_client.Client("[::1]:7071", token="t").close()
        with self.assertRaisesRegex(ValueError, "tls_ca: is missing"):
            tidepool_client.Client("192.0.2.1:7071", tls_server_name="worker")


def install_client(python):
    """`pip install ./clients/python` from a copy of what it needs of the checkout; the folder to import it from."""
    directory = tempfile.mkdtemp()
    for name in ("clients/python", "proto"):
        shutil.copytree(os.path.join(SOURCE, name), os.path.join(directory, name))
    packages = os.path.join(directory, "packages")
    subprocess.run([python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-index", "--no-deps",
                    "--no-build-isolation", "--target", packages, "./clients/python"], cwd=directory, check=True)
    return directory, packages


def main():
    fetched = subprocess.run([os.path.join(SOURCE, "scripts", "fetch-grpc-python"), sys.executable],
                             capture_output=True, text=True, check=False)
    if fetched.returncode != 0:
        print(f"SKIPPED: gRPC for Python cannot be had:\n{fetched.stderr}")
        return SKIPPED
    python = fetched.stdout.strip()
    directory, packages = install_client(python)
    try:
        return subprocess.run([python, os.path.abspath(__file__), "--installed", *sys.argv[1:]], check=False,
                              env={**os.environ, "PYTHONPATH": packages}).returncode
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    if sys.argv[1] != "--installed":
        sys.exit(main())
    del sys.argv[1]
    binaries = sys.argv.pop(1)
    import grpc
    import tidepool_client
    unittest.main(verbosity=2)
