"""What every server of the public API must do, told to the fake one and to the real one.

A test module derives a class from these and gives a fixture `target` (HOST:PORT of a running server). Nothing here
depends on the model; it only has to hold a context of some hundred tokens.
"""

import re
import time
from dataclasses import replace

import pytest
from tests.clients.contract_resume import ResumeContract

from trireme import Client, FinishReason, NodeSpec, errors
from trireme_proto.archive import from_bytes, to_bytes

PROMPT = "Once upon a time, there was"
GREEDY: dict = {"temperature": 0.0, "ignore_eos": True}


class _Connected:
    @pytest.fixture
    def client(self, target):
        with Client(target, timeout=60) as connected:
            yield connected


class GenerateContract(_Connected):
    """The stream of one answer."""

    def test_indices_are_contiguous_and_the_end_says_what_it_cost(self, client):
        with client.generate(PROMPT, max_tokens=12, **GREEDY) as stream:
            chunks = list(stream)
            answer = stream.result()
        assert [chunk.index for chunk in chunks if chunk.token_ids] == list(range(12))
        assert answer.token_ids == tuple(token for chunk in chunks for token in chunk.token_ids)
        assert answer.text == "".join(chunk.text for chunk in chunks) != ""
        assert answer.finish_reason is FinishReason.LENGTH
        assert answer.usage.completion_tokens == 12
        assert answer.usage.prompt_tokens == len(client.tokenize(PROMPT))
        assert answer.usage.cached_tokens == 0
        assert answer.ttft_s > 0
        assert answer.tokens_per_s > 0

    def test_the_first_message_names_request_session_trace_and_seed(self, client):
        with client.generate(PROMPT, max_tokens=2, seed=0, request_id="contract:1.a_b-c") as stream:
            next(stream)
            assert (stream.request_id, stream.seed) == ("contract:1.a_b-c", 0)
            assert re.fullmatch("[0-9a-f]{32}", stream.trace_id)
            assert client.sessions.get(stream.session_id).session_id == stream.session_id

    def test_seed_and_prompt_fix_the_tokens(self, client):
        first = client.generate(PROMPT, max_tokens=16, temperature=1.0, ignore_eos=True).result()
        again = client.generate(PROMPT, max_tokens=16, temperature=1.0, ignore_eos=True, seed=first.seed).result()
        others = [
            client.generate(PROMPT, max_tokens=16, temperature=1.0, ignore_eos=True, seed=first.seed ^ bit).result()
            for bit in (1, 2, 4, 8)
        ]
        assert again.token_ids == first.token_ids
        assert again.session_id != first.session_id
        assert {other.token_ids for other in others} != {first.token_ids}

    def test_greedy_does_not_depend_on_the_seed(self, client):
        one, two = (client.generate(PROMPT, max_tokens=8, seed=seed, **GREEDY).result() for seed in (1, 2))
        assert one.token_ids == two.token_ids

    def test_a_prompt_may_be_token_ids(self, client):
        by_text = client.generate(PROMPT, max_tokens=8, **GREEDY).result()
        by_ids = client.generate(client.tokenize(PROMPT), max_tokens=8, **GREEDY).result()
        assert by_ids.token_ids == by_text.token_ids
        assert by_ids.usage == by_text.usage

    def test_a_stop_text_ends_the_answer_and_is_not_part_of_it(self, client):
        whole = client.generate(PROMPT, max_tokens=24, **GREEDY).result()
        middle = len(whole.text) // 2
        stop = whole.text[middle : middle + 3]
        cut = client.generate(PROMPT, max_tokens=24, stop=["\u0001never\u0001", stop], **GREEDY).result()
        assert cut.finish_reason is FinishReason.STOP
        assert cut.text == whole.text[: whole.text.index(stop)]

    @pytest.mark.parametrize("room_and_more", [{}, {"max_tokens": 6}], ids=str)
    def test_the_context_window_ends_the_answer(self, client, room_and_more):
        room = 5
        context = client.status().model.context
        some = client.tokenize(PROMPT)
        prompt = (some * context)[: context - room]
        answer = client.generate(prompt, **GREEDY, **room_and_more).result()
        assert answer.finish_reason is FinishReason.CONTEXT
        assert answer.usage.completion_tokens == room

    def test_tokens_make_a_round_trip(self, client):
        text = "A fish, a bird and 3 ships."
        assert client.detokenize(client.tokenize(text, add_bos=False)).strip() == text
        assert client.detokenize(client.tokenize(text, add_bos=True)).strip() == text
        assert len(client.tokenize(text)) in {len(client.tokenize(text, add_bos=False)) + bos for bos in (0, 1)}


