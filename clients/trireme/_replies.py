"""Reply messages to the values that users get. Both clients use it, so that nothing is written twice."""

from __future__ import annotations

from datetime import UTC

from trireme.cluster import (
    LeftOutNode,
    Load,
    Model,
    PlacementChange,
    PlacementFigures,
    PlacementPreview,
    PlannedStage,
    Recovery,
    Stage,
    Status,
)
from trireme.profiles import Profile, ProfiledStage
from trireme.results import FinishReason, Session, Usage
from trireme_proto.v1 import cluster_pb2 as cluster
from trireme_proto.v1 import inference_pb2 as inference
from trireme_proto.v1 import sessions_pb2 as sessions

_REASONS = {
    inference.FINISH_REASON_EOS: FinishReason.EOS,
    inference.FINISH_REASON_STOP: FinishReason.STOP,
    inference.FINISH_REASON_LENGTH: FinishReason.LENGTH,
    inference.FINISH_REASON_CONTEXT: FinishReason.CONTEXT,
}


def finish_reason(number: inference.FinishReason.ValueType) -> FinishReason:
    """The word for a reason; UNKNOWN for one that a newer server made up."""
    return _REASONS.get(number, FinishReason.UNKNOWN)


def usage(message: inference.Usage) -> Usage:
    """Token counts of a request."""
    return Usage(message.prompt_tokens, message.completion_tokens, message.cached_tokens)


def session(message: sessions.Session, *, with_tokens: bool = False) -> Session:
    """A session; its tokens only where they were asked for."""
    return Session(
        session_id=message.session_id,
        created=message.created.ToDatetime(UTC),
        last_used=message.last_used.ToDatetime(UTC),
        expires=message.expires.ToDatetime(UTC),
        token_count=message.token_count,
        model=message.model,
        token_ids=tuple(message.token_ids) if with_tokens else None,
        missing_tokens=message.missing_tokens,
    )


def status(message: cluster.StatusResponse) -> Status:
    """The state of server and pipeline."""
    return Status(
        model=_model(message.model),
        stages=tuple(map(_stage, message.stages)),
        load=_load(message.load),
        epoch=message.epoch,
        ready=message.ready,
        version=message.version,
        session_store_ok=message.session_store_ok,
        leading=message.leading,
        leader=message.leader,
        reason=message.reason,
        recoveries=message.recoveries,
        last_recovery=_recovery(message.last_recovery) if message.HasField("last_recovery") else None,
    )


def profile(message: cluster.ProfileResponse) -> Profile:
    """What holds the pipeline back."""
    return Profile(
        seconds=message.seconds,
        bottleneck=message.bottleneck,
        stage=message.stage if message.HasField("stage") else None,
        advice=message.advice,
        stages=tuple(map(_profiled, message.stages)),
        steps=message.steps,
        tokens=message.tokens,
        active=message.active,
        step_seconds=message.step_seconds,
        other_seconds=message.other_seconds,
        load=_load(message.load),
        slots=message.slots,
    )


def _profiled(message: cluster.ProfiledStage) -> ProfiledStage:
    return ProfiledStage(
        stage=message.stage,
        node=message.node,
        first_layer=message.first_layer,
        end_layer=message.end_layer,
        busy=message.busy,
        bubble=message.bubble,
        compute_seconds=message.compute_seconds,
        wait_seconds=message.wait_seconds,
        wire_seconds=message.wire_seconds,
        read_bytes_per_s=message.read_bytes_per_s,
        bandwidth_bytes_per_s=message.bandwidth_bytes_per_s,
    )


def _recovery(message: cluster.Recovery) -> Recovery:
    return Recovery(
        cause=message.cause,
        stages=tuple(message.stages),
        method=message.method,
        detection_seconds=message.detection_seconds,
        rebuild_seconds=message.rebuild_seconds,
        sequences=message.sequences,
        tokens=message.tokens,
    )


def _model(message: cluster.Model) -> Model:
    return Model(
        name=message.name,
        pack_sha256=message.pack_sha256,
        layers=message.layers,
        hidden_size=message.hidden_size,
        vocabulary=message.vocabulary,
        context=message.context,
        layout=message.layout,
        parameters=message.parameters,
    )


def _stage(message: cluster.StageStatus) -> Stage:
    return Stage(
        stage=message.stage,
        first_layer=message.first_layer,
        end_layer=message.end_layer,
        node=message.node,
        threads=message.threads,
        kv_pages_total=message.kv_pages_total,
        kv_pages_used=message.kv_pages_used,
        slots_used=message.slots_used,
        integrity_ok=message.integrity_ok,
        rss_bytes=message.rss_bytes,
        steps=message.steps,
        busy_seconds=message.busy_seconds,
    )


def _load(message: cluster.Load) -> Load:
    return Load(
        running=message.running,
        waiting=message.waiting,
        queue_limit=message.queue_limit,
        kv_pages_reserved=message.kv_pages_reserved,
        kv_pages_total=message.kv_pages_total,
        sessions_cached=message.sessions_cached,
    )


def placement(message: cluster.PreviewPlacementResponse) -> PlacementPreview:
    """A plan."""
    return PlacementPreview(
        stages=tuple(map(_planned, message.stages)),
        left_out=tuple(LeftOutNode(each.node, each.reason, each.spare) for each in message.left_out),
        figures=_figures(message.figures),
        what_if=tuple(map(_change, message.what_if)),
    )


def _planned(message: cluster.PlannedStage) -> PlannedStage:
    return PlannedStage(
        node=message.node,
        first_layer=message.first_layer,
        end_layer=message.end_layer,
        step_seconds=message.step_seconds,
        ram_bytes=message.ram_bytes,
        kv_tokens=message.kv_tokens,
    )


def _figures(message: cluster.PlacementFigures) -> PlacementFigures:
    return PlacementFigures(
        message.tokens_per_s_single, message.tokens_per_s_aggregate, message.ttft_seconds, message.kv_tokens
    )


def _change(message: cluster.PlacementChange) -> PlacementChange:
    figures = _figures(message.figures) if message.HasField("figures") else None
    return PlacementChange(message.add, message.node, figures)
