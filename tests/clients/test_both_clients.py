"""What the blocking and the asyncio client have in common: each test runs with both (fixture `do`)."""

import asyncio
import dataclasses
import inspect
import math
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from opentelemetry.sdk.trace import TracerProvider

from trireme import AsyncClient, AsyncSessions, Client, Sessions, errors
from trireme.testing import FakeServer
from trireme_proto.limits import LIMITS
from trireme_proto.v1 import inference_pb2 as inference

EOS = inference.FINISH_REASON_EOS


def message(index, *ids, text="", **last):
    return inference.GenerateResponse(index=index, token_ids=ids, text=text, **last)


async def test_chunks_come_in_order_and_characters_whole(do):
    chunks = await do(lambda client: client.generate("x", seed=3, max_tokens=64))
    assert [chunk.index for chunk in chunks if chunk.token_ids] == list(range(64))
    text = "".join(chunk.text for chunk in chunks)
    assert any(len(character.encode()) > 1 for character in text)
    assert bytes(token for chunk in chunks for token in chunk.token_ids).startswith(text.encode()[:60])


async def test_result_after_some_chunks_has_the_whole_answer(do, server):
    whole = await do(lambda client: client.generate("x", seed=3, max_tokens=9).result())

    def blocking(client):
        stream = client.generate("x", seed=3, max_tokens=9)
        if isinstance(client, Client):
            next(stream)
            return stream.result()
        return _rest(stream)

    async def _rest(stream):
        await anext(stream)
        return await stream.result()

    answer = await do(blocking)
    assert (answer.token_ids, answer.text) == (whole.token_ids, whole.text)


async def test_values_reach_the_server_and_none_stays_unset(do, server):
    await do(
        lambda client: client.generate(
            [104, 105],
            max_tokens=1,
            temperature=0.0,
            top_k=0,
            top_p=1.0,
            seed=0,
            stop="end",
            ignore_eos=False,
            priority=0,
        ).result()
    )
    await do(lambda client: client.generate("hi", stop=["a", "b"]).result())
    given, bare = (call.request for call in server.calls)
    assert list(given.token_ids.ids) == [104, 105]
    assert all(given.sampling.HasField(name) for name in ("temperature", "top_k", "top_p", "seed"))
    assert given.max_tokens == 1
    assert given.HasField("ignore_eos")
    assert given.HasField("priority")
    assert list(given.stop) == ["end"]
    assert not any(bare.sampling.HasField(name) for name in ("temperature", "top_k", "top_p", "seed"))
    assert not bare.HasField("max_tokens")
    assert not bare.HasField("ignore_eos")
    assert not bare.HasField("priority")
    assert (bare.text, list(bare.stop), bare.session_id) == ("hi", ["a", "b"], "")


@pytest.mark.parametrize(
    "wrong", [{"max_tokens": -1}, {"max_tokens": 2**32}, {"top_k": -1}, {"seed": -1}, {"seed": 2**64}], ids=str
)
async def test_a_number_that_no_message_can_hold_is_refused_by_name(do, server, wrong):
    with pytest.raises(errors.InvalidRequest, match=next(iter(wrong))):
        await do(lambda client: client.generate("x", **wrong))
    assert not server.calls


async def test_text_that_is_no_unicode_is_refused(do):
    with pytest.raises(errors.InvalidRequest, match="prompt is not valid Unicode text at character 2"):
        await do(lambda client: client.generate("ab\udcff"))


async def test_a_prompt_too_large_to_send_is_refused_before_it_is_sent(do, server):
    with pytest.raises(errors.PromptTooLong, match=str(LIMITS.message_bytes)):
        await do(lambda client: client.generate("x" * (LIMITS.message_bytes + 1)))
    assert not server.calls


async def test_negative_token_ids_are_refused(do):
    with pytest.raises(errors.InvalidRequest, match="ids must hold token ids"):
        await do(lambda client: client.detokenize([1, -1]))


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ([message(0), message(1, 7)], "jumps to token 1 where token 0 was due"),
        ([message(0, 5), message(0, 6)], "jumps to token 0 where token 1 was due"),
        ([message(0, 5, 6), message(1, 7)], "jumps to token 1 where token 2 was due"),
        ([message(0, 5), message(0, finish_reason=EOS)], "jumps to token 0 where token 1 was due"),
        ([message(0, 5), message(1, 6)], "without a finish reason"),
        ([], "without a finish reason"),
    ],
    ids=str,
)
async def test_a_stream_with_a_gap_or_without_an_end_is_an_internal_error(do, server, sent, said):
    server.answer_next(*sent)
    with pytest.raises(errors.Internal, match=said):
        await do(lambda client: client.generate("x").result())
    server.answer_next(*sent)
    with pytest.raises(errors.Internal, match=said):
        await do(lambda client: client.generate("x"))


