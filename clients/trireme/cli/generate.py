"""`trireme generate`: one prompt, its answer as it comes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from trireme import Client
from trireme.cli import options, output
from trireme_proto.errors import InvalidRequest


def generate(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="The text to continue; - reads it from standard input.")
    ],
    target: options.Target = None,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    seed: options.Seed = None,
    session: options.SessionId = None,
    stop: options.Stop = None,
    trace_steps: Annotated[
        bool, typer.Option("--trace-steps", help="Trace every decode step, for `trireme trace`.")
    ] = False,
    timeout: options.Timeout = None,
    as_json: options.AsJson = False,
) -> None:
    """Continue a text.

    The answer goes to standard output as it comes, a summary to standard error.
    """
    text = _standard_input() if prompt == "-" else prompt
    with (
        Client(target) as client,
        client.generate(
            text,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            session=session,
            stop=stop or (),
            trace_steps=trace_steps or None,
            timeout=timeout,
        ) as stream,
    ):
        if as_json:
            output.write_json(output.generation_json(stream.result()))
            return
        for chunk in stream:
            output.write_text(chunk.text)
        output.write_text("\n")
        output.note(output.summary(stream.result()))


def _standard_input() -> str:
    """All of it, without the line break at its end that `echo` adds."""
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"Standard input is not UTF-8 text at byte {error.start}.") from error
