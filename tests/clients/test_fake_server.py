"""The fake server's own promises: the same answer each time, sessions that expire, scripts taken in order."""

from datetime import UTC, datetime, timedelta

import pytest

from trireme import Client, FinishReason, errors
from trireme.testing import FakeModel, FakeServer
from trireme.testing.store import Store


def test_answers_are_the_same_from_server_to_server():
    answers = []
    for _ in range(2):
        with FakeServer() as server, Client(server.target) as client:
            answers.append(client.generate("Hello", seed=5).result())
    assert answers[0].token_ids == answers[1].token_ids
    assert answers[0].finish_reason is FinishReason.EOS
    assert answers[0].text == FakeModel().detokenize(answers[0].token_ids)


def test_past_the_end_of_text_only_where_asked_to(server):
    with Client(server.target) as client:
        ended = client.generate("Hello", seed=5).result()
        longer = client.generate("Hello", seed=5, ignore_eos=True, max_tokens=400).result()
    eos = FakeModel().eos
    assert eos not in ended.token_ids
    assert longer.token_ids[: len(ended.token_ids) + 1] == (*ended.token_ids, eos)


@pytest.mark.parametrize("size", [1, 5, 12])
def test_a_stop_text_is_found_across_tokens_and_never_shown(server, size):
    with Client(server.target) as client:
        whole = client.generate("Hello", seed=5).result().text
        stop = whole[20 : 20 + size]
        with client.generate("Hello", seed=5, stop=stop) as stream:
            pieces = [chunk.text for chunk in stream]
    assert "".join(pieces) == whole[: whole.index(stop)]


def test_sessions_expire_when_their_time_without_use_is_over():
    now = datetime(2030, 1, 1, tzinfo=UTC)
    with FakeServer(clock=lambda: now) as server, Client(server.target) as client:
        used = client.sessions.create(ttl_seconds=10).session_id
        idle = client.sessions.create(ttl_seconds=10).session_id
        now += timedelta(seconds=9)
        client.generate("x", session=used, max_tokens=1).result()
        assert [session.session_id for session in client.sessions.list()] == [used, idle]
        now += timedelta(seconds=1)
        assert [session.session_id for session in client.sessions.list()] == [used]
        with pytest.raises(errors.SessionNotFound):
            client.generate("x", session=idle).result()
        with pytest.raises(errors.SessionNotFound):
            client.sessions.get(idle)


def test_a_claim_on_a_session_is_given_back_once():
    store = Store(lambda: datetime(2030, 1, 1, tzinfo=UTC))
    session = store.create(60)
    first = store.claim(session.session_id)
    first.give_back([1])
    store.claim(session.session_id)
    first.give_back([2])
    with pytest.raises(errors.SessionBusy):
        store.claim(session.session_id)
    assert session.tokens == [1]


def test_scripts_are_taken_in_order_and_once(server):
    server.fail_next(errors.Internal("First."))
    server.fail_next(errors.Internal("Second."))
    with Client(server.target) as client:
        for said in ("First.", "Second."):
            with pytest.raises(errors.Internal, match=said):
                client.generate("x").result()
        client.generate("x").result()
    assert [call.outcome for call in server.calls] == ["failed", "failed", "finished"]


def test_a_call_that_still_runs_is_not_ended(server):
    server.hold_next(after=1)
    with Client(server.target) as client, client.generate("x") as stream:
        next(stream)
        assert not server.calls[0].wait_ended(0)
        assert server.calls[0].outcome == "running"


def test_a_newer_call_takes_an_answer_over(server):
    with Client(server.target, retries=0) as client:
        server.hold_next(after=2)
        older = client.generate("a", request_id="r", max_tokens=6, seed=1)
        given = [next(older), next(older)]
        session = older.session_id
        newer = client.generate("a", request_id="r", session=session, max_tokens=6, seed=1).result()
        with pytest.raises(errors.StreamTakenOver):
            list(older)
        assert newer.token_ids[: len(given)] == tuple(t for chunk in given for t in chunk.token_ids)
        assert client.status().load.running == 0
        assert client.sessions.get(session).token_count == 2 + 6


def test_what_was_delivered_stays_and_another_request_leaves_it_behind(server):
    with Client(server.target, retries=0) as client:
        server.hold_next(after=3)
        with client.generate("ab", request_id="r", max_tokens=6) as stream:
            for _ in range(3):
                next(stream)
        session = stream.session_id
        assert server.calls[-1].wait_ended()
        assert client.sessions.get(session).token_count == 3 + 3
        client.generate("c", session=session, max_tokens=1).result()
        assert client.sessions.get(session).token_count == 3 + 3 + 1 + 1
        with pytest.raises(errors.RequestSuperseded):
            client.generate("ab", request_id="r", session=session, max_tokens=6).result()
