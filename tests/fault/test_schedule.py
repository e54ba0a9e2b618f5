"""The schedule is a function of the seed, and leaves time to recover; what is left out has a reason."""

from __future__ import annotations

import itertools

import pytest
from tests.fault.cluster import Shape
from tests.fault.kinds import choose, rules
from tests.fault.nemesis import _DOINGS
from tests.fault.rates import WITHIN
from tests.fault.schedule import CALM, FIRST, KINDS, LASTING, schedule


def test_the_same_seed_gives_the_same_faults() -> None:
    assert schedule(7, 600, KINDS) == schedule(7, 600, KINDS)
    assert schedule(7, 600, KINDS) != schedule(8, 600, KINDS)
    assert schedule(7, 300, KINDS) == schedule(7, 600, KINDS)[: len(schedule(7, 300, KINDS))]


@pytest.mark.parametrize("seed", range(20))
def test_there_is_time_to_recover_after_each_burst(seed: int) -> None:
    faults = schedule(seed, 900, KINDS)
    assert faults[0].at == FIRST
    assert [fault.number for fault in faults] == list(range(1, len(faults) + 1))
    assert max(fault.at + fault.seconds for fault in faults) <= 900 - CALM
    healed = itertools.accumulate((fault.at + fault.seconds for fault in faults), max)
    pauses = [after.at - before for before, after in zip(healed, faults[1:], strict=False)]
    assert all(pause < 3 or pause >= CALM - 0.02 for pause in pauses)
    assert any(pause < 3 for pause in pauses), "no fault hits a recovery"
    assert CALM > WITHIN


def test_every_kind_comes_before_any_comes_twice() -> None:
    kinds = [fault.kind for fault in schedule(1, 3600, KINDS)]
    assert set(kinds[: len(KINDS)]) == set(KINDS)
    assert all((fault.seconds > 0) == (fault.kind in LASTING) for fault in schedule(1, 3600, KINDS))


def test_a_coordinator_that_is_lost_excuses_nothing_where_there_is_another() -> None:
    assert "coordinator-kill" in rules(Shape(coordinators=1)).excused
    assert not any(kind.startswith(("coordinator", "worker")) for kind in rules(Shape(coordinators=2)).excused)


def test_no_kinds_no_faults() -> None:
    assert schedule(1, 600, ()) == ()


def test_each_kind_can_be_done_and_what_is_left_out_has_a_reason() -> None:
    assert set(_DOINGS) == set(KINDS) >= set(rules(Shape()).excused)
    chosen = choose(Shape())
    assert {*chosen.enabled, *chosen.left_out} == set(KINDS)
    assert "network namespaces" in chosen.left_out["node-partition"]
    assert choose(Shape(namespaces=True)).left_out == {}
    assert choose(Shape(), ("redis-kill",)).enabled == ("redis-kill",)
    with pytest.raises(ValueError, match="no kind of fault named meteor"):
        choose(Shape(), ("meteor",))
