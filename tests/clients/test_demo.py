"""`trireme demo` with a stub for the server: it streams, it sums up, and however it ends it leaves nothing running."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trireme import errors
from trireme.cli import demo, server_process
from trireme.cli.server_process import ServerProcess, serve_command


def gone(pid, within=60.0):
    """Whether a process has ended; one that only waits for its parent to look (a zombie) has."""
    ends = time.monotonic() + within
    while time.monotonic() < ends:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


STUB = Path(__file__).with_name("stub_server.py")


@pytest.fixture
def command(tmp_path):
    """The stub's command line; afterwards none of its processes may be left."""
    pid_file = tmp_path / "pids"
    yield lambda mode="good": [sys.executable, str(STUB), str(pid_file), mode]
    for pid in map(int, pid_file.read_text().split()):
        assert gone(pid)


def test_it_streams_a_text_and_sums_up(command, capsys, tmp_path):
    demo.run(command(), "Once", max_tokens=9)
    out, err = capsys.readouterr()
    text, _, table = out.partition("\n\n")
    assert text.startswith("Once ")
    assert len(text.encode()) == len("Once") + 9
    for row in ("tokens ", "9 (length)", "time to first token", "tokens/s", "fake-session-1", f"{1:032x}"):
        assert row in table
    assert err.splitlines() == ["Starting the server", "Starting 2 workers", "The server is stopped."]
    assert (tmp_path / "stopped").exists()  # in good order, not killed


def test_a_server_that_does_not_start_is_explained_by_its_own_words(command):
    with pytest.raises(errors.StartupError) as caught:
        demo.run(command("fails"), "Once", max_tokens=9)
    assert str(caught.value) == (
        "The server ended before it was ready (exit code 3); its last lines:\n"
        "  Starting 2 workers\n"
        "  error: The port 1 is in use."
    )


def test_a_server_that_never_gets_ready_is_given_up(command, monkeypatch):
    lines = []
    monkeypatch.setattr(server_process, "monotonic", lambda: 1.6 if lines else 0.0)  # however long it takes to speak
    with (
        pytest.raises(errors.StartupError, match=r"not ready within 1\.5 s; its last lines:\n  Starting 2 workers"),
        ServerProcess(command("silent")) as server,
    ):
        server.wait_ready(1.5, lines.append)
    assert lines == ["Starting 2 workers"]


def test_a_server_that_does_not_stop_is_killed_with_its_children(command):
    with ServerProcess(command("stubborn"), stop_s=0.2) as server:
        assert server.wait_ready(30, lambda line: None).startswith("127.0.0.1:")


def test_an_error_on_the_way_stops_the_server_too(command):
    with pytest.raises(errors.InvalidRequest):
        demo.run(command(), "Once", max_tokens=0)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_in_the_middle_leaves_nothing_behind(command, number, code):
    runner = f"""
import signal, sys
from trireme.cli import demo, main
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the tests
demo.serve_command = lambda stages: {command("held")!r}
sys.exit(main(["demo", "--prompt", "Once"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", runner], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.read(5).startswith("Once")  # and the first of the four tokens that come
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == code
    assert "Traceback" not in err


def test_the_server_is_this_installations_own():
    done = subprocess.run([*serve_command(2)[:-4], "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert serve_command(3)[1:] == ["-m", "trireme", "serve", "--stages", "3", "--listen", "127.0.0.1:0"]
    assert "--listen" in done.stdout