async def test_several_tokens_in_a_message_are_one_chunk_and_empty_messages_none(do, server):
    server.answer_next(
        message(0), message(0, 5, 6, text="a"), message(2), message(2, text="b"), message(2, finish_reason=EOS)
    )
    chunks = await do(lambda client: client.generate("x"))
    assert [(chunk.index, chunk.token_ids, chunk.text) for chunk in chunks] == [(0, (5, 6), "a"), (2, (), "b")]


async def test_a_finish_reason_of_a_newer_server_is_unknown(do, server):
    server.answer_next(message(0, 5), message(1, finish_reason=99))
    answer = await do(lambda client: client.generate("x").result())
    assert answer.finish_reason == "unknown"


@pytest.mark.parametrize("after", [0, 3])
async def test_a_deadline_ends_the_call_here_and_on_the_server(do, server, after):
    server.hold_next(after=after)
    with pytest.raises(errors.DeadlineExceeded, match="timeout of 2 s"):
        await do(lambda client: client.generate("x", timeout=2.0).result())
    assert server.calls[0].wait_ended()
    assert server.calls[0].outcome == "cancelled"
    assert 0 < server.calls[0].timeout <= 2.1  # the wire rounds


async def test_a_deadline_ends_any_other_call_too(do, server):
    server.hold_next(method="Status")
    with pytest.raises(errors.DeadlineExceeded, match=r"timeout of 0\.25 s"):
        await do(lambda client: client.status(timeout=0.25))


async def test_the_deadline_is_the_clients_unless_the_call_says_otherwise(do, server):
    await do(lambda client: client.generate("x").result())
    await do(lambda client: client.generate("x", timeout=10).result())
    await do(lambda client: client.generate("x", timeout=math.inf).result())
    of_client, of_call, none = (call.timeout for call in server.calls)
    assert 11 < of_client < 21  # the wire rounds, and the way there takes a while
    assert 1 < of_call < 11
    assert none is None or none > 1e6


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
async def test_a_timeout_that_is_none_is_refused(do, seconds):
    for act in (lambda client: client.generate("x", timeout=seconds), lambda client: client.status(timeout=seconds)):
        with pytest.raises(errors.InvalidRequest, match="timeout must be more than 0"):
            await do(act)


@pytest.mark.parametrize(
    "error",
    [
        errors.PromptTooLong("Too long."),
        errors.SessionBusy("Busy.", retry_after=9.0),
        errors.SessionStoreUnavailable("Redis does not answer."),
        errors.Internal("A fault."),
        errors.DeadlineExceeded("Waited too long in the queue."),
    ],
    ids=lambda error: error.reason,
)
@pytest.mark.parametrize("after", [0, 2])
async def test_the_servers_errors_arrive_as_they_were_raised(do, server, error, after):
    server.fail_next(error, after=after)
    with pytest.raises(type(error)) as caught:
        await do(lambda client: client.generate("x", timeout=8).result())
    assert type(caught.value) is type(error)
    assert caught.value.message == error.message
    assert caught.value.retry_after == error.retry_after
    assert len(server.calls) == 1


@pytest.mark.parametrize(
    "method",
    ["Tokenize", "Detokenize", "Status", "Create", "Get", "List", "Delete", "Fork", "Rewind", "Export", "Import"],
)
async def test_every_other_method_raises_typed_errors_too(do, server, method):
    acts = {
        "Tokenize": lambda client: client.tokenize("x"),
        "Detokenize": lambda client: client.detokenize([1]),
        "Status": lambda client: client.status(),
        "Create": lambda client: client.sessions.create(),
        "Get": lambda client: client.sessions.get("a"),
        "List": lambda client: client.sessions.list(),
        "Delete": lambda client: client.sessions.delete("a"),
        "Fork": lambda client: client.sessions.fork("a"),
        "Rewind": lambda client: client.sessions.rewind("a", 0),
        "Export": lambda client: client.sessions.export("a"),
        "Import": lambda client: client.sessions.import_(b""),
    }
    server.fail_next(errors.SessionStoreUnavailable("Redis does not answer.", retry_after=1.5), method=method)
    with pytest.raises(errors.SessionStoreUnavailable) as caught:
        await do(acts[method])
    assert caught.value.retry_after == 1.5


