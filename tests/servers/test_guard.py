"""Over the wire: keys and scopes, limits per key, hosts, origins and CORS."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest
from starlette.datastructures import Headers

from axion_llm.config import Settings
from axion_llm.security import keys_file
from axion_llm.security.keys import SCOPES, Key, digest
from axion_llm.servers.app import create_app
from axion_llm.servers.guard import OPEN_PATHS, Gate, require
from tests.fakes.fake_pool import FakePool, Script
from tests.servers.conftest import LiveServer
from tests.servers.test_errors import error_of

CHAT = "/v1/chat/completions"
BODY = {"model": "fake", "messages": [{"role": "user", "content": "Hi there"}]}
SECRETS = {scope: f"axl-{scope}-0123456789abcdef" for scope in SCOPES}
OPEN = dict.fromkeys(OPEN_PATHS, "GET")
CLOSED = {CHAT: "POST", "/v1/completions": "POST", "/v1/models": "GET", "/v1/models/fake": "GET", "/nowhere": "GET"}


def write_keys(path: Path, **limits: int) -> Path:
    keys_file.write(path, [Key(s, digest(SECRETS[s]), frozenset({s}), **limits) for s in SCOPES])
    return path


@contextmanager
def running(**settings: object) -> Iterator[LiveServer]:
    server = LiveServer(**settings).start()
    try:
        yield server
    finally:
        server.ask_to_stop()
        server.join()


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A service with one key for each scope."""
    with running(keys_file=write_keys(tmp_path_factory.mktemp("keys") / "keys.toml")) as server:
        yield server


@pytest.fixture(params=["standard", "streaming", "consensus"])
def url(locked: LiveServer, request: pytest.FixtureRequest) -> str:
    return locked.urls[request.param]  # type: ignore[index]


def with_key(scope: str) -> dict[str, str]:
    return {"authorization": f"Bearer {SECRETS[scope]}"}


@pytest.mark.behaviour("errors.key")
def test_the_sdk_with_and_without_a_key(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=SECRETS["use"], max_retries=0) as client:
        assert client.models.list().data
        answer = client.chat.completions.create(**BODY, stream=False)  # type: ignore[call-overload]
        assert answer.choices[0].message.content == "Hello world"
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            client.models.list()
        assert caught.value.code == "invalid_api_key"


@pytest.mark.behaviour("errors.key", "errors.shape")
@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer wrong", "Basic dTpw", "\xff"])
@pytest.mark.parametrize("path", CLOSED)
def test_without_a_right_key_all_paths_are_closed(url: str, path: str, given: str | None) -> None:
    headers = [] if given is None else [(b"authorization", given.encode("latin-1"))]
    response = httpx.request(CLOSED[path], url + path, headers=headers)
    error = error_of(response, 401)
    assert error["code"] == "invalid_api_key"
    assert error["type"] == "invalid_request_error"
    assert response.headers["www-authenticate"] == "Bearer"
    assert "wrong" not in response.text


@pytest.mark.parametrize("path", OPEN)
def test_health_is_open(url: str, path: str) -> None:
    assert httpx.get(url + path).status_code == 200
    assert httpx.get(url + path, headers={"x-api-key": "wrong"}).status_code == 200


def test_health_tells_strangers_no_more_than_that(url: str) -> None:
    assert httpx.get(f"{url}/health").json() == {"status": "ok"}
    assert httpx.get(f"{url}/health", headers=with_key("metrics")).json()["models"][0]["id"] == "fake"


@pytest.mark.parametrize(
    ("scope", "models", "metrics"), [("use", 200, 403), ("metrics", 403, 200), ("admin", 200, 200)]
)
def test_scopes(url: str, scope: str, models: int, metrics: int) -> None:
    for path, status in (("/v1/models", models), ("/metrics", metrics)):
        response = httpx.get(url + path, headers=with_key(scope))
        assert response.status_code == status
        if status == 403:
            assert error_of(response, 403)["code"] == "permission_denied"


def test_x_api_key_is_taken_too(url: str) -> None:
    assert httpx.get(f"{url}/v1/models", headers={"x-api-key": SECRETS["use"]}).status_code == 200


