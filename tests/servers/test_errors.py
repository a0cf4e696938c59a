"""Every error over the wire, on each port: status, shape, request id."""

from __future__ import annotations

import json
import logging
import socket
from typing import Any

import httpx
import pytest

from axion_llm import errors
from axion_llm.servers import body as body_module
from tests.fakes.fake_pool import FakePool, Script
from tests.servers.conftest import MAX_BODY_BYTES, LiveServer

CHAT = "/v1/chat/completions"
BODY = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}]}
JSON = {"content-type": "application/json"}


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    body = response.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str) and error["message"]
    assert isinstance(error["type"], str)
    assert isinstance(error["param"], str | None)
    assert isinstance(error["code"], str | None)
    return error


@pytest.mark.behaviour("errors.unknown_model", "errors.shape")
@pytest.mark.parametrize("stream", [False, True, None])
@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
def test_unknown_model(http: httpx.Client, path: str, stream: bool | None) -> None:
    body = {"model": "nope", "messages": BODY["messages"], "prompt": "p", "stream": stream}
    assert error_of(http.post(path, json=body), 404)["code"] == "model_not_found"


@pytest.mark.behaviour("errors.paths", "errors.shape")
def test_unknown_path_and_wrong_method(http: httpx.Client) -> None:
    assert error_of(http.get("/v2/chat"), 404)["code"] == "not_found"
    assert error_of(http.post("/v1/chat/completions/"), 404)["code"] == "not_found"
    response = http.get(CHAT)
    assert error_of(response, 405)["code"] == "method_not_allowed"
    assert response.headers["allow"] == "POST"
    error_of(http.delete("/v1/models/fake"), 405)
    error_of(http.post("/health"), 405)


@pytest.mark.behaviour("errors.unknown_model")
def test_a_model_that_is_not_there(http: httpx.Client) -> None:
    assert error_of(http.get("/v1/models/a/b"), 404)["code"] == "model_not_found"


@pytest.mark.behaviour("errors.validation", "errors.shape")
def test_bad_field(http: httpx.Client) -> None:
    error = error_of(http.post(CHAT, json=BODY | {"temperature": 3}), 400)
    assert error["param"] == "temperature"
    assert error["type"] == "invalid_request_error"
    assert "temperature" in error["message"]


@pytest.mark.behaviour("errors.validation")
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"a":1', b"null"])
def test_broken_body(http: httpx.Client, content: bytes) -> None:
    error_of(http.post(CHAT, content=content, headers=JSON), 400)


