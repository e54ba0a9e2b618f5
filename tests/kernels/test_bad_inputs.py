"""Nothing reaches compiled code unchecked: each wrong argument raises `KernelInputError` with its name first."""

import re

import numpy as np
import pytest

import trireme_kernels as k
from trireme_kernels import cases
from trireme_kernels.registry import REGISTRY

ROWS = {row.name: row for row in REGISTRY}
FREE = {"gate", "up"}  # any dtype and any number of dimensions


def good(name: str) -> dict:
    """The first case of a kernel that has at least two rows to compute."""
    found = list(ROWS[name].cases(np.random.default_rng(3)))
    return next(c for c in found if all(a.size > 1 for a in c.values() if isinstance(a, np.ndarray)))


def array_arguments() -> list[tuple[str, str]]:
    return [(n, a) for n in ROWS for a, v in good(n).items() if isinstance(v, np.ndarray) and a not in FREE]


def refuses(name: str, argument: str, case: dict, rule: str = "") -> None:
    with pytest.raises(k.KernelInputError, match=f"^{argument} .*{re.escape(rule)}"):
        ROWS[name].fast(**case)


@pytest.mark.parametrize(("name", "argument"), array_arguments())
def test_arrays(name: str, argument: str) -> None:
    case = good(name)
    array = case[argument]
    wider = np.repeat(array, 2, axis=-1)
    refuses(name, argument, {**case, argument: array.tolist()}, "numpy array")
    refuses(name, argument, {**case, argument: array.astype(np.float64)}, "dtype")
    refuses(name, argument, {**case, argument: array[None]}, "shape")
    refuses(name, argument, {**case, argument: wider[..., ::2]}, "C-contiguous")
    raw = np.zeros(array.nbytes + 1, np.uint8)[1:]
    if array.itemsize > 1:
        refuses(name, argument, {**case, argument: raw.view(array.dtype).reshape(array.shape)}, "aligned")


OUTPUTS = {
    "add_rows": ["x"],
    "append_kv": ["pages"],
    "attention": ["out"],
    "embed": ["out"],
    "first_pass": ["sums", "tops"],
    "head_logits": ["out"],
    "int8_head_logits": ["out"],
    "largest_logits": ["out"],
    "rescore": ["out"],
    "quantise_rows": ["q", "scale", "total"],
    "rms_norm": ["out"],
    "rms_norm_quantise": ["q", "scale", "total"],
    "rope": ["x"],
    "gated_product": ["out"],
    "ternary_linear": ["out"],
}


@pytest.mark.parametrize(("name", "argument"), [(n, a) for n, arguments in OUTPUTS.items() for a in arguments])
def test_outputs_must_be_writeable(name: str, argument: str) -> None:
    case = good(name)
    case[argument].flags.writeable = False
    refuses(name, argument, case, "writeable")


def longer(array: np.ndarray) -> np.ndarray:
    return np.concatenate([array, array[:1]])


def wider(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.concatenate([array, array[..., :1]], axis=-1))


def narrower(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array[..., :-1])


def filled(value: int):
    return lambda array: np.full_like(array, value)


def without_last_page(table: np.ndarray) -> np.ndarray:
    """Slot 3 of the case has 40 positions: only its third page is missing."""
    changed = table.copy()
    changed[3, 2] = -1
    return changed


def without_codes(head: k.HeadWeights) -> k.HeadWeights:
    return k.HeadWeights(head.hidden_size, head.levels, head.scales, head.totals)


