"""Commands of other packages: listed without being imported, and explained where their libraries are missing."""

import itertools
import re
import sys
from importlib.metadata import EntryPoint

import pytest

from trireme.cli import lazy, main

_NUMBERS = itertools.count()


@pytest.fixture
def joined(monkeypatch, tmp_path):
    """Makes a module with a command and joins it to `trireme` under a name."""
    monkeypatch.syspath_prepend(tmp_path)

    def join(name, source):
        module = f"joined_{name}_{next(_NUMBERS)}"  # Python keeps imported modules by name
        (tmp_path / f"{module}.py").write_text(source)
        point = EntryPoint(name, f"{module}:command", lazy.GROUP)
        monkeypatch.setattr(lazy, "entry_points", lambda group: [point] if group == lazy.GROUP else [])
        return module

    return join


GREET = """
from __future__ import annotations
from typing import Annotated
import typer

def command(who: Annotated[str, typer.Argument()], times: Annotated[int, typer.Option(help="How often.")] = 1) -> None:
    '''Greet somebody.'''
    for _ in range(times):
        typer.echo(f"Hello, {who}")
"""


def test_a_joined_command_is_listed_unimported_and_runs(joined, capsys):
    module = joined("greet", GREET)
    assert main(["--help"]) == 0
    assert re.search(f"greet +From {module}\\.", capsys.readouterr().out)
    assert module not in sys.modules
    assert main(["greet", "you", "--times", "2"]) == 0
    assert capsys.readouterr().out == "Hello, you\nHello, you\n"
    assert main(["greet", "--help"]) == 0
    assert "How often." in capsys.readouterr().out
    assert main(["greet"]) == 2
    assert capsys.readouterr().err.lower() == "error: missing argument 'who'; see trireme greet --help\n"


MISSING = "error: serve needs the server parts: pip install 'trireme-inference[server]'\n"


@pytest.mark.parametrize("library", ["ray", "numba", "redis.asyncio", "opentelemetry.sdk.trace", "trireme_coordinator"])
@pytest.mark.parametrize("when", ["loaded", "run"])
def test_a_plain_install_says_what_serve_needs(joined, capsys, monkeypatch, library, when):
    for name in [name for name in sys.modules if name.partition(".")[0] == library.partition(".")[0]]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Missing(library.partition(".")[0]), *sys.meta_path])
    at_load, at_run = (f"import {library}", "pass") if when == "loaded" else ("", f"import {library}")
    joined("serve", f"{at_load}\ndef command() -> None:\n    {at_run}\n")
    assert main(["serve"]) == 1
    assert capsys.readouterr() == ("", MISSING)


class _Missing:
    """An import hook by which a package is not installed."""

    def __init__(self, package):
        self.package = package

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_without_its_entry_point_serve_is_still_listed_and_explained(monkeypatch, capsys):
    monkeypatch.setattr(lazy, "entry_points", lambda group: [])
    assert main(["--help"]) == 0
    assert re.search("serve +Serve a model", capsys.readouterr().out)
    assert main(["serve", "--stages", "2"]) == 1
    assert capsys.readouterr().err == MISSING


@pytest.mark.parametrize("library", ["no_such_module_of_ours", "trireme_coordinator.no_such_module"])
def test_any_other_missing_module_is_a_fault_and_not_explained_away(joined, library):
    joined("serve", f"def command() -> None:\n    import {library}\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        main(["serve"])


def test_an_error_of_a_joined_command_is_one_sentence(joined, capsys):
    joined(
        "serve", "from trireme_proto.errors import PackNotFound\ndef command():\n    raise PackNotFound('No pack.')\n"
    )
    assert main(["serve"]) == 1
    assert capsys.readouterr().err == "error: No pack.\n"


def test_a_file_that_cannot_be_opened_is_one_sentence(joined, capsys):
    joined("logits", "def command() -> None:\n    open('/no/such/file')\n")
    assert main(["logits"]) == 1
    assert capsys.readouterr().err == "error: No such file or directory: /no/such/file\n"


GROUP = """
import typer

command = typer.Typer(help="Several.")

@command.command()
def one() -> None:
    '''The first.'''
    typer.echo("1")

@command.command()
def two() -> None:
    '''The second.'''
    import numba
"""


def test_a_joined_group_has_commands_of_its_own(joined, capsys, monkeypatch):
    module = joined("several", GROUP)
    assert main(["--help"]) == 0
    assert module not in sys.modules
    assert main(["several", "--help"]) == 0
    assert re.search("one +The first.*two +The second", capsys.readouterr().out, re.DOTALL)
    assert main(["several", "one"]) == 0
    assert capsys.readouterr().out == "1\n"
    for name in [name for name in sys.modules if name.partition(".")[0] == "numba"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Missing("numba"), *sys.meta_path])
    assert main(["several", "two"]) == 1
    assert capsys.readouterr().err == MISSING.replace("serve needs", "several needs")


def test_a_group_has_commands_of_the_client_and_of_two_packages(joined, capsys, monkeypatch):
    several, greet = joined("several", GROUP), joined("greet", GREET)
    points = [
        EntryPoint("bench", f"{several}:command", lazy.GROUP),
        EntryPoint("bench.greet", f"{greet}:command", lazy.GROUP),
    ]
    monkeypatch.setattr(lazy, "entry_points", lambda group: points)
    assert main(["--help"]) == 0
    assert "bench.greet" not in capsys.readouterr().out
    assert main(["bench", "--help"]) == 0
    assert re.search(f"one +The first.*two +The second.*serve +Put a load.*greet +From {greet}\\.", shown(capsys))
    assert greet not in sys.modules
    for args, said in (["one"], "1\n"), (["greet", "you"], "Hello, you\n"):
        assert main(["bench", *args]) == 0
        assert capsys.readouterr().out == said
    assert main(["bench", "greet"]) == 2
    assert "see trireme bench greet --help" in capsys.readouterr().err


def test_what_needs_the_server_in_a_group_of_the_client_says_so(monkeypatch, capsys):
    monkeypatch.setattr(lazy, "entry_points", lambda group: [])
    assert main(["bench", "--help"]) == 0
    assert re.search("serve +Put a load.*pipeline +Show how well", shown(capsys))
    assert main(["bench", "pipeline"]) == 1
    assert capsys.readouterr().err == MISSING.replace("serve needs", "bench pipeline needs")


def shown(capsys):
    return " ".join(capsys.readouterr().out.split())
