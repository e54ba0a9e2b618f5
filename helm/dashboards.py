"""Writes trireme/dashboards/*.json and docs/dashboards.md out of boards/.

python helm/dashboards.py            rewrites the files
python helm/dashboards.py --check    fails where they are out of date
"""

from __future__ import annotations

import sys
from pathlib import Path

from boards import capacity, grafana, page, pipeline, requests

_HERE = Path(__file__).parent
BOARDS = (requests.BOARD, pipeline.BOARD, capacity.BOARD)
PAGE = _HERE.parent / "docs" / "dashboards.md"


def files() -> dict[Path, str]:
    """Every file that is written, and its content."""
    made = {_HERE / "trireme" / "dashboards" / f"{board.name}.json": grafana.json_text(board) for board in BOARDS}
    return made | {PAGE: page.text(BOARDS)}


def main(arguments: list[str]) -> int:
    """Exit code."""
    wanted = files()
    if arguments == ["--check"]:
        return int(any(not path.exists() or path.read_text() != text for path, text in wanted.items()))
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