async def test_a_refused_generation_is_sent_again_after_the_time_the_server_gave(do, server):
    for _ in range(2):
        server.fail_next(errors.Overloaded("The queue is full.", retry_after=0.2))
    answer = await do(lambda client: client.generate("x", max_tokens=3, timeout=9).result())
    assert len(answer.token_ids) == 3
    assert answer.ttft_s >= 0.4
    assert [call.outcome for call in server.calls] == ["failed", "failed", "finished"]
    assert server.calls[2].timeout < server.calls[0].timeout - 0.3


@pytest.mark.parametrize(
    ("error", "after", "calls"),
    [
        (errors.Overloaded("Full.", retry_after=0.01), 0, 3),
        (errors.Overloaded("Full.", retry_after=0.01), 1, 1),
        (errors.Overloaded("Full."), 0, 1),
        (errors.Overloaded("Full.", retry_after=60), 0, 1),
        (errors.Internal("A fault.", retry_after=0.01), 0, 1),
    ],
    ids=["each time", "after a token", "no time given", "past the deadline", "not retryable"],
)
async def test_when_a_refusal_is_final(do, server, error, after, calls):
    for _ in range(5):
        server.fail_next(error, after=after)
    with pytest.raises(type(error)):
        await do(lambda client: client.generate("x").result())
    assert len(server.calls) == calls


async def test_nobody_listening_is_said_with_the_address(do, server):
    server.stop()
    with pytest.raises(errors.ServerUnreachable, match=f"No Trireme server answers at {server.target}"):
        await do(lambda client: client.status())
    with pytest.raises(errors.ServerUnreachable, match=f"No Trireme server answers at {server.target}"):
        await do(lambda client: client.generate("x").result())


async def test_a_server_of_another_kind_is_no_trireme_server():
    with ThreadPoolExecutor(1) as threads:
        other = grpc.server(threads)
        target = f"127.0.0.1:{other.add_insecure_port('127.0.0.1:0')}"
        other.start()
        async with AsyncClient(target) as client:
            with pytest.raises(errors.ServerUnreachable, match=f"{target}: what listens there lacks this call"):
                await client.status()
        other.stop(None).wait()


async def test_a_lost_connection_is_said_too(do, server):
    server.hold_next(after=2)

    def act(client):
        stream = client.generate("x", timeout=1)
        return _async(stream) if isinstance(client, AsyncClient) else _blocking(stream)

    def _blocking(stream):
        next(stream)
        server.stop()
        return stream.result()

    async def _async(stream):
        await anext(stream)
        await asyncio.to_thread(server.stop)
        return await stream.result()

    with pytest.raises(errors.DeadlineExceeded, match=r"within the timeout of 1 s\. The connection to .* was lost"):
        await do(act)


async def test_sessions_come_page_by_page(do, server):
    made = [(await do(lambda client: client.sessions.create())).session_id for _ in range(5)]
    listed = await do(lambda client: client.sessions.list(page_size=2))
    assert [session.session_id for session in listed] == made[::-1]
    first = listed[0]
    assert first.created.tzinfo is not None
    assert first.token_ids is None
    await do(lambda client: client.sessions.delete(made[0]))
    assert len(await do(lambda client: client.sessions.list())) == 4


async def test_tokens_of_a_session_only_where_asked_for(do):
    answer = await do(lambda client: client.generate([65], max_tokens=2).result())
    bare = await do(lambda client: client.sessions.get(answer.session_id))
    full = await do(lambda client: client.sessions.get(answer.session_id, include_tokens=True))
    assert bare.token_ids is None
    assert full.token_ids == (65, *answer.token_ids)
    assert dataclasses.replace(full, token_ids=None) == bare


