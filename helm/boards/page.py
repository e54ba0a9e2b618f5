"""docs/dashboards.md: what each panel answers, out of the panels themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from boards.board import Board, Panel

_HEAD = """# Dashboards

Three dashboards for Grafana 11.6 and later, in `helm/trireme/dashboards/*.json`. Written by `helm/dashboards.py`,
this page too: change `helm/boards/*.py` and run `make dashboards-write`. The chart installs them where Grafana's
sidecar looks for them; elsewhere import the files (Dashboards -> New -> Import). They need one Prometheus that
scrapes `/metrics` of every coordinator (`trireme serve --metrics-listen`, see [metrics.md](metrics.md)); at the top
of each page one chooses the Prometheus, the namespace and the deployment (the scrape's `job`). Orange marks say
when the pipeline was built again.

Where to begin: **requests** says whether callers wait, and for what. If it is the queue, go to **capacity**; if it
is prefill or decoding, go to **pipeline**, which names the stage. For one slow request `trireme trace ID` is
quicker than any dashboard, and `trireme profile` names the bottleneck in one line. Alerts:
[runbooks](runbooks/README.md).

Every query below is run against a real Prometheus that scrapes a running cluster under load, with stages lost
meanwhile, by `make dashboards`. In the tables they lack the choice of the deployment, and `W` is the window that
Grafana fits to the scrape interval.
"""


def text(boards: Sequence[Board]) -> str:
    """The page's content."""
    return _HEAD + "".join("\n" + part for board in boards for part in _board(board))


def _board(board: Board) -> Iterator[str]:
    yield f"## {board.title} (`{board.name}.json`)\n\n{board.answers}\n"
    for row in board.rows:
        lines = "".join(f"| {panel.title} | {panel.answers} | {_queries(panel)} |\n" for panel in row.panels)
        yield f"### {row.title}\n\n| panel | what it answers | queries |\n|---|---|---|\n{lines}"


def _queries(panel: Panel) -> str:
    return "<br>".join(f"`{query.bare}`".replace("|", "\\|") for query in panel.queries)
