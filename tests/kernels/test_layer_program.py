"""A range of layers in one call: the same bits for every split of the work, threads that sleep, checked arguments."""

import gc
import itertools
import os
import threading
import time
import weakref

import numpy as np
import pytest

import trireme_kernels as k
from trireme_kernels import cases, layer_steps
from trireme_kernels.layer_program import MAX_THREADS

SHAPE = k.LayerShape(64, 96, 4, 2, 16, 1e-5, "relu2")
SILU = k.LayerShape(50, 48, 6, 3, 10, 1e-6, "silu")
CONTEXT = 64


class Model:
    """Two random layers with room for three sequences."""

    def __init__(self, shape: k.LayerShape, layout: str = "2bit", dtype: str = "float32", **program) -> None:
        rng = np.random.default_rng(5)
        self.shape = shape
        self.layers = [cases.layer(rng, shape, layout) for _ in range(2)]
        cos, sin = k.rope_tables(CONTEXT, shape.head_dim, 10000.0)
        kv = k.KvFormat(shape.kv_heads, shape.head_dim, dtype)
        self.pages = [kv.empty(12) for _ in range(2)]
        self.table = np.arange(12, dtype=np.int32).reshape(3, 4)
        self.program = k.LayerProgram(shape, self.layers, cos, sin, kv, self.pages, **program)

    def run(self, hidden: np.ndarray, slots, positions) -> np.ndarray:
        hidden = hidden.copy()
        self.program.run(hidden, self.table, np.asarray(slots, np.int32), np.asarray(positions, np.int32))
        return hidden


@pytest.fixture
def model():
    """A factory whose programs are closed."""
    made: list[Model] = []

    def make(*arguments, **keywords) -> Model:
        made.append(Model(*arguments, **keywords))
        return made[-1]

    yield make
    for each in made:
        each.program.close()


def prompt(shape: k.LayerShape, tokens: int) -> np.ndarray:
    return cases.floats(np.random.default_rng(1), tokens, shape.hidden_size)


@pytest.mark.parametrize("shape", [SHAPE, SILU])
@pytest.mark.parametrize("layout", cases.LAYOUTS)
@pytest.mark.parametrize("dtype", k.KV_DTYPES)
@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_and_layouts_change_nothing(model, shape, layout: str, dtype: str, threads: int) -> None:
    one, many = model(shape, dtype=dtype), model(shape, dtype=dtype, threads=threads, layout=layout)
    for tokens in (1, 2, 9, 30):
        hidden, where = prompt(shape, tokens), ([1] * tokens, range(tokens))
        assert (one.run(hidden, *where) == many.run(hidden, *where)).all()
        assert (np.array(one.pages) == many.pages).all()


@pytest.mark.parametrize("cuts", [[1], [16], [5, 6, 22], list(range(1, 30))])
def test_chunks_of_a_prompt_change_nothing(model, cuts: list[int]) -> None:
    hidden = prompt(SHAPE, 30)
    whole = model(SHAPE).run(hidden, [0] * 30, range(30))
    chunked = model(SHAPE, threads=2)
    edges = [0, *cuts, 30]
    parts = [chunked.run(hidden[a:b], [0] * (b - a), range(a, b)) for a, b in itertools.pairwise(edges)]
    assert (np.concatenate(parts) == whole).all()


def test_batch_mates_change_nothing(model) -> None:
    """Three sequences of different lengths decode together as they do alone; their pages are apart."""
    hidden = prompt(SHAPE, 40)
    together, alone = model(SHAPE), model(SHAPE)
    lengths = (20, 1, 7)
    for slot, n in enumerate(lengths):
        for each in (together, alone):
            each.run(hidden[:n], [slot] * n, range(n))
    both = together.run(hidden[:3], [0, 1, 2], lengths)
    for slot, n in enumerate(lengths):
        assert (alone.run(hidden[slot : slot + 1], [slot], [n])[0] == both[slot]).all()


def test_no_tokens(model) -> None:
    assert model(SHAPE).run(prompt(SHAPE, 0), [], []).shape == (0, 64)


def test_a_waiting_thread_uses_no_cpu(model) -> None:
    """Helpers spin for some microseconds and sleep then: a tenth of a second later all are asleep."""
    made = model(SHAPE, threads=3)
    made.run(prompt(SHAPE, 1), [0], [0])
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        before, start = time.process_time(), time.monotonic()
        threading.Event().wait(0.1)
        if time.process_time() - before < 0.2 * (time.monotonic() - start):
            return
    pytest.fail("the helper threads keep a CPU busy")


def test_many_short_runs_on_more_threads_than_cpus(model) -> None:
    """Lost wake-ups and early starts would show as a hang (the time limit) or as other bits."""
    made, one = model(SHAPE, threads=4 * (os.cpu_count() or 1)), model(SHAPE)
    hidden = prompt(SHAPE, 1)
    for _ in range(100):
        assert (made.run(hidden, [0], [3]) == one.run(hidden, [0], [3])).all()


def test_a_closed_program_refuses_and_leaves_no_threads(model) -> None:
    before = threading.active_count()
    made = model(SHAPE, threads=3)
    assert threading.active_count() == before + 2
    made.program.close()
    made.program.close()
    assert threading.active_count() == before
    with pytest.raises(k.KernelInputError, match=r"^program is closed"):
        made.run(prompt(SHAPE, 1), [0], [0])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity")
