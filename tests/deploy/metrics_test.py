#!/usr/bin/env python3
"""Dashboards, alert rules and the running system: every metric that they name is in a scrape, every query can be
evaluated and has an answer, every alert can fire and has its line in the runbook.

Starts a cache service, a worker on a real model, load, and Debian's Prometheus (scripts/install-deps).
usage: metrics_test.py FOLDER_OF_BINARIES
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.parse
import urllib.request

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARIES = sys.argv.pop() if len(sys.argv) > 1 else os.path.join(SOURCE, "build/release/bin")
MODELS = os.environ.get("TIDEPOOL_MODEL_DIR") or os.path.join(SOURCE, "models")
RULES = os.path.join(SOURCE, "deploy/prometheus/rules.yaml")
DASHBOARDS = [os.path.join(SOURCE, "deploy/grafana", name) for name in
              ("tidepool-workers.json", "tidepool-quality.json", "tidepool-cache.json")]
PATIENCE_S = 600  # as tests/support/process.h: for sanitizers on busy machines


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def tool(*argv, **options):
    return subprocess.run(argv, capture_output=True, text=True, **options)


class Server:
    """One of our processes, until the end of the test."""

    def __init__(self, folder, name, *arguments):
        self.name = name
        self.errors = open(os.path.join(folder, name + ".stderr"), "w+", encoding="utf-8")
        self.process = subprocess.Popen([os.path.join(BINARIES, name), *arguments, "--listen=127.0.0.1:0",
                                         "--metrics-address=127.0.0.1:0"],
                                        stdout=subprocess.PIPE, stderr=self.errors, text=True)
        self.metrics = self.line("metrics on ")
        self.address = self.line("listening on ")

    def line(self, begin):
        line = self.process.stdout.readline()
        if not line.startswith(begin):
            self.errors.seek(0)
            raise RuntimeError(f"{self.name} says {line!r} instead of '{begin}...': {self.errors.read()}")
        return line[len(begin):].strip()

    def stop(self):
        self.process.terminate()
        code = self.process.wait(PATIENCE_S)
        self.process.stdout.close()
        self.errors.close()
        return code


class Prometheus:
    """Debian's, with our rules, over the given targets by job."""

    def __init__(self, folder, jobs):
        config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
                  "rule_files": [RULES],
                  "scrape_configs": [{"job_name": job, "static_configs": [{"targets": [target]}]}
                                     for job, target in jobs.items()]}
        path = os.path.join(folder, "prometheus.yaml")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)  # JSON is YAML
        with contextlib.closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = "127.0.0.1:%d" % probe.getsockname()[1]
        self.log = open(os.path.join(folder, "prometheus.log"), "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            ["prometheus", "--config.file=" + path, "--storage.tsdb.path=" + os.path.join(folder, "tsdb"),
             "--web.listen-address=" + self.address], stdout=self.log, stderr=self.log)

    def get(self, path, **parameters):
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def query(self, expression):
        return self.get("query", query=expression)["result"]

    def wait_until(self, expression):
        """Until the query has an answer."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            if self.process.poll() is not None:
                self.log.seek(0)
                raise RuntimeError("prometheus ended: " + self.log.read())
            with contextlib.suppress(OSError):
                if self.query(expression):
                    return
            time.sleep(0.1)
        raise RuntimeError(f"no answer to {expression} within {PATIENCE_S} s")

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE_S)
        self.log.close()


def scrape(server):
    with urllib.request.urlopen(server.metrics, timeout=30) as answer:
        return answer.read().decode()


def alerts():
    return re.findall(r"^ *- alert: (\w+)$", read(RULES), re.M)


class FilesTest(unittest.TestCase):
    def test_dashboards_are_those_of_their_description(self):
        done = tool(sys.executable, os.path.join(SOURCE, "deploy/grafana/dashboards.py"), "--check")
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_promtool_accepts_rules_and_configuration(self):
        done = tool("promtool", "check", "rules", RULES)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        done = tool("promtool", "check", "config", os.path.join(SOURCE, "deploy/prometheus/prometheus.yaml"))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_every_alert_has_its_line_in_the_runbook(self):
        page = read(os.path.join(SOURCE, "docs/operations.md"))
        runbook = page[page.index("### Runbook"):]
        runbook = runbook[:runbook.index("\n## ")]
        self.assertEqual(sorted(re.findall(r"^\| `(Tidepool\w+)` \|", runbook, re.M)), sorted(alerts()))

    def test_every_alert_can_fire(self):
        series = read(os.path.join(SOURCE, "tests/deploy/rules_test.yaml")).replace("RULES", json.dumps(RULES))
        for alert in alerts():
            series += f"""\
      - expr: count by (alertname) (ALERTS{{alertname="{alert}", alertstate="firing"}})
        eval_time: 59m
        exp_samples: [{{ labels: '{{alertname="{alert}"}}', value: 1 }}]
