"""`axion-llm ps`, `memory`, `load`, `unload`, `pin`, `unpin` against a service that listens, and against none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from axion_llm.api import status as doc
from axion_llm.cli import status_cmd
from axion_llm.cli.main import cli
from axion_llm.errors import ServiceError
from tests.servers.conftest import LiveServer
from tests.servers.test_guard import SECRETS, running, write_keys
from tests.servers.test_tls import make as make_certificate

NOWHERE = {"AXION_STANDARD_PORT": "1", "AXION_STREAMING_PORT": "2", "AXION_CONSENSUS_PORT": "3"}


@pytest.fixture(scope="module")
def service() -> Iterator[LiveServer]:
    with running() as server:
        yield server


def run(service: LiveServer, *arguments: str) -> str:
    """Finds the service by the ports in the environment, as the one that started it has them."""
    return _invoke(
        *arguments, AXION_STANDARD_PORT="1", AXION_STREAMING_PORT=service.urls["streaming"].split(":")[-1]
    ).output


def _invoke(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(cli, arguments, env=environ, catch_exceptions=False, standalone_mode=False)


def line(output: str, beginning: str) -> list[str]:
    [found] = [row for row in output.splitlines() if row.startswith(beginning)]
    return found.split()


def test_ps_shows_what_is_loaded(service: LiveServer) -> None:
    output = run(service, "ps")
    assert line(output, "fake")[:2] == ["fake", "ready"]
    assert "524.3 MB" in output and "1 of at most 5 models loaded" in output
    assert "org/other" not in output


def test_ps_all_shows_the_others_too(service: LiveServer) -> None:
    assert line(run(service, "ps", "--all"), "org/other")[:2] == ["org/other", "available"]


def test_ps_json_is_the_status_document(service: LiveServer) -> None:
    found = doc.decode_status(run(service, "ps", "--json"))
    assert [m.name for m in found.models] == ["fake", "org/other"]


def test_memory_shows_each_process_and_what_8_bits_save(service: LiveServer) -> None:
    output = run(service, "memory")
    sizes = "419.4 MB 471.9 MB 524.3 MB 104.9 MB 178.3 MB 188.7 MB 52.4 MB 335.5 MB"
    assert line(output, "fake") == ["fake", *sizes.split()]
    assert "157.3 MB saved (47%)" in output
    assert line(output, "server")[1:3] == ["73.4", "MB"]
    assert "cgroup" in output


def test_watch_goes_on_until_ctrl_c(service: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(status_cmd.time, "sleep", sleep)
    lines = run(service, "ps", "--watch", "--json", "--interval", "0.5").splitlines()
    assert [doc.decode_status(row).state for row in lines] == ["ready"] * 3 and waits == [0.5] * 3
    waits.clear()
    assert "fake" in run(service, "memory", "--watch")


@pytest.mark.parametrize(
    ("command", "says", "order"),
    [
        ("load", "fake: loaded", ("load", "fake")),
        ("unload", "fake: loaded", ("unload", "fake", False)),  # the fake never lets go
        ("pin", "fake: loaded, pinned", ("pin", "fake", True)),
        ("unpin", "fake: loaded", ("pin", "fake", False)),
    ],
)
def test_orders(service: LiveServer, command: str, says: str, order: tuple[object, ...]) -> None:
    service.reset()
    assert run(service, command, "fake").strip() == says
    assert service.pool.orders == [order]


def test_an_order_that_the_service_refuses(service: LiveServer) -> None:
    with pytest.raises(ServiceError, match='There is no model "nothing"'):
        run(service, "load", "nothing")
    service.pool.num_running = 1
    try:
        with pytest.raises(ServiceError, match="1 requests in flight"):
            run(service, "unload", "fake")
        run(service, "unload", "--force", "fake")
    finally:
        service.pool.num_running = 0


def test_without_a_service_it_says_what_to_do() -> None:
    with pytest.raises(ServiceError, match=r"no service answers at http://127\.0\.0\.1:1 or .*axion-llm serve"):
        _invoke("ps", **NOWHERE)
    with pytest.raises(ServiceError, match=r"no service answers at http://127\.0\.0\.1:1\. Start"):
        _invoke("ps", "--url", "http://127.0.0.1:1")


def test_a_service_with_keys_wants_an_admin_key(tmp_path: Path) -> None:
    with running(keys_file=write_keys(tmp_path / "keys.toml")) as service:
        url = service.urls["standard"]
        with pytest.raises(ServiceError, match="AXION_KEY"):
            _invoke("ps", "--url", url)
        with pytest.raises(ServiceError, match="scope admin"):
            _invoke("ps", "--url", url, "--key", SECRETS["use"])
        assert json.loads(_invoke("ps", "--json", "--url", url, AXION_KEY=SECRETS["admin"]).output)["state"] == "ready"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_over_tls_ones_own_certificate_is_named_as_for_serve(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path, "own")
    with running(tls_cert=cert, tls_key=key) as service:
        url = service.urls["standard"]
        assert "fake" in _invoke("ps", "--url", url, AXION_TLS_CERT=str(cert), AXION_TLS_KEY=str(key)).output
        with pytest.raises(ServiceError, match="certificate is not trusted: self-signed"):
            _invoke("ps", "--url", url)
