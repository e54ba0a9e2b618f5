"""Every series and label of dashboards and rules is one that docs/metrics.md names and the code exports."""

from __future__ import annotations

import pytest
from tests.dashboards import promql
from tests.dashboards.contract import metrics, series
from tests.dashboards.files import Asked, alerts, annotation_queries, choices, panel_queries

from trireme_coordinator.metrics.catalogue import FAMILIES

_VALUES = {"namespace": ".*", "job": ".*", "__rate_interval": "1m"}
_SHOWN = [each.filled(**_VALUES) for each in panel_queries() + annotation_queries()]
_RULES = [Asked(each.name, each.rule["expr"]) for each in alerts()]


@pytest.mark.parametrize("asked", _SHOWN + _RULES, ids=lambda asked: asked.where)
def test_queries_name_what_there_is(asked: Asked) -> None:
    assert promql.mistakes(asked.query, series()) == []


def test_choices_name_what_there_is() -> None:
    for _, name, label in choices():
        assert label in series()[name]


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("trireme_stage_upp", "there is no series trireme_stage_upp"),
        ("trireme_step_duration_seconds", "there is no series trireme_step_duration_seconds"),
        ('trireme_stage_up{role="x"}', "trireme_stage_up has no label role"),
        ("sum by (role) (trireme_stage_up)", "nothing has the label role to group by"),
        ("sum by (stage) (sum by (node) (trireme_stage_up))", "nothing has the label stage to group by"),
        ("sum without (node) (trireme_stage_up)", "`without` cannot be checked: name the labels that are kept"),
        (
            "histogram_quantile(0.9, rate(trireme_step_duration_seconds_sum[1m]))",
            "histogram_quantile of what has no label le",
        ),
        ("trireme_stage_up / trireme_pipeline_ready", "the sides of / never meet: they differ in ['node', 'stage']"),
        ("trireme_stage_up * on (ip) group_left trireme_stage_info", "a side of * has no label ip"),
        (
            "trireme_stage_up and ignoring (node) trireme_stage_up",
            "`ignoring` cannot be checked: name the labels to meet on",
        ),
        ('label_replace(trireme_stage_up, "a", "$1", "node", "(.*)")', "labels that are made up cannot be checked"),
    ],
)  # fmt: skip
def test_mistakes_are_found(query: str, told: str) -> None:
    assert promql.mistakes(query, series()) == [told]


def test_the_page_says_what_the_code_exports() -> None:
    promised = {each.name: (each.kind, each.labels) for each in metrics()}
    assert promised == {each.name: (each.kind, frozenset(each.labels)) for each in FAMILIES.values()}


def test_the_page_is_read_whole() -> None:
    found = {each.name: each for each in metrics()}
    assert len(found) > 70
    assert found["trireme_stage_info"].labels == {"stage", "node", "ip", "layers"}
    assert "error_type" in found["gen_ai_server_request_duration_seconds"].labels


def test_most_of_what_is_exported_is_shown() -> None:
    """A metric that nothing asks for is one nobody looks at. The exception is to be joined with Ray's own."""
    asked = {name for each in _SHOWN + _RULES for name, _ in promql.selectors(promql.parsed(each.query))}
    unseen = {each.name for each in metrics() if not asked & {name for name, _ in each.series()}}
    assert unseen == {"trireme_ray_node_info"}
