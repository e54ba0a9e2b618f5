"""Whose turn it is: tenants by what they have been served, a tenant's own requests by priority and arrival."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.fake_stages import EOS, FakePipeline, work
from tests.support.modelled import Modelled, line

from trireme_coordinator.scheduler import SamplingParams, Scheduler, SchedulerConfig, Sequence
from trireme_coordinator.scheduler.fair import FairQueue, Shares
from trireme_proto.errors import Overloaded

CONTEXT = 200


def request(tenant: str, tokens: int = 5, max_tokens: int = 10, priority: int = 0, seed: int = 0) -> Sequence:
    how = SamplingParams(0.0, 0, 1.0, seed)
    return Sequence([1 + (seed + i) % 20 for i in range(tokens)], how, max_tokens, tenant=tenant, priority=priority)


def scheduler(stages: int = 1, *, slots: int = 4, pages: int = 400, chunk: int = 32, queue: int = 100) -> Scheduler:
    return Scheduler(SchedulerConfig(stages, slots, pages, CONTEXT, chunk, queue))


def test_the_least_served_then_priority_then_place() -> None:
    shares = Shares()
    queue = FairQueue(shares)
    a, urgent, b = request("a"), request("a", priority=3), request("b")
    for place, one in enumerate((a, urgent, b)):
        queue.add(one, place)
    shares.charge("a", 10)
    assert queue.first() is b
    shares.charge("b", 11)
    assert queue.first() is urgent
    assert (queue.remove(urgent), queue.remove(urgent)) == (True, False)
    assert (queue.first(), len(queue), queue.count("a"), queue.count("c")) == (a, 2, 1, 0)
    queue.clear()
    assert queue.first() is None


def test_nobody_saves_turns_up() -> None:
    shares = Shares()
    shares.enter("busy")
    shares.charge("busy", 1000)
    shares.chosen("busy")
    shares.enter("new")
    assert shares.served("new") == 1000
    shares.charge("new", 500)
    shares.enter("new")  # leaving and coming back is no way to be forgiven
    assert shares.served("new") == 1500


def test_counters_that_say_nothing_are_forgotten() -> None:
    shares = Shares()
    for i in range(5000):
        shares.enter(f"t{i}")
        shares.charge(f"t{i}", 1)
        shares.chosen(f"t{i}")
    assert len(shares._served) < 2000


@given(
    ops=st.lists(
        st.tuples(st.sampled_from("adrc"), st.integers(0, 5), st.integers(0, 3), st.integers(1, 50)), max_size=80
    )
)
@settings(deadline=None)
def test_the_queue_is_the_obvious_one_made_quick(ops: list[tuple[str, int, int, int]]) -> None:
    shares = Shares()
    queue, model, place = FairQueue(shares), [], 0
    for what, tenant, priority, amount in ops:
        if what == "a":
            place += 1
            one = request(str(tenant), priority=priority)
            queue.add(one, place)
            model.append((one, place))
        elif what == "d" and model:
            one, _ = model.pop(amount % len(model))
            assert queue.remove(one)
        elif what == "c":
            shares.charge(str(tenant), amount)
        first = queue.first()
        if not model:
            assert first is None
            continue
        assert first is not None
        assert shares.served(first.tenant) == min(shares.served(one.tenant) for one, _ in model)
        own = [(-one.priority, at) for one, at in model if one.tenant == first.tenant]
        assert min(own) == next((-one.priority, at) for one, at in model if one is first)
        assert sorted(map(id, queue)) == sorted(id(one) for one, _ in model)


def test_a_full_queue_is_the_tenants_own() -> None:
    s = scheduler(queue=2)
    for _ in range(2):
        s.submit(request("flood"))
    with pytest.raises(Overloaded):
        s.submit(request("flood"))
    s.submit(request("other"))


@given(
    stages=st.integers(1, 3),
    slots=st.integers(1, 6),
    flood=st.lists(st.tuples(st.integers(1, 120), st.integers(1, 60)), min_size=30, max_size=60),
    prompt=st.integers(1, 120),
    answer=st.integers(1, 60),
)
@settings(max_examples=30, deadline=None)
def test_a_flood_of_one_tenant_does_not_starve_another(
    stages: int, slots: int, flood: list[tuple[int, int]], prompt: int, answer: int
) -> None:
    """Both always have work waiting, one of them much more: the other is served no less, but for what is under way."""
    s = scheduler(stages, slots=slots, pages=13 * slots)
    pipeline = FakePipeline(s.config)
    everybody = {"flood": [request("flood", *sizes, seed=i) for i, sizes in enumerate(flood)], "other": []}
    for one in everybody["flood"]:
        s.submit(one)
    work(s, pipeline, 5)  # all slots are the flood's by now

    def served(tenant: str) -> int:
        return sum(one.prompt_length + one.generated for one in everybody[tenant] if one.admissions)

    before = served("flood")
    while s.waiting.count("flood"):
        while s.waiting.count("other") <= slots:
            everybody["other"].append(request("other", prompt, answer, seed=len(everybody["other"])))
            s.submit(everybody["other"][-1])
        work(s, pipeline, 1)
        gap = served("flood") - before - served("other")
        assert gap <= (slots + 1) * 180, "more than what the flood's running requests could still take"


def test_long_prompts_of_two_tenants_take_turns_by_the_chunk() -> None:
    s = scheduler(stages=4, chunk=16)
    first, second = request("a", 64), request("b", 64)
    s.submit(first)
    s.submit(second)
    rows = [row for _ in range(4) for row in s.schedule().rows]  # type: ignore[union-attr]
    assert [row.sequence for row in rows] == [first, second, first, second]


def test_a_tenants_own_long_prompt_does_not_keep_its_short_one_waiting() -> None:
    model = Modelled(scheduler(chunk=16), [line(10, 1)])
    long, short = request("a", 180), request("a", 10)
    model.arrive(0, long)
    model.arrive(1, short)
    model.run(lambda: short.generated > 0)
    assert long.generated == 0


@pytest.mark.parametrize("scarce", ["slots", "pages"])
def test_a_higher_priority_takes_the_room_of_the_youngest_lower_one_which_goes_on_exactly(scarce: str) -> None:
    s = scheduler(2, slots=2, pages=400) if scarce == "slots" else scheduler(2, slots=9, pages=8)
    pipeline = FakePipeline(s.config)
    low = [request("t", 20, 40, priority=1, seed=i) for i in range(2)]
    other = request("other", 20, 40, priority=0, seed=5)
    for one in low:
        s.submit(one)
    work(s, pipeline, 12)
    assert all(one.generated > 3 for one in low)
    so_far = list(low[1].tokens)
    s.submit(other)
    work(s, pipeline, 2)
    assert other.slot is None, "another tenant's priority takes nothing from this one"
    s.drop(other)
    high = request("t", 20, 40, priority=2, seed=9)
    s.submit(high)
    work(s, pipeline, 1)
    assert high.slot is not None
    assert low[0].slot is not None
    assert low[1].slot is None
    assert list(s.waiting) == [low[1]]
    work(s, pipeline, 400)
    assert s.idle()
    alone = [request("t", 20, 40, seed=seed) for seed in (0, 1, 9)]
    for one, again in zip([*low, high], alone, strict=True):
        calm = scheduler()
        calm.submit(again)
        work(calm, FakePipeline(calm.config), 400)
        assert one.tokens == again.tokens
        assert one.finish == again.finish
    assert low[1].tokens[: len(so_far)] == so_far


def test_room_that_would_not_be_enough_is_not_taken() -> None:
    s = scheduler(pages=12)
    big, low, urgent = request("other", 100, 20), request("t", 20, 10, priority=1), request("t", 150, 30, priority=9)
    s.submit(big)
    s.submit(low)
    s.schedule()
    s.submit(urgent)
    s.schedule()
    assert (low.slot is None, urgent.slot is None, list(s.waiting)) == (False, True, [urgent])


def test_what_a_preempted_request_still_had_under_way_does_not_count_twice() -> None:
    s = scheduler(2, slots=1)
    low, high = request("t", priority=1, max_tokens=3), request("t", priority=2, max_tokens=1)
    s.submit(low)
    first = s.schedule()
    assert first is not None
    s.submit(high)
    second = s.schedule()
    assert second is not None
    assert second.rows[0].sequence is high
    slot = second.rows[0].slot
    assert s.complete(first.step, [(slot, 7)])[1] == {}
    s.complete(second.step, [(slot, 8)])
    s.drop(high)
    third = s.schedule()
    assert third is not None
    assert (third.rows[0].sequence, third.rows[0].position, third.rows[0].count) == (low, 0, 5)
    assert s.complete(third.step, [(slot, EOS + 7)])[1] == {low: [7]}
