"""Rendered pods run as processes of this machine, with the commands, environment and files that the manifests say.

What Kubernetes would do and this does: init containers in turn, containers that start before the others (restartPolicy
Always), environment from config maps and secrets, `$(NAME)`, volumes as folders, services as names, probes, preStop.
What a container's own network and file system would do is done by substitution: a pod's address is one of 127.0.0.0/8,
each of its ports a free one of this machine, and each mounted path a folder of the pod's own. Everything is stopped by
process id.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.helm.rendering import Manifest, PodTemplate, find

_T = TypeVar("_T")
_MACHINE = ("/dev/shm", "/tmp")  # noqa: S108  these mounts are this machine's own
_START_SECONDS = 240
_STARTS = 3  # a node of Ray ends where it is not up within 30 s, as happens on a busy machine


class _Ended(RuntimeError):
    """A container's process ended before it was up."""


def _may_make_namespaces() -> bool:
    with contextlib.suppress(OSError):
        return subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], check=False).returncode == 0
    return False


_NAMESPACES = os.geteuid() == 0 and _may_make_namespaces()
"""Elsewhere all pods see all processes; a driver then goes through the head instead of the node beside it."""


_PAUSE = "sleep infinity & wait"
"""First process of a namespace: takes in whatever loses its parent."""


