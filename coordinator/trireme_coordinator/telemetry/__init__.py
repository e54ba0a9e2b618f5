"""Traces of requests, by OpenTelemetry: how long what took, never what was asked or answered."""

from trireme_coordinator.telemetry.request_trace import Layers, RequestTrace
from trireme_coordinator.telemetry.setup import Telemetry, setup_telemetry

__all__ = ["Layers", "RequestTrace", "Telemetry", "setup_telemetry"]