class RefusalContract(_Connected):
    """What is refused, with which error; and that nothing is left behind."""

    @pytest.mark.parametrize(
        "wrong",
        [
            {"max_tokens": 0},
            {"temperature": -0.5},
            {"temperature": float("nan")},
            {"temperature": 100.5},
            {"top_p": 0.0},
            {"top_p": 1.5},
            {"top_k": 2**32 - 1},
            {"stop": [""]},
            {"stop": ["a"] * 9},
            {"stop": ["a" * 257]},
            {"request_id": "not allowed"},
            {"request_id": "a" * 129},
        ],
        ids=str,
    )
    def test_a_field_out_of_its_range(self, client, wrong):
        with pytest.raises(errors.InvalidRequest, match=next(iter(wrong))):
            client.generate(PROMPT, **wrong).result()
        self._nothing_left(client)

    def test_a_token_outside_of_the_vocabulary(self, client):
        vocabulary = client.status().model.vocabulary
        with pytest.raises(errors.InvalidRequest):
            client.generate([0, vocabulary], max_tokens=1).result()
        with pytest.raises(errors.InvalidRequest):
            client.detokenize([vocabulary])

    @pytest.mark.parametrize("prompt", ["", []], ids=["text", "ids"])
    def test_an_empty_prompt_of_ids_or_text_answers_or_is_refused(self, client, prompt):
        try:
            answer = client.generate(prompt, max_tokens=1, **GREEDY).result()
        except errors.InvalidRequest:
            self._nothing_left(client)
        else:
            assert answer.usage.prompt_tokens >= 1

    def test_a_prompt_longer_than_the_context(self, client):
        context = client.status().model.context
        with pytest.raises(errors.PromptTooLong):
            client.generate((client.tokenize(PROMPT) * context)[:context], max_tokens=1).result()
        self._nothing_left(client)

    def test_an_unknown_session(self, client):
        for act in (
            lambda: client.generate(PROMPT, session="no-such-session", max_tokens=1).result(),
            lambda: client.sessions.get("no-such-session"),
            lambda: client.sessions.delete("no-such-session"),
        ):
            with pytest.raises(errors.SessionNotFound):
                act()
        self._nothing_left(client)

    def test_a_deadline_ends_the_request(self, client):
        with pytest.raises(errors.DeadlineExceeded):
            client.generate(PROMPT, timeout=0.0005, **GREEDY).result()
        self._nothing_left(client)

    def test_leaving_early_ends_the_request(self, client):
        with client.generate(PROMPT, **GREEDY) as stream:
            next(stream)
        self._nothing_left(client)

    def _nothing_left(self, client, within=60.0):
        """Until no request runs; then pages are whole. Asks again and again, as the end of a request takes a step."""
        ends = time.monotonic() + within
        while (status := client.status()).load.running:
            assert time.monotonic() < ends, status
        assert all(stage.integrity_ok for stage in status.stages)


