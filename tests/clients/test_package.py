"""The package as users meet it: its examples run, its names are there, and it stays light."""

import doctest
import importlib
import subprocess
import sys

import pytest

import trireme
from trireme.testing import FakeServer


@pytest.mark.parametrize("name", ["trireme", "trireme.testing"])
def test_the_examples_in_the_docstring_run_as_written(name, monkeypatch):
    with FakeServer() as server:
        monkeypatch.setenv("TRIREME_TARGET", server.target)
        failed, tried = doctest.testmod(importlib.import_module(name), raise_on_error=False)
    assert (failed, tried > 3) == (0, True)


def test_every_public_name_is_there_and_documented():
    for name in trireme.__all__:
        assert getattr(trireme, name).__doc__


def test_every_error_of_the_tree_has_a_public_name():
    from trireme_proto.errors import error_classes

    assert {cls.__name__ for cls in error_classes().values()} == set(trireme.errors.__all__)


def test_importing_it_loads_neither_numpy_nor_the_server_nor_telemetry():
    heavy = "numpy ray numba redis opentelemetry trireme_coordinator trireme_worker trireme_kernels typer rich"
    code = f"import sys, trireme, trireme.testing; print(set('{heavy}'.split()) & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