async def test_the_active_span_is_the_parent_of_the_request(do, server):
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("caller") as span:
        answer = await do(lambda client: client.generate("x", max_tokens=1).result())
    await do(lambda client: client.generate("x", max_tokens=1).result())
    inside, outside = server.calls
    context = span.get_span_context()
    assert inside.metadata["traceparent"].startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-")
    assert answer.trace_id == f"{context.trace_id:032x}"
    assert "traceparent" not in outside.metadata


async def test_a_closed_client_says_so(server):
    blocking, asynchronous = Client(server.target), AsyncClient(server.target)
    blocking.close()
    await asynchronous.close()
    blocking.close()
    await asynchronous.close()
    for act in (lambda: blocking.generate("x"), blocking.status, lambda: asynchronous.generate("x")):
        with pytest.raises(RuntimeError, match="closed"):
            act()
    with pytest.raises(RuntimeError, match="closed"):
        await asynchronous.status()


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("given", "called"),
    [("here:1", "here:1"), ("here", "here:50051"), (None, "localhost:50051"), ("", "localhost:50051")],
)
def test_the_target(kind, given, called):
    assert kind(given).target == called


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_the_target_of_the_environment(kind, monkeypatch):
    monkeypatch.setenv("TRIREME_TARGET", "there:7")
    assert kind().target == "there:7"
    assert kind("here:1").target == "here:1"


@pytest.mark.parametrize("target", ["http://localhost:50051", "https://x", "two words:1"])
def test_a_target_that_is_no_address(target):
    with pytest.raises(errors.ConfigurationError, match="HOST:PORT"):
        Client(target)


@pytest.mark.parametrize(("one", "other"), [(Client, AsyncClient), (Sessions, AsyncSessions)])
def test_both_clients_take_the_same_and_say_the_same(one, other):
    names = {name for name in vars(one) if not name.startswith("_")}
    assert names == {name for name in vars(other) if not name.startswith("_")}
    for name in names - {"target"}:
        mine, theirs = inspect.signature(getattr(one, name)), inspect.signature(getattr(other, name))
        assert mine.parameters == theirs.parameters
        assert inspect.getdoc(getattr(one, name)) == inspect.getdoc(getattr(other, name))


async def test_a_proxy_for_the_web_does_not_catch_local_calls(do, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with FakeServer() as other, Client(other.target) as client:
        assert client.status().ready


async def test_sessions_are_forked_rewound_exported_and_imported(do):
    session = (await do(lambda client: client.generate("Hello", max_tokens=4).result())).session_id
    fork = await do(lambda client: client.sessions.fork(session, 3))
    assert (fork.token_count, fork.token_ids) == (3, None)
    assert (await do(lambda client: client.sessions.rewind(session, 0))).token_count == 0
    archive = await do(lambda client: client.sessions.export(fork.session_id))
    back = await do(lambda client: client.sessions.import_(archive, 60))
    assert (await do(lambda client: client.sessions.get(back.session_id, True))).token_ids == (256, *b"He")


async def test_a_session_that_lacks_tokens_says_so_until_it_is_rewound(do, server):
    session = (await do(lambda client: client.generate("Hello", max_tokens=4).result())).session_id
    server.lose_tokens(session, 3)
    found = await do(lambda client: client.sessions.get(session, True))
    assert (found.missing_tokens, found.token_count) == (3, 7)
    for act in (
        lambda client: client.generate("x", session=session).result(),
        lambda client: client.sessions.fork(session),
        lambda client: client.sessions.export(session),
    ):
        with pytest.raises(errors.SessionIncomplete, match=r"3 tokens .* rewind it to 7"):
            await do(act)
    assert (await do(lambda client: client.sessions.fork(session, 6))).token_count == 6
    assert (await do(lambda client: client.sessions.rewind(session, 7))).missing_tokens == 0
    assert (await do(lambda client: client.generate("x", session=session, max_tokens=1).result())).token_ids


async def test_numbers_and_archives_that_no_message_can_hold_are_refused(do):
    for act in (
        lambda client: client.sessions.fork("a", -1),
        lambda client: client.sessions.rewind("a", 2**32),
        lambda client: client.sessions.import_(b"", -1),
        lambda client: client.sessions.import_(b"x" * (LIMITS.message_bytes + 1)),
    ):
        with pytest.raises(errors.InvalidRequest, match=r"^(at|ttl_seconds|archive) "):
            await do(act)
