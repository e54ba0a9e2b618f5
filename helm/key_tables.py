"""Writes trireme/files/key.json: what the chart needs to compute the checksum of an API key, which templates cannot.

An API key ends with its CRC-32 in base 62 (coordinator/trireme_coordinator/auth/api_key.py). Templates have neither a
CRC nor bit operations; they have lookups: CRC-32 by nibbles, with `xor[16 * a + b]` and, for each of the 16 nibbles,
the eight nibbles (lowest first) that it changes the sum by.

python helm/key_tables.py            rewrites the file
python helm/key_tables.py --check    fails where it is out of date
"""

from __future__ import annotations

import json
import string
import sys
from pathlib import Path

FILE = Path(__file__).parent / "trireme" / "files" / "key.json"
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_POLYNOMIAL = 0xEDB88320
"""Of CRC-32 as in zlib, lowest bit first."""


def text() -> str:
    """The file's content."""
    tables = {
        "alphabet": ALPHABET,
        "codes": {each: [ord(each) % 16, ord(each) // 16] for each in ALPHABET + "_"},
        "xor": [a ^ b for a in range(16) for b in range(16)],
        "changes": [[change(nibble) >> 4 * i & 15 for i in range(8)] for nibble in range(16)],
    }
    return "{" + ",\n ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in tables.items()) + "}\n"


def change(nibble: int) -> int:
    """What four bits that leave the sum change in it."""
    for _ in range(4):
        nibble = nibble >> 1 ^ (_POLYNOMIAL if nibble & 1 else 0)
    return nibble


def main() -> int:
    """0, or 1 where the file is out of date."""
    if "--check" in sys.argv[1:]:
        return int(FILE.read_text() != text())
    FILE.write_text(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