"""
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
            file.write(series)
            file.flush()
            done = tool("promtool", "test", "rules", file.name)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


class RunningSystemTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        model = os.path.join(MODELS, "SmolLM2-135M-Instruct.Q4_1.gguf")
        if not os.path.exists(model):
            raise RuntimeError(f"{model} is missing: run scripts/fetch-models")
        cls.folder = tempfile.TemporaryDirectory(prefix="tidepool-test-")
        cls.addClassCleanup(cls.folder.cleanup)
        # Memory for some of the blocks only, so that both tiers are used.
        cls.cache = Server(cls.folder.name, "tidepool-cache", f"--data-dir={cls.folder.name}/data", "--memory-bytes=8MiB")
        cls.addClassCleanup(cls.cache.stop)
        cls.worker = Server(cls.folder.name, "tidepool-worker", f"--model={model}", f"--cache={cls.cache.address}")
        cls.addClassCleanup(cls.worker.stop)
        targets = {server.name: urllib.parse.urlparse(server.metrics).netloc for server in (cls.worker, cls.cache)}
        cls.prometheus = Prometheus(cls.folder.name, targets)
        cls.addClassCleanup(cls.prometheus.stop)
        # Once before the load and after it, so that rates are those of the load.
        cls.prometheus.wait_until("count(up == 1) == 2")
        prompt = read(os.path.join(SOURCE, "LICENSE"))[:3000]
        for flags in (["--prompt=" + prompt, "--preset=snapkv", "--recall=sync"],
                      ["--prompt=" + prompt, "--preset=snapkv", "--recall=async"],
                      ["--prompt=" + prompt, "--preset=streaming", "--recall=sync", "--session=s"],
                      ["--prompt=That was", "--session=s"]):
            done = tool(os.path.join(BINARIES, "tidepool"), "generate", "--worker=" + cls.worker.address,
                        "--max-tokens=24", "--ignore-eos", *flags)
            if done.returncode != 0:
                raise RuntimeError(f"tidepool generate {flags}: {done.stderr}")
        cls.prometheus.wait_until("sum(tidepool_requests_finished_total) == 4")
        # A turn is stored after its answer has ended.
        cls.prometheus.wait_until("tidepool_cache_sessions == 1")

    def expressions(self):
        """Of the dashboards: (where, query) as Grafana would send it."""
        for path in DASHBOARDS:
            for panel in json.loads(read(path))["panels"]:
                for target in panel["targets"]:
                    query = target["expr"].replace("$__rate_interval", "1h").replace("$instance", ".*")
                    yield f'{os.path.basename(path)}, "{panel["title"]}", {target["legendFormat"]}', query

    def test_promtool_accepts_the_metrics(self):
        for server in (self.worker, self.cache):
            done = tool("promtool", "check", "metrics", input=scrape(server))
            self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""), server.name)

    def test_every_metric_of_dashboards_and_rules_is_in_a_scrape(self):
        known = set(self.prometheus.get("label/__name__/values"))
        named = {name: "rules.yaml" for name in re.findall(r"\btidepool_\w+", re.sub(r'".*?"', "", read(RULES)))}
        for where, query in self.expressions():
            named.update({name: where for name in re.findall(r"\b(?:tidepool|process)_\w+", query)})
        for name, where in named.items():
            self.assertIn(name, known, where)

    def test_every_metric_of_the_catalogue_is_on_a_dashboard_or_says_what_runs(self):
        page = read(os.path.join(SOURCE, "docs/operations.md"))
        catalogue = re.findall(r"^\| `(tidepool_\w+)` \|", page, re.M)
        self.assertGreater(len(catalogue), 50)
        shown = " ".join(query for _, query in self.expressions())
        unseen = [name for name in catalogue if name not in shown and not name.endswith("_info")]
        self.assertEqual(unseen, [])

    def test_one_process_for_both_shows_what_both_show(self):
        both = Server(self.folder.name, "tidepool", "serve", f"--data-dir={self.folder.name}/both",
                      "--model=" + os.path.join(SOURCE, "tests/data/tiny_models/llama_f32.gguf"))
        try:
            names = [re.findall(r"^# TYPE (\w+)", scrape(server), re.M) for server in (self.worker, self.cache, both)]
        finally:
            self.assertEqual(both.stop(), 0)
        self.assertEqual(set(names[2]), set(names[0]) | set(names[1]))
        self.assertEqual(len(names[2]), len(set(names[2])))

    def test_every_query_of_the_dashboards_has_an_answer(self):
        for where, query in self.expressions():
            with self.subTest(where):
                self.assertTrue(self.prometheus.query(query), query)

    def test_prometheus_evaluates_the_rules(self):
        until = time.monotonic() + PATIENCE_S
        health = {}
        while len(health) < len(alerts()) or "unknown" in health.values():  # not evaluated yet
            self.assertLess(time.monotonic(), until)
            groups = self.prometheus.get("rules")["groups"]
            health = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
        self.assertEqual(health, dict.fromkeys(alerts(), "ok"))

    def test_the_numbers_are_those_of_the_load(self):
        def value(query):
            return float(self.prometheus.query(query)[0]["value"][1])

        self.assertEqual(value('tidepool_requests_finished_total{reason="length"}'), 4)
        self.assertEqual(value("tidepool_generation_tokens_total"), 4 * 24)
        self.assertEqual(value("tidepool_time_to_first_token_seconds_count"), 4)
        self.assertEqual(value("tidepool_inter_token_latency_seconds_count"), 4 * 23)
        self.assertGreater(value('tidepool_prefix_cache_hits_total{source="resident"}'), 0)
        self.assertEqual(value("tidepool_cache_sessions"), 1)
        self.assertGreater(value('sum(tidepool_cache_hits_total{tier="disk"})'), 0)
        dropped, evicted = (value(f'sum(tidepool_attention_{of}_mass_ratio_sum{{policy="snapkv"}})')
                            for of in ("dropped", "evicted"))
        self.assertGreater(dropped, 0)
        self.assertLess(dropped, evicted)
        self.assertGreater(value('sum(tidepool_kv_needed_rows_total{outcome="recalled"})'), 0)
        self.assertGreater(value('tidepool_recall_latency_seconds_count{mode="sync"}'), 0)


if __name__ == "__main__":
    unittest.main()
