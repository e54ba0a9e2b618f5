"""A stand-in for kubectl, for the commands that the notes print: secrets out of manifests, and a real port-forward.

python -m tests.helm.kubectl --namespace N get secret NAME --output jsonpath={.data.KEY}
python -m tests.helm.kubectl --namespace N port-forward service/NAME LOCAL:REMOTE
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path

from tests.helm.rendering import Manifest, find


def installed(folder: Path, manifests: list[Manifest], target: str) -> dict[str, str]:
    """An environment in which `kubectl` knows the manifests' secrets, and forwards to `target`, HOST:PORT."""
    (folder / "secrets.json").write_text(json.dumps([m for m in manifests if m["kind"] == "Secret"]))
    (folder / "bin").mkdir()
    program = folder / "bin" / "kubectl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.helm.kubectl "$@"\n')
    program.chmod(0o755)
    places = (program.parent, Path(sys.executable).parent, os.environ["PATH"])
    return {
        "PATH": os.pathsep.join(map(str, places)), "PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(folder),
        "KUBECTL_SECRETS": str(folder / "secrets.json"), "KUBECTL_TARGET": target,
    }  # fmt: skip


def main() -> None:
    match sys.argv[1:]:
        case ["--namespace", _, "get", "secret", name, "--output", path]:
            key = path.removeprefix("jsonpath={.data.").removesuffix("}").replace("\\.", ".")
            secrets = json.loads(Path(os.environ["KUBECTL_SECRETS"]).read_text())
            sys.stdout.write(find(secrets, "Secret", name)["data"][key])
        case ["--namespace", _, "port-forward", service, ports] if service.startswith("service/"):
            asyncio.run(forward(int(ports.partition(":")[0]), *os.environ["KUBECTL_TARGET"].rsplit(":", 1)))
        case other:
            raise SystemExit(f"not known here: {other}")


async def forward(port: int, host: str, remote: str) -> None:
    """Whatever comes to localhost:port goes to host:remote."""

    async def each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, int(remote))
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    async with await asyncio.start_server(each, "localhost", port) as server:
        await server.serve_forever()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


if __name__ == "__main__":
    main()
