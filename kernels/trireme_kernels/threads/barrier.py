"""How threads of one kernel wait for each other: spin briefly, then sleep.

    sync, int32[SYNC_WORDS], one word a cache line:   ARRIVED   threads that have reached the barrier
                                                      ROUND     counts barriers
                                                      COMMAND   counts pieces of work
                                                      ASLEEP    threads that sleep on ROUND or COMMAND
                                                      PULSE     counts what thread 0 has done, for those who watch

A waiter counts itself in ASLEEP before it looks at the word for the last time, and whoever changes the word looks at
ASLEEP afterwards: either the waiter sees the change or it is woken.  Pure spinning would make two threads slower than
one on a busy machine.
"""

from trireme_kernels.arrays import I32
from trireme_kernels.jit import inner
from trireme_kernels.threads.atomics import atomic_add, atomic_load, atomic_store, pause, sleep_on, wake_all

ARRIVED, ROUND, COMMAND, ASLEEP, PULSE = 0, 16, 32, 48, 64
SYNC_WORDS = 80
SPINS = 1000
"""Pauses before sleeping: 10 to 50 microseconds, longer than most waits between steps of a layer."""


@inner
def change(sync: I32, word: int) -> None:
    """Add 1 to a word and wake who waits for that."""
    atomic_add(sync, word, 1)
    if atomic_load(sync, ASLEEP) > 0:
        wake_all(sync, word, 0)


@inner
def wait_while(sync: I32, word: int, value: int) -> None:
    """Return when sync[word] is no longer `value`."""
    for _ in range(SPINS):
        if atomic_load(sync, word) != value:
            return
        pause()
    atomic_add(sync, ASLEEP, 1)
    while atomic_load(sync, word) == value:
        sleep_on(sync, word, value)
    atomic_add(sync, ASLEEP, -1)


@inner
def barrier(sync: I32, threads: int) -> None:
    """Return when all threads are here; what they wrote before is then seen by all."""
    if threads == 1:
        return
    at = atomic_load(sync, ROUND)
    if atomic_add(sync, ARRIVED, 1) == threads - 1:
        atomic_store(sync, ARRIVED, 0)
        change(sync, ROUND)
    else:
        wait_while(sync, ROUND, at)


@inner
def advance(sync: I32, rank: int) -> None:
    """Tell whoever watches that the threads got on: after a barrier, thread 0 counts for all."""
    if rank == 0:
        atomic_add(sync, PULSE, 1)


@inner
def share(items: int, rank: int, threads: int) -> tuple[int, int]:
    """The contiguous part of 0..items-1 that thread `rank` computes, always the same for the same sizes."""
    return items * rank // threads, items * (rank + 1) // threads
