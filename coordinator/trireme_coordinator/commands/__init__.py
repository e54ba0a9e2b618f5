"""Commands that join `trireme` where the server is installed."""

from trireme_coordinator.commands.bench import bench
from trireme_coordinator.commands.plan import plan
from trireme_coordinator.commands.probe import probe
from trireme_coordinator.commands.serve import serve

__all__ = ["bench", "plan", "probe", "serve"]
