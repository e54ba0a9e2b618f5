"""What a model is: its sizes and the few choices that tell the families apart.

Owns the ranges within which kernels may trust a configuration, and the number of parameters that it implies. Knows
nothing of files; where a configuration comes from is the reader's or the converter's business.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

from trireme_worker.pack.jsontext import Fields, Malformed

Activation = Literal["relu2", "silu"]

SCALE_ROWS = 16
"""Rows of a packed matrix that share one scale: query, key, value and feed-forward sizes are multiples of it."""
MAX_LAYERS = 1024
MAX_WIDTH = 1 << 17
MAX_HEADS = 4096
MAX_HEAD_DIM = 1024
MAX_VOCABULARY = 1 << 22
MAX_CONTEXT = 1 << 20
MAX_EOS = 64
_MAX_NAME = 128


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A ternary transformer. `from_json` is the way in from a file: it checks every type, range and relation."""

    name: str
    """For people: status, logs, traces. 1 to 128 printable characters."""
    layers: int
    hidden_size: int
    ffn_size: int
    """Width of the feed-forward block, a multiple of 16."""
    heads: int
    kv_heads: int
    """Heads of keys and values; each serves heads / kv_heads query heads (grouped-query attention)."""
    head_dim: int
    """Even; heads * head_dim and kv_heads * head_dim are multiples of 16."""
    vocabulary: int
    context: int
    """Most positions of one sequence."""
    norm_eps: float
    rope_theta: float
    activation: Activation
    """relu2: max(gate, 0)^2 * up (BitNet); silu: gate * sigmoid(gate) * up (Llama)."""
    sub_norms: bool
    """RMSNorms before the output and the down projection (BitNet); ternary Llama models have none."""
    tied_head: bool
    """The head is the embedding table."""
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    parameters: int
    """Weights of the model, embeddings, head and norms included."""

    @property
    def query_size(self) -> int:
        """Rows of the query projection: heads * head_dim."""
        return self.heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Rows of the key projection, and of the value projection: kv_heads * head_dim."""
        return self.kv_heads * self.head_dim

    @property
    def ternary_parameters(self) -> int:
        """Weights that are -1, 0 or 1: those of all projections of all layers."""
        attention = 2 * self.query_size + 2 * self.kv_size
        return self.layers * self.hidden_size * (attention + 3 * self.ffn_size)

    def counted_parameters(self) -> int:
        """What `parameters` must be: the sum over all tensors that the sizes imply."""
        tables = self.vocabulary * self.hidden_size * (1 if self.tied_head else 2)
        sub_norms = self.query_size + self.ffn_size if self.sub_norms else 0
        norms = self.layers * (2 * self.hidden_size + sub_norms) + self.hidden_size
        return tables + norms + self.ternary_parameters

    @classmethod
    def from_json(cls, value: object) -> ModelConfig:
        """The configuration in a JSON object. Malformed names the first field that is missing, unknown or wrong."""
        fields = Fields(value, "config.")
        vocabulary = fields.integer("vocabulary", 1, MAX_VOCABULARY)
        config = cls(
            name=fields.text("name", is_name, f"1 to {_MAX_NAME} printable characters"),
            layers=fields.integer("layers", 1, MAX_LAYERS),
            hidden_size=fields.integer("hidden_size", 1, MAX_WIDTH),
            ffn_size=fields.integer("ffn_size", 1, MAX_WIDTH),
            heads=fields.integer("heads", 1, MAX_HEADS),
            kv_heads=fields.integer("kv_heads", 1, MAX_HEADS),
            head_dim=fields.integer("head_dim", 2, MAX_HEAD_DIM),
            vocabulary=vocabulary,
            context=fields.integer("context", 1, MAX_CONTEXT),
            norm_eps=fields.number("norm_eps", 1e-12, 1.0),
            rope_theta=fields.number("rope_theta", 1.0, 1e12),
            activation=cast("Activation", fields.choice("activation", ("relu2", "silu"))),
            sub_norms=fields.boolean("sub_norms"),
            tied_head=fields.boolean("tied_head"),
            bos_token_id=fields.integer_or_null("bos_token_id", 0, vocabulary - 1),
            eos_token_ids=fields.integers("eos_token_ids", 0, vocabulary - 1, MAX_EOS),
            parameters=fields.integer("parameters", 1, 1 << 50),
        )
        fields.finish()
        config.check()
        return config

    def check(self) -> None:
        """Malformed where the sizes contradict each other."""
        if self.heads % self.kv_heads:
            raise Malformed(f"config.heads {self.heads} is not a multiple of config.kv_heads {self.kv_heads}")
        if self.head_dim % 2:
            raise Malformed(f"config.head_dim {self.head_dim} is odd, rotary embedding needs pairs")
        for what, size in (
            ("queries", self.query_size),
            ("keys", self.kv_size),
            ("the feed-forward block", self.ffn_size),
        ):
            if size % SCALE_ROWS or size > MAX_WIDTH:
                raise Malformed(
                    f"config: the width of {what}, {size}, is not a multiple of {SCALE_ROWS} up to {MAX_WIDTH}"
                )
        if self.parameters != self.counted_parameters():
            raise Malformed(f"config.parameters is {self.parameters}, its sizes make {self.counted_parameters()}")

    def to_json(self) -> dict[str, Any]:
        """The JSON object that `from_json` reads."""
        return asdict(self) | {"eos_token_ids": list(self.eos_token_ids)}


def is_name(text: str) -> bool:
    """Whether a text can be a model's name."""
    return 0 < len(text) <= _MAX_NAME and text.isprintable() and text == text.strip()
