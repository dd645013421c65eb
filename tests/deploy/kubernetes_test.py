#!/usr/bin/env python3
"""The Kubernetes objects of every overlay: valid by the schemas of Kubernetes, as safe as we promise, with flags that the
binaries accept, and the same in the Helm chart.

What is not at hand is skipped and says so: kubectl, and PyPI for the schemas (scripts/fetch-kubernetes-validate).
usage: kubernetes_test.py FOLDER_OF_BINARIES
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import yaml

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KUBERNETES = os.path.join(SOURCE, "deploy/kubernetes")
CHART = os.path.join(SOURCE, "deploy/helm/tidepool")
sys.path.insert(0, KUBERNETES)
from render import identity, render  # noqa: E402  (no package)

BINARIES = sys.argv.pop() if len(sys.argv) > 1 else os.path.join(SOURCE, "build/release/bin")
OVERLAYS = sorted(os.listdir(os.path.join(KUBERNETES, "overlays")))
OLDEST = "1.30"  # of Kubernetes: sleep as preStop
TIDEPOOL = ("tidepool-cache", "tidepool-worker")


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def tool(*argv, **options):
    return subprocess.run(argv, capture_output=True, text=True, **options)


def objects(overlay):
    return {identity(document): document for document in render(os.path.join(KUBERNETES, "overlays", overlay))}


def workloads(documents):
    return [document for document in documents.values() if "template" in document.get("spec", {})]


def pod(workload):
    return workload["spec"]["template"]["spec"]


def of_kind(documents, kind):
    return [document for document in documents.values() if document["kind"] == kind]


def flags_of(documents, name):
    """name -> value, of a process's ConfigMap and the command of its container."""
    [text] = documents["ConfigMap", name]["data"].values()
    [workload] = [workload for workload in workloads(documents) if workload["metadata"]["name"] == name]
    flags = text.splitlines() + pod(workload)["containers"][0]["command"][2:]
    return {flag.partition("=")[0]: flag.partition("=")[2] for flag in flags}


def size_bytes(text):
    number, unit = re.fullmatch(r"(\d+)(\w*)", text).groups()
    return int(number) << {"": 0, "Ki": 10, "KiB": 10, "Mi": 20, "MiB": 20, "Gi": 30, "GiB": 30, "Ti": 40}[unit]


def for_each_overlay(check):
    """Runs a test with the name and the objects of each overlay."""
    def run(self):
        for overlay in OVERLAYS:
            with self.subTest(overlay):
                check(self, overlay, objects(overlay))
    return run


