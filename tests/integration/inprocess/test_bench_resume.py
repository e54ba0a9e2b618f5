"""`trireme bench resume`: a real pipeline and a real Valkey; what must hold however busy the machine is."""

from __future__ import annotations

import json

import pytest

from trireme_coordinator.commands import bench_resume
from trireme_proto.errors import ConfigurationError
from trireme_worker.pack import default_pack


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    options = {"stages": 2, "threads": 1, "rounds": 1, "kv": "float16", "tokens": 200}
    bench_resume(str(default_pack()), **options, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["stages"], found["tokens"], found["restored_tokens"]) == (2, 200, 192)
    assert found["bytes"] > 0
    assert found["ttft_prefill_s"] > 0
    assert found["ttft_restore_s"] > found["fetch_s"] > 0
    assert found["speedup"] == pytest.approx(found["ttft_prefill_s"] / found["ttft_restore_s"])
    assert found["quicker"] in {"restore", "prefill"}
    bench_resume(str(default_pack()), **options)
    assert "192 tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": 5000}, "tokens is 5000; with the context of this model"),
        ({"stages": 60}, "stages is 60; this model"),
    ],
)
def test_mistakes(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        bench_resume(str(default_pack()), **{"stages": 1, "threads": 1, "rounds": 1, "tokens": 200} | options)
