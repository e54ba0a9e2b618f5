"""Names of spans and attributes: the GenAI semantic conventions of OpenTelemetry where they have a word, else ours.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/. Of a request they say how much and how long, never
what: there is no name here for a prompt, an answer, a stop text or a session id (who knows one may use the session).
"""

from __future__ import annotations

REQUEST = "generate"
TOKENIZE = "tokenize"
QUEUE = "queue"
PREFILL = "prefill"
DECODE = "decode"

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_ID = "gen_ai.response.id"
MAX_TOKENS = "gen_ai.request.max_tokens"
TEMPERATURE = "gen_ai.request.temperature"
TOP_K = "gen_ai.request.top_k"
TOP_P = "gen_ai.request.top_p"
SEED = "gen_ai.request.seed"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
TTFT = "gen_ai.response.time_to_first_chunk"
"""Seconds."""
ERROR_TYPE = "error.type"
GRPC_STATUS = "rpc.grpc.status_code"

STAGE = "trireme.stage"
FIRST_LAYER = "trireme.first_layer"
END_LAYER = "trireme.end_layer"
FRAMES = "trireme.frames"
TOKENS = "trireme.tokens"
RECOMPUTED_TOKENS = "trireme.recomputed_tokens"
"""Tokens that were prefilled again in the middle of an answer, after a stage was lost."""
DRAFTED_TOKENS = "trireme.drafted_tokens"
"""Tokens of the answer that were guessed before they were computed."""
ACCEPTED_TOKENS = "trireme.accepted_tokens"
"""Guesses that were right."""
WIRE_MS = "trireme.wire_ms"
WAIT_MS = "trireme.wait_ms"
COMPUTE_MS = "trireme.compute_ms"
