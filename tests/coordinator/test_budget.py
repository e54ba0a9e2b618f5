"""Slots and pages: free, reserved by running sequences, held for idle sessions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trireme_coordinator.scheduler.budget import PAGE_TOKENS, Budget, Parked, pages_for
from trireme_kernels import PAGE_TOKENS as KERNEL_PAGE_TOKENS
from trireme_worker.kv_cache import pages_for as stage_pages_for

LONG, SHORT = tuple(range(40)), (1, 2, 3)


def take(budget: Budget, pages: int) -> int | None:
    """A slot with nothing shared."""
    found = budget.reserve(pages)
    assert found is None or found[1] == 0
    return found and found[0]


def parked(budget: Budget, session: str, tokens: tuple[int, ...]) -> int:
    """The slot of a session that ended with these tokens held."""
    slot = take(budget, pages_for(len(tokens)))
    assert slot is not None
    budget.park(slot, session, tokens)
    return slot


def test_coordinator_and_stages_count_pages_alike() -> None:
    assert PAGE_TOKENS == KERNEL_PAGE_TOKENS
    assert [pages_for(n) for n in range(70)] == [stage_pages_for(n) for n in range(70)]
    assert [pages_for(n) for n in (0, 1, 16, 17)] == [0, 1, 1, 2]


def test_reserving_until_nothing_is_left() -> None:
    budget = Budget(slots=3, pages=4)
    assert {take(budget, 2), take(budget, 1)} == {0, 1}
    assert take(budget, 2) is None
    assert take(budget, 1) == 2
    assert take(budget, 0) is None  # no slot
    assert budget.releases == []
    budget.free(1)
    assert budget.releases == [1]
    assert take(budget, 1) == 1


def test_parked_ones_give_way_the_least_recently_used_first() -> None:
    budget = Budget(slots=3, pages=9)
    slots = {name: parked(budget, name, LONG) for name in "abc"}
    assert take(budget, 1) == slots["a"]
    assert take(budget, 4) == slots["b"]  # six pages are held by b and c, one is reserved
    assert budget.releases == [slots["a"], slots["b"]]
    assert (budget.parked, budget.pages_reserved) == (1, 8)


def test_a_session_takes_its_own_slot_back() -> None:
    budget = Budget(slots=3, pages=9)
    slot = parked(budget, "a", LONG)
    assert budget.unpark("a", 5, [*LONG, 99]) == Parked(slot, LONG, 40)
    assert (budget.parked, budget.pages_reserved, budget.running_slots, budget.releases) == (0, 5, [slot], [])


def test_taking_a_slot_back_may_push_others_out() -> None:
    budget = Budget(slots=3, pages=9)
    slots = {name: parked(budget, name, LONG) for name in "abc"}
    assert budget.unpark("b", 6, [*LONG, 99]) == Parked(slots["b"], LONG, 40)
    assert (budget.releases, budget.parked, budget.pages_reserved) == ([slots["a"]], 1, 9)
    assert budget.check_integrity() == ""


@pytest.mark.parametrize(
    ("session", "tokens"),
    [
        ("b", [*LONG, 99]),  # another session
        ("", [*LONG, 99]),
        ("a", [*LONG]),  # nothing left to compute, so nothing to sample from
        ("a", [*LONG[:-1]]),
        ("a", [*LONG[:-1], 77, 99]),
        ("a", [77, *LONG[1:], 99]),
    ],
)
def test_only_the_same_session_and_a_true_prefix(session: str, tokens: list[int]) -> None:
    budget = Budget(slots=2, pages=9)
    slot = parked(budget, "a", LONG)
    assert budget.unpark(session, 4, tokens) is None
    assert (budget.parked, budget.releases) == (1, [])  # others may still share its pages
    assert slot is not None


def test_no_room_for_a_parked_session_is_no_reason_to_lose_it() -> None:
    budget = Budget(slots=2, pages=6)
    running = take(budget, 3)
    parked(budget, "a", LONG)
    assert budget.unpark("a", 4, [*LONG, 99]) is None
    assert budget.parked == 1
    budget.free(running or 0)
    assert budget.unpark("a", 4, [*LONG, 99]) is not None


def test_parking_twice_keeps_the_later_one() -> None:
    budget = Budget(slots=2, pages=9)
    first, second = parked(budget, "a", LONG), parked(budget, "a", SHORT)
    assert budget.releases == [first]
    assert budget.unpark("a", 1, [*SHORT, 4]) == Parked(second, SHORT, 3)


def test_what_does_not_add_up_is_said() -> None:
    budget = Budget(slots=2, pages=2)
    budget._pages.hold(0, 3, running=True)
    budget._running.add(0)
    assert "slots" in budget.check_integrity()
    budget._free_slots.remove(0)
    assert budget.check_integrity() == "3 pages are reserved, there are 2"
    budget._pages.hold(0, 2, running=True)
    assert budget.check_integrity() == ""
    budget._pages.used = 1
    assert budget.check_integrity() == "2 pages are held, 2 of them running; the books say 1 and 2"


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "unpark", "park", "free", "evict", "reset", "collect"]),
        st.integers(0, 7),
        st.sampled_from("abcd"),
    ),
    max_size=60,
)


@given(slots=st.integers(1, 5), pages=st.integers(1, 12), operations=OPERATIONS)
@settings(deadline=None)
def test_any_order_of_operations(slots: int, pages: int, operations: list[tuple[str, int, str]]) -> None:
    """A slot is told to be freed whenever, and only when, it stops being held; nothing is promised twice."""
    budget = Budget(slots, pages)
    held: set[int] = set()  # slots that hold something as far as the stages know
    for name, n, session in operations:
        running = budget.running_slots
        if name == "reserve" and (slot := take(budget, n)) is not None:
            held = (held - set(budget.releases)) | {slot}
            budget.releases.clear()
        elif name == "unpark" and budget.unpark(session, n + 1, list(range(16 * n + 1))):
            assert len(budget.running_slots) == len(running) + 1
        elif name == "park" and running:
            tokens = tuple(range(16 * min(n, budget._pages._holds[running[n % len(running)]].pages)))
            budget.park(running[n % len(running)], session, tokens)
        elif name == "free" and running:
            budget.free(running[n % len(running)])
        elif name == "evict":
            budget.evict(session)
        elif name == "reset":
            budget.reset()
            held = set()
        elif name == "collect":
            held -= set(budget.releases)
            budget.releases.clear()
        assert budget.check_integrity() == ""
        assert len(budget.releases) == len(set(budget.releases))
        in_use = set(budget.running_slots) | {p.slot for p in budget._parked.values()}
        assert held - set(budget.releases) == in_use
