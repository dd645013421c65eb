#!/usr/bin/env python3
"""Writes the Helm chart in tidepool/ from the kustomizations in ../kubernetes: the same objects, with what overlays change
as values.

  deploy/helm/make_chart.py           writes the chart: values.yaml is the base, values-OVERLAY.yaml each overlay
  deploy/helm/make_chart.py --check   says what is not up to date, exit code 1

Every value stands in a template as {{ .Values.some.thing | toJson }}, and an object that only some overlays have as a
whole between {{- if .Values.some.enabled }} and {{- end }}. So little of Helm's language is easily checked without Helm:
tests/deploy/kubernetes_test.py renders the chart with each values file and compares it with its overlay, object by object.
"""

import copy
import json
import os
import sys

import yaml

FOLDER = os.path.dirname(os.path.abspath(__file__))
KUBERNETES = os.path.join(os.path.dirname(FOLDER), "kubernetes")
sys.path.insert(0, KUBERNETES)
from render import identity, render  # noqa: E402  (the folder beside this one is no package)

OVERLAYS = ("cpu-demo", "gpu", "gpu-tls", "redis-tier")
CACHE, WORKER = ("StatefulSet", "tidepool-cache"), ("Deployment", "tidepool-worker")
POD = ("spec", "template", "spec")


def container(name, field, of="containers"):
    return POD + (of, name, field)


def of_process(key, target, name, config):
    """What can be changed of the cache service and of the workers alike."""
    return [
        (f"{key}.flags", "one flag a line: --help of the program", [(("ConfigMap", f"tidepool-{name}"), ("data", config))]),
        (f"{key}.replicas", "pods; null: the autoscaler's", [(target, ("spec", "replicas"))]),
        (f"{key}.image", "", [(target, container(name, "image")), (target, container("validate", "image", "initContainers"))]),
        (f"{key}.resources", "", [(target, container(name, "resources"))]),
        (f"{key}.nodeSelector", "", [(target, POD + ("nodeSelector",))]),
        (f"{key}.tolerations", "", [(target, POD + ("tolerations",))]),
        (f"{key}.env", "", [(target, container(name, "env"))]),
        (f"{key}.terminationGracePeriodSeconds", "preStop (5 s), --drain-time or writing what is in memory, and some time",
         [(target, POD + ("terminationGracePeriodSeconds",))]),
        (f"{key}.command", "", [(target, container(name, "command"))]),
        (f"{key}.validateCommand", "of the init step: as command, with --validate-config",
         [(target, container("validate", "command", "initContainers"))]),
        (f"{key}.volumes", "", [(target, POD + ("volumes",))]),
        (f"{key}.volumeMounts", "", [(target, container(name, "volumeMounts"))]),
        (f"{key}.validateVolumeMounts", "", [(target, container("validate", "volumeMounts", "initContainers"))]),
        (f"{key}.startupProbe", "", [(target, container(name, "startupProbe"))]),
        (f"{key}.readinessProbe", "", [(target, container(name, "readinessProbe"))]),
        (f"{key}.livenessProbe", "", [(target, container(name, "livenessProbe"))]),
    ]


AUTOSCALER = ("HorizontalPodAutoscaler", "tidepool-worker")
# (value, what it is, where it stands: [(object, path)])
SPOTS = [
    *of_process("cache", CACHE, "cache", "cache.flags"),
    ("cache.volumeClaimTemplates", "--disk-bytes and a quarter more", [(CACHE, ("spec", "volumeClaimTemplates"))]),
    *of_process("worker", WORKER, "worker", "worker.flags"),
    ("monitoring.minReplicas", "", [(AUTOSCALER, ("spec", "minReplicas"))]),
    ("monitoring.maxReplicas", "", [(AUTOSCALER, ("spec", "maxReplicas"))]),
    ("monitoring.metrics", "", [(AUTOSCALER, ("spec", "metrics"))]),
]
# Objects that not all overlays have, by the value that brings them.
OPTIONAL = {
    "monitoring.enabled": ("Prometheus operator and prometheus-adapter are there: ServiceMonitor, autoscaler",
                           {AUTOSCALER, ("ServiceMonitor", "tidepool")}),
    "redis.enabled": ("a Redis below the disk; then cache.flags has --remote-tier and cache.env its password",
                      {(kind, "tidepool-redis") for kind in ("Service", "StatefulSet", "PodDisruptionBudget",
                                                             "NetworkPolicy")}
                      | {("NetworkPolicy", "tidepool-cache-to-redis")}),
}


def step(node, key):
    """One step of a path: a field, or the item of a list that has this name."""
    if isinstance(node, list):
        return next(item for item in node if item["name"] == key)
    return node[key]


