"""Where the nodes of a cluster under test live: loopback addresses, or network namespaces that can be cut off.

Namespaces need root and a network of our own (`unshare --net`), in which this process is the hub:

    hub 10.77.0.1 --- bridge ---+--- veth --- node 10.77.0.11
                                +--- veth --- node 10.77.0.12

A node that is cut off keeps its link, but the bridge no longer takes its packets: a partition without a sound.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path


class Loopback:
    """Every node at its own address of 127.0.0.0/8. Nobody can be cut off."""

    hub = "127.0.0.60"
    can_cut = False

    def address(self, node: int) -> str:
        """Of a node, counted from 1."""
        return f"127.0.0.{60 + node}"

    def inside(self, node: int) -> list[str]:
        """What a command is put behind to run at the node."""
        return []

    def cut(self, node: int) -> None:
        raise NotImplementedError

    def join(self, node: int) -> None:
        raise NotImplementedError


class Namespaces(Loopback):
    """Every node in a namespace of its own, on one bridge."""

    hub = "10.77.0.1"
    can_cut = True

    def __init__(self) -> None:
        self._holders: dict[int, subprocess.Popen[bytes]] = {}

    def open(self, nodes: int) -> None:
        """Makes all of it."""
        _ip("link add hub type bridge")
        _ip(f"addr add {self.hub}/24 dev hub")
        _ip("link set hub up")
        for node in range(1, nodes + 1):
            self._add(node)

    def close(self) -> None:
        """Namespaces end with the processes that hold them."""
        for holder in self._holders.values():
            holder.kill()
            holder.wait()

    def address(self, node: int) -> str:
        """Of a node, counted from 1."""
        return f"10.77.0.{10 + node}"

    def inside(self, node: int) -> list[str]:
        """What a command is put behind to run at the node."""
        return ["nsenter", f"--net=/proc/{self._holders[node].pid}/ns/net"]

    def cut(self, node: int) -> None:
        """Nothing gets from or to the node any more."""
        _ip(f"link set veth{node} nomaster")

    def join(self, node: int) -> None:
        """All gets through again."""
        _ip(f"link set veth{node} master hub")

    def _add(self, node: int) -> None:
        self._holders[node] = holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        _until_apart(holder.pid)
        _ip(f"link add veth{node} type veth peer name eth0 netns {holder.pid}")
        _ip(f"link set veth{node} up master hub")
        for command in ("link set lo up", f"addr add {self.address(node)}/24 dev eth0", "link set eth0 up"):
            _ip(command, self.inside(node))


@contextlib.contextmanager
def network(nodes: int, *, namespaces: bool) -> Iterator[Loopback]:
    """Addresses for so many nodes."""
    if not namespaces:
        yield Loopback()
        return
    made = Namespaces()
    try:
        made.open(nodes)
        yield made
    finally:
        made.close()


def _until_apart(pid: int) -> None:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
        if time.monotonic() > deadline:
            raise RuntimeError("a network namespace was not made")
        time.sleep(0.01)


def _ip(command: str, inside: list[str] | None = None) -> None:
    subprocess.run([*(inside or []), "ip", *command.split()], check=True, capture_output=True)