CHANGED = [
    # kernel, argument changed, change, argument blamed
    ("add_rows", "y", longer, "y"),
    ("add_rows", "y", lambda y: narrower(y)[:, :3].copy(), "y"),
    ("append_kv", "k_offset", lambda _: -1, "k_offset"),
    ("append_kv", "k_offset", lambda _: 22, "k_offset"),
    ("append_kv", "v_offset", lambda _: 22, "v_offset"),
    ("append_kv", "v_offset", lambda _: -1, "v_offset"),
    ("append_kv", "pages", wider, "pages"),
    ("append_kv", "pages", lambda a: np.ascontiguousarray(a[:, :1]), "pages"),
    ("append_kv", "kv", lambda _: k.KvFormat(2, 8, "int8"), "pages"),
    ("append_kv", "rows_slot", longer, "rows_slot"),
    ("append_kv", "rows_slot", filled(4), "rows_slot"),
    ("append_kv", "rows_slot", filled(-1), "rows_slot"),
    ("append_kv", "positions", longer, "positions"),
    ("append_kv", "positions", filled(48), "positions"),
    ("append_kv", "positions", filled(-1), "positions"),
    ("append_kv", "table", filled(-1), "table"),
    ("append_kv", "table", filled(9), "table"),
    ("attention", "heads", lambda _: 3, "heads"),
    ("attention", "heads", lambda _: 0, "heads"),
    ("attention", "heads", lambda _: 10, "qkv"),
    ("attention", "kv", lambda _: k.KvFormat(4, 16), "pages"),
    ("attention", "kv", lambda _: k.KvFormat(2, 40), "qkv"),
    ("attention", "kv", lambda _: k.KvFormat(2, 16, "int8"), "pages"),
    ("attention", "pages", wider, "pages"),
    ("attention", "rows_slot", filled(4), "rows_slot"),
    ("attention", "rows_slot", longer, "rows_slot"),
    ("attention", "positions", filled(48), "positions"),
    ("attention", "positions", filled(-1), "positions"),
    ("attention", "positions", filled(47), "table"),  # slot 0 has a single page
    ("attention", "table", filled(9), "table"),
    ("attention", "table", without_last_page, "table"),
    ("attention", "out", wider, "out"),
    ("attention", "part", lambda _: -1, "part"),
    ("attention", "part", lambda _: 1, "part"),
    ("attention", "parts", lambda _: 0, "parts"),
    ("embed", "ids", filled(10), "ids"),
    ("embed", "ids", filled(-1), "ids"),
    ("embed", "out", narrower, "out"),
    ("embed", "out", longer, "out"),
    ("first_pass", "head", without_codes, "head"),
    ("first_pass", "x", lambda x: x._replace(q=wider(x.q)), "x"),
    ("first_pass", "x", lambda x: x._replace(bound=longer(x.bound)), "x"),
    ("first_pass", "sums", narrower, "sums"),
    ("first_pass", "tops", wider, "tops"),
    ("first_pass", "begin", lambda _: -1, "begin"),
    ("first_pass", "end", lambda _: 3, "end"),
    ("int8_head_logits", "x", lambda x: x._replace(offset=wider(x.offset)), "x"),
    ("int8_head_logits", "x", lambda x: x._replace(total=longer(x.total)), "x"),
    ("int8_head_logits", "out", longer, "out"),
    ("int8_head_logits", "end", lambda _: 3, "end"),
    ("largest_logits", "head", without_codes, "head"),
    ("largest_logits", "keep", lambda _: 0, "keep"),
    ("largest_logits", "keep", lambda _: 1.5, "keep"),
    ("largest_logits", "keep", lambda _: None, "keep"),
    ("largest_logits", "out", narrower, "out"),
    ("quantise_for_head", "x", wider, "x"),
    ("quantise_head", "table", filled(0x7F80), "table"),
    ("quantise_head", "table", lambda _: np.zeros(32, np.uint16), r"table must have shape \(any, any\),"),
    ("quantise_head", "table", lambda _: np.zeros((0, 32), np.uint16), "table must not be"),
    ("quantise_head", "table", lambda _: np.zeros((32, 0), np.uint16), "table must not be"),
    ("quantise_head", "kind", lambda _: "int4", "kind"),
    ("quantise_head", "seed", lambda _: -1, "seed"),
    ("rescore", "head", without_codes, "head"),
    ("rescore", "least", longer, "least"),
    ("rescore", "sums", narrower, "sums"),
    ("rescore", "out", wider, "out"),
    ("rescore", "begin", lambda _: 3, "begin"),
    ("threshold", "keep", lambda _: 0, "keep"),
    ("head_logits", "table", narrower, "table"),
    ("head_logits", "out", narrower, "out"),
    ("head_logits", "out", longer, "out"),
    ("head_logits", "begin", lambda _: -1, "begin"),
    ("head_logits", "end", lambda _: 3, "end"),
    ("interleave_gate_up", "up", wider, "up"),
    ("interleave_gate_up", "up", lambda a: a.astype(np.float64), "up"),
    ("interleave_gate_up", "gate", lambda _: np.float32(1).reshape(()), "gate"),
    ("block_cols", "layout", lambda _: "3bit", "layout"),
    ("packed_bytes", "layout", lambda _: "3bit", "layout"),
    ("pack", "layout", lambda _: "3bit", "layout"),
    ("unpack", "layout", lambda _: "3bit", "layout"),
    ("relayout", "layout", lambda _: "3bit", "layout"),
    ("pack", "w", filled(2), "w"),
    ("pack", "w", filled(-2), "w"),
    ("philox_uniform", "seed", lambda _: -1, "seed"),
    ("philox_uniform", "seed", lambda _: 1 << 64, "seed"),
    ("philox_uniform", "position", lambda _: -1, "position"),
    ("philox_uniform", "position", lambda _: (1 << 63) - 1, "position"),
    ("quantise_rows", "q", lambda q: np.ascontiguousarray(q[:, :37]), "q"),
    ("quantise_rows", "scale", longer, "scale"),
    ("quantise_rows", "total", longer, "total"),
    ("rms_norm_quantise", "q", lambda q: np.ascontiguousarray(q[:, :37]), "q"),
    ("rms_norm_quantise", "scale", longer, "scale"),
    ("rms_norm_quantise", "total", longer, "total"),
    ("rms_norm_quantise", "gain", longer, "gain"),
    ("rms_norm_quantise", "eps", lambda _: float("inf"), "eps"),
    ("rms_norm", "gain", longer, "gain"),
    ("rms_norm", "eps", lambda _: -1e-5, "eps"),
    ("rms_norm", "eps", lambda _: float("nan"), "eps"),
    ("rms_norm", "out", wider, "out"),
    ("rope", "heads", lambda _: 3, "offset"),
    ("rope", "heads", lambda _: -1, "heads"),
    ("rope", "head_dim", lambda _: 15, "head_dim"),
    ("rope", "head_dim", lambda _: 8, "cos"),
    ("rope", "offset", lambda _: 1, "offset"),
    ("rope", "offset", lambda _: -1, "offset"),
    ("rope", "sin", longer, "sin"),
    ("rope", "positions", longer, "positions"),
    ("rope", "positions", filled(50), "positions"),
    ("rope", "positions", filled(-1), "positions"),
    ("rope_tables", "context", lambda _: 0, "context"),
    ("rope_tables", "head_dim", lambda _: 3, "head_dim"),
    ("rope_tables", "theta", lambda _: 0.0, "theta"),
    ("rope_tables", "theta", lambda _: float("inf"), "theta"),
    ("sample", "logits", lambda a: a[:0], "logits"),
    ("sample", "temperature", lambda _: -0.1, "temperature"),
    ("sample", "temperature", lambda _: float("nan"), "temperature"),
    ("sample", "top_k", lambda _: -1, "top_k"),
    ("sample", "top_p", lambda _: 0.0, "top_p"),
    ("sample", "top_p", lambda _: 1.1, "top_p"),
    ("sample", "top_p", lambda _: float("nan"), "top_p"),
    ("sample", "seed", lambda _: 1 << 64, "seed"),
    ("sample", "position", lambda _: -1, "position"),
    ("gated_product", "activation", lambda _: "tanh", "activation"),
    ("gated_product", "gate_up", narrower, "gate_up"),
    ("gated_product", "out", narrower, "out"),
    ("gated_product", "out", longer, "out"),
    ("ternary_linear", "q", narrower, "q"),
    ("ternary_linear", "scale", longer, "scale"),
    ("ternary_linear", "total", longer, "total"),
    ("ternary_linear", "out", narrower, "out"),
    ("ternary_linear", "out", longer, "out"),
    ("ternary_linear", "begin", lambda _: -1, "begin"),
    ("ternary_linear", "begin", lambda _: 2, "begin"),
    ("ternary_linear", "end", lambda _: 2, "end"),
    ("unpack", "data", longer, "data"),
    ("unpack", "data", filled(0b11000000), "data"),
    ("unpack", "data", filled(0b00000011), "data"),
    ("unpack", "rows", lambda _: -1, "rows"),
    ("unpack", "cols", lambda _: -1, "cols"),
]


