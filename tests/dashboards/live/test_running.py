"""Every query of every panel, read out of the JSON, has data in a real Prometheus that scrapes a cluster at work that
loses stages meanwhile; and two alerts fire for real, with the rules as they are.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.dashboards import contract
from tests.dashboards.files import Asked, annotation_queries, choices, panel_queries
from tests.dashboards.live.cluster import STAGES, Cluster
from tests.dashboards.live.prometheus import Prometheus
from tests.support.waiting import until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus here: make dashboards-setup"),
]
_LOOK_BACK = 900.0
_FILLED = {"namespace": ".*", "job": "trireme", "__rate_interval": "15s"}
_RAPL = Path("/sys/class/powercap")
_OF_THE_MACHINE = {"trireme_node_energy_joules_total": not any(_RAPL.glob("*/energy_uj"))}
"""Metrics that only some machines have; whether this one lacks it."""


@pytest.fixture(scope="module")
def watched(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, dict[str, str]]]:
    """It has seen the stages idle, then at work, then one of them lost and back; and its alerts at that time, before
    any test makes one fire.
    """
    with Prometheus(tmp_path_factory.mktemp("prometheus"), [cluster.metrics]) as started:
        until(
            lambda: _last(started, "count(trireme_stage_read_bandwidth_bytes_per_second)") == STAGES, 60, "idle stages"
        )
        cluster.work()
        until(lambda: _last(started, 'trireme_requests_total{code="OK"}') > 5, 120, "answers")
        cluster.kill_a_stage()
        until(lambda: _last(started, "sum(trireme_recoveries_total)") >= 1, 60, "a recovery")
        answered = _last(started, 'sum(trireme_requests_total{code="OK"})')
        until(lambda: _last(started, 'sum(trireme_requests_total{code="OK"})') > answered + 5, 120, "answers again")
        yield started, started.alerts()


@pytest.fixture(scope="module")
def prometheus(watched: tuple[Prometheus, dict[str, str]]) -> Prometheus:
    return watched[0]


def _last(prometheus: Prometheus, query: str) -> float:
    """The sum of the newest values; 0 where there are none."""
    return sum(values[-1] for values in prometheus.series(query, 5))


def _lacks(query: str) -> bool:
    return any(lacks and name in query for name, lacks in _OF_THE_MACHINE.items())


def test_the_scrape_has_what_the_page_says(prometheus: Prometheus) -> None:
    """Nothing is exported that docs/metrics.md does not have; of what it has, nothing is missing on this machine."""
    found = {name for name in prometheus.names() if name.startswith(("trireme_", "gen_ai_"))}
    promised = {name for name in contract.series() if not _lacks(name)}
    assert {name.removesuffix("_created") for name in found} - contract.series().keys() == set()
    assert promised - found == set()
    for name in sorted(found):
        for label in contract.series()[name]:
            if label not in contract.SCRAPED:
                assert prometheus.labels(name, label), (name, label)


@pytest.mark.parametrize("asked", panel_queries() + annotation_queries(), ids=lambda asked: asked.where)
def test_every_panel_has_data(prometheus: Prometheus, asked: Asked) -> None:
    query = asked.filled(**_FILLED).query
    if _lacks(query):
        assert prometheus.series(query, _LOOK_BACK) == []
        pytest.skip("this machine has no RAPL counters that can be read")
    assert until(lambda: prometheus.series(query, _LOOK_BACK), 60, query)


def test_there_is_something_to_choose_from(prometheus: Prometheus) -> None:
    chosen = {variable: prometheus.labels(name, label) for variable, name, label in choices()}
    assert chosen == {"namespace": set(), "job": {"trireme"}}


def test_nothing_fires_in_good_health(watched: tuple[Prometheus, dict[str, str]]) -> None:
    assert set(watched[1].values()) <= {"pending"}


def test_redis_that_is_frozen(prometheus: Prometheus, cluster: Cluster) -> None:
    """The alert fires while streams go on, and is quiet again afterwards."""
    answered = _last(prometheus, "sum(trireme_generation_tokens_total)")
    cluster.freeze_redis()
    try:
        until(lambda: prometheus.alerts().get("TriremeRedisUnreachable") == "firing", 90, "the alert")
        assert _last(prometheus, "sum(trireme_generation_tokens_total)") > answered
    finally:
        cluster.thaw_redis()
    until(lambda: "TriremeRedisUnreachable" not in prometheus.alerts(), 60, "its end")


def test_stages_that_are_lost_again_and_again(prometheus: Prometheus, cluster: Cluster) -> None:
    """One is frozen, the others die: each comes back, and the alert says that this is no way to live."""
    for i in range(6):
        if prometheus.alerts().get("TriremeRecoveryLoop") == "firing":
            break
        before = _last(prometheus, "sum(trireme_recoveries_total)")
        os.kill(cluster.stages()[0].pid, signal.SIGSTOP if i == 0 else signal.SIGKILL)
        until(lambda before=before: _last(prometheus, "sum(trireme_recoveries_total)") > before, 60, "a recovery")
        until(lambda: len(cluster.stages()) == STAGES, 60, "all stages")
    until(lambda: prometheus.alerts().get("TriremeRecoveryLoop") == "firing", 30, "the alert")
    assert cluster.failed == []
