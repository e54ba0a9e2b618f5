"""A real Prometheus on a free port of loopback, with the project's rules, that scrapes what it is given each second."""

from __future__ import annotations

import json
import math
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from tests.dashboards.files import RULES
from tests.support.coordinator_processes import free_ports

_START_SECONDS = 30.0


class Prometheus:
    """Context manager. `targets`: addresses whose `/metrics` is scraped, as one job."""

    def __init__(self, folder: Path, targets: list[str]) -> None:
        self._folder = folder
        self._config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in RULES],
            "scrape_configs": [{"job_name": "trireme", "static_configs": [{"targets": targets}]}],
        }
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"

    def __enter__(self) -> Self:
        config = self._folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(self._config))
        command = [
            "prometheus", f"--config.file={config}", f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address={self.address}", "--log.level=warn",
        ]  # fmt: skip
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)
        try:
            self._until_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(30)

    def series(self, query: str, seconds: float) -> list[list[float]]:
        """Values of each series of a query over the last `seconds`, those that are no numbers left out."""
        end = time.time()
        found = self._get("query_range", query=query, start=str(end - seconds), end=str(end), step="1")
        numbers = [[float(value) for _, value in each["values"]] for each in found["result"]]
        return [kept for values in numbers if (kept := [v for v in values if not math.isnan(v)])]

    def labels(self, name: str, label: str) -> set[str]:
        """Values of a label of the series of a name: what a variable of a dashboard has to choose from."""
        return {each[label] for each in self._get("series", **{"match[]": name}) if label in each}

    def names(self) -> set[str]:
        """Names of all series."""
        return set(self._get("label/__name__/values"))

    def alerts(self) -> dict[str, str]:
        """State of each alert that is not quiet: `pending` or `firing`."""
        return {each["labels"]["alertname"]: each["state"] for each in self._get("alerts")["alerts"]}

    def targets(self) -> list[dict[str, Any]]:
        """What is scraped, and how that went."""
        return self._get("targets")["activeTargets"]

    def _get(self, what: str, **parameters: str) -> Any:
        url = f"http://{self.address}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def _until_ready(self) -> None:
        until = time.monotonic() + _START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=1):
                    return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError((self._folder / "prometheus.log").read_text()) from None
                time.sleep(0.05)
