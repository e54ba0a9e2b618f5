"""`trireme chat`: a conversation line by line. Its history is the server's session; nothing is kept here.

Ctrl-C  stops the answer, not the chat        Ctrl-D  leaves
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from trireme import Client, GenerationStream
from trireme.cli import options, output
from trireme_proto.errors import SessionBusy, TriremeError

_HELP = """\
/help  this list
/new   start a new conversation
/quit  leave (also Ctrl-D)
Everything else goes to the model as it is. Ctrl-C stops an answer."""
_RELEASE_PAUSE = 0.05
_RELEASE_ATTEMPTS = 40


@dataclass(frozen=True, slots=True)
class Settings:
    """How answers are generated."""

    max_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    seed: int | None
    timeout: float | None


def chat(
    target: options.Target = None,
    session: options.SessionId = None,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    seed: options.Seed = None,
    timeout: options.Timeout = None,
) -> None:
    """Talk with the model line by line.

    The server keeps the history: --session continues it later.
    """
    settings = Settings(max_tokens, temperature, top_k, top_p, seed, timeout)
    with Client(target) as client:
        known = client.sessions.get(session) if session else client.sessions.create()
        talk = Chat(client, settings, known.session_id)
        output.note(f"Session {talk.session}. /help lists the commands; Ctrl-D leaves.")
        talk.run()
        output.note(f"To go on: trireme chat --session {talk.session}")


class Chat:
    """The loop of reading a line and streaming its answer."""

    def __init__(self, client: Client, settings: Settings, session: str) -> None:
        self.session = session
        self._client = client
        self._settings = settings
        self._stopped = False
        self._commands: dict[str, Callable[[], bool]] = {"/help": self._help, "/new": self._new, "/quit": lambda: False}

    def run(self) -> None:
        """Until the person leaves. Where nobody types, the first error ends it."""
        interactive = _typed_by_a_person()
        if interactive:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401, PLC0415 - its import gives input() line editing, where there is any
        while True:
            try:
                if not self._turn(input("> " if interactive else "").strip()):
                    return
            except KeyboardInterrupt:
                output.note("")
            except EOFError:
                if interactive:
                    output.note("")  # the cursor stands behind the prompt
                return
            except TriremeError as error:
                if not interactive:
                    raise
                output.note(f"error: {error}")

    def _turn(self, line: str) -> bool:
        """Does what one line asks for; False to leave."""
        if not line.startswith("/"):
            if line:
                self._answer(line)
            return True
        command = self._commands.get(line)
        if command is None:
            output.note(f"There is no command {line}; /help lists them.")
            return True
        return command()

    def _answer(self, line: str) -> None:
        patience = _RELEASE_ATTEMPTS if self._stopped else 0
        self._stopped = False
        try:
            while not self._shown(line, last=patience == 0):
                patience -= 1
                time.sleep(_RELEASE_PAUSE)
        except KeyboardInterrupt:
            self._stopped = True
            output.note(" (stopped)")

    def _shown(self, line: str, *, last: bool) -> bool:
        """Streams the answer; False where the session is still busy with the one just stopped."""
        with self._stream(line + "\n") as stream:
            try:
                for chunk in stream:
                    output.write_text(chunk.text)
            except SessionBusy:
                if last:
                    raise
                return False
        output.write_text("\n")
        return True

    def _stream(self, text: str) -> GenerationStream:
        settings = self._settings
        return self._client.generate(
            text,
            session=self.session,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            seed=settings.seed,
            timeout=settings.timeout,
        )

    def _help(self) -> bool:
        output.note(_HELP)
        return True

    def _new(self) -> bool:
        self.session = self._client.sessions.create().session_id
        output.note(f"Session {self.session}.")
        return True


def _typed_by_a_person() -> bool:
    return sys.stdin.isatty()
