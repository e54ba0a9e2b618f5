"""Commands that join `trireme` where the server is installed."""

from trireme_coordinator.commands.bench import bench
from trireme_coordinator.commands.bench_pipeline import bench_pipeline
from trireme_coordinator.commands.bench_recovery import bench_recovery
from trireme_coordinator.commands.bench_resume import bench_resume
from trireme_coordinator.commands.certs import certs
from trireme_coordinator.commands.keys import keys
from trireme_coordinator.commands.plan import plan
from trireme_coordinator.commands.probe import probe
from trireme_coordinator.commands.redis_acl import redis_acl
from trireme_coordinator.commands.serve import serve
from trireme_coordinator.commands.simulate import simulate

__all__ = [
    "bench",
    "bench_pipeline",
    "bench_recovery",
    "bench_resume",
    "certs",
    "keys",
    "plan",
    "probe",
    "redis_acl",
    "serve",
    "simulate",
]