@pytest.mark.parametrize("media_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_body_that_is_not_said_to_be_json(http: httpx.Client, media_type: str | None) -> None:
    headers = {"content-type": media_type} if media_type else {}
    error = error_of(http.post(CHAT, content=json.dumps(BODY), headers=headers), 415)
    assert "application/json" in error["message"]


@pytest.mark.parametrize("media_type", ["application/json", "Application/JSON; charset=utf-8", "application/x+json"])
def test_ways_to_say_json(http: httpx.Client, media_type: str) -> None:
    response = http.post(CHAT, content=json.dumps(BODY), headers={"content-type": media_type})
    assert response.status_code == 200


@pytest.mark.behaviour("errors.body_size", "errors.shape")
def test_body_too_large(http: httpx.Client) -> None:
    big = b'"' + b"x" * MAX_BODY_BYTES + b'"'
    assert error_of(http.post(CHAT, content=big, headers=JSON), 413)["code"] == "request_too_large"
    parts = (b"x" * 50_000 for _ in range(8))  # no content-length: counted as it comes
    error_of(http.post(CHAT, content=parts, headers=JSON), 413)
    assert http.post(CHAT, json=BODY).status_code == 200


@pytest.mark.parametrize("extra", ["[" + "1," * 70_000 + "1]", "[" + "[]," * 12_000 + "1]"])
def test_a_body_of_too_many_values(http: httpx.Client, monkeypatch: pytest.MonkeyPatch, extra: str) -> None:
    monkeypatch.setattr(body_module, "MAX_VALUES", 50_000)
    monkeypatch.setattr(body_module, "MAX_CONTAINERS", 10_000)
    content = json.dumps(BODY)[:-1] + f', "x": {extra}}}'
    assert "split it" in error_of(http.post(CHAT, content=content, headers=JSON), 413)["message"]


def test_too_many_messages(http: httpx.Client) -> None:
    body = {"model": "fake", "messages": [{"role": "user"}] * 10_001}
    assert error_of(http.post(CHAT, json=body), 400)["param"] == "messages"


def test_a_large_body_that_is_allowed(http: httpx.Client, pool: FakePool) -> None:
    body = {"model": "fake", "messages": [{"role": "user", "content": "x" * (MAX_BODY_BYTES - 1000)}]}
    assert http.post(CHAT, json=body).status_code == 200


FAULTS = [
    (errors.BadRequest("bad", param="stop"), 400),
    (errors.ContextLengthExceeded("too long", param="messages"), 400),
    (errors.Overloaded("full", retry_after_seconds=2.5), 429),
    (errors.EngineError("decode"), 500),
    (errors.WorkerDied("gone"), 503),
    (errors.InsufficientMemory("no room"), 503),
    (errors.ModelLoadError("truncated"), 503),
    (errors.ServiceError("whatever"), 500),
]


@pytest.mark.behaviour("errors.shape", "errors.context", "errors.capacity")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("place", ["load", "accept"])
@pytest.mark.parametrize(("exc", "status"), FAULTS)
def test_before_the_first_byte_an_error_is_a_status(
    http: httpx.Client, pool: FakePool, exc: errors.AxionError, status: int, place: str, stream: bool
) -> None:
    if place == "load":
        pool.load_error = exc
    else:
        pool.script = Script(reject=exc)
    response = http.post(CHAT, json=BODY | {"stream": stream, "n": 2})
    assert error_of(response, status)["code"] == exc.code
    assert error_of(response, status)["param"] == exc.param
    if status == 429:
        assert response.headers["retry-after"] == "3"


def test_an_error_in_the_middle_of_an_answer_in_one_piece(http: httpx.Client, pool: FakePool) -> None:
    pool.script = Script(fail=errors.WorkerDied("gone"), fail_after=2)
    assert error_of(http.post(CHAT, json=BODY | {"stream": False}), 503)["code"] == "worker_died"


def test_a_cancel_inside_the_server_is_not_an_answer(http: httpx.Client, pool: FakePool) -> None:
    pool.script = Script(reason="cancelled")
    error_of(http.post(CHAT, json=BODY | {"stream": False}), 500)


@pytest.mark.behaviour("errors.shape")
@pytest.mark.parametrize("stream", [False, True])
def test_a_bug_says_nothing_and_is_logged_with_the_request_id(
    http: httpx.Client, pool: FakePool, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    pool.script = Script(reject=RuntimeError("secret"))
    with caplog.at_level(logging.ERROR):
        response = http.post(CHAT, json=BODY | {"stream": stream}, headers={"x-request-id": "mine-1"})
    error = error_of(response, 500)
    assert error["code"] == "internal_error"
    assert "secret" not in response.text
    [record] = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "mine-1" in record.getMessage()
    assert record.exc_info is not None and "secret" in str(record.exc_info[1])


def test_a_bug_outside_of_completions(
    http: httpx.Client, pool: FakePool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def models() -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(pool, "models", models)
    for path in ("/v1/models", "/v1/models/fake", "/health"):
        response = http.get(path)
        error_of(response, 500)
        assert "secret" not in response.text


@pytest.mark.behaviour("errors.request_id")
@pytest.mark.parametrize("given", ["abc-123", "a" * 128, "0b1f:9/z=+~@."])
def test_the_clients_request_id_is_kept(http: httpx.Client, given: str) -> None:
    for response in (
        http.get("/health", headers={"x-request-id": given}),
        http.get("/nowhere", headers={"x-request-id": given}),
        http.post(CHAT, json=BODY, headers={"x-request-id": given}),
    ):
        assert response.headers["x-request-id"] == given


@pytest.mark.behaviour("errors.request_id")
@pytest.mark.parametrize("given", [b"", b"a" * 129, b"a b", b"x\ty", "é".encode()])
def test_a_request_id_that_is_not_sane_is_not(http: httpx.Client, given: bytes) -> None:
    found = http.get("/health", headers={b"x-request-id": given}).headers["x-request-id"]
    assert found.startswith("req-")


def test_what_is_no_http(server: LiveServer) -> None:
    for url in server.urls.values():
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as sock:
            sock.sendall(b"HELO there\r\n\r\n")
            answer = b"".join(iter(lambda: sock.recv(4096), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ") and b"x-request-id: req-" in head
        assert json.loads(body)["error"]["type"] == "invalid_request_error"
