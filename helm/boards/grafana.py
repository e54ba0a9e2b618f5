"""Dashboards as Grafana's JSON, by Grafana's own SDK, so that names and types of fields are those of its schema.

The one file that knows the SDK. Decides how things look, never what is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from grafana_foundation_sdk.builders import common as c
from grafana_foundation_sdk.builders import dashboard as d
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from boards.board import Board, Kind, Panel, Query, completed

_SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${source}")
_HEIGHT = {Kind.STAT: 4, Kind.TABLE: 7}
_ANCHOR = "trireme_build_info"
"""A metric that every coordinator has, also one that stands by: what there is to choose from."""
_REBUILT = "changes(trireme_pipeline_epoch[W]) > 0"


def json_text(board: Board) -> str:
    """The file's content."""
    return JSONEncoder(indent=1, sort_keys=True).encode(dashboard_of(board).build()) + "\n"


def dashboard_of(board: Board) -> d.Dashboard:
    made = (
        d.Dashboard(board.title)
        .uid(f"trireme-{board.name}")
        .description(board.answers)
        .tags(["trireme"])
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .link(_to_the_others())
        .variables([_source(), _choice("namespace", "Namespace"), _choice("job", "Deployment")])
        .annotation(_rebuildings())
    )
    numbers = count(1)
    for row in board.rows:
        made.with_row(d.Row(row.title).id(next(numbers)))
        for panel in row.panels:
            made.with_panel(_panel(panel).id(next(numbers)))
    return made


def _panel(panel: Panel) -> Any:
    made = _LOOKS[panel.kind](panel)
    made.title(panel.title).description(panel.answers).datasource(_SOURCE).unit(panel.unit)
    made.span(panel.width).height(_HEIGHT.get(panel.kind, 8)).min(0)
    if panel.top is not None:
        made.max(panel.top)
    if panel.warn is not None or panel.bad is not None:
        made.thresholds(_thresholds(panel))
    for i, query in enumerate(panel.queries):
        made.with_target(_target(panel, query).ref_id("ABCDEFGH"[i]))
    return made


def _target(panel: Panel, query: Query) -> prometheus.Dataquery:
    made = prometheus.Dataquery().expr(query.text).legend_format(query.legend)
    match panel.kind:
        case Kind.STAT:
            return made.instant()
        case Kind.TABLE:
            return made.instant().format(PromQueryFormat.TABLE)
        case Kind.HEATMAP:
            return made.range().format(PromQueryFormat.HEATMAP)
    return made.range()


def _series(panel: Panel) -> timeseries.Panel:
    legend = c.VizLegendOptions().display_mode(common.LegendDisplayMode.TABLE).placement(common.LegendPlacement.BOTTOM)
    legend.show_legend(True).calcs(["lastNotNull", "max"])
    tooltip = c.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    made = timeseries.Panel().legend(legend).tooltip(tooltip).line_width(1).fill_opacity(8)
    if panel.kind is Kind.STACK:
        made.stacking(c.StackingConfig().mode(common.StackingMode.NORMAL).group("A")).fill_opacity(40)
    return made


def _stat(panel: Panel) -> stat.Panel:
    made = stat.Panel().reduce_options(c.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
    coloured = panel.warn is not None or panel.bad is not None
    return made.graph_mode(common.BigValueGraphMode.NONE).color_mode(
        common.BigValueColorMode.BACKGROUND if coloured else common.BigValueColorMode.NONE
    )


def _table(_: Panel) -> table.Panel:
    hidden = dict.fromkeys(("Time", "Value", "__name__", "job", "namespace"), True)
    made = dashboard.DataTransformerConfig(id_val="organize", options={"excludeByName": hidden})
    return table.Panel().with_transformation(made)


def _heatmap(panel: Panel) -> heatmap.Panel:
    return heatmap.Panel().calculate(False).y_axis(heatmap.YAxisConfig().unit(panel.unit))


_LOOKS: dict[Kind, Callable[[Panel], Any]] = {
    Kind.SERIES: _series, Kind.STACK: _series, Kind.STAT: _stat, Kind.TABLE: _table, Kind.HEATMAP: _heatmap,
}  # fmt: skip


def _thresholds(panel: Panel) -> d.ThresholdsConfig:
    """Colours from low to high; where `bad` is below `warn`, low values are the bad ones."""
    if panel.bad is not None and panel.warn is not None and panel.bad < panel.warn:
        steps = [(None, "red"), (panel.bad, "orange"), (panel.warn, "green")]
    else:
        steps = [(None, "green"), (panel.warn, "orange"), (panel.bad, "red")]
    kept = [each for i, each in enumerate(steps) if i == 0 or each[0] is not None]
    made = d.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE)
    return made.steps([dashboard.Threshold(value=value, color=colour) for value, colour in kept])


def _source() -> d.DatasourceVariable:
    return d.DatasourceVariable("source").label("Prometheus").type("prometheus")


def _choice(label: str, title: str) -> d.QueryVariable:
    """Values of a label; "All" also matches series that lack it."""
    made = d.QueryVariable(label).label(title).query(f"label_values({_ANCHOR}, {label})").datasource(_SOURCE)
    everything = dashboard.VariableOption(selected=True, text="All", value="$__all")
    return (
        made.refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .include_all(True)
        .all_value(".*")
        .current(everything)
    )


def _rebuildings() -> d.AnnotationQuery:
    """A mark where the pipeline was built again: what explains most sudden changes of the curves."""
    made = d.AnnotationQuery().name("Pipeline rebuilt").datasource(_SOURCE).enable(True).icon_color("orange")
    return made.expr(completed(_REBUILT))


def _to_the_others() -> d.DashboardLink:
    made = d.DashboardLink("Trireme").type(dashboard.DashboardLinkType.DASHBOARDS).tags(["trireme"])
    return made.as_dropdown(False).keep_time(True).include_vars(True)
