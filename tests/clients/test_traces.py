"""`traces` and `trace` of both clients, `trireme trace`, and the waterfall as text and as a page."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from trireme import AsyncClient, Client, RequestSpans, Span, SpanProcess, TraceSummary, errors, waterfall
from trireme.cli import main


@pytest.fixture
def run(server, capsys):
    def call(*args):
        code = main(["trace", *args, "--target", server.target])
        return code, *capsys.readouterr()

    return call


async def test_both_clients_list_and_show(server):
    with Client(server.target) as client:
        answers = [client.generate("Hello", max_tokens=3).result() for _ in range(3)]
        recent = client.traces(2)
        assert [each.trace_id for each in recent.traces] == [answers[2].trace_id, answers[1].trace_id]
        [request] = client.trace(answers[0].trace_id)
        assert client.trace(answers[0].request_id) == (request,)
        for wrong in (0, 1001):
            with pytest.raises(errors.InvalidRequest, match=f"limit is {wrong}"):
                client.traces(wrong)
        with pytest.raises(errors.TraceNotFound):
            client.trace("f" * 32)
    async with AsyncClient(server.target) as client:
        assert await client.traces(2) == recent
        assert await client.trace(answers[0].trace_id) == (request,)
        with pytest.raises(errors.TraceNotFound):
            await client.trace("f" * 32)
    names = [span.name for span in request.spans]
    assert names == ["generate", "queue", "prefill", "stage 0", "stage 1", "decode", "stage 0", "stage 1"]
    assert request.spans[3].parent_span_id == request.spans[2].span_id
    assert request.spans[3].process.service == "trireme-stage"
    assert request.spans[3].attributes["trireme.compute_ms"] == 7.0


def test_steps_are_asked_for_where_the_caller_wants_them(server, capsys):
    with Client(server.target) as client:
        client.generate("x", max_tokens=1).result()
        client.generate("x", max_tokens=1, trace_steps=True).result()
    assert main(["generate", "x", "--max-tokens", "1", "--trace-steps", "--target", server.target]) == 0
    given = [call.request.trace_steps if call.request.HasField("trace_steps") else None for call in server.calls]
    assert given == [None, True, True]


def test_the_command_lists_what_was_asked_last(server, run):
    with Client(server.target) as client:
        ids = [client.generate("x", max_tokens=1).result().trace_id for _ in range(3)]
    code, out, err = run("--limit", "2")
    assert (code, err) == (0, "")
    lines = out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == [ids[2], ids[1]]
    assert re.search(r"length +100 ms +30\.0 ms +1 +0 +-$", lines[0].rstrip())
    listed = json.loads(run("--json")[1])
    assert [each["trace_id"] for each in listed["traces"]] == ids[::-1]
    assert (listed["delivering"], listed["spans_lost"]) == (False, 0)


def test_the_command_shows_a_waterfall(server, run):
    with Client(server.target) as client:
        answer = client.generate("x", max_tokens=4).result()
    code, out, err = run(answer.trace_id)
    assert code == 0
    assert "first token after 30.0 ms, 100 ms in all, 0 recoveries" in err
    assert re.search(r"^generate +100 ms +█{40} *$", out, re.MULTILINE)
    assert re.search(r"^  decode +70\.0 ms +█{28} *$", out, re.MULTILINE)
    # 6.5, 13 and 45.5 ms of 65, in 26 characters
    stage = r"^    stage 0 +65\.0 ms +░{3}▒{5}█{18} +wire 10%, wait 20%, compute 70% *$"
    assert re.search(stage, out, re.MULTILINE)
    found = json.loads(run(answer.trace_id, "--json")[1])["requests"][0]
    assert found["summary"]["completion_tokens"] == 4
    assert found["spans"][3]["attributes"] == {
        "trireme.wire_ms": 1.0,
        "trireme.wait_ms": 2.0,
        "trireme.compute_ms": 7.0,
    }


def test_what_is_wrong_is_one_sentence(run):
    assert run("0" * 32)[::2] == (
        1,
        "error: No trace of this id is kept here: it is too long ago, or another coordinator has it.\n",
    )
    code, _, err = run("--html", "x.html")
    assert (code, err) == (
        2,
        "error: Invalid value for --html: --html needs the ID of a trace; see trireme trace --help\n",
    )


class Page(HTMLParser):
    """Tags that open and close, what is referred to, the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_whole_by_itself(server, run, tmp_path):
    with Client(server.target) as client:
        answer = client.generate("x", max_tokens=4).result()
    target = tmp_path / "trace.html"
    assert run(answer.trace_id, "--html", str(target)) == (0, "", f"Wrote {target}.\n")
    text = target.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not {"src", "href"} & {name for name, _ in page.attributes}
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text
    assert page.tags.count("details") == 8
    assert "trireme-stage fake-1" in page.text


HOSTILE = "</td><script>alert(1)</script>\x1b[31m&"


def test_names_from_a_server_are_text_and_nothing_else():
    process = SpanProcess(HOSTILE, HOSTILE, HOSTILE, 1)
    attributes = {HOSTILE: HOSTILE, "error.type": HOSTILE, "x": (HOSTILE, 1, 0.5)}
    span = Span("1", "", HOSTILE, 5, 10, process, attributes, error=True)
    summary = TraceSummary(HOSTILE, HOSTILE, 5, 5, 0, 1, 1, HOSTILE, 0, HOSTILE)
    request = RequestSpans(summary, (span, replace(span, span_id="2", parent_span_id="1", start_ns=0, end_ns=99)))
    page = Page(waterfall.page([request]))
    assert (page.open, "script" in page.tags) == ([], False)
    console = Console(width=200, markup=False, file=io.StringIO(), force_terminal=False)
    console.print(waterfall.table(request))
    assert "\x1b" not in console.file.getvalue()


def test_a_trace_with_nothing_in_it_can_be_drawn():
    empty = Span("1", "", "generate", 5, 5, SpanProcess("", "", "", 0), {}, error=False)
    request = RequestSpans(TraceSummary("t", "r", 5, 0, 0, 0, 0, "", 0, ""), (empty,))
    assert [row.end for row in waterfall.rows(request)] == [0.0]
    assert "<details>" in waterfall.page([request])
