"""`trireme serve` as a user runs it: ready line, stop on a signal, nothing left behind, mistakes explained."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from trireme import Client

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
READY = re.compile(r"Trireme is ready on (\S+:\d+)")


class Server:
    """A `trireme serve` process."""

    def __init__(self, *args: str) -> None:
        command = [sys.executable, "-m", "trireme", "serve", "--listen", "127.0.0.1:0", *args]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = READY.search(line)
        assert found, line or self.process.communicate()[1]
        self.address = found[1]
        self.family = [*psutil.Process(self.process.pid).children(recursive=True)]

    def end(self, number: int) -> tuple[int, str]:
        """Exit code and what it wrote on stderr."""
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=120)
        return self.process.returncode, err


@pytest.fixture(scope="module")
def plain() -> Iterator[Server]:
    server = Server("--stages", "2")
    yield server
    if server.process.poll() is None:
        server.end(signal.SIGTERM)


def test_serves_and_leaves_no_process_behind(plain: Server) -> None:
    with Client(plain.address, timeout=60) as client:
        assert client.generate("Once upon a time", max_tokens=8, temperature=0.0).result().token_ids
    assert len(plain.family) > 3  # Ray, its workers and the session store
    code, err = plain.end(signal.SIGINT)
    assert (code, "Traceback" in err) == (0, False), err
    _, alive = psutil.wait_procs(plain.family, timeout=60)
    assert alive == []


def test_a_signal_during_the_start_ends_it_cleanly() -> None:
    command = [sys.executable, "-m", "trireme", "serve", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "session store" in process.stderr.readline()
    assert "Ray" in process.stderr.readline()
    time.sleep(0.5)  # some way into the start of Ray; any moment is as good
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert ("ready" in out, "Traceback" in err, process.returncode) == (False, False, 0), err
    assert psutil.wait_procs(family, timeout=60)[1] == []


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["no-such-pack"], "no pack"),
        (["--stages", "7"], "6 layers"),
        (["--redis-url", "redis://127.0.0.1:1"], "Redis does not answer"),
        (["--redis-url", "nonsense"], "redis"),
        (["--ray-address", "127.0.0.1:1"], "No Ray cluster answers"),
        (["--threads", "0"], "threads"),
        (["--listen", "nowhere"], "HOST:PORT"),
    ],
)
def test_a_mistake_is_one_sentence(args: list[str], sentence: str) -> None:
    assert_refused(args, sentence)


def test_a_busy_port_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        assert_refused(["--listen", f"127.0.0.1:{busy.getsockname()[1]}"], "in use")


@pytest.mark.parametrize("name", ["layers/00003.safetensors", "tokenizer.json"])
def test_a_corrupt_pack_is_one_sentence(tmp_path: Path, name: str) -> None:
    import shutil

    from trireme_worker.pack import default_pack

    shutil.copytree(default_pack(), tmp_path / "pack")
    file = tmp_path / "pack" / name
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert_refused([str(tmp_path / "pack")], name)


def assert_refused(args: list[str], sentence: str) -> None:
    command = [sys.executable, "-m", "trireme", "serve", "--listen", "127.0.0.1:0", *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=dict(os.environ), check=False)
    *progress, last = done.stderr.strip().splitlines()
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert last.startswith("error: ")
    assert sentence in last
    assert "Traceback" not in done.stderr
    assert all(line.startswith(("Starting", "Connecting", "Stage")) for line in progress), done.stderr
