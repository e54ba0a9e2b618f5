"""Which node computes which layers, and what comes of it. Pure: no Ray, no files, no clock.

even      stages of equal work over nodes of which nothing is known
costs     what a model asks for, what a machine can do, and the time a stage takes for a step
assign    the contiguous ranges of layers that make the slowest stage as fast as possible
predict   tokens/s, time to first token and memory of an assignment
relocate  where a stage goes that was lost
plan      all of that for a set of machines, what was left out and why, and what one machine more or less would do
"""

from trireme_coordinator.placement.costs import Machine, ModelCosts
from trireme_coordinator.placement.even import LayersOf, Node, Placed, partition, place
from trireme_coordinator.placement.plan import Plan, plan
from trireme_coordinator.placement.predict import Wishes, wishes_for
from trireme_coordinator.placement.relocate import relocate

__all__ = [
    "LayersOf",
    "Machine",
    "ModelCosts",
    "Node",
    "Placed",
    "Plan",
    "Wishes",
    "partition",
    "place",
    "plan",
    "relocate",
    "wishes_for",
]
