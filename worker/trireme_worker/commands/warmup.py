"""`trireme warmup`: the kernels compiled ahead, for container images and first starts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from trireme_worker.warmup import Warmth


def warmup(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Compile everything that a server runs on this CPU, ahead of its first start.

    The machine code goes where the servers of this user look for it: $TRIREME_CACHE_DIR, else $XDG_CACHE_HOME/trireme,
    else ~/.cache/trireme. Another kind of CPU needs its own.
    """
    from trireme_worker.commands.bench import progress

    if sys.stderr.isatty():
        with progress() as bar:
            found = _compile(lambda _: None, bar)
    else:
        found = _compile(_note, lambda done, total, what: _note(f"{done}/{total} {what}"))
    if as_json:
        print(json.dumps(asdict(found)))
    else:
        print(f"{found.compiled} kernels compiled, {found.cached} cached, in {found.seconds:.1f} s: {found.folder}")


def _compile(say: Callable[[str], None], report: Callable[[int, int, str], None]) -> Warmth:
    from trireme_worker.warmup import compile_kernels, kernel_groups

    return compile_kernels(kernel_groups(), say=say, report=report)


def _note(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
