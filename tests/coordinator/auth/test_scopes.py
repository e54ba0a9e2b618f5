"""The table of scopes has every method of every service, and nothing else."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

import trireme_proto.v1 as package
from trireme_coordinator.auth.scopes import HEALTH, REFLECTION, SCOPES, STREAMS


def methods() -> set[str]:
    """Of all services that the public server has, from their descriptors."""
    ours = (file.stem for file in Path(next(iter(package.__path__))).glob("*_pb2.py"))
    names = [f"trireme_proto.v1.{name}" for name in ours if name != "stage_pb2"]  # stages have a port of their own
    modules = [health_pb2, reflection_pb2, *map(import_module, names)]
    return {
        f"/{service.full_name}/{method.name}"
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def test_every_method_has_its_entry() -> None:
    assert methods() == set(SCOPES) | HEALTH | REFLECTION
    assert set(SCOPES) >= STREAMS


def test_nothing_of_ours_is_open() -> None:
    assert not any("trireme" in name for name in HEALTH | REFLECTION)
