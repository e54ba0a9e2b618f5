from __future__ import annotations

import json
from pathlib import Path

import pytest

from trireme_coordinator.hosts import hosts_file
from trireme_coordinator.hosts.hosts_file import read_hosts
from trireme_coordinator.hosts.serve_options import arguments, known
from trireme_proto.errors import ConfigurationError

ONE = {"hosts": [{"host": "10.0.0.1", "roles": ["coordinator", "worker"]}]}


def written(folder: Path, value: object) -> Path:
    path = folder / "hosts.yaml"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_the_example_of_the_documentation_is_read(tmp_path: Path) -> None:
    for name in ("redis-url", "tls.crt", "tls.key", "ca.crt", "redis-ca.crt", "keys.json"):
        (tmp_path / name).write_text("x")
    (tmp_path / "stage-tls").mkdir()
    lines = (hosts_file.__doc__ or "").splitlines()
    example = "\n".join(line.removeprefix("    ") for line in lines if line.startswith("    "))
    found = read_hosts(written(tmp_path, example))
    assert [(h.name, h.address, h.ram_gb, h.cpus) for h in found.hosts] == [
        ("10.0.0.1", "10.0.0.1", None, ""),
        ("10.0.0.2", "10.0.0.2", 60.0, "0-15"),
        ("big", "10.0.0.3", None, ""),
    ]
    assert found.hosts[2].ssh.user == "me"
    assert found.hosts[0].ssh == hosts_file.Ssh("trireme", 22, "~/.ssh/id_ed25519", ("ProxyJump=bastion",))
    assert found.hosts[2].environment == {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://10.0.0.9:4317",
        "MALLOC_ARENA_MAX": "2",
    }
    assert found.serve == {"stages": 2, "threads": 16, "kv_dtype": "int8"}
    assert found.ports == hosts_file.Ports(50051, 6379, 6380, 6381, (20000, 20999))


def test_little_is_needed(tmp_path: Path) -> None:
    found = read_hosts(written(tmp_path, ONE))
    assert found.coordinators == found.workers == found.hosts
    assert (found.name, found.model, found.folder) == ("trireme", "", "~/.trireme/trireme")


HOST = {"host": "10.0.0.1", "roles": ["coordinator", "worker"]}


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("hosts: [", "The hosts file is not valid YAML in line 1."),
        ("a: &x 1\nb: *x", "The hosts file uses YAML aliases (*name); write everything out."),
        ("name: a\nname: b", "The hosts file says 'name' twice in one place."),
        ("- 1", "The hosts file is not a mapping of keys to values."),
        ({}, "The hosts file: 'hosts' is not a list of 1 to 512 entries."),
        (ONE | {"host": 1}, "The hosts file: 'host' is unknown; it knows name, model, "),
        ({"hosts": [{"roles": ["worker"]}]}, "The hosts file, host 1: host is missing."),
        ({"hosts": [{"host": "-oProxyCommand=x"}]}, "The hosts file, host 1: host is '-oProxyCommand=x', which it"),
        ({"hosts": [{"host": "a.example"}]}, "The hosts file, host 1: give its IP address, as the other hosts see it"),
        ({"hosts": [HOST | {"host": "127.0.0.1"}]}, "The hosts file, host 1: the address 127.0.0.1 is none that Ray"),
        ({"hosts": [HOST, HOST]}, "The hosts file has two hosts with the name '10.0.0.1'."),
        ({"hosts": [HOST, HOST | {"name": "b"}]}, "The hosts file has two hosts with the host '10.0.0.1'."),
        ({"hosts": [HOST | {"roles": ["boss"]}]}, "The hosts file, host 1: roles are 'coordinator' and 'worker'."),
        ({"hosts": [{"host": "10.0.0.1"}]}, "No host has the role coordinator; one needs 'roles: [coordinator]'."),
        ({"hosts": [HOST | {"roles": ["coordinator"]}]}, "No host has the role worker, so that there is no place"),
        ({"hosts": [HOST, HOST | {"host": "10.0.0.2"}]}, "Several coordinators need one Redis: give its URL with "),
        ({"hosts": [HOST | {"ram_gb": "much"}]}, "The hosts file, host 1: ram_gb must be a number from 0.1 to 1e+06."),
        ({"hosts": [HOST | {"cpus": "all"}]}, "The hosts file, host 1: cpus is 'all', which it cannot be."),
        ({"hosts": [HOST | {"port": 0x10000}]}, "The hosts file, host 1: port must be a whole number from 1 to 65535."),
        (ONE | {"ssh": {"options": ["-v"]}}, "The hosts file, 'ssh': the ssh option '-v' is not NAME=VALUE."),
        (ONE | {"ssh": {"password": "x"}}, "The hosts file, 'ssh': 'password' is unknown; it knows user, port, key, "),
        (ONE | {"environment": {"A B": "x"}}, "The hosts file, 'environment': 'A B' is not the name of an environment"),
        (ONE | {"serve": {"stagse": 2}}, "'trireme serve' has no option --stagse."),
        (ONE | {"serve": {"stages": "2"}}, "serve: stages must be a whole number."),
        (ONE | {"serve": {"listen": "x"}}, "'serve: {listen: ...}' is given with 'ports' in a hosts file."),
        (ONE | {"serve": {"redis-url": "x"}}, "'serve: {redis-url: ...}' is given with 'redis: {url-file: FILE}' in"),
        (ONE | {"serve": {"kv-store-gb": 2}}, "'serve: {kv-store-gb: ...}' needs a Redis: 'redis: {url-file: FILE}'."),
        (ONE | {"ports": {"workers": "9-8"}}, "The hosts file, 'ports': workers is '9-8'; it must be a range such as"),
        (ONE | {"tls": {"cert": "no"}}, "The hosts file, 'tls': the file of cert is not there."),
        (ONE | {"tls": {"cert": "hosts.yaml"}}, "'tls' has one of cert and key; it takes both."),
        (ONE | {"name": "../x"}, "The hosts file: name is '../x', which it cannot be."),
        (ONE | {"folder": "a\nb"}, "The hosts file: folder is too long or has characters that cannot be printed."),
    ],
)
def test_each_mistake_is_a_sentence(tmp_path: Path, value: object, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_hosts(written(tmp_path, value))
    assert caught.value.message.startswith(sentence)


def test_a_file_that_is_not_there_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"The hosts file 'none' cannot be read: No such file or directory\."):
        read_hosts(tmp_path / "none")
    with pytest.raises(ConfigurationError, match="The hosts file is larger than"):
        read_hosts(written(tmp_path, "#" * (1 << 20)))


def test_options_of_serve_are_those_of_the_command() -> None:
    assert {"stages", "threads", "kv_dtype", "drain_seconds"} <= known().keys()
    assert arguments({"threads": 2, "kv_dtype": "int8", "loud": True, "soft": False}) == [
        "--kv-dtype", "int8", "--loud", "--threads", "2",
    ]  # fmt: skip
