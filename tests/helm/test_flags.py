"""What the chart passes exists: variables are settings, commands and options are those of the programs themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import typer
from tests.helm.rendering import chart, find, pods, render
from tests.helm.test_manifests import CASES

from trireme.cli.app import app
from trireme_coordinator.config import (
    _NOT_OURS,
    DURABILITY,
    KV_DTYPES,
    LAYOUTS,
    SPECULATION,
    ServeConfig,
    from_environment,
)
from trireme_proto.errors import ConfigurationError

RAY_START_PARAMS = {"num-cpus", "include-dashboard", "node-manager-port", "object-store-memory", "temp-dir"} | {
    "disable-usage-stats"
}


def commands(program: str) -> Iterator[list[str]]:
    """Every command line with that program, without it, as it is in any of the cases."""
    for values in CASES.values():
        for pod in pods(render(values)):
            for container in pod.containers:
                line = [*container.get("command", ()), *container.get("args", ())]
                line = line[1:] if line[:1] == ["trireme-entrypoint"] else line
                if line[:1] == [program]:
                    yield line[1:]


@pytest.mark.parametrize("name", CASES)
def test_variables_are_settings(name: str) -> None:
    manifests = render(CASES[name])
    given = find(manifests, "ConfigMap", "trireme")["data"]
    config = from_environment({"redis_url": "redis://:secret@redis"}, given)  # refuses unknown ones and wrong values
    assert (config.stages, config.kv_dtype) == (int(given["TRIREME_STAGES"]), given["TRIREME_KV_DTYPE"])
    fields = {f"TRIREME_{field.name.upper()}" for field in dataclasses.fields(ServeConfig)} | _NOT_OURS
    for pod in pods(manifests):
        for container in pod.containers:
            names = {e["name"] for e in container.get("env", ()) if e["name"].startswith("TRIREME_")}
            assert names <= fields


def test_the_charts_defaults_are_the_coordinators() -> None:
    config = from_environment({}, find(render(), "ConfigMap", "trireme")["data"])
    names = ("prefill_chunk", "kv_dtype", "layout", "speculation", "slots", "queue", "session_ttl", "durability")
    names += ("trace_share", "trace_slow_ms", "trace_buffer_mb")
    assert [getattr(config, name) for name in names] == [getattr(ServeConfig(), name) for name in names]


@pytest.mark.parametrize("bound", ["minimum", "maximum"])
@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("stages", "stages"),
        ("threads", "threads"),
        ("prefillChunk", "prefill_chunk"),
        ("kvTokens", "kv_tokens"),
        ("kvStoreGb", "kv_store_gb"),
        ("slots", "slots"),
        ("queue", "queue"),
        ("sessionTtl", "session_ttl"),
        ("share", "trace_share"),
        ("slowMs", "trace_slow_ms"),
        ("bufferMb", "trace_buffer_mb"),
    ],
)
def test_what_the_schema_lets_through_the_coordinator_takes(value: str, field: str, bound: str) -> None:
    schema = chart().schema
    assert schema is not None
    part = "telemetry" if field.startswith("trace_") else "coordinator"
    number = schema["properties"][part]["properties"][value][bound]
    if (value, number) not in {("stages", 0), ("threads", 0)}:  # 0: the chart computes it
        ServeConfig(**{field: number})
    if bound == "maximum" and value != "kvTokens":
        with pytest.raises(ConfigurationError):
            ServeConfig(**{field: number + 1})  # not tighter than it need be


def test_choices_are_the_coordinators() -> None:
    schema = chart().schema
    assert schema is not None
    properties = schema["properties"]["coordinator"]["properties"]
    choices = {"kvDtype": KV_DTYPES, "layout": LAYOUTS, "speculation": SPECULATION, "durability": DURABILITY}
    assert {name: tuple(properties[name]["enum"]) for name in choices} == choices


METRICS = {f"TRIREME_{name}" for name in ("METRICS_LISTEN", "METRICS_HOSTS", "LOG_FORMAT", "LOG_LEVEL")}
"""Of which the chart may set some."""


def test_every_setting_can_be_set_by_the_chart() -> None:
    given = set()
    for values in CASES.values():
        manifests = render(values)
        given |= set(find(manifests, "ConfigMap", "trireme")["data"])
        (coordinator,) = (p for p in pods(manifests) if p.component == "coordinator")
        given |= {entry["name"] for entry in coordinator.container("coordinator")["env"]}
    fields = {f"TRIREME_{field.name.upper()}" for field in dataclasses.fields(ServeConfig)}
    own = {"TRIREME_DATA_DIR"}  # of a session store that `serve` starts itself
    assert fields - given - METRICS == own


def test_trireme_commands_parse() -> None:
    available = vars(typer.main.get_command(app))["commands"]
    seen = set()
    for name, *rest in commands("trireme"):
        seen.add(name)
        available[name].make_context(name, list(rest))  # refuses unknown options and missing arguments
    assert seen == {"serve", "generate", "fetch"}


def test_ray_commands_parse() -> None:
    from ray.scripts.scripts import cli

    lines = list(commands("ray"))
    assert {line[0] for line in lines} == {"start"}
    for name, *rest in lines:
        cli.commands[name].make_context(name, [arg.replace("$(POD_IP)", "10.0.0.1") for arg in rest])


def test_ray_start_params_of_kuberay_are_options_of_ray_start() -> None:
    from ray.scripts.scripts import cli

    options = {option for param in cli.commands["start"].params for option in param.opts}
    spec = find(render(CASES["kuberay"]), "RayCluster", "trireme")["spec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    given = {name for group in groups for name in group["rayStartParams"]}
    assert given <= RAY_START_PARAMS
    assert {f"--{name}" for name in given} <= options


def test_ray_health_check_takes_an_address() -> None:
    from ray.scripts.scripts import cli

    assert "--address" in {option for param in cli.commands["health-check"].params for option in param.opts}
