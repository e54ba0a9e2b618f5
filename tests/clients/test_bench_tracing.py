"""The figures of `trireme bench tracing`, and its collector; the command itself needs a quiet machine."""

from __future__ import annotations

import random

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from trireme.cli.trace_sink import sink
from trireme.cli.tracing_figures import Turn, figures, median_interval


def test_the_cost_is_found_round_by_round_however_the_machine_changes_its_pace() -> None:
    paces = [10.0, 20.0, 40.0, 10.0, 30.0, 20.0, 10.0]
    turns = [(Turn(pace, 1000 / pace), Turn(0.9 * pace, 1100 / pace)) for pace in paces]
    found = figures(turns, (50.0, 60.0), "p", 1, 64, None, 7)
    assert found.rate_cost == pytest.approx(0.1)
    assert found.rate_cost_95 == pytest.approx((0.1, 0.1))
    assert found.itl_cost == pytest.approx(0.1)
    assert found.noise == pytest.approx(0, abs=1e-12)
    assert found.tokens_per_s_off == 20.0
    assert found.cpu_cost == pytest.approx(10e-6 * 20.0)


def test_a_single_round_has_figures_too() -> None:
    found = figures([(Turn(10, 100), Turn(10, 100))], (1, 1), "p", 1, 64, 0.5, 0)
    assert (found.rate_cost, found.rate_cost_95, found.noise, found.cpu_cost) == (0, (0, 0), 0, 0)


@pytest.mark.parametrize("count", [6, 8, 11, 14, 51])
def test_the_interval_holds_the_median_in_19_of_20_draws(count: int) -> None:
    draw = random.Random(5)
    intervals = [median_interval([draw.gauss(3, 1) for _ in range(count)]) for _ in range(4000)]
    assert 0.945 < sum(low <= 3 <= high for low, high in intervals) / len(intervals) < 0.995


def test_the_interval_of_few_is_their_range() -> None:
    assert median_interval([5.0]) == (5.0, 5.0)
    assert median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0)


def test_the_collector_takes_what_an_exporter_sends_and_nothing_else() -> None:
    with sink() as (taking, endpoint):
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint, insecure=True)))
        provider.get_tracer("test").start_span("one").end()
        provider.shutdown()
        assert taking.batches == 1
        with grpc.insecure_channel(endpoint.removeprefix("http://")) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary("/some.Service/Other")(b"", timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
