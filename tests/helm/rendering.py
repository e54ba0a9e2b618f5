"""The chart rendered by the real Helm engine, and ways to find things in what comes out."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "trireme"
Manifest = dict[str, Any]
VALUES = {"default": None} | {file.stem: file for file in sorted((ROOT / "helm" / "values").glob("*.yaml"))}
"""Values files by name; `default` is none at all."""


@functools.cache
def chart() -> helm_python.Chart:
    return helm_python.Chart.load(CHART)


def values_of(name: str) -> dict[str, Any]:
    """Content of a values file."""
    file = VALUES[name]
    return {} if file is None else yaml.safe_load(file.read_text())


def texts(values: dict[str, Any] | None = None, *, release: str = "trireme") -> dict[str, str]:
    """Rendered text by template."""
    return chart().render(values, name=release, namespace="llm")


def render(values: dict[str, Any] | None = None, *, release: str = "trireme") -> list[Manifest]:
    """All manifests, in the order of their files."""
    rendered = texts(values, release=release)
    return [
        manifest
        for name in sorted(rendered)
        if name.endswith(".yaml")
        for manifest in yaml.load_all(rendered[name], yaml.CSafeLoader)
        if manifest
    ]


def find(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """The only one of that kind and name."""
    (found,) = (m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name))
    return found


def names(manifests: list[Manifest], kind: str) -> set[str]:
    """Names of all of a kind."""
    return {m["metadata"]["name"] for m in manifests if m["kind"] == kind}


@dataclass(frozen=True)
class PodTemplate:
    """A pod as it will be made."""

    owner: str
    component: str
    replicas: int
    labels: dict[str, str]
    spec: dict[str, Any]

    @property
    def containers(self) -> list[dict[str, Any]]:
        """Init containers too."""
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    def container(self, name: str) -> dict[str, Any]:
        (found,) = (c for c in self.containers if c["name"] == name)
        return found


def pods(manifests: list[Manifest]) -> list[PodTemplate]:
    """Every pod, of whatever makes it."""
    return [PodTemplate(owner, m["labels"]["app.kubernetes.io/component"], count, m["labels"], spec)
            for owner, count, m, spec in _templates(manifests)]  # fmt: skip


def _templates(manifests: list[Manifest]) -> Iterator[tuple[str, int, dict[str, Any], dict[str, Any]]]:
    for m in manifests:
        name, spec = m["metadata"]["name"], m.get("spec", {})
        if m["kind"] in {"Deployment", "StatefulSet"}:
            yield name, spec.get("replicas", 1), spec["template"]["metadata"], spec["template"]["spec"]
        elif m["kind"] == "Pod":
            yield name, 1, m["metadata"], spec
        elif m["kind"] == "RayCluster":
            head = spec["headGroupSpec"]["template"]
            yield f"{name}-head", 1, head["metadata"], head["spec"]
            for group in spec["workerGroupSpecs"]:
                template = group["template"]
                yield f"{name}-{group['groupName']}", group["replicas"], template["metadata"], template["spec"]
