"""The command as a process of its own: quick to start, light, quiet when interrupted or cut off."""

import os
import resource
import signal
import subprocess
import sys

import pytest

from trireme import errors

TRIREME = [sys.executable, "-m", "trireme"]


def run(*args, **options):
    return subprocess.run([*TRIREME, *args], capture_output=True, text=True, timeout=60, check=False, **options)


@pytest.fixture
def start():
    """Starts processes that heed Ctrl-C, whatever started the tests, and sees to it that none is left."""
    started = []
    code = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from trireme.cli import main
sys.exit(main())
"""

    def begin(*args):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *args],
            env={name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()
        process.wait()


def test_help_lists_every_command_at_once():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run("--help", env=os.environ | {"COLUMNS": "120"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    for name in ("generate", "chat", "status", "sessions", "demo", "version", "serve", "convert", "logits"):
        assert f"│ {name} " in done.stdout
    # processor time: the wall's depends on what else the machine does
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_its_own_commands_never_load_the_server_or_its_libraries(server):
    heavy = "ray numba numpy redis opentelemetry trireme_coordinator trireme_worker trireme_kernels"
    code = f"""
import sys
from trireme.cli import main
for args in (["--help"], ["generate", "x"], ["status"], ["sessions", "list"], ["demo", "--help"], ["version"]):
    assert main(args) == 0, args
print(set("{heavy}".split()) & sys.modules.keys(), file=sys.stderr)
"""
    env = os.environ | {"TRIREME_TARGET": server.target}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr.splitlines()[-1] == "set()"


def test_an_error_is_one_line_and_no_traceback():
    done = run("status", "--target", "127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: No Trireme server answers at 127.0.0.1:1; `trireme serve` starts one.\n"


def test_a_prompt_that_is_no_utf8_is_one_line(server):
    done = run("generate", os.fsencode("a\udcff"), "--target", server.target)
    assert (done.returncode, done.stderr) == (1, "error: prompt is not valid Unicode text at character 1.\n")


def test_a_terminal_that_lacks_characters_gets_others(server):
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = run("generate", "x", "--seed", "3", "--target", server.target, env=env)
    assert done.returncode == 0
    assert "?" in done.stdout


def test_a_lost_connection_is_one_line_without_the_librarys_own_words(server, start):
    server.hold_next(after=3)
    process = start("generate", "x", "--target", server.target, "--timeout", "3")
    assert process.stdout.read(3)
    server.stop()
    _, err = process.communicate(timeout=60)
    late = "No complete answer came within the timeout of 3 s."
    assert err == f"error: {late} The connection to the Trireme server at {server.target} was lost.\n"


def test_ctrl_c_ends_generate_with_130_and_cancels_the_request(server, start):
    server.hold_next(after=3)
    process = start("generate", "x", "--target", server.target)
    assert process.stdout.read(3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert server.calls[0].wait_ended()
    assert server.calls[0].outcome == "cancelled"


def test_ctrl_c_stops_the_answer_and_not_the_chat(server, start):
    server.hold_next(after=3)
    process = start("chat", "--max-tokens", "8", "--target", server.target)
    process.stdin.write("one\n")
    assert process.stdout.read(3)
    process.send_signal(signal.SIGINT)
    assert server.calls[0].wait_ended()
    server.fail_next(errors.SessionBusy("The session is still busy with it."))
    out, err = process.communicate("two\n/quit\n", timeout=60)
    assert process.returncode == 0
    assert " (stopped)\n" in err
    assert out.endswith("\n")
    assert server.calls[-1].outcome == "finished"
    assert server.calls[-1].request.text == "two\n"


@pytest.mark.parametrize("command", [["generate", "x"], ["generate", "x", "--json"], ["status"], ["version"]], ids=str)
def test_a_reader_that_leaves_is_no_error(server, start, command):
    process = start(*command, *([] if command == ["version"] else ["--target", server.target]))
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == ""
    assert process.wait(20) == 1
