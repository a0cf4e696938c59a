"""Our own OpenAPI document against our own service: requests that fit it and requests that do not.

None is answered with a 5xx, none hangs, and every answer is one that the document describes.
"""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from axion_llm.api.openapi import document
from tests.servers.conftest import LiveServer

SECONDS = 10.0  # for one answer, on a machine that is busy
# The last one is for objects: a stream is a string in OpenAPI, whatever is in it.
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
NO_SHRINKING = (Phase.explicit, Phase.generate)  # a failure is told at once

schema: Any = schemathesis.openapi.from_dict(document())


def bounded(max_examples: int) -> Any:
    skipped = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much]
    return settings(
        max_examples=max_examples, deadline=None, suppress_health_check=skipped, phases=NO_SHRINKING, derandomize=True
    )


def check(case: Any, server: LiveServer) -> None:
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        case.body["model"] = "fake"  # else it would never get beyond the model's name
    response = case.call(base_url=server.urls["standard"], timeout=SECONDS)
    is_streamed = response.headers.get("content-type", [""])[0].startswith("text/event-stream")
    case.validate_response(response, checks=CHECKS[:3] if is_streamed else CHECKS)
    assert response.headers["x-request-id"]


@schema.parametrize()
@bounded(10)
def test_the_service_keeps_its_document(case: Any, server: LiveServer) -> None:
    check(case, server)


@pytest.mark.long
@schema.parametrize()
@bounded(400)
def test_the_service_keeps_its_document_at_length(case: Any, server: LiveServer) -> None:
    check(case, server)
