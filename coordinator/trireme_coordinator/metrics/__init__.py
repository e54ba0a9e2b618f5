"""What the coordinator counts and measures, of itself and of its stages, and how that gets out.

    catalogue.py   every metric: name, type, labels, unit, meaning
    values.py      histograms, counters by label, readings
    steps.py       what the engine tells of each step          requests.py    what a request's life tells
    sources.py     gathers all readings                        stage_figures.py  readings of the pipeline
    reports.py redis_watch.py ray_watch.py    what has to be asked for
    prometheus.py  as text                                     otlp.py        to a collector
    endpoint.py    /metrics, /healthz, /readyz                 readiness.py   whether requests can be served (pure)
    profile.py     what holds a pipeline back (pure)

Metrics say how much and how long, never what: no label holds text of a request, an id of one, or a caller's address.
"""
