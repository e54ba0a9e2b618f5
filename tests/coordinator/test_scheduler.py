"""What goes into a micro-batch, and in which order."""

from __future__ import annotations

import pytest

from trireme_coordinator.scheduler import Batch, Finish, SamplingParams, Scheduler, SchedulerConfig, Sequence
from trireme_proto.errors import Overloaded, PipelineUnavailable

CONTEXT = 100


def scheduler(stages: int = 1, *, slots: int = 8, chunk: int = 10, queue: int = 8, pages: int = 80) -> Scheduler:
    return Scheduler(SchedulerConfig(stages, slots, pages, CONTEXT, chunk, queue, speculation=False))


def sequence(tokens: int, max_tokens: int = 10, session: str = "", eos: int = 99) -> Sequence:
    return Sequence(list(range(tokens)), SamplingParams(0.0, 0, 1.0, 0), max_tokens, frozenset({eos}), session)


def scheduled(s: Scheduler) -> Batch:
    batch = s.schedule()
    assert batch is not None
    return batch


def answer(s: Scheduler, batch: Batch, token: int = 7) -> dict[Sequence, list[int]]:
    """Completes a micro-batch with the same token for everybody."""
    return s.complete(batch.step, [(row.slot, token) for row in batch.rows if row.samples])[1]


def test_a_prompt_in_chunks_then_token_by_token() -> None:
    s, one = scheduler(stages=3), sequence(23)
    s.submit(one)
    batches = [scheduled(s), scheduled(s), scheduled(s)]  # chunks follow each other without waiting
    assert [(b.rows[0].position, b.rows[0].count, b.rows[0].samples) for b in batches] == [
        (0, 10, False),
        (10, 10, False),
        (20, 3, True),
    ]
    assert batches[1].token_ids == tuple(range(10, 20))
    assert [b.step for b in batches] == [1, 2, 3]
    assert s.schedule() is None  # its token is under way
    assert [answer(s, b) for b in batches] == [{}, {}, {one: [7]}]
    row = scheduled(s).rows[0]
    assert (row.position, row.count, row.samples, row.prefill, row.token_ids) == (23, 1, True, False, [7])


def test_the_pipeline_is_full_with_one_micro_batch_more_than_stages() -> None:
    s = scheduler(stages=2, chunk=1)
    s.submit(sequence(50))
    batches = [scheduled(s) for _ in range(3)]
    assert s.schedule() is None
    answer(s, batches[0])
    assert scheduled(s).step == 4
    assert s.schedule() is None


def test_decode_rows_come_first_and_prompts_take_turns_with_the_rest() -> None:
    s = scheduler(chunk=10)
    old, long, short = sequence(3), sequence(15), sequence(4)
    s.submit(old)
    answer(s, scheduled(s))
    s.submit(long)
    s.submit(short)
    rows = scheduled(s).rows
    assert [(r.sequence, r.count, r.prefill) for r in rows] == [(old, 1, False), (long, 10, True)]
    rows = scheduled(s).rows
    assert [(r.sequence, r.count, r.prefill) for r in rows] == [(short, 4, True), (long, 5, True)]


def test_decode_rows_are_shared_out_over_the_stages() -> None:
    """Three stages, six sequences: two rows in each of three micro-batches, so that no stage idles."""
    s = scheduler(stages=3, chunk=100)
    for _ in range(6):
        s.submit(sequence(3))
    answer(s, scheduled(s))
    batches = [scheduled(s), scheduled(s), scheduled(s)]
    assert [len(b.rows) for b in batches] == [2, 2, 2]
    assert len({row.sequence for b in batches for row in b.rows}) == 6
    assert not any(row.prefill for b in batches for row in b.rows)


@pytest.mark.parametrize("stages", [1, 2, 3, 5])
@pytest.mark.parametrize("decoding", [1, 2, 5, 8])
def test_everybody_advances_at_the_same_pace(stages: int, decoding: int) -> None:
    s = scheduler(stages, chunk=100)
    everybody = [sequence(3, max_tokens=60) for _ in range(decoding)]
    for one in everybody:
        s.submit(one)
    under_way: list[Batch] = []
    for _ in range(25 * (stages + 1)):
        while (batch := s.schedule()) is not None:
            under_way.append(batch)
        answer(s, under_way.pop(0))
        generated = [one.generated for one in everybody]
        assert max(generated) - min(generated) <= 2
        if min(generated) == 20:
            return
    pytest.fail("somebody hardly advances")


def test_in_order_of_arrival_even_where_a_later_one_would_fit() -> None:
    s = scheduler(pages=7)
    big, bigger, small = sequence(60, 4), sequence(80, 4), sequence(3, 4)
    for one in (big, bigger, small):
        s.submit(one)
    assert {row.sequence for row in scheduled(s).rows} == {big}
    assert list(s.waiting) == [bigger, small]
    s.drop(big)
    assert {row.sequence for row in scheduled(s).rows} == {bigger}


def test_a_full_queue_is_overloaded() -> None:
    s = scheduler(queue=2)
    for _ in range(2):
        s.submit(sequence(3))
    with pytest.raises(Overloaded, match="2 requests are waiting") as refused:
        s.submit(sequence(3))
    assert refused.value.retry_after == 1.0
    scheduled(s)
    s.submit(sequence(3))


