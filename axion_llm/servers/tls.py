"""TLS of the ports: the certificate is looked at before anything is loaded."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from axion_llm.config import Settings
from axion_llm.errors import ConfigError


def tls_options(settings: Settings) -> dict[str, Any]:
    """For uvicorn; raises ConfigError when the files are not a certificate and its key. TLS 1.2 and up."""
    if settings.tls_cert is None or settings.tls_key is None:
        return {}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for name, path in (("tls_cert", settings.tls_cert), ("tls_key", settings.tls_key)):
        _check_readable(name, path)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password=_no_passphrase)
    except ssl.SSLError as error:
        message = f"tls_cert = {settings.tls_cert}, tls_key = {settings.tls_key}: {error.reason or error}"
        raise ConfigError(message, param="tls_cert") from None
    return {"ssl_certfile": settings.tls_cert, "ssl_keyfile": settings.tls_key}


def _check_readable(name: str, path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise ConfigError(f"{name} = {path}: {error.strerror}", param=name) from None


def _no_passphrase() -> str:
    raise ConfigError("tls_key: it has a passphrase, which a service cannot type; remove it", param="tls_key")
