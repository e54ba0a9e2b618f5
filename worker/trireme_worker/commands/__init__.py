"""Commands that join `trireme` where the worker is installed. What is heavy is imported when a command runs."""

from trireme_worker.commands.bench import bench
from trireme_worker.commands.convert import convert
from trireme_worker.commands.logits import logits
from trireme_worker.commands.synth import synth
from trireme_worker.commands.warmup import warmup

__all__ = ["bench", "convert", "logits", "synth", "warmup"]
