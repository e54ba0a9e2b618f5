"""`status`, `sessions`, `version`, `chat`."""

import json
import re
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from trireme import Client, _replies, errors
from trireme.cli import app, main, output
from trireme.cli.status import _overview
from trireme_proto.v1 import cluster_pb2 as cluster


@pytest.fixture
def run(server, capsys):
    def call(*args):
        code = main([*args, "--target", server.target])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def client(server):
    with Client(server.target) as connected:
        yield connected


def test_status_shows_stages_nodes_pages_and_load(run, server, client):
    server.hold_next(after=1)
    with client.generate("x") as running:
        next(running)
        code, out, _ = run("status")
    assert code == 0
    assert "1 running, 0 of at most 256 waiting, 4 of 1024 KV pages reserved" in out
    assert re.search(r"^0 +0-1 +fake-node-0 +1 +4/1024 +1 +0\.0 s +100 MiB +yes", out, re.MULTILINE)
    assert re.search(r"^1 +2-3 +fake-node-1 +1 +4/1024 +1 +0\.0 s +100 MiB +yes", out, re.MULTILINE)
    assert "fake: 4 layers of 64" in out


def test_status_as_json_is_one_object(run):
    code, out, err = run("status", "--json")
    status = json.loads(out)
    assert (code, err) == (0, "")
    assert set(status) == {field.name for field in cluster.StatusResponse.DESCRIPTOR.fields}
    assert [stage["end_layer"] for stage in status["stages"]] == [2, 4]
    assert status["load"]["queue_limit"] == 256


