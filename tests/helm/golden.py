"""What each values file renders to, with what is random replaced.

python -m tests.helm.golden    rewrites golden/*.yaml (also: make helm-golden)
"""

from __future__ import annotations

from pathlib import Path

import yaml
from tests.helm.rendering import VALUES, render, values_of

FOLDER = Path(__file__).parent / "golden"


def text(name: str) -> str:
    """All manifests of a values file, as they are recorded."""
    manifests = render(values_of(name))
    for manifest in manifests:
        if manifest["kind"] == "Secret":
            manifest["data"] = dict.fromkeys(manifest["data"], "GENERATED")
    return yaml.safe_dump_all(manifests, sort_keys=False, width=120)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.yaml"):
        old.unlink()
    for values in VALUES:
        (FOLDER / f"{values}.yaml").write_text(text(values))
