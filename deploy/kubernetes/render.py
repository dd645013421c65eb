#!/usr/bin/env python3
"""Renders a kustomization without kubectl: the part of kustomize that this folder uses.

  deploy/kubernetes/render.py overlays/gpu     the objects as YAML, as `kubectl kustomize` would give them

Resources, components, namespace, images, and strategic-merge patches by file; anything else in a kustomization is
refused. tests/deploy/kubernetes_test.py compares it with kubectl where that is installed.
"""

import copy
import os
import sys

import yaml

FOLDER = os.path.dirname(os.path.abspath(__file__))
KNOWN = {"apiVersion", "kind", "namespace", "resources", "components", "patches", "images"}
# Lists that a strategic merge joins by a field of their items; others are replaced.
MERGE_KEYS = {"containers": "name", "initContainers": "name", "volumes": "name", "env": "name",
              "volumeMounts": "mountPath", "ports": "containerPort"}
CLUSTER_SCOPED = {"Namespace"}


def identity(document):
    return document["kind"], document["metadata"]["name"]


def merge(base, patch):
    """Merges `patch` into `base`; null takes a field away."""
    for field, value in patch.items():
        key = MERGE_KEYS.get(field)
        if value is None:
            base.pop(field, None)
        elif isinstance(value, dict) and isinstance(base.get(field), dict):
            merge(base[field], value)
        elif isinstance(value, list) and key and all(key in item for item in value + (base.get(field) or [])):
            items = base.setdefault(field, [])
            added = []
            for item in value:
                same = [old for old in items if old[key] == item[key]]
                if same:
                    merge(same[0], item)
                else:
                    added.append(copy.deepcopy(item))
            items[:0] = added
        else:
            base[field] = copy.deepcopy(value)


def containers(document):
    pod = document.get("spec", {}).get("template", {}).get("spec", {})
    return pod.get("initContainers", []) + pod.get("containers", [])


def set_image(documents, image):
    for document in documents:
        for container in containers(document):
            name, _, tag = container["image"].partition(":")
            if name != image["name"]:
                continue
            container["image"] = image.get("newName", name) + ":" + str(image.get("newTag", tag or "latest"))


def load(path):
    with open(path, encoding="utf-8") as file:
        return [document for document in yaml.safe_load_all(file) if document]


def render(folder, into=()):
    """The objects of a kustomization, in the order in which they are named; those of a component act on `into`."""
    [kustomization] = load(os.path.join(folder, "kustomization.yaml"))
    if unknown := set(kustomization) - KNOWN:
        raise ValueError(f"{folder}: kustomization.yaml: {sorted(unknown)} is not supported by render.py")
    documents = list(into)
    for resource in kustomization.get("resources", []):
        path = os.path.join(folder, resource)
        documents += render(path) if os.path.isdir(path) else load(path)
    for component in kustomization.get("components", []):
        documents = render(os.path.join(folder, component), documents)
    for patch in kustomization.get("patches", []):
        for change in load(os.path.join(folder, patch["path"])):
            [target] = [document for document in documents if identity(document) == identity(change)]
            merge(target, change)
    for image in kustomization.get("images", []):
        set_image(documents, image)
    if namespace := kustomization.get("namespace"):
        for document in documents:
            if document["kind"] not in CLUSTER_SCOPED:
                document["metadata"]["namespace"] = namespace
    return documents


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    yaml.safe_dump_all(render(os.path.join(FOLDER, sys.argv[1])), sys.stdout, sort_keys=False)


if __name__ == "__main__":
    main()
