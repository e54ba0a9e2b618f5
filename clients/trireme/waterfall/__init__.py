"""The waterfall of a request's spans: its layout, for a terminal and as a page. Knows spans and no server."""

from trireme.waterfall.page import page
from trireme.waterfall.rows import Row, rows
from trireme.waterfall.terminal import table

__all__ = ["Row", "page", "rows", "table"]
