"""A host with systemd: this machine's own files under an overlay, booted by systemd-nspawn, on this machine's network.

What it writes is in memory and gone at the end; of this machine's own services none starts. Root only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

_BOOT_SECONDS = 60
_END_SECONDS = 60

needs_nspawn = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("systemd-nspawn") is None,
    reason="needs root and systemd-nspawn (Debian: systemd-container), to boot a host of its own",
)


class Booted:
    """The running host; `root`: its file system."""

    def __init__(self, root: Path, nspawn: subprocess.Popen[bytes]) -> None:
        self.root, self._nspawn = root, nspawn

    def run(self, *command: str, check: bool = True) -> str:
        """Runs a command in it, as root; its output."""
        inside = ["nsenter", "--all", "--target", str(self._first().pid), "--", *command]
        done = subprocess.run(inside, capture_output=True, text=True, check=False, timeout=120)
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def wait(self) -> None:
        """Until systemd says that it has started everything."""
        ends = time.monotonic() + _BOOT_SECONDS
        while time.monotonic() < ends:
            with contextlib.suppress(IndexError, psutil.NoSuchProcess):
                if self.run("systemctl", "is-system-running", check=False).strip() in ("running", "degraded"):
                    return
            assert self._nspawn.poll() is None, (self.root.parent / "console").read_text(errors="replace")
            time.sleep(0.2)
        raise TimeoutError("The host did not come up.")

    def _first(self) -> psutil.Process:
        return psutil.Process(self._nspawn.pid).children()[0]


@contextlib.contextmanager
def booted(binds: Mapping[Path, str]) -> Iterator[Booted]:
    """`binds`: folders of this machine, and where they are to be seen there, not to be written."""
    folder = Path(tempfile.mkdtemp(prefix="booted-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        _mount(stack, folder, "-t", "tmpfs", "-o", "mode=0755", "tmpfs")
        root, upper, work = (folder / name for name in ("root", "upper", "work"))
        for each in (root, upper, work):
            each.mkdir()
        _mount(stack, root, "-t", "overlay", "-o", f"lowerdir=/,upperdir={upper},workdir={work}", "overlay")
        (root / "etc/machine-id").write_text("uninitialized\n")
        for wants in (root / "etc/systemd/system").glob("*.wants"):
            shutil.rmtree(wants)
        options = ["--register=no", "--keep-unit", "--settings=no", "--resolv-conf=off", "--timezone=off", "--quiet"]
        options += [f"--bind-ro={what}:{where}" for what, where in binds.items()]
        options += ["--boot", "--console=read-only", f"--directory={root}"]
        command = ["systemd-nspawn", *options, "--", "--unit=basic.target"]
        with (folder / "console").open("wb") as console:
            nspawn = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=console, stderr=console)
        stack.callback(_end, nspawn)
        yield Booted(root, nspawn)


def _mount(stack: contextlib.ExitStack, where: Path, *options: str) -> None:
    subprocess.run(["mount", *options, where], check=True)
    stack.callback(subprocess.run, ["umount", "--lazy", where], check=True)


def _end(nspawn: subprocess.Popen[bytes]) -> None:
    """Switched off in good order, else by force."""
    nspawn.send_signal(signal.SIGTERM)
    try:
        nspawn.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        for each in psutil.Process(nspawn.pid).children(recursive=True):
            each.kill()
        nspawn.kill()
        nspawn.wait()


def python_there(clone: Path) -> tuple[dict[Path, str], str, dict[str, str]]:
    """(binds, Python, environment) for this interpreter, its packages and this clone in a booted host, where services
    see neither home folders nor /tmp, in which they may lie here.
    """
    where = "/opt/trireme"
    packages = Path(sysconfig.get_path("purelib"))
    parts = [f"{where}/clone/{part}" for part in ("clients", "coordinator", "kernels", "proto", "worker")]
    binds = {clone: f"{where}/clone", packages: f"{where}/packages", Path(sys.base_prefix): f"{where}/python"}
    python = f"{where}/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    environment = {"PYTHONPATH": ":".join([*parts, f"{where}/packages"])}
    environment["LD_LIBRARY_PATH"] = (
        f"{where}/python/lib"  # a Python that was moved finds its own libpython by this only
    )
    return binds, python, environment
