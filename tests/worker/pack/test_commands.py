"""`trireme convert` and `trireme logits`, as typer runs them."""

import subprocess
import sys

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from trireme_proto.errors import CheckpointUnsupported, ConfigurationError, InvalidRequest, PackNotFound, PromptTooLong
from trireme_worker.commands import convert, logits
from trireme_worker.commands.logits import parse_tokens
from trireme_worker.pack import Pack
from trireme_worker.stage import StageModel

app = typer.Typer()
app.command()(convert)
app.command()(logits)


def run(*arguments, **environment):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)


def test_convert_says_what_it_made(made, tmp_path):
    result = run("convert", made("packed")[0], tmp_path / "pack", "--name", "small", FORCE_COLOR="1")
    assert result.exit_code == 0
    assert result.stdout == (
        f"{tmp_path}/pack: small, 189.2 K parameters in 2 layers, 0.1 MB, 1.96 bits per ternary weight\n"
    )
    assert "Converting" in result.stderr  # the bar, which a terminal shows and then clears
    assert Pack.open(tmp_path / "pack").config.name == "small"


def test_convert_takes_the_kinds_of_head_and_layout(made, tmp_path):
    run("convert", made("packed")[0], tmp_path / "default")
    assert (Pack.open(tmp_path / "default").head_kind, Pack.open(tmp_path / "default").layout) == (
        "int8+4bit",
        "1.6bit",
    )
    result = run("convert", made("packed")[0], tmp_path / "pack", "--head", "int8", "--layout", "2bit")
    assert result.exit_code == 0
    assert "2.29 bits per ternary weight" in result.stdout
    assert (Pack.open(tmp_path / "pack").head_kind, Pack.open(tmp_path / "pack").layout) == ("int8", "2bit")
    for wrong in (("--head", "int4"), ("--layout", "3bit")):
        assert run("convert", made("packed")[0], tmp_path / "no", *wrong).exit_code == 2
    assert not (tmp_path / "no").exists()


def test_convert_says_when_it_rounds(made, tmp_path):
    result = run("convert", made("master-f16")[0], tmp_path / "pack")
    assert result.stdout.endswith("\nEmbedding and head were rounded to bfloat16.\n")


def test_convert_refuses_with_a_typed_error(tmp_path, made):
    assert isinstance(run("convert", tmp_path / "nothing", tmp_path / "pack").exception, CheckpointUnsupported)
    assert run("convert", made("packed")[0], tmp_path).exception is None  # an empty folder will do
    assert isinstance(run("convert", made("packed")[0], tmp_path).exception, ConfigurationError)


def test_logits(made, tmp_path):
    out = tmp_path / "logits.npy"
    result = run("logits", made("packed")[1], "--tokens", "1, 2,199,0", "--out", out, "--threads", "2")
    assert (result.exit_code, result.stdout) == (0, f"{out}: float32 [4, 200]\n")
    found = np.load(out)
    model = StageModel(Pack.open(made("packed")[1]), range(2))
    expected = model.logits([1, 2, 199, 0])
    model.close()
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)


def test_logits_refuses_with_a_typed_error(made, tmp_path):
    pack = made("packed")[1]
    assert isinstance(run("logits", tmp_path, "--tokens", "1", "--out", tmp_path / "x").exception, PackNotFound)
    assert isinstance(run("logits", pack, "--tokens", "1,x", "--out", tmp_path / "x").exception, InvalidRequest)
    assert not (tmp_path / "x").exists()
    wrong = run("logits", pack, "--tokens", "1", "--out", tmp_path / "no" / "folder").exception
    assert isinstance(wrong, ConfigurationError)
    assert wrong.message == "cannot write 'folder': No such file or directory"
    assert run("logits", pack, "--tokens", "1", "--out", "x", "--threads", "0").exit_code == 2


def test_token_ids():
    assert parse_tokens("0,199", 200, 2) == [0, 199]
    for text in ("", "1,", "-1", "200", "1.0", "0x1", "\u0661", "9" * 5000, "1 2"):
        with pytest.raises(InvalidRequest, match="is no token id of this model"):
            parse_tokens(text, 200, 100)
    with pytest.raises(PromptTooLong, match="3 tokens do not fit the model's context of 2"):
        parse_tokens("1,2,3", 200, 2)


def test_what_is_heavy_is_imported_when_a_command_runs():
    """`trireme --help` must not wait for NumPy and Numba."""
    code = (
        "import sys, trireme_worker.commands; print([m for m in ('numpy', 'numba', 'ray', 'grpc') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
