"""`trireme trace ID --html` of a real request that lost a stage halfway, looked at in Chromium."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.dashboards.live.browser import MISSING, Look, looking
from tests.dashboards.live.cluster import STAGES, Cluster

from trireme import Client

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
    pytest.mark.skipif(find_spec("trireme.waterfall") is None, reason="this version has no `trireme trace`"),
]
_CANARY = "Zanzibar quinquereme"
_TOKENS = 200
_LOST_AFTER = 20


def _trireme(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "trireme", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def shown(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The page, and the same trace as the command prints it for machines."""
    with Client(cluster.address, timeout=120, patience=60) as client:
        stream = client.generate(_CANARY, max_tokens=_TOKENS, temperature=0.0, ignore_eos=True, request_id="looked-at")
        for _ in range(_LOST_AFTER):
            next(stream)
        cluster.kill_a_stage()
        stream.result()
    file = tmp_path_factory.mktemp("trace") / "trace.html"
    _trireme("trace", "looked-at", "--html", str(file), "--target", cluster.address)
    (request,) = json.loads(_trireme("trace", "looked-at", "--json", "--target", cluster.address))["requests"]
    return file, request


@pytest.fixture(params=[(1200, False), (420, True)], ids=["wide-light", "narrow-dark"])
def look(request: pytest.FixtureRequest, browser: Any, shown: tuple[Path, dict[str, Any]]) -> Iterator[Look]:
    width, dark = request.param
    with looking(browser, shown[0], width=width, dark=dark) as opened:
        opened.page.screenshot(path=shown[0].with_suffix(f".{width}.png"), full_page=True)
        yield opened


def test_asks_for_nothing_and_complains_about_nothing(look: Look) -> None:
    assert look.wrong == []


def test_every_span_has_its_bar(look: Look, shown: tuple[Path, dict[str, Any]]) -> None:
    spans = shown[1]["spans"]
    assert look.page.locator(".bar").count() == len(spans)
    names = look.page.locator(".name").all_inner_texts()
    assert sorted(names) == sorted(span["name"] for span in spans)
    assert shown[1]["summary"]["trace_id"] in look.page.inner_text("h1")


def test_bars_lie_where_their_spans_lie(look: Look, shown: tuple[Path, dict[str, Any]]) -> None:
    """To the pixel, by the spans' own times; so a child lies within its parent where its times do."""
    root, spans = shown[1]["spans"][0], shown[1]["spans"]
    whole = root["end_ns"] - root["start_ns"]
    by_id = {span["span_id"]: span for span in spans}
    for row in look.page.locator("details").all():
        lane, bar = row.locator(".lane").bounding_box(), row.locator(".bar").bounding_box()
        assert lane is not None
        assert bar is not None
        span = next(by_id[cell] for cell in row.locator("td").all_text_contents() if cell in by_id)
        begin, end = ((span[at] - root["start_ns"]) / whole for at in ("start_ns", "end_ns"))
        assert bar["x"] - lane["x"] == pytest.approx(min(max(begin, 0), 1) * lane["width"], abs=2)
        assert bar["width"] == pytest.approx(max((min(end, 1) - max(begin, 0)) * lane["width"], 2), abs=2)


def test_nothing_sticks_out(look: Look) -> None:
    assert not look.overflows()
    assert look.outside(".bar i") == []


def test_stages_and_the_recovery_are_seen(look: Look) -> None:
    names = look.page.locator(".name").all_inner_texts()
    assert {f"stage {i}" for i in range(STAGES)} <= set(names)
    assert "recovery" in names
    assert look.page.locator(".bar.recovery").count() >= 1
    for kind in ("phase", "compute", "recovery"):
        assert look.style(f".legend .{kind}", "backgroundColor") != look.style("body", "backgroundColor")


def test_details_open(look: Look) -> None:
    row = look.page.locator("details", has=look.page.locator(".name", has_text="recovery")).first
    assert not row.locator(".said").is_visible()
    row.locator("summary").click()
    assert row.locator(".said").is_visible()
    assert "trireme.recovery.cause" in row.locator(".said").inner_text()
    assert not look.overflows()


def test_the_prompt_is_not_on_it(look: Look) -> None:
    content = look.page.content()
    assert "recovery" in content
    for word in _CANARY.split():
        assert word not in content