def test_the_log_names_the_key_and_never_shows_it(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        httpx.get(f"{url}/v1/models", headers=with_key("use"))
        httpx.get(f"{url}/v1/models", headers={"authorization": "Bearer secret-of-another-service"})
    assert " key=use " in caplog.text
    assert SECRETS["use"] not in caplog.text and "secret-of-another" not in caplog.text


def test_a_new_and_a_revoked_key_count_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("axion_llm.security.keyring.LOOK_SECONDS", 0.0)
    path = write_keys(tmp_path / "keys.toml")
    with running(keys_file=path) as server, httpx.Client(base_url=server.urls["standard"]) as client:
        new = Key("new", digest("n" * 20), frozenset({"use"}))
        keys_file.write(path, [*keys_file.read(path), new])
        assert client.get("/v1/models", headers={"x-api-key": "n" * 20}).status_code == 200
        keys_file.write(path, [])
        assert client.get("/v1/models", headers={"x-api-key": "n" * 20}).status_code == 401


def test_keys_of_the_environment() -> None:
    with running(api_keys="u" * 16, admin_keys="a" * 16) as server:
        for secret, status in (("u" * 16, 403), ("a" * 16, 200), ("x" * 16, 401)):
            response = httpx.get(server.urls["standard"] + "/metrics", headers={"x-api-key": secret})
            assert response.status_code == status


# ---- a service without keys


@pytest.mark.parametrize(("client", "status"), [("127.0.0.1", 200), ("::ffff:127.0.0.1", 200), ("192.0.2.7", 403)])
async def test_without_keys_admin_is_for_this_machine(client: str, status: int, tmp_path: Path) -> None:
    settings = Settings(host="0.0.0.0", responses_file=tmp_path / "responses.sqlite")
    app = create_app(FakePool(), settings, kind="standard")
    app.add_api_route("/admin/try", lambda: {}, methods=["POST"], dependencies=[require("admin")])
    transport = httpx.ASGITransport(app, client=(client, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://server.lan") as http:
        assert (await http.post("/admin/try")).status_code == status
        assert (await http.get("/v1/models")).status_code == 200


# ---- limits


def test_requests_per_minute(tmp_path: Path) -> None:
    path = write_keys(tmp_path / "keys.toml", requests_per_minute=2)
    with running(keys_file=path) as server:
        headers = with_key("use")
        for left, url in ((1, server.urls["standard"]), (0, server.urls["streaming"])):  # one limit for all ports
            response = httpx.post(url + CHAT, json=BODY, headers=headers)
            assert response.status_code == 200
            assert response.headers["x-ratelimit-limit-requests"] == "2"
            assert response.headers["x-ratelimit-remaining-requests"] == str(left)
        response = httpx.post(url + CHAT, json=BODY, headers=headers)
        assert error_of(response, 429)["code"] == "rate_limit_exceeded"
        assert error_of(response, 429)["type"] == "rate_limit_error"
        assert 15 <= int(response.headers["retry-after"]) <= 30
        assert response.headers["x-ratelimit-remaining-requests"] == "0"
        reset = response.headers["x-ratelimit-reset-requests"]
        assert reset == "1m0s" or 45 < float(reset.removesuffix("s")) < 60
        assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 200  # what generates counts
        assert httpx.post(url + CHAT, json=BODY, headers=with_key("admin")).status_code == 200  # others go on


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_per_minute_are_the_true_ones(stream: bool) -> None:
    with running(api_keys="u" * 16, tokens_per_minute=100) as server:
        server.pool.script = Script(pieces=["x"] * 30)
        with httpx.Client(base_url=server.urls["standard"], headers={"x-api-key": "u" * 16}) as client:
            body = BODY | {"stream": stream, "n": 2}
            first = client.post(CHAT, json=body)
            assert first.status_code == 200
            prompt = len(server.pool.requests[0].prompt.split())  # type: ignore[union-attr]  # as the fake counts
            left = int(client.post(CHAT, json={}).headers["x-ratelimit-remaining-tokens"])
            assert abs(100 - (prompt + 2 * 30) - left) <= 1  # some has flowed in; the prompt counts once
            assert client.post(CHAT, json=body).status_code == 200  # enters with a little left, and leaves a debt
            refused = client.post(CHAT, json=body)
            assert "100 tokens per minute" in error_of(refused, 429)["message"]
            assert refused.headers["x-ratelimit-remaining-tokens"] == "0"


@pytest.mark.parametrize("port", ["standard", "streaming", "consensus"])
@pytest.mark.parametrize("model", ["fake", "consensus/vote", "consensus/synthesize", "consensus/route"])
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_all_that_a_model_is_asked_bears_its_callers_tenant(tmp_path: Path, port: str, model: str, api: str) -> None:
    if port != "consensus" and model != "fake":
        pytest.skip("of the consensus port")
    file = tmp_path / "keys.toml"
    known = [Key(s, digest(SECRETS[s]), frozenset({"use"}), group="shop" if s == "admin" else "") for s in SCOPES]
    keys_file.write(file, known)
    path, prompt = (CHAT, {"messages": BODY["messages"]}) if api == "chat" else ("/v1/responses", {"input": "Hi"})
    with running(keys_file=file) as server:
        for scope in SCOPES:
            body = {"model": model, **prompt, "stream": False}
            answer = httpx.post(f"{server.urls[port]}{path}", json=body, headers=with_key(scope))  # type: ignore[index]
            assert answer.status_code == 200, answer.text
            asked = {request.tenant for request in server.pool.requests}
            assert asked == {known[SCOPES.index(scope)].tenant}
            server.pool.requests.clear()
    assert len({key.tenant for key in known}) == 3


@pytest.mark.parametrize(("share", "count"), [("tenant", 2), ("all", 1)])
def test_who_shares(share: str, count: int) -> None:
    gate = Gate(Settings(api_keys="a" * 16 + "," + "b" * 16, share_prefixes=share))
    callers = [gate.caller(Headers({"x-api-key": letter * 16}), None) for letter in "ab"]
    tenants = {gate.tenant(caller) for caller in callers}
    assert len(tenants) == count
    assert "" not in tenants


def test_keys_of_the_same_name_have_budgets_of_their_own(tmp_path: Path) -> None:
    """A name in the file can be that of a key of the environment."""
    file = tmp_path / "keys.toml"
    keys_file.write(file, [Key("api_keys-1", digest("f" * 16), frozenset({"use"}))])
    gate = Gate(Settings(api_keys="e" * 16, keys_file=file, requests_per_minute=1))
    one, other = (gate.caller(Headers({"x-api-key": letter * 16}), None) for letter in "ef")
    assert one.name == other.name
    first = gate.budget(one)
    assert gate.budget(other) is not first
    assert gate.budget(one) is first


def test_without_limits_there_are_no_headers(url: str) -> None:
    response = httpx.post(url + CHAT, json=BODY, headers=with_key("use"))
    assert not [name for name in response.headers if name.startswith("x-ratelimit")]


# ---- hosts, origins, CORS


@pytest.mark.parametrize("path", ["/v1/models", "/health", "/nowhere", "/metrics"])
def test_a_name_that_was_rebound_to_this_machine_reaches_nothing(server: LiveServer, path: str) -> None:
    port = server.urls["standard"].rpartition(":")[2]
    response = httpx.get(server.urls["standard"] + path, headers={"host": f"evil.example:{port}"})
    assert "--allowed-host" in error_of(response, 403)["message"]
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", "[::1]"):
        response = httpx.get(server.urls["standard"] + path, headers={"host": host})
        assert response.status_code == (404 if path == "/nowhere" else 200)


def test_names_that_are_allowed() -> None:
    with running(allowed_hosts=("llm.example.org",), api_keys="u" * 16) as server:
        for host, status in (("llm.example.org:1", 200), ("evil.example", 403)):
            assert httpx.get(server.urls["standard"] + "/health", headers={"host": host}).status_code == status


def test_with_keys_any_name_will_do(url: str) -> None:
    assert httpx.get(f"{url}/health", headers={"host": "behind.a.proxy"}).status_code == 200


def test_a_page_of_another_origin_may_change_nothing(server: LiveServer) -> None:
    url = server.urls["standard"]
    for origin, status in (("https://evil.example", 403), ("null", 403), (url, 200)):
        response = httpx.post(url + CHAT, json=BODY, headers={"origin": origin})
        assert response.status_code == status
        assert "access-control-allow-origin" not in response.headers


def test_cors_is_closed_until_an_origin_is_named(server: LiveServer) -> None:
    headers = {"origin": "https://my.app", "access-control-request-method": "POST"}
    response = httpx.options(server.urls["standard"] + CHAT, headers=headers)
    assert response.status_code == 405
    assert not [name for name in response.headers if name.startswith("access-control")]
    with running(cors_origins=("https://my.app",), api_keys="u" * 16) as opened:
        url = opened.urls["standard"] + CHAT
        asked = headers | {"access-control-request-headers": "authorization,content-type,x-stainless-os"}
        preflight = httpx.options(url, headers=asked)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://my.app"
        assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
        refused = httpx.options(url, headers=asked | {"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in refused.headers
        answer = httpx.post(url, json=BODY, headers={"origin": "https://my.app"})
        assert error_of(answer, 401)  # an error that the page can read
        assert answer.headers["access-control-allow-origin"] == "https://my.app"
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
        assert answer.headers["x-request-id"]


def test_a_private_network_is_granted_to_whom_is_let_in() -> None:
    ask = {"access-control-request-method": "POST", "access-control-request-private-network": "true"}
    with running(cors_origins=("https://my.app",)) as server:
        url = server.urls["standard"] + CHAT
        granted = httpx.options(url, headers={"origin": "https://my.app", **ask})
        assert granted.status_code == 200
        assert granted.headers["access-control-allow-private-network"] == "true"
        refused = httpx.options(url, headers={"origin": "https://evil.example", **ask})
        assert "origin" in error_of(refused, 400)["message"]
        assert "access-control-allow-private-network" not in refused.headers


def test_a_gate_is_made_of_settings_only() -> None:
    """Nothing of it needs an event loop, so that a bad key file ends the start before any load."""
    assert Gate(Settings()).ring is not None
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
