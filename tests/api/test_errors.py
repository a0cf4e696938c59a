"""One shape for every error, one place that decides it."""

from __future__ import annotations

import json

import pytest
from starlette.exceptions import HTTPException

from axion_llm import errors
from axion_llm.api.errors import problem_for

STATUS = {
    errors.RequestError: 400,
    errors.BadRequest: 400,
    errors.ContextLengthExceeded: 400,
    errors.ModelNotFound: 404,
    errors.Overloaded: 429,
    errors.ServiceError: 500,
    errors.EngineError: 500,
    errors.ModelLoadError: 503,
    errors.InsufficientMemory: 503,
    errors.WorkerDied: 503,
    errors.ShuttingDown: 503,
}


@pytest.mark.parametrize(("kind", "status"), STATUS.items())
def test_the_tree(kind: type[errors.AxionError], status: int) -> None:
    problem = problem_for(kind("it broke", param="model"))
    assert problem.status == status
    assert problem.is_expected
    assert json.loads(problem.to_json()) == {
        "error": {"message": "it broke", "type": problem.type, "param": "model", "code": kind.code}
    }
    assert (problem.type == "server_error") == (status >= 500)


def test_a_new_error_has_the_status_of_its_nearest_ancestor() -> None:
    class New(errors.ModelNotFound):
        code = "new"

    assert problem_for(New("x")).status == 404


@pytest.mark.parametrize(("seconds", "header"), [(0.2, "1"), (1, "1"), (2.1, "3")])
def test_overload_says_when_to_come_back(seconds: float, header: str) -> None:
    problem = problem_for(errors.Overloaded("full", retry_after_seconds=seconds))
    assert problem.headers["retry-after"] == header


def test_a_model_that_cannot_load_is_not_worth_a_retry() -> None:
    assert problem_for(errors.ModelLoadError("truncated")).headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    "exc",
    [
        RuntimeError("secret /home/me"),
        errors.ConfigError("secret"),
        errors.NativeLibraryError("secret"),
        KeyError("secret"),
    ],
)
def test_what_is_not_for_clients_says_nothing(exc: Exception) -> None:
    problem = problem_for(exc)
    assert (problem.status, problem.code, problem.is_expected) == (500, "internal_error", False)
    assert b"secret" not in problem.to_json()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, "not_found"),
        (405, "method_not_allowed"),
        (413, "request_too_large"),
        (503, "not_ready"),
        (418, None),
    ],
)
def test_the_frameworks_own(status: int, code: str | None) -> None:
    problem = problem_for(HTTPException(status, headers={"allow": "GET"}))
    assert (problem.status, problem.code) == (status, code)
    assert problem.headers == {"allow": "GET"}
    assert problem.message


def test_an_event_ends_the_stream() -> None:
    first, last, rest = problem_for(errors.WorkerDied("x\ny")).to_event().split(b"\n\n")
    assert json.loads(first.removeprefix(b"data: "))["error"]["code"] == "worker_died"
    assert (last, rest) == (b"data: [DONE]", b"")


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("m: its file /home/me/my models/m.gguf does not exist", "m: its file m.gguf does not exist"),
        ("/data/m.gguf: truncated: expected 5 bytes", "m.gguf: truncated: expected 5 bytes"),
        ("llama.cpp cannot load '/a/b c/m.gguf': damaged", "llama.cpp cannot load 'm.gguf': damaged"),
        ("see ~/.config/axion-llm/models.toml:3", "see models.toml:3"),
        ("m: ended (SIGABRT)\nits last output:\n/src/ggml.c:1: GGML_ASSERT", "m: ended (SIGABRT)"),
        ("12 tokens/s and/or 3 of 4", "12 tokens/s and/or 3 of 4"),
        ("get it with: axion-llm pull m", "get it with: axion-llm pull m"),
    ],
)
def test_a_client_learns_the_cause_and_no_path(message: str, shown: str) -> None:
    assert problem_for(errors.ModelLoadError(message)).message == shown
