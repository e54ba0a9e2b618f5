"""Load against a running server: sends requests on a schedule and records what comes back.

load.py    the requests of an open or a closed loop, over the asyncio client
runs.py    one run for each rate or number of streams, with the stages' use before and after
report.py  the table
plot.py    the picture; the one file that imports matplotlib
"""
