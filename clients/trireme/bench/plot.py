"""Runs as a picture: latencies, throughput and the distribution of the first token. Alone knows matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trireme.bench.runs import Run
from trireme_proto.errors import ConfigurationError
from trireme_proto.load import Percentiles


def check_plot(path: Path) -> None:
    """ConfigurationError where no picture could be written to `path`, before anything is measured."""
    try:
        import matplotlib as mpl  # noqa: F401, PLC0415
    except ModuleNotFoundError as error:
        raise ConfigurationError("--plot needs matplotlib: pip install 'trireme-inference[bench]'") from error
    if path.suffix != ".png" or not path.parent.is_dir():
        raise ConfigurationError("--plot takes the name of a .png file in a folder that exists.")


def plot(runs: Sequence[Run], path: Path) -> None:
    """Writes a PNG of four panels."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(11, 8), layout="constrained")
    axes: Any = figure.subplots(2, 2)
    x = [run.rate if run.rate is not None else run.streams or 0 for run in runs]
    unit = "requests/s" if runs[0].rate is not None else "streams"
    _latencies(axes[0][0], x, [run.figures.ttft_s for run in runs], "time to first token, s", unit)
    _latencies(axes[0][1], x, [run.figures.itl_s for run in runs], "inter-token latency, s", unit)
    _rates(axes[1][0], x, runs, unit)
    _distribution(axes[1][1], runs, unit)
    figure.savefig(path, dpi=120)


def _latencies(axes: Any, x: Sequence[float], found: Sequence[Percentiles], title: str, unit: str) -> None:
    for name in ("p50", "p90", "p99"):
        axes.plot(x, [getattr(values, name) for values in found], marker="o", label=name)
    axes.set(title=title, xlabel=unit, ylim=(0, None))
    axes.legend()


def _rates(axes: Any, x: Sequence[float], runs: Sequence[Run], unit: str) -> None:
    axes.plot(x, [run.figures.tokens_per_s for run in runs], marker="o", label="tokens/s")
    if all(run.figures.goodput_per_s is not None for run in runs):
        right = axes.twinx()
        right.plot(x, [run.figures.goodput_per_s for run in runs], marker="s", color="tab:green", label="goodput")
        right.set(ylabel="requests/s within the objective", ylim=(0, None))
    axes.set(title="throughput", xlabel=unit, ylabel="tokens/s", ylim=(0, None))


def _distribution(axes: Any, runs: Sequence[Run], unit: str) -> None:
    for run in runs:
        values = sorted(record.ttft for record in run.records if record.completed)
        shares = [(i + 1) / len(values) for i in range(len(values))]
        label = f"{run.rate:g} {unit}" if run.rate is not None else f"{run.streams} {unit}"
        axes.step(values, shares, where="post", label=label)
    axes.set(title="requests whose first token came within", xlabel="s", ylim=(0, 1))
    axes.legend()
