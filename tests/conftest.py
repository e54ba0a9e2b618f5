"""What holds for every test: a busy machine is no failure, and log levels are those of a fresh process."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from trireme_worker.logs import ConsoleFormatter, JsonFormatter

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(autouse=True)
def fresh_logs() -> Iterator[None]:
    """A stage that runs within the tests' process sets up the logs of all of it, be it for one test or a module."""
    _forget_logs()
    yield
    _forget_logs()


def _forget_logs() -> None:
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    for handler in list(root.handlers):
        if isinstance(handler.formatter, ConsoleFormatter | JsonFormatter):
            root.removeHandler(handler)
    for name in ("trireme", "trireme_coordinator", "trireme_worker"):
        logging.getLogger(name).setLevel(logging.NOTSET)
