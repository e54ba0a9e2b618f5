"""Whether a Ray cluster may be joined: Ray runs what it is sent, so one that other machines reach must want its token.

Reads the environment that Ray itself reads. Knows no Ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trireme_coordinator.config import split_address
from trireme_proto.errors import ConfigurationError
from trireme_worker.stage_links import is_loopback


def check_token(address: str, environment: Mapping[str, str]) -> None:
    """ConfigurationError where the cluster at HOST:PORT can be reached by others and there is no token for it."""
    if not is_loopback(split_address(address)[0]) and not (_wanted(environment) and _token(environment)):
        raise ConfigurationError(
            "A Ray cluster that other machines reach runs what anybody sends it, unless it wants a token: set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH (a file with the token) here and wherever Ray is started."
        )


def _wanted(environment: Mapping[str, str]) -> bool:
    return environment.get("RAY_AUTH_MODE", "").lower() == "token"


def _token(environment: Mapping[str, str]) -> str:
    """As Ray finds it; an empty one is none."""
    if given := environment.get("RAY_AUTH_TOKEN", "").strip():
        return given
    path = environment.get("RAY_AUTH_TOKEN_PATH", "") or str(Path.home() / ".ray" / "auth_token")
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
