"""The worker: one process that computes a contiguous range of a model's layers.

    pack/       the model on the disk, mapped            convert/    Hugging Face checkpoints into packs
    stage, kv_cache, team                                the computation, no network
    frames, stepper, link, server, actor                 the stage service and its Ray actor
    commands/   `trireme convert`, `trireme logits`      models/     the bundled pack

Imports kernels and proto; knows nothing of requests, sessions or users.
"""
