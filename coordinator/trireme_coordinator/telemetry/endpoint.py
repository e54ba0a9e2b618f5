"""Where traces go, from OpenTelemetry's standard variables: looked at here as far as they decide whether and how; the
others (headers, certificates, compression) are read by the library itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from opentelemetry.sdk.trace.export import SpanExporter

from trireme_proto.errors import ConfigurationError

GRPC, HTTP = "grpc", "http/protobuf"
_TRACES_PATH = "/v1/traces"


def exporter_of(endpoint: str | None, environment: Mapping[str, str], seconds: float) -> SpanExporter | None:
    """An exporter that gives up on a batch after so long; None where traces go nowhere. ConfigurationError for an
    endpoint or a protocol that is no use.
    """
    off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if off or (environment.get("OTEL_TRACES_EXPORTER", "otlp") == "none" and not endpoint):
        return None
    own = endpoint or environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    target = own or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not target:
        return None
    protocol = environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    match protocol or GRPC:
        case "grpc":
            from opentelemetry.exporter.otlp.proto.grpc import trace_exporter  # noqa: PLC0415  only one of them is used

            return trace_exporter.OTLPSpanExporter(endpoint=_checked(target), timeout=seconds)
        case "http/protobuf":
            from opentelemetry.exporter.otlp.proto.http import trace_exporter as over_http  # noqa: PLC0415

            url = _checked(target) if own else _checked(target).rstrip("/") + _TRACES_PATH
            return over_http.OTLPSpanExporter(endpoint=url, timeout=seconds)
        case _:
            raise ConfigurationError(f"OTEL_EXPORTER_OTLP_PROTOCOL must be {GRPC} or {HTTP}.")


def _checked(endpoint: str) -> str:
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError("The OTLP endpoint must look like http://HOST:4317 or https://HOST:4317.")
    return endpoint
