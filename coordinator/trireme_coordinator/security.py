"""What is asked of a configuration before anything starts: nothing is open to strangers unless
somebody said so.
"""

from __future__ import annotations

from dataclasses import replace

from trireme_coordinator import exposure
from trireme_coordinator.config import ServeConfig
from trireme_coordinator.tls_options import public_files, redis_url_with_ca
from trireme_proto.certificates import CertificateFiles
from trireme_worker.stage_links import opener


def secured(config: ServeConfig) -> tuple[ServeConfig, CertificateFiles | None]:
    """The configuration with all that Redis needs in its URL, and the public server's certificates; None without TLS.
    ConfigurationError where a file is no use, or something would be open.
    """
    files = public_files(config)
    exposure.check(
        config.listen,
        tls=files is not None,
        mtls=bool(config.tls_client_ca),
        keys=bool(config.keys),
        jwt=bool(config.jwt_issuer),
        insecure_no_auth=config.insecure_no_auth,
        insecure_no_tls=config.insecure_no_tls,
    )
    opener(config.stage_tls_dir)
    return replace(config, redis_url=redis_url_with_ca(config.redis_url, config.redis_ca)), files
