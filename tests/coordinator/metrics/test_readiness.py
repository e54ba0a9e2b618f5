"""When a server is ready: pure, on a clock that is set by hand."""

from __future__ import annotations

import pytest

from trireme_coordinator.metrics.readiness import STALLED_S, Progress, Readiness


class Server:
    def __init__(self) -> None:
        self.now, self.steps, self.busy, self.trouble = 1000.0, 0, False, ""
        self.readiness = Readiness(
            lambda: self.now, lambda: self.steps, lambda: self.busy, lambda: self.trouble, Progress()
        )

    def after(self, seconds: float, steps: int = 0) -> str:
        self.now += seconds
        self.steps += steps
        return self.readiness.reason()


@pytest.fixture
def server() -> Server:
    return Server()


def test_idle_is_ready_for_ever(server: Server) -> None:
    assert server.after(0) == ""
    assert server.after(1e6) == ""
    assert server.readiness.progress.stalled_s == 0


def test_work_without_steps_is_not_ready(server: Server) -> None:
    server.after(0)
    server.busy = True
    assert server.after(STALLED_S - 1) == ""
    assert "no step has been completed for 31 seconds" in server.after(2)
    assert server.after(0, steps=1) == ""


def test_steps_keep_it_ready(server: Server) -> None:
    server.busy = True
    assert [server.after(STALLED_S - 1, steps=1) for _ in range(10)] == [""] * 10


def test_work_that_begins_after_a_long_rest_has_its_time(server: Server) -> None:
    server.after(0)
    server.after(1000)
    server.busy = True
    assert server.after(0.25) == ""
    assert server.after(STALLED_S - 1) == ""


def test_a_machine_with_long_steps_has_three_times_that(server: Server) -> None:
    server.busy = True
    server.after(0)
    assert server.after(50) != ""
    assert server.after(0, steps=1) == ""
    assert server.after(149) == ""
    assert server.after(2) != ""


def test_trouble_and_draining_come_first(server: Server) -> None:
    server.trouble = "The pipeline is being rebuilt: stage 1 is dead."
    assert server.after(0) == server.trouble
    server.readiness.draining = True
    assert server.after(0) == "This coordinator is stopping."
