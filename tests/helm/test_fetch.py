"""The init container that brings the model really fetches it, from a web server here, to where the pod reads it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.helm.processes import Network, Pod
from tests.helm.rendering import pods, render

from trireme_worker.pack import Pack, default_pack


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    """Where the bundled pack is served."""
    handler = functools.partial(Quiet, directory=str(default_pack()))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("owner", ["trireme-coordinator", "trireme-worker"])
def test_brings_the_pack_to_where_the_pod_reads_it(url: str, owner: str, tmp_path: Path) -> None:
    model = {"source": "fetch", "fetch": {"url": url}, "path": "tiny", "shape": "700m"}
    network = Network(render({"model": model}), tmp_path)
    (template,) = (p for p in pods(network.manifests) if p.owner == owner)
    network.pods = [Pod(p.owner, p, "127.0.0.2", tmp_path / p.owner, network) for p in pods(network.manifests)]
    pod = next(p for p in network.pods if p.template == template)
    pod.make_volumes()
    assert pod.run(template.container("fetch")) == 0, pod.log("fetch")
    main = template.spec["containers"][0]
    place = pod.localised(main, network.data("ConfigMap", "trireme")["TRIREME_PACK"])
    assert Path(place).parent == pod.folder / "models"
    assert Pack.open(Path(place)).sha256 == Pack.open(default_pack(), verify=False).sha256
