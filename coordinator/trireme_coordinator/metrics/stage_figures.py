"""Readings of the pipeline and of its stages, from steps and from reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trireme_coordinator.engine import Engine
from trireme_coordinator.metrics.reports import Reports
from trireme_coordinator.metrics.steps import StepMeter
from trireme_coordinator.metrics.values import Readings
from trireme_coordinator.placement import Placed
from trireme_proto.v1 import stage_pb2 as pb

_RESULTS = ("written", "known", "skipped", "fetched", "damaged")


def read_steps(found: Readings, meter: StepMeter, placed: Sequence[Placed]) -> None:
    """What steps told; of stages, those that are there."""
    for phase, steps in meter.steps.items():
        found.put("trireme_pipeline_steps_total", steps, phase)
    found.put("trireme_pipeline_tokens_total", meter.prefill_tokens, "prefill")
    found.put("trireme_pipeline_tokens_total", meter.decode_tokens, "decode")
    found.put("trireme_pipeline_active_seconds_total", meter.active_ns / 1e9)
    found.put("trireme_step_duration_seconds", meter.step_times)
    found.put("trireme_inter_token_latency_seconds", meter.inter_token)
    found.put("trireme_prompt_tokens_total", meter.prompt_tokens)
    found.put("trireme_generation_tokens_total", meter.generation_tokens)
    found.put("trireme_prefix_cache_queries_total", meter.prompt_tokens)
    found.put("trireme_prefix_cache_hits_total", meter.cached_tokens)
    found.put("trireme_drafted_tokens_total", meter.drafted)
    found.put("trireme_accepted_tokens_total", meter.accepted)
    for tenant, tokens in meter.tenants.items():
        found.put("trireme_tenant_tokens_total", tokens.prompt, tenant, "prompt")
        found.put("trireme_tenant_tokens_total", tokens.generation, tenant, "generation")
    for where, stage in zip(placed, meter.stages, strict=False):
        labels = stage_labels(where)
        found.put("trireme_stage_busy_seconds_total", stage.busy_ns / 1e9, *labels)
        found.put("trireme_stage_wait_seconds_total", stage.wait_ns / 1e9, *labels)
        found.put("trireme_stage_bubble_seconds_total", meter.bubble_ns(where.stage) / 1e9, *labels)
        found.put("trireme_stage_hop_seconds", stage.hops, *labels)
        found.put("trireme_stage_weight_bytes_total", stage.weight_bytes, *labels)


def read_pipeline(found: Readings, engine: Engine, *, stalled_s: float, leading: bool) -> None:
    """Its state, and its recoveries."""
    recoveries = engine.recoveries
    found.put("trireme_leading", float(leading))
    found.put("trireme_pipeline_ready", float(engine.ready.is_set()))
    found.put("trireme_pipeline_epoch", engine.epoch)
    found.put("trireme_pipeline_stalled_seconds", stalled_s)
    found.put_all("trireme_recoveries_total", recoveries.tallies)
    for part in ("detection", "rebuild"):
        found.put("trireme_recovery_seconds_total", recoveries.sums[part] / 1e3, part)
    found.put("trireme_recovery_tokens_total", recoveries.sums["tokens"])
    found.put("trireme_recovery_requests_total", recoveries.sums["sequences"])


def read_reports(found: Readings, reports: Reports, bandwidth: Callable[[int], float]) -> None:
    """What stages say about themselves."""
    energy: dict[str, float] = {}
    for where, report in reports:
        labels = stage_labels(where)
        layers = f"{where.layers.start}-{where.layers.stop - 1}"
        found.put("trireme_stage_info", 1, *labels, where.node.address, layers)
        found.put("trireme_stage_up", float(report is not None), *labels)
        if rate := bandwidth(where.stage):
            found.put("trireme_stage_read_bandwidth_bytes_per_second", rate, *labels)
        if report is not None:
            _read_report(found, report, labels)
            if report.HasField("energy_uj"):
                energy[labels[1]] = max(energy.get(labels[1], 0.0), report.energy_uj / 1e6)
    for node, joules in energy.items():
        found.put("trireme_node_energy_joules_total", joules, node)
    if answers := [report for _, report in reports if report is not None]:
        found.put("trireme_kv_pages_used", max(report.kv_pages_used for report in answers))


def stage_labels(where: Placed) -> tuple[str, str]:
    """`stage` and `node`."""
    return str(where.stage), where.node.name


def _read_report(found: Readings, report: pb.ReportResponse, labels: tuple[str, str]) -> None:
    found.put("trireme_stage_resident_memory_bytes", report.rss_bytes, *labels)
    found.put("trireme_stage_kv_pages_used", report.kv_pages_used, *labels)
    found.put("trireme_stage_kv_pages_capacity", report.kv_pages_total, *labels)
    found.put("trireme_stage_slots_used", report.slots_used, *labels)
    found.put("trireme_stage_integrity_ok", float(not report.integrity_error), *labels)
    for result in _RESULTS:
        found.put("trireme_page_store_pages_total", getattr(report.pages, result), *labels, result)
    found.put("trireme_page_store_failures_total", report.pages.failures, *labels)
    found.put("trireme_page_store_waiting_bytes", report.pages.waiting_bytes, *labels)
    found.put("trireme_page_store_fetched_bytes", report.pages.fetched_bytes, *labels)
