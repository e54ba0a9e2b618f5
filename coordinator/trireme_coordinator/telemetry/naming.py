"""What this process and its version are called where traces and metrics arrive."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource

from trireme_coordinator.telemetry.tree import COORDINATOR_SERVICE


def resource(environment: Mapping[str, str]) -> Resource:
    """Of the coordinator's metrics. The operator may give it another name (OTEL_SERVICE_NAME)."""
    attributes = {SERVICE_VERSION: product_version()}
    if not environment.get("OTEL_SERVICE_NAME"):
        attributes[SERVICE_NAME] = COORDINATOR_SERVICE
    return Resource.create(attributes)


def product_version() -> str:
    """Of what is installed."""
    try:
        return version("trireme-inference")
    except PackageNotFoundError:
        return "unknown"
