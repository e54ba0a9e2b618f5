"""Threads inside compiled code: atomic words, a barrier that spins and then sleeps, the static split of work."""

from trireme_kernels.threads.atomics import cycles
from trireme_kernels.threads.barrier import COMMAND, PULSE, SYNC_WORDS, advance, barrier, change, share, wait_while

__all__ = ["COMMAND", "PULSE", "SYNC_WORDS", "advance", "barrier", "change", "cycles", "share", "wait_while"]
