"""Brings hosts to what hosts.yaml says: look, check, install, then Ray's head, the other nodes, the coordinators.

A host that fails is reported and left out, the others go on; what this run had started on it is stopped. Decides in
which order hosts are worked on; what is to be changed on one is worked out by changes.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from trireme_coordinator.hosts import checks, desired
from trireme_coordinator.hosts.changes import Change, Facts, command_line, file_change, process_change
from trireme_coordinator.hosts.desired import RAY, Cluster, Files, Process
from trireme_coordinator.hosts.hosts_file import Host, Hosts
from trireme_coordinator.hosts.install import Installation
from trireme_coordinator.hosts.outcome import Report
from trireme_proto.errors import StartupError

Call = Callable[[Host, dict[str, Any], Callable[[str], None]], Awaitable[dict[str, Any]]]
"""As `ssh.call`."""
_UNKNOWN = "(known when it runs)"


class Rollout:
    """One `up`, `down` or look over the hosts of a deployment."""

    def __init__(
        self, hosts: Hosts, local: Files, report: Report, call: Call, *, chosen: Iterable[str] = (), dry: bool = False
    ) -> None:
        """`chosen`: names of the hosts to change, all where empty. `dry`: nothing is changed, commands are told."""
        self._hosts, self._local, self.report, self._call, self._dry = hosts, local, report, call, dry
        self._head = hosts.coordinators[0]
        self._chosen = [host for host in hosts.hosts if host.name in set(chosen)] or list(hosts.hosts)
        self._facts: dict[Host, Facts] = {}
        self._begun: dict[Host, list[str]] = {}
        self._one_by_one = asyncio.Lock()

    async def up(self, installation: Installation | None = None) -> None:
        """Failures are in the report."""
        await self.look(installation)
        if installation is not None:
            await self._each(self._targets(), lambda host: self._install(host, installation))
        self._check()
        if self._head not in self._facts:
            return self._fail_all(f"Ray's head cannot run on {self._head.name}, so that there is nothing to join.")
        token = await self._each([self._head], self._token)
        head = await self._each(token, lambda host: self._node(host, Cluster(token[host])))
        if self._head not in head:
            return self._fail_all(f"Ray's head did not start on {self._head.name}.")
        cluster = Cluster(token[self._head], head[self._head])
        others = [host for host in self._present() if host != self._head]
        nodes = head | await self._each(others, lambda host: self._node(host, cluster))
        await self._coordinators(nodes, cluster)
        return None

    async def down(self, *, purge: bool = False) -> None:
        """Coordinators first, while they can still drain; Ray's head last."""
        await self.look(None)
        await self._each(self._targets(), lambda host: self._stop(host, lambda name: name != RAY))
        others = [host for host in self._targets() if host != self._head]
        await self._each(others, lambda host: self._stop(host, lambda _: True))
        await self._each(set(self._targets()) - set(others), lambda host: self._stop(host, lambda _: True))
        if purge and not self._dry:
            await self._each(self._targets(), lambda host: self._ask(host, {"do": "purge"}))

    async def look(self, installation: Installation | None) -> None:
        """Facts of the chosen hosts, and of the head's, which the others depend on."""
        wanted = dict.fromkeys([self._head, *self._chosen])
        self._facts = await self._each(wanted, lambda host: self._look(host, installation))
        for host, facts in self._facts.items():
            self.report.outcomes[host.name].processes = _shown(facts["processes"])

    @property
    def targets(self) -> list[str]:
        """HOST:PORT of the coordinators, for clients."""
        return [desired.listens(self._hosts, host) for host in self._hosts.coordinators]

    # Steps of `up`.

    async def _look(self, host: Host, installation: Installation | None) -> Facts:
        self.report.progress(host.name, "connecting")
        names = desired.files(host, self._local, "-")
        request = {
            "do": "look", "python": host.python, "env": host.environment, "address": host.address,
            "pack": None if "://" in self._hosts.model or not self._hosts.model else self._hosts.model,
            "ports": list(checks.ports(self._hosts, host)), "files": list(names), "wheels": installation is not None,
        }  # fmt: skip
        return await self._ask(host, request)

    async def _install(self, host: Host, installation: Installation) -> None:
        facts = self._facts[host]
        if facts["installed"] == installation.digest:
            return
        if wrong := checks.before_install(facts):
            raise StartupError(wrong)
        change = Change([installation.step(host)], [f"installs {installation.requirement}"])
        if not self._dry:
            await installation.copy(host, facts, lambda request: self._ask(host, request))
        await self._apply(host, change)
        if not self._dry:
            self._facts[host] = await self._look(host, None)

    def _check(self) -> None:
        for host in [each for each in self._present() if each != self._head] + [self._head]:
            head = self._facts.get(self._head)
            if head is None:
                return
            if wrong := checks.mistake(self._hosts, host, self._facts[host], head):
                self.report.failed(host.name, wrong)
                del self._facts[host]

    async def _token(self, host: Host) -> str:
        if self._dry:
            return ""
        done = await self._ask(host, {"do": "apply", "steps": [{"secret": desired.TOKEN}]})
        return str(done["results"][0])

    async def _node(self, host: Host, cluster: Cluster) -> str:
        """Files and the Ray node of a host; the node's identity."""
        wanted = desired.ray_node(self._hosts, host, self._facts[host], cluster)
        wanted_files = desired.files(host, self._local, "" if host == self._head else cluster.token)
        files = file_change(self._facts[host], wanted_files)
        return await self._reach(host, wanted, files)

    async def _coordinators(self, nodes: dict[Host, str], cluster: Cluster) -> None:
        absent = {host for host in self._chosen if host not in nodes}
        cluster = Cluster(
            cluster.token, cluster.head, len([host for host in self._hosts.workers if host not in absent])
        )
        if not cluster.nodes:
            await self._take_back(list(nodes))
            return self._fail_all("No host takes stages, so that no coordinator can serve.")
        wanted = [host for host in self._hosts.coordinators if host in nodes and host in self._facts]
        done = await self._each(wanted, lambda host: self._coordinator(host, cluster, nodes[host]))
        failed = [host for host in wanted if host not in done]
        if wanted and not done:
            await self._take_back(list(nodes))
        await self._take_back([host for host in failed if host != self._head])
        return None

    async def _coordinator(self, host: Host, cluster: Cluster, node: str) -> str:
        wanted = desired.coordinator(self._hosts, host, self._facts[host], cluster, self._local, node)
        return await self._reach(host, wanted, Change())

    async def _reach(self, host: Host, wanted: Process, files: Change) -> str:
        """Makes a process of a host run as wanted; its identity."""
        found = self._facts[host]["processes"].get(wanted.name, {})
        change = process_change(self._facts[host], wanted)
        both = Change(files.steps + change.steps, files.notes + change.notes, change.restarts)
        if host not in self._chosen:
            if change.steps:
                raise StartupError(f"{wanted.name} does not run here as it should; bring this host up, too.")
            return str(found["identity"])
        if change.restarts and host != self._head and wanted.name == RAY:
            async with self._one_by_one:  # the others take the stages meanwhile
                results = await self._apply(host, both)
        else:
            results = await self._apply(host, both)
        return str(results[-1]) if change.steps else str(found["identity"])

    async def _apply(self, host: Host, change: Change) -> list[Any]:
        if not change.steps:
            return []
        self.report.changed(host.name, change.notes)
        if self._dry:
            for step in change.steps:
                self.report.progress(host.name, f"  $ {command_line(step)}")
            return [_UNKNOWN]
        done = await self._ask(host, {"do": "apply", "steps": change.steps})
        self._begun.setdefault(host, []).extend(done["started"])
        results: list[Any] = done["results"]
        return results

    # Taking away.

    async def _stop(self, host: Host, which: Callable[[str], bool]) -> None:
        found = self._facts[host]["processes"]
        names = sorted((name for name in found if which(name)), key=lambda name: name == RAY)
        steps = [{"stop": name, "seconds": self._grace(name)} for name in names]
        await self._apply(host, Change(steps, [f"stops {name}" for name in names]))
        for name in names:
            del found[name]

    async def _take_back(self, hosts: list[Host]) -> None:
        """Stops what this run started on these hosts, the head's last."""
        for group in ([host for host in hosts if host != self._head], [host for host in hosts if host == self._head]):
            await self._each(group, self._undo)

    async def _undo(self, host: Host) -> None:
        names = self._begun.pop(host, [])[::-1]
        steps = [{"stop": name, "seconds": self._grace(name)} for name in names]
        await self._apply(host, Change(steps, [f"stops {name} again" for name in names]))

    def _grace(self, name: str) -> int:
        return 15 if name == RAY else int(self._hosts.serve.get("drain_seconds") or 30) + 60

    # The hosts.

    def _present(self) -> list[Host]:
        """The chosen hosts that have not failed, and the head where it has not."""
        return list(self._facts)

    def _targets(self) -> list[Host]:
        """The chosen hosts that have not failed."""
        return [host for host in self._chosen if host in self._facts]

    def _fail_all(self, sentence: str) -> None:
        for host in self._chosen:
            self.report.failed(host.name, sentence)

    async def _ask(self, host: Host, request: dict[str, Any]) -> dict[str, Any]:
        return await self._call(
            host, {"root": self._hosts.folder} | request, lambda text: self.report.progress(host.name, text)
        )

    async def _each(self, hosts: Iterable[Host], work: Callable[[Host], Awaitable[Any]]) -> dict[Host, Any]:
        """The work on all hosts at once; results of those where it went well, the others are reported and left out."""

        async def one(host: Host) -> Any:
            try:
                return await work(host)
            except StartupError as error:
                self.report.failed(host.name, error.message)
                self._facts.pop(host, None)
                return error

        hosts = list(hosts)
        done = await asyncio.gather(*(one(host) for host in hosts))
        return {host: result for host, result in zip(hosts, done, strict=True) if not isinstance(result, StartupError)}


def _shown(processes: dict[str, Any]) -> dict[str, Any]:
    """Of each process what a person or a machine wants to know."""
    return {
        name: {"running": found["alive"], "pid": found["pid"], "since": found["since"], "bytes": found["bytes"]}
        for name, found in processes.items()
    }
