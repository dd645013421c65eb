#!/usr/bin/env python3
"""OpenAI's own Python client against tidepool-http, a worker and the small real model, all of them real processes.

  openai_client_test.py BIN_FOLDER [arguments of unittest]

Needs the package `openai` from PyPI (scripts/fetch-openai). Where it cannot be had the test is skipped: exit status 77,
with the reason.
"""

import concurrent.futures
import math
import os
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from servers import LIMIT_S, Server, model_path  # noqa: E402

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
SKIPPED = 77
KEY = "key-of-the-test"
binaries = ""
openai = None


class OpenAiClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        keys = os.path.join(directory.name, "keys")
        with open(keys, "w", encoding="utf-8") as file:
            file.write(f"default {KEY}\n")
        cls.worker = Server(directory.name, "worker", [
            os.path.join(binaries, "tidepool"), "serve", f"--model={model_path()}", "--device-kv-bytes=256MiB",
            f"--data-dir={os.path.join(directory.name, 'data')}"])
        cls.addClassCleanup(cls.worker.end)
        cls.front = Server(directory.name, "front", [
            os.path.join(binaries, "tidepool-http"), f"--workers={cls.worker.address}", f"--api-keys={keys}",
            "--model-id=smol"])
        cls.addClassCleanup(cls.front.end)
        cls.client = cls.new_client()

    @classmethod
    def new_client(cls, **more):
        return openai.OpenAI(
            base_url=f"http://{cls.front.address}/v1", max_retries=0, timeout=LIMIT_S, **{"api_key": KEY, **more})

    def complete(self, prompt="The tide comes in", **more):
        return self.client.completions.create(
            **{"model": "smol", "prompt": prompt, "temperature": 0, "max_tokens": 12, **more})

    def chat(self, content="Name three fruits.", **more):
        return self.client.chat.completions.create(**{
            "model": "smol", "messages": [{"role": "user", "content": content}], "temperature": 0,
            "max_completion_tokens": 12, **more})

    def test_a_completion(self):
        answer = self.complete()
        self.assertEqual(answer.object, "text_completion")
        self.assertEqual(answer.choices[0].finish_reason, "length")
        self.assertEqual(answer.usage.completion_tokens, 12)
        self.assertEqual(answer.usage.total_tokens, answer.usage.prompt_tokens + 12)
        self.assertEqual(self.complete().choices[0].text, answer.choices[0].text)

    def test_a_chat(self):
        answer = self.chat(user="somebody", max_completion_tokens=64)
        self.assertEqual(answer.object, "chat.completion")
        self.assertEqual(answer.choices[0].message.role, "assistant")
        self.assertTrue(answer.choices[0].message.content)
        self.assertIn(answer.choices[0].finish_reason, ("stop", "length"))
        # The message goes back as it came.
        more = self.client.chat.completions.create(
            model="smol", temperature=0, max_tokens=8,
            messages=[{"role": "user", "content": "Name three fruits."}, answer.choices[0].message,
                      {"role": "user", "content": [{"type": "text", "text": "And three more."}]}])
        self.assertGreater(more.usage.prompt_tokens, answer.usage.prompt_tokens)

    def test_a_repeated_prompt_is_cached(self):
        prompt = "A long line about the sea and its tides. " * 20
        self.complete(prompt)
        usage = self.complete(prompt).usage
        self.assertGreater(usage.prompt_tokens_details.cached_tokens, 0)
        self.assertLess(usage.prompt_tokens_details.cached_tokens, usage.prompt_tokens)

    def test_a_stream_is_the_answer_in_pieces(self):
        whole = self.chat(max_completion_tokens=32)
        text, reasons, usage = "", [], None
        for chunk in self.chat(max_completion_tokens=32, stream=True, stream_options={"include_usage": True}):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                reasons += [choice.finish_reason] if choice.finish_reason else []
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(reasons, [whole.choices[0].finish_reason])
        self.assertEqual(usage.completion_tokens, whole.usage.completion_tokens)
        pieces = [chunk.choices[0].text for chunk in self.complete(stream=True)]
        self.assertEqual("".join(pieces), self.complete().choices[0].text)
        self.assertGreater(len(pieces), 2)

    def test_stop_strings_end_the_text_before_them(self):
        text = self.complete(max_tokens=24).choices[0].text
        words = text.split(" ")
        stop = " " + words[4]
        for stops in (stop, [stop, "never said"]):
            choice = self.complete(max_tokens=24, stop=stops).choices[0]
            self.assertEqual(choice.text, text[: text.index(stop)])
            self.assertEqual(choice.finish_reason, "stop")
            streamed = "".join(
                chunk.choices[0].text for chunk in self.complete(max_tokens=24, stop=stops, stream=True))
            self.assertEqual(streamed, choice.text)

    def test_log_probabilities(self):
        choice = self.chat(logprobs=True, top_logprobs=3).choices[0]
        tokens = choice.logprobs.content
        self.assertEqual(b"".join(bytes(token.bytes) for token in tokens).decode(), choice.message.content)
        for token in tokens:
            self.assertEqual(len(token.top_logprobs), 3)
            self.assertEqual(token.top_logprobs[0].token, token.token)  # greedy
            self.assertEqual(token.top_logprobs[0].logprob, token.logprob)
            self.assertLessEqual(sum(math.exp(top.logprob) for top in token.top_logprobs), 1 + 1e-6)
        legacy = self.complete(logprobs=2).choices[0]
        self.assertEqual("".join(legacy.logprobs.tokens), legacy.text)
        for token, logprob, top in zip(
                legacy.logprobs.tokens, legacy.logprobs.token_logprobs, legacy.logprobs.top_logprobs):
            self.assertEqual(top[token], logprob)
        self.assertIsNone(self.complete().choices[0].logprobs)

    def test_choices_differ_by_seed_and_repeat_with_it(self):
        choices = self.complete(n=4, temperature=1.5, seed=7).choices
        self.assertEqual([choice.index for choice in choices], [0, 1, 2, 3])
        texts = [choice.text for choice in choices]
        self.assertGreater(len(set(texts)), 1)
        self.assertEqual([choice.text for choice in self.complete(n=4, temperature=1.5, seed=7).choices], texts)
        drawn = {self.complete(temperature=1.5).choices[0].text for _ in range(4)}
        self.assertGreater(len(drawn), 1)  # without a seed one is drawn
        pieces = ["", "", "", ""]
        for chunk in self.complete(n=4, temperature=1.5, seed=7, stream=True):
            pieces[chunk.choices[0].index] += chunk.choices[0].text
        self.assertEqual(pieces, texts)

    def test_the_extension(self):
        compression = {"preset": "snapkv", "budget_fraction": 0.3, "recall": {"mode": "RECALL_MODE_SYNC"}}
        choice = self.complete(
            "A long line about the sea and its tides. " * 20, extra_body={"tidepool": {"compression": compression}})
        usage = choice.choices[0].tidepool["usage"]
        self.assertGreater(usage["evicted_rows"], 0)
        self.assertGreater(usage["recalled_rows"], 0)
        self.assertFalse(usage["degraded"])

    def test_models(self):
        self.assertEqual([model.id for model in self.client.models.list()], ["smol"])
        self.assertEqual(self.client.models.retrieve("smol").id, "smol")

    def assert_refused(self, kind, status, call, param=None, code=None):
        with self.assertRaises(kind) as caught:
            call()
        self.assertEqual(caught.exception.status_code, status)
        self.assertEqual(caught.exception.param, param)
        self.assertEqual(caught.exception.code, code)

    def test_errors_are_those_of_openai(self):
        bad = openai.BadRequestError
        self.assert_refused(bad, 400, lambda: self.complete(temperature=11), "temperature")
        self.assert_refused(bad, 400, lambda: self.complete(max_tokens="many"), "max_tokens")
        self.assert_refused(bad, 400, lambda: self.chat(tools=[{"type": "function", "function": {"name": "f"}}]), "tools")
        self.assert_refused(bad, 400, lambda: self.chat(extra_body={"tempreature": 1}), "tempreature")
        self.assert_refused(bad, 400, lambda: self.chat(extra_body={"tidepool": {"compresion": {}}}), "tidepool")
        self.assert_refused(
            bad, 400, lambda: self.chat("word " * 9000), "messages", "context_length_exceeded")
        self.assert_refused(
            openai.NotFoundError, 404, lambda: self.complete(model="gpt-9"), "model", "model_not_found")
        self.assert_refused(
            openai.NotFoundError, 404, lambda: self.client.models.retrieve("gpt-9"), "model", "model_not_found")
        stranger = self.new_client(api_key="wrong-key")
        self.assert_refused(
            openai.AuthenticationError, 401, stranger.models.list, code="invalid_api_key")
        self.assert_refused(
            openai.NotFoundError, 404, lambda: self.client.embeddings.create(model="smol", input="x"),
            code="unknown_url")

    def running(self):
        stats = subprocess.run(
            [os.path.join(binaries, "tidepool"), "admin", "stats", f"--worker={self.worker.address}"],
            check=True, capture_output=True, text=True).stdout
        return int(stats.split()[1])  # "sequences     1 running, ..."

    def test_a_closed_stream_is_cancelled(self):
        stream = self.complete(max_tokens=7000, stream=True, extra_body={"tidepool": {"ignore_eos": True}})
        next(iter(stream))
        while self.running() == 0:
            pass
        stream.close()
        while self.running() > 0:
            pass

    def test_many_at_once(self):
        prompts = [f"Chapter {i}: the" for i in range(16)]
        with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
            together = list(pool.map(lambda prompt: self.complete(prompt).choices[0].text, prompts))
        batch = self.complete(prompts).choices
        self.assertEqual([choice.text for choice in batch], together)


def load_openai():
    fetched = subprocess.run([os.path.join(SOURCE, "scripts", "fetch-openai"), sys.executable], capture_output=True,
                             text=True, check=False)
    if fetched.returncode != 0:
        print(f"SKIPPED: the Python package openai cannot be had:\n{fetched.stderr}")
        sys.exit(SKIPPED)
    sys.path.insert(0, fetched.stdout.strip())
    import openai as package  # pylint: disable=import-outside-toplevel

    return package


if __name__ == "__main__":
    binaries = sys.argv.pop(1)
    openai = load_openai()
    unittest.main(verbosity=2)