@pytest.mark.parametrize(("name", "argument", "change", "blamed"), CHANGED)
def test_shapes_and_ranges(name: str, argument: str, change, blamed: str) -> None:
    case = good(name)
    refuses(name, blamed, {**case, argument: change(case.get(argument))})


def test_the_unchanged_cases_are_accepted() -> None:
    """Otherwise every test above could pass for another reason."""
    for name, row in ROWS.items():
        row.fast(**good(name))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_must_be_finite(value: float, temperature: float) -> None:
    logits = np.zeros(40, np.float32)
    logits[33] = value
    with pytest.raises(k.KernelInputError, match=r"^logits are not finite$"):
        k.sample(logits, temperature, 0, 1.0, 1, 1)


@pytest.mark.parametrize(
    ("change", "blamed"),
    [
        ({"layout": "3bit"}, "layout"),
        ({"rows": 0}, "rows"),
        ({"rows": 65}, "data"),
        ({"rows": np.int64(40)}, "rows"),
        ({"cols": 0}, "cols"),
        ({"cols": (1 << 17) + 1}, "cols"),
        ({"cols": 49}, "data"),
        ({"data": np.zeros(10, np.uint8)}, "data"),
        ({"data": np.zeros((64, 12), np.uint8)}, "data"),
        ({"scales": np.zeros(3, np.float32)}, "scales"),
        ({"scales": np.zeros(4, np.float64)}, "scales"),
    ],
)
def test_packed_matrix(change: dict, blamed: str) -> None:
    w = cases.matrix(np.random.default_rng(0), 40, 48)
    fields = {"data": w.data, "scales": w.scales, "rows": w.rows, "cols": w.cols}
    with pytest.raises(k.KernelInputError, match=f"^{blamed} "):
        k.PackedMatrix(**{**fields, **change})
