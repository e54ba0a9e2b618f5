"""Traces of requests, by OpenTelemetry: how long what took, never what was asked or answered."""

from trireme_coordinator.telemetry.recoveries import Books
from trireme_coordinator.telemetry.request_trace import Layers, Lookup, RequestTrace
from trireme_coordinator.telemetry.setup import Telemetry, setup_telemetry
from trireme_coordinator.telemetry.steps import StepReport
from trireme_coordinator.telemetry.tree import STAGE_SERVICE, Process

__all__ = [
    "STAGE_SERVICE",
    "Books",
    "Layers",
    "Lookup",
    "Process",
    "RequestTrace",
    "StepReport",
    "Telemetry",
    "setup_telemetry",
]