def test_what_could_never_run_is_refused() -> None:
    with pytest.raises(ValueError, match="no room"):
        scheduler().submit(sequence(CONTEXT))
    with pytest.raises(ValueError, match="no room"):
        scheduler(pages=3).submit(sequence(40, 20))
    scheduler().submit(sequence(CONTEXT - 1))
    scheduler(pages=4).submit(sequence(40, 20))
    for empty in (lambda: sequence(0), lambda: sequence(1, 0)):
        with pytest.raises(ValueError, match="at least one"):
            empty()


def test_ends() -> None:
    s = scheduler()
    eos, length, context = sequence(3), sequence(3, 1), sequence(CONTEXT - 1)
    for one, token in ((eos, 99), (length, 7), (context, 7)):
        s.submit(one)
        while not (batch := scheduled(s)).rows[-1].samples:
            answer(s, batch)
        told = answer(s, batch, token)
        assert told == ({} if one is eos else {one: [7]})
        s.drop(one)
    assert (eos.finish, length.finish, context.finish) == (Finish.EOS, Finish.LENGTH, Finish.CONTEXT)
    assert (eos.generated, length.generated, context.generated) == (0, 1, 1)


def test_a_finished_sequence_gets_no_more_rows() -> None:
    s, one = scheduler(), sequence(3)
    s.submit(one)
    answer(s, scheduled(s))
    s.finish(one, Finish.STOP)
    assert s.schedule() is None


def test_a_dropped_sequence_is_freed_with_the_next_frame_and_its_token_ignored() -> None:
    s, one = scheduler(), sequence(3)
    s.submit(one)
    batch = scheduled(s)
    s.drop(one)
    release = scheduled(s)
    assert (release.release, release.rows) == ((batch.rows[0].slot,), ())
    assert answer(s, batch) == {}
    assert one.generated == 0
    answer(s, release)
    assert s.idle()
    s.drop(one)  # again: nothing happens
    assert s.schedule() is None


def test_a_slot_can_be_given_away_in_the_frame_that_frees_it() -> None:
    s = scheduler(slots=1)
    first, second = sequence(3), sequence(4)
    s.submit(first)
    s.submit(second)
    slot = scheduled(s).rows[0].slot
    s.drop(first)
    batch = scheduled(s)
    assert (batch.release, batch.rows[0].slot, batch.rows[0].sequence) == ((slot,), slot, second)


@pytest.mark.parametrize(
    ("step", "tokens"),
    [(0, [(0, 1), (1, 1)]), (2, [(0, 1), (1, 1)]), (1, [(0, 1)]), (1, [(1, 1), (0, 1)]), (1, [(0, 1), (1, 1), (2, 1)])],
)
def test_a_result_that_is_not_the_one_that_is_due_changes_nothing(step: int, tokens: list[tuple[int, int]]) -> None:
    s = scheduler()
    both = [sequence(3), sequence(4)]
    for one in both:
        s.submit(one)
    batch = scheduled(s)
    with pytest.raises(PipelineUnavailable):
        s.complete(step, tokens)
    assert [one.generated for one in both] == [0, 0]
    assert answer(s, batch) == {one: [7] for one in both}


def test_a_result_when_none_is_due() -> None:
    with pytest.raises(PipelineUnavailable, match="none is due"):
        scheduler().complete(1, [])


def test_starting_over_keeps_the_order_and_the_tokens() -> None:
    s = scheduler(slots=3, chunk=100)
    everybody = [sequence(3 + i) for i in range(5)]
    for one in everybody:
        s.submit(one)
    answer(s, scheduled(s))
    scheduled(s)
    s.restart()
    assert list(s.waiting) == everybody
    assert s.check_integrity() == ""
    batch = scheduled(s)
    assert batch.step == 1
    assert [(r.sequence, r.position, r.count) for r in batch.rows] == [
        (everybody[0], 0, 4),
        (everybody[1], 0, 5),
        (everybody[2], 0, 6),
    ]
    assert [one.setbacks for one in everybody] == [1, 1, 1, 0, 0]
    answer(s, batch)
    assert everybody[0].setbacks == 0  # it got somewhere


def test_cached_is_what_was_held_when_the_answer_began() -> None:
    s, first = scheduler(chunk=100), sequence(40, 2, "s")
    s.submit(first)
    answer(s, scheduled(s))
    answer(s, scheduled(s))
    s.drop(first)
    again = Sequence([*first.tokens, 5], first.sampling, 5, frozenset(), "s")
    s.submit(again)
    batch = scheduled(s)
    assert (again.cached, batch.rows[0].position, batch.rows[0].count) == (41, 41, 2)
    answer(s, batch)
    s.restart()
    assert scheduled(s).rows[0].position == 0
    assert again.cached == 41


def test_nothing_of_a_prompt_that_was_never_fed_is_kept() -> None:
    s = scheduler(chunk=5)
    first, second = sequence(5, session="a"), sequence(5, session="b")
    s.submit(first)
    s.submit(second)
    scheduled(s)  # the chunk is full with the first one; the second holds a slot and nothing in it
    assert len(s.running) == 2
    s.drop(second)
    assert s.budget.parked == 0


def test_books_that_differ_are_said() -> None:
    s = scheduler()
    s.submit(sequence(3))
    scheduled(s)
    s.running.clear()
    assert s.check_integrity() == "running sequences and running slots differ"
