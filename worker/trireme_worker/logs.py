"""How log lines look, of coordinators and workers: for people, or as JSON, one object a line.

A line that belongs to a request has its trace id. No content gets into one: of an exception that nobody foresaw the
type and the places are written, and not its message, which may quote what a caller sent (TRIREME_DEBUG=1 shows it).
"""

from __future__ import annotations

import json
import logging
import os
import time
import traceback
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TextIO

from trireme_proto.errors import TriremeError

FORMATS = ("console", "json")
LEVELS = ("debug", "info", "warning", "error")
TRACE_ID: ContextVar[str] = ContextVar("trireme_trace_id", default="")
"""Of the request that is being served here; empty: none is."""
_MOST_ERRORS = 8
_MOST_FRAMES = 40
_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def about(trace_id: str) -> dict[str, str]:
    """The `extra` of a log call about a request whose context it does not run in."""
    return {"trace_id": trace_id}


def setup_logs(form: str = "console", level: str = "warning", stream: TextIO | None = None) -> None:
    """Has all loggers of this process write to `stream`, else standard error. May be called again."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if form == "json" else ConsoleFormatter())
    handler.addFilter(_with_trace_id)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for ours in ("trireme_coordinator", "trireme_worker"):
        logging.getLogger(ours).setLevel(level.upper())
    logging.getLogger("trireme").setLevel(logging.INFO)  # what a command says while it starts and stops


class ConsoleFormatter(logging.Formatter):
    """`2026-01-31 12:00:00,000 WARNING trireme_coordinator.engine: what happened [trace 4bf9...]`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s%(trace_suffix)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line and, of an error, its places."""
        record.exc_text = None  # the library keeps in it what the first formatter made, for all others
        try:
            return super().format(record)
        finally:
            record.exc_text = None

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (the library's)
        """The line, with the trace id at its end where there is one."""
        trace_id = getattr(record, "trace_id", "")
        record.trace_suffix = f" [trace {trace_id}]" if trace_id else ""
        return super().formatMessage(record)

    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802  (the library's)
        """Without the message of an error that is none of ours."""
        return "\n".join(_stack(ei))


class JsonFormatter(logging.Formatter):
    """{"time": RFC 3339, "level", "logger", "message", "trace_id"?, "fields"?, "exception"?: [lines]}."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        whole = int(record.created)
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(1e6 * (record.created - whole)):06d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in ("trace_id", "fields"):
            if value := getattr(record, name, None):
                line[name] = value
        if record.exc_info:
            line["exception"] = _stack(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _with_trace_id(record: logging.LogRecord) -> bool:
    if not getattr(record, "trace_id", ""):
        record.trace_id = TRACE_ID.get()
    return True


def _stack(info: _ExcInfo) -> list[str]:
    """Where it was raised, and what; what it came from first."""
    chain: list[BaseException] = []
    error = info[1]
    while error is not None and error not in chain and len(chain) < _MOST_ERRORS:
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return [line for each in reversed(chain) for line in _places(each)]


def _places(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)[-_MOST_FRAMES:]
    shown = isinstance(error, TriremeError) or os.environ.get("TRIREME_DEBUG") == "1"
    kind = type(error).__name__
    return [*(f"{f.filename}:{f.lineno} in {f.name}" for f in frames), f"{kind}: {error}" if shown else kind]