def look(document, path):
    for key in path[:-1]:
        document = step(document, key)
    return document.get(path[-1])


def put(document, path, value):
    for key in path[:-1]:
        document = step(document, key)
    document[path[-1]] = value


def set_value(values, dotted, value):
    *path, last = dotted.split(".")
    for key in path:
        values = values.setdefault(key, {})
    values[last] = value


def objects(folder):
    return {identity(document): document for document in render(os.path.join(KUBERNETES, folder))}


def values_of(documents):
    """The values by which the chart gives these objects, of those that they have."""
    values = {}
    for enabled, (_, optional) in OPTIONAL.items():
        set_value(values, enabled, bool(optional & set(documents)))
    for dotted, _, places in SPOTS:
        for target, path in places:
            if target in documents:
                set_value(values, dotted, look(documents[target], path))
    return values


def less(values, base):
    """What of `values` is not as in `base`."""
    changed = {}
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            # Helm merges maps: a field that is gone must be taken away.
            part = less(value, base[key]) | {gone: None for gone in base[key] if gone not in value}
            if part:
                changed[key] = part
        elif key not in base or value != base[key]:
            changed[key] = value
    return changed


def dump(value, indent=0):
    """YAML with texts of several lines as such."""
    class Dumper(yaml.SafeDumper):
        pass

    def text(dumper, data):
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)

    Dumper.add_representer(str, text)
    Dumper.ignore_aliases = lambda *_: True
    lines = yaml.dump(value, Dumper=Dumper, sort_keys=False, width=120).splitlines()
    return "".join(" " * indent + line + "\n" if line else "\n" for line in lines)


def values_text(values, head):
    """Values of the chart, with what each is."""
    notes = {dotted: note for dotted, note, _ in SPOTS} | {dotted: note for dotted, (note, _) in OPTIONAL.items()}
    out = head
    for section, fields in values.items():
        out += f"{section}:\n"
        for field, value in fields.items():
            if notes.get(f"{section}.{field}"):
                out += f"  # {notes[f'{section}.{field}']}\n"
            out += dump({field: value}, 2)
    return out


def template(target, document):
    document = copy.deepcopy(document)
    document["metadata"]["namespace"] = "{{ .Release.Namespace }}"
    marks = {}
    for dotted, _, places in SPOTS:
        for place, path in places:
            if place == target:
                mark = f"VALUE-{len(marks)}-"
                marks[mark] = "{{ .Values.%s | toJson }}" % dotted
                put(document, path, mark)
    text = dump(document)
    for mark, expression in marks.items():
        text = text.replace(mark, expression)
    text = text.replace("'{{ .Release.Namespace }}'", "{{ .Release.Namespace }}")
    for enabled, (_, optional) in OPTIONAL.items():
        if target in optional:
            text = "{{- if .Values.%s }}\n%s{{- end }}\n" % (enabled, text)
    return text


def chart():
    """path below tidepool/ -> text"""
    made = "# Made by deploy/helm/make_chart.py from deploy/kubernetes; do not edit.\n"
    base = objects("base")
    overlays = {name: objects(f"overlays/{name}") for name in OVERLAYS}
    everything = {target: document for documents in reversed([base, *overlays.values()])
                  for target, document in documents.items()}
    values = values_of(everything)
    for section, fields in values_of(base).items():
        values[section] = values[section] | fields
    files = {
        "Chart.yaml": made + dump({
            "apiVersion": "v2", "name": "tidepool", "version": "0.1.0", "appVersion": "0.1.0", "kubeVersion": ">=1.30.0-0",
            "description": "LLM workers with a compressed key-value cache, and the tiered cache service behind them"}),
        "values.yaml": values_text(values, made + "# The base; values-*.yaml are the overlays: helm install -f.\n"),
    }
    for name, documents in overlays.items():
        files[f"values-{name}.yaml"] = made + dump(less(values_of(documents), values))
    for target, document in everything.items():
        if target[0] != "Namespace":
            files[f"templates/{target[0].lower()}-{target[1]}.yaml"] = template(target, document)
    return files


def main():
    folder = os.path.join(FOLDER, "tidepool")
    files = chart()
    there = {os.path.relpath(os.path.join(of, name), folder) for of, _, names in os.walk(folder) for name in names}
    stale = sorted(there - set(files))
    for path, text in files.items():
        full = os.path.join(folder, path)
        if path in there and open(full, encoding="utf-8").read() == text:
            continue
        stale.append(path)
        if "--check" not in sys.argv[1:]:
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8") as file:
                file.write(text)
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path} is not up to date: run deploy/helm/make_chart.py")
        return 1 if stale else 0
    for path in there - set(files):
        os.remove(os.path.join(folder, path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
