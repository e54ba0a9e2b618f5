"""The command `trireme`. `main` runs it and turns every error into one sentence and an exit code.

    0    done
    1    a TriremeError, or the system refused something (a file, a pipe)
    2    the command line itself is wrong
    130  interrupted with Ctrl-C

No traceback unless TRIREME_DEBUG=1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, cast

import typer

from trireme import _config
from trireme.cli.app import app
from trireme_proto.errors import TriremeError

__all__ = ["app", "main"]

_UsageError = cast("type[Exception]", typer.BadParameter.__mro__[1])
"""Base of what typer raises for a wrong command line; typer exports only this descendant."""


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line; `args` without the program's name, else those of the process. Returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character is no reason to stop
    try:
        return _run(args)
    except BrokenPipeError:
        _discard_output()
        return 1
    except KeyboardInterrupt:
        return 130
    except (TriremeError, OSError, _UsageError) as error:
        if _config.debug():
            raise
        sys.stderr.write(f"error: {_sentence(error)}\n")
        return 2 if isinstance(error, _UsageError) else 1


def _run(args: Sequence[str] | None) -> int:
    result = typer.main.get_command(app)(args=args, prog_name="trireme", standalone_mode=False)
    sys.stdout.flush()
    return result if isinstance(result, int) else 0


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    if isinstance(error, _UsageError):
        wrong: Any = error
        where = f"; see {wrong.ctx.command_path} --help" if wrong.ctx else ""
        return " ".join(wrong.format_message().split()).rstrip(".") + where
    return str(error)


def _discard_output() -> None:
    """Whoever read our output is gone; nothing of it may fail again when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
