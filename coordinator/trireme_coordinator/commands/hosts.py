"""`trireme up`, `trireme down` and `trireme units`: a cluster on plain hosts, over SSH."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer

_File = Annotated[Path, typer.Argument(metavar="HOSTS.YAML", help="The hosts and what they are to run.")]
_Chosen = Annotated[
    list[str] | None, typer.Option("--host", help="Only this host, by name; may be given several times.")
]
_Dry = Annotated[bool, typer.Option("--dry-run", help="Change nothing; print the commands.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout in the end.")]


def up(
    hosts: _File,
    host: _Chosen = None,
    install: Annotated[
        str | None,
        typer.Option(metavar="WHEEL_OR_REQUIREMENT", help="Make an environment with it on each host first, by pip."),
    ] = None,
    wheelhouse: Annotated[
        Path | None, typer.Option(help="Folder of wheels to copy and install from: nothing is downloaded.")
    ] = None,
    dry_run: _Dry = False,
    as_json: _Json = False,
) -> None:
    """Bring a cluster up over SSH, or change it to what the file says now.

    What runs as the file says is left alone; what differs is changed, with its reason. A host that cannot take part is
    reported and left out.
    """
    from trireme_coordinator.hosts.install import read_installation
    from trireme_proto.errors import ConfigurationError

    if wheelhouse is not None and install is None:
        raise ConfigurationError("--wheelhouse goes with --install.")
    installation = None if install is None else read_installation(install, wheelhouse)
    rollout = _rollout(hosts, host, dry_run)
    asyncio.run(rollout.up(installation))
    _end(rollout, as_json, dry_run)


def down(
    hosts: _File,
    host: _Chosen = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove the folder on the hosts, too: sessions, secrets, logs.")
    ] = False,
    dry_run: _Dry = False,
    as_json: _Json = False,
) -> None:
    """Stop exactly what `trireme up` started: coordinators once their answers have ended, then the Ray nodes."""
    rollout = _rollout(hosts, host, dry_run)
    asyncio.run(rollout.down(purge=purge))
    _end(rollout, as_json, dry_run)


def units(
    hosts: _File,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder for each host is made in it.")],
    python: Annotated[str, typer.Option(help="Python with Trireme in it, on the hosts.")] = "/opt/trireme/bin/python",
    user: Annotated[str, typer.Option(help="User that the services run as.")] = "trireme",
) -> None:
    """Write systemd units for each host, hardened, for those who prefer them to `trireme up`."""
    from trireme_coordinator.hosts.hosts_file import read_hosts
    from trireme_coordinator.hosts.units import write_units

    for path in write_units(read_hosts(hosts), _files(read_hosts(hosts)), folder, python, user):
        print(path)


def _rollout(file: Path, chosen: list[str] | None, dry: bool) -> Any:
    from trireme_coordinator.hosts import ssh
    from trireme_coordinator.hosts.hosts_file import read_hosts
    from trireme_coordinator.hosts.outcome import Report
    from trireme_coordinator.hosts.rollout import Rollout
    from trireme_proto.errors import ConfigurationError

    hosts = read_hosts(file)
    names = [each.name for each in hosts.hosts]
    if unknown := [name for name in chosen or () if name not in names]:
        raise ConfigurationError(f"The hosts file has no host '{unknown[0][:64]}'.")
    return Rollout(hosts, _files(hosts), Report(names), ssh.call, chosen=chosen or (), dry=dry)


def _files(hosts: Any) -> Any:
    from trireme_coordinator.hosts.local_files import read_files

    return read_files(hosts)


def _end(rollout: Any, as_json: bool, dry: bool) -> None:
    """The summary, and exit code 1 where a host failed."""
    report = rollout.report
    if as_json:
        print(json.dumps(report.json() | {"dry_run": dry, "targets": rollout.targets}))
    else:
        print("\n".join(report.summary()))
    if report.failures:
        raise typer.Exit(1)
