"""`trireme demo`: a server started, a text streamed from its bundled model, a summary, everything stopped again."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from trireme import Client, Generation
from trireme.cli import output
from trireme.cli.server_process import ServerProcess, serve_command

_START_S = 300.0
"""The first start compiles the kernels."""
_ANSWER_S = 300.0
_SEED = 20


def demo(
    stages: Annotated[int, typer.Option(min=1, help="Workers that the layers are split over.")] = 2,
    prompt: Annotated[str, typer.Option(help="The text to continue.")] = "Once upon a time, there was",
    max_tokens: Annotated[int, typer.Option(min=1, help="The most tokens to generate.")] = 120,
) -> None:
    """See it work: start a local cluster, stream a text, stop everything.

    The model is the one that comes with the package.
    """
    run(serve_command(stages), prompt, max_tokens)


def run(command: Sequence[str], prompt: str, max_tokens: int) -> None:
    """The demo with any command that serves; see ServerProcess. Leaves nothing running, however it ends."""
    with _ended_by_signals(), ServerProcess(command) as server:
        with _progress() as progress:
            target = server.wait_ready(_START_S, progress)
        with Client(target, timeout=_ANSWER_S, api_key="", ca="", cert="", key="") as client:
            answer = _stream(client, prompt, max_tokens)
        output.write_table(_summary(answer))
    output.note("The server is stopped.")


def _stream(client: Client, prompt: str, max_tokens: int) -> Generation:
    output.write_text(prompt)
    with client.generate(prompt, max_tokens=max_tokens, temperature=0.7, top_p=0.9, seed=_SEED) as stream:
        for chunk in stream:
            output.write_text(chunk.text)
        output.write_text("\n\n")
        return stream.result()


def _summary(answer: Generation) -> Table:
    table = Table(show_header=False)
    table.add_row("tokens", f"{answer.usage.completion_tokens} ({answer.finish_reason})")
    table.add_row("time to first token", output.seconds(answer.ttft_s))
    table.add_row("tokens/s", output.rate(answer.tokens_per_s))
    table.add_row("session", answer.session_id)
    table.add_row("trace", answer.trace_id)
    return table


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Shows the server's lines while it starts: the latest beside a spinner, or all where there is no terminal."""
    console = Console(stderr=True, markup=False)
    if not console.is_terminal:
        output.note("Starting the server")
        yield output.note
        return
    with console.status("Starting the server") as status:
        yield lambda line: status.update(f"Starting the server: {line}")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does: the server runs in a session of its own and would outlive us."""

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
