"""The real pipeline with stages of modelled compute: what scheduling, gRPC and frames cost, without any kernel.

modelled.py   a stage that sleeps instead of computing, behind the real service
harness.py    such stages and an engine in this process, and requests to them
resume.py     real stages: a session's KV pages restored from the page store, beside computed again
pipeline.py   the figures of `trireme bench pipeline`, beside the ideal and the simulation
"""