class OverlayTest(unittest.TestCase):
    @for_each_overlay
    def test_kubectl_renders_the_same(self, overlay, documents):
        if shutil.which("kubectl") is None:
            self.skipTest("kubectl is not installed")
        done = tool("kubectl", "kustomize", os.path.join(KUBERNETES, "overlays", overlay))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual({identity(document): document for document in yaml.safe_load_all(done.stdout)}, documents)

    @for_each_overlay
    def test_schemas_of_kubernetes_accept_every_object(self, overlay, documents):
        environment = os.path.join(os.path.dirname(BINARIES), "kubernetes-validate")
        fetched = tool(os.path.join(SOURCE, "scripts/fetch-kubernetes-validate"), environment)
        if fetched.returncode != 0:
            self.skipTest("kubernetes-validate cannot be had from PyPI: " + fetched.stderr.strip()[-300:])
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
            yaml.safe_dump_all(documents.values(), file)
            file.flush()
            for version in (OLDEST, "1.37"):
                done = tool(os.path.join(environment, "bin/kubernetes-validate"), "--strict", "-k", version, file.name)
                said = done.stdout + done.stderr
                self.assertEqual(done.returncode, 0, said)
                passed = len(re.findall(r"^INFO .* passed for resource", said, re.M))
                self.assertEqual(passed, len(documents) - len(of_kind(documents, "ServiceMonitor")), said)

    @for_each_overlay
    def test_pods_are_restricted(self, overlay, documents):
        namespace = documents["Namespace", "tidepool"]
        self.assertEqual(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted")
        for workload in workloads(documents):
            spec = pod(workload)
            self.assertTrue(spec["securityContext"]["runAsNonRoot"])
            self.assertGreater(spec["securityContext"]["runAsUser"], 0)
            self.assertEqual(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
            self.assertIs(spec["automountServiceAccountToken"], False)
            for field in ("hostNetwork", "hostPID", "hostIPC"):
                self.assertNotIn(field, spec)
            self.assertFalse([volume for volume in spec.get("volumes", []) if "hostPath" in volume])
            for container in spec.get("initContainers", []) + spec["containers"]:
                self.assertEqual(container["securityContext"], {"allowPrivilegeEscalation": False,
                                                                "readOnlyRootFilesystem": True,
                                                                "capabilities": {"drop": ["ALL"]}})
                self.assertIn("memory", container["resources"]["limits"])
                self.assertLessEqual({"cpu", "memory"}, set(container["resources"]["requests"]))
                self.assertRegex(container["image"], r":\d", "a version, never latest")

    @for_each_overlay
    def test_pods_are_probed_and_spread(self, overlay, documents):
        for workload in workloads(documents):
            spec = pod(workload)
            self.assertEqual(spec["topologySpreadConstraints"][0]["topologyKey"], "kubernetes.io/hostname")
            [container] = spec["containers"]
            ports = [port["containerPort"] for port in container["ports"]]
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                [how] = set(container[probe]) & {"grpc", "tcpSocket"}
                self.assertIn(container[probe][how]["port"], ports)
                # The servers' health service knows the server as a whole, without a name.
                self.assertNotIn("service", container[probe][how])

    @for_each_overlay
    def test_every_workload_has_a_disruption_budget_and_a_service(self, overlay, documents):
        for workload in workloads(documents):
            labels = workload["spec"]["template"]["metadata"]["labels"]
            budgets = [budget for budget in of_kind(documents, "PodDisruptionBudget")
                       if budget["spec"]["selector"]["matchLabels"].items() <= labels.items()]
            self.assertEqual([budget["spec"]["maxUnavailable"] for budget in budgets], [1])
            services = [service for service in of_kind(documents, "Service")
                        if service["spec"]["selector"].items() <= labels.items()]
            self.assertEqual(len(services), 1)
            names = [port["name"] for port in pod(workload)["containers"][0]["ports"]]
            self.assertEqual([port["targetPort"] for port in services[0]["spec"]["ports"]], names)
            if workload["kind"] == "StatefulSet":
                self.assertEqual(workload["spec"]["serviceName"], services[0]["metadata"]["name"])

    @for_each_overlay
    def test_all_is_denied_but_what_is_named(self, overlay, documents):
        policies = of_kind(documents, "NetworkPolicy")
        [deny] = [policy for policy in policies if policy["spec"]["podSelector"] == {}]
        self.assertEqual(deny["spec"], {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})

        def allowed(direction, name, peer):
            """Ports open between the pods of `name` and peers, with who may use them."""
            return {(port["port"], *who.get("podSelector", who.get("namespaceSelector"))["matchLabels"].items())
                    for policy in policies if policy["spec"]["podSelector"].get("matchLabels", {})
                    == {"app.kubernetes.io/name": name}
                    for rule in policy["spec"].get(direction, []) for who in rule[peer] for port in rule["ports"]}

        prometheus = (9464, ("kubernetes.io/metadata.name", "monitoring"))
        worker = ("app.kubernetes.io/name", "tidepool-worker")
        cache = ("app.kubernetes.io/name", "tidepool-cache")
        dns = (53, ("k8s-app", "kube-dns"))
        self.assertEqual(allowed("ingress", "tidepool-cache", "from"), {(7070, worker), (7070, cache), prometheus})
        self.assertEqual({(port, who) for port, who in allowed("egress", "tidepool-cache", "to") if port != 6379},
                         {(7070, cache), dns})
        self.assertEqual(allowed("ingress", "tidepool-worker", "from"), {(7071, ("tidepool/client", "true")), prometheus})
        self.assertEqual(allowed("egress", "tidepool-worker", "to"), {(7070, cache), dns})

    @for_each_overlay
    def test_workers_and_cache_pods_find_every_cache_pod(self, overlay, documents):
        service = documents["Service", "tidepool-cache"]
        [port] = [port["port"] for port in service["spec"]["ports"] if port["name"] == "grpc"]
        self.assertEqual(service["spec"]["clusterIP"], "None", "headless: its name is every pod")
        every = f"dns:///tidepool-cache:{port}"
        cache, worker = (flags_of(documents, name) for name in TIDEPOOL)
        replicas = documents["StatefulSet", "tidepool-cache"]["spec"]["replicas"]
        self.assertEqual(replicas, 1 if overlay == "cpu-demo" else 3)
        self.assertEqual((cache.get("--peers"), worker["--cache"]),
                         (every, every) if replicas > 1 else (None, f"tidepool-cache:{port}"))

    @for_each_overlay
    def test_the_init_step_accepts_the_flags(self, overlay, documents):
        for workload in workloads(documents):
            name = workload["metadata"]["name"]
            if name not in TIDEPOOL:
                continue
            program, *flags = pod(workload)["initContainers"][0]["command"]
            with tempfile.TemporaryDirectory(prefix="tidepool-test-") as folder:
                for file, text in documents["ConfigMap", name]["data"].items():
                    with open(os.path.join(folder, file), "w", encoding="utf-8") as out:
                        out.write(text)
                # The Secret that the cluster would mount.
                done = tool(os.path.join(SOURCE, "scripts/make-dev-certs"), folder, "--host", name)
                self.assertEqual(done.returncode, 0, done.stderr)
                for made, mounted in (("server.pem", "tls.crt"), ("server.key", "tls.key"), ("ca.pem", "ca.crt")):
                    os.rename(os.path.join(folder, made), os.path.join(folder, mounted))
                flags = [re.sub(r"=/etc/tidepool(-tls)?/", lambda _: f"={folder}/", flag) for flag in flags]
                done = tool(os.path.join(BINARIES, program), *flags)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                if any(flag.startswith("--tls-cert") for flag in flags):
                    os.remove(os.path.join(folder, "tls.crt"))
                    done = tool(os.path.join(BINARIES, program), *flags)
                    self.assertEqual(done.returncode, 2)
                    self.assertIn("--tls-cert", done.stderr)

    @for_each_overlay
    def test_the_init_step_checks_what_the_container_runs(self, overlay, documents):
        for workload in workloads(documents):
            if workload["metadata"]["name"] not in TIDEPOOL:
                continue
            [check], [container] = pod(workload)["initContainers"], pod(workload)["containers"]
            self.assertEqual(check["command"], container["command"] + ["--validate-config"])
            self.assertEqual(check["image"], container["image"])
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            for mount in check["volumeMounts"]:
                self.assertEqual(mounts[mount["name"]], mount["mountPath"])
            [config] = [volume for volume in pod(workload)["volumes"] if volume["name"] == "config"]
            data = documents["ConfigMap", config["configMap"]["name"]]["data"]
            self.assertIn(os.path.basename(container["command"][1]), data)
            self.assertTrue(container["command"][1].startswith("--flags-file=" + mounts["config"] + "/"))

    @for_each_overlay
    def test_sizes_fit(self, overlay, documents):
        cache, worker = (flags_of(documents, name) for name in TIDEPOOL)
        stateful = documents["StatefulSet", "tidepool-cache"]
        deployment = documents["Deployment", "tidepool-worker"]
        limit = pod(stateful)["containers"][0]["resources"]["limits"]["memory"]
        self.assertLessEqual(size_bytes(cache["--memory-bytes"]) + (512 << 20), size_bytes(limit))
        [claim] = stateful["spec"]["volumeClaimTemplates"]
        storage = size_bytes(claim["spec"]["resources"]["requests"]["storage"])
        self.assertLessEqual(size_bytes(cache["--disk-bytes"]) * 1.25, storage)
        if "--device-kv-bytes" in worker:
            limit = pod(deployment)["containers"][0]["resources"]["limits"]["memory"]
            self.assertLess(size_bytes(worker["--device-kv-bytes"]), size_bytes(limit))
        if "cuda" in worker.get("--device", ""):
            self.assertEqual(pod(deployment)["containers"][0]["resources"]["limits"]["nvidia.com/gpu"], "1")

    @for_each_overlay
    def test_a_pod_that_ends_has_the_time_it_needs(self, overlay, documents):
        deployment = documents["Deployment", "tidepool-worker"]
        sleep = pod(deployment)["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        drain = int(flags_of(documents, "tidepool-worker")["--drain-time"])
        self.assertGreater(pod(deployment)["terminationGracePeriodSeconds"], sleep + drain)
        # All that is in memory goes to disk: 50 MB/s is a slow one. --memory-bytes above that needs a faster disk.
        stateful = documents["StatefulSet", "tidepool-cache"]
        sleep = pod(stateful)["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        write = size_bytes(flags_of(documents, "tidepool-cache")["--memory-bytes"]) / 100e6
        self.assertGreater(pod(stateful)["terminationGracePeriodSeconds"], sleep + 5 + write)

    @for_each_overlay
    def test_metrics_are_those_that_are_scraped(self, overlay, documents):
        catalogue = read(os.path.join(SOURCE, "docs/operations.md"))
        for name in TIDEPOOL:
            address = flags_of(documents, name)["--metrics-address"]
            self.assertIn({"name": "metrics", "port": int(address.rpartition(":")[2]), "targetPort": "metrics"},
                          documents["Service", name]["spec"]["ports"])
        for scaler in of_kind(documents, "HorizontalPodAutoscaler"):
            self.assertIn(("Deployment", scaler["spec"]["scaleTargetRef"]["name"]), documents)
            self.assertNotIn("replicas", documents["Deployment", "tidepool-worker"]["spec"])
            for metric in scaler["spec"]["metrics"]:
                name = metric["pods"]["metric"]["name"]
                self.assertIn(f"| `{name}` |", catalogue)
                self.assertIn(name, read(os.path.join(KUBERNETES, "monitoring/adapter-values.yaml")))
        for monitor in of_kind(documents, "ServiceMonitor"):
            labels = monitor["spec"]["selector"]["matchLabels"].items()
            watched = {service["metadata"]["name"] for service in of_kind(documents, "Service")
                       if labels <= service["metadata"]["labels"].items()}
            self.assertEqual(watched, set(TIDEPOOL))


def helm_merge(base, over):
    """Values as Helm merges them: null takes a value away."""
    merged = {key: value for key, value in base.items() if over.get(key, "") is not None}
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = helm_merge(merged[key], value)
        elif value is not None:
            merged[key] = value
    return merged


def helm_render(values, namespace):
    """The chart's objects. Its templates use no more of Helm's language than this."""
    def value(dotted):
        found = values
        for key in dotted.split("."):
            found = found.get(key) if isinstance(found, dict) else None
        return found

    for name in sorted(os.listdir(os.path.join(CHART, "templates"))):
        text = read(os.path.join(CHART, "templates", name))
        if optional := re.fullmatch(r"\{\{- if \.Values\.([\w.]+) \}\}\n(.*)\{\{- end \}\}\n", text, re.S):
            if not value(optional[1]):
                continue
            text = optional[2]
        text = re.sub(r"\{\{ \.Values\.([\w.]+) \| toJson \}\}", lambda match: json.dumps(value(match[1])), text)
        text = text.replace("{{ .Release.Namespace }}", namespace)
        if "{{" in text:
            raise ValueError(f"{name}: more of Helm's language than this test knows")
        yield yaml.safe_load(text)


def without_nulls(value):
    """null is absent to Kubernetes."""
    if isinstance(value, dict):
        return {key: without_nulls(of) for key, of in value.items() if of is not None}
    return [without_nulls(of) for of in value] if isinstance(value, list) else value


class ChartTest(unittest.TestCase):
    def test_it_is_that_of_the_kustomizations(self):
        done = tool(sys.executable, os.path.join(SOURCE, "deploy/helm/make_chart.py"), "--check")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_with_an_overlays_values_it_gives_the_overlays_objects(self):
        base = yaml.safe_load(read(os.path.join(CHART, "values.yaml")))
        for overlay in OVERLAYS:
            with self.subTest(overlay):
                values = helm_merge(base, yaml.safe_load(read(os.path.join(CHART, f"values-{overlay}.yaml"))) or {})
                given = {identity(document): without_nulls(document) for document in helm_render(values, "tidepool")}
                wanted = {key: document for key, document in objects(overlay).items() if key[0] != "Namespace"}
                self.assertEqual(given.keys(), wanted.keys())
                for key, document in wanted.items():
                    self.assertEqual(given[key], document)

    def test_helm_accepts_it(self):
        if shutil.which("helm") is None:
            self.skipTest("helm is not installed")
        for overlay in OVERLAYS:
            done = tool("helm", "lint", "--strict", CHART, "-f", os.path.join(CHART, f"values-{overlay}.yaml"))
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
