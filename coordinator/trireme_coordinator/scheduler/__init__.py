"""Decides what is computed next. Pure: no clock, no I/O, no arrays; time and randomness stay outside.

sequence.py   one request's tokens and how far they are computed
budget.py     slots and KV pages: reserved, freed, kept for idle sessions, shared
prefix.py     which slots begin with which tokens;  pages.py  how many pages they hold together
fair.py       whose turn it is
cost.py       what a step costs, and how many rows a micro-batch should have
drafts.py     guesses at next tokens
restoring.py  pages from the page store;  page_keys.py  what they are called there
config.py     what the pipeline can hold
lanes.py      where running sequences wait for their next row
admission.py  who runs;  rows.py  what the next micro-batch computes;  answers.py  what sampled tokens come to
scheduler.py  micro-batches and their results, in order
"""

from trireme_coordinator.scheduler.config import SchedulerConfig
from trireme_coordinator.scheduler.page_keys import PageKeys
from trireme_coordinator.scheduler.restoring import Wanted
from trireme_coordinator.scheduler.scheduler import Scheduler
from trireme_coordinator.scheduler.sequence import (
    Batch,
    Finish,
    Restored,
    Row,
    SamplingParams,
    Sequence,
)

__all__ = [
    "Batch",
    "Finish",
    "PageKeys",
    "Restored",
    "Row",
    "SamplingParams",
    "Scheduler",
    "SchedulerConfig",
    "Sequence",
    "Wanted",
]
