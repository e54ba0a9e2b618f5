"""Events of recoveries: one for each loss of a complete pipeline, bounded, in words."""

from __future__ import annotations

from trireme_coordinator.loss import RECOVERIES, Cause, Method, StageLoss, method_of
from trireme_coordinator.recovery import Recoveries

A, B, C = "10.0.0.1:1", "10.0.0.2:1", "10.0.0.2:2"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_method() -> None:
    assert method_of([A, B], [A, B]) == Method.KEPT
    assert method_of([A, B], [A, C]) == Method.RESTARTED
    assert method_of([A, B], [A, "10.0.0.1:2"]) == Method.MOVED


def test_one_event_for_all_losses_until_it_is_complete_again() -> None:
    clock = Clock()
    books = Recoveries(clock)
    assert books.trouble
    books.lost(Cause.DEAD, [StageLoss(0, Cause.DEAD, 1.0)], sequences=0, tokens=0)  # it was never complete
    books.complete([A, B])
    assert (books.count, books.trouble) == (0, "")
    books.lost(Cause.SILENT, [StageLoss(1, Cause.SILENT, 0.75)], sequences=3, tokens=40)
    assert "stage 1 is silent" in books.trouble
    clock.now += 1.5
    books.lost(Cause.DEAD, [StageLoss(0, Cause.DEAD, 0.1)], sequences=0, tokens=0)
    clock.now += 0.5
    books.complete([A, C])
    (event,) = books.events
    assert (event.cause, event.stages, event.method) == (Cause.SILENT, (0, 1), Method.RESTARTED)
    assert (event.detection_s, event.rebuild_s, event.sequences, event.tokens) == (0.75, 2.0, 3, 40)
    assert str(event).startswith(
        "recovered: cause silent, stages lost 0, 1, restarted, detected in 0.75 s, rebuilt in 2.0"
    )


def test_only_the_last_ones_are_kept() -> None:
    books = Recoveries()
    books.complete([A])
    for i in range(RECOVERIES + 5):
        books.lost(Cause.ENDED, [], sequences=i, tokens=0)
        books.complete([A])
    assert (books.count, len(books.events), books.events[-1].sequences) == (RECOVERIES + 5, RECOVERIES, RECOVERIES + 4)
