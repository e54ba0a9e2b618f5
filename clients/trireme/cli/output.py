"""What commands print: text for a terminal, tables, JSON, the summary of an answer."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from trireme.results import Generation

# Control characters of an answer must not steer the terminal; line breaks and tabs may.
_HARMLESS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], "\N{REPLACEMENT CHARACTER}")
_UNLIMITED = 1000


def write_text(text: str) -> None:
    """A piece of an answer to standard output, at once."""
    sys.stdout.write(text.translate(_HARMLESS) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def note(line: str) -> None:
    """A line for the person, beside the output proper."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def write_json(value: Any) -> None:
    """One object on standard output."""
    sys.stdout.write(json.dumps(value) + "\n")


def write_table(table: Table) -> None:
    """A table on standard output; in full where nobody's terminal limits its width."""
    console = Console(markup=False)  # names come from a server: they are not ours to interpret
    if not console.is_terminal:
        console.width = _UNLIMITED
    console.print(table)


def columns(*headers: str) -> Table:
    """An empty table that is as narrow as it can be; long names break, nothing is cut off."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for header in headers:
        table.add_column(header, overflow="fold")
    return table


def pairs() -> Table:
    """An empty table of names and values."""
    return Table(show_header=False, box=None, padding=(0, 2, 0, 0))


def rate(value: float | None) -> str:
    """Tokens per second, or a dash."""
    return "-" if value is None else f"{value:.1f}"


def seconds(value: float | None) -> str:
    """Seconds, or a dash."""
    return "-" if value is None else f"{value:.3f} s"


def moment(value: datetime) -> str:
    """A point in time, in the reader's time zone."""
    return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def summary(answer: Generation) -> str:
    """One line on an answer."""
    return (
        f"{answer.usage.completion_tokens} tokens ({answer.finish_reason}), first after {seconds(answer.ttft_s)},"
        f" {rate(answer.tokens_per_s)} tokens/s, session {answer.session_id}, trace {answer.trace_id}"
    )


def generation_json(answer: Generation) -> dict[str, Any]:
    """The object that `generate --json` prints."""
    return {
        "token_ids": list(answer.token_ids),
        "text": answer.text,
        "finish_reason": str(answer.finish_reason),
        "usage": {
            "prompt_tokens": answer.usage.prompt_tokens,
            "completion_tokens": answer.usage.completion_tokens,
            "cached_tokens": answer.usage.cached_tokens,
        },
        "session": answer.session_id,
        "trace_id": answer.trace_id,
        "ttft_s": answer.ttft_s,
        "tokens_per_s": answer.tokens_per_s,
        "seed": answer.seed,
        "request_id": answer.request_id,
    }
