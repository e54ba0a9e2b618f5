"""Mixes, arrivals and figures: notation, seeds, and percentiles that can be checked by hand."""

from itertools import pairwise
from random import Random

import pytest

from trireme_proto.errors import ConfigurationError
from trireme_proto.load import Mix, Objective, Percentiles, Record, StageUse, figures, nearest_rank, poisson, sequence


def test_a_mix_is_drawn_in_its_proportions():
    mix = Mix.parse("10-20@0.75, 100@.25", "prompt")
    random = Random(1)
    drawn = [mix.draw(random) for _ in range(4000)]
    assert set(drawn) == {*range(10, 21), 100}
    assert 900 < drawn.count(100) < 1100
    assert (mix.longest, mix.mean) == (100, 0.75 * 15 + 0.25 * 100)
    assert Mix.parse("7", "prompt").draw(random) == 7


@pytest.mark.parametrize(
    "text", ["", "0", "a", "5-4", "5-", "-5", "5@0", "5@", "5@-1", "5,,6", "9999999999", "1-2097152"]
)
def test_what_is_no_mix_is_named(text):
    with pytest.raises(ConfigurationError, match=r"^output is '"):
        Mix.parse(text, "output")


def arrivals(rate, seed=1, **how):
    return poisson(rate, prompt=Mix.parse("1-99", "p"), output=Mix.parse("1-99", "o"), seed=seed, **how)


def test_arrivals_are_poisson_seeded_and_end():
    found = arrivals(50, seconds=100)
    gaps = [after.at - before.at for before, after in pairwise(found)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(1 / 50, rel=0.05)
    assert sum((gap - mean) ** 2 for gap in gaps) / len(gaps) == pytest.approx(mean**2, rel=0.1)  # exponential
    assert found[-1].at < 100 <= found[-1].at + 1
    assert arrivals(50, seconds=100) == found
    assert arrivals(50, seconds=100, seed=2) != found
    assert arrivals(50, requests=7) == found[:7]


def test_the_requests_are_the_same_at_every_rate():
    slow, fast = arrivals(1, requests=20), arrivals(10, requests=20)
    closed = sequence(20, prompt=Mix.parse("1-99", "p"), output=Mix.parse("1-99", "o"), seed=1)
    kinds = [[(a.prompt, a.output, a.seed) for a in load] for load in (slow, fast, closed)]
    assert kinds[0] == kinds[1] == kinds[2]
    assert [a.at for a in slow] == pytest.approx([10 * a.at for a in fast])


@pytest.mark.parametrize(("rate", "how"), [(0, {}), (-1, {}), (1e9, {}), (1e5, {"seconds": 1e5})])
def test_a_load_beyond_the_limits_is_refused(rate, how):
    with pytest.raises(ConfigurationError):
        arrivals(rate, **how)


def record(scheduled, *times, tokens=None, error="", late=0.5):
    made = Record(scheduled, prompt=10, sent=scheduled + late, error=error)
    for time in times:
        made.take(time, 1)
    made.tokens = tokens or made.tokens
    made.ended = (times or (scheduled + 1,))[-1]
    return made


def test_figures_by_hand():
    records = [
        record(0.0, 1.0, 1.1, 1.3),  # TTFT 1, ITL 0.1 and 0.2, end to end 1.3
        record(1.0, 3.0, 3.5),  # TTFT 2, ITL 0.5, end to end 2.5
        record(2.0, error="OVERLOADED"),
        record(3.0, 3.1, error="CANCELLED"),
    ]
    records.append(Record(4.0, prompt=10))  # was not even sent
    objective = Objective.parse("ttft=1500ms,itl=160ms")
    use = [StageUse(0, "a", 0.5), StageUse(1, "b", 0.7)]
    found = figures(records, started=0.0, ended=5.0, objective=objective, stages=use)
    assert (found.requests, found.completed, found.unfinished) == (5, 2, 1)
    assert found.failed == {"CANCELLED": 1, "OVERLOADED": 1}
    assert found.ttft_s == Percentiles(1.0, 2.0, 2.0)
    assert found.itl_s.p50 == pytest.approx(0.2)
    assert found.itl_s.p99 == pytest.approx(0.5)
    assert found.e2e_s.p50 == pytest.approx(1.3)
    assert found.sent_late_s.p99 == pytest.approx(0.5)
    assert found.tokens_per_s == pytest.approx(6 / 5)
    assert found.prompt_tokens_per_s == pytest.approx(30 / 5)
    assert found.requests_per_s == pytest.approx(2 / 5)
    assert found.goodput_per_s == pytest.approx(1 / 5)  # the first alone: 150 ms a token
    assert (found.utilisation, found.bubble) == (pytest.approx(0.6), pytest.approx(0.4))


def test_any_percentile_by_nearest_rank():
    values = [float(n) for n in range(1, 21)]
    assert [nearest_rank(values, q) for q in (0, 5, 50, 95, 96, 100)] == [1.0, 1.0, 10.0, 19.0, 20.0, 20.0]
    assert nearest_rank([3.0], 95) == 3.0


def test_percentiles_are_nearest_ranks():
    assert Percentiles.of(range(1, 101)) == Percentiles(50, 90, 99)
    assert Percentiles.of([3.0]) == Percentiles(3.0, 3.0, 3.0)
    assert Percentiles.of([]) == Percentiles(None, None, None)


def test_nothing_at_all_has_figures_too():
    found = figures([], started=1.0, ended=1.0)
    assert (found.requests, found.tokens_per_s, found.ttft_s.p50, found.goodput_per_s) == (0, 0, None, None)


@pytest.mark.parametrize("text", ["", "ttft", "ttft=2", "ttft=2m", "x=2s", "ttft=1s,ttft=2s", "ttft=-1s", "itl=1s,"])
def test_what_is_no_objective_is_refused(text):
    with pytest.raises(ConfigurationError, match="objective"):
        Objective.parse(text)


def test_each_term_of_an_objective_counts():
    answer = record(0.0, 1.0, 1.5, 2.0)  # TTFT 1, 0.5 a token, end to end 2
    for text in ("ttft=999ms", "itl=499ms", "e2e=1999ms"):
        assert not Objective.parse(text).met(answer)
    assert Objective.parse("ttft=1s,itl=500ms,e2e=2s").met(answer)
    assert not Objective.parse("ttft=9s").met(record(0.0, 1.0, error="INTERNAL"))
