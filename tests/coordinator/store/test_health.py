"""When a store that did not answer is asked again."""

from __future__ import annotations

from trireme_coordinator.store.health import Breaker, full_jitter


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_pauses_grow_up_to_a_bound_and_an_answer_ends_them() -> None:
    time = Time()
    breaker = Breaker(first=0.1, longest=1.0, clock=time, jitter=float)
    pauses = []
    for _ in range(6):
        assert breaker.wait() is None
        breaker.failed()
        pauses.append(round(breaker.wait(), 6))
        time.now += pauses[-1]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert breaker.away
    breaker.answered()
    assert not breaker.away
    breaker.failed()
    assert round(breaker.wait(), 6) == 0.1


def test_one_call_tries_at_a_time() -> None:
    time = Time()
    breaker = Breaker(clock=time, jitter=float)
    assert [breaker.wait() for _ in range(3)] == [None] * 3  # all is well: nobody waits for anybody
    breaker.failed()
    time.now += 60
    assert breaker.wait() is None
    assert breaker.wait() is not None
    breaker.gave_up()  # its caller went away
    assert breaker.wait() is None
    breaker.answered()
    assert [breaker.wait() for _ in range(3)] == [None] * 3


def test_jitter_is_drawn_from_the_whole_pause() -> None:
    drawn = [full_jitter(2.0) for _ in range(200)]
    assert 0 <= min(drawn) < 0.5
    assert 1.5 < max(drawn) <= 2
