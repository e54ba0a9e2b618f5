"""One cluster and one browser for all that look at them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.dashboards.live.browser import chromium
from tests.dashboards.live.cluster import Cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started
