#!/usr/bin/env python3
"""Traces of requests as a collector gets them: tidepool-http, a worker and a cache service, all of them real processes,
and a small collector here that speaks OTLP over HTTP.

  tracing_test.py BIN_FOLDER [arguments of unittest]
"""

import http.server
import json
import os
import re
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from servers import LIMIT_S, Server, model_path  # noqa: E402

# Clocks are read by several threads and processes.
SLACK_NS = 1_000_000
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
binaries = ""


class Collector:
    """Keeps the spans that it gets, by trace. Answers `status`."""

    def __init__(self):
        self.spans, self.requests, self.status = {}, [], 200
        self.changed = threading.Condition()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with collector.changed:
                    status = collector.status
                    collector.requests.append((self.path, self.headers["Content-Type"]))
                    if status == 200:
                        for resource in body["resourceSpans"]:
                            service = {a["key"]: a["value"] for a in resource["resource"]["attributes"]}
                            for span in resource["scopeSpans"][0]["spans"]:
                                span["service"] = service["service.name"]["stringValue"]
                                collector.spans.setdefault(span["traceId"], []).append(span)
                    collector.changed.notify_all()
                self.send_response(status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait(self, condition):
        with self.changed:
            if not self.changed.wait_for(condition, LIMIT_S):
                raise RuntimeError("the collector did not get what it should")

    def trace(self, trace_id):
        """Its spans by name."""
        self.wait(lambda: trace_id in self.spans)
        spans = {span["name"]: span for span in self.spans[trace_id]}
        assert len(spans) == len(self.spans[trace_id])
        return spans


def attributes(span):
    return {a["key"]: next(iter(a["value"].values())) for a in span["attributes"]}


class TracingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.collector = Collector()
        cls.addClassCleanup(cls.collector.server.shutdown)
        cache = Server(directory.name, "cache", [
            os.path.join(binaries, "tidepool-cache"), f"--data-dir={directory.name}/data"])
        cls.addClassCleanup(cache.end)
        worker = Server(directory.name, "worker", [
            os.path.join(binaries, "tidepool-worker"), f"--model={model_path()}", f"--cache={cache.address}",
            "--device-kv-bytes=256MiB", f"--otlp-endpoint={cls.collector.url}", "--metrics-address=127.0.0.1:0"])
        cls.addClassCleanup(worker.end)
        with open(os.path.join(directory.name, "worker.log"), encoding="utf-8") as log:
            cls.metrics = re.search(r"metrics on (\S+)", log.read()).group(1)
        cls.front = Server(directory.name, "front", [
            os.path.join(binaries, "tidepool-http"), f"--workers={worker.address}"])
        cls.addClassCleanup(cls.front.end)

    def complete(self, traceparent=None, prompt="The tide comes in", max_tokens=4, extension=None, **more):
        body = {"prompt": prompt, "max_tokens": max_tokens, "tidepool": extension or {}, **more}
        headers = {"Content-Type": "application/json", **({"traceparent": traceparent} if traceparent else {})}
        request = urllib.request.Request(
            f"http://{self.front.address}/v1/completions", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=LIMIT_S) as response:
            return json.load(response)

    def counted(self, name):
        with urllib.request.urlopen(self.metrics, timeout=LIMIT_S) as response:
            return int(re.search(rf"^{name} (\d+)$", response.read().decode(), re.M).group(1))

    def assert_in_order(self, *times):
        for earlier, later in zip(times, times[1:]):
            self.assertLessEqual(earlier, later + SLACK_NS)

    def test_a_request_is_its_phases_in_the_callers_trace(self):
        prompt = "A long line about the sea and its tides. " * 20
        self.complete(prompt=prompt)
        before = time.time_ns()
        answer = self.complete(
            f"00-{TRACE}-{SPAN}-01", prompt + " And now", max_tokens=12, temperature=0.5, extension={
                "session_id": "traced", "ignore_eos": True,
                "compression": {"preset": "snapkv", "budget_fraction": 0.3, "recall": {"mode": "RECALL_MODE_SYNC"}}})
        after = time.time_ns()
        spans = self.collector.trace(TRACE)
        self.assertEqual(set(spans), {"Generate", "queue", "lookup", "prefill", "decode", "recall", "offload"})
        root = spans["Generate"]
        self.assertEqual(root["parentSpanId"], SPAN)
        self.assertEqual(root["kind"], 2)
        self.assertEqual(root["service"], "tidepool-worker")
        self.assertEqual(len({span["spanId"] for span in spans.values()}), 7)
        times = {name: (int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])) for name, span in spans.items()}
        self.assert_in_order(before, *times["Generate"], after)
        for name, span in spans.items():
            if name == "Generate":
                continue
            parent = "queue" if name == "lookup" else "Generate"
            self.assertEqual(span["parentSpanId"], spans[parent]["spanId"], name)
            self.assert_in_order(times[parent][0], *times[name], times[parent][1])
        self.assertEqual(times["queue"][1], times["prefill"][0])
        self.assertEqual(times["prefill"][1], times["decode"][0])
        self.assert_in_order(times["decode"][1], times["offload"][0])
        usage = answer["choices"][0]["tidepool"]["usage"]
        said = attributes(root)
        self.assertEqual(said["gen_ai.operation.name"], "text_completion")
        self.assertEqual(said["gen_ai.request.temperature"], 0.5)
        self.assertEqual(said["gen_ai.request.max_tokens"], "12")
        self.assertEqual(said["gen_ai.usage.input_tokens"], str(usage["prompt_tokens"]))
        self.assertEqual(said["gen_ai.usage.output_tokens"], "12")
        self.assertEqual(said["gen_ai.response.finish_reasons"], "length")
        self.assertEqual(said["tidepool.preset"], "snapkv")
        self.assertEqual(attributes(spans["recall"])["tidepool.recalled_rows"], str(usage["recalled_rows"]))
        self.assertGreater(usage["recalled_rows"], 0)
        self.assertIn(("/v1/traces", "application/json"), self.collector.requests)

    def test_the_caller_decides_whether_it_is_recorded(self):
        off, on = "a" * 32, "b" * 32
        self.complete(f"00-{off}-{SPAN}-00")
        self.complete(f"00-{on}-{SPAN}-01")
        self.complete("no traceparent at all")
        self.collector.trace(on)
        exported = self.counted("tidepool_traces_exported_total")
        self.complete()
        self.collector.wait(lambda: any(
            span["name"] == "Generate" and "parentSpanId" not in span
            for spans in self.collector.spans.values() for span in spans))
        while self.counted("tidepool_traces_exported_total") == exported:
            pass
        self.assertNotIn(off, self.collector.spans)

    def test_a_refused_request_is_a_span_with_its_error(self):
        trace = "c" * 32
        with self.assertRaises(urllib.error.HTTPError):
            self.complete(f"00-{trace}-{SPAN}-01", top_p=0)
        spans = self.collector.trace(trace)
        self.assertEqual(set(spans), {"Generate"})
        self.assertEqual(spans["Generate"]["status"]["code"], 2)
        self.assertIn("top_p", spans["Generate"]["status"]["message"])

    def test_what_the_collector_refuses_is_counted_and_answers_go_on(self):
        dropped = self.counted("tidepool_traces_dropped_total")
        with self.collector.changed:
            self.collector.status = 500
        self.assertTrue(self.complete()["choices"][0]["text"])
        while self.counted("tidepool_traces_dropped_total") == dropped:
            pass
        with self.collector.changed:
            self.collector.status = 200
        trace = "d" * 32
        self.complete(f"00-{trace}-{SPAN}-01")
        self.collector.trace(trace)


if __name__ == "__main__":
    binaries = sys.argv.pop(1)
    unittest.main(verbosity=2)
