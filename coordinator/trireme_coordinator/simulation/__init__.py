"""A cluster that is not there: the real scheduler, over stages that only take time, on a virtual clock.

    machines.py  pipelines of machines, cut and placed as for a deployment
    work.py      what a micro-batch asks of a stage, and how long a stage takes for it
    events.py    the clock: what happens next, and when
    replica.py   one pipeline: scheduler, stages, links
    cluster.py   several of them behind a router, and a load on them

Pure: no real clock, no network, no randomness; arrivals come from outside.
"""

from trireme_coordinator.simulation.cluster import Outcome, simulate
from trireme_coordinator.simulation.machines import pipelines
from trireme_coordinator.simulation.replica import Pipeline
from trireme_coordinator.simulation.work import FixedStage, StageTimes, work_of

__all__ = ["FixedStage", "Outcome", "Pipeline", "StageTimes", "pipelines", "simulate", "work_of"]
