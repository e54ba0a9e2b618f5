"""Order, clock and medians of the timing, and what other processes used meanwhile."""

import pytest

from trireme_worker.bench.bystanders import Bystanders
from trireme_worker.bench.interleave import Timing, Trial, interleaved


def test_trials_take_turns_and_only_their_own_time_counts(clock):
    order = []

    def trial(name, seconds):
        def run():
            order.append(name)
            clock.passes(seconds[order.count(name) - 1])

        return Trial(run, amount=6.0, prepare=lambda: clock.passes(100.0))

    trials = {"a": trial("a", [50.0, 1.0, 3.0, 2.0]), "b": trial("b", [50.0, 4.0, 4.0, 12.0])}
    steps = []
    found = interleaved(trials, rounds=3, watch=clock.watch, report=lambda *step: steps.append(step))
    assert order == ["a", "b"] * 4  # one round more than counts
    assert found == {"a": Timing((1.0, 3.0, 2.0), 6.0), "b": Timing((4.0, 4.0, 12.0), 6.0)}
    assert (found["a"].median, found["a"].rate) == (2.0, 3.0)
    assert found["b"].median == 4.0
    assert clock.rests == 8
    assert steps[0] == (0, 8, "a (warming up)")
    assert steps[2] == (2, 8, "a")
    assert steps[-1] == (8, 8, "done")


@pytest.mark.parametrize(("everybody", "ours", "cpus"), [(12.0, 4.0, 0.8), (4.0, 4.5, 0.0)])
def test_other_processes_are_all_but_ours(everybody, ours, cpus):
    busy, own, now = iter([100.0, 100.0 + everybody]), iter([7.0, 7.0 + ours]), iter([50.0, 60.0])
    assert Bystanders(lambda: next(busy), lambda: next(own), lambda: next(now)).cpus() == pytest.approx(cpus)


def test_the_real_counters_count():
    assert 0.0 <= Bystanders().cpus() < 1e6
