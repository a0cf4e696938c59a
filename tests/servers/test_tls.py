"""https on both ports, and certificates that are none."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import httpx
import openai
import pytest

from axion_llm.config import Settings
from axion_llm.errors import ConfigError
from axion_llm.servers.tls import tls_options
from tests.servers.conftest import LiveServer


def make(folder: Path, name: str, *options: str) -> tuple[Path, Path]:
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(cert), *(options or ["-nodes"])]
    subprocess.run(["openssl", "req", *kind, *names, *files], check=True, capture_output=True)
    return cert, key


pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")


def test_https(tmp_path: Path) -> None:
    cert, key = make(tmp_path, "one")
    server = LiveServer(tls_cert=cert, tls_key=key).start()
    try:
        trust = ssl.create_default_context(cafile=str(cert))
        for url in server.urls.values():
            assert url.startswith("https://127.0.0.1:")
            with openai.OpenAI(base_url=f"{url}/v1", api_key="x", http_client=httpx.Client(verify=trust)) as client:
                stream = client.completions.create(model="fake", prompt="p", stream=True)
                assert "".join(c.choices[0].text for c in stream) == "Hello world"
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.urls["standard"] + "/health")  # a certificate nobody vouches for
        old = ssl.create_default_context(cafile=str(cert))
        old.minimum_version = ssl.TLSVersion.TLSv1_2
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert httpx.get(server.urls["standard"] + "/health", verify=old).status_code == 200
    finally:
        server.ask_to_stop()
        server.join()


def test_files_that_are_no_certificate(tmp_path: Path) -> None:
    cert, key = make(tmp_path, "one")
    _, other = make(tmp_path, "two")
    _, locked = make(tmp_path, "three", "-passout", "pass:secret")
    wrong = [
        (cert, None, "both or neither"),
        (tmp_path / "nothing", key, "No such file"),
        (cert, other, "(?i)mismatch"),
        (key, key, "tls_cert"),
        (cert, locked, "passphrase"),
    ]
    for a, b, problem in wrong:
        with pytest.raises(ConfigError, match=problem):
            tls_options(Settings(tls_cert=a, tls_key=b))
