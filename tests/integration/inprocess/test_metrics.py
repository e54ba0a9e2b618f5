"""What /metrics says after real requests through real stages, read with Prometheus' own parser."""

from __future__ import annotations

import asyncio
import logging

import grpc
import pytest
from tests.support.listeners import Answer
from tests.support.metered import metered
from tests.support.pipeline import local_pipeline
from tests.support.serving import identity
from tests.support.waiting import eventually

from trireme import errors
from trireme_coordinator.metrics.catalogue import FAMILIES
from trireme_coordinator.store import MemoryRequestStore
from trireme_proto.v1 import inference_pb2
from trireme_proto.v1.inference_pb2_grpc import InferenceStub
from trireme_worker.logs import ConsoleFormatter, JsonFormatter
from trireme_worker.pack import Pack

CANARY = "xylophonequark"
PROMPT = f"Once upon a time, {CANARY}"


async def test_counts_what_requests_did(pack: Pack) -> None:
    async with local_pipeline(pack, 3, speculation=False) as local, metered(local, _store(pack)) as found:
        client = found.served.client
        answers = await asyncio.gather(
            *(client.generate(PROMPT, max_tokens=12, temperature=0, ignore_eos=True).result() for _ in range(3))
        )
        prompt = sum(answer.usage.prompt_tokens for answer in answers)
        seen = await found.scrape()
    assert seen.value("trireme_requests_total", code="OK", reason="length") == 3
    assert seen.value("trireme_calls_total", method="Inference/Generate", code="OK") == 3
    assert seen.value("trireme_generation_tokens_total") == 36
    assert seen.value("trireme_prompt_tokens_total") == prompt
    assert seen.value("trireme_tenant_tokens_total", tenant="default", kind="generation") == 36
    assert seen.value("trireme_inter_token_latency_seconds_count") == 33
    assert seen.total("gen_ai_server_time_to_first_token_seconds_count") == 3
    assert seen.total("gen_ai_server_time_per_output_token_seconds_count") == 3
    assert seen.value("trireme_request_queue_seconds_count") == 3
    assert seen.value("trireme_request_prefill_seconds_count") == 3
    first, whole = (
        seen.total(f"gen_ai_server_{name}_seconds_sum") for name in ("time_to_first_token", "request_duration")
    )
    assert 0 < first < whole
    assert seen.value("trireme_inter_token_latency_seconds_sum") < whole - first + 0.001
    assert seen.value("trireme_session_stored_tokens_total") == 36  # prompts were stored as the requests began


async def test_tells_of_each_stage(pack: Pack) -> None:
    async with local_pipeline(pack, 3, speculation=False) as local, metered(local, _store(pack)) as found:
        await found.served.client.generate(PROMPT, max_tokens=20, temperature=0, ignore_eos=True).result()
        await found.bandwidths.look()
        seen = await found.scrape()
    active = seen.value("trireme_pipeline_active_seconds_total")
    steps = seen.total("trireme_pipeline_steps_total")
    assert active > 0
    assert seen.value("trireme_pipeline_ready") == 1
    for i in range(3):
        labels = {"stage": str(i), "node": f"node-{i}"}
        busy, bubble = (seen.value(f"trireme_stage_{name}_seconds_total", **labels) for name in ("busy", "bubble"))
        assert 0 < busy < active
        assert busy + bubble == pytest.approx(active)
        assert seen.value("trireme_stage_hop_seconds_count", **labels) == steps
        assert seen.value("trireme_stage_up", **labels) == 1
        assert seen.value("trireme_stage_resident_memory_bytes", **labels) > 1e6
        assert seen.value("trireme_stage_read_bandwidth_bytes_per_second", **labels) > 1e8
        assert seen.value("trireme_stage_integrity_ok", **labels) == 1
        assert seen.value("trireme_stage_weight_bytes_total", **labels) > steps * 1e5
    assert seen.value("trireme_stage_info", stage="2", node="node-2", ip="127.0.0.1", layers="4-5") == 1


