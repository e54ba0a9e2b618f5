"""Where running sequences wait for their next row.

A running sequence is in one of three places: in `prefilling` as long as it has tokens to feed before its next decode
step, in `ready` when it waits for that step, in neither when its token is under way.
"""

from __future__ import annotations

from collections import OrderedDict

from trireme_coordinator.scheduler.fair import FairQueue, Shares
from trireme_coordinator.scheduler.sequence import Sequence


class Lanes:
    """The places, and whose turn it is in the one where tenants compete: `shares` counts what was computed for each."""

    def __init__(self) -> None:
        self.shares = Shares()
        self.prefilling = FairQueue(self.shares)
        self.ready: OrderedDict[Sequence, None] = OrderedDict()
        self.decoding: set[Sequence] = set()
        """Those that wait for a decode step, or have one under way."""
        self._turns = 0

    def move(self, sequence: Sequence) -> None:
        """To where its next row will come from."""
        if sequence.decodes:
            self.ready[sequence] = None
            self.decoding.add(sequence)
        elif sequence.pending:
            self._turns += 1
            self.prefilling.add(sequence, self._turns)

    def rest(self, sequence: Sequence) -> None:
        """It gets no more rows."""
        self.prefilling.remove(sequence)
        self.ready.pop(sequence, None)
        self.decoding.discard(sequence)
