"""Writes trireme/README.md: every value with its default and its meaning, out of the schema and values.yaml.

python helm/values_reference.py            rewrites the file
python helm/values_reference.py --check    fails where it is out of date
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "trireme"
FILE = CHART / "README.md"
_HEAD = """# Values of the chart

Written by helm/values_reference.py out of values.schema.json and values.yaml; unknown values are refused. How to
install, upgrade and uninstall, and how the memory of workers is computed: ../README.md.

| value | default | meaning |
|---|---|---|
"""
Schema = dict[str, Any]


def rows(schema: Schema, defaults: Any, definitions: Schema, path: str = "") -> Iterator[tuple[str, str, str]]:
    """(path, default, meaning) of each value below a part of the schema."""
    for name, given in schema.get("properties", {}).items():
        here, default = f"{path}{name}", defaults.get(name) if isinstance(defaults, dict) else None
        part = definitions[given["$ref"].rpartition("/")[2]] | given if "$ref" in given else given
        yield here, "" if default is None or part.get("properties") else _short(default), _meaning(part)
        yield from rows(part, default, definitions, f"{here}.")
        items = part.get("items", {})
        if items.get("$ref") == "#/$defs/group":
            yield from rows(definitions["group"], None, definitions, f"{here}[].")


def text() -> str:
    """The file's content."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    lines = rows(schema, defaults, schema["$defs"])
    return _HEAD + "".join(f"| `{path}` | {default} | {meaning} |\n" for path, default, meaning in lines)


def _short(default: object) -> str:
    return f"`{json.dumps(default)}`"


def _meaning(part: Schema) -> str:
    words: list[str] = [str(part["description"])]
    if "enum" in part:
        words.append(f"One of {', '.join(f'`{each}`' for each in part['enum'])}.")
    elif part.get("type") == "integer":
        words.append(f"{part['minimum']} to {part['maximum']}.")
    return " ".join(words).replace("|", "\\|")


def main() -> int:
    """0, or 1 where the file is out of date."""
    if "--check" in sys.argv[1:]:
        return int(FILE.read_text() != text())
    FILE.write_text(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
