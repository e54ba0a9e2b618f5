"""The agent as one text for a host's Python: its files, in the order in which they import each other, and a request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_PARTS = ("words", "files", "processes", "starting", "installing", "main")
_LOADER = """
import json, sys, types
for name, source in {parts!r}:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
module.main(json.loads({request!r}))
"""
_SOURCES = [
    (f"{__package__}.{name}", Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")) for name in _PARTS
]


def program(request: dict[str, Any]) -> str:
    """Python source that does what `request`, of JSON's types, says."""
    return _LOADER.format(parts=_SOURCES, request=json.dumps(request))
