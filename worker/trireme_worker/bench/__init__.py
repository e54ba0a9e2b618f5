"""Measurements of this machine and of the kernels on it: `trireme bench`.

    interleave  bystanders            timing: rounds of trials, medians; what else the CPUs were doing
    limits                            plain read bandwidth and dot product peak: what the kernels are held against
    random_weights  models            random weights in memory, SHAPE or PACK of a command
    engine  memory                    a model that stands at a context; is there room for it
    traffic  decode  prefill          bytes of a step; tokens/s and shares of the limits
    targets  products  suite          the table of goals, and what is measured for each line
    contention  compile_time          under foreign load; from nothing and from the cache
    peers/                            the same shapes with llama-cpp-python
    report                            tables for people

Speed is only ever given beside a limit that was measured in the same run: a machine's memory bandwidth changes from
minute to minute, the ratio hardly does. Nothing of the serving path imports this package.
"""
