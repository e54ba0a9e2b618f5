"""What may be reached from other machines, and by whom: refused at the start unless somebody said so in so many words.

    listens on loopback          anybody on this machine may call; nothing is asked for
    listens on anything else     who calls must be known: API keys, JWT or clients' certificates (else
                                 --insecure-no-auth), and nobody may read along: TLS (else --insecure-no-tls)

Pure; opens nothing. Stages and Redis have rules of their own in `stage_links.py` and `redis_url.py`.
"""

from __future__ import annotations

from trireme_coordinator.config import split_address
from trireme_proto.errors import ConfigurationError
from trireme_worker.stage_links import is_loopback


def check(
    listen: str,
    *,
    tls: bool = False,
    mtls: bool = False,
    keys: bool = False,
    jwt: bool = False,
    insecure_no_auth: bool = False,
    insecure_no_tls: bool = False,
) -> None:
    """ConfigurationError where the public server would be open to the network. `listen`: HOST:PORT; the next four: what
    is configured; the last two: what a person said.
    """
    if is_loopback(split_address(listen)[0]):
        return
    if not (mtls or keys or jwt or insecure_no_auth):
        raise ConfigurationError(
            f"Other machines can reach {listen}, and anybody there could use the model: give --keys, --jwt-issuer or "
            "--tls-client-ca, listen on 127.0.0.1, or say --insecure-no-auth."
        )
    if not (tls or insecure_no_tls):
        raise ConfigurationError(
            f"Other machines can reach {listen}, and anybody on the way could read along: give --tls-cert and "
            "--tls-key, listen on 127.0.0.1, or, where something in front does TLS, say --insecure-no-tls."
        )
