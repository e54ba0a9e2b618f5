"""What can be said of a run while it goes on: calls are checked as they end. The last word is the checker's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.fault.checker import Call, Rules, blind_times, check_call, excuses
from tests.fault.history import CallBegan, CallEnded, Cancelled, Event, FaultBegan, FaultEnded, History, Left, Tokens


class Judge:
    """Reads a history as it grows."""

    def __init__(self, history: History, answers: Mapping[str, Sequence[int]], rules: Rules) -> None:
        self.history = history
        self.tokens = self.calls = self.failed = self.violations = 0
        self._answers, self._rules = answers, rules
        self._seen = 0
        self._faults: list[Event] = []
        self._samples: list[Left] = []
        self._under_way: dict[int, Call] = {}

    def catch_up(self) -> None:
        """Takes in what is new; the counters are then as of now."""
        new, self._seen = self.history.events[self._seen :], len(self.history.events)
        self._faults += [event for event in new if isinstance(event, FaultBegan | FaultEnded)]
        self._samples = [*self._samples, *(event for event in new if isinstance(event, Left))][-100:]
        for event in new:
            self._take(event)

    def _take(self, event: Event) -> None:
        match event:
            case CallBegan():
                self._under_way[event.call] = Call(event)
            case Tokens():
                self._under_way[event.call].tokens.append(event)
                self.tokens += len(event.ids)
            case Cancelled():
                self._under_way[event.call].cancelled = True
            case CallEnded():
                self._end(event)

    def _end(self, event: CallEnded) -> None:
        call = self._under_way.pop(event.call)
        call.ended = event
        self.calls += 1
        self.failed += event.status != "OK"
        answer, windows = self._answers[call.began.request], excuses(self._faults, self._rules)
        self.violations += len(check_call(call, answer, self._rules, windows, event.t, blind_times(self._samples)))
