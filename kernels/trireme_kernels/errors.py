"""The errors of the kernels.

    Exception
    |- ValueError
    |  `- KernelInputError    an argument has the wrong shape, dtype, memory order or range; the message names it
    `- RuntimeError
       |- UnsupportedCpuError this CPU lacks instructions that the kernels need; raised while importing
       `- KernelCacheError    the folder for compiled kernels cannot be used safely; raised while importing

Kernels never raise from compiled code: everything is checked in Python before it runs.
"""


class KernelInputError(ValueError):
    """An argument of a kernel is unusable.  The message begins with the argument's name."""


class UnsupportedCpuError(RuntimeError):
    """No kernel can run on this CPU.  The message names what it lacks."""


class KernelCacheError(RuntimeError):
    """The folder for compiled kernels cannot be created, or another user could write machine code into it."""
