"""The waterfall as a table of text."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from trireme.traces import RequestSpans
from trireme.waterfall.rows import Row, milliseconds, rows

_COLOURS = {"phase": "blue", "stage": "green", "recovery": "magenta", "error": "red"}
_PART_COLOURS = {"wire": "yellow", "wait": "bright_black", "compute": "green"}
_PART_CHARACTERS = {"wire": "░", "wait": "▒", "compute": "█"}
_CONTROLS = dict.fromkeys([*range(32), *range(127, 160)], "\N{REPLACEMENT CHARACTER}")
_BAR = 40
_MOST = 200
"""Lines; `--html` and `--json` have all of them."""


def table(request: RequestSpans) -> Table:
    """One line a span: name, time, bar, words."""
    made = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    made.add_column(overflow="fold")
    made.add_column(justify="right", no_wrap=True)
    made.add_column(no_wrap=True, width=_BAR)
    made.add_column(overflow="fold")
    found = rows(request)
    for row in found[:_MOST]:
        name = Text("  " * row.depth + plain(row.span.name), style="bold" if not row.depth else "")
        made.add_row(name, milliseconds(row.span.duration_ns), _bar(row), plain(row.note))
    if len(found) > _MOST:
        made.add_row(f"and {len(found) - _MOST} more", "", "", "")
    return made


def plain(text: str) -> str:
    """Text from a server, without what could steer the terminal."""
    return text.translate(_CONTROLS)


def _bar(row: Row) -> Text:
    begin = min(int(row.begin * _BAR), _BAR - 1)
    width = max(1, round(row.end * _BAR) - begin)
    if row.end == row.begin:
        return Text(" " * begin + "|", style=_COLOURS[row.kind])
    bar = Text(" " * begin)
    if not row.parts:
        return bar.append("█" * width, style=_COLOURS[row.kind])
    done, share = 0, 0.0
    for part, size in row.parts.items():  # the characters of the parts add up to their share of the bar
        share += size
        upto = round(share * width)
        bar.append(_PART_CHARACTERS[part] * (upto - done), style=_PART_COLOURS[part])
        done = upto
    return bar.append("·" * (width - done), style="bright_black")
