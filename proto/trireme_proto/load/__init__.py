"""What a load is, and the figures of one: shared by the measurement (client) and the simulation (coordinator), so that
both say the same thing by the same words.

mix.py       how long prompts and answers are
arrivals.py  when requests come: Poisson, seeded
figures.py   what was recorded of each request, and the percentiles and rates of all
words.py     those as a person reads them

Pure: no clock, no network, no printing.
"""

from trireme_proto.load.arrivals import Arrival, poisson, sequence
from trireme_proto.load.figures import Figures, Objective, Percentiles, Record, StageUse, figures, nearest_rank
from trireme_proto.load.mix import Mix
from trireme_proto.load.words import lines

__all__ = [
    "Arrival",
    "Figures",
    "Mix",
    "Objective",
    "Percentiles",
    "Record",
    "StageUse",
    "figures",
    "lines",
    "nearest_rank",
    "poisson",
    "sequence",
]
