"""Sequences of a tenant that begin alike share full pages; answers do not change, and nothing runs out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support.fake_stages import FakePipeline, work

from trireme_coordinator.scheduler import SamplingParams, Scheduler, SchedulerConfig, Sequence
from trireme_coordinator.scheduler.budget import Budget, Share
from trireme_coordinator.scheduler.pages import Pages
from trireme_coordinator.scheduler.prefix import PrefixTree

COMMON = [1 + i * i % 20 for i in range(100)]
CONTEXT = 300


def scheduler(*, stages: int = 2, slots: int = 8, pages: int = 200, chunk: int = 64, sharing: bool = True) -> Scheduler:
    return Scheduler(SchedulerConfig(stages, slots, pages, CONTEXT, chunk, 100, sharing))


def request(tail: int, tenant: str = "t", *, session: str = "", common: int = 100, max_tokens: int = 20) -> Sequence:
    """The common beginning, and one token of its own."""
    how = SamplingParams(0.0, 0, 1.0, tail)
    return Sequence([*COMMON[:common], tail], how, max_tokens, frozenset(), session, tenant)


def test_a_later_one_computes_only_what_is_its_own() -> None:
    s = scheduler()
    pipeline = FakePipeline(s.config)
    first, second, stranger = request(1, max_tokens=150), request(2), request(3, "other")
    s.submit(first)
    work(s, pipeline, 10)
    assert 0 < first.generated < 100
    for one in (second, stranger):
        s.submit(one)
    before = len(pipeline.sent)
    work(s, pipeline, 300)
    sent = pipeline.sent[before:]
    assert [(share.from_slot, share.pages) for batch in sent for share in batch.share] == [(0, 6)]
    begun = {row.sequence: row for batch in reversed(sent) for row in batch.rows if row.prefill}
    assert (begun[second].position, begun[second].count) == (96, 5)
    assert begun[stranger].position == 0
    assert s.idle()
    assert [one.cached for one in (first, second, stranger)] == [0, 96, 0]


def test_a_parked_one_gives_too_and_may_go_while_its_pages_stay() -> None:
    s = scheduler(slots=2, pages=18)
    pipeline = FakePipeline(s.config)
    first = request(1, session="a")
    s.submit(first)
    work(s, pipeline, 60)
    assert s.budget.parked == 1
    second, third = request(2, max_tokens=100), request(3, max_tokens=30)
    s.submit(second)
    work(s, pipeline, 4)
    assert (second.cached, s.budget.parked) == (96, 1)
    s.submit(third)  # 13 + 9 pages, of which 6 are shared; its slot is the parked one's
    work(s, pipeline, 4)
    assert (third.cached, s.budget.parked) == (96, 0)
    assert s.budget.pages_reserved == 16
    work(s, pipeline, 300)
    assert s.idle()
    assert [stage.kv.pages_used for stage in pipeline.stages] == [0, 0]


def test_those_that_arrive_together_compute_the_beginning_once() -> None:
    s = scheduler(stages=4, chunk=32)
    pipeline = FakePipeline(s.config)
    everybody = [request(i) for i in range(6)]
    for one in everybody:
        s.submit(one)
    work(s, pipeline, 200)
    assert s.idle()
    computed = sum(row.count for batch in pipeline.sent for row in batch.rows if row.prefill)
    assert computed <= 101 + 5 * 40
    assert sum(one.cached for one in everybody) == 6 * 101 - computed


def test_room_is_counted_once() -> None:
    """Each needs 8 pages, of which 6 are common: 16 pages do for five of them."""
    s = scheduler(pages=16)
    pipeline = FakePipeline(s.config)
    everybody = [request(i) for i in range(6)]
    s.submit(everybody[0])
    work(s, pipeline, 3)
    for one in everybody[1:]:
        s.submit(one)
    work(s, pipeline, 3)
    assert [one.slot is not None for one in everybody] == [True] * 5 + [False]
    work(s, pipeline, 400)
    assert s.idle()


def test_a_changed_conversation_keeps_its_beginning() -> None:
    s = scheduler()
    pipeline = FakePipeline(s.config)
    first = request(1, session="a")
    s.submit(first)
    work(s, pipeline, 60)
    edited = Sequence([*COMMON[:50], 9, 9, 9], first.sampling, 5, frozenset(), "a", "t")
    s.submit(edited)
    work(s, pipeline, 2)
    assert (edited.cached, s.budget.parked) == (48, 0)
    work(s, pipeline, 50)
    assert s.idle()


@given(
    sizes=st.lists(st.tuples(st.integers(0, 100), st.integers(1, 60), st.sampled_from("tu")), min_size=2, max_size=12),
    stages=st.integers(1, 3),
    chunk=st.integers(1, 120),
    pause=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_the_same_tokens_with_and_without(
    sizes: list[tuple[int, int, str]], stages: int, chunk: int, pause: int
) -> None:
    answers = []
    for sharing in (True, False):
        s = scheduler(stages=stages, slots=4, pages=40, chunk=chunk, sharing=sharing)
        pipeline = FakePipeline(s.config)
        everybody = [
            request(i, tenant, common=common, max_tokens=most) for i, (common, most, tenant) in enumerate(sizes)
        ]
        for one in everybody:
            s.submit(one)
            work(s, pipeline, pause)
        work(s, pipeline, 3000)
        assert s.idle()
        answers.append([one.tokens for one in everybody])
    assert answers[0] == answers[1]


TEXT = st.lists(st.integers(0, 1), max_size=5).map(lambda pages: [token for page in pages for token in [page] * 16])


@given(
    ops=st.lists(
        st.tuples(st.sampled_from(["add", "add", "remove", "ask"]), st.integers(0, 5), st.sampled_from("tu"), TEXT),
        max_size=60,
    )
)
@settings(deadline=None)
def test_the_tree_finds_what_a_search_of_everything_would(ops: list[tuple[str, int, str, list[int]]]) -> None:
    tree, held = PrefixTree(), {}
    for what, slot, tenant, tokens in ops:
        if what == "add" and slot not in held:
            tree.add(slot, tenant, tokens, len(tokens) // 16)
            held[slot] = (tenant, tokens)
        elif what == "remove":
            tree.remove(slot)
            held.pop(slot, None)
        elif what == "ask":
            best = 0
            for other, text in held.values():
                alike = next((i for i in range(len(text)) if text[: i + 1] != tokens[: i + 1]), len(text)) // 16
                best = max(best, alike if other == tenant else 0)
            found = tree.longest(None, tenant, tokens, len(tokens) // 16)
            assert (found[1] if found else 0) == best
            if found:
                assert held[found[0]][0] == tenant
                assert held[found[0]][1][: 16 * best] == tokens[: 16 * best]
    for slot in range(6):
        tree.remove(slot)
    assert tree._roots == {}


class PagesMachine(RuleBasedStateMachine):
    """Against a model in which pages are objects."""

    def __init__(self) -> None:
        super().__init__()
        self.pages = Pages()
        self.held: dict[int, list[object]] = {}
        self.run: set[int] = set()

    @rule(slot=st.integers(0, 4), count=st.integers(0, 6), running=st.booleans())
    def hold(self, slot: int, count: int, running: bool) -> None:
        count = max(
            count, max((n for n, page in enumerate(self.held.get(slot, []), 1) if self.owners(page) > 1), default=0)
        )
        count = max(count, len(self.pages._holds[slot].shared) if slot in self.held else 0)
        self.pages.hold(slot, count, running=running)
        held = self.held.get(slot, [])
        self.held[slot] = [*held, *(object() for _ in range(count - len(held)))][:count]
        self.run = self.run | {slot} if running else self.run - {slot}

    @precondition(lambda self: self.held)
    @rule(slot=st.integers(0, 4), donor=st.integers(0, 4), count=st.integers(1, 6))
    def share(self, slot: int, donor: int, count: int) -> None:
        if slot == donor or not {slot, donor} <= set(self.held):
            return
        count = min(count, len(self.held[slot]), len(self.held[donor]))
        if count >= len(self.pages._holds[slot].shared):
            self.pages.share(slot, donor, count)
            self.held[slot] = [*self.held[donor][:count], *(object() for _ in self.held[slot][count:])]

    @rule(slot=st.integers(0, 4))
    def release(self, slot: int) -> None:
        if self.held.pop(slot, None) is not None:
            self.pages.release(slot)
            self.run.discard(slot)

    @rule(slots=st.sets(st.integers(0, 4)))
    def what_would_be_freed(self, slots: set[int]) -> None:
        slots &= self.run
        assert self.pages.freed(slots) == self.running(self.run) - self.running(self.run - slots)

    @rule(count=st.integers(0, 9), donor=st.integers(0, 4), shared=st.integers(0, 6))
    def what_would_be_needed(self, count: int, donor: int, shared: int) -> None:
        shared = min(shared, count, len(self.held.get(donor, [])))
        if shared:
            already = {page for slot in self.run for page in self.held[slot]}
            assert self.pages.needed(count, donor, shared) == count - sum(
                1 for page in self.held[donor][:shared] if page in already
            )
        assert self.pages.needed(count, None, 0) == count

    @invariant()
    def adds_up(self) -> None:
        assert self.pages.check_integrity() == ""
        assert self.pages.used == self.running(set(self.held))
        assert self.pages.running == self.running(self.run)

    def owners(self, page: object) -> int:
        return sum(1 for held in self.held.values() if page in held)

    def running(self, slots: set[int]) -> int:
        return len({page for slot in slots for page in self.held[slot]})


TestPages = PagesMachine.TestCase
TestPages.settings = settings(max_examples=80, deadline=None)


def test_books_that_do_not_add_up() -> None:
    pages = Pages()
    pages.hold(0, 3, running=True)
    pages.hold(1, 3, running=False)
    pages.share(1, 0, 2)
    assert pages.check_integrity() == ""
    pages._holds[1].shared[0].running = 2
    assert pages.check_integrity() == "a shared page has other slots than the books say"


@pytest.mark.parametrize("sharing", [True, False])
def test_a_slot_that_is_given_away_by_sharing_is_not_released(sharing: bool) -> None:
    budget = Budget(2, 20, sharing=sharing)
    slot, _ = budget.reserve(3, "t", COMMON) or (None, 0)
    assert slot is not None
    budget.filled(slot, "t", COMMON, 33)
    other, _ = budget.reserve(3) or (None, 0)
    budget.free(other or 0)
    assert budget.releases == [other]
    again = budget.reserve(3, "t", COMMON)
    assert again == (other, 2 if sharing else 0)
    assert (budget.shares, budget.releases) == (([Share(other or 0, slot, 2)], []) if sharing else ([], [other]))