class Pod:
    """One pod. `network` knows the addresses of all of them."""

    def __init__(self, name: str, template: PodTemplate, address: str, folder: Path, network: Network) -> None:
        self.name, self.template, self.address, self.folder, self.network = name, template, address, folder, network
        self.ports = {
            port["containerPort"]: network.free_port() for c in template.containers for port in c.get("ports", ())
        }
        self.started: list[tuple[str, psutil.Popen]] = []
        self._namespace: psutil.Popen | None = None

    def start(self, *, ready: bool = True) -> None:
        """Runs init containers and starts containers, each once the one before is up; TimeoutError, RuntimeError.
        `ready`: waits for that too, which one that stands by never is.
        """
        self.network.check_open()
        self.make_volumes()
        if _NAMESPACES:  # as shareProcessNamespace has it: containers of a pod see each other's processes, no others
            self._namespace = psutil.Popen(["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", _PAUSE])
        for container in self.template.spec.get("initContainers", ()):
            if container.get("restartPolicy") == "Always":
                self._start(container, ready=True)
            elif self.run(container) != 0:
                raise RuntimeError(f"{self.name}: {container['name']} failed: {self.log(container['name'])}")
        for container in self.template.spec["containers"]:
            self._start(container, ready=ready)

    def run(self, container: dict[str, Any], command: list[str] | None = None) -> int:
        """Exit code of a container's own command, or of another one in its place, as a probe or a hook has."""
        with self._log(container).open("ab") as log:
            done = subprocess.run(
                self._command(container, command),
                env=self.environment(container), stdout=log, stderr=log, timeout=_START_SECONDS, check=False,
            )  # fmt: skip
        return done.returncode

    def stop(self) -> None:
        """preStop, then the end, last started first; whatever is left after a while is killed."""
        for name, process in reversed(self.started):
            hook = self.template.container(name).get("lifecycle", {}).get("preStop")
            if hook and process.is_running():
                self.run(self.template.container(name), hook["exec"]["command"])
            family = [process, *_family(process)]
            own = family[1] if self._namespace is not None and len(family) > 1 else process  # the first is nsenter
            with contextlib.suppress(psutil.NoSuchProcess):
                own.terminate()
            for left in psutil.wait_procs(family, timeout=20)[1]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    left.kill()
        self.started.clear()
        if self._namespace is not None:
            for process in [*_family(self._namespace), self._namespace]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._namespace.wait()
            self._namespace = None

    def leads(self) -> bool:
        """Whether all of its containers are ready."""
        return all(self.ready(c, "readinessProbe") for c in self.template.spec["containers"] if "readinessProbe" in c)

    def used_bytes(self, container: str) -> int:
        """Memory of a container's processes; what they share is counted once."""
        (process,) = (process for name, process in self.started if name == container)
        return sum(each.memory_full_info().pss for each in [process, *_family(process)])

    def log(self, container: str) -> str:
        return (self.folder / f"{container}.log").read_text()

    def ready(self, container: dict[str, Any], probe: str) -> bool:
        """What a probe says right now."""
        match container[probe]:
            case {"tcpSocket": {"port": port}}:
                return _answers(self.address, self.ports[_number(container, port)])
            case {"exec": {"command": command}}:
                return self.run(container, command) == 0
            case {"httpGet": {"port": port, "path": path}}:
                return _says_ok(self.address, self.ports[_number(container, port)], path)
            case {"grpc": {"port": port, **rest}}:
                return _healthy(f"{self.address}:{self.ports[port]}", str(rest.get("service", "")))
        raise AssertionError(container[probe])

    def environment(self, container: dict[str, Any]) -> dict[str, str]:
        """All of it: nothing comes from the test's own but where programs are."""
        places = (self.network.programs, Path(sys.executable).parent, os.environ["PATH"])
        found = {"PATH": os.pathsep.join(map(str, places)), "PYTHONPATH": os.pathsep.join(sys.path)}
        for source in container.get("envFrom", ()):
            ((kind, reference),) = source.items()
            found |= self.network.data("ConfigMap" if kind == "configMapRef" else "Secret", reference["name"])
        for entry in container.get("env", ()):
            value = entry["value"] if "value" in entry else self._from(entry["valueFrom"])
            found[entry["name"]] = re.sub(r"\$\((\w+)\)", lambda name: found.get(name[1], name[0]), value)
        secret = {e["name"] for e in container.get("env", ()) if "secretKeyRef" in e.get("valueFrom", {})}
        return {n: value if n in secret else self.localised(container, value) for n, value in found.items()}

    def localised(self, container: dict[str, Any], text: str) -> str:
        """The text with services, ports and paths as they are on this machine."""
        text = self.network.resolved(text)
        for port, real in self.ports.items():
            text = re.sub(rf"(?<![\d.]){port}(?!\d)", str(real), text)
        for mount in container.get("volumeMounts", ()):
            if mount["mountPath"] not in _MACHINE:
                path = str(self.folder / mount["name"])
                text = re.sub(rf"(?<![\w/.-]){re.escape(mount['mountPath'])}(?![\w-])", path, text)
        return text

    def processes(self, container: str, title: str) -> list[psutil.Process]:
        """Those of a container whose command line begins so."""
        (process,) = (process for name, process in self.started if name == container)
        return [each for each in _family(process) if " ".join(each.cmdline()).startswith(title)]

    def _from(self, source: dict[str, Any]) -> str:
        match source:
            case {"fieldRef": {"fieldPath": "status.podIP"}}:
                return self.address
            case {"fieldRef": {"fieldPath": "metadata.name"}}:
                return self.name
            case {"secretKeyRef": {"name": name, "key": key}}:
                return self.network.data("Secret", name)[key]
        raise AssertionError(source)

    def _command(self, container: dict[str, Any], command: list[str] | None) -> list[str]:
        if command is None:
            environment = self.environment(container)
            given = [*container["command"], *container.get("args", ())]
            command = [re.sub(r"\$\((\w+)\)", lambda name: environment[name[1]], part) for part in given]
        return [*self._inside(), *(self.localised(container, part) for part in command)]

    def _inside(self) -> list[str]:
        """What enters the pod's namespace of processes."""
        if self._namespace is None:
            return []
        init = _until(lambda: next(iter(_family(self._namespace)), None))
        return ["nsenter", f"--pid=/proc/{init.pid}/ns/pid", f"--mount=/proc/{init.pid}/ns/mnt", f"--wd={self.folder}"]

    def _start(self, container: dict[str, Any], *, ready: bool) -> None:
        """Starts it, and again where it ends before it is up, as restartPolicy has it; RuntimeError after three."""
        for _ in range(_STARTS - 1):
            with contextlib.suppress(_Ended):
                self._start_once(container, ready=ready)
                return
        self._start_once(container, ready=ready)

    def _start_once(self, container: dict[str, Any], *, ready: bool) -> None:
        self.network.check_open()
        log: IO[bytes]
        with self._log(container).open("ab") as log:
            process = psutil.Popen(
                self._command(container, None),
                env=self.environment(container), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self.started.append((container["name"], process))
        for probe in ("startupProbe", "readinessProbe" if ready else "livenessProbe"):
            if probe in container:
                self._until_ready(container, probe, process)

    def _until_ready(self, container: dict[str, Any], probe: str, process: psutil.Popen) -> None:
        until, family = time.monotonic() + _START_SECONDS, _family(process)
        while not self.ready(container, probe):
            self.network.check_open()
            said = f"{self.name}: {container['name']} does not start: "
            if process.poll() is not None:
                self._forget(process, family)
                raise _Ended(said + self.log(container["name"]))
            if time.monotonic() > until:
                raise RuntimeError(said + self.log(container["name"]))
            family = _family(process) or family
            time.sleep(0.1)

    def _forget(self, ended: psutil.Popen, family: list[psutil.Process]) -> None:
        """Kills what a process has left behind, so that a next start finds its ports free."""
        self.started = [(name, process) for name, process in self.started if process is not ended]
        for left in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
        psutil.wait_procs(family, timeout=20)

    def make_volumes(self) -> None:
        """Folders and files of the pod's volumes; one that starts anew has none of the last one's."""
        mounted = {m["name"]: c for c in self.template.containers for m in c.get("volumeMounts", ())}
        for volume in self.template.spec.get("volumes", ()):
            folder = self.folder / volume["name"]
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            source = volume.get("secret") or volume.get("configMap") or {}
            for name, text in self._files(volume).items():
                local = text if "secret" in volume else self.localised(mounted[volume["name"]], text)
                (folder / name).write_text(local)
                (folder / name).chmod(source["defaultMode"])

    def _files(self, volume: dict[str, Any]) -> dict[str, str]:
        match volume:
            case {"secret": {"secretName": name, "items": items}}:
                data = self.network.data("Secret", name)
                return {item["path"]: data[item["key"]] for item in items}
            case {"configMap": {"name": name}}:
                return self.network.data("ConfigMap", name)
            case {"emptyDir": _}:
                return {}
        raise AssertionError(volume)

    def _log(self, container: dict[str, Any]) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{container['name']}.log"


class Network:
    """All pods, and what their names stand for."""

    def __init__(self, manifests: list[Manifest], programs: Path) -> None:
        self.manifests, self.programs = manifests, programs
        self.pods: list[Pod] = []
        self._taken = {6379, 6380, 9464, 50051}
        self._closed = threading.Event()

    def close(self) -> None:
        """From now on no pod starts anything: those that are starting end with an error."""
        self._closed.set()

    def check_open(self) -> None:
        """RuntimeError after `close`."""
        if self._closed.is_set():
            raise RuntimeError("the release is being stopped")

    def free_port(self) -> int:
        """A port that nobody listens on, and that is none of the manifests' own."""
        while True:
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = int(probe.getsockname()[1])
            if port not in self._taken:
                self._taken.add(port)
                return port

    def data(self, kind: str, name: str) -> dict[str, str]:
        """Content of a config map or secret."""
        data = find(self.manifests, kind, name)["data"]
        return {k: base64.b64decode(v).decode() for k, v in data.items()} if kind == "Secret" else data

    def resolved(self, text: str) -> str:
        """The text with SERVICE:PORT replaced by what answers there."""
        services = [m for m in self.manifests if m["kind"] == "Service"]
        for service in sorted(services, key=lambda m: -len(m["metadata"]["name"])):
            for port in service["spec"]["ports"]:
                where = f"{service['metadata']['name']}:{port['port']}"
                if re.search(rf"(?<![\w-]){where}(?!\d)", text):
                    text = re.sub(rf"(?<![\w-]){where}(?!\d)", self._target(service, port["targetPort"]), text)
        return text

    def _target(self, service: Manifest, port: str) -> str:
        selector = service["spec"]["selector"].items()
        those = [p for p in self.pods if selector <= p.template.labels.items()]
        pod = next((p for p in those if len(those) > 1 and p.leads()), those[0])
        # What listens everywhere is reached at the address that its certificate has; Ray knows its nodes by their own.
        host = pod.address if pod.template.component.startswith("ray") else "127.0.0.1"
        for container in pod.template.containers:
            with contextlib.suppress(StopIteration):
                return f"{host}:{pod.ports[_number(container, port)]}"
        raise AssertionError(port)


def _number(container: dict[str, Any], port: str | int) -> int:
    """A container's port by name or number."""
    return next(int(p["containerPort"]) for p in container.get("ports", ()) if port in {p["name"], p["containerPort"]})


def _family(process: psutil.Popen) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return list(process.children(recursive=True))
    return []


def _until(look: Callable[[], _T | None]) -> _T:
    """What `look` finds, as soon as it finds something."""
    until = time.monotonic() + 10
    while (found := look()) is None:
        if time.monotonic() > until:
            raise TimeoutError
        time.sleep(0.01)
    return found


def _answers(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=2):
        return True
    return False


def _says_ok(host: str, port: int, path: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=2) as answer:
        return bool(answer.status == 200)
    return False


def _healthy(target: str, service: str) -> bool:
    with grpc.insecure_channel(target) as channel, contextlib.suppress(grpc.RpcError):
        request = health_pb2.HealthCheckRequest(service=service)
        answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=2)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
    return False
