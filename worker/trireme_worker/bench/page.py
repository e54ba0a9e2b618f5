"""The benchmark page: tables out of the JSON files of measurements, put between the marks of a page written by hand.

    <!-- decode: decode-2b4t-1.json decode-2b4t-2.json -->      the files lie beside the page
    (what stands here is replaced)
    <!-- end -->

Owns which figures of a result the page shows. `python -m trireme_worker.bench.page PAGE.md` rewrites the page.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trireme_worker.bench.page_faults import FAULT_KINDS
from trireme_worker.bench.page_service import SERVICE_KINDS

Result = Mapping[str, Any]
_PEER = "llama.cpp TQ2_0"
_BLOCK = re.compile(r"(<!-- (?P<kind>[a-z]+): (?P<files>[^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def render(page: str, folder: Path) -> str:
    """The page with every block made anew.  ValueError for an unknown kind of table or a file that is not there."""
    return _BLOCK.sub(lambda found: found[1] + _table(found["kind"], found["files"].split(), folder) + found[4], page)


def _table(kind: str, names: Sequence[str], folder: Path) -> str:
    if kind not in _KINDS:
        raise ValueError(f"{kind!r} is none of the tables {', '.join(_KINDS)}")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise ValueError(f"{missing[0]} is not beside the page")
    head, rows = _KINDS[kind]
    lines = [head, ["---"] * len(head)]
    lines += [row for name in names for row in rows(json.loads((folder / name).read_text()))]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _targets(result: Result) -> Iterable[list[str]]:
    for line in result["targets"]:
        sign = "≥" if line["at_least"] else "≤"
        goal = "" if line["goal"] is None else f"{sign} {line['goal']:g} {line['unit']}".rstrip()
        if line["measured"] is None:
            yield [line["what"], goal, line["why_not"], ""]
        else:
            measured = f"{line['measured']:.2f} {line['unit']}".rstrip()
            yield [line["what"], goal, measured, {True: "yes", False: "no", None: ""}[line["met"]]]


def _decode(r: Result) -> Iterable[list[str]]:
    sizes = [r["model"], str(r["threads"]), str(r["batch"]), str(r["context"])]
    yield [
        *sizes,
        f"{r['tokens_per_s']:.1f}",
        f"{r['bytes_per_token'] / 1e6:.0f} MB",
        f"{r['of_read']:.2f}",
        f"{r['of_vnni_peak']:.2f}",
    ]


def _prefill(r: Result) -> Iterable[list[str]]:
    yield [r["model"], str(r["threads"]), str(r["tokens"]), f"{r['tokens_per_s']:.0f}", f"{r['of_vnni_peak']:.2f}"]


def _peers(result: Result) -> Iterable[list[str]]:
    for line in result["results"]:
        ours, theirs = (line["tokens_per_s"][name] for name in ("trireme", _PEER))
        sizes = [line["model"], line["what"], str(line["threads"]), str(line["batch"]), str(line["context"])]
        yield [*sizes, f"{ours:.1f}", f"{theirs:.1f}", f"{line['over'][_PEER]:.2f}"]


_KINDS: Mapping[str, tuple[list[str], Callable[[Result], Iterable[list[str]]]]] = {
    "targets": (["", "goal", "measured", "met"], _targets),
    "decode": (
        ["shape", "threads", "sequences", "positions", "tokens/s", "bytes a token", "of plain read", "of dot peak"],
        _decode,
    ),
    "prefill": (["shape", "threads", "tokens", "tokens/s", "of dot peak"], _prefill),
    **SERVICE_KINDS,
    **FAULT_KINDS,
    "peers": (
        ["shape", "", "threads", "sequences", "positions", "trireme", "TQ2_0", "over TQ2_0"],
        _peers,
    ),
}


def main(path: Path) -> None:
    """Rewrite the page at `path`."""
    path.write_text(render(path.read_text(), path.parent))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