def test_a_table_that_no_terminal_limits_is_not_broken(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert re.search("^1 .* fake-node-1 .* yes", run("status")[1], re.MULTILINE)


def test_names_from_the_server_are_not_taken_for_markup(run, server, monkeypatch):
    monkeypatch.setattr("trireme.testing.cluster.FakeCluster._described", lambda _: cluster.Model(name="[/b]x[red]"))
    code, out, _ = run("status")
    assert code == 0
    assert "[/b]x[red]" in out


def test_sessions_are_listed_shown_and_deleted(run, client):
    kept = client.generate("Hello", max_tokens=5, seed=1).result()
    other = client.sessions.create().session_id
    code, out, _ = run("sessions", "list")
    assert code == 0
    assert out.index(other) < out.index(kept.session_id)
    code, out, _ = run("sessions", "get", kept.session_id)
    assert code == 0
    assert re.search("^token count +11", out, re.MULTILINE)
    assert "Hello" + kept.text in out
    assert run("sessions", "delete", kept.session_id) == (0, "", f"Session {kept.session_id} is deleted.\n")
    assert [session.session_id for session in client.sessions.list()] == [other]


def test_sessions_as_json(run, client):
    kept = client.generate("Hello", max_tokens=2, seed=1).result()
    listed = json.loads(run("sessions", "list", "--json")[1])["sessions"]
    assert [(session["session_id"], session["token_count"]) for session in listed] == [(kept.session_id, 8)]
    assert "token_ids" not in listed[0]
    shown = json.loads(run("sessions", "get", kept.session_id, "--json")[1])
    assert shown["token_ids"] == [256, *b"Hello", *kept.token_ids]
    assert shown["text"] == "Hello" + kept.text
    assert shown["created"].endswith("+00:00")


def test_sessions_are_forked_rewound_exported_and_imported(run, client, tmp_path):
    kept = client.generate("Hello", max_tokens=5, seed=1).result()
    code, out, err = run("sessions", "fork", kept.session_id, "--at", "6")
    fork = out.strip()
    assert (code, client.sessions.get(fork, True).token_ids) == (0, (256, *b"Hello"))
    assert err == f"It has 6 tokens. To go on: trireme chat --session {fork}\n"
    assert json.loads(run("sessions", "rewind", kept.session_id, "2", "--json")[1])["token_count"] == 2
    file = tmp_path / "kept"
    assert run("sessions", "export", fork, str(file))[:2] == (0, "")
    back = json.loads(run("sessions", "import", str(file), "--ttl-seconds", "60", "--json")[1])
    assert client.sessions.get(back["session_id"], True).token_ids == (256, *b"Hello")


def test_an_exported_session_may_pass_through_a_pipe(server, client):
    session = client.generate("Hello", max_tokens=5).result().session_id
    runner, at = CliRunner(), ("--target", server.target)
    archive = runner.invoke(app, ["sessions", "export", session, "-", *at]).stdout_bytes
    assert archive == client.sessions.export(session)
    done = runner.invoke(app, ["sessions", "import", "-", *at], input=archive)
    assert client.sessions.get(done.stdout.strip()).token_count == 11


def test_a_file_that_is_no_session_or_not_there(run, tmp_path):
    file = tmp_path / "letter"
    assert run("sessions", "import", str(file)) == (1, "", f"error: No such file or directory: {file}\n")
    file.write_text("Dear Jane")
    assert run("sessions", "import", str(file)) == (1, "", "error: archive: this is not an exported session.\n")


def test_a_session_that_is_not_there(run):
    said = "error: There is no such session; it may have expired.\n"
    assert run("sessions", "get", "gone") == (1, "", said)
    assert run("sessions", "delete", "gone") == (1, "", said)


@pytest.mark.parametrize("args", [["version"], ["--version"]])
def test_the_version(args, capsys):
    assert main(args) == 0
    assert capsys.readouterr().out == version("trireme-inference") + "\n"


def test_no_command_shows_the_help(capsys):
    assert main([]) == 0
    assert "Usage: trireme" in capsys.readouterr().out


def chat(server, *args, typed):
    return CliRunner().invoke(app, ["chat", *args, "--target", server.target], input=typed)


def test_chat_goes_on_in_one_session(server, client):
    done = chat(server, "--max-tokens", "4", "--seed", "1", typed="Hello\n\n  and you \n")
    first, second = server.calls
    assert done.exit_code == 0
    assert (first.request.text, second.request.text) == ("Hello\n", "and you\n")
    assert first.request.session_id == second.request.session_id == "fake-session-1"
    tokens = client.sessions.get("fake-session-1", include_tokens=True).token_ids
    assert done.stdout == "".join(client.detokenize(tokens[at : at + 4]) + "\n" for at in (7, 19))
    assert done.stderr.splitlines() == [
        "Session fake-session-1. /help lists the commands; Ctrl-D leaves.",
        "To go on: trireme chat --session fake-session-1",
    ]


def test_chat_continues_a_session_that_is_given(server, client):
    session = client.generate("Hello", max_tokens=2).result().session_id
    chat(server, "--session", session, typed="more\n/quit\nnot sent\n")
    assert [call.request.session_id for call in server.calls] == ["", session]


def test_chat_commands(server):
    done = chat(server, "--max-tokens", "1", typed="/help\na\n/new\nb\n/nonsense\n")
    assert [call.request.session_id for call in server.calls] == ["fake-session-1", "fake-session-2"]
    assert "/new   start a new conversation" in done.stderr
    assert "There is no command /nonsense; /help lists them." in done.stderr
    assert done.stderr.endswith("To go on: trireme chat --session fake-session-2\n")


def test_chat_with_a_session_that_is_not_there_does_not_begin(server):
    done = chat(server, "--session", "gone", typed="Hello\n")
    assert isinstance(done.exception, errors.SessionNotFound)
    assert not server.calls


def test_an_error_ends_a_chat_that_nobody_types(server):
    server.fail_next(errors.Internal("A fault."))
    done = chat(server, typed="a\nb\n")
    assert isinstance(done.exception, errors.Internal)
    assert len(server.calls) == 1


def test_an_error_does_not_end_a_chat_that_somebody_types(server, monkeypatch):
    server.fail_next(errors.Internal("A fault."))
    monkeypatch.setattr("trireme.cli.chat._typed_by_a_person", lambda: True)
    done = chat(server, "--max-tokens", "1", typed="a\nb\n")
    assert "error: A fault.\n" in done.stderr
    assert [call.outcome for call in server.calls] == ["failed", "finished"]


def test_status_says_what_was_lost_and_what_is_waited_for(capsys):
    last = cluster.Recovery(cause="silent", stages=[1], method="moved", detection_seconds=0.75, rebuild_seconds=1.5)
    state = _replies.status(cluster.StatusResponse(reason="No node has room.", recoveries=3, last_recovery=last))
    assert (state.recoveries, state.last_recovery.stages) == (3, (1,))
    output.write_table(_overview("host:1", state))
    shown = capsys.readouterr().out
    assert "No node has room." in shown
    assert "3; the last one: cause silent, stages lost 1, moved, detected in 0.75 s, rebuilt in 1.50 s" in shown
