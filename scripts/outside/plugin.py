"""For upstream's own server tests: aims them at a server that is running already, and knows no model but by its name.

llama-server serves one model under any name or none and has its endpoints without /v1 too; here a request that names no
model gets one, and the paths of the OpenAI API get their /v1. Nothing else is changed, and no answer is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

OPENAI_PATHS = ("/chat/completions", "/completions", "/embeddings", "/responses")
MODEL = "tinyllama-2"  # the name of its test model


def aimed(request: Callable[..., Any]) -> Callable[..., Any]:
    def send(self: Any, method: str, path: str, data: Any = None, *args: Any, **options: Any) -> Any:
        if path in OPENAI_PATHS:
            path = "/v1" + path
        if isinstance(data, dict) and data.get("model") is None:
            data = {**data, "model": MODEL}
        return request(self, method, path, data, *args, **options)

    return send


def pytest_configure(config: pytest.Config) -> None:
    os.environ["DEBUG_EXTERNAL"] = "1"
    import utils  # type: ignore[import-not-found]  # upstream's, beside its tests

    utils.ServerPreset.load_all = staticmethod(lambda: None)  # it would fetch models
    for name in ("make_request", "make_stream_request"):
        setattr(utils.ServerProcess, name, aimed(getattr(utils.ServerProcess, name)))
