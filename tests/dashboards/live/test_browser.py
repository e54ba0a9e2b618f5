"""The harness sees what it is there to see: a page that is right, and one with every fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.dashboards.live.browser import MISSING, looking

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)
_RIGHT = "<!doctype html><title>x</title><body><div style='width:50%'><i style='width:20px'>a</i></div>"
_WRONG = """<!doctype html><title>x</title><body style="margin:0">
<link rel="stylesheet" href="https://example.org/a.css">
<div style="width:100px"><p style="width:300px">wide</p></div><div style="width:3000px">wider</div>
<script>console.warn("careful"); missing()</script>"""


def _file(folder: Path, text: str) -> Path:
    (made := folder / "page.html").write_text(text)
    return made


def test_a_page_that_is_right(browser: Any, tmp_path: Path) -> None:
    with looking(browser, _file(tmp_path, _RIGHT)) as look:
        assert (look.wrong, look.outside("i"), look.overflows()) == ([], [], False)
        assert look.page.inner_text("i") == "a"


def test_a_page_that_is_wrong(browser: Any, tmp_path: Path) -> None:
    with looking(browser, _file(tmp_path, _WRONG)) as look:
        assert "asks for https://example.org/a.css" in look.wrong
        assert any(each.startswith("console: careful") for each in look.wrong)
        assert any("missing is not defined" in each for each in look.wrong)
        assert len(look.outside("p")) == 1
        assert look.overflows()


def test_light_and_dark(browser: Any, tmp_path: Path) -> None:
    file = _file(tmp_path, "<style>@media (prefers-color-scheme: dark) { p { color: rgb(1, 2, 3) } }</style><p>x")
    with looking(browser, file) as light, looking(browser, file, dark=True) as dark:
        assert (light.style("p", "color"), dark.style("p", "color")) == ("rgb(0, 0, 0)", "rgb(1, 2, 3)")
