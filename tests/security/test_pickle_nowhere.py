"""Pickle on the wire (CVE-2025-32444, -29783, -30165, -47277, CVE-2024-50050, CVE-2026-26220): in no product code is
there anything that runs what it reads. Read from the syntax trees; each exception says why, and must still be needed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = ("proto", "kernels", "worker", "coordinator", "clients", "helm", "docker")
MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "marshal", "dill", "shelve", "joblib", "jsonpickle", "torch"}
CALLS = {"eval", "exec", "compile", "__import__", "system", "popen", "read_pickle"}
"""Names of functions, however they are reached."""
EXCEPTIONS = {
    ("coordinator/trireme_coordinator/nodes_file.py", "yaml.load"): "its loader is a SafeLoader without aliases",
    ("coordinator/trireme_coordinator/hosts/reading.py", "yaml.load"): "the same loader",
}
"""(file, what): why it may be there."""


def files() -> list[Path]:
    found = [path for folder in PRODUCT for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(found) > 200
    return found


def dangers(tree: ast.AST) -> Iterator[str]:
    """What is in the tree that reads code as data, or would no longer check under `python -O`."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names if name.name.partition(".")[0] in MODULES)
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in MODULES:
                yield module
            case ast.Assert():
                yield "assert"
            case ast.Call():
                yield from called(node)


def called(node: ast.Call) -> Iterator[str]:
    name, owner = _names(node.func)
    if name in CALLS and owner != "re":
        yield name
    for keyword in node.keywords:
        if keyword.arg == "shell" and not _is(keyword.value, value=False):
            yield "shell"
        if keyword.arg == "allow_pickle" and not _is(keyword.value, value=False):
            yield "allow_pickle"
    if (owner, name) in {("np", "load"), ("numpy", "load")} and not any(k.arg == "allow_pickle" for k in node.keywords):
        yield "np.load"  # the default refuses it too: to be said all the same
    if owner == "yaml" and name in {"load", "load_all", "unsafe_load", "full_load"}:
        yield "yaml.load"
    if name == "import_module" and not (node.args and isinstance(node.args[0], ast.Constant)):
        yield "import_module"


def _names(function: ast.expr) -> tuple[str, str]:
    if isinstance(function, ast.Attribute):
        return function.attr, function.value.id if isinstance(function.value, ast.Name) else ""
    return (function.id, "") if isinstance(function, ast.Name) else ("", "")


def _is(node: ast.expr, *, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def test_pickle_nowhere_in_product_code() -> None:
    found = {
        (str(path.relative_to(ROOT)), what)
        for path in files()
        for what in dangers(ast.parse(path.read_text(), path.name))
    }
    assert found - set(EXCEPTIONS) == set()
    assert set(EXCEPTIONS) - found == set(), "an exception that nothing needs any more"


@pytest.mark.parametrize(
    "source",
    [
        *("import pickle", "import torch.serialization", "from cloudpickle import loads", "import marshal as m"),
        *("eval(x)", "exec(x)", "builtins.eval(x)", "compile(x, '', 'exec')", "__import__(x)", "os.system(x)"),
        *("np.load(f)", "np.load(f, allow_pickle=True)", "np.load(f, allow_pickle=flag)", "yaml.load(x)"),
        *(
            "subprocess.run(x, shell=True)",
            "assert x > 0",
            "importlib.import_module(name)",
            "if x:\n  def f():\n    eval(x)",
        ),
    ],
)
def test_the_scan_finds(source: str) -> None:
    assert list(dangers(ast.parse(source)))


@pytest.mark.parametrize("source", ["re.compile(x)", "np.load(f, allow_pickle=False)", "json.loads(x)", "evaluate(x)"])
def test_the_scan_lets_pass(source: str) -> None:
    assert not list(dangers(ast.parse(source)))