async def test_every_series_is_of_the_catalogue(pack: Pack) -> None:
    async with local_pipeline(pack, 1) as local, metered(local, _store(pack)) as found:
        await found.served.client.generate(PROMPT, max_tokens=2).result()
        seen = await found.scrape()
    known = {name.removesuffix("_total"): family for name, family in FAMILIES.items()}
    for name, family in seen.families.items():
        assert family.type == known[name].kind
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(known[name].labels), sample
    missing = set(known) - set(seen.families)
    assert {name.split("_")[1] for name in missing} <= {"redis", "ray", "node", "stage", "recoveries"}, missing


async def test_refused_and_broken_off_calls_are_counted(pack: Pack) -> None:
    async with local_pipeline(pack, 1) as local, metered(local, _store(pack)) as found:
        with pytest.raises(errors.InvalidRequest):
            await found.served.client.generate(PROMPT, temperature=1e6).result()
        async with found.served.client.generate(PROMPT, max_tokens=150, ignore_eos=True) as stream:
            await anext(stream)

        async def counted() -> bool:
            return bool((await found.scrape()).total("trireme_requests_total"))

        await eventually(counted)
        seen = await found.scrape()
    assert seen.value("trireme_requests_total", code="CANCELLED", reason="CANCELLED") == 1
    assert seen.value("trireme_calls_total", method="Inference/Generate", code="CANCELLED") == 1
    assert seen.value("trireme_calls_total", method="Inference/Generate", code="INVALID_ARGUMENT") == 1


async def test_cardinality_is_bounded(pack: Pack) -> None:
    """Whatever callers send, beyond the first few hundred there are no more series."""
    async with local_pipeline(pack, 1) as local, metered(local, _store(pack)) as found:
        await found.served.client.generate("x", max_tokens=2, temperature=0).result()
        async with grpc.aio.insecure_channel(found.served.client.target) as channel:
            for i in range(20):
                with pytest.raises(grpc.aio.AioRpcError):
                    await channel.unary_unary(f"/trireme.v1.Inference/{CANARY}{i}")(b"")
                request = inference_pb2.GenerateRequest(text="x", session_id=f"{CANARY}{i}", request_id=f"{CANARY}{i}")
                with pytest.raises(grpc.aio.AioRpcError):
                    await InferenceStub(channel).Generate(request).read()
        for i in range(300):
            local.submit([0, 300], 1, tenant=f"{CANARY}-{i}", answer=Answer())
            if i % 30 == 29:
                await asyncio.gather(*(answer.done() for _, answer in local.answers[-30:]))
        many = await found.scrape()
        local.submit([0, 300], 1, tenant="another", answer=(answer := Answer()))
        await answer.done()
        more = await found.scrape()
    assert more.series == many.series < 700
    assert more.total("trireme_tenant_tokens_total") == more.value("trireme_generation_tokens_total") + more.value(
        "trireme_prompt_tokens_total"
    )
    assert more.value("trireme_tenant_tokens_total", tenant="other", kind="generation") > 200
    assert more.value("trireme_metrics_folded_total") > 200


async def test_no_content_in_metrics_or_logs(pack: Pack, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with local_pipeline(pack, 2) as local, metered(local, _store(pack)) as found:
        answer = await found.served.client.generate(PROMPT, max_tokens=30, stop=CANARY).result()
        with pytest.raises(errors.SessionNotFound):
            await found.served.client.generate(PROMPT, session=f"session-{CANARY}").result()
        seen = await found.scrape()
    lines = [form().format(record) for record in caplog.records for form in (JsonFormatter, ConsoleFormatter)]
    assert any("a request ended" in line for line in lines)
    for content in (CANARY, answer.session_id, *_pieces(answer.text)):
        assert content not in seen.text
        assert not [line for line in lines if content in line]


def _pieces(text: str) -> list[str]:
    return [text[i : i + 12] for i in range(0, len(text) - 12, 12)]


def _store(pack: Pack) -> MemoryRequestStore:
    return MemoryRequestStore(identity(pack))