class SessionContract(_Connected):
    """Conversations."""

    def test_a_second_request_continues_the_first(self, client):
        first = client.generate(PROMPT, max_tokens=6, **GREEDY).result()
        second = client.generate(" and so", session=first.session_id, max_tokens=4, **GREEDY).result()
        added = len(client.tokenize(" and so", add_bos=False))
        assert second.session_id == first.session_id
        assert second.usage.prompt_tokens == len(client.tokenize(PROMPT)) + 6 + added
        assert 0 < second.usage.cached_tokens < second.usage.prompt_tokens

        whole = [*client.tokenize(PROMPT), *first.token_ids, *client.tokenize(" and so", add_bos=False)]
        at_once = client.generate(whole, max_tokens=4, **GREEDY).result()
        assert second.token_ids == at_once.token_ids

        kept = client.sessions.get(first.session_id, include_tokens=True)
        assert kept.token_ids == (*whole, *second.token_ids)
        assert kept.token_count == len(kept.token_ids)

    def test_create_get_delete(self, client):
        made = client.sessions.create(ttl_seconds=60)
        found = client.sessions.get(made.session_id)
        assert found.session_id == made.session_id
        assert found.token_count == 0
        assert found.token_ids is None
        assert found.model == client.status().model.name
        assert found.created <= found.last_used < found.expires
        assert (found.expires - found.last_used).total_seconds() == pytest.approx(60, abs=1)
        client.sessions.delete(made.session_id)
        with pytest.raises(errors.SessionNotFound):
            client.sessions.get(made.session_id)

    def test_listing_goes_over_all_pages_newest_first(self, client):
        made = [client.sessions.create().session_id for _ in range(5)]
        listed = [session.session_id for session in client.sessions.list(page_size=2)]
        assert set(made) <= set(listed)
        assert len(listed) == len(set(listed))
        used = [session.last_used for session in client.sessions.list()]
        assert used == sorted(used, reverse=True)
        for session in made:
            client.sessions.delete(session)

    def _told(self, client):
        """A session of a prompt and an answer, and its tokens."""
        session = client.generate(PROMPT, max_tokens=20, **GREEDY).result().session_id
        return session, client.sessions.get(session, include_tokens=True).token_ids

    def test_a_fork_goes_on_as_a_fresh_conversation_of_its_tokens(self, client):
        session, tokens = self._told(client)
        for at in (None, len(tokens) - 3, 1):
            kept = tokens[:at]
            fork = client.sessions.fork(session, at)
            assert fork.session_id != session
            assert fork.token_count == len(kept)
            assert client.sessions.get(fork.session_id, include_tokens=True).token_ids == kept
            answer = client.generate([7], session=fork.session_id, max_tokens=8, **GREEDY).result()
            assert answer.token_ids == client.generate([*kept, 7], max_tokens=8, **GREEDY).result().token_ids
        assert client.sessions.get(session, include_tokens=True).token_ids == tokens

    def test_a_rewound_session_goes_on_as_a_fresh_conversation_of_its_tokens(self, client):
        session, tokens = self._told(client)
        for at in (len(tokens) - 1, len(tokens) // 2, 0):
            rewound = client.sessions.rewind(session, at)
            assert (rewound.session_id, rewound.token_count) == (session, at)
            answer = client.generate([9], session=session, max_tokens=8, **GREEDY).result()
            assert answer.token_ids == client.generate([*tokens[:at], 9], max_tokens=8, **GREEDY).result().token_ids
            kept = client.sessions.get(session, include_tokens=True).token_ids
            assert kept == (*tokens[:at], 9, *answer.token_ids)

    def test_a_client_is_told_once_that_a_session_is_shorter_than_it_saw(self, client, target):
        session, tokens = self._told(client)
        with Client(target, timeout=60) as other:
            other.sessions.rewind(session, len(tokens) - 1)
        with pytest.raises(errors.SessionIncomplete, match=f"holds {len(tokens) - 1} tokens .* ended at {len(tokens)}"):
            client.generate([9], session=session, max_tokens=8, **GREEDY).result()
        answer = client.generate([9], session=session, max_tokens=8, **GREEDY).result()
        assert answer.token_ids == client.generate([*tokens[:-1], 9], max_tokens=8, **GREEDY).result().token_ids

    def test_a_session_goes_on_after_a_stop_text_and_after_an_answer_that_was_left(self, client):
        session, _ = self._told(client)
        whole = client.generate([9], session=client.sessions.fork(session).session_id, max_tokens=16, **GREEDY).result()
        stop = whole.text[len(whole.text) // 2 :][:3]
        stopped = client.generate([9], session=session, max_tokens=16, stop=stop, **GREEDY).result()
        assert stopped.finish_reason is FinishReason.STOP
        client.generate([9], session=session, max_tokens=4, **GREEDY).result()
        with client.generate([9], session=session, max_tokens=64, **GREEDY) as stream:
            next(stream)
        deadline = time.monotonic() + 10
        while True:
            try:
                client.generate([9], session=session, max_tokens=4, **GREEDY).result()
                break
            except errors.SessionBusy:
                assert time.monotonic() < deadline

    def test_what_was_exported_is_imported_as_it_was(self, client):
        session, tokens = self._told(client)
        archive = client.sessions.export(session)
        client.sessions.delete(session)
        back = client.sessions.import_(archive)
        assert client.sessions.get(back.session_id, include_tokens=True).token_ids == tokens
        shorter = client.sessions.import_(archive, ttl_seconds=60)
        assert (shorter.expires - shorter.last_used).total_seconds() == pytest.approx(60, abs=1)
        assert shorter.session_id != back.session_id
        answer = client.generate([7], session=back.session_id, max_tokens=8, **GREEDY).result()
        assert answer.token_ids == client.generate([*tokens, 7], max_tokens=8, **GREEDY).result().token_ids

    def test_an_archive_is_refused_where_it_is_damaged_or_does_not_fit(self, client):
        model = client.status().model
        archive = client.sessions.export(client.sessions.create(ttl_seconds=60).session_id)
        for wrong in (b"", b"hello", archive[:-1], archive[:-1] + bytes([archive[-1] ^ 1])):
            with pytest.raises(errors.ArchiveDamaged):
                client.sessions.import_(wrong)
        whole = from_bytes(archive)
        with pytest.raises(errors.WrongModel):
            client.sessions.import_(to_bytes(replace(whole, pack_sha256="f" * 64)))
        for tokens in ((0,) * (model.context + 1), (model.vocabulary,)):
            with pytest.raises(errors.InvalidRequest, match="archive"):
                client.sessions.import_(to_bytes(replace(whole, token_ids=tokens)))
        with pytest.raises(errors.InvalidRequest, match="ttl_seconds"):
            client.sessions.import_(archive, ttl_seconds=0)

    def test_a_position_beyond_the_end_and_a_session_that_is_not_there(self, client):
        session = client.sessions.create().session_id
        for act in (client.sessions.fork, client.sessions.rewind):
            with pytest.raises(errors.InvalidRequest, match="at is 1"):
                act(session, 1)
            with pytest.raises(errors.SessionNotFound):
                act("no-such-session", 0)
        with pytest.raises(errors.SessionNotFound):
            client.sessions.export("no-such-session")

    @pytest.mark.parametrize("ttl", [0, 30 * 24 * 3600 + 1])
    def test_a_lifetime_out_of_its_range(self, client, ttl):
        with pytest.raises(errors.InvalidRequest, match="ttl_seconds"):
            client.sessions.create(ttl_seconds=ttl)

    @pytest.mark.parametrize("size", [0, 1001])
    def test_a_page_size_out_of_its_range(self, client, size):
        with pytest.raises(errors.InvalidRequest, match="page_size"):
            list(client.sessions.list(page_size=size))


class StatusContract(_Connected):
    """What the server tells about itself."""

    def test_stages_cover_the_layers_once(self, client):
        status = client.status()
        assert status.ready
        assert status.session_store_ok
        assert status.epoch >= 1
        assert re.fullmatch("[0-9a-f]{64}", status.model.pack_sha256)
        ends = [0, *(stage.end_layer for stage in status.stages)]
        assert [stage.first_layer for stage in status.stages] == ends[:-1]
        assert ends[-1] == status.model.layers
        assert [stage.stage for stage in status.stages] == list(range(len(status.stages)))
        assert all(stage.kv_pages_used <= stage.kv_pages_total for stage in status.stages)


class PreviewContract(_Connected):
    """What other machines would do."""

    NODES = tuple(NodeSpec(name, ram_gb=64, read_gb_s=40, int8_gmac_s=2000, cores=8) for name in ("one", "two"))

    def test_a_plan_covers_the_layers_once_and_each_node_has_a_place_or_a_reason(self, client):
        found = client.preview_placement(self.NODES, prompt_tokens=32, context_tokens=64)
        ends = [0, *(stage.end_layer for stage in found.stages)]
        assert [stage.first_layer for stage in found.stages] == ends[:-1]
        assert ends[-1] == client.status().model.layers
        used, idle = {stage.node for stage in found.stages}, {each.node for each in found.left_out}
        assert used | idle == {"one", "two"}
        assert not used & idle
        assert all(each.reason for each in found.left_out)
        assert found.figures.tokens_per_s_aggregate >= found.figures.tokens_per_s_single > 0
        assert found.figures.ttft_s > 0
        assert found.figures.kv_tokens > 0
        assert {each.add for each in found.what_if} == {True, False}

    def test_without_nodes_it_is_for_those_of_the_cluster(self, client):
        found = client.preview_placement(prompt_tokens=32, context_tokens=64)
        assert found.stages[-1].end_layer == client.status().model.layers

    @pytest.mark.parametrize("count", [2, 513])
    def test_names_must_differ_and_be_few(self, client, count):
        names = ["same"] * 2 if count == 2 else [f"node-{i}" for i in range(count)]
        with pytest.raises(errors.InvalidRequest):
            client.preview_placement([replace(self.NODES[0], name=name) for name in names])


class Contract(GenerateContract, ResumeContract, RefusalContract, SessionContract, StatusContract, PreviewContract):
    """All of it."""