def test_threads_are_pinned_and_the_caller_while_it_computes(model, monkeypatch) -> None:
    pinned = []
    before = os.sched_getaffinity(0)
    monkeypatch.setattr(os, "sched_setaffinity", lambda _pid, cpus: pinned.append(set(cpus)))
    model(SHAPE, threads=3, cpus=[4, 5, 6]).run(prompt(SHAPE, 1), [0], [0])
    assert sorted(map(sorted, pinned[:-1])) == [[4], [5], [6]]
    assert pinned[-1] == before
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {7, 8})
    pinned.clear()
    model(SHAPE, threads=2).run(prompt(SHAPE, 1), [0], [0])
    assert {8} in pinned
    assert [cpus for cpus in pinned if cpus != {8}] == [{7}, {7, 8}]
    pinned.clear()
    model(SHAPE, threads=3).run(prompt(SHAPE, 1), [0], [0])
    assert pinned == []


def test_cpus_are_as_many_as_threads(model) -> None:
    with pytest.raises(k.KernelInputError, match="cpus"):
        model(SHAPE, threads=3, cpus=[4, 5])


@pytest.mark.parametrize(
    ("change", "blamed"),
    [
        ({"hidden_size": 0}, "hidden_size"),
        ({"ffn_size": 24}, "ffn_size"),
        ({"heads": 3}, "heads"),
        ({"kv_heads": 0}, "kv_heads"),
        ({"head_dim": 5}, "head_dim"),
        ({"norm_eps": float("nan")}, "norm_eps"),
        ({"activation": "gelu"}, "activation"),
    ],
)
def test_shapes_are_checked(change: dict, blamed: str) -> None:
    names = ("hidden_size", "ffn_size", "heads", "kv_heads", "head_dim", "norm_eps", "activation")
    with pytest.raises(k.KernelInputError, match=f"^{blamed} "):
        k.LayerShape(**{**{name: getattr(SHAPE, name) for name in names}, **change})


def build(**change) -> None:
    rng = np.random.default_rng(0)
    cos, sin = k.rope_tables(8, SHAPE.head_dim, 10000.0)
    kv = k.KvFormat(2, 16)
    layers = [cases.layer(rng, SHAPE) for _ in range(2)]
    good = {"layers": layers, "cos": cos, "sin": sin, "kv": kv, "pages": [kv.empty(1) for _ in range(2)]}
    arguments = {**good, "threads": 1, **change}
    k.LayerProgram(SHAPE, **arguments).close()


def wrong_layer(**change) -> list:
    rng = np.random.default_rng(0)
    layers = [cases.layer(rng, SHAPE) for _ in range(2)]
    fields = {name: getattr(layers[1], name) for name in layers[1].__slots__}
    return [layers[0], cases.RandomLayer(**{**fields, **change})]


def test_what_a_program_is_built_of_is_checked() -> None:
    rng = np.random.default_rng(0)
    build()
    for blamed, change in (
        ("threads", {"threads": 0}),
        ("threads", {"threads": MAX_THREADS + 1}),
        ("layers", {"layers": []}),
        ("pages", {"pages": [k.KvFormat(2, 16).empty(1)]}),
        ("pages", {"pages": [k.KvFormat(2, 16).empty(n) for n in (1, 2)]}),
        ("pages", {"pages": [k.KvFormat(2, 16, "int8").empty(1) for _ in range(2)]}),
        ("kv", {"kv": k.KvFormat(2, 18)}),
        ("kv", {"kv": k.KvFormat(4, 16)}),
        ("cos", {"cos": np.zeros((8, 7), np.float32)}),
        ("sin", {"sin": np.zeros((7, 8), np.float32)}),
        ("attention_norm", {"layers": wrong_layer(attention_norm=np.zeros(63, np.float32))}),
        ("ffn_sub_norm", {"layers": wrong_layer(ffn_sub_norm=np.zeros(96))}),
        ("qkv", {"layers": wrong_layer(qkv=cases.matrix(rng, 96, 64))}),
        ("down", {"layers": wrong_layer(down=cases.matrix(rng, 64, 96, "1.6bit"))}),
    ):
        with pytest.raises(k.KernelInputError, match=f"^{blamed} "):
            build(**change)


def test_what_a_run_gets_is_checked(model) -> None:
    made = model(SHAPE)
    good = {"hidden": prompt(SHAPE, 2), "table": made.table, "rows_slot": [0, 0], "positions": [0, 1]}
    for blamed, change in (
        ("hidden", {"hidden": np.zeros((2, 63), np.float32)}),
        ("rows_slot", {"rows_slot": [0, 3]}),
        ("rows_slot", {"rows_slot": [0]}),
        ("positions", {"positions": [0, 64]}),
        ("positions", {"positions": [1, 1]}),
        ("table", {"table": np.full((3, 4), 12, np.int32)}),
    ):
        arguments = {**good, **change}
        for name in ("rows_slot", "positions"):
            arguments[name] = np.asarray(arguments[name], np.int32)
        with pytest.raises(k.KernelInputError, match=f"^{blamed} "):
            made.program.run(**arguments)


def test_the_arrays_are_kept_alive(model) -> None:
    """Compiled code has addresses: freed weights would be read all the same."""
    made, hidden = model(SHAPE), prompt(SHAPE, 1)
    weights = weakref.ref(made.layers[0].down.data.base)
    made.layers.clear()
    gc.collect()
    assert weights() is not None
    assert np.isfinite(made.run(hidden, [0], [0])).all()


def test_compiled_once_for_every_model(model) -> None:
    for shape in (SHAPE, SILU):
        model(shape).run(prompt(shape, 2), [0, 1], [0, 0])
    assert len(layer_steps.work.signatures) <= 3  # one for each type of KV pages that other tests use
