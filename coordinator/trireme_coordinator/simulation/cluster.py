"""Several replicas behind a router, and a load on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from trireme_coordinator.simulation.events import Events
from trireme_coordinator.simulation.replica import Pipeline, Replica
from trireme_proto.load import Arrival, Figures, Objective, Record, StageUse, figures


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a simulated load came to."""

    figures: Figures
    records: tuple[Record, ...]


def simulate(
    pipelines: Sequence[Pipeline],
    arrivals: Sequence[Arrival],
    *,
    objective: Objective | None = None,
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> Outcome:
    """Runs all arrivals to their ends over the replicas. `report`: called with (requests arrived, requests in all).

    The figures' time begins with the first second and ends with the last answer, as in a measurement.
    """
    events = Events()
    replicas = [Replica(pipeline, events) for pipeline in pipelines]
    records: list[Record] = []
    for number, arrival in enumerate(arrivals):
        events.at(arrival.at, partial(_arrive, arrival, replicas, records, events))
        if number % 100 == 0:
            events.at(arrival.at, partial(report, number, len(arrivals)))
    events.run()
    ended = max(events.now, arrivals[-1].at if arrivals else 0.0)
    use = [
        StageUse(stage, pipeline.names[stage] if pipeline.names else "", busy / ended if ended else 0.0)
        for pipeline, replica in zip(pipelines, replicas, strict=True)
        for stage, busy in enumerate(replica.busy)
    ]
    return Outcome(figures(records, started=0.0, ended=ended, objective=objective, stages=use), tuple(records))


def _arrive(arrival: Arrival, replicas: Sequence[Replica], records: list[Record], events: Events) -> None:
    """To the replica with the fewest requests: what a router knows without asking the stages."""
    record = Record(events.now, arrival.prompt, sent=events.now)
    records.append(record)
    min(replicas, key=lambda replica: replica.outstanding).submit(arrival, record)
