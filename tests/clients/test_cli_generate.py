"""`trireme generate`: what goes where, and each mistake as one sentence."""

import json
import re

import pytest
from typer.testing import CliRunner

from trireme import Client, errors
from trireme.cli import app, main
from trireme_proto.v1 import inference_pb2 as inference


@pytest.fixture
def run(server, capsys):
    """Runs `trireme ... --target <the fake server>`: exit code, standard output, standard error."""

    def call(*args):
        code = main([*args, "--target", server.target])
        return code, *capsys.readouterr()

    return call


def expected(server, **options):
    with Client(server.target) as client:
        return client.generate("Hello", **options).result()


def test_text_on_stdout_and_the_summary_on_stderr(run, server):
    answer = expected(server, seed=7, max_tokens=20)
    code, out, err = run("generate", "Hello", "--seed", "7", "--max-tokens", "20")
    assert (code, out) == (0, answer.text + "\n")
    assert re.match(r"20 tokens \(length\), first after \d+\.\d{3} s, \d+\.\d tokens/s, ", err)
    assert f"session fake-session-2, trace {2:032x}" in err
    assert err.count("\n") == 1


def test_json_is_one_object_with_exactly_these_keys(run, server):
    answer = expected(server, seed=7, max_tokens=20)
    code, out, err = run("generate", "Hello", "--seed", "7", "--max-tokens", "20", "--json")
    found = json.loads(out)
    times = {"ttft_s": found.pop("ttft_s"), "tokens_per_s": found.pop("tokens_per_s")}
    request_id = found.pop("request_id")
    assert (code, err) == (0, "")
    assert found == {
        "token_ids": list(answer.token_ids),
        "text": answer.text,
        "finish_reason": "length",
        "usage": {"prompt_tokens": 6, "completion_tokens": 20, "cached_tokens": 0},
        "session": "fake-session-2",
        "trace_id": f"{2:032x}",
        "seed": 7,
    }
    assert len(request_id) == 32
    assert all(value > 0 for value in times.values())


def test_every_option_reaches_the_server(run, server):
    with Client(server.target) as client:
        session = client.sessions.create().session_id
    options = ["--max-tokens", "3", "--temperature", "0", "--top-k", "0", "--top-p", "0.5", "--seed", "0"]
    code, *_ = run("generate", "x", *options, "--session", session, "--stop", "a", "--stop", "b", "--timeout", "9")
    call = server.calls[0]
    assert code == 0
    assert call.request == inference.GenerateRequest(
        text="x",
        max_tokens=3,
        sampling=inference.Sampling(temperature=0, top_k=0, top_p=0.5, seed=0),
        session_id=session,
        stop=["a", "b"],
        request_id=call.request.request_id,
    )
    assert 8 < call.timeout < 10


def test_nothing_is_sent_for_options_that_are_not_given(run, server):
    run("generate", "x")
    sent = server.calls[0].request
    bare = inference.GenerateRequest(text="x", sampling=inference.Sampling(), request_id=sent.request_id)
    assert (sent, len(sent.request_id)) == (bare, 32)


@pytest.mark.parametrize(("typed", "sent"), [(b"Hello\n", "Hello"), (b"a\n\n", "a\n"), ("ä".encode(), "ä")])
def test_a_dash_reads_the_prompt_from_stdin(server, typed, sent):
    done = CliRunner().invoke(app, ["generate", "-", "--target", server.target], input=typed)
    assert done.exit_code == 0
    assert server.calls[0].request.text == sent


def test_stdin_that_is_no_text_is_refused(server):
    done = CliRunner().invoke(app, ["generate", "-", "--target", server.target], input=b"ab\xff")
    assert isinstance(done.exception, errors.InvalidRequest)
    assert done.exception.message == "Standard input is not UTF-8 text at byte 2."


@pytest.mark.parametrize("as_json", [[], ["--json"]])
@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["x", "--max-tokens", "0"], "max_tokens must be from 1 to 4096, not 0."),
        (["x", "--seed", "-1"], "seed must be a whole number from 0 to 18446744073709551615, not -1."),
        (["x", "--session", "gone"], "There is no such session; it may have expired."),
        (["x", "--timeout", "0"], "timeout must be more than 0 seconds, not 0."),
        (["\udcff"], "prompt is not valid Unicode text at character 0."),
    ],
    ids=str,
)
def test_a_mistake_is_one_sentence_and_exit_code_1(run, args, said, as_json):
    assert run("generate", *args, *as_json) == (1, "", f"error: {said}\n")


def test_an_error_in_the_middle_keeps_what_came_before(run, server):
    server.fail_next(errors.Internal("A stage was lost."), after=4)
    code, out, err = run("generate", "x")
    assert (code, len(out.encode())) == (1, 4)
    assert err == "error: A stage was lost.\n"


def test_no_server_is_one_sentence(run, server):
    server.stop()
    code, out, err = run("generate", "x")
    assert (code, out) == (1, "")
    assert err == f"error: No Trireme server answers at {server.target}; `trireme serve` starts one.\n"


def test_debug_shows_where_an_error_came_from(run, server, monkeypatch):
    monkeypatch.setenv("TRIREME_DEBUG", "1")
    with pytest.raises(errors.SessionNotFound):
        run("generate", "x", "--session", "gone")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["generate"], "Missing argument 'PROMPT'; see trireme generate --help"),
        (["generate", "x", "--nonsense"], "; see trireme generate --help"),
        (["generate", "x", "--max-tokens", "many"], "--max-tokens"),
        (["nonsense"], "No such command 'nonsense'; see trireme --help"),
        (["sessions"], "Missing command; see trireme sessions --help"),
    ],
    ids=str,
)
def test_a_wrong_command_line_is_one_sentence_and_exit_code_2(args, said, capsys):
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1


def test_control_characters_of_an_answer_do_not_reach_a_terminal(run, server, monkeypatch):
    text = "a\x1b[2Jb\tc\nd\x9b"
    for terminal in (True, False):
        server.answer_next(
            inference.GenerateResponse(token_ids=[1], text=text),
            inference.GenerateResponse(index=1, finish_reason=inference.FINISH_REASON_EOS),
        )
        monkeypatch.setattr("sys.stdout.isatty", lambda terminal=terminal: terminal)
        _, out, _ = run("generate", "x")
        assert out == ("a\ufffd[2Jb\tc\nd\ufffd\n" if terminal else text + "\n")
