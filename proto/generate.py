"""Regenerates the committed gRPC code from proto/trireme_proto/v1/*.proto; --check only compares."""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
PACKAGE = Path("trireme_proto/v1")
BIN = Path(sys.executable).parent  # where pip put the plugins; it need not be in PATH


def generate(target: Path) -> None:
    """Writes *_pb2.py, *_pb2_grpc.py and their stubs for every .proto below `target`/trireme_proto/v1."""
    well_known = str(files("grpc_tools") / "_proto")
    outputs = [f"--{kind}_out={target}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    plugins = [f"--plugin={name}={BIN / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    sources = sorted(str(PACKAGE / path.name) for path in (ROOT / PACKAGE).glob("*.proto"))
    if protoc.main(["protoc", f"-I{ROOT}", f"-I{well_known}", *plugins, *outputs, *sources]):
        sys.exit("protoc failed")


def stale(fresh: Path) -> list[str]:
    """Names of generated files that differ from the committed ones, or that only one side has."""
    names = {p.name for folder in (ROOT, fresh) for p in (folder / PACKAGE).glob("*_pb2*")}
    return sorted(n for n in names if _read(fresh / PACKAGE / n) != _read(ROOT / PACKAGE / n))


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with what is committed, write nothing")
    if not parser.parse_args().check:
        generate(ROOT)
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        if names := stale(Path(folder)):
            sys.exit(f"generated code is out of date ({', '.join(names)}): run `make proto`")


if __name__ == "__main__":
    main()
